"""What `benchmarks.bench` has both servers do, and the rows that come of it: one module a kind."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from benchmarks.figures import Figure
from benchmarks.population import HASHED, HUGE, LARGE, MANY, USUAL
from benchmarks.workloads.course import Bench
from benchmarks.workloads.forwarded import forwarded
from benchmarks.workloads.idle import idle
from benchmarks.workloads.latency import latency
from benchmarks.workloads.listings import listings
from benchmarks.workloads.rates import polls, tls, transfers, visits
from benchmarks.workloads.startup import startup

__all__ = ["WORKLOADS", "Workload"]


@attrs.frozen
class Workload:
    """What is measured, and the groups of users whom it needs."""

    measure: Callable[[Bench], Coroutine[Deferred[Any], Any, list[Figure]]]
    groups: tuple[str, ...] = ()


WORKLOADS: Mapping[str, Workload] = {
    "visits": Workload(visits, (USUAL,)),
    "polls": Workload(polls, (USUAL,)),
    "transfers": Workload(transfers, (LARGE,)),
    "listings": Workload(listings, (MANY, HUGE)),
    "tls": Workload(tls, (USUAL,)),
    "forwarded": Workload(forwarded),
    "latency": Workload(latency, (USUAL, HASHED)),
    "idle": Workload(idle, (USUAL,)),
    "startup": Workload(startup),
}
"""By name, in the order in which they are measured."""
