"""A whole server with directory, mail, members and clients, by a clock and without a kernel.

`World.do` has something happen; `World.end` lets time pass until everything has come to its end by
itself, and says what has not.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar
from unittest import mock

from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.protocols import tls

from fuzz.actions import MOST_ACTIONS, WORDS, Action
from fuzz.leftovers import Leftovers
from fuzz.neighbours import LATENCY, Threads, answers
from fuzz.site import (
    CLEAR_PASSWORD,
    OWNER,
    PASSWORD,
    TRUSTED,
    Mail,
    Options,
    certificates,
    control,
    records,
)
from fuzz.sockets import Client, Reactor, Socket
from qmailldap.admission import Admission, Connections, Guesses, ScoreTable, Sessions
from qmailldap.checker import HashProof, LDAPChecker
from qmailldap.cluster import Cluster
from qmailldap.directory import Directory
from qmailldap.forward import ClusterTLS, Forwarder
from qmailldap.haproxy import ProxyFactory
from qmailldap.owners import Owners
from qmailldap.pop3 import Limits, POP3Factory
from qmailldap.present import Present
from qmailldap.realm import MailRealm
from qmailldap.tls.factory import TLSFactory
from tests.directory import fake

__all__ = ["World", "play"]

T = TypeVar("T")

HOSTS = ("198.51.100.7", "198.51.100.8", "2001:db8:7::7", "127.0.0.1", TRUSTED)
WAITS = (0.0, 0.01, 0.1, 1.0, 2.0, 5.0, 16.0, 21.0, 31.0, 61.0, 301.0, 599.0, 601.0, 1300.0)

ROOMS = tuple(
    f"qmailldap.{room}"
    for room in (
        *("pop3", "maildir", "forward", "directory", "admission", "handover", "session"),
        "present",
    )
)

GRACES = (0.0, 0.5, 9.0, 30.0)

_LATE = 0.5
"""Seconds: a turn of the reactor, and what is written at the last moment is to get out."""

_SETTLING = 0.3
_A_DAY = 86_400.0
_MOST_UNREAD = 512 * 1024
_MOST_UNSENT = 512 * 1024
"""Octets that the server may hold of one client, and for one; the limits it has are lower."""

_NAMES = ("userPassword", "qmailUID", "homeDirectory", "mailHost", "accountStatus", "mailQuotaSize")


class World:
    """One server and what is around it. ``mail`` is Joe's, as it was delivered."""

    def __init__(self, options: Options, mail: Mail) -> None:
        site = control(options)
        self.reactor = Reactor()
        self._clients: list[Client] = []
        self._at = 0
        self._records = records(mail.home)
        self._network = fake.Network(self.reactor)
        self._servers = [self._network.server(address.host) for address in site.ldapserver]
        for server in self._servers:
            server.search = self._finds
            server.bind = fake.checks_password
        self._threads = Threads(self.reactor)
        self._directory = Directory(self.reactor, site, connect=self._network.connect)
        cluster = Cluster(site)
        checker = LDAPChecker(
            self._directory,
            HashProof(self._threads, cleartext=site.ldapcleartext > 0),
            site.account_defaults,
            self.reactor,
            keeps=cluster.keeps,
            cleartext=site.ldapcleartext > 0,
        )
        forwarder = Forwarder(self.reactor, cluster, ClusterTLS(site), self.reactor.names)
        owners = Owners(self._threads, None, None, lambda: (OWNER, OWNER))
        limits = site.pop3limits
        self._connections = Connections(limits.connections, limits.connections_per_address)
        self._scores = ScoreTable.in_memory(sets=16)
        self._sessions = Sessions(limits.sessions, cluster.trusts)
        admission = Admission(
            self._connections, Guesses(self.reactor, self._scores, limits), cluster.trusts
        )
        self._present = Present(self.reactor)
        self._stops: list[tuple[float, Deferred[None]]] = []
        factory: Any = POP3Factory(
            Portal(
                MailRealm(owners, forwarder, self._threads, self.reactor, self._sessions), [checker]
            ),
            "mail1.example.org",
            self.reactor,
            Limits.of(limits),
            trusts=cluster.trusts,
            tls=certificates(),
            requires_tls=site.requiretls,
            cleartext=site.ldapcleartext,
            admission=admission,
            present=self._present,
        )
        if options.tls:
            factory = TLSFactory(certificates(), factory, self.reactor)
        if options.haproxy:
            factory = ProxyFactory(
                factory,
                self.reactor,
                limits.proxy_time,
                admission=admission,
                present=self._present,
            )
        self._factory = factory
        self._options = options
        self._directory.start()

    def do(self, action: Action) -> None:
        """Have it happen, and take one turn of the reactor."""
        getattr(self, f"_do_{action.name}")(action.value)
        self._turn()

    def end(self) -> None:
        """Wait for the end of everything. Raises ``AssertionError`` for what has none."""
        self._threads.held = False
        self._threads.work()
        self._pass_time(lambda: not self._open())
        assert not self._open(), f"{len(self._open())} connections are open after a day"
        for wire in self.reactor.standing():
            wire.lose()
        self._directory.stop()
        self._pass_time(lambda: not self.reactor.getDelayedCalls())
        left = [str(call) for call in self.reactor.getDelayedCalls()]
        assert not left, f"still to be called: {left}"
        assert not any(server.open_peers for server in self._servers), "the directory is not left"
        assert not self.reactor.standing(), "members are not left"
        assert not len(self._connections), f"{len(self._connections)} places are taken"
        assert not len(self._sessions), f"{len(self._sessions)} users have sessions"
        assert not [*self._present], f"{len([*self._present])} are on"
        assert all(stop.called for _, stop in self._stops), "a stop has no end"
        self._scores.close()

    @property
    def _client(self) -> Client:
        if not self._clients:
            self._do_connect(b"")
        return self._clients[self._at % len(self._clients)]

    def _open(self) -> list[Client]:
        return [client for client in self._clients if not client.socket.closed]

    def _turn(self) -> None:
        for client in self._clients:
            client.listen()
        self.reactor.turn()
        self.reactor.advance(LATENCY)
        self.reactor.assert_bounded(_MOST_UNREAD, _MOST_UNSENT)
        for end, stop in self._stops:
            assert stop.called or self.reactor.seconds() <= end, "a stop takes too long"

    def _pass_time(self, enough: Callable[[], bool]) -> None:
        """Go from one thing that is due to the next."""
        give_up_at = self.reactor.seconds() + _A_DAY
        while not enough() and self.reactor.seconds() < give_up_at:
            self._turn()
            # The system gives up in its own time, too.
            for lookup in [each for each in self.reactor.names.lookups if not each.called]:
                lookup.errback(OSError("no name server answers"))
            due = [call.getTime() for call in self.reactor.getDelayedCalls()]
            if due:
                self.reactor.advance(max(0.0, min([*due, give_up_at]) - self.reactor.seconds()))
            elif not self.reactor.busy:
                return

    # Clients.

    def _do_connect(self, value: bytes) -> None:
        host = _one_of(HOSTS, value)
        socket = Socket(host, 40_000 + len(self._clients))
        self._clients.append(Client(socket))
        self._at = len(self._clients) - 1
        self.reactor.accept(self._factory, socket)
        if self._options.haproxy and not _number(value) & 128:
            self._client.say(_HEADERS[_number(value) // len(HOSTS) % len(_HEADERS)])
        if self._options.tls:
            self._client.begin_tls()

    def _do_switch(self, value: bytes) -> None:
        self._at = _number(value)

    def _do_word(self, value: bytes) -> None:
        self._client.say(_one_of(WORDS, value))

    def _do_say(self, value: bytes) -> None:
        self._client.say(value)

    def _do_flood(self, value: bytes) -> None:
        self._client.say(_one_of(WORDS, value) * (8 * _number(value[1:])))

    def _do_in_clear(self, value: bytes) -> None:
        self._client.socket.coming += value

    def _do_tls(self, _: bytes) -> None:
        self._client.begin_tls()

    def _do_leave_tls(self, _: bytes) -> None:
        self._client.leave_tls()

    def _do_half_close(self, _: bytes) -> None:
        self._client.socket.ended = True

    def _do_reset(self, _: bytes) -> None:
        self._client.socket.broken = True

    def _do_deaf(self, _: bytes) -> None:
        self._client.socket.is_read = False

    def _do_hear(self, _: bytes) -> None:
        self._client.socket.read_on()

    def _do_challenge(self, value: bytes) -> None:
        """Answer the last challenge as one who knows the password does; or nearly so."""
        password = CLEAR_PASSWORD[: -1 if _number(value) & 1 else None]
        challenges = re.findall(rb"\+ ([A-Za-z0-9+/=]+)\r\n|(<[^>\r\n]+>)", self._client.received)
        if not challenges:
            return
        asked, greeting = challenges[-1]
        if greeting:
            digest = hashlib.md5(greeting + password).hexdigest().encode()
            self._client.say(b"APOP sue " + digest + b"\r\n")
        else:
            asked = base64.b64decode(asked + b"===")
            digest = hmac.digest(password, asked, "md5").hex().encode()
            self._client.say(base64.b64encode(b"sue " + digest) + b"\r\n")

    # Time.

    def _do_turn(self, _: bytes) -> None:
        """No more than what every action does."""

    def _do_settle(self, _: bytes) -> None:
        self._let_pass(_SETTLING)

    def _do_wait(self, value: bytes) -> None:
        self._let_pass(_one_of(WAITS, value))

    def _let_pass(self, seconds: float) -> None:
        until = self.reactor.seconds() + seconds
        while self.reactor.seconds() < until:
            self._turn()
            if not self.reactor.busy:
                due = [call.getTime() for call in self.reactor.getDelayedCalls()]
                self.reactor.advance(max(0.0, min([*due, until]) - self.reactor.seconds()))

    # The directory.

    def _do_search(self, value: bytes) -> None:
        for server in self._servers:
            server.search = _one_of(answers(self.reactor, self._finds), value)

    def _do_bind(self, value: bytes) -> None:
        for server in self._servers:
            server.bind = _one_of(answers(self.reactor, fake.checks_password), value)

    def _do_push(self, value: bytes) -> None:
        for server in self._servers:
            for peer in [*server.open_peers]:
                peer.deliver(value)

    def _do_record(self, value: bytes) -> None:
        # A password in another attribute is no secret.
        name, rest = _NAMES[_number(value) % len(_NAMES)], value[1:].replace(PASSWORD, b"")
        self._records[b"joe"] = {**self._records[b"joe"], name: [rest] if rest else []}

    def _do_directory(self, value: bytes) -> None:
        number = _number(value)
        server = self._servers[number % 2]
        if number & 2:
            server.running = True
        else:
            server.stop()
        server.reachable = not number & 4

    def _finds(self, peer: fake.Peer, message: Any) -> None:
        search = message.value
        login = b"" if search.scope == 0 else fake.login_of(search)
        record = self._records.get(login)
        found = (
            []
            if record is None
            else [fake.entry(f"uid={login.decode()},{fake.BASE}", [*record.items()])]
        )
        peer.answer(message, *found, fake.done())

    # Threads, and another member.

    def _do_threads(self, value: bytes) -> None:
        self._threads.held = bool(_number(value) % 2)
        self._threads.work()

    def _do_member(self, value: bytes) -> None:
        for wire in self.reactor.standing():
            what = _number(value) % 4
            if wire.pending:
                wire.accept() if what else wire.fail()
            elif what == 1:
                wire.close()
            elif what == 2:
                wire.lose()
            else:
                wire.said()

    def _do_member_says(self, value: bytes) -> None:
        for wire in self.reactor.standing():
            if wire.open:
                wire.say(value)

    # The administrator.

    def _do_stop(self, value: bytes) -> None:
        """Ports stay open: who comes meanwhile is as one who came a moment before."""
        seconds = _one_of(GRACES, value)
        # The first one says how long all of them take.
        ends = [end for end, _ in self._stops[:1]] or [self.reactor.seconds() + seconds]
        late = self.reactor.seconds() + _LATE
        self._stops.append((max(late, ends[0] + _LATE), self._present.drain(seconds)))

    def _do_kick(self, value: bytes) -> None:
        sessions = [each.presence().id or "joe" for each in self._present]
        kicked = self._present.kick(_one_of(["joe", *sessions], value))
        # So few are looked at in one go.
        assert Deferred.fromCoroutine(kicked).called


_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_V2_ENDS = b"\xc6\x33\x64\x09\xc0\x00\x02\x01\x12\x67\x00\x6e"
_HEADERS = (
    b"PROXY TCP4 198.51.100.9 192.0.2.1 4711 110\r\n",
    b"PROXY TCP6 2001:db8:9::9 2001:db8::1 4711 110\r\n",
    b"PROXY UNKNOWN\r\n",
    # The client spoke TLS.
    _V2 + b"\x21\x11\x00\x14" + _V2_ENDS + b"\x20\x00\x05\x01\x00\x00\x00\x00",
    _V2 + b"\x20\x00\x00\x00",
)


def play(actions: Iterable[Action], mail: Mail, leftovers: Leftovers, options: Options) -> None:
    """A world, these actions, and its end. Raises ``AssertionError`` for anything that is wrong."""
    mail.deliver()
    leftovers.begin()
    world = World(options, mail)
    # What TLS has small writes wait for; startTLS asks for no other.
    with mock.patch.object(tls, "_get_default_clock", lambda clock=world.reactor: clock):
        for action in itertools.islice(actions, MOST_ACTIONS):
            world.do(action)
        world.end()
    del world
    leftovers.assert_none()
    removed = any(event.get("deleted") for event in leftovers.events)
    assert removed or mail.contents == mail.all_of_it, "mail has gone that nobody has deleted"


def _number(value: bytes) -> int:
    return value[0] if value else 0


def _one_of(choices: Sequence[T], value: bytes) -> T:
    return choices[_number(value) % len(choices)]
