"""What one process tells another of its figures, and the figures of several as one.

A snapshot is JSON:

    {"counters": [[name, [label, ...], count], ...],
     "histograms": [[name, [label, ...], [count of each bucket and of what is beyond], sum], ...],
     "gauges": [[name, [label, ...], value], ...],
     "history": [[minute, logins, refusals, sessions], ...]}

Counts are whole numbers, seconds of counters and sums microseconds, so that it does not matter in
which order the processes of a server are added up. Who reads a snapshot may have more rights than
who made it, and believes no shape of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import attrs

from qmailldap.figures.history import LAST_MINUTES, Minute, merged, minutes
from qmailldap.figures.table import FIGURES, OTHER, Figure, Gathering, Kind, figure

__all__ = ["BadSnapshot", "Series", "Snapshot", "Together", "fold", "together"]

Series = tuple[str, ...]
"""A name and its labels."""
Histogram = tuple[list[int], int]
"""The counts of the buckets, each alone, and the sum in microseconds."""

_MOST = 2**63
"""Below it a count, or a level, is believed."""

_MOST_SERIES = 10_000
_LONGEST_LABEL = 256

_MICROSECONDS = 1_000_000

T = TypeVar("T")


class BadSnapshot(ValueError):
    """What was told is no snapshot; the text says why."""


@attrs.frozen
class Snapshot:
    """The figures of one process, or of several that were folded."""

    counters: Mapping[Series, int] = attrs.field(factory=dict)
    histograms: Mapping[Series, Histogram] = attrs.field(factory=dict)
    gauges: Mapping[Series, float] = attrs.field(factory=dict)
    history: list[Any] = attrs.field(factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "counters": [[name, labels, n] for (name, *labels), n in self.counters.items()],
            "histograms": [
                [name, labels, counts, total]
                for (name, *labels), (counts, total) in self.histograms.items()
            ],
            "gauges": [[name, labels, value] for (name, *labels), value in self.gauges.items()],
            "history": self.history,
        }

    @classmethod
    def from_json(cls, told: Any) -> Snapshot:
        """Raises `BadSnapshot`."""
        _require(isinstance(told, dict), "is no object")
        counters, histograms, gauges = {}, {}, {}
        for name, labels, count in _rows(told, "counters", 3):
            counters[_series(name, labels, Kind.COUNTER)] = _count(count)
        for name, labels, counts, total in _rows(told, "histograms", 4):
            series = _series(name, labels, Kind.HISTOGRAM)
            _require(isinstance(counts, list), "has a histogram without buckets")
            _require(len(counts) == len(figure(name).buckets) + 1, "has other buckets")
            histograms[series] = [_count(each) for each in counts], _count(total)
        for name, labels, value in _rows(told, "gauges", 3):
            gauges[_series(name, labels, Kind.GAUGE)] = _level(value)
        history = [[_count(each) for each in row] for row in _rows(told, "history", 4)]
        return cls(counters, histograms, gauges, history)


def fold(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two snapshots as one, of what remains of a process that has ended: no gauges.

    In whatever order snapshots are folded, the same comes of it, and no count is less than before.
    Where a label has too many values, the last by name are counted as "other". Raises
    `BadSnapshot`.
    """
    return _folded(Snapshot.from_json(first), Snapshot.from_json(second)).to_json()


def together(snapshots: Iterable[Any]) -> Together:
    """The figures of all processes of a server; what is no snapshot is left out."""
    all_of_them, gauges = Snapshot(), dict[Series, list[float]]()
    for told in snapshots:
        try:
            snapshot = Snapshot.from_json(told)
        except BadSnapshot:
            continue
        all_of_them = _folded(all_of_them, snapshot)
        for series, value in snapshot.gauges.items():
            gauges.setdefault(series, []).append(value)
    values: dict[str, dict[tuple[str, ...], float]] = {each.name: {} for each in FIGURES}
    for (name, *labels), count in all_of_them.counters.items():
        in_seconds = figure(name).in_seconds
        values[name][tuple(labels)] = count / _MICROSECONDS if in_seconds else count
    gathered = {
        series: _GATHERING[figure(series[0]).gathering](each) for series, each in gauges.items()
    }
    for (name, *labels), value in _bounded(gathered, _sum).items():
        values[name][tuple(labels)] = value
    histograms: dict[str, dict[tuple[str, ...], tuple[list[int], float]]] = {}
    for (name, *labels), (counts, total) in all_of_them.histograms.items():
        of_name = histograms.setdefault(name, {})
        of_name[tuple(labels)] = counts, total / _MICROSECONDS
    return Together(values, histograms, all_of_them.history)


