"""The figures of one process.

Nothing here waits or locks: figures are changed in the reactor's thread only. To count costs less
than a microsecond.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from qmailldap.figures.history import History
from qmailldap.figures.latest import Latest
from qmailldap.figures.snapshots import Series, Snapshot
from qmailldap.figures.table import FIGURES, OTHER, Kind, figure
from qmailldap.printable import escaped

__all__ = ["Reading", "Tally"]

_MICROSECONDS = 1_000_000

_LONGEST_LABEL = 100

Reading = float | Mapping[Any, float]
"""What is read at the moment: one value, or one for each value of the label, a str, or of the
labels, a tuple of these."""


class Tally:
    """What this process has counted; ``now`` tells the seconds since the epoch.

    Names are those of `FIGURES`. A label that may have any value has at most as many as its row
    says; what comes after them is counted as "other".
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.history = History(now)
        self.latest = Latest(now)
        # In lists of one, so that what is counted is looked up but once.
        self._counters: dict[Series, list[int]] = {}
        self._levels: dict[Series, list[int]] = {}
        self._histograms: dict[Series, _Histogram] = {}
        self._readers: list[tuple[str, Callable[[], Reading]]] = []
        # What has come by other ways than the table, and how many of each name.
        self._known: set[Series] = set()
        self._values: Counter[str] = Counter()
        for each in FIGURES:
            for known in each.known_series:
                if each.kind is Kind.HISTOGRAM:
                    self._histograms[known] = _Histogram(each.buckets)
                elif each.kind is Kind.COUNTER:
                    self._counters[known] = [0]
                elif each.labels:
                    self._levels[known] = [0]

    def add(self, name: str, *labels: str, amount: int = 1) -> None:
        """So many more; of a counter in seconds, microseconds."""
        count = self._counters.get((name, *labels))
        if count is None:
            count = self._counters.setdefault(self._admitted(name, labels), [0])
        count[0] += amount

    def change(self, name: str, *labels: str, by: int) -> None:
        """Of a gauge, so many have come; or gone, where it is negative."""
        level = self._levels.get((name, *labels))
        if level is None:
            level = self._levels.setdefault(self._admitted(name, labels), [0])
        level[0] += by

    def observe(self, name: str, *labels: str, seconds: float) -> None:
        """Something took so long."""
        histogram = self._histograms.get((name, *labels))
        if histogram is None:
            new = _Histogram(figure(name).buckets)
            histogram = self._histograms.setdefault(self._admitted(name, labels), new)
        if seconds < 0:
            seconds = 0.0  # the clock was set back
        histogram.counts[bisect_left(histogram.bounds, seconds)] += 1
        histogram.total += int(seconds * _MICROSECONDS)

    def gauge(self, name: str, read: Callable[[], Reading]) -> None:
        """Have ``read`` tell the value whenever a snapshot is made.

        Also for a counter that somebody else keeps. Of several readers of one name each tells a
        part: they are added up.
        """
        figure(name)
        self._readers.append((name, read))

    def snapshot(self) -> dict[str, Any]:
        """All of it as JSON has it: see `qmailldap.figures.snapshots`."""
        counters = {series: count for series, (count,) in self._counters.items()}
        gauges = {series: float(level) for series, (level,) in self._levels.items()}
        for name, read in self._readers:
            is_counter = figure(name).kind is Kind.COUNTER
            for labels, value in _values(read()):
                series = (name, *labels)
                if is_counter:
                    counters[series] = counters.get(series, 0) + int(value)
                else:
                    gauges[series] = gauges.get(series, 0) + value
        histograms = {
            series: ([*each.counts], each.total) for series, each in self._histograms.items()
        }
        return Snapshot(counters, histograms, gauges, self.history.rows()).to_json()

    def _admitted(self, name: str, labels: tuple[str, ...]) -> Series:
        """The series under which something new is kept. Raises ``KeyError`` for no figure's name.

        The labels of one that come from outside are bounded.
        """
        row = figure(name)
        if len(labels) != len(row.labels):
            raise ValueError(f"{name} has the labels {row.labels}, not {labels}")
        shown = (name, *(_shown(label) for label in labels))
        if shown in self._known:
            return shown
        if self._values[name] >= row.most:
            return (name, *(OTHER for _ in labels))
        self._values[name] += 1
        self._known.add(shown)
        return shown


class _Histogram:
    """Counts of what was not more than each of the bounds, and beyond; the sum of all."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0


def _shown(label: str) -> str:
    return str(escaped(label[:_LONGEST_LABEL]))[:_LONGEST_LABEL]


def _values(reading: Reading) -> list[tuple[tuple[str, ...], float]]:
    """Of each of the labels the value."""
    if not isinstance(reading, Mapping):
        return [((), reading)]
    return [
        ((labels,) if isinstance(labels, str) else labels, value)
        for labels, value in reading.items()
    ]
