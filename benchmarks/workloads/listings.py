"""Login, LIST, UIDL and QUIT of long mailboxes: first after a change, and unchanged."""

from __future__ import annotations

from typing import Any

import attrs

from benchmarks.figures import Figure, Row, Sample
from benchmarks.load import Held, Load
from benchmarks.population import HUGE, MANY
from benchmarks.servers import Server
from benchmarks.workloads.course import LISTERS, Bench
from benchmarks.workloads.rates import rate

__all__ = ["listings"]

_SETTLING = 3.0
"""Seconds after which no server takes a folder's time for one that may still be the present."""

_LOOKING = 1.0
"""Seconds in which every process of a server comes to see a mailbox."""

_CHANGED = "one message of the mailbox was flagged by another program just before each session"


async def listings(bench: Bench) -> list[Figure]:
    figures = []
    for group, name in ((MANY, "10,000"), (HUGE, "100,000")):
        if not bench.population.users(group):
            continue
        wanted = group == MANY
        changed = Row(
            f"{group}-changed",
            f"{name} listed, changed",
            "/s",
            "listing",
            target=1.0 if wanted else None,
        )
        unchanged = Row(
            f"{group}-unchanged",
            f"{name} listed, unchanged",
            "/s",
            "listing",
            target=2.0 if wanted else None,
        )
        figures.append(await _first_time(bench, changed, group))
        script = f"listing-{group}"
        await _get_to_know(bench, script)
        figures.append(await rate(bench, unchanged, script, clients=LISTERS, to_the_end=True))
    return figures


async def _get_to_know(bench: Bench, script: str) -> None:
    """Have both find the mailboxes unchanged for a while: what they keep, they keep by then.

    Ours keeps a listing once a worker has seen the mailbox twice, with a while in between.
    """
    for number in (1, 2):
        await bench.wait(_SETTLING)
        for server in bench.servers.values():
            await bench.generator.run(
                server,
                bench.scripts[script],
                clients=LISTERS,
                seconds=_LOOKING,
                seed=-100 - number,
            )


async def _first_time(bench: Bench, row: Row, group: str) -> Figure:
    """Again and again: all mailboxes are changed, then each is listed once, all at the same time.

    Only what the sessions take counts as time.
    """

    async def list_all(server: Server, seconds: float) -> Load:
        done: list[Held] = []
        while sum(held.elapsed for held in done) < seconds:
            bench.population.change(server.name, group)
            script = bench.scripts[f"listing-{group}"]
            done.append(await bench.generator.once(server, script, clients=LISTERS))
        return _together(done)

    async def measure(server: Server, number: int) -> Sample:
        await list_all(server, bench.plan.warmup)
        running = list_all(server, bench.plan.seconds)
        done, cost = await bench.weighed(server, running, lambda done: done.sessions)
        return Sample(done.sessions / done.elapsed, cost)

    return Figure(row, await bench.race(measure), notes=(_CHANGED,))


def _together(done: list[Held]) -> Load:
    """One run of all of them; the times of logins are those of the last."""
    fields: dict[str, Any] = attrs.asdict(done[-1], recurse=False)
    for name in ("elapsed", "sessions", "octets", "cpu"):
        fields[name] = sum(getattr(held, name) for held in done)
    return Load(
        **fields,
        seconds=fields["elapsed"],
        in_time=fields["sessions"],
        octets_in_time=fields["octets"],
        postponed=0,
    )
