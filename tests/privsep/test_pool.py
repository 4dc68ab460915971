"""Who has a keeper, who waits for one, and for how long."""

from __future__ import annotations

import gc
from collections.abc import Iterable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.privsep import pool
from qmailldap.privsep.channel import ANSWER_LIMIT, Answer, KeeperLost
from qmailldap.privsep.keeper import MOST_THREADS
from qmailldap.privsep.kept_hands import Owner
from qmailldap.privsep.pool import IDLE_LIMIT, LEAVING_LIMIT, Keepers
from qmailldap.threads import WAIT_LIMIT, Busy
from qmailldap.turns import Turns
from tests.privsep.support import FakeKeeper, FakeStarter

ANN, BOB, EVE = (1001, 1001), (1002, 1002), (1003, 1003)


class PoolTestCase(SynchronousTestCase):
    MOST = 2

    def setUp(self) -> None:
        self.clock = Clock()
        self.starter = FakeStarter(self.clock)
        self.keepers = Keepers(self.starter, self.clock, self.MOST)
        self.asked: list[Deferred[Answer]] = []

    def tearDown(self) -> None:
        """Whatever happened: once it is stopped and all have ended, nothing is left of it."""
        self.starter.fault = None
        self.keepers.stop()
        self.assertLessEqual(len(self.starter.running()), self.MOST)
        self.end(self.starter.running())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        for each in self.asked:
            self.assertTrue(each.called)
            # What is left fails because of the end.
            each.addErrback(lambda _: None)

    def ask(self, owner: Owner, word: bytes = b"?") -> Deferred[Answer]:
        self.asked.append(self.keepers.ask(owner, lambda channel: [word]))
        return self.asked[-1]

    def end(self, keepers: Iterable[FakeKeeper]) -> None:
        for keeper in keepers:
            keeper.end()

    def leave(self) -> None:
        """Keepers end that were told to."""
        self.end([each for each in self.starter.running() if each.transport.half_closed])

    def running(self) -> list[Owner]:
        return [keeper.owner for keeper in self.starter.running()]

    def keeper(self, owner: Owner) -> FakeKeeper:
        """The one that the owner has."""
        (keeper,) = (
            each
            for each in self.starter.running()
            if each.owner == owner and not each.transport.half_closed
        )
        return keeper

    def idle_keeper(self, owner: Owner) -> FakeKeeper:
        """The owner's, who has asked something and has been answered."""
        asked = self.ask(owner)
        keeper = self.keeper(owner)
        keeper.answer()
        self.successResultOf(asked)
        return keeper


