"""Turns: fair to all names, bounded for each."""

from __future__ import annotations

import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.threads import WAIT_LIMIT, Busy
from qmailldap.turns import MOST_WAITING, Turns


class TurnsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.turns = Turns(self.clock)
        self.begun: list[Deferred[str]] = []

    def take(self, name: str, turns: Turns | None = None) -> Deferred[str]:
        def work() -> Deferred[str]:
            self.begun.append(Deferred())
            return self.begun[-1]

        return Deferred.fromCoroutine((turns or self.turns).take(name, work))

    def test_one_works_at_a_time_for_each_name(self) -> None:
        first, second, other = self.take("a"), self.take("a"), self.take("b")
        self.assertEqual(len(self.begun), 2)
        self.begun[0].callback("first")
        self.assertEqual(self.successResultOf(first), "first")
        self.assertEqual(len(self.begun), 3)
        self.begun[2].callback("second")
        self.begun[1].callback("other")
        self.assertEqual(self.successResultOf(second), "second")
        self.assertEqual(self.successResultOf(other), "other")

    def test_a_name_of_several_places_has_so_many_work_at_a_time(self) -> None:
        turns = Turns(self.clock, places=3)
        asked = [self.take("a", turns) for _ in range(3 + 3 * MOST_WAITING)]
        self.assertEqual(len(self.begun), 3)
        self.failureResultOf(self.take("a", turns), Busy)
        for count, work in enumerate(self.begun, 1):
            work.callback(str(count))
            self.assertEqual(len(self.begun), min(3 + count, len(asked)))
        self.assertEqual(
            [self.successResultOf(each) for each in asked],
            [str(count) for count in range(1, 1 + len(asked))],
        )
        self.assertEqual(turns._names, {})

    def test_work_that_is_done_at_once_takes_no_more_of_the_stack_the_more_wait(self) -> None:
        depths = set()
        turns = Turns(self.clock, places=8)

        def work() -> Deferred[int]:
            depth, frame = 0, sys._getframe()
            while (caller := frame.f_back) is not None:
                depth, frame = depth + 1, caller
            depths.add(depth)
            return succeed(depth)

        held = [self.take("a", turns) for _ in range(8)]
        asked = [Deferred.fromCoroutine(turns.take("a", work)) for _ in range(8 * MOST_WAITING)]
        self.begun[0].callback("done")
        for each in asked:
            self.successResultOf(each)
        self.assertLess(max(depths) - min(depths), 5)
        for other in self.begun[1:]:
            other.callback("done")
        self.assertEqual([self.successResultOf(each) for each in held], ["done"] * 8)
        self.assertEqual(turns._names, {})

    def test_a_failure_lets_the_next_one_work(self) -> None:
        first, _ = self.take("a"), self.take("a")
        self.begun[0].errback(OSError("no"))
        self.failureResultOf(first, OSError)
        self.assertEqual(len(self.begun), 2)

    def test_one_that_waits_and_goes_away_gives_up_its_turn(self) -> None:
        _, second, third = self.take("a"), self.take("a"), self.take("a")
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.begun[0].callback("first")
        self.assertEqual(len(self.begun), 2)
        self.begun[1].callback("third")
        self.assertEqual(self.successResultOf(third), "third")

    def test_one_that_works_and_goes_away_keeps_its_turn_until_the_work_is_done(self) -> None:
        # Or many who come and go would have their work done all at once.
        outcomes: list[Any] = ["done", Failure(OSError("nobody hears of it"))]
        for outcome in outcomes:
            first, second = self.take("a"), self.take("a")
            first.cancel()
            self.failureResultOf(first, CancelledError)
            self.assertEqual(len(self.begun), 1)
            self.begun[0].callback(outcome)
            self.assertEqual(len(self.begun), 2)
            self.begun[1].callback("second")
            self.assertEqual(self.successResultOf(second), "second")
            self.begun.clear()

    def test_work_that_cannot_even_begin_lets_the_next_one_work(self) -> None:
        def broken() -> Deferred[str]:
            raise ValueError("no")

        self.failureResultOf(Deferred.fromCoroutine(self.turns.take("a", broken)), ValueError)
        self.take("a")
        self.assertEqual(len(self.begun), 1)

    def test_too_many_are_refused_at_once(self) -> None:
        for _ in range(1 + MOST_WAITING):
            self.assertNoResult(self.take("a"))
        self.failureResultOf(self.take("a"), Busy)
        self.assertNoResult(self.take("b"))

    def test_nobody_waits_for_ever(self) -> None:
        self.take("a")
        waiting = self.take("a")
        self.clock.advance(WAIT_LIMIT)
        self.failureResultOf(waiting, Busy)

    def test_one_that_has_waited_too_long_gives_up_its_turn(self) -> None:
        self.take("a")
        late = self.take("a")
        self.clock.advance(WAIT_LIMIT / 2)
        next_one = self.take("a")
        self.clock.advance(WAIT_LIMIT / 2)
        self.failureResultOf(late, Busy)
        self.begun[0].callback("first")
        self.begun[1].callback("next")
        self.assertEqual(self.successResultOf(next_one), "next")

    @given(
        st.integers(1, 3),
        st.lists(
            st.tuples(st.sampled_from(["take", "end", "fail", "cancel"]), st.integers(0, 50)),
            max_size=60,
        ),
    )
    def test_whoever_comes_and_goes_each_place_has_one_and_all_are_served_in_order(
        self, places: int, steps: list[tuple[str, int]]
    ) -> None:
        turns = Turns(self.clock, places)
        working: dict[int, Deferred[str]] = {}
        waiting: list[int] = []
        asked: list[Deferred[str]] = []

        def take(number: int) -> Deferred[str]:
            def work() -> Deferred[str]:
                working[number] = Deferred()
                return working[number]

            return Deferred.fromCoroutine(turns.take("a", work))

        for step, which in steps:
            if step == "take":
                waiting.append(len(asked))
                asked.append(take(len(asked)))
                asked[-1].addErrback(lambda failure: failure.trap(CancelledError, OSError))
            elif step == "cancel" and asked:
                number = which % len(asked)
                asked[number].cancel()
                if number in waiting:
                    waiting.remove(number)
            elif step in ("end", "fail") and working:
                number = sorted(working)[which % len(working)]
                working.pop(number).callback("done" if step == "end" else Failure(OSError()))
            while waiting and len(working) <= places and waiting[0] in working:
                waiting.pop(0)
            self.assertFalse(set(waiting) & set(working))
            self.assertTrue(len(working) == places or not waiting, (working, waiting))
        while working:
            working.pop(min(working)).callback("done")
        self.assertEqual(turns._names, {})

    def test_nothing_is_kept_of_a_name_that_nobody_uses(self) -> None:
        done = self.take("a")
        self.begun[0].callback("done")
        self.successResultOf(done)
        self.assertEqual(self.turns._names, {})
