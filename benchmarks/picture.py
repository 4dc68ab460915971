"""The picture of the ratios. The one module that needs matplotlib, which `make bench` installs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter

from benchmarks.figures import Figure, shown

__all__ = ["draw"]

_AHEAD, _BEHIND, _WANTED = "#2a7f62", "#b5523b", "#1c1c1c"
_WIDTH, _HEIGHT_OF_A_BAR = 9.0, 0.38
_DOTS_PER_INCH = 150


def draw(figures: Sequence[Figure], subtitle: str, *files: Path) -> None:
    """Draw horizontal bars of all ratios, with their spread and what is wanted, into the files.

    Their names say of which kind they are. The scale is logarithmic: twice as good is as far from
    1 as half as good.
    """
    ratios = [figure.ratios for figure in figures]
    medians = [statistics.median(each) for each in ratios]
    below = [median - min(each) for median, each in zip(medians, ratios, strict=True)]
    above = [max(each) - median for median, each in zip(medians, ratios, strict=True)]
    rows = range(len(figures))
    height = _HEIGHT_OF_A_BAR * len(figures) + 1.6
    figure, axes = pyplot.subplots(figsize=(_WIDTH, height), layout="constrained")
    axes.barh(
        rows,
        [median - 1 for median in medians],
        left=1,
        color=[_AHEAD if median >= 1 else _BEHIND for median in medians],
        height=0.6,
    )
    axes.errorbar(
        medians, rows, xerr=[below, above], fmt="none", ecolor="#555555", capsize=3, linewidth=1
    )
    wanted = [(each.wanted_ratio, row) for row, each in enumerate(figures)]
    marks = [(ratio, row) for ratio, row in wanted if ratio is not None]
    axes.scatter(
        [ratio for ratio, _ in marks],
        [row for _, row in marks],
        marker="|",
        s=260,
        linewidths=2.5,
        color=_WANTED,
        label="target",
        zorder=3,
    )
    axes.axvline(1, color="#555555", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(_ratio))
    axes.set_yticks(rows, [each.row.title for each in figures])
    for row, median in enumerate(medians):
        # In a column of their own, where nothing is drawn over them.
        axes.annotate(
            shown(median), (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=8
        )
    axes.set_ylim(len(figures) - 0.5, -0.5)
    axes.margins(x=0.08)
    axes.set_xlabel("how many times better than Dovecot, in the same run (line: lowest to highest)")
    axes.set_title(subtitle, fontsize=9)
    axes.grid(axis="x", which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    if marks:
        axes.legend(loc="lower right", fontsize=8)
    for file in files:
        figure.savefig(file, dpi=_DOTS_PER_INCH)
    pyplot.close(figure)


def _ratio(value: float, _: int) -> str:
    return f"{value:g}" if value >= 1 else f"1/{1 / value:g}"
