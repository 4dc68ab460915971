"""Our server beside Dovecot, in one run on one machine: speed, memory, CPU; a table and a picture.

Both have the same users in the same slapd, and each its own copy of the same mail, which belongs to
one owner. They are measured in turn, round by round, by a load generator that compares every octet
of every answer. What counts are the ratios.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import attrs
from twisted.internet.interfaces import IReactorTime

from benchmarks.dovecot import SESSIONS_A_PROCESS, DovecotServer
from benchmarks.figures import DOVECOT, OURS, Figure, as_json, as_markdown, as_text
from benchmarks.harness import (
    at_least_one,
    duration,
    make_root,
    measure,
    report,
    start_all,
    start_directory,
)
from benchmarks.load import Generator
from benchmarks.population import (
    FOLDERS,
    HASHED,
    HUGE,
    LARGE,
    MANY,
    OWNER,
    USUAL,
    Population,
)
from benchmarks.servers import DirectoryServer, OurServer
from benchmarks.workloads import WORKLOADS
from benchmarks.workloads.course import LISTERS, Bench, Plan
from tests.integration.certificates import write_certificate
from tests.integration.ports import HOST

__all__ = ["main"]

_DESCRIPTORS = 65536

_LIMITS = "\n".join(
    (
        "connections:30000",
        "connections-per-address:0",
        "sessions:0",
        "guesses:0",
        "guesses-per-login:0",
    )
)
"""All clients are at one address, and some are one user: no limit is to keep them out."""


@attrs.frozen
class _Extent:
    """What --quick changes; rounds of logins at a pace are ``longer`` by that factor."""

    rounds: int
    seconds: float
    warmup: float
    longer: float
    users: Mapping[str, int]
    idle: tuple[int, ...]
    idle_rounds: int
    starts: int


_ALWAYS = {LARGE: 1, MANY: LISTERS, HASHED: 50}
_FULL = _Extent(
    rounds=5,
    seconds=5.0,
    warmup=1.0,
    longer=2.0,
    users={USUAL: 2000, HUGE: LISTERS, **_ALWAYS},
    idle=(1000, 10000),
    idle_rounds=3,
    starts=10,
)
_QUICK = _Extent(
    rounds=2,
    seconds=1.5,
    warmup=0.3,
    longer=1.2,
    users={USUAL: 300, **_ALWAYS},
    idle=(500, 2000),
    idle_rounds=1,
    starts=3,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. Ends the process: 0 if every answer of both servers was right."""
    options = _options(arguments)
    if importlib.util.find_spec("matplotlib") is None:
        sys.exit("bench: matplotlib, which draws the picture, is missing: pip install '.[bench]'")
    measure("bench", _measure, options)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    add = parser.add_argument
    add("--only", action="append", choices=[*WORKLOADS], help="measure only this; may be repeated")
    add("--quick", action="store_true", help="all of it in less than three minutes, more roughly")
    add(
        "--rounds",
        type=at_least_one,
        help=f"of each [{_FULL.rounds}; with --quick {_QUICK.rounds}]",
    )
    add(
        "--seconds",
        type=duration,
        help=f"of a round [{_FULL.seconds:g}; with --quick {_QUICK.seconds:g}]",
    )
    processors = len(os.sched_getaffinity(0))
    add("--workers", type=at_least_one, default=processors, help="of our server [%(default)s]")
    add("--output", type=Path, default=Path("bench"), help="the directory for it all [%(default)s]")
    options = parser.parse_args(arguments)
    extent = _QUICK if options.quick else _FULL
    options.extent = attrs.evolve(
        extent,
        rounds=options.rounds or extent.rounds,
        seconds=options.seconds or extent.seconds,
    )
    return options


async def _measure(reactor: IReactorTime, options: argparse.Namespace) -> None:
    _raise_descriptors()
    options.output.mkdir(parents=True, exist_ok=True)
    figures: list[Figure] = []
    async with AsyncExitStack() as stack:
        bench = await _start(stack, reactor, options)
        for name in options.only or WORKLOADS:
            report(f"{name} ...")
            for figure in await WORKLOADS[name].measure(bench):
                figures.append(figure)
                report(as_text([figure]).splitlines()[2])
        for server in bench.servers.values():
            await server.stop()
            server.check_log()
        _conclude(options.output, figures, _machine(options, bench))


