"""The memory of sessions that are logged in and say nothing."""

from __future__ import annotations

import resource

from benchmarks.cpu import available, memory
from benchmarks.figures import Figure, Row, Sample
from benchmarks.population import USUAL
from benchmarks.servers import Server
from benchmarks.workloads.course import CLIENTS, MEGABYTE, Bench

__all__ = ["idle"]

_KILOBYTE = 1e3
_WARMUP = 2.0
_LIMIT = 10.0

_AT_FIRST = 2_000_000
"""Octets that a session is expected to take at most, before any has been measured."""

_SHARE_OF_MEMORY = 0.8

_DESCRIPTORS = 2
_OTHER_DESCRIPTORS = 512
"""What a process of a server must be able to have open: for each session, and besides."""


async def idle(bench: Bench) -> list[Figure]:
    """Both are started again before each: what earlier sessions left would be used first."""
    figures = []
    taken: dict[str, float] = dict.fromkeys(bench.servers, _AT_FIRST)
    for wanted in bench.plan.idle:
        figures.append(await _hold(bench, wanted, taken))
    return figures


async def _hold(bench: Bench, wanted: int, taken: dict[str, float]) -> Figure:
    """Hold so many; ``taken`` is what each server's sessions take as far as is known."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = min(wanted, (files - _OTHER_DESCRIPTORS) // _DESCRIPTORS)
    held = dict.fromkeys(bench.servers, most)
    largest: dict[str, float] = dict.fromkeys(bench.servers, 0.0)
    script = bench.scripts[f"visit-{USUAL}"]

    async def measure(server: Server, _: int) -> Sample:
        await server.stop()
        await server.start_again()
        # What a server makes for its first logins is not that of the sessions.
        await bench.generator.run(server, script, clients=CLIENTS, seconds=_WARMUP, seed=0)
        bearable = int(_SHARE_OF_MEMORY * available() / taken[server.name])
        count = held[server.name] = min(held[server.name], bearable)
        before = memory(server.pid)
        holding = bench.generator.holding(server, script, clients=count)
        try:
            await holding.begin()
            after = memory(server.pid)
            await holding.end()
        finally:
            holding.kill()
        largest[server.name] = max(largest[server.name], *after)
        octets = (sum(after) - sum(before)) / count
        taken[server.name] = octets
        return Sample(octets / _KILOBYTE)

    samples = await bench.race(measure, bench.plan.idle_rounds)
    sizes = [f"{largest[name] / MEGABYTE:.0f} MB at {name}" for name in bench.servers]
    fewer = [
        f"there was memory for {count} at {name}" for name, count in held.items() if count < most
    ]
    if most < wanted:
        fewer.append(f"held were {most}, as a process may have {files} open files")
    row = Row(
        f"idle-{wanted}",
        f"an idle session, of {wanted:,}",
        "KB",
        less_is_better=True,
        limit=_LIMIT,
    )
    return Figure(row, samples, notes=(f"the largest process had {' and '.join(sizes)}", *fewer))
