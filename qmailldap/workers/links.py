"""The supervisor's ends of the connections to its workers: whom it asks, and who asks all.

Workers are believed nothing. What they answer is passed on as octets and looked at by whoever has
asked; what is none of the frames that a worker sends ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, TimeoutError, fail
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from qmailldap.workers.counted import Counted
from qmailldap.workers.crew import ANSWER_LIMIT, ASKED
from qmailldap.workers.frames import (
    Frame,
    FrameError,
    Frames,
    Kind,
    asked_of,
)

__all__ = [
    "MOST_QUESTIONS",
    "MOST_UNASKED",
    "MOST_UNREAD",
    "Answers",
    "Link",
    "Links",
    "Refused",
    "Unanswered",
]

MOST_QUESTIONS = 8
"""Of one worker that are under way."""

MOST_ARGUMENT = 65_536
"""Octets of what a worker asks with."""

MOST_UNREAD = 16 * 1024 * 1024
"""Octets that wait for a worker to read them; what would be more it does without."""

MOST_UNASKED = 100
"""Answers of one worker to what nobody has asked it; those that come too late are none of them."""

_LONGEST_LINE = 1000
"""Octets of why a worker could not do as it was asked."""


class Unanswered(Exception):
    """A worker did not do as it was asked; the text is a line that says why."""


class Refused(Unanswered):
    """It says so itself."""


class Link:
    """One worker as it can be asked: number ``number``, until it has ended or its link is lost.

    ``serial`` is of the control files that it has in force; ``since`` when it was started, by the
    clock.
    """

    def __init__(self, links: Links, clock: IReactorTime, number: int, serial: int = 0) -> None:
        self.number = number
        self.since = clock.seconds()
        self.serial = serial
        self.is_serving = False
        self.under_way = 0
        """Questions of the worker's own."""
        self.refusals = 0
        """How often it could not follow the others."""
        self.frames = Frames(self._received, self._lost)
        self._links = links
        self._clock = clock
        self._asked: dict[int, Deferred[bytes]] = {}
        self._next = 1
        self._too_late = 0
        self._unasked = 0

    @property
    def is_lost(self) -> bool:
        return self.frames.is_lost

    def ask(self, question: str, argument: bytes, limit: float) -> Deferred[bytes]:
        """The answer, which should be JSON, as is ``argument``. Fails with `Unanswered`."""
        if self.is_lost:
            return fail(Unanswered("it has ended"))
        if self.frames.is_full:
            return fail(Unanswered("it does not listen"))
        number, self._next = self._next, self._next % (2**32 - 1) + 1
        answer: Deferred[bytes] = Deferred()
        self._asked[number] = answer
        self.frames.send(Frame(Kind.ASK, number, question.encode("ascii") + b"\n" + argument))
        answer.addTimeout(limit, self._clock)

        def given_up(failure: Failure) -> Failure:
            # What it answers later is an answer to nothing.
            self._asked.pop(number, None)
            if failure.check(TimeoutError):
                self._too_late += 1
                return Failure(Unanswered(f"no answer in {limit:g} s"))
            return failure

        return answer.addErrback(given_up)

    def lose(self, why: str) -> None:
        """Ask and hear nothing more."""
        self.frames.lose(why)

    def _received(self, frame: Frame) -> None:
        if frame.kind in (Kind.ANSWER, Kind.FAILURE):
            asked = self._asked.pop(frame.number, None)
            if asked is None:
                self._answered_nothing()
            elif frame.kind is Kind.ANSWER:
                asked.callback(frame.body)
            else:
                asked.errback(Refused(_line(frame.body)))
        elif frame.kind is Kind.ASK:
            self._links.asked_by(self, frame)
        elif frame.kind is Kind.SERVING and not self.is_serving:
            self.is_serving = True
            self._links.serves(self)
        else:
            raise FrameError(f"a frame of kind {frame.kind.name.lower()}")

    def _answered_nothing(self) -> None:
        """Raises `FrameError` when that goes on."""
        if self._too_late:
            self._too_late -= 1
            return
        self._unasked += 1
        if self._unasked > MOST_UNASKED:
            raise FrameError("answers that nobody asked for")

    def _lost(self, why: str) -> None:
        asked, self._asked = self._asked, {}
        for each in asked.values():
            each.errback(Unanswered("it has ended"))
        self._links.lost(self, why)