class PlacesTests(PoolTestCase):
    def test_nothing_runs_before_somebody_asks(self) -> None:
        self.assertEqual(self.starter.started, [])

    def test_the_questions_of_an_owner_go_to_one_keeper(self) -> None:
        first, second = self.ask(ANN, b"a"), self.ask(ANN, b"b")
        keeper = self.keeper(ANN)
        self.assertEqual(keeper.heard(), [[b"a"], [b"b"]])
        keeper.answer(b"1")
        keeper.answer(b"2")
        self.assertEqual(self.successResultOf(first).fields, [b"1"])
        self.assertEqual(self.successResultOf(second).fields, [b"2"])

    def test_owners_who_share_but_one_id_have_each_their_own(self) -> None:
        for owner in (ANN, (ANN[0], 2000)):
            self.ask(owner)
        self.assertEqual(self.running(), [ANN, (ANN[0], 2000)])

    def test_one_that_is_asked_nothing_is_let_go(self) -> None:
        keeper = self.idle_keeper(ANN)
        self.clock.advance(IDLE_LIMIT - 1)
        self.idle_keeper(ANN)
        self.clock.advance(IDLE_LIMIT - 1)
        self.assertFalse(keeper.transport.half_closed)
        self.clock.advance(1)
        self.assertTrue(keeper.transport.half_closed)
        keeper.end()
        self.assertEqual(self.starter.killed, [])

    def test_one_that_is_at_work_is_not(self) -> None:
        asked = self.ask(ANN)
        self.clock.advance(IDLE_LIMIT + 1)
        self.assertFalse(self.keeper(ANN).transport.half_closed)
        self.keeper(ANN).answer()
        self.successResultOf(asked)

    def test_those_that_are_idle_are_let_go_when_others_are_wanted(self) -> None:
        before = self.idle_keeper(ANN)
        self.keepers.renew()
        self.assertTrue(before.transport.half_closed)
        self.assertIsNot(self.idle_keeper(ANN), before)

    def test_one_that_is_at_work_then_ends_it_while_another_is_asked(self) -> None:
        under_way = self.ask(ANN, b"old")
        before = self.keeper(ANN)
        self.keepers.renew()
        asked = self.ask(ANN, b"new")
        after = self.starter.started[1]
        self.assertEqual((before.heard(), after.heard()), ([[b"old"]], [[b"new"]]))
        # It would not end what it does if it were told to.
        self.clock.advance(LEAVING_LIMIT + 1)
        self.assertFalse(before.transport.half_closed)
        before.answer()
        self.successResultOf(under_way)
        self.assertTrue(before.transport.half_closed)
        after.answer()
        self.successResultOf(asked)

    def test_where_there_is_no_room_for_another_it_serves_until_it_is_idle(self) -> None:
        asked = [self.ask(owner) for owner in (ANN, BOB)]
        before = self.keeper(ANN)
        self.keepers.renew()
        asked.append(self.ask(ANN, b"more"))
        self.assertEqual(before.heard()[-1], [b"more"])
        for owner in (ANN, ANN, BOB):
            self.keeper(owner).answer()
        self.assertTrue(before.transport.half_closed)
        for each in asked:
            self.successResultOf(each)

    def test_an_owner_has_no_more_than_two_however_often_they_are_renewed(self) -> None:
        asked = []
        for _ in range(10):
            asked.append(self.ask(ANN))
            self.keepers.renew()
        self.assertEqual(self.running(), [ANN, ANN])
        while any(each.awaited() for each in self.starter.running()):
            for keeper in self.starter.running():
                while keeper.awaited():
                    keeper.answer()
            self.leave()
        for each in asked:
            self.successResultOf(each)

    def test_the_one_used_longest_ago_makes_room(self) -> None:
        for owner in (ANN, BOB, ANN):
            self.idle_keeper(owner)
            self.clock.advance(1)
        asked = self.ask(EVE, b"e")
        self.assertTrue(self.starter.started[1].transport.half_closed)
        self.assertEqual(self.running(), [ANN, BOB])
        self.leave()
        self.assertEqual(self.running(), [ANN, EVE])
        self.keeper(EVE).answer()
        self.successResultOf(asked)

    def test_no_place_is_free_before_whoever_had_it_has_ended(self) -> None:
        self.idle_keeper(ANN)
        self.idle_keeper(BOB)
        asked = [self.ask(EVE), self.ask((1004, 1004))]
        self.assertEqual(len(self.starter.started), 2)
        self.starter.started[0].end()
        self.assertEqual(self.running(), [BOB, EVE])
        self.leave()
        for owner in (EVE, (1004, 1004)):
            self.keeper(owner).answer()
        for each in asked:
            self.successResultOf(each)

    def test_an_owner_whose_keeper_is_leaving_waits_for_another(self) -> None:
        self.idle_keeper(ANN)
        self.clock.advance(IDLE_LIMIT)
        asked = self.ask(ANN, b"again")
        self.assertEqual(self.running(), [ANN, ANN])
        self.leave()
        self.assertEqual(self.keeper(ANN).heard(), [[b"again"]])
        self.keeper(ANN).answer()
        self.successResultOf(asked)

    def test_one_that_does_not_leave_is_killed(self) -> None:
        keeper = self.idle_keeper(ANN)
        self.clock.advance(IDLE_LIMIT)
        self.clock.advance(LEAVING_LIMIT - 1)
        self.assertEqual(self.starter.killed, [])
        self.clock.advance(1)
        self.assertEqual(self.starter.killed, [keeper.number])