@attrs.frozen
class Together:
    """The figures of all processes: of each name the values by their labels.

    Counters and gauges are as they are shown, seconds as such. A histogram is the counts of its
    buckets, each alone, and the sum in seconds.
    """

    values: Mapping[str, Mapping[tuple[str, ...], float]]
    histograms: Mapping[str, Mapping[tuple[str, ...], tuple[list[int], float]]]
    _history: list[Any]

    def value(self, name: str, *labels: str) -> float:
        """One of them, 0 where it was never counted; without labels the sum of all."""
        values = self.values.get(name, {})
        return values.get(labels, 0) if labels else sum(values.values())

    def history(self, now: float) -> list[Minute]:
        """The last hour before ``now``, in seconds since the epoch; oldest minute first."""
        return minutes(self._history, now)


_GATHERING: dict[Gathering, Callable[[list[float]], float]] = {
    Gathering.SUM: sum,
    Gathering.LEAST: min,
    Gathering.MOST: max,
}


def _folded(first: Snapshot, second: Snapshot) -> Snapshot:
    return Snapshot(
        _bounded(_joined(first.counters, second.counters, _sum), _sum),
        _bounded(_joined(first.histograms, second.histograms, _sum_of_two), _sum_of_two),
        {},
        merged(first.history, second.history),
    )


def _joined(
    first: Mapping[Series, T], second: Mapping[Series, T], add: Callable[[T, T], T]
) -> dict[Series, T]:
    joined = dict(first)
    for series, value in second.items():
        joined[series] = add(joined[series], value) if series in joined else value
    return joined


def _bounded(values: Mapping[Series, T], add: Callable[[T, T], T]) -> dict[Series, T]:
    """With no more values of a label than its row says, but for "other", and those known before.

    Those that are first by name stay, which are the same whatever is added before: what is not
    among the first here would not be among them with more.
    """
    of_name: dict[str, list[Series]] = {}
    for series in values:
        of_name.setdefault(series[0], []).append(series)
    kept: dict[Series, T] = {}
    for name in sorted(of_name):
        row = figure(name)
        always = {*row.known_series, _other(row)}
        left = row.most
        for series in sorted(of_name[name]):
            is_kept = series in always or left > 0
            left -= series not in always
            series_shown = series if is_kept else _other(row)
            value = values[series]
            kept[series_shown] = add(kept[series_shown], value) if series_shown in kept else value
    return kept


def _other(row: Figure) -> Series:
    return (row.name, *(OTHER for _ in row.labels))


def _sum(first: Any, second: Any) -> Any:
    return first + second


def _sum_of_two(first: Histogram, second: Histogram) -> Histogram:
    return [a + b for a, b in zip(first[0], second[0], strict=True)], first[1] + second[1]


def _rows(told: Any, kind: str, width: int) -> list[Any]:
    rows = told.get(kind)
    most = LAST_MINUTES if kind == "history" else _MOST_SERIES
    _require(isinstance(rows, list) and len(rows) <= most, f"has no list of {kind}")
    for row in rows:
        _require(isinstance(row, list) and len(row) == width, f"has a bad row of {kind}")
    return list(rows)


def _series(name: Any, labels: Any, kind: Kind) -> Series:
    _require(isinstance(name, str) and isinstance(labels, list), "has a row without a name")
    try:
        row = figure(name)
    except KeyError:
        raise BadSnapshot("has a figure that is none") from None
    _require(row.kind is kind and len(labels) == len(row.labels), f"has a bad row of {name}")
    for label in labels:
        _require(isinstance(label, str) and len(label) <= _LONGEST_LABEL, "has a bad label")
        _require(label.isprintable(), "has a bad label")
    return (name, *labels)


def _count(count: Any) -> int:
    _require(type(count) is int and 0 <= count < _MOST, "has a count that is none")
    return int(count)


def _level(value: Any) -> float:
    """Of a gauge. NaN is below nothing, and what is not finite cannot be shown as a count."""
    _require(
        type(value) in (int, float) and abs(value) < _MOST, "has a gauge that is no such number"
    )
    return value  # type: ignore[no-any-return]  # looked at above


def _require(is_so: object, otherwise: str) -> None:
    if not is_so:
        raise BadSnapshot(f"what was told of figures {otherwise}")