Answers = list[tuple[Link, bytes | Unanswered]]


class Links:
    """All workers that are there. ``serves`` is called with each that takes connections from now.

    ``is_to_end`` is called with one that has said what no worker says, and with a line about it.
    """

    def __init__(
        self,
        clock: IReactorTime,
        serves: Callable[[Link], object],
        is_to_end: Callable[[int, str], object],
    ) -> None:
        self._clock = clock
        self.serves = serves
        self._is_to_end = is_to_end
        self._links: dict[int, Link] = {}
        self._counted = Counted()

    def add(self, number: int, serial: int = 0) -> Link:
        """Worker ``number`` is started; ``frames`` of the link are what it says and hears."""
        self.remove(number)
        link = self._links[number] = Link(self, self._clock, number, serial)
        return link

    def remove(self, number: int) -> None:
        """That worker has ended."""
        link = self._links.pop(number, None)
        if link is not None:
            link.lose("")
        self._counted.worker_ended(number)

    def all(self) -> list[Link]:
        """In the order of their numbers, those that do not serve yet included."""
        return [self._links[number] for number in sorted(self._links)]

    def serving(self) -> list[Link]:
        return [each for each in self.all() if each.is_serving and not each.is_lost]

    def ask(
        self,
        question: str,
        argument: bytes = b"null",
        limit: float = ANSWER_LIMIT,
        whom: Iterable[Link] | None = None,
    ) -> Deferred[Answers]:
        """Ask all that serve, or others; fires when each has answered, or failed, or is too late.

        In the order of their numbers.
        """
        links = self.serving() if whom is None else list(whom)
        asked = DeferredList(
            [each.ask(question, argument, limit) for each in links], consumeErrors=True
        )

        def answered(results: list[tuple[bool, Any]]) -> Answers:
            answers = [
                (link, result if is_good else result.value)
                for link, (is_good, result) in zip(links, results, strict=True)
            ]
            if question == "figures":
                self._keep_figures(answers)
            return answers

        return asked.addCallback(answered)

    def asked_by(self, link: Link, frame: Frame) -> None:
        """What a worker wants to know of all. Raises `FrameError`."""
        question, argument = asked_of(frame.body)
        if question not in ASKED or len(argument) > MOST_ARGUMENT:
            raise FrameError(f"a question that no worker asks: {question}")
        if link.frames.unread > MOST_UNREAD:
            raise FrameError("questions without end")
        if link.under_way >= MOST_QUESTIONS:
            link.frames.send(Frame(Kind.END, frame.number))
            return
        link.under_way += 1
        self.ask(question, argument).addCallback(
            partial(self._pass_on, link, frame.number, question)
        )

    def lost(self, link: Link, why: str) -> None:
        if why:
            self._is_to_end(link.number, why)

    def _pass_on(self, link: Link, number: int, question: str, answers: Answers) -> None:
        link.under_way -= 1
        pieces = [each for _, each in answers if isinstance(each, bytes)]
        if question == "figures":
            pieces = self._figures()
        for each in pieces:
            if link.frames.unread + len(each) <= MOST_UNREAD:
                link.frames.send(Frame(Kind.PIECE, number, each))
        link.frames.send(Frame(Kind.END, number))

    def _keep_figures(self, answers: Answers) -> None:
        for link, answer in answers:
            # One that has ended meanwhile was added to the others.
            if isinstance(answer, bytes) and self._links.get(link.number) is link:
                self._counted.keep(link.number, answer)

    def _figures(self) -> list[bytes]:
        """Counters never go back: who does not answer has what it had before, even if it ended."""
        known = (self._counted.last(number) for number in sorted(self._links))
        return [each for each in (*known, self._counted.of_ended) if each]


def _line(octets: bytes) -> str:
    """What a worker has to say, fit for the log."""
    text = octets[:_LONGEST_LINE].decode("ascii", "replace")
    return "".join(each if each.isascii() and each.isprintable() else "?" for each in text)
