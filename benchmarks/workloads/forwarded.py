"""Sessions that another member keeps the mail of: `benchmarks.forwarding`, in brief.

Ours is beside Dovecot's proxy, and behind both is the scripted member.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

from benchmarks.figures import DOVECOT, OURS, Cost, Figure, Row, Sample, Samples
from benchmarks.forwarding import Fronts
from benchmarks.harness import in_turn
from benchmarks.workloads.course import CLIENTS, TRANSFERS, Bench

__all__ = ["forwarded"]

_CLIENTS = {"visits": CLIENTS, "transfers": TRANSFERS}
_USERS = {"visits": 300, "transfers": TRANSFERS + 1}
_MEMBER = "scripted"
_ROWS = {
    "visits": Row("forwarded-visits", "forwarded login, STAT, QUIT", "/s", "visit"),
    "transfers": Row("forwarded-transfers", "forwarded messages of 1 MB", "MB/s", "MB"),
}


async def forwarded(bench: Bench) -> list[Figure]:
    figures = []
    place = bench.root / "forwarding"
    place.mkdir()
    fronts = Fronts(place, bench.generator, _USERS, bench.plan.workers)
    async with AsyncExitStack() as stack:
        await fronts.start(stack, (_MEMBER,), (OURS, DOVECOT))
        for workload, row in _ROWS.items():
            samples: dict[str, list[Sample]] = {OURS: [], DOVECOT: []}
            for number in range(bench.plan.rounds):
                for front in in_turn((OURS, DOVECOT), number):
                    done = await fronts.round(
                        workload,
                        _MEMBER,
                        front,
                        number,
                        clients=_CLIENTS[workload],
                        seconds=bench.plan.seconds,
                        warmup=bench.plan.warmup,
                    )
                    bench.others = max(bench.others, done.others)
                    cost = Cost(done.front, done.directory, done.generator)
                    samples[front].append(Sample(done.rate, cost))
            figures.append(Figure(row, Samples.of(samples)))
        await fronts.check()
    return figures
