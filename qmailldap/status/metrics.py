"""``/metrics``: the figures of all workers, as Prometheus asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from qmailldap.figures import FIGURES, Figure, Together, together
from qmailldap.figures.table import Kind
from qmailldap.status.gauges import LOOK
from qmailldap.status.http import Page
from qmailldap.workers.crew import Crew

__all__ = ["KEPT", "Metrics", "collected"]

KEPT = 1.0
"""Seconds for which what was gathered is shown to whoever else asks.

To make it up takes some milliseconds, during which nobody's mail is served: this is how often that
may be."""

_OPENMETRICS = "application/openmetrics-text"

_MOST_ACCEPTED = 1024
"""Octets of the header Accept that are looked at."""


@attrs.frozen
class Gathered:
    """What was gathered at a time of the clock; ``made`` are the texts that were made of it."""

    together: Together
    at: float
    made: dict[str, tuple[bytes, str]] = attrs.field(factory=dict)


class Metrics(Page):
    """What a scraper is given: text, or OpenMetrics where it accepts that."""

    def __init__(self, crew: Crew, clock: IReactorTime) -> None:
        super().__init__()
        self._crew = crew
        self._clock = clock
        self._gathered: Gathered | None = None
        self._waiting: list[Deferred[Gathered]] | None = None

    def content(self, request: Any) -> Deferred[bytes]:
        accepted = (request.getHeader(b"accept") or b"")[:_MOST_ACCEPTED].decode("latin-1")

        def shown(gathered: Gathered) -> bytes:
            body, content_type = _text(gathered, accepted)
            request.setHeader(b"Content-Type", content_type.encode("ascii"))
            return body

        return self._gather().addCallback(shown)

    def _gather(self) -> Deferred[Gathered]:
        """What there is, or will be: those who ask meanwhile wait for the same."""
        waiter: Deferred[Gathered] = Deferred()
        kept = self._gathered
        if kept is not None and 0 <= self._clock.seconds() - kept.at < KEPT:
            waiter.callback(kept)
        elif self._waiting is not None:
            self._waiting.append(waiter)
        else:
            self._waiting = [waiter]
            self._crew.ask("figures", LOOK).addCallback(together).addBoth(self._came)
        return waiter

    def _came(self, result: Any) -> None:
        waiting, self._waiting = self._waiting or [], None
        is_good = isinstance(result, Together)
        if is_good:
            result = self._gathered = Gathered(result, self._clock.seconds())
        for waiter in waiting:
            if is_good:
                waiter.callback(result)
            else:
                waiter.errback(result)


def _text(gathered: Gathered, accepted: str) -> tuple[bytes, str]:
    """The body and its content type, for whoever accepts these types."""
    types = {each.partition(";")[0].strip() for each in accepted.split(",")}
    # Not by the header itself, whose versions may be anything, and any number of them.
    encode, content_type = choose_encoder(_OPENMETRICS if _OPENMETRICS in types else "")
    made = gathered.made.get(content_type)
    if made is None:
        registry = CollectorRegistry()
        registry.register(collected(gathered.together))
        made = gathered.made[content_type] = encode(registry), content_type
    return made


def collected(figures: Together) -> Collector:
    """What a registry of prometheus_client collects of them."""
    return _Collected(figures)


class _Collected(Collector):
    def __init__(self, figures: Together) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        for row in FIGURES:
            yield _FAMILIES[row.kind](row, self._figures)

    def describe(self) -> list[Metric]:
        """Nothing: a registry would collect all only to look for names that it has already."""
        return []


def _counter(row: Figure, figures: Together) -> Metric:
    family = CounterMetricFamily(row.shown, row.help, labels=row.labels)
    for labels, value in sorted(figures.values[row.name].items()):
        family.add_metric(labels, value)
    return family


def _gauge(row: Figure, figures: Together) -> Metric:
    family = GaugeMetricFamily(row.shown, row.help, labels=row.labels)
    for labels, value in sorted(figures.values[row.name].items()):
        family.add_metric(labels, value)
    return family


def _histogram(row: Figure, figures: Together) -> Metric:
    family = HistogramMetricFamily(row.shown, row.help, labels=row.labels)
    for labels, (counts, total) in sorted(figures.histograms.get(row.name, {}).items()):
        buckets, so_far = [], 0
        for bound, count in zip((*row.buckets, float("inf")), counts, strict=True):
            so_far += count
            buckets.append((_bound(bound), float(so_far)))
        family.add_metric(labels, buckets, total)
    return family


def _bound(seconds: float) -> str:
    return "+Inf" if seconds == float("inf") else repr(seconds)


_FAMILIES: dict[Kind, Callable[[Figure, Together], Metric]] = {
    Kind.COUNTER: _counter,
    Kind.GAUGE: _gauge,
    Kind.HISTOGRAM: _histogram,
}

# Loaded now: who has given up rights may not be able to read them later.
_ENCODERS = (generate_latest, openmetrics.generate_latest)
