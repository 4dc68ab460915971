"""A worker's end of the connection to its supervisor: the crew as a worker sees it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure

from qmailldap.workers.crew import (
    ANSWER_LIMIT,
    NotDone,
    Responder,
    Responders,
    no_answer,
    require_asked,
)
from qmailldap.workers.frames import LARGEST, MOST_ANSWER, Frame, Frames, Kind, asked_of
from qmailldap.workers.inheritance import HEARS, SAYS
from qmailldap.workers.links import MOST_QUESTIONS

__all__ = ["Member"]

_LONGER = 1.0
"""Seconds that the supervisor's answer may come later than those of the slowest worker."""


class Member:
    """The `Crew` of one of several workers. ``ended`` is called when the supervisor has ended."""

    def __init__(self, clock: IReactorTime, ended: Callable[[], object]) -> None:
        self._clock = clock
        self._ended = ended
        self._responders = Responders()
        self._frames: Frames | None = None
        self._asked: dict[int, _Asked] = {}
        self._next = 1
        self.answer("alive", lambda _: True)

    def connect(self, reactor: Any) -> None:
        """By the pipes that this process was started with."""
        self._frames = Frames(self._received, self._lost, LARGEST)
        connect: Any = StandardIO
        connect(self._frames, HEARS, SAYS, reactor)

    def serving(self) -> None:
        """Tell that this worker takes connections."""
        if self._frames is not None:
            self._frames.send(Frame(Kind.SERVING))

    def answer(self, question: str, responder: Responder) -> None:
        self._responders.answer(question, responder)

    def ask(self, question: str, argument: Any = None) -> Deferred[list[Any]]:
        require_asked(question)
        if self._frames is None or self._frames.is_lost or len(self._asked) >= MOST_QUESTIONS:
            return succeed([])
        number, self._next = self._next, self._next % (2**32 - 1) + 1
        asked = self._asked[number] = _Asked()
        body = question.encode("ascii") + b"\n" + json.dumps(argument).encode("ascii")
        self._frames.send(Frame(Kind.ASK, number, body))
        asked.done.addTimeout(ANSWER_LIMIT + _LONGER, self._clock)

        def given_up(failure: Failure) -> list[Any]:
            failure.trap(TimeoutError)
            self._asked.pop(number, None)
            return asked.pieces

        return asked.done.addErrback(given_up)

    def _received(self, frame: Frame) -> None:
        asked = self._asked.get(frame.number)
        if frame.kind is Kind.ASK:
            self._respond(frame)
        elif frame.kind is Kind.PIECE and asked is not None:
            asked.add(frame.body)
        elif frame.kind is Kind.END and asked is not None:
            del self._asked[frame.number]
            asked.done.callback(asked.pieces)

    def _respond(self, frame: Frame) -> None:
        question, argument = asked_of(frame.body)

        def done(answer: Any) -> None:
            body = json.dumps(answer).encode("ascii")
            if len(body) > MOST_ANSWER:
                raise ValueError(f"{len(body)} octets are too many")
            self._send(Frame(Kind.ANSWER, frame.number, body))

        def failed(why: Failure) -> None:
            if why.check(NotDone):
                line = str(why.value)
            else:
                no_answer(question, why)
                line = type(why.value).__name__
            self._send(Frame(Kind.FAILURE, frame.number, line.encode("utf-8", "replace")))

        # Another worker's, perhaps: then it may be anything.
        read = maybeDeferred(json.loads, argument)
        answer = read.addCallback(partial(self._responders.respond, question))
        answer.addCallback(done).addErrback(failed)

    def _send(self, frame: Frame) -> None:
        if self._frames is not None:
            self._frames.send(frame)

    def _lost(self, why: str) -> None:
        asked, self._asked = self._asked, {}
        for each in asked.values():
            each.done.callback(each.pieces)
        self._ended()


class _Asked:
    """A question of ours, and what has been answered so far."""

    def __init__(self) -> None:
        self.done: Deferred[list[Any]] = Deferred()
        self.pieces: list[Any] = []

    def add(self, piece: bytes) -> None:
        # They are of other workers, who may say anything.
        try:
            self.pieces.append(json.loads(piece))
        except (ValueError, RecursionError):
            return
