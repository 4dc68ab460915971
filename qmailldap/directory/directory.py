"""Which server is asked, for how long, and what happens when it fails.

Servers are asked in the order of ldapserver, those that are up first. While another one that is up
remains, an attempt at a server has half of the time that is left and at most `ATTEMPT_LIMIT`; the
last has all of it. An operation whose connection drops is tried once more: at the next server, and
at the same one when there is no other. When no server is up, those whose last failure is a second
ago or more are tried; logins that come together share one attempt to connect.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, TypeVar

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredList, TimeoutError
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime
from twisted.python.failure import Failure

from qmailldap.account import Entry
from qmailldap.control import Control, ServerAddress
from qmailldap.directory._lookups import Lookups
from qmailldap.directory._server import Connector, Server, ServerSettings
from qmailldap.directory.errors import ConnectionDropped, DirectoryUnavailable, ServerTrouble
from qmailldap.directory.search import Search
from qmailldap.directory.tls import tls_by_server
from qmailldap.figures.tally import Tally

__all__ = [
    "ATTEMPT_LIMIT",
    "CONNECTIONS",
    "QUEUE_LIMIT",
    "REBIND_CONNECTIONS",
    "Answer",
    "Directory",
]

CONNECTIONS = 4
"""Connections to one server that searches share."""

REBIND_CONNECTIONS = 4
"""Connections to one server for binds with the passwords of users, one bind at a time on each."""

QUEUE_LIMIT = 1000
"""Operations under way or waiting; more fail at once."""

ATTEMPT_LIMIT = 5.0
"""Seconds that one server may cost while another one may still be asked.

