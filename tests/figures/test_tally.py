"""What one process counts."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.figures import Tally, Together, together


class TallyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.tally = Tally(self.clock.seconds)

    def together(self) -> Together:
        snapshot: Any = json.loads(json.dumps(self.tally.snapshot()))
        return together([snapshot])

    def test_what_is_known_from_the_start_is_shown_at_zero(self) -> None:
        logins = self.together().values["logins_total"]
        self.assertEqual(logins["ok-local",], 0)
        self.assertEqual(logins["too-many-sessions",], 0)
        self.assertEqual(self.together().values["sessions"]["waiting",], 0)

    def test_counters_are_added_up_by_their_labels(self) -> None:
        self.tally.add("logins_total", "ok-local")
        self.tally.add("logins_total", "ok-local")
        self.tally.add("octets_sent_total", amount=1000)
        figures = self.together()
        self.assertEqual(figures.value("logins_total", "ok-local"), 2)
        self.assertEqual(figures.value("logins_total", "ok-forwarded"), 0)
        self.assertEqual(figures.value("logins_total"), 2)
        self.assertEqual(figures.value("octets_sent_total"), 1000)

    def test_a_gauge_goes_up_and_down(self) -> None:
        self.tally.change("sessions", "local", by=2)
        self.tally.change("sessions", "local", by=-1)
        self.tally.change("forwarded_sessions", "mail1.example.org", by=1)
        self.assertEqual(self.together().value("sessions", "local"), 1)
        self.assertEqual(self.together().value("forwarded_sessions", "mail1.example.org"), 1)

    def test_a_time_is_in_the_first_bucket_that_it_does_not_exceed(self) -> None:
        for seconds in (0.001, 0.0011, 31.0):
            self.tally.observe("login_seconds", seconds=seconds)
        counts, total = self.together().histograms["login_seconds"][()]
        self.assertEqual([counts[0], counts[1], counts[-1], sum(counts)], [1, 1, 1, 3])
        self.assertEqual(total, 31.0021)

    def test_a_clock_that_was_set_back_takes_nothing_away(self) -> None:
        self.tally.observe("login_seconds", seconds=-5)
        self.assertEqual(self.together().histograms["login_seconds"][()][1], 0)

    def test_what_somebody_else_keeps_is_read_when_it_is_wanted(self) -> None:
        level = [3]
        self.tally.gauge("keepers", lambda: level[0])
        self.tally.gauge("keepers", lambda: 1)
        self.tally.gauge("threads_busy", lambda: {"mail": level[0]})
        self.tally.gauge("build_info", lambda: {("1", "3.11", "24.3"): 1})
        self.tally.gauge("listings_hits_total", lambda: level[0])
        level[0] = 5
        figures = self.together()
        self.assertEqual(figures.value("keepers"), 6)
        self.assertEqual(figures.value("threads_busy", "mail"), 5)
        self.assertEqual(figures.value("build_info", "1", "3.11", "24.3"), 1)
        self.assertEqual(figures.value("listings_hits_total"), 5)

    def test_a_label_from_outside_has_so_many_values_and_no_more(self) -> None:
        for number in range(200):
            self.tally.add("forwarded_total", f"mail{number}.example.org")
            self.tally.change("forwarded_sessions", f"mail{number}.example.org", by=1)
        for number in range(200):
            self.tally.change("forwarded_sessions", f"mail{number}.example.org", by=-1)
        # Here, and not only where all are added up.
        snapshot = self.tally.snapshot()
        for kind, name in (("counters", "forwarded_total"), ("gauges", "forwarded_sessions")):
            self.assertEqual(len([each for each in snapshot[kind] if each[0] == name]), 101)
        self.assertLess(len(self.tally._known), 250)
        figures = self.together()
        members = figures.values["forwarded_total"]
        self.assertEqual(len(members), 101)
        self.assertEqual(members["other",], 100)
        self.assertEqual(figures.value("forwarded_total"), 200)
        self.assertEqual(set(figures.values["forwarded_sessions"].values()), {0})

    def test_a_label_from_outside_is_short_and_can_be_shown(self) -> None:
        for label in ("x" * 10_000, "a\nb", "\udc80", "\x1b[31m"):
            self.tally.add("forwarded_total", label)
            self.tally.add("forwarded_total", label)
        members = self.together().values["forwarded_total"]
        self.assertEqual(
            sorted(members), [("\\udc80",), ("\\x1b[31m",), ("a\\x0ab",), ("x" * 100,)]
        )
        self.assertEqual(set(members.values()), {2})

    def test_a_name_that_is_none_is_an_error(self) -> None:
        with self.assertRaises(KeyError):
            self.tally.add("nothing_total")
        with self.assertRaises(KeyError):
            self.tally.gauge("nothing", lambda: 1)
        with self.assertRaises(ValueError):
            self.tally.add("logins_total")
