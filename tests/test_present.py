"""Who is on, and the order in which all of them are ended."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.present import QUIET, Kicked, Presence, Present, name_of
from tests.loglevels import logged_lines


class Entry:
    """Leaves when ``leaves`` is told to it: "stop" or "cut off". ``told`` is all that it was."""

    def __init__(
        self, present: Present, leaves: str = "", *, member: str = "", **facts: object
    ) -> None:
        self.present = present
        self.leaves = leaves
        self.is_updating = False
        self.facts = facts
        self.told: list[object] = []
        present.enter(self, member)

    def presence(self) -> Presence:
        return Presence(**self.facts)  # type: ignore[arg-type]

    def kick(self) -> bool:
        self._hear("kick")
        return not self.is_updating

    def stop(self, quiet: float) -> None:
        self._hear("stop", quiet)

    def cut_off(self) -> bool:
        self._hear("cut off")
        return True

    def _hear(self, *what: object) -> None:
        self.told += what
        if self.leaves in what:
            self.present.leave(self)


class PresentTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.present = Present(self.clock)

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.05] * round(seconds / 0.05))

    def drain(self, seconds: float) -> Deferred[None]:
        return self.present.drain(seconds)


class ListTests(PresentTestCase):
    def test_those_are_on_who_have_come_and_not_left(self) -> None:
        one, two = Entry(self.present, id="1"), Entry(self.present, id="2")
        self.assertEqual([*self.present], [one, two])
        self.present.leave(one)
        self.present.leave(one)
        self.assertEqual([*self.present], [two])

    def test_those_with_members_are_counted_by_machine_as_they_come_and_go(self) -> None:
        here = Entry(self.present)
        first, *others = (Entry(self.present, member=each) for each in ("a:110", "b:110", "a:110"))
        self.assertEqual(self.present.by_member, {"a:110": 2, "b:110": 1})
        for each in (first, first, here):
            self.present.leave(each)
        self.assertEqual(self.present.by_member, {"a:110": 1, "b:110": 1})
        for each in others:
            self.present.leave(each)
        self.assertEqual(self.present.by_member, {})

    def test_somebody_may_leave_while_all_are_looked_at(self) -> None:
        for _ in range(3):
            Entry(self.present)
        for each in self.present:
            self.present.leave(each)
        self.assertEqual([*self.present], [])


class VisitTests(PresentTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.seen: list[object] = []

    def visit(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.present.visit(self.seen.append))

    def test_a_few_are_seen_at_once(self) -> None:
        entries = [Entry(self.present) for _ in range(3)]
        self.successResultOf(self.visit())
        self.assertEqual(self.seen, entries)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_of_a_crowd_some_are_seen_at_a_time(self) -> None:
        crowd = [Entry(self.present) for _ in range(1000)]
        turns, call_later = [], self.clock.callLater

        def later(*call: Any) -> Any:
            turns.append(len(self.seen))
            return call_later(*call)

        self.patch(self.clock, "callLater", later)
        visit = self.visit()
        self.assertEqual(turns, [100])
        self.clock.advance(0)
        self.successResultOf(visit)
        self.assertEqual(turns, [*range(100, 1001, 100)])
        self.assertEqual(self.seen, crowd)

    def test_who_comes_meanwhile_is_seen_and_who_leaves_is_not(self) -> None:
        crowd = [Entry(self.present) for _ in range(300)]
        visit = self.visit()
        late = Entry(self.present)
        self.present.leave(crowd[0])
        self.present.leave(crowd[250])
        self.clock.advance(0)
        self.successResultOf(visit)
        self.assertEqual(self.seen, [*crowd[:250], *crowd[251:], late])


class KickTests(PresentTestCase):
    def kick(self, who: str) -> Kicked:
        return self.successResultOf(Deferred.fromCoroutine(self.present.kick(who)))

    def test_one_is_kicked_by_its_id(self) -> None:
        one, two = Entry(self.present, id="S1", user="joe"), Entry(self.present, id="S2")
        self.assertEqual(self.kick("S1"), Kicked(1, 0))
        self.assertEqual((one.told, two.told), (["kick"], []))

    def test_all_of_a_user_are_kicked(self) -> None:
        of_joe = [Entry(self.present, "kick", id=f"S{each}", user="joe") for each in range(3)]
        of_ann = Entry(self.present, id="S9", user="ann")
        self.assertEqual(self.kick("joe"), Kicked(3, 0))
        self.assertEqual([each.told for each in of_joe], [["kick"]] * 3)
        self.assertEqual(of_ann.told, [])

    def test_one_that_is_updating_is_none_that_was_ended(self) -> None:
        Entry(self.present, "kick", user="joe")
        Entry(self.present, user="joe").is_updating = True
        self.assertEqual(self.kick("joe"), Kicked(1, 1))

    def test_a_name_is_as_it_was_given_but_for_what_cannot_be_shown(self) -> None:
        self.assertEqual(name_of(b"ann b"), "ann b")
        self.assertEqual(name_of("jörg".encode()), "jörg")
        self.assertEqual(name_of(b"\x1b[2J\xff"), "\\x1b[2J\\xff")

    def test_nobody_is_called_nothing(self) -> None:
        waiting = Entry(self.present, user="")
        self.assertEqual(self.kick(""), Kicked(0, 0))
        self.assertEqual(self.kick("joe"), Kicked(0, 0))
        self.assertEqual(waiting.told, [])


class DrainTests(PresentTestCase):
    def test_where_nobody_is_on_it_is_over_at_once(self) -> None:
        self.successResultOf(self.drain(9))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_who_is_idle_is_told_at_once_and_then_it_is_over(self) -> None:
        entries = [Entry(self.present, "stop") for _ in range(3)]
        gone = self.drain(9)
        self.clock.advance(0)
        self.successResultOf(gone)
        self.assertEqual([each.told for each in entries], [["stop", QUIET]] * 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_who_is_at_work_is_waited_for(self) -> None:
        entry = Entry(self.present)
        gone = self.drain(9)
        self.pass_time(3)
        self.assertNoResult(gone)
        self.present.leave(entry)
        # Not from within: whoever leaves may have more to do.
        self.assertNoResult(gone)
        self.clock.advance(0)
        self.successResultOf(gone)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_in_the_second_half_of_the_time_nothing_more_is_begun(self) -> None:
        entry = Entry(self.present)
        self.drain(8)
        self.pass_time(3.9)
        self.assertEqual({*entry.told}, {"stop", QUIET})
        self.pass_time(0.5)
        self.assertEqual(entry.told[-2:], ["stop", 0.0])

    def test_who_is_left_at_the_end_is_cut_off(self) -> None:
        entry, logged = Entry(self.present), logged_lines(self)
        gone = self.drain(8)
        self.pass_time(7.7)
        self.assertNotIn("cut off", entry.told)
        self.pass_time(0.4)
        self.assertEqual(entry.told[-3:], ["stop", 0.0, "cut off"])
        self.successResultOf(gone)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIn("stop cut-off=1", [each for each in logged if "cut-off" in each])

    def test_where_there_is_no_time_all_are_told_and_cut_off(self) -> None:
        idle, busy = Entry(self.present, "stop"), Entry(self.present)
        gone = self.drain(0)
        self.assertEqual(idle.told, ["stop", 0.0])
        self.assertEqual(busy.told, ["stop", 0.0, "cut off"])
        # What was written at the last moment gets out.
        self.assertNoResult(gone)
        self.clock.advance(0.1)
        self.successResultOf(gone)

    def test_who_comes_meanwhile_is_told_as_well(self) -> None:
        first = Entry(self.present)
        gone = self.drain(8)
        late = Entry(self.present, "stop")
        self.present.leave(first)
        self.pass_time(0.5)
        self.assertEqual(late.told, ["stop", QUIET])
        self.successResultOf(gone)

    def test_who_asks_again_waits_for_the_same_end(self) -> None:
        entry = Entry(self.present)
        first = self.drain(8)
        self.pass_time(4)
        second = self.drain(8)
        self.pass_time(4.1)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(entry.told.count("cut off"), 1)
        self.present.leave(entry)
        self.successResultOf(self.drain(8))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_crowd_is_told_some_at_a_time(self) -> None:
        crowd = [Entry(self.present, "stop") for _ in range(1000)]
        gone = self.drain(8)
        self.assertEqual(sum(bool(each.told) for each in crowd), 100)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(0)
        self.successResultOf(gone)
        self.assertEqual([each.told for each in crowd], [["stop", QUIET]] * 1000)

    def test_a_crowd_at_work_is_looked_at_again_and_again(self) -> None:
        crowd = [Entry(self.present) for _ in range(500)]
        self.drain(8)
        self.pass_time(2)
        self.assertEqual({len(each.told) for each in crowd}, {len(crowd[0].told)})
        self.assertGreater(len(crowd[0].told), 8)