Also those of connecting and binding, or half of ldaptimeout if that is less."""

T = TypeVar("T")


@attrs.frozen
class Answer(Generic[T]):
    """What a server has answered: which one, after how many seconds, what went wrong before."""

    value: T
    server: ServerAddress
    seconds: float
    troubles: tuple[str, ...] = ()


class Directory:
    """The directory servers of the site, as one.

    Raises `qmailldap.control.ControlError` when ldapobjectclass or ldapbasedn cannot be used, and
    as `tls_by_server` does.
    ``connect`` makes the TCP connections, by default to whatever addresses the host's name has,
    ``tally`` counts what servers do.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        control: Control,
        *,
        connections: int = CONNECTIONS,
        rebind_connections: int = REBIND_CONNECTIONS,
        queue_limit: int = QUEUE_LIMIT,
        connect: Connector | None = None,
        tally: Tally | None = None,
    ) -> None:
        self._clock = reactor
        self._timeout = float(control.ldaptimeout)
        self._queue_limit = queue_limit
        self._search = Search(control)
        settings = ServerSettings(
            search=self._search,
            dn=control.ldaplogin.encode("utf-8"),
            # A password without a name would be no bind as anyone (RFC 4513, section 5.1).
            password=control.ldappassword if control.ldaplogin else b"",
            connections=connections,
            rebind_connections=rebind_connections,
            attempt_limit=min(ATTEMPT_LIMIT, self._timeout / 2),
        )
        connect = connect or _tcp_connector(reactor, settings.attempt_limit)
        tls = tls_by_server(control)
        self._servers = [
            Server(reactor, address, connect, settings, tls.get(address), tally)
            for address in control.ldapserver
        ]
        self._tally = tally
        self._lookups = Lookups(self._look_up, self._joined)
        self._under_way: set[Deferred[Any]] = set()
        self._callers = 0
        self._stopped = False

    @property
    def servers(self) -> tuple[Server, ...]:
        """In the order of ldapserver: for those who tell how they are."""
        return tuple(self._servers)

    def answers(self, fresh: float) -> Deferred[bool]:
        """Whether some server has answered anything within ``fresh`` seconds, or does so now.

        For those who want to know where nobody logs in. Fires within `ATTEMPT_LIMIT`; what comes
        later counts as no answer.
        """
        looking = [server.answers(fresh) for server in self._servers]
        told: Deferred[bool] = Deferred()
        left = len(looking)

        def came(answered: bool) -> None:
            nonlocal left
            left -= 1
            if not told.called and (answered or not left):
                told.callback(answered)

        for each in looking:
            each.addCallback(came)
        return told.addTimeout(ATTEMPT_LIMIT, self._clock).addErrback(_not_in_time)

    def look(self, fresh: float) -> None:
        """Ask those servers something, in the background, that have not answered for so long."""
        for server in self._servers:
            server.answers(fresh)

    def start(self) -> None:
        """Connect to the first server in the background. A directory that is down is no error."""
        self._servers[0].warm()

    def stop(self) -> Deferred[None]:
        """Fail what is under way, close everything; fires when nothing is left of it."""
        self._stopped = True
        for operation in list(self._under_way):
            operation.cancel()
        self._lookups.stop()
        stopped = DeferredList([server.stop() for server in self._servers])
        return stopped.addCallback(lambda _: None)

    async def find(self, login: bytes) -> tuple[Entry, ...]:
        """The entries whose uid is ``login``: none, one, or two where there are two or more.

        Those who ask for the same login while it is searched for are answered together. So what is
        found may have been asked for before this was called, by no more than the time that one
        search takes, and not show what was changed in the directory since then. Nothing is kept
        once it is found.

        Raises `DirectoryUnavailable` when no server has answered within ldaptimeout, and
        `EntryTooLarge` when one has answered with an entry that cannot be a login's.
        """
        self._enter()
        try:
            return await self._lookups.find(login)
        finally:
            self._callers -= 1

    async def search(self, filter: Any, more: Iterable[str] = ()) -> Answer[tuple[Entry, ...]]:
        """The entries that a filter matches, as `find` has them, and where they come from.

        ``more`` are attributes to ask for besides those that a login needs. Raises as `find`.
        """
        more = tuple(more)
        return await self._within_the_time(lambda server, limit: server.search(filter, limit, more))

    async def check(self) -> Answer[tuple[Entry, ...]]:
        """The entry of the search base: whether some server can be asked at all.

        Raises `DirectoryUnavailable` as `find` does.
        """
        return await self._within_the_time(lambda server, limit: server.check(limit))

    async def sample(self) -> Answer[tuple[Entry, ...]]:
        """One of all the entries that ldapobjectclass matches, without attributes, or none.

        Raises `DirectoryUnavailable` as `find` does.
        """
        return await self._within_the_time(lambda server, limit: server.sample(limit))

    async def prove(self, dn: str, password: bytes) -> bool:
        """Whether ``password`` is that of the entry ``dn``, which is as `find` gave it.

        An empty password is none, and is not asked about: a server would take the bind for an
        anonymous one and accept it. Raises `DirectoryUnavailable` as `find` does.
        """
        if not dn or not password:
            return False
        name = dn.encode("utf-8", "surrogateescape")
        answer = await self._within_the_time(
            lambda server, limit: server.prove(name, password, limit)
        )
        return answer.value

    def _enter(self) -> None:
        """Take a place in the queue."""
        if self._stopped:
            raise DirectoryUnavailable("the directory was stopped")
        if self._callers >= self._queue_limit:
            raise DirectoryUnavailable(f"{self._queue_limit} operations are under way already")
        self._callers += 1

    def _joined(self) -> None:
        if self._tally is not None:
            self._tally.add("directory_joined_lookups_total")

    def _look_up(self, login: bytes) -> Deferred[tuple[Entry, ...]]:
        return Deferred.fromCoroutine(self._entries(login))

    async def _entries(self, login: bytes) -> tuple[Entry, ...]:
        answer = await self._at_some_server(lambda server, limit: server.find(login, limit))
        return answer.value

    async def _within_the_time(
        self, operation: Callable[[Server, float], Coroutine[Deferred[Any], Any, T]]
    ) -> Answer[T]:
        self._enter()
        attempts = Deferred.fromCoroutine(self._at_some_server(operation))
        self._under_way.add(attempts)
        try:
            return await attempts
        finally:
            self._under_way.discard(attempts)
            self._callers -= 1

    async def _at_some_server(
        self, operation: Callable[[Server, float], Coroutine[Deferred[Any], Any, T]]
    ) -> Answer[T]:
        """The first answer of a server to the operation, which keeps to the limit it is given."""
        give_up_at = self._clock.seconds() + self._timeout
        untried = list(self._servers)
        troubles: list[str] = []
        dropped = False
        while (server := _next_server(untried)) is not None:
            untried.remove(server)
            begun = self._clock.seconds()
            left = give_up_at - begun
            if left <= 0:
                troubles.append(f"no server answered within {self._timeout:.0f} s")
                break
            if troubles and self._tally is not None:
                self._tally.add("directory_retries_total")
            others = any(other.up for other in untried)
            try:
                value = await operation(server, min(ATTEMPT_LIMIT, left / 2) if others else left)
            except ConnectionDropped as trouble:
                self._count_failure(server)
                troubles.append(f"{server}: {trouble}")
                if dropped:
                    break  # It may be the operation that servers cannot bear.
                dropped = True
                untried.append(server)
            except ServerTrouble as trouble:
                self._count_failure(server)
                troubles.append(f"{server}: {trouble}")
            except CancelledError:
                if self._stopped:
                    raise DirectoryUnavailable("the directory was stopped") from None
                raise
            else:
                taken = self._clock.seconds() - begun
                return Answer(value, server.address, taken, tuple(troubles))
        reason = "; ".join(troubles) or "every server is down and was tried a moment ago"
        raise DirectoryUnavailable(reason)

    def _count_failure(self, server: Server) -> None:
        if self._tally is not None:
            self._tally.add("directory_failures_total", str(server))


def _not_in_time(failure: Failure) -> bool:
    failure.trap(TimeoutError)
    return False


def _next_server(untried: list[Server]) -> Server | None:
    for server in untried:
        if server.up:
            return server
    for server in untried:
        if server.worth_a_try:
            return server
    return None


def _tcp_connector(reactor: Any, limit: float) -> Connector:
    def connect(address: ServerAddress, factory: IProtocolFactory) -> Deferred[IProtocol]:
        endpoint = HostnameEndpoint(reactor, address.host, address.port, timeout=limit)
        return endpoint.connect(factory)

    return connect
