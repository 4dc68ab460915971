"""What processes tell each other of their figures, and all of them as one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.figures import Tally, fold, together
from qmailldap.figures.snapshots import BadSnapshot, Snapshot

_MEMBERS = st.integers(0, 150).map(lambda number: f"mail{number}.example.org")

_ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("logins_total"), st.sampled_from(["ok-local", "abandoned"])),
        st.tuples(st.just("forwarded_total"), _MEMBERS),
        st.tuples(st.just("octets_sent_total")),
    ),
    max_size=10,
)
_TIMES = st.lists(st.floats(0, 100), max_size=5)
_MINUTES = st.lists(st.integers(0, 7200), max_size=4)


def _snapshot(
    actions: list[tuple[str, ...]], times: list[float], when: list[int], members: int
) -> dict[str, Any]:
    now = [0.0]
    tally = Tally(lambda: now[0])
    for number in range(members):
        tally.add("forwarded_total", f"mail{number}.example.org")
    for name, *labels in actions:
        tally.add(name, *labels, amount=3)
    for seconds in times:
        tally.observe("login_part_seconds", "hash", seconds=seconds)
        tally.observe("directory_seconds", f"ldap{round(seconds)}", seconds=seconds)
    for moment in sorted(when):
        now[0] = moment
        tally.history.login()
        tally.history.sessions(1)
    return tally.snapshot()


SNAPSHOTS = st.builds(_snapshot, _ACTIONS, _TIMES, _MINUTES, st.sampled_from([0, 0, 99, 130]))

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
_ROWS = st.lists(
    st.lists(_JSON | st.sampled_from(["logins_total", "login_seconds", "keepers"]), max_size=4),
    max_size=3,
)
_ALMOST = st.fixed_dictionaries(
    dict.fromkeys(("counters", "histograms", "gauges", "history"), _ROWS | _JSON)
)


def _counts(snapshot: Mapping[str, Any]) -> dict[tuple[str, ...], int]:
    """All counts of it, those of buckets and sums included."""
    counts = {(name, *labels): count for name, labels, count in snapshot["counters"]}
    for name, labels, buckets, total in snapshot["histograms"]:
        for number, count in enumerate([*buckets, total]):
            counts[name, *labels, str(number)] = count
    return counts


def _by_name(counts: Mapping[tuple[str, ...], int]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for (name, *_), count in counts.items():
        sums[name] = sums.get(name, 0) + count
    return sums


class FoldTests(SynchronousTestCase):
    @settings(max_examples=40, deadline=None)
    @given(SNAPSHOTS, SNAPSHOTS, SNAPSHOTS)
    def test_it_does_not_matter_in_which_order(
        self, first: dict[str, Any], second: dict[str, Any], third: dict[str, Any]
    ) -> None:
        self.assertEqual(fold(first, second), fold(second, first))
        self.assertEqual(fold(fold(first, second), third), fold(first, fold(second, third)))

    @settings(max_examples=40, deadline=None)
    @given(SNAPSHOTS, SNAPSHOTS)
    def test_nothing_shrinks_but_for_what_is_counted_as_other(
        self, first: dict[str, Any], second: dict[str, Any]
    ) -> None:
        before, after = _counts(first), _counts(fold(first, second))
        for series, count in before.items():
            if series in after:
                self.assertGreaterEqual(after[series], count)
            else:
                self.assertIn((series[0], "other", *series[2:]), after)
        # And nothing is lost, or there twice.
        others = _by_name(_counts(second))
        for name, count in _by_name(before).items():
            self.assertEqual(_by_name(after)[name], count + others.get(name, 0))

    @settings(max_examples=20, deadline=None)
    @given(st.lists(SNAPSHOTS, min_size=1, max_size=4))
    def test_it_has_no_more_values_of_a_label_however_many_are_folded(
        self, snapshots: list[dict[str, Any]]
    ) -> None:
        folded = snapshots[0]
        for each in snapshots[1:]:
            folded = fold(folded, each)
        members = [each for each in folded["counters"] if each[0] == "forwarded_total"]
        self.assertLessEqual(len(members), 101)
        self.assertLessEqual(len(folded["history"]), 60)

    @settings(max_examples=100, deadline=None)
    @given(_ALMOST | _JSON)
    def test_what_is_no_snapshot_is_refused_and_left_out(self, told: Any) -> None:
        tally = Tally(lambda: 0.0)
        tally.add("deletions_total", amount=7)
        try:
            fold(tally.snapshot(), told)
        except BadSnapshot:
            self.assertEqual(together([told, tally.snapshot()]).value("deletions_total"), 7)

    def test_gauges_are_not_folded(self) -> None:
        tally = Tally(lambda: 0.0)
        tally.gauge("keepers", lambda: 5)
        self.assertEqual(fold(tally.snapshot(), tally.snapshot())["gauges"], [])

    def test_a_snapshot_is_json_and_is_read_as_what_it_was(self) -> None:
        snapshot = _snapshot([("deletions_total",)], [0.5], [60], 3)
        read = json.loads(json.dumps(snapshot))
        self.assertEqual(Snapshot.from_json(read).to_json(), snapshot)

    def test_a_gauge_that_no_page_could_show_is_refused(self) -> None:
        good = {**Snapshot().to_json(), "gauges": [["sessions", ["local"], 7]]}
        for level in ("NaN", "Infinity", "-Infinity", "true", "1e19", "9" * 400, '"7"', "null"):
            told = {**good, "gauges": [["sessions", ["local"], json.loads(level)]]}
            with self.assertRaises(BadSnapshot):
                Snapshot.from_json(told)
            self.assertEqual(together([told, good]).value("sessions"), 7)

    def test_a_label_that_cannot_be_shown_or_is_long_is_refused(self) -> None:
        for label in ("a\nb", "\udc80", "x" * 1000, 5, None):
            told = {**Snapshot().to_json(), "counters": [["forwarded_total", [label], 1]]}
            with self.assertRaises(BadSnapshot):
                Snapshot.from_json(told)


class TogetherTests(SynchronousTestCase):
    def snapshot(self, **gauges: Any) -> dict[str, Any]:
        tally = Tally(lambda: 0.0)
        for name, value in gauges.items():
            tally.gauge(name, lambda value=value: value)  # type: ignore[misc]  # bound now
        return tally.snapshot()

    def test_gauges_are_what_their_row_says(self) -> None:
        first = self.snapshot(
            workers=1, directory_server_up={"ldap1": 1, "ldap2": 1}, connections_limit=500
        )
        second = self.snapshot(
            workers=1, directory_server_up={"ldap1": 0, "ldap2": 1}, connections_limit=500
        )
        figures = together([first, second])
        self.assertEqual(figures.value("workers"), 2)
        # One worker that cannot reach it is enough for somebody to look.
        self.assertEqual(figures.values["directory_server_up"], {("ldap1",): 0, ("ldap2",): 1})
        self.assertEqual(figures.value("connections_limit"), 500)

    def test_those_of_a_process_that_has_ended_are_added(self) -> None:
        tally = Tally(lambda: 0.0)
        tally.add("deletions_total", amount=2)
        ended = fold(tally.snapshot(), tally.snapshot())
        figures = together([tally.snapshot(), ended])
        self.assertEqual(figures.value("deletions_total"), 6)

    def test_nobody_who_answers_is_an_answer(self) -> None:
        self.assertEqual(together([]).value("logins_total"), 0)

    def test_seconds_of_counters_are_shown_as_such(self) -> None:
        figures = together([self.snapshot(process_cpu_seconds_total=2_500_000)])
        self.assertEqual(figures.value("process_cpu_seconds_total"), 2.5)