def _raise_descriptors() -> None:
    """Each session of an idle server takes one: let there be as many as may be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Where not even root may raise the hard limit, what there is must do.
    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, _DESCRIPTORS),) * 2)
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _start(
    stack: AsyncExitStack, reactor: IReactorTime, options: argparse.Namespace
) -> Bench:
    """Make the users and the mail, compile the generator, start the directory and both servers."""
    root = make_root(stack, "bench")
    extent: _Extent = options.extent
    generator = Generator(reactor, root / "generator")
    groups = {group for name in options.only or WORKLOADS for group in WORKLOADS[name].groups}
    report("making users and mail ...")
    users = {group: count for group, count in extent.users.items() if group in groups}
    population = Population(root / "homes", users)
    population.deliver()
    directory = DirectoryServer(root / "slapd")
    directory.add(population.entries())
    await start_directory(stack, directory)
    certificate = root / "cert.pem"
    write_certificate(certificate, HOST)
    workers = (f"--workers={options.workers}",)
    ours = OurServer(
        OURS,
        root / OURS,
        directory.address,
        options=(f"--user={OWNER.pw_uid}", f"--group={OWNER.pw_gid}", *workers),
        control={"pop3limits": _LIMITS, "defaultdelivery": f"./{FOLDERS[OURS]}/"},
        certificate=certificate,
    )
    dovecot = DovecotServer(DOVECOT, root / DOVECOT, directory.address, certificate)
    servers = {OURS: ours, DOVECOT: dovecot}
    await start_all(stack, servers.values())
    return Bench(
        reactor=reactor,
        root=root,
        plan=Plan(
            rounds=extent.rounds,
            seconds=extent.seconds,
            warmup=extent.warmup,
            paced_seconds=extent.longer * extent.seconds,
            idle=extent.idle,
            idle_rounds=min(extent.idle_rounds, extent.rounds),
            starts=extent.starts,
            workers=workers,
        ),
        generator=generator,
        directory=directory,
        population=population,
        servers=servers,
        scripts=population.write_scripts(generator),
    )


def _machine(options: argparse.Namespace, bench: Bench) -> dict[str, object]:
    """What a reader must know of the run."""
    dovecot = bench.servers[DOVECOT]
    assert isinstance(dovecot, DovecotServer)
    extent: _Extent = options.extent
    return {
        "processors": f"{os.cpu_count()} ({_model()})",
        "system": f"{platform.system()} {platform.release()}",
        "ours": f"--workers={options.workers}, Python {platform.python_version()},"
        f" Twisted {importlib.metadata.version('Twisted')}",
        "Dovecot": f"{dovecot.version}, login processes kept,"
        f" {SESSIONS_A_PROCESS} sessions a process",
        "rounds": f"{extent.rounds} of {extent.seconds:g} s" + (", quick" * options.quick),
        "users": extent.users[USUAL],
        "certificate": "ECDSA, P-256",
        "processors kept busy by others": f"{bench.others:.2f} in the worst round",
    }


def _model() -> str:
    text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    models = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return models[0] if models else platform.machine()


def _conclude(output: Path, figures: Sequence[Figure], machine: dict[str, object]) -> None:
    from benchmarks.picture import draw

    (output / "figures.json").write_text(json.dumps(as_json(figures, machine), indent=2) + "\n")
    (output / "figures.md").write_text(as_markdown(figures, machine))
    subtitle = f"{machine['processors']}; {machine['ours']}"
    draw(figures, subtitle, output / "ratios.png", output / "ratios.svg")
    report()
    report(as_text(figures))
    for name, fact in machine.items():
        report(f"{name}: {fact}")
    report(f"written to {output}: figures.json, figures.md, ratios.png, ratios.svg")


if __name__ == "__main__":
    main()
