"""What the commands that measure have in common: how they start, weigh, end and report."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import react

from benchmarks.cpu import machine, usage
from benchmarks.load import Load
from benchmarks.servers import DirectoryServer, Failure, Server

__all__ = [
    "Cost",
    "add_round_options",
    "at_least_one",
    "duration",
    "in_turn",
    "make_root",
    "measure",
    "ratios",
    "report",
    "spread",
    "start_all",
    "start_directory",
    "weigh",
]

T = TypeVar("T")

_Measuring = Callable[[IReactorTime, argparse.Namespace], Coroutine[Deferred[Any], Any, None]]

_INTERRUPTED = 130


def report(line: str = "") -> None:
    """Say something to whoever runs this, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def at_least_one(text: str) -> int:
    """A number on the command line."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def duration(text: str) -> float:
    """Seconds on the command line."""
    if not 0 < float(text) < 3600:
        raise ValueError
    return float(text)


def add_round_options(parser: argparse.ArgumentParser, *, seconds: float, warmup: float) -> None:
    """How many rounds there are and how long they last."""
    add = parser.add_argument
    add("--rounds", type=at_least_one, default=5, help="of each [%(default)s]")
    add("--seconds", type=duration, default=seconds, help="of a round [%(default)s]")
    add("--warmup", type=duration, default=warmup, help="seconds before each [%(default)s]")


def measure(name: str, measuring: _Measuring, options: argparse.Namespace) -> None:
    """Run all of a command. Ends the process: 0 if every answer of every server was right."""
    if not sys.platform.startswith("linux"):
        sys.exit(f"{name}: CPU times are read from Linux's /proc")
    if os.geteuid():
        sys.exit(f"{name}: only root can give mail to many owners and run servers as others")
    react(_until_interrupted, (measuring, options))


def _until_interrupted(
    reactor: Any, measuring: _Measuring, options: argparse.Namespace
) -> Deferred[None]:
    """Measure; on SIGINT and SIGTERM the reactor ends only after all is cleaned up."""
    running = Deferred.fromCoroutine(_to_the_end(measuring(reactor, options)))
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


async def _to_the_end(measuring: Coroutine[Deferred[Any], Any, None]) -> None:
    """All of it. Raises SystemExit with what people and scripts should see."""
    try:
        await measuring
    except CancelledError:
        report("interrupted")
        raise SystemExit(_INTERRUPTED) from None
    except (Failure, AssertionError, OSError, subprocess.SubprocessError) as error:
        # The harness fails with an AssertionError that says what it waited for.
        report(f"FAILED: {error}")
        raise SystemExit(1) from None


def make_root(stack: AsyncExitStack, name: str) -> Path:
    """A directory for everything, as long as the stack is not closed."""
    root = Path(tempfile.mkdtemp(prefix=f"qmailldap-{name}-"))
    stack.callback(shutil.rmtree, root, ignore_errors=True)
    # The owners of mail must be able to reach it.
    root.chmod(0o755)
    return root


async def start_directory(stack: AsyncExitStack, directory: DirectoryServer) -> None:
    """Start it; it runs as long as the stack is not closed."""
    stack.callback(directory.kill)
    await directory.start()


async def start_all(stack: AsyncExitStack, servers: Iterable[Server]) -> None:
    """Start them one after the other; they run as long as the stack is not closed."""
    for server in servers:
        stack.push_async_callback(server.stop)
        await server.start()


def in_turn(items: Sequence[T], number: int) -> list[T]:
    """The items in the order of the round of that number.

    Another one begins each time, and every second round goes the other way about, lest one always
    come after the same other.
    """
    first = number % len(items)
    order = [*items[first:], *items[:first]]
    return order[:1] + order[:0:-1] if number % 2 else order


@attrs.frozen
class Cost:
    """What a run cost: seconds of CPU, user and system, by leaders of processes, in their order.

    ``processes`` is how many of these there are; ``others`` is how many processors were kept busy
    by all that has nothing to do with the measurement, but the start of the generator.
    """

    cpu: tuple[float, ...]
    processes: tuple[int, ...]
    others: float


async def weigh(running: Awaitable[Load], *leaders: int) -> tuple[Load, Cost]:
    """Run it; gives what the processes of the leaders (see `cpu.usage`) have taken meanwhile."""
    before, begun = [usage(leader) for leader in leaders], machine()
    done = await running
    ended, after = machine(), [usage(leader) for leader in leaders]
    cpu = tuple(now.cpu - then.cpu for now, then in zip(after, before, strict=True))
    others = max(0.0, ended - begun - sum(cpu) - done.cpu) / done.elapsed
    return done, Cost(cpu, tuple(each.processes for each in after), others)


def spread(values: Sequence[float], digits: int = 0) -> str:
    """The median, and in parentheses the lowest and the highest."""
    shown = (statistics.median(values), min(values), max(values))
    return "{} ({}-{})".format(*(f"{value:.{digits}f}" for value in shown))


def ratios(rates: Sequence[float], base: Sequence[float]) -> str:
    """As `spread`, of quotients taken round by round: what slows a whole round is in both."""
    return spread([rate / other for rate, other in zip(rates, base, strict=True)], 2)
