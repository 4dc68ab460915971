"""A maildrop in memory, and a POP3 server on a string transport to look at it through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import ISSLTransport, ITLSTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import formatEvent
from twisted.mail.pop3 import IMailbox
from zope.interface import Interface, directlyProvides, implementer

from qmailldap.interfaces import IForwardedSession, IMaildrop, IStoredMessage
from qmailldap.loglevel import Log
from qmailldap.pop3 import POP3, Limits, POP3Factory
from qmailldap.refusal import LoginRefused

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
        self.at_hand: dict[int, bytes] = {}
        # What sessions have in common, where there are others.
        self.remembered: dict[object, Any] | None = None
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

    def sizes(self, start: int, stop: int) -> list[int]:
        return [self._size(each) for each in range(len(self.messages))][start:stop]

    def uniqueIds(self, start: int, stop: int) -> list[bytes]:
        return [b"uid-%d" % each for each in range(len(self.messages))][start:stop]

    def takeAtHand(self, index: int) -> bytes | None:
        return self.at_hand.pop(index, None)

    def shared(self, make: Callable[[object], Any]) -> Any:
        if self.remembered is None:
            return None
        return self.remembered.setdefault(make, make(self))

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


class Checker(InMemoryUsernamePasswordDatabaseDontUse):
    """One that also judges by what was made of a password, as CRAM-MD5 does."""

    credentialInterfaces = (IUsernamePassword, IUsernameHashedPassword)


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


class TLSTransport(Transport):
    """One on which TLS can be begun; what is written stays readable."""

    started: Any = None

    def __init__(self) -> None:
        super().__init__()
        directlyProvides(self, ITLSTransport)

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        assert self.started is None
        self.started = contextFactory
        directlyProvides(self, ISSLTransport)

    def getHandle(self) -> Any:
        return self

    def get_protocol_version_name(self) -> str:
        return "TLSv1.3"


class SecureTransport(TLSTransport):
    """One that has TLS from its first octet on."""

    started = "before"

    def __init__(self) -> None:
        super().__init__()
        directlyProvides(self, ISSLTransport)


class Place:
    """The place of one connection, at an `Admissions`."""

    def __init__(self, make_room: Callable[[], None]) -> None:
        self.make_room = make_room
        self.is_logged_in = False
        self.left = 0

    def logged_in(self) -> None:
        self.is_logged_in = True
        self.make_room = lambda: None

    def leave(self) -> None:
        self.left += 1


class Admissions:
    """Who was let in, and what else was asked; ``refused`` is raised in answer to all of it."""

    def __init__(self, *, delay: float = 0.0) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.places: list[Place] = []
        self.delay = delay
        self.refused: LoginRefused | None = None

    def enter(self, host: str, make_room: Callable[[], None]) -> Place:
        self._ask("enter", host)
        self.places.append(Place(make_room))
        return self.places[-1]

    def check(self, host: str, login: bytes) -> None:
        self._ask("check", host, login)

    def wrong(self, host: str, login: bytes) -> float:
        self.asked.append(("wrong", host, login))
        return self.delay

    def _ask(self, *question: Any) -> None:
        self.asked.append(question)
        if self.refused is not None:
            raise self.refused


class Server:
    """A POP3 session of ours with its client, for tests.

    ``settings`` are further arguments of the factory.
    """

    def __init__(
        self,
        *messages: Any,
        limits: Limits | None = None,
        trusted: Sequence[str] = (),
        transport: Transport | None = None,
        **settings: Any,
    ) -> None:
        self.maildrop = Maildrop(*messages)
        self.realm = Realm(self.maildrop)
        checker = Checker(joe=PASSWORD)
        self.portal = Portal(self.realm, [checker])
        self.clock = Clock()
        self.transport = transport or Transport()
        factory = POP3Factory(
            self.portal,
            "mail.example.org",
            self.clock,
            limits or Limits(),
            trusts=trusted.__contains__,
            **settings,
        )
        self.connection: Any = factory.buildProtocol(self.transport.getPeer())
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

    def lines_of_log(self) -> list[str]:
        """The lines of the session from now on; its name is S1."""
        events: list[str] = []
        session = self.protocol._session
        session.id = session._own_id = "S1"
        session.log = Log(
            namespace="test",
            observer=lambda event: events.append(formatEvent(event)),  # type: ignore[arg-type]
        )
        return events

    def turn(self) -> None:
        while any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
            self.clock.advance(0)

    def log_in(self) -> Server:
        answer = self.say(b"USER joe\r\nPASS " + PASSWORD + b"\r\n")
        assert answer == b"+OK \r\n+OK \r\n", answer
        return self


__all__ = [
    "PASSWORD",
    "Admissions",
    "IMailbox",
    "Maildrop",
    "Realm",
    "SecureTransport",
    "Server",
    "StoredMessage",
    "TLSTransport",
    "Transport",
]
