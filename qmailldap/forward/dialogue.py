"""Our side of the conversation with a member up to the answer to PASS.

One question at a time, each with its limit, for the original reads what comes in one packet as one
answer. What a member says beyond an answer is a fault before the login and mail behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from qmailldap.handover import Connection
from qmailldap.printable import printable

__all__ = ["LONGEST_ANSWER", "Dialogue", "MemberRefused", "MemberSilent", "MemberTrouble"]

LONGEST_ANSWER = 512
"""Octets of an answer with its end (RFC 2449, section 4)."""

_MOST_UNREAD = 64 * 1024


class MemberTrouble(Exception):
    """The member, or the way there, does not do its part; the text says what, for the log."""


class MemberSilent(MemberTrouble):
    """It has not answered in time."""


class MemberRefused(Exception):
    """The member said -ERR. ``text`` is what follows it, as octets."""

    def __init__(self, text: bytes) -> None:
        super().__init__(printable(text))
        self.text = text


@implementer(IHalfCloseableProtocol)
class Dialogue(Protocol):
    """One side of one connection to a member.

    ``explain`` words the reason for which a connection was lost, ``on_connect`` is called once
    there is one. `greeting` and `ask` raise `MemberRefused`, and with `start_tls` `MemberTrouble`.
    """

    transport: Any
    connection: Connection
    """what to hand over to the relay"""

    def __init__(
        self,
        clock: IReactorTime,
        explain: Callable[[Failure], str],
        on_connect: Callable[[Dialogue], None],
    ) -> None:
        self._clock = clock
        self._explain = explain
        self._on_connect = on_connect
        self._unread = b""
        self._lost = ""
        self._waiting: Deferred[bytes] | None = None

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self._on_connect(self)

    def dataReceived(self, data: bytes) -> None:
        self._unread += data
        if len(self._unread) > _MOST_UNREAD:
            # It was asked for one line. What comes behind the last answer is for the relay.
            self.transport.pauseProducing()
        self._answer_if_complete()

    def readConnectionLost(self) -> None:
        """The member will say no more: nothing can be asked of it."""
        self.connectionLost(connectionDone)
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Never: our side is closed as a whole only."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = self._lost or self._explain(reason)
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(MemberTrouble(self._lost))

    async def greeting(self, limit: float) -> bytes:
        """The greeting behind its +OK."""
        return await self._next("greeting", b"", limit)

    async def ask(self, command: bytes, argument: bytes = b"", *, limit: float) -> bytes:
        """Say a command; gives what follows the +OK of the answer."""
        what = command.decode("ascii")
        if self._unread:
            raise MemberTrouble(f"spoke before it was asked: {what}")
        if not self._lost:
            line = command + b" " + argument if argument else command
            self.transport.write(line + b"\r\n")
        return await self._next(f"answer to {what}", argument, limit)

    def start_tls(self, context: Any) -> None:
        """Speak TLS from now on; a handshake that fails is found by the next `ask`."""
        if self._unread:
            # It could have been put there by anybody on the way.
            raise MemberTrouble("spoke in plain text behind its answer to STLS")
        self.transport.startTLS(context)

    def take_unread(self) -> bytes:
        """What came behind the last answer. Whoever takes it takes over the connection."""
        unread, self._unread = self._unread, b""
        return unread

    def hang_up(self) -> None:
        """Close, and wait for nothing."""
        self.transport.abortConnection()

    async def _next(self, what: str, said: bytes, limit: float) -> bytes:
        if self._lost:
            raise MemberTrouble(f"gave no {what}: {self._lost}")
        waiting: Deferred[bytes] = Deferred()
        self._waiting = waiting
        waiting.addTimeout(limit, self._clock)
        self._answer_if_complete()
        try:
            line = await waiting
        except TimeoutError:
            raise MemberSilent(f"gave no {what} within {limit:.3g} s") from None
        except MemberTrouble as trouble:
            raise MemberTrouble(f"gave no {what}: {trouble}") from None
        finally:
            self._waiting = None
        for status in (b"+OK", b"-ERR"):
            if line == status or line.startswith(status + b" "):
                text = line[len(status) + 1 :]
                if status == b"-ERR":
                    raise MemberRefused(text)
                return text
        # What was said may have been a password.
        shown = "what was said to it" if said and said in line else printable(line)
        raise MemberTrouble(f"gave no {what}, but {shown}")

    def _answer_if_complete(self) -> None:
        if self._waiting is None:
            return
        end = self._unread.find(b"\n", 0, LONGEST_ANSWER)
        if end < 0 and len(self._unread) < LONGEST_ANSWER:
            return
        waiting, self._waiting = self._waiting, None
        if end < 0:
            waiting.errback(MemberTrouble(f"a line of more than {LONGEST_ANSWER} octets"))
        else:
            line, self._unread = self._unread[:end], self._unread[end + 1 :]
            waiting.callback(line.removesuffix(b"\r"))
