"""All processes of one server, as one of them sees them: what one asks, each of them answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from qmailldap.loglevel import Log
from qmailldap.printable import printable

__all__ = ["ANSWER_LIMIT", "ASKED", "Alone", "Crew", "NotDone", "Responder", "Responders"]

ANSWER_LIMIT = 3.0
"""Seconds that a process has for an answer; whoever asked does without it then."""

ASKED = frozenset({"figures", "sessions", "kick", "state"})
"""What any process may ask all. The supervisor has questions of its own, which no worker may."""

Responder = Callable[[Any], Any]
"""Gives the answer to an argument, or a Deferred of it; both are what JSON can hold."""

_log = Log(namespace="qmailldap.workers")


class NotDone(Exception):
    """What a responder fails with to have the text, a line, told to whoever has asked."""


class Crew(Protocol):
    """The processes of one server."""

    def answer(self, question: str, responder: Responder) -> None:
        """Have ``responder`` answer that question in this process."""

    def ask(self, question: str, argument: Any = None) -> Deferred[list[Any]]:
        """Ask all, this one included; raises ``ValueError`` for what is not `ASKED`.

        The answers come in the order of the processes' numbers, without those that failed or did
        not come within `ANSWER_LIMIT`: the Deferred does not fail. "figures" has one more at the
        end where processes have ended: what they had counted.
        """


class Responders:
    """What answers which question in this process."""

    def __init__(self) -> None:
        self._responders: dict[str, Responder] = {}

    def answer(self, question: str, responder: Responder) -> None:
        """Raises ``ValueError`` where something answers it already."""
        if question in self._responders:
            raise ValueError(f"{question} is answered already")
        self._responders[question] = responder

    def respond(self, question: str, argument: Any) -> Deferred[Any]:
        """Fails as the responder does, and with ``KeyError`` where there is none."""
        return maybeDeferred(lambda: self._responders[question](argument))


class Alone:
    """The `Crew` of a server of one process."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._responders = Responders()

    def answer(self, question: str, responder: Responder) -> None:
        self._responders.answer(question, responder)

    def ask(self, question: str, argument: Any = None) -> Deferred[list[Any]]:
        require_asked(question)
        answer = self._responders.respond(question, argument)
        answer.addTimeout(ANSWER_LIMIT, self._clock)
        return answer.addCallbacks(lambda given: [given], lambda why: no_answer(question, why))


def require_asked(question: str) -> None:
    if question not in ASKED:
        raise ValueError(f"{question} is nothing that a worker may ask")


def no_answer(question: str, why: Failure) -> list[Any]:
    """None, and a line in the log that says so."""
    _log.error(
        "workers question={question} was not answered: {why}",
        question=question,
        why=printable(
            (why.getErrorMessage() or type(why.value).__name__).encode("utf-8", "replace")
        ),
    )
    return []
