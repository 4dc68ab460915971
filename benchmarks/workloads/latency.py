"""What a user waits for a login, and what dear hashes of others have to do with it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from benchmarks.figures import Figure, Row, Sample, Samples
from benchmarks.harness import in_turn
from benchmarks.load import Load
from benchmarks.population import HASHED, USUAL
from benchmarks.servers import Server
from benchmarks.workloads.course import Bench

__all__ = ["latency"]

_PACE = 50.0
"""Logins a second: far less than either server can do."""

_MOST_CLIENTS = 1000
_LEAD = 1.0
"""Seconds by which the hashes are ahead of the logins that are measured beside them."""

_HASHED_CLIENTS = 10
"""Of the users with such a hash. More would wait for one another, and change nothing else."""

_Loads = Mapping[str, list[Load]]
"""By server, in the order of the rounds."""


async def latency(bench: Bench) -> list[Figure]:
    alone: _Loads = {name: [] for name in bench.servers}
    beside: _Loads = {name: [] for name in bench.servers}
    hashed: _Loads = {name: [] for name in bench.servers}
    seconds = bench.plan.paced_seconds
    for number in range(bench.plan.rounds):
        for server in in_turn([*bench.servers.values()], number):
            await _paced(bench, server, bench.plan.warmup, -1 - number)
            alone[server.name].append(await _paced(bench, server, seconds, number))
            hashing = Deferred.fromCoroutine(_hashed(bench, server, _LEAD + seconds, number))
            try:
                await bench.wait(_LEAD)
                beside[server.name].append(await _paced(bench, server, seconds, number))
            except BaseException:
                hashing.addErrback(lambda _: None)
                hashing.cancel()
                raise
            hashed[server.name].append(await hashing)
    return _figures(alone, beside, hashed)


def _paced(
    bench: Bench, server: Server, seconds: float, seed: int
) -> Coroutine[Deferred[Any], Any, Load]:
    return bench.generator.run(
        server,
        bench.scripts[f"visit-{USUAL}"],
        clients=min(_MOST_CLIENTS, bench.population.users(USUAL)),
        seconds=seconds,
        seed=seed,
        pace=_PACE,
    )


def _hashed(
    bench: Bench, server: Server, seconds: float, seed: int
) -> Coroutine[Deferred[Any], Any, Load]:
    return bench.generator.run(
        server,
        bench.scripts[f"visit-{HASHED}"],
        clients=_HASHED_CLIENTS,
        seconds=seconds,
        seed=seed,
    )


def _figures(alone: _Loads, beside: _Loads, hashed: _Loads) -> list[Figure]:
    def median(done: Load) -> float:
        return done.login_ms.p50

    def worst(done: Load) -> float:
        return done.login_ms.p99

    def of(loads: _Loads, value: Callable[[Load], float]) -> Samples:
        return Samples.of({name: [Sample(value(done)) for done in loads[name]] for name in loads})

    def waited(key: str, title: str, unit: str = "ms", limit: float | None = None) -> Row:
        return Row(f"latency-{key}", title, unit, less_is_better=True, limit=limit)

    slower = {
        name: [
            Sample(worst(with_hashes) / worst(without))
            for with_hashes, without in zip(beside[name], alone[name], strict=True)
        ]
        for name in alone
    }
    late = {name: sum(done.postponed for done in beside[name]) for name in beside}
    notes = tuple(f"{count} logins at {name} began late" for name, count in late.items() if count)
    meanwhile = Row("latency-hashes", "the bcrypt-12 logins themselves", "/s")
    return [
        Figure(waited("p50", f"login at {_PACE:g}/s, p50"), of(alone, median)),
        Figure(waited("p99", f"login at {_PACE:g}/s, p99"), of(alone, worst)),
        Figure(
            waited("p50-hashes", f"login at {_PACE:g}/s beside bcrypt-12, p50"),
            of(beside, median),
            None,
            notes,
        ),
        Figure(
            waited("p99-hashes", f"login at {_PACE:g}/s beside bcrypt-12, p99"), of(beside, worst)
        ),
        Figure(
            waited("slowdown", "p99 beside bcrypt-12, times that alone", "", 2.0),
            Samples.of(slower),
        ),
        Figure(
            meanwhile,
            of(hashed, lambda done: done.sessions / done.elapsed),
            notes=(f"of {_HASHED_CLIENTS} clients without a pause",),
        ),
    ]
