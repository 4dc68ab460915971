"""Whole polls per second, and the CPU that they cost, of several servers side by side.

A poll is what a mail program does every few minutes: connect, USER, PASS, LIST, UIDL, RETR of five
messages, QUIT. A figure of one run says little about another run: the machine is not the same, and
the load generator and the directory share it. So all servers run at once and are measured in turn,
round by round, and what counts are the ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from benchmarks.harness import (
    add_round_options,
    at_least_one,
    in_turn,
    make_root,
    measure,
    ratios,
    report,
    spread,
    start_all,
    start_directory,
    weigh,
)
from benchmarks.load import Generator, Load
from benchmarks.mail import login, mailbox
from benchmarks.scripts import poll
from benchmarks.servers import DirectoryServer, Failure
from benchmarks.sites import Configuration, Site, configurations
from tests.integration.server import PROJECT

__all__ = ["main"]

_BEFORE = "before"


@attrs.frozen
class _Round:
    """One round of one site: polls per second, and milliseconds of CPU for each poll."""

    rate: float
    server: float
    directory: float
    generator: float
    processes: int


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. Ends the process: 0 if every answer of every server was right."""
    measure("polls", _measure, _options(arguments))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.polls", description=__doc__)
    names = [each.name for each in configurations(Path(), 1)]
    add = parser.add_argument
    add("--before", metavar="COMMIT", help="measure this older commit, too")
    add("--only", action="append", choices=names, help="measure only this; may be repeated")
    add_round_options(parser, seconds=6.0, warmup=2.0)
    add("--clients", type=at_least_one, default=20, help="at a time [%(default)s]")
    add("--users", type=at_least_one, default=300, help="of each configuration [%(default)s]")
    add("--owners", type=at_least_one, default=300, help="of many-owners' mail [%(default)s]")
    options = parser.parse_args(arguments)
    if options.before is None and _BEFORE in (options.only or ()):
        parser.error(f"--only {_BEFORE} needs --before COMMIT")
    if options.clients >= options.users:
        parser.error("--clients must be fewer than --users: nobody is polled by two at a time")
    return options


async def _measure(reactor: IReactorTime, options: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        root = make_root(stack, "polls")
        before = root / "before"
        wanted = [
            each
            for each in configurations(before, options.owners)
            if (each.name != _BEFORE or options.before) and each.name in (options.only or each.name)
        ]
        if _BEFORE in (each.name for each in wanted):
            _check_out(stack, options.before, before)
        generator = Generator(reactor, root / "generator")
        directory, sites = await _start(stack, root / "sites", wanted, options.users)
        scripts = {site.name: _script(generator, site, options.users) for site in sites}
        _introduce(options, wanted)
        rounds: dict[str, list[_Round]] = {each.name: [] for each in wanted}
        for number in range(options.rounds):
            for site in in_turn(sites, number):
                measured = await _round(
                    generator, site, scripts[site.name], directory, options, number
                )
                rounds[site.name].append(measured)
                report(f"round {number + 1}, {site.name}: {measured.rate:.0f} polls/s")
        for site in sites:
            await site.stop()
            site.check_log()
        _conclude(rounds)


def _check_out(stack: AsyncExitStack, commit: str, place: Path) -> None:
    """Put the older commit at ``place``, as long as the stack is not closed."""

    def git(*arguments: str) -> None:
        command = ["git", "-C", str(PROJECT), "worktree", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise Failure(f"git worktree {arguments[0]}: {done.stderr.strip()}")

    git("add", "--detach", str(place), commit)
    stack.callback(git, "remove", "--force", str(place))


async def _start(
    stack: AsyncExitStack, place: Path, wanted: Sequence[Configuration], users: int
) -> tuple[DirectoryServer, list[Site]]:
    """Deliver all mail and start the directory and all servers."""
    directory = DirectoryServer(place / "slapd")
    sites = [Site(each, place / each.name, directory.address, users) for each in wanted]
    for site in sites:
        directory.add(site.entries())
        site.deliver()
    await start_directory(stack, directory)
    await start_all(stack, sites)
    return directory, sites


def _script(generator: Generator, site: Site, users: int) -> Path:
    """The polls of all users of a site."""
    logins = [(login(site.name, number), mailbox(site.name, number)) for number in range(users)]
    return generator.script(site.name, (poll(user, messages) for user, messages in logins))


async def _round(
    generator: Generator,
    site: Site,
    script: Path,
    directory: DirectoryServer,
    options: argparse.Namespace,
    number: int,
) -> _Round:
    def run(seconds: float, seed: int) -> Coroutine[Deferred[Any], Any, Load]:
        return generator.run(site, script, clients=options.clients, seconds=seconds, seed=seed)

    await run(options.warmup, -1 - number)
    done, cost = await weigh(run(options.seconds, number), site.pid, directory.pid)
    each = 1000 / done.sessions
    return _Round(
        rate=done.in_time / done.seconds,
        server=cost.cpu[0] * each,
        directory=cost.cpu[1] * each,
        generator=done.cpu * each,
        processes=cost.processes[0],
    )


def _introduce(options: argparse.Namespace, wanted: Sequence[Configuration]) -> None:
    report(
        f"{options.rounds} rounds of {options.seconds:g} s, {options.clients} clients,"
        f" {options.users} users; {os.cpu_count()} CPUs"
    )
    for each in wanted:
        commit = f" ({options.before})" if each.name == _BEFORE else ""
        report(f"  {each.name}: {each.what}{commit}")
    report()


def _conclude(rounds: dict[str, list[_Round]]) -> None:
    first, base = next(iter(rounds.items()))

    def median(measured: Sequence[_Round], of: Callable[[_Round], float]) -> float:
        return statistics.median(of(each) for each in measured)

    layout = "{:<12} {:>18} {:>18} {:>10} {:>10} {:>10} {:>10}"
    report()
    report(layout.format("", "polls/s", "ratio", "server", "", "slapd", "generator"))
    report(layout.format("", "", "", "ms/poll", "processes", "ms/poll", "ms/poll"))
    for name, measured in rounds.items():
        rates = [each.rate for each in measured]
        report(
            layout.format(
                name,
                spread(rates),
                ratios(rates, [each.rate for each in base]),
                f"{median(measured, lambda each: each.server):.2f}",
                max(each.processes for each in measured),
                f"{median(measured, lambda each: each.directory):.2f}",
                f"{median(measured, lambda each: each.generator):.2f}",
            )
        )
    report()
    report("Medians of the rounds (lowest-highest); ms are CPU time, user and system, of all")
    report(f"processes; the ratio is that of polls/s to {first}, round by round.")
    report("Compare figures of this one run only: on another day or machine they mean nothing.")


if __name__ == "__main__":
    main()
