"""Asking all processes how things stand, and no more often than is of use."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.figures import Tally
from qmailldap.status.gathering import FRESH, Gathering
from qmailldap.status.state import Part


class AskedCrew:
    """Remembers what is asked, and answers when it is told to."""

    def __init__(self) -> None:
        self.responders: dict[str, Any] = {}
        self.asked: list[tuple[str, Deferred[list[Any]]]] = []

    def answer(self, question: str, responder: Any) -> None:
        self.responders[question] = responder

    def ask(self, question: str, argument: Any = None) -> Deferred[list[Any]]:
        answer: Deferred[list[Any]] = Deferred()
        self.asked.append((question, answer))
        return answer


class GatheringTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.crew = AskedCrew()
        self.gathering = Gathering(self.clock, self.crew, self.part, lambda: "mail1", 1)

    def part(self) -> Part:
        return Part(worker=0, started=900, loaded=950)

    def answer(self) -> None:
        asked, self.crew.asked = self.crew.asked, []
        for question, answer in asked:
            told = Tally(self.clock.seconds).snapshot()
            answer.callback([self.crew.responders["state"](None) if question == "state" else told])

    def test_many_who_look_at_the_same_time_have_it_asked_once(self) -> None:
        looking = [self.gathering.state() for _ in range(5)]
        self.assertEqual([question for question, _ in self.crew.asked], ["figures", "state"])
        self.answer()
        states = [self.successResultOf(each) for each in looking]
        self.assertEqual((states[0].name, states[0].started, states[0].silent), ("mail1", 900, ()))
        self.assertTrue(all(each is states[0] for each in states))

    def test_what_was_found_out_a_moment_ago_is_told_again(self) -> None:
        self.gathering.state()
        self.answer()
        self.clock.advance(FRESH / 2)
        self.assertEqual(self.successResultOf(self.gathering.state()).now, 1000)
        self.clock.advance(FRESH / 2)
        later = self.gathering.state()
        self.answer()
        self.assertEqual(self.successResultOf(later).now, 1000 + FRESH)

    def test_one_who_leaves_does_not_keep_others_waiting(self) -> None:
        leaving, staying = self.gathering.state(), self.gathering.state()
        leaving.addErrback(lambda _: None)
        leaving.cancel()
        self.answer()
        self.successResultOf(staying)

    def test_a_clock_that_is_set_back_does_not_keep_it_from_asking(self) -> None:
        self.gathering.state()
        self.answer()
        self.clock.rightNow = 500
        self.gathering.state()
        self.assertEqual(len(self.crew.asked), 2)
