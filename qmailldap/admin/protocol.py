"""The server's side of the socket: one question a connection, a line of JSON each way.

Who may connect may do all that there is, so the bounds are against mistakes, not against guests.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure

from qmailldap.loglevel import Log

__all__ = [
    "CONVERSATION_LIMIT",
    "MOST_CONNECTIONS",
    "MOST_REQUEST",
    "AdminFactory",
    "Answer",
    "Peer",
]

MOST_REQUEST = 4096
"""Octets of a question."""

CONVERSATION_LIMIT = 10.0
"""Seconds from a connection to its end."""

MOST_CONNECTIONS = 16
"""At a time, in one process."""

_CREDENTIALS = struct.Struct("3i")

_log = Log(namespace="qmailldap.admin")


@attrs.frozen
class Peer:
    """The process at the other end, as the kernel says; -1 where it does not."""

    pid: int = -1
    uid: int = -1


Answer = Callable[[Mapping[str, Any], Peer], Any]
"""Gives what JSON can hold, or a Deferred of it; ``ValueError`` says what is wrong with the
question."""


class AdminFactory(ServerFactory):
    """``answers`` are by the name of the question."""

    noisy = False

    def __init__(self, clock: IReactorTime, answers: Mapping[str, Answer]) -> None:
        self.clock = clock
        self.answers = answers
        self.connections = 0

    def buildProtocol(self, addr: Any) -> Protocol:
        return _Conversation(self)


class _Conversation(Protocol):
    transport: Any

    def __init__(self, factory: AdminFactory) -> None:
        self._factory = factory
        self._received = b""
        self._limit: IDelayedCall | None = None
        self._answer: Deferred[Any] | None = None

    def connectionMade(self) -> None:
        self._factory.connections += 1
        self._limit = self._factory.clock.callLater(
            CONVERSATION_LIMIT, self.transport.abortConnection
        )
        if self._factory.connections > MOST_CONNECTIONS:
            self._say({"error": "too many ask at the same time"})

    def dataReceived(self, data: bytes) -> None:
        if self._answer is not None:
            return
        self._received += data[: MOST_REQUEST + 1]
        line, end, _ = self._received.partition(b"\n")
        if end and len(line) <= MOST_REQUEST:
            self._received = b""
            self._answer = maybeDeferred(self._ask, line)
            self._answer.addCallbacks(lambda given: {"answer": given}, self._failed)
            self._answer.addCallback(self._say)
        elif len(self._received) > MOST_REQUEST:
            self._say({"error": "a question that is too long"})

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._factory.connections -= 1
        if self._limit is not None and self._limit.active():
            self._limit.cancel()

    def _ask(self, line: bytes) -> Any:
        """Raises ``ValueError``."""
        try:
            question = json.loads(line)
        except (ValueError, RecursionError):
            question = None
        if not isinstance(question, dict):
            raise ValueError("a question is an object of JSON on a line")
        answer = self._factory.answers.get(str(question.get("ask")))
        if answer is None:
            raise ValueError("a question that this server does not know")
        return answer(question, self._peer())

    def _failed(self, failure: Failure) -> dict[str, str]:
        if failure.check(ValueError):
            return {"error": failure.getErrorMessage()}
        _log.failure("admin a question was not answered", failure)
        return {"error": "the server has failed: its log says why"}

    def _say(self, answer: dict[str, Any]) -> None:
        # What follows is not heeded: it is one question a connection.
        self._answer = self._answer or Deferred()
        self.transport.write(json.dumps(answer, separators=(",", ":")).encode("ascii") + b"\n")
        self.transport.loseConnection()

    def _peer(self) -> Peer:
        try:
            told = self.transport.socket.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
            )
        except (AttributeError, OSError):
            return Peer()
        pid, uid, _ = _CREDENTIALS.unpack(told)
        return Peer(pid, uid)
