"""Child processes that a test starts, watches with a time limit, and never leaves behind."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import attrs
from twisted.internet import reactor as _reactor
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

__all__ = ["WITH_US", "Child", "Finished", "run", "wait_until"]

reactor = cast(IReactorTime, _reactor)

_POLL_INTERVAL = 0.01
_living: set[Child] = set()

WITH_US = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
"""What is put before a command that shall end with us, even if we are killed."""


class Child:
    """A running program. It leads a process group of its own, and its output goes to a file.

    ``errors`` is the file of its standard error, by default the same. A program still running when
    the interpreter ends is killed, with all of its group. It is handed ``descriptors``, by their
    numbers.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        output: Path,
        *,
        errors: Path | None = None,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        self.name = os.path.basename(arguments[0])
        self._output = output
        with open(output, "ab") as stdout, open(errors or output, "ab") as stderr:
            self._process = subprocess.Popen(
                [*WITH_US, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=environment,
                cwd=directory,
                start_new_session=True,
                pass_fds=descriptors,
            )
        _living.add(self)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code (negative: the signal that ended it), None while it runs."""
        return self._process.poll()

    def last_lines(self, count: int = 25) -> str:
        """The end of what it has written, for the message of a failure."""
        lines = self._output.read_text("utf-8", "replace").splitlines()
        return "\n".join(f"  {self.name}| {line}" for line in lines[-count:])

    def group_is_alive(self) -> bool:
        """Whether any process of its group is left."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self, limit: float) -> int:
        """Wait for its end, at most ``limit`` seconds; gives the exit code."""
        await wait_until(lambda: self.code is not None, limit, f"{self.name} to end", self)
        _living.discard(self)
        assert self.code is not None
        return self.code

    async def stop(self, limit: float = 10) -> int:
        """SIGTERM; gives the exit code. Fails, having killed it, when that takes too long."""
        try:
            if self.code is None:
                self.signal(signal.SIGTERM)
            return await self.ended(limit)
        finally:
            self.kill()

    def kill(self) -> None:
        """End all of its group, at once. Harmless when nothing is left."""
        if self.group_is_alive():
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        _living.discard(self)


@attrs.frozen
class Finished:
    """How a program ended and what it wrote."""

    code: int
    output: bytes
    errors: bytes

    @property
    def text(self) -> str:
        """Both outputs, for people."""
        return (self.output + self.errors).decode("utf-8", "replace")


async def run(
    arguments: Sequence[str],
    limit: float,
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Finished:
    """Run a program to its end, at most ``limit`` seconds."""
    with tempfile.TemporaryDirectory() as scratch:
        output, errors = Path(scratch, "output"), Path(scratch, "errors")
        child = Child(
            arguments, output, errors=errors, environment=environment, directory=directory
        )
        try:
            code = await child.ended(limit)
        finally:
            child.kill()
        return Finished(code, output.read_bytes(), errors.read_bytes())


async def wait_until(
    predicate: Callable[[], object], limit: float, what: str, child: Child | None = None
) -> None:
    """Wait, at most ``limit`` seconds, until ``predicate`` is true.

    ``what`` completes "waited for …"; the failure shows the last output of ``child``, and comes at
    once when the child has ended.
    """
    deadline = reactor.seconds() + limit
    while not predicate():
        ended = child is not None and child.code is not None
        # Looked at once more: what was waited for may be the last thing that the child did.
        if ended and predicate():
            return
        if ended or reactor.seconds() > deadline:
            how = f"{child.name} ended with {child.code}" if ended and child else f"{limit} s"
            shown = f"\n{child.last_lines()}" if child else ""
            raise AssertionError(f"waited for {what}: {how}{shown}")
        await deferLater(reactor, _POLL_INTERVAL)


@atexit.register
def _kill_all() -> None:
    for child in tuple(_living):
        child.kill()
