"""Sessions a second, and megabytes a second, of clients that make no pause."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from benchmarks.figures import Figure, Row, Sample
from benchmarks.load import FULL, RESUMED, Load, TrivialServer
from benchmarks.population import LARGE, USUAL
from benchmarks.servers import Server
from benchmarks.workloads.course import CLIENTS, MEGABYTE, TRANSFERS, Bench

__all__ = ["polls", "rate", "tls", "transfers", "visits"]


async def visits(bench: Bench) -> list[Figure]:
    row = Row("visits", "login, STAT, QUIT", "/s", "visit", target=2.0)
    return [await rate(bench, row, f"visit-{USUAL}")]


async def polls(bench: Bench) -> list[Figure]:
    row = Row("polls", "whole poll, 5 messages", "/s", "poll", target=1.5)
    return [await rate(bench, row, f"poll-{USUAL}")]


async def transfers(bench: Bench) -> list[Figure]:
    row = Row("transfers", "messages of 1 MB", "MB/s", "MB", target=1.0)
    return [await rate(bench, row, f"transfer-{LARGE}", clients=TRANSFERS, octets=True)]


async def tls(bench: Bench) -> list[Figure]:
    full = Row("tls-full", "login by TLS, full handshakes", "/s", "visit", target=1.0)
    resumed = Row("tls-resumed", "login by TLS, resumed", "/s", "visit", target=1.0)
    return [
        await rate(bench, full, f"visit-{USUAL}", kind=FULL),
        await rate(bench, resumed, f"visit-{USUAL}", kind=RESUMED),
    ]


async def rate(
    bench: Bench,
    row: Row,
    script: str,
    *,
    clients: int = CLIENTS,
    octets: bool = False,
    to_the_end: bool = False,
    kind: str | None = None,
) -> Figure:
    """Measure both with that script: its sessions, or its octets.

    ``to_the_end`` is for long sessions, of which too few end in time: those count, too, that are
    under way when it is over, and their time. ``kind`` is that of TLS; by TLS there is no ceiling.
    """
    path = bench.scripts[script]
    seconds = bench.plan.seconds
    loads: dict[str, list[Load]] = {name: [] for name in bench.servers}

    def run(server: Server, seconds: float, seed: int) -> Coroutine[Deferred[Any], Any, Load]:
        return bench.generator.run(
            server, path, clients=clients, seconds=seconds, seed=seed, tls=kind
        )

    def units(done: Load) -> float:
        return done.octets / MEGABYTE if octets else done.sessions

    def a_second(done: Load) -> float:
        if to_the_end:
            return units(done) / done.elapsed
        return (done.octets_in_time / MEGABYTE if octets else done.in_time) / done.seconds

    async def measure(server: Server, number: int) -> Sample:
        await run(server, bench.plan.warmup, -1 - number)
        done, cost = await bench.weighed(server, run(server, seconds, number), units)
        loads[server.name].append(done)
        return Sample(a_second(done), cost)

    samples = await bench.race(measure)
    if kind is not None:
        return Figure(row, samples, notes=_resumed(loads) if kind == RESUMED else ())
    trivial = TrivialServer(bench.root / f"trivial-{row.key}", bench.generator.program, path)
    try:
        await trivial.start()
        ceiling = a_second(await run(trivial, seconds, 0))
    finally:
        await trivial.stop()
    return Figure(row, samples, ceiling)


def _resumed(loads: Mapping[str, Sequence[Load]]) -> tuple[str, ...]:
    """What became of the handshakes, in words."""
    said = []
    for name, done in loads.items():
        resumed, handshakes = (sum(each.resumed for each in done), sum(e.handshakes for e in done))
        said.append(f"{100 * resumed / handshakes:.0f} % of {name}")
    return (f"resumed were in truth {' and '.join(said)}",)
