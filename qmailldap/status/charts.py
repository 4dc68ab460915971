"""Small charts of the last hour, as SVG in the page: no script, nothing from elsewhere.

The drawing is stretched to whatever width there is, so it has no text in it; the numbers on its
sides are text of the page, as large as all other text. Without colours, or without seeing it, the
same is in its description, and minute by minute in a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import attrs
from twisted.web.template import Tag, tags

from qmailldap.figures import Minute
from qmailldap.status.words import count, time_of_day

__all__ = ["Chart", "Series", "rounded_up"]

_STEP, _GAP = 10, 2
"""The width of a minute in the units of the drawing, and what of it stays empty between bars."""

_HEIGHT = 100
_LABELS_EVERY = 15


@attrs.frozen
class Series:
    """One row of numbers: its ``name`` in the legend, and the class that gives it its colour."""

    name: str
    style: str
    value: Callable[[Minute], int]


@attrs.frozen
class Chart:
    """``bars``: the series stand on each other; else they are lines over an area."""

    title: str
    series: Sequence[Series]
    bars: bool

    def drawn(self, minutes: Sequence[Minute], ident: str) -> Tag:
        """As a figure; ``ident`` is that of its parts on the page."""
        top = rounded_up(max((self._sum(each) for each in minutes), default=0))
        shapes = self._bars(minutes, top) if self.bars else self._areas(minutes, top)
        drawing = Tag("svg")(
            viewBox=f"0 0 {_STEP * max(1, len(minutes))} {_HEIGHT}",
            preserveAspectRatio="none",
            role="img",
            **{"aria-labelledby": f"{ident}-title {ident}-desc"},
        )(
            Tag("title")(self.title, id=f"{ident}-title"),
            Tag("desc")(self.description(minutes), id=f"{ident}-desc"),
            *(_rule(height) for height in (0.5, _HEIGHT / 2, _HEIGHT - 0.5)),
            *shapes,
            *self._tips(minutes),
        )
        return tags.figure(
            tags.figcaption(
                tags.h3(self.title),
                *([tags.ul(*map(_key, self.series), class_="legend")] if self.bars else []),
            ),
            tags.div(
                tags.div(
                    *(tags.span(count(each)) for each in (top, top // 2, 0)),
                    class_="scale",
                    **{"aria-hidden": "true"},
                ),
                drawing,
                tags.div(
                    *(tags.span(each) for each in _hours(minutes)),
                    class_="hours",
                    **{"aria-hidden": "true"},
                ),
                class_="plot",
            ),
        )

    def description(self, minutes: Sequence[Minute]) -> str:
        """In words, for those who do not see it."""
        said = []
        for series in self.series:
            most = max(minutes, key=series.value, default=None)
            if most is None or not series.value(most):
                said.append(f"{series.name}: none in the last hour.")
            else:
                said.append(
                    f"{series.name}: {count(series.value(minutes[-1]))} in this minute, at most"
                    f" {count(series.value(most))}, at {time_of_day(most.at)}."
                )
        return " ".join(said)

    def _sum(self, minute: Minute) -> int:
        values = [series.value(minute) for series in self.series]
        return sum(values) if self.bars else max(values)

    def _bars(self, minutes: Sequence[Minute], top: int) -> Iterator[Tag]:
        for series in self.series:
            # One path a series: a thousand elements would take longer than all else on the page.
            path = []
            for place, minute in enumerate(minutes):
                value = series.value(minute)
                if not value:
                    continue
                below = sum(each.value(minute) for each in self._before(series))
                foot, head = _y(below, top), _y(below + value, top)
                left = place * _STEP + _GAP / 2
                path.append(f"M{left:g} {foot:.2f}V{head:.2f}H{left + _STEP - _GAP:g}V{foot:.2f}Z")
            yield Tag("path")(d="".join(path), class_=series.style)

    def _before(self, series: Series) -> Sequence[Series]:
        return self.series[: list(self.series).index(series)]

    def _areas(self, minutes: Sequence[Minute], top: int) -> Iterator[Tag]:
        for series in self.series:
            heights = [_y(series.value(minute), top) for minute in minutes]
            steps = "".join(
                f"{'L' if place else 'M'}{place * _STEP} {height:.2f}h{_STEP}"
                for place, height in enumerate(heights)
            )
            if steps:
                area = f"{steps}V{_HEIGHT}H0Z"
                yield Tag("path")(d=area, class_=f"{series.style} area")
                yield Tag("path")(d=steps, class_=f"{series.style} line")

    def _tips(self, minutes: Sequence[Minute]) -> Iterator[Tag]:
        """What a pointer on a minute shows."""
        for place, minute in enumerate(minutes):
            values = ", ".join(
                f"{count(series.value(minute))} {series.name.lower()}" for series in self.series
            )
            yield Tag("rect")(
                Tag("title")(f"{time_of_day(minute.at)}: {values}"),
                x=str(place * _STEP),
                y="0",
                width=str(_STEP),
                height=str(_HEIGHT),
                class_="tip",
            )


def rounded_up(most: int) -> int:
    """The end of a scale: a round number that can be halved, no less than ``most``."""
    size = 1
    while True:
        for factor in (2, 4, 6, 8, 12, 16):
            if most <= factor * size:
                return factor * size
        size *= 10


def _key(series: Series) -> Tag:
    return tags.li(tags.span(class_=f"swatch {series.style}"), series.name)


def _y(value: int, top: int) -> float:
    return _HEIGHT - _HEIGHT * value / top


def _rule(height: float) -> Tag:
    return Tag("line")(x1="0", x2="100%", y1=str(height), y2=str(height), class_="rule")


def _hours(minutes: Sequence[Minute]) -> list[str]:
    """Times of day at equal distances, and behind the last of them the end."""
    if not minutes:
        return []
    return [*(time_of_day(minute.at) for minute in minutes[::_LABELS_EVERY]), "now"]
