"""Refusals that take as long as checks do."""

from __future__ import annotations

import random
from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmailldap import durations as durations_module
from qmailldap.durations import Durations


class DurationsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.durations = Durations(self.clock)

    def sit_out(self, begun: float | None = None) -> Deferred[None]:
        begun = self.clock.seconds() if begun is None else begun
        return Deferred.fromCoroutine(self.durations.sit_out(begun))

    def test_nothing_is_known_at_first(self) -> None:
        self.assertFalse(self.durations)
        self.durations.add(0.0)
        self.assertTrue(self.durations)

    def test_as_long_as_a_check_took_is_waited(self) -> None:
        self.durations.add(2.0)
        waiting = self.sit_out()
        self.clock.advance(1.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.2)
        self.assertIsNone(self.successResultOf(waiting))

    def test_what_has_passed_already_is_part_of_it(self) -> None:
        self.durations.add(2.0)
        self.clock.advance(1.5)
        waiting = self.sit_out(0.0)
        self.assertNoResult(waiting)
        self.clock.advance(0.5)
        self.successResultOf(waiting)

    def test_where_all_has_passed_already_nothing_is_waited(self) -> None:
        self.durations.add(2.0)
        self.clock.advance(2.0)
        self.successResultOf(self.sit_out(0.0))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_any_of_the_known_times_may_be_waited(self) -> None:
        offered: list[list[float]] = []

        def choice(known: Sequence[float]) -> float:
            offered.append(list(known))
            return known[1]

        self.patch(random, "choice", choice)
        for seconds in (1.0, 5.0, 3.0):
            self.durations.add(seconds)
        waiting = self.sit_out()
        self.assertEqual([[1.0, 5.0, 3.0]], offered)
        self.clock.advance(4.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.2)
        self.successResultOf(waiting)

    def test_times_of_long_ago_are_forgotten(self) -> None:
        self.durations.add(1000.0)
        for _ in range(durations_module._REMEMBERED):
            self.durations.add(1.0)
        for _ in range(100):
            waiting = self.sit_out()
            self.clock.advance(1.0)
            self.successResultOf(waiting)

    def test_who_is_cancelled_leaves_nothing_waiting(self) -> None:
        self.durations.add(2.0)
        waiting = self.sit_out()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual([], self.clock.getDelayedCalls())
