"""A maildrop in memory, and a POP3 server on a string transport to look at it through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.mail.pop3 import IMailbox
from zope.interface import Interface, implementer

from qmailldap.interfaces import IForwardedSession, IMaildrop, IStoredMessage
from qmailldap.pop3 import POP3, Limits, POP3Factory

PASSWORD = b"pass word"


@implementer(IStoredMessage)
class StoredMessage:
    """The chunks of a message; an exception among them is raised in its turn."""

    def __init__(self, chunks: Sequence[bytes | OSError | Deferred[bytes]]) -> None:
        self.size = sum(len(chunk) for chunk in chunks if isinstance(chunk, bytes))
        self.closed = False
        self._chunks = list(chunks)
        self._rest = b"".join(chunk for chunk in chunks if isinstance(chunk, bytes))

    def readChunk(self) -> bytes | Deferred[bytes]:
        chunk = self._chunks.pop(0) if self._chunks else b""
        if isinstance(chunk, OSError):
            raise chunk
        return chunk

    def read(self, size: int) -> bytes:
        octets, self._rest = self._rest[:size], self._rest[size:]
        return octets

    def close(self) -> None:
        self.closed = True


@implementer(IMaildrop)
class Maildrop:
    """Messages by their content; a list of chunks where the chunking matters."""

    def __init__(self, *messages: bytes | Sequence[bytes | OSError | Deferred[bytes]]) -> None:
        self.messages: list[Any] = [
            [message] if isinstance(message, bytes) and message else list(message)
            for message in messages
        ]
        self.deleted: set[int] = set()
        self.opened: list[StoredMessage] = []
        self.gone: set[int] = set()
        self.synced = 0
        self.closed = 0
        self.sync_result: Callable[[], Any] = lambda: 0

    def _size(self, index: int) -> int:
        if index in self.deleted:
            return 0
        return sum(len(chunk) for chunk in self.messages[index] if isinstance(chunk, bytes))

    def listMessages(self, index: int | None = None) -> Any:
        if index is None:
            return [self._size(each) for each in range(len(self.messages))]
        if not 0 <= index < len(self.messages):
            raise ValueError(index)
        return self._size(index)

    def messageCount(self) -> int:
        return len(self.messages)

    def dropListing(self) -> tuple[int, int]:
        left = [each for each in range(len(self.messages)) if each not in self.deleted]
        return len(left), sum(map(self._size, left))

    def isDeleted(self, index: int) -> bool:
        return index in self.deleted

    def getUidl(self, index: int) -> bytes:
        return b"uid-%d" % index

    def getMessage(self, index: int) -> Deferred[StoredMessage]:
        return maybeDeferred(self._open, index)

    def _open(self, index: int) -> StoredMessage:
        if index in self.gone:
            raise FileNotFoundError("gone")
        message = StoredMessage(self.messages[index])
        self.opened.append(message)
        return message

    def deleteMessage(self, index: int) -> None:
        self.deleted.add(index)

    def undeleteMessages(self) -> None:
        self.deleted.clear()

    def sync(self) -> Deferred[int]:
        self.synced += 1
        return maybeDeferred(self.sync_result)

    def close(self) -> None:
        self.closed += 1


@implementer(IRealm)
class Realm:
    """Gives the one maildrop, or the forwarded ``session`` where there is one.

    ``held`` may be a Deferred that keeps a login waiting.
    """

    def __init__(self, maildrop: Maildrop) -> None:
        self.maildrop = maildrop
        self.session: Any = None
        self.mind: Any = None
        self.held: Any = None

    def requestAvatar(self, avatarId: object, mind: object, *interfaces: type[Interface]) -> Any:
        self.mind = mind
        interface = interfaces[0]
        assert IMaildrop.isOrExtends(interface), interface
        answer: tuple[Any, ...] = (interface, self.maildrop, self.maildrop.close)
        if self.session is not None:
            assert IForwardedSession in interfaces, interfaces
            answer = (IForwardedSession, self.session, self.session.close)
        return answer if self.held is None else self.held.addCallback(lambda _: answer)


class Transport(StringTransport):
    """A string transport that also says whether it is being read, and was cut off."""

    aborted = False
    no_delay = False
    producer: Any

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        super().__init__()

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        super().write(data)

    def clear(self) -> None:
        self.writes = []
        super().clear()


class Server:
    """A POP3 session of ours with its client, for tests."""

    def __init__(
        self, *messages: Any, limits: Limits | None = None, trusted: Sequence[str] = ()
    ) -> None:
        self.maildrop = Maildrop(*messages)
        self.realm = Realm(self.maildrop)
        checker = InMemoryUsernamePasswordDatabaseDontUse(joe=PASSWORD)
        self.portal = Portal(self.realm, [checker])
        self.clock = Clock()
        self.transport = Transport()
        factory = POP3Factory(
            self.portal,
            "mail.example.org",
            self.clock,
            limits or Limits(),
            trusts=trusted.__contains__,
        )
        self.connection: Any = factory.buildProtocol(None)
        self.protocol: POP3 = self.connection._speaker
        self.connection.makeConnection(self.transport)
        self.greeting = self.answers()

    def answers(self) -> bytes:
        """What was sent since the last time."""
        sent: bytes = self.transport.value()
        self.transport.clear()
        return sent

    def say(self, octets: bytes) -> bytes:
        """Send these octets, give the clock a few turns, and return the answer."""
        self.connection.dataReceived(octets)
        self.turn()
        return self.answers()

    def turn(self) -> None:
        while any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
            self.clock.advance(0)

    def log_in(self) -> Server:
        answer = self.say(b"USER joe\r\nPASS " + PASSWORD + b"\r\n")
        assert answer == b"+OK \r\n+OK \r\n", answer
        return self


__all__ = ["PASSWORD", "IMailbox", "Maildrop", "Realm", "Server", "StoredMessage", "Transport"]
