"""The table of figures itself."""

from __future__ import annotations

import re

from prometheus_client.metrics_core import Metric
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.figures import FIGURES, figure
from qmailldap.figures.table import NO_LOGIN, Kind, outcome
from qmailldap.refusal import Refusal


class TableTests(SynchronousTestCase):
    def test_names_are_those_that_prometheus_wants(self) -> None:
        for each in FIGURES:
            self.assertRegex(each.name, r"\A[a-z]+(_[a-z]+)*\Z")
            counts = each.kind is Kind.COUNTER
            self.assertEqual(each.name.endswith("_total"), counts, each.name)
            if each.kind is Kind.HISTOGRAM:
                self.assertTrue(each.name.endswith("_seconds"), each.name)
            # Units are base units.
            self.assertIsNone(re.search("_(ms|milliseconds|minutes|kb|mb|percent)", each.name))
            Metric(each.shown, each.help, each.kind.value)

    def test_no_name_is_there_twice_and_each_is_found(self) -> None:
        # OpenMetrics has no two that differ in _total only.
        names = {each.name.removesuffix("_total") for each in FIGURES}
        self.assertEqual(len(names), len(FIGURES))
        for each in FIGURES:
            self.assertIs(figure(each.name), each)

    def test_help_is_a_line_without_a_stop(self) -> None:
        for each in FIGURES:
            self.assertRegex(each.help, r"\A[A-Z0-9][^\n]*[A-Za-z0-9]\Z", each.name)

    def test_every_refusal_is_counted_as_a_login_or_at_a_limit(self) -> None:
        logins, limits = figure("logins_total").known, figure("limit_refusals_total").known
        for refusal in Refusal:
            self.assertEqual(outcome(refusal) in logins, refusal not in NO_LOGIN)
            self.assertEqual(outcome(refusal) in limits, refusal.is_of_a_listener)
            self.assertTrue(outcome(refusal) in logins or outcome(refusal) in limits)
