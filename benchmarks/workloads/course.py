"""What all workloads have in common: what runs, how much is done, and that both have their turn.

Both servers run all the time, and are measured in turn, round by round: the idle one costs nothing
but memory, and what slows a whole round is in both. A workload that needs a server that has done
nothing yet starts it again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, cast

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from benchmarks.figures import Cost, Sample, Samples
from benchmarks.harness import in_turn, weigh
from benchmarks.load import Generator, Load
from benchmarks.population import Population
from benchmarks.servers import DirectoryServer, Server

__all__ = ["CLIENTS", "LISTERS", "MEGABYTE", "TRANSFERS", "Bench", "Plan"]

CLIENTS = 20
TRANSFERS = 4
"""Clients who retrieve large messages: of one user, where the mail is here."""

LISTERS = 2
"""Clients who list long mailboxes, each his own."""

MEGABYTE = 1e6


@attrs.frozen
class Plan:
    """How much is done: ``rounds`` of so many ``seconds``, a warm-up before each.

    A round of logins at a steady pace has ``paced_seconds``: its 99th percentile needs many logins.
    ``idle`` are the numbers of sessions held at once, ``idle_rounds`` how often; ``starts`` is how
    often each server is started. ``workers`` are the options that tell ours how many to have.
    """

    rounds: int
    seconds: float
    warmup: float
    paced_seconds: float
    idle: tuple[int, ...]
    idle_rounds: int
    starts: int
    workers: tuple[str, ...]


@attrs.define
class Bench:
    """All that runs, and what it is to do.

    ``servers`` and ``scripts`` are by name. ``others`` is how many processors were kept busy by
    what has nothing to do with the measurement, in the worst round so far.
    """

    reactor: IReactorTime
    root: Path
    plan: Plan
    generator: Generator
    directory: DirectoryServer
    population: Population
    servers: Mapping[str, Server]
    scripts: Mapping[str, Path]
    others: float = 0.0

    async def race(
        self, measure: Callable[[Server, int], Awaitable[Sample]], rounds: int | None = None
    ) -> Samples:
        """Measure both in turn; ``measure`` is given the server and the number of the round."""
        samples: dict[str, list[Sample]] = {name: [] for name in self.servers}
        for number in range(rounds or self.plan.rounds):
            for server in in_turn([*self.servers.values()], number):
                samples[server.name].append(await measure(server, number))
        return Samples.of(samples)

    async def weighed(
        self, server: Server, running: Awaitable[Load], units: Callable[[Load], float]
    ) -> tuple[Load, Cost]:
        """Run it; gives the cost of each of the units that it says there were."""
        done, cost = await weigh(running, server.pid, self.directory.pid)
        self.others = max(self.others, cost.others)
        each = 1000 / units(done)
        return done, Cost(*(seconds * each for seconds in (*cost.cpu, done.cpu)))

    async def wait(self, seconds: float) -> None:
        await deferLater(cast(Any, self.reactor), seconds)
