"""The last hour, minute by minute."""

from __future__ import annotations

import attrs
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.figures import LAST_MINUTES, Minute, Tally, fold, together


class HistoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        # As a real clock has it: not at the begin of a minute.
        self.clock.advance(1_000_000_000)
        self.tally = Tally(self.clock.seconds)
        self.history = self.tally.history

    def minutes(self) -> list[Minute]:
        return together([self.tally.snapshot()]).history(self.clock.seconds())

    def test_there_are_always_sixty_and_the_last_is_now(self) -> None:
        minutes = self.minutes()
        self.assertEqual(len(minutes), LAST_MINUTES)
        self.assertEqual([each.at % 60 for each in minutes], [0] * LAST_MINUTES)
        self.assertEqual(minutes[-1].at, 999_999_960)
        self.assertEqual({each.logins for each in minutes}, {0})

    def test_things_are_counted_in_their_minute(self) -> None:
        self.history.login()
        self.clock.advance(60)
        self.history.login()
        self.history.login()
        self.history.refusal()
        before, now = self.minutes()[-2:]
        self.assertEqual((before.logins, now.logins, now.refusals), (1, 2, 1))

    def test_sessions_are_the_most_there_were(self) -> None:
        for change in (1, 1, -1, 1, -1, -1, -1):
            self.history.sessions(change)
        self.assertEqual(self.minutes()[-1].sessions, 2)
        self.clock.advance(60)
        self.assertEqual(self.minutes()[-1].sessions, 0)

    def test_sessions_that_stay_are_there_in_minutes_in_which_nothing_happens(self) -> None:
        self.history.sessions(1)
        self.clock.advance(5 * 60)
        self.assertEqual([each.sessions for each in self.minutes()[-7:]], [0, 1, 1, 1, 1, 1, 1])

    def test_what_is_older_than_an_hour_is_forgotten(self) -> None:
        for _ in range(200):
            self.history.login()
            self.clock.advance(60)
        self.assertEqual(len(self.tally.snapshot()["history"]), LAST_MINUTES)
        self.clock.advance(LAST_MINUTES * 60)
        self.assertEqual({each.logins for each in self.minutes()}, {0})

    def test_a_clock_that_is_set_back_goes_on_where_it_was(self) -> None:
        self.history.login()
        before = self.minutes()[-1]
        self.clock.rightNow -= 600
        self.history.login()
        self.assertEqual(self.minutes()[-1].logins, 0)
        # What was counted meanwhile is in the last minute that there was.
        self.clock.advance(600)
        self.assertEqual(self.minutes()[-1], attrs.evolve(before, logins=2))
        self.clock.advance(60)
        self.history.login()
        self.assertEqual([each.logins for each in self.minutes()[-3:]], [0, 2, 1])

    def test_a_clock_that_was_wrong_by_far_begins_anew(self) -> None:
        self.history.login()
        self.history.sessions(3)
        self.clock.rightNow -= 86_400
        self.history.login()
        self.clock.advance(60)
        self.history.login()
        minutes = self.minutes()
        self.assertEqual([each.logins for each in minutes[-3:]], [0, 1, 1])
        self.assertEqual([each.sessions for each in minutes[-3:]], [0, 3, 3])

    def test_those_of_several_processes_are_added_up(self) -> None:
        self.history.login()
        self.history.sessions(2)
        self.clock.advance(60)
        other = Tally(self.clock.seconds)
        other.history.login()
        other.history.sessions(1)
        both = together([self.tally.snapshot(), other.snapshot()])
        before, now = both.history(self.clock.seconds())[-2:]
        self.assertEqual((before.logins, before.sessions), (1, 2))
        self.assertEqual((now.logins, now.sessions), (1, 3))
        ended = fold(self.tally.snapshot(), other.snapshot())
        self.assertEqual(together([ended]).history(self.clock.seconds())[-1], now)
