"""Maildirs on disk for the tests, and ways to run what is meant to run off the reactor."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.maildir import message
from qmailldap.maildir.hands import InThreads
from qmailldap.maildir.reading import OpenMessage
from qmailldap.maildir.work import Begun, Finished, Place, Work
from qmailldap.threads import Offload

P = ParamSpec("P")
T = TypeVar("T")


def make_maildir(path: str | Path) -> Path:
    """An empty Maildir at ``path``."""
    maildir = Path(path)
    for folder in ("tmp", "new", "cur"):
        (maildir / folder).mkdir(parents=True)
    return maildir


def deliver(maildir: Path, file: str | bytes, content: bytes = b"x\n") -> Path:
    """Put a message at ``file``, relative to the Maildir."""
    path = maildir / os.fsdecode(file)
    path.write_bytes(content)
    return path


def let_rest(maildir: Path) -> None:
    """As if nothing had happened for long: whatever happens next is not within the same tick."""
    for folder in ("new", "cur"):
        os.utime(maildir / folder, (1_600_000_000, 1_600_000_000))


def in_threads(
    offload: Offload, path: str | Path, *, time: Callable[[], float] = time.time
) -> InThreads:
    """Hands for a session in the Maildir at ``path``, whose parent is the home."""
    mailbox = Path(path).absolute()
    place = Place(os.fsencode(mailbox.parent), os.fsencode(mailbox))
    return InThreads(offload, Work(place, time=time))


def files_of(maildir: Path) -> dict[str, bytes]:
    """The contents of all files of new/ and cur/, by their names relative to the Maildir."""
    return {
        f"{folder}/{path.name}": path.read_bytes()
        for folder in ("new", "cur")
        for path in (maildir / folder).iterdir()
    }


def open_descriptors() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def descriptors_below(path: Path) -> list[str]:
    """The files below ``path`` that this process has open."""
    below = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            below.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [file for file in below if file.startswith(f"{path.resolve()}/")]


def here(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
    """An Offload that does the work at once."""
    return maybeDeferred(function, *args, **kwargs)


def have_disks_read(test: SynchronousTestCase) -> None:
    """Nothing is in memory from now on: whatever is read, a thread reads."""
    test.patch(message, "read_at_hand", lambda *arguments: None)


class HeldBack:
    """An Offload whose work waits until the test lets it run: a busy thread."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def __call__(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        done: Deferred[Any] = Deferred()

        def work() -> None:
            maybeDeferred(function, *args, **kwargs).chainDeferred(done)

        self.waiting.append(work)
        return done

    def run(self) -> None:
        """Let the work run that has waited longest."""
        self.waiting.pop(0)()

    def run_all(self) -> None:
        while self.waiting:
            self.run()


class HandsAsked:
    """Hands that do what the test says: what they are asked, and the answers it is to give."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.answers: list[Deferred[Any]] = []
        self.closed = 0

    def begin(self) -> Deferred[Begun]:
        return self._answer("begin")

    def fetch(self, number: int) -> Deferred[list[OpenMessage]]:
        return self._answer("fetch", number)

    def finish(self, deleted: frozenset[int]) -> Deferred[Finished]:
        return self._answer("finish", deleted)

    def close(self) -> None:
        self.closed += 1

    def _answer(self, *asked: Any) -> Deferred[Any]:
        self.asked.append(asked)
        self.answers.append(Deferred())
        return self.answers[-1]
