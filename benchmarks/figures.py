"""What was measured of ours and of Dovecot, and the table of it: for people, as Markdown, as JSON.

Nothing here measures. All ratios are those of one round, and above 1 where ours is the better one,
be a figure one of which more is better, or less.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from benchmarks.servers import Failure

__all__ = [
    "DOVECOT",
    "OURS",
    "Cost",
    "Figure",
    "Row",
    "Sample",
    "Samples",
    "as_json",
    "as_markdown",
    "as_text",
    "shown",
]

OURS, DOVECOT = "qmailldap", "dovecot"


@attrs.frozen
class Cost:
    """Milliseconds of CPU, user and system, for each unit."""

    server: float
    directory: float
    generator: float


@attrs.frozen
class Sample:
    """What one round gave, and its cost, where that has been looked at."""

    value: float
    cost: Cost | None = None


@attrs.frozen
class Samples:
    """Those of both servers, in the order of the rounds."""

    ours: tuple[Sample, ...]
    dovecot: tuple[Sample, ...]

    @classmethod
    def of(cls, samples: Mapping[str, Sequence[Sample]]) -> Samples:
        """From samples by server."""
        return cls(tuple(samples[OURS]), tuple(samples[DOVECOT]))


@attrs.frozen
class Row:
    """What a figure says.

    ``unit`` is that of its values, ``of`` what a cost is the cost of. ``target`` is the least ratio
    that is wanted; ``limit`` is how much ours may be at most, where the figure is no race.
    """

    key: str
    title: str
    unit: str
    of: str = ""
    less_is_better: bool = False
    target: float | None = None
    limit: float | None = None


@attrs.frozen
class Figure:
    """A row and what was measured for it.

    ``ceiling`` is what the generator reaches at a server that costs next to nothing. ``notes`` are
    what has to be known to read it.
    """

    row: Row
    samples: Samples
    ceiling: float | None = None
    notes: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        """Raise `Failure` where a round gave nothing, of which there is no ratio."""
        if min(sample.value for sample in self.samples.ours + self.samples.dovecot) <= 0:
            raise Failure(f"{self.row.title}: nothing came of a round; it needs more --seconds")

    @property
    def ratios(self) -> list[float]:
        """By how much ours is the better one, round by round."""
        pairs = zip(self.samples.ours, self.samples.dovecot, strict=True)
        if self.row.less_is_better:
            return [dovecot.value / ours.value for ours, dovecot in pairs]
        return [ours.value / dovecot.value for ours, dovecot in pairs]

    @property
    def wanted_ratio(self) -> float | None:
        """The ratio from which on the target is met; with a limit, what it would be at that."""
        if self.row.limit is not None:
            return statistics.median(self.ratios) * _median(self.samples.ours) / self.row.limit
        return self.row.target

    @property
    def is_met(self) -> bool | None:
        """Whether the median is as it should be; None where nothing is wanted."""
        if self.row.limit is not None:
            return _median(self.samples.ours) <= self.row.limit
        if self.row.target is not None:
            return statistics.median(self.ratios) >= self.row.target
        return None

    @property
    def wanted(self) -> str:
        """The target in words."""
        if self.row.limit is not None:
            text = f"ours <= {self.row.limit:g} {self.row.unit}".rstrip()
        elif self.row.target is not None:
            text = f"ratio >= {self.row.target:.1f}"
        else:
            return ""
        return f"{text}: {'met' if self.is_met else 'missed'}"


_HEADS = (
    "figure",
    "ours",
    "Dovecot",
    "ratio",
    "target",
    "CPU of",
    "server ms",
    "slapd ms",
    "generator ms",
    "ceiling",
)

_LEGEND = (
    "Medians of the rounds (lowest-highest); pairs are ours / Dovecot. The ratio is taken round by"
    " round, and above 1 ours is the better one. ms are CPU time, user and system, of all"
    " processes, for one of what is named before them. The ceiling is what the load generator"
    " reaches at a server that costs next to nothing. Compare figures of this one run only: on"
    " another day or machine they mean nothing."
)


def as_text(figures: Sequence[Figure]) -> str:
    """The table for a terminal."""
    rows = [_HEADS, *map(_cells, figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    notes = [f"{figure.row.title}: {note}" for figure in figures for note in figure.notes]
    return "\n".join([*(line.rstrip() for line in lines), "", _LEGEND, *notes])


def as_markdown(figures: Sequence[Figure], machine: Mapping[str, object]) -> str:
    """The table for a page, and the machine that it was made on."""
    rows = [_HEADS, ("---",) * len(_HEADS), *map(_cells, figures)]
    table = ["| " + " | ".join(row) + " |" for row in rows]
    notes = [f"- {figure.row.title}: {note}" for figure in figures for note in figure.notes]
    facts = [f"- {name}: {value}" for name, value in machine.items()]
    return (
        "\n".join([*table, "", _LEGEND, "", *notes, "", "The machine and the run:", "", *facts])
        + "\n"
    )


def as_json(figures: Sequence[Figure], machine: Mapping[str, object]) -> dict[str, Any]:
    """All of it, every round included."""
    return {
        "machine": dict(machine),
        "figures": [
            {
                **attrs.asdict(figure),
                "ratios": figure.ratios,
                "ratio": statistics.median(figure.ratios),
                "met": figure.is_met,
            }
            for figure in figures
        ],
    }


def shown(value: float) -> str:
    """A number in three digits or more, none of them in vain."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def _cells(figure: Figure) -> tuple[str, ...]:
    return (
        figure.row.title,
        _spread([sample.value for sample in figure.samples.ours], figure.row.unit),
        _spread([sample.value for sample in figure.samples.dovecot], figure.row.unit),
        _spread(figure.ratios),
        figure.wanted,
        figure.row.of,
        *(_costs(figure, part) for part in ("server", "directory", "generator")),
        "" if figure.ceiling is None else f"{shown(figure.ceiling)} {figure.row.unit}",
    )


def _costs(figure: Figure, part: str) -> str:
    medians = []
    for samples in (figure.samples.ours, figure.samples.dovecot):
        costs = [getattr(sample.cost, part) for sample in samples if sample.cost is not None]
        if not costs:
            return ""
        medians.append(shown(statistics.median(costs)))
    return " / ".join(medians)


def _spread(values: Sequence[float], unit: str = "") -> str:
    median = f"{shown(statistics.median(values))} {unit}".rstrip()
    if len(values) == 1:
        return median
    return f"{median} ({shown(min(values))}-{shown(max(values))})"


def _median(samples: Sequence[Sample]) -> float:
    return statistics.median(sample.value for sample in samples)
