"""How long it takes to start a server."""

from __future__ import annotations

from benchmarks.figures import Figure, Row, Sample
from benchmarks.servers import Server
from benchmarks.workloads.course import Bench

__all__ = ["startup"]


async def startup(bench: Bench) -> list[Figure]:
    async def measure(server: Server, _: int) -> Sample:
        await server.stop()
        return Sample(1000 * await server.start_again())

    row = Row("startup", "start, until the first greeting", "ms", less_is_better=True)
    return [Figure(row, await bench.race(measure, bench.plan.starts))]
