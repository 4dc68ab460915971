"""Whole polls per second, and the CPU that they cost, of several servers side by side.

A poll is what a mail program does every few minutes: connect, USER, PASS, LIST, RETR of five
messages, QUIT. A figure of one run says little about another run: the machine is not the same, and
the load generator and the directory share it. So all servers run at once and are measured in turn,
round by round, and what counts are the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater, react

from benchmarks.cpu import usage
from benchmarks.load import PATIENCE, Load
from benchmarks.sites import Configuration, DirectoryServer, Failure, Site, configurations
from tests.integration.processes import Child
from tests.integration.server import PROJECT

__all__ = ["main"]

_BEFORE = "before"
_INTERRUPTED = 130


@attrs.frozen
class _Round:
    """One round of one site: polls per second, and milliseconds of CPU for each poll."""

    rate: float
    server: float
    directory: float
    generator: float
    processes: int


@attrs.frozen
class _Paths:
    """Where everything is while it is measured: ``sites``, and ``before``, the older code."""

    sites: Path
    before: Path


def report(line: str = "") -> None:
    """Say something to whoever runs this, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. Ends the process: 0 if every answer of every server was right."""
    options = _options(arguments)
    if not sys.platform.startswith("linux"):
        sys.exit("polls: CPU times are read from Linux's /proc")
    if os.geteuid():
        sys.exit("polls: only root can give mail to many owners and run servers as others")
    react(_until_interrupted, (options,))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    def at_least_one(text: str) -> int:
        if int(text) < 1:
            raise ValueError
        return int(text)

    def positive(text: str) -> float:
        if not 0 < float(text) < 3600:
            raise ValueError
        return float(text)

    parser = argparse.ArgumentParser(prog="python -m benchmarks.polls", description=__doc__)
    names = [each.name for each in configurations(Path(), 1)]
    add = parser.add_argument
    add("--before", metavar="COMMIT", help="measure this older commit, too")
    add("--only", action="append", choices=names, help="measure only this; may be repeated")
    add("--rounds", type=at_least_one, default=5, help="of each configuration [%(default)s]")
    add("--seconds", type=positive, default=6.0, help="of a round [%(default)s]")
    add("--warmup", type=positive, default=2.0, help="seconds before each round [%(default)s]")
    add("--clients", type=at_least_one, default=20, help="at a time [%(default)s]")
    add("--users", type=at_least_one, default=300, help="of each configuration [%(default)s]")
    add("--owners", type=at_least_one, default=300, help="of many-owners' mail [%(default)s]")
    options = parser.parse_args(arguments)
    if options.before is None and _BEFORE in (options.only or ()):
        parser.error(f"--only {_BEFORE} needs --before COMMIT")
    if options.clients >= options.users:
        parser.error("--clients must be fewer than --users: nobody is polled by two at a time")
    return options


def _until_interrupted(reactor: Any, options: argparse.Namespace) -> Deferred[None]:
    """Measure; on SIGINT and SIGTERM the reactor ends only after all is cleaned up."""
    running = Deferred.fromCoroutine(_run(reactor, options))
    ended: Deferred[None] = Deferred()

    def interrupt() -> Deferred[None] | None:
        if running.called:
            return None
        running.cancel()
        return ended

    def tell(result: object) -> object:
        ended.callback(None)
        return result

    reactor.addSystemEventTrigger("before", "shutdown", interrupt)
    return running.addBoth(tell)


async def _run(reactor: IReactorTime, options: argparse.Namespace) -> None:
    """All of it. Raises SystemExit with what people and scripts should see."""
    try:
        await _measure_all(reactor, options)
    except CancelledError:
        report("interrupted")
        raise SystemExit(_INTERRUPTED) from None
    except (Failure, AssertionError, OSError, subprocess.SubprocessError) as error:
        # The harness fails with an AssertionError that says what it waited for.
        report(f"FAILED: {error}")
        raise SystemExit(1) from None


async def _measure_all(reactor: IReactorTime, options: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        paths = _make_paths(stack)
        wanted = [
            each
            for each in configurations(paths.before, options.owners)
            if (each.name != _BEFORE or options.before) and each.name in (options.only or each.name)
        ]
        if _BEFORE in (each.name for each in wanted):
            _check_out(stack, options.before, paths.before)
        sites = [Site(each, paths.sites / each.name, options.users) for each in wanted]
        directory = await _start(stack, paths, sites)
        _introduce(options, wanted)
        rounds: dict[str, list[_Round]] = {each.name: [] for each in wanted}
        for number in range(options.rounds):
            # A different one begins each time, lest one always come after the same other.
            first = number % len(sites)
            for site in sites[first:] + sites[:first]:
                await _load(reactor, site, options, options.warmup, seed=-1 - number)
                measured = await _round(reactor, site, directory, options, seed=number)
                rounds[site.name].append(measured)
                report(f"round {number + 1}, {site.name}: {measured.rate:.0f} polls/s")
        for site in sites:
            await site.stop()
            site.check_log()
        _conclude(rounds)


def _make_paths(stack: AsyncExitStack) -> _Paths:
    root = Path(tempfile.mkdtemp(prefix="qmailldap-polls-"))
    stack.callback(shutil.rmtree, root, ignore_errors=True)
    # The owners of mail must be able to reach it.
    root.chmod(0o755)
    paths = _Paths(root / "sites", root / "before")
    paths.sites.mkdir()
    return paths


def _check_out(stack: AsyncExitStack, commit: str, place: Path) -> None:
    """Put the older commit at ``place``, as long as the stack is not closed."""

    def git(*arguments: str) -> None:
        command = ["git", "-C", str(PROJECT), "worktree", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise Failure(f"git worktree {arguments[0]}: {done.stderr.strip()}")

    git("add", "--detach", str(place), commit)
    stack.callback(git, "remove", "--force", str(place))


async def _start(stack: AsyncExitStack, paths: _Paths, sites: Sequence[Site]) -> DirectoryServer:
    """Deliver all mail and start the directory and all servers."""
    place = paths.sites / "slapd"
    place.mkdir()
    directory = DirectoryServer(place, "".join(site.entries() for site in sites))
    stack.callback(directory.kill)
    await directory.start()
    for site in sites:
        site.deliver()
        stack.push_async_callback(site.stop)
        await site.start(directory.address)
    return directory


async def _round(
    reactor: IReactorTime,
    site: Site,
    directory: DirectoryServer,
    options: argparse.Namespace,
    seed: int,
) -> _Round:
    server_before, directory_before = usage(site.pid), usage(directory.pid)
    load = await _load(reactor, site, options, options.seconds, seed)
    server, slapd = usage(site.pid), usage(directory.pid)
    each = 1000 / load.polls
    return _Round(
        rate=load.in_time / load.seconds,
        server=(server.cpu - server_before.cpu) * each,
        directory=(slapd.cpu - directory_before.cpu) * each,
        generator=load.cpu * each,
        processes=server.processes,
    )


async def _load(
    reactor: IReactorTime, site: Site, options: argparse.Namespace, seconds: float, seed: int
) -> Load:
    """One run of the load generator. Raises `Failure` unless every answer was right."""
    arguments = [sys.executable, "-m", "benchmarks.load", site.name, str(site.port)]
    for option in ("users", "clients"):
        arguments.append(f"--{option}={getattr(options, option)}")
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch, "output")
        child = Child(
            [*arguments, f"--seconds={seconds}", f"--seed={seed}"], output, directory=PROJECT
        )
        try:
            # Looking at the child more often than needed would cost CPU that is measured.
            await deferLater(cast(Any, reactor), seconds)
            code = await child.ended(2 * PATIENCE)
        finally:
            child.kill()
        text = output.read_text("utf-8", "replace").strip()
        if code:
            raise Failure(f"{site.name}: {text}\n{site.last_lines()}")
        load = Load(**json.loads(text))
        if not load.in_time:
            raise Failure(f"{site.name}: not one poll ended within {load.seconds:g} s")
        return load


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
    """The table. Ratios are taken round by round, so that what slows a whole round is in both."""
    first = next(iter(rounds.values()))

    def median(measured: Sequence[_Round], of: Callable[[_Round], float]) -> float:
        return statistics.median(of(each) for each in measured)

    layout = "{:<12} {:>18} {:>18} {:>10} {:>10} {:>10} {:>10}"
    report()
    report(layout.format("", "polls/s", "ratio", "server", "", "slapd", "generator"))
    report(layout.format("", "", "", "ms/poll", "processes", "ms/poll", "ms/poll"))
    for name, measured in rounds.items():
        rates = [each.rate for each in measured]
        ratios = [each.rate / base.rate for each, base in zip(measured, first, strict=True)]
        report(
            layout.format(
                name,
                f"{statistics.median(rates):.0f} ({min(rates):.0f}-{max(rates):.0f})",
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
                f"{median(measured, lambda each: each.server):.2f}",
                max(each.processes for each in measured),
                f"{median(measured, lambda each: each.directory):.2f}",
                f"{median(measured, lambda each: each.generator):.2f}",
            )
        )
    report()
    report("Medians of the rounds (lowest-highest); ms are CPU time, user and system, of all")
    report(f"processes; the ratio is that of polls/s to {next(iter(rounds))}, round by round.")
    report("Compare figures of this one run only: on another day or machine they mean nothing.")


if __name__ == "__main__":
    main()