class WaitingTests(PoolTestCase):
    def fill(self) -> list[Deferred[Answer]]:
        """All places taken by owners who are at work."""
        return [self.ask(ANN), self.ask(BOB)]

    def test_who_waits_too_long_is_told_so(self) -> None:
        busy = self.fill()
        asked = self.ask(EVE)
        self.clock.advance(WAIT_LIMIT - 1)
        self.assertNoResult(asked)
        self.clock.advance(1)
        self.failureResultOf(asked, Busy)
        for owner, each in zip((ANN, BOB), busy, strict=True):
            self.keeper(owner).answer()
            self.successResultOf(each)
        self.assertEqual(self.running(), [ANN, BOB])

    def test_the_limit_is_for_waiting_not_for_the_work(self) -> None:
        self.fill()[0]
        asked = self.ask(EVE)
        self.starter.started[0].answer()
        self.leave()
        self.clock.advance(WAIT_LIMIT + 1)
        self.assertNoResult(asked)
        self.keeper(EVE).answer(b"late")
        self.assertEqual(self.successResultOf(asked).fields, [b"late"])

    def test_too_many_do_not_wait(self) -> None:
        self.patch(pool, "MOST_WAITING", 2)
        self.fill()
        waiting = [self.ask(EVE), self.ask(ANN)]
        self.failureResultOf(self.ask(BOB), Busy)
        for each in waiting:
            self.assertNoResult(each)

    def test_who_has_lost_interest_is_not_asked_for(self) -> None:
        self.fill()
        gone, asked = self.ask((1004, 1004)), self.ask(EVE)
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.starter.started[0].answer()
        self.leave()
        self.assertEqual(self.running(), [BOB, EVE])
        self.keeper(EVE).answer()
        self.successResultOf(asked)

    def test_who_loses_interest_later_leaves_the_work_to_go_on(self) -> None:
        for asked in (self.ask(ANN), self.ask(ANN)):
            asked.cancel()
            self.failureResultOf(asked, CancelledError)
        keeper = self.keeper(ANN)
        self.clock.advance(IDLE_LIMIT)
        self.assertFalse(keeper.transport.half_closed)
        keeper.answer()
        keeper.answer()
        self.clock.advance(IDLE_LIMIT)
        self.assertTrue(keeper.transport.half_closed)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_owners_who_keep_asking_do_not_keep_others_waiting(self) -> None:
        # Two questions of each are always under way, so that none of them is ever idle.
        asking = [ANN, BOB]
        others = [(1100 + number,) * 2 for number in range(4)]
        served: list[Owner] = []

        def ask_on(owner: Owner) -> None:
            self.ask(owner).addCallback(lambda _: ask_on(owner))

        for owner in asking * 2:
            ask_on(owner)
        for owner in others:
            self.ask(owner).addCallback(lambda _, owner: served.append(owner), owner)
            ask_on(owner)
            ask_on(owner)
        for _ in range(20):
            self.clock.advance(1)
            for keeper in self.starter.running():
                for _ in keeper.awaited():
                    keeper.answer()
            self.leave()
        self.assertEqual(served, others)

    def test_a_starter_that_fails_fails_one_question(self) -> None:
        for error in (Busy("too much to do"), OSError(24, "too many files"), ValueError("what?")):
            self.starter.fault = error
            self.failureResultOf(self.ask(ANN), type(error))
            self.starter.fault = None
            keeper = self.idle_keeper(ANN)
            keeper.end()

    def test_a_starter_that_fails_does_not_hold_up_those_who_wait(self) -> None:
        self.fill()
        waiting = [self.ask((1100 + number,) * 2) for number in range(500)]
        self.starter.fault = OSError(24, "too many files")
        self.starter.started[0].answer()
        self.leave()
        for each in waiting:
            self.failureResultOf(each, OSError)
        self.starter.fault = None
        self.idle_keeper(EVE)

    def test_a_stop_fails_who_waits_and_lets_all_go(self) -> None:
        busy = self.fill()
        asked = self.ask(EVE)
        self.keepers.stop()
        self.failureResultOf(asked, Busy)
        self.failureResultOf(self.ask(ANN), Busy)
        for each, keeper in zip(busy, self.starter.started, strict=True):
            self.assertTrue(keeper.transport.half_closed)
            keeper.answer(b"done")
            self.assertEqual(self.successResultOf(each).fields, [b"done"])

    def test_a_stop_gives_up_what_hangs_and_leaves_it_to_the_broker(self) -> None:
        asked = self.ask(ANN)
        self.keepers.stop()
        self.clock.advance(LEAVING_LIMIT)
        self.failureResultOf(asked, KeeperLost)
        self.assertEqual(self.starter.killed, [])

    def test_sessions_that_ask_again_when_nothing_can_be_started_are_all_answered(self) -> None:
        # One at a time in each mailbox, as the realm has it: the end of one begins the next.
        self.starter.fault = OSError(24, "Too many open files")
        turns = Turns(self.clock)
        begun = [
            Deferred.fromCoroutine(
                turns.take(str(owner), lambda owner=owner: self.ask((owner, owner)))  # type: ignore[misc]
            )
            for _ in range(5)
            for owner in range(1000, 1200)
        ]
        for each in begun:
            self.failureResultOf(each, OSError)
        self.assertEqual(turns._names, {})


