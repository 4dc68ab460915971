"""Running a program of the administrator's to its end, or to that of its time.

A plain call that blocks, within a limit. The program runs with the rights of whoever calls, in a
session of its own, and is given nothing but its arguments and environment. The standard library
only, and little of it, as `creation`.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Any, NamedTuple

__all__ = ["Ended", "NotStarted", "kill_all", "run"]

_GRACE = 2.0
"""Seconds to wait for a killed program: one of another user, or in the kernel, may live on."""

_PAUSE = 0.02
"""Seconds between two looks at a program where the system has no pidfd to wait for."""

_KEPT = 500
"""Octets of a program's output that are kept to tell why it failed."""


_running: set[int] = set()
"""Process ids of what runs in this process's name, in any of its threads."""


class NotStarted(OSError):
    """The program could not be started."""


class Ended(NamedTuple):
    """How a program ended: its exit code, negative for a signal, None where it was killed for the
    time it took; and the beginning of its output.
    """

    code: int | None
    output: bytes


def run(
    arguments: Sequence[bytes],
    environment: Mapping[bytes, bytes],
    limit: float,
    *,
    keep_output: bool = True,
) -> Ended:
    """Run the program that is the first of ``arguments``, for ``limit`` seconds at most; blocks.

    It is sought along PATH unless it has a slash. Its standard input is /dev/null, and so is its
    output without ``keep_output``: its standard error is then the caller's. Raises
    `NotStarted`.
    """
    reader, writer = os.pipe() if keep_output else _devnull()
    try:
        try:
            # Standard input comes last: where it was closed, its number may be that of the pipe.
            actions = [
                (os.POSIX_SPAWN_DUP2, writer, 1),
                *([(os.POSIX_SPAWN_DUP2, writer, 2)] if keep_output else []),
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            ]
            process = _start(arguments, environment, actions)
        except OSError as error:
            raise NotStarted(error.errno or errno.EIO, error.strerror) from None
        finally:
            os.close(writer)
        os.set_blocking(reader, False)
        code, output = _finish(process, reader, limit)
        return Ended(code, bytes(output))
    finally:
        os.close(reader)


def _devnull() -> tuple[int, int]:
    return os.open(os.devnull, os.O_RDONLY), os.open(os.devnull, os.O_WRONLY)


def kill_all() -> None:
    """End whatever is running: its process is about to end, and nothing would limit it then."""
    for process in tuple(_running):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process, signal.SIGKILL)


def _start(
    arguments: Sequence[bytes], environment: Mapping[bytes, bytes], actions: list[Any]
) -> int:
    def spawn(program: bytes, *before: bytes) -> int:
        return os.posix_spawnp(
            program,
            [*before, *arguments],
            environment,
            file_actions=[
                *actions,
                *[(os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inherited()],
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
        )

    program = arguments[0]
    try:
        return spawn(program)
    except OSError as error:
        # Unlike the original's execvp, this gives no script without a #! line to the shell.
        if error.errno != errno.ENOEXEC or b"/" not in program:
            raise
        return spawn(b"/bin/sh", b"sh")


def _inherited() -> list[int]:
    """What this process itself was given, perhaps a client's connection: none of a program's."""
    descriptors = []
    with suppress(FileNotFoundError):
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            with suppress(OSError):
                if descriptor > 2 and os.get_inheritable(descriptor):
                    descriptors.append(descriptor)
    return descriptors


def _finish(process: int, reader: int, limit: float) -> tuple[int | None, bytearray]:
    """The exit code and the beginning of the output; None for a program that had to be killed."""
    output = bytearray()
    code = None
    _running.add(process)
    try:
        code = _wait(process, reader, output, limit)
    finally:
        _running.discard(process)
        if code is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process, signal.SIGKILL)
            _wait(process, reader, output, _GRACE)
    return code, output


def _wait(process: int, reader: int, output: bytearray, limit: float) -> int | None:
    """The exit code, negative for a signal; None when the limit of so many seconds has passed."""
    end = time.monotonic() + limit
    poller = select.poll()
    poller.register(reader, select.POLLIN)
    exited = _pidfd(process)
    if exited is not None:
        poller.register(exited, select.POLLIN)
    try:
        while True:
            left = end - time.monotonic()
            poller.poll(1000 * max(0, min(left, _PAUSE if exited is None else inf)))
            if _read(reader, output) == 0:
                with suppress(KeyError):
                    poller.unregister(reader)
            code = _exit_code(process)
            if code is not None:
                # Not to the end of the pipe: a daemon that the program left may hold it open.
                while len(output) < _KEPT and _read(reader, output):
                    pass
            if code is not None or left <= 0:
                return code
    finally:
        if exited is not None:
            os.close(exited)


def _pidfd(process: int) -> int | None:
    """A descriptor that can be read once the process has ended; None where there is no such."""
    try:
        return os.pidfd_open(process)
    except (AttributeError, OSError):
        return None


def _read(reader: int, output: bytearray) -> int | None:
    """How many octets were there, 0 at the end, None if there are none now."""
    try:
        octets = os.read(reader, 65536)
    except BlockingIOError:
        return None
    output += octets[: _KEPT - len(output)]
    return len(octets)


def _exit_code(process: int) -> int | None:
    try:
        ended, status = os.waitpid(process, os.WNOHANG)
    except ChildProcessError:
        return 0  # SIGCHLD is ignored, so nobody learns it; the home alone can tell.
    return os.waitstatus_to_exitcode(status) if ended else None
