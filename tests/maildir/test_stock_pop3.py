"""The mailbox under the stock protocol of Twisted, over loopback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.mail.pop3 import POP3, IMailbox
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import Interface, implementer

from qmailldap.maildir.mailbox import open_mailbox
from tests.maildir.support import (
    deliver,
    descriptors_below,
    files_of,
    here,
    in_threads,
    make_maildir,
)

Avatar = tuple[type[Interface], object, Callable[[], None]]


@implementer(IRealm)
class Realm:
    """Gives everybody the one mailbox."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def _avatar(self) -> Avatar:
        mailbox = await open_mailbox(in_threads(here, self._path), here)
        return IMailbox, mailbox, mailbox.close

    def requestAvatar(
        self, avatarId: bytes | tuple[()], mind: object, *interfaces: type[Interface]
    ) -> Deferred[Avatar]:
        return Deferred.fromCoroutine(self._avatar())


class Client(Protocol):
    """Sends all its commands at once and collects the answers."""

    def __init__(self, commands: bytes) -> None:
        self._commands = commands
        self._received = b""
        self.done: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._commands)

    def dataReceived(self, data: bytes) -> None:
        self._received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.done.callback(self._received)


class StockPOP3Tests(TestCase):
    def setUp(self) -> None:
        self.path = make_maildir(self.mktemp())
        checker = InMemoryUsernamePasswordDatabaseDontUse(joe=b"secret")
        portal = Portal(Realm(self.path), [checker])

        def server() -> POP3:
            protocol = POP3()
            protocol.portal = portal  # type: ignore[assignment]  # declared as None
            return protocol

        factory: Any = Factory.forProtocol(cast(Any, server))  # POP3 says little of its type
        factory.noisy = False
        self.port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)

    async def session(self, *commands: bytes) -> list[bytes]:
        """The answers to the commands, the greeting and the login left out."""
        client = Client(b"".join(b"%s\r\n" % c for c in (b"USER joe", b"PASS secret", *commands)))
        address = self.port.getHost()
        assert isinstance(address, IPv4Address)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", address.port)
        await connectProtocol(endpoint, client)
        return (await client.done).split(b"\r\n")[3:]

    async def test_a_whole_session(self) -> None:
        large = b"Subject: large\n\n" + b"line of a large message\n" * 10_000
        deliver(self.path, "cur/1.a:2,S", b"Subject: one\n\none\n")
        deliver(self.path, "new/2.b", large)
        deliver(self.path, "new/3.c,S=12", b"twelve chars")
        lines = await self.session(
            b"STAT", b"LIST", b"UIDL", b"RETR 1", b"RETR 2", b"DELE 2", b"LIST 9", b"STAT", b"QUIT"
        )
        sizes = (18, len(large), 12)
        self.assertEqual(b"+OK 3 %d" % sum(sizes), lines.pop(0))
        self.assertEqual(
            [b"+OK 3", *(b"%d %d" % row for row in enumerate(sizes, 1)), b"."], lines[:5]
        )
        self.assertEqual([b"1 1.a", b"2 2.b", b"3 3.c,S=12", b"."], lines[6:10])
        self.assertEqual([b"+OK 18", b"Subject: one", b"", b"one", b"."], lines[10:15])
        self.assertEqual(b"+OK %d" % len(large), lines[15])
        self.assertEqual(large.split(b"\n"), [*lines[16:-6], b""])
        self.assertEqual(b".", lines[-6])
        self.assertEqual(
            [b"+OK", b"-ERR", b"+OK", b"+OK", b""], [line.split(b" ")[0] for line in lines[-5:]]
        )
        self.assertEqual({"cur/1.a:2,S", "cur/3.c,S=12:2,"}, set(files_of(self.path)))
        self.assertEqual([], descriptors_below(self.path))

    async def test_top_of_many_large_messages_holds_no_descriptors(self) -> None:
        for number in range(1, 21):
            deliver(self.path, f"cur/{number}.a:2,", b"Subject: large\n\n" + b"line\n" * 100_000)
        lines = await self.session(*(b"TOP %d 1" % n for n in range(1, 21)), b"QUIT")
        self.assertEqual(20, lines.count(b"Subject: large"))
        self.assertEqual([], descriptors_below(self.path))