class FullKeeperTests(PoolTestCase):
    """A keeper works on so many questions at a time, and is asked no more."""

    def fill_it(self) -> list[Deferred[Answer]]:
        return [self.ask(ANN) for _ in range(MOST_THREADS)]

    def test_what_it_has_no_thread_for_waits_and_is_asked_in_order(self) -> None:
        self.fill_it()
        waiting = [self.ask(ANN, b"%d" % number) for number in range(3)]
        keeper = self.keeper(ANN)
        self.assertEqual(len(keeper.awaited()), MOST_THREADS)
        for _ in range(3):
            keeper.answer()
        self.assertEqual(len(keeper.awaited()), MOST_THREADS)
        for _ in range(MOST_THREADS):
            keeper.answer()
        for each in waiting:
            self.successResultOf(each)

    def test_waiting_for_a_thread_is_no_sign_that_it_hangs(self) -> None:
        self.fill_it()
        late = self.ask(ANN)
        self.clock.advance(WAIT_LIMIT)
        self.failureResultOf(late, Busy)
        self.assertEqual(self.starter.killed, [])
        self.assertEqual(len(self.keeper(ANN).awaited()), MOST_THREADS)

    def test_it_does_not_hold_up_other_owners(self) -> None:
        self.fill_it()
        for _ in range(50):
            self.ask(ANN)
        self.idle_keeper(BOB)
        # Nor one who needs a place, which is BOB's then.
        asked = self.ask(EVE)
        self.leave()
        self.keeper(EVE).answer()
        self.successResultOf(asked)

    def test_however_much_its_owner_asks_it_is_let_go_for_another(self) -> None:
        self.fill_it()
        other = self.ask(BOB)
        for _ in range(50):
            self.ask(ANN)
        asked = self.ask(EVE)
        keeper = self.keeper(ANN)
        while keeper.awaited():
            keeper.answer()
        self.assertTrue(keeper.transport.half_closed)
        self.leave()
        self.keeper(EVE).answer()
        self.successResultOf(asked)
        self.keeper(BOB).answer()
        self.successResultOf(other)


class ManyOwnersTests(PoolTestCase):
    MOST = 4

    def test_all_are_served_in_the_order_in_which_they_came(self) -> None:
        owners = [(1000 + number,) * 2 for number in range(200)]
        served: list[Owner] = []
        for owner in owners:
            self.ask(owner).addCallback(lambda _, owner: served.append(owner), owner)
        while len(served) < len(owners):
            for keeper in self.starter.running():
                if keeper.awaited():
                    keeper.answer()
            self.assertLessEqual(len(self.running()), self.MOST)
            self.leave()
        self.assertEqual(served, owners)
        self.assertEqual([keeper.owner for keeper in self.starter.started], owners)


class LossTests(PoolTestCase):
    MOST = 1

    def test_what_was_under_way_fails_and_the_next_question_starts_another(self) -> None:
        asked = [self.ask(ANN), self.ask(ANN)]
        self.keeper(ANN).end()
        for each in asked:
            self.failureResultOf(each, KeeperLost)
        self.idle_keeper(ANN)
        self.assertEqual(len(self.starter.started), 2)
        self.assertEqual(self.starter.killed, [])

    def test_who_asks_again_at_once_is_asked_of_another(self) -> None:
        again: list[Deferred[Answer]] = []
        self.ask(ANN).addErrback(lambda _: again.append(self.ask(ANN, b"again")))
        self.keeper(ANN).end()
        self.keeper(ANN).answer(b"answered")
        self.assertEqual(self.successResultOf(again[0]).fields, [b"answered"])

    def test_who_waited_for_it_is_asked_of_another(self) -> None:
        lost = self.ask(ANN)
        other = self.ask(BOB)
        waiting = [self.ask(ANN) for _ in range(2000)]
        self.keeper(ANN).end()
        self.failureResultOf(lost, KeeperLost)
        self.keeper(BOB).answer()
        self.successResultOf(other)
        self.leave()
        keeper = self.keeper(ANN)
        self.assertEqual(len(keeper.awaited()), MOST_THREADS)
        for each in waiting[:2]:
            keeper.answer()
            self.successResultOf(each)
        keeper.end()
        for each in waiting[2 : 2 + MOST_THREADS]:
            self.failureResultOf(each, KeeperLost)
        # The others had not been asked yet.
        self.assertEqual(len(self.keeper(ANN).awaited()), MOST_THREADS)
        self.assertFalse(waiting[-1].called)

    def test_one_that_dies_idle_is_not_asked(self) -> None:
        self.idle_keeper(ANN).end()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.idle_keeper(ANN)

    def test_one_that_hangs_is_killed_and_its_place_is_free(self) -> None:
        lost = self.ask(ANN)
        self.ask(BOB)
        self.clock.advance(WAIT_LIMIT)
        self.clock.advance(ANSWER_LIMIT - WAIT_LIMIT)
        self.failureResultOf(lost, KeeperLost)
        self.assertEqual(self.starter.killed, [1])
        self.idle_keeper(BOB)

    def test_that_it_cannot_be_killed_keeps_nobody_waiting(self) -> None:
        lost = self.ask(ANN)
        self.clock.advance(ANSWER_LIMIT - 1)
        waiting = self.ask(BOB)
        self.starter.fault = Busy("the broker has too much to do")
        self.clock.advance(1)
        self.failureResultOf(lost, KeeperLost)
        self.failureResultOf(waiting, Busy)
        self.starter.fault = None
        self.idle_keeper(BOB)

    def test_one_that_breaks_the_rules_is_killed(self) -> None:
        asked = self.ask(ANN)
        self.keeper(ANN).channel.dataReceived(b"\xff" * 4)
        self.assertIsInstance(self.failureResultOf(asked), Failure)
        self.assertEqual(self.starter.killed, [1])
