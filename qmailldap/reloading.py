"""Control files and certificates read again while the server runs: all of them, or none.

In a server of one process; where there are workers, their supervisor reads (`workers.reload`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime

from qmailldap.certificates import certificate_paths
from qmailldap.control import ControlError, ControlSnapshot
from qmailldap.control.snapshot import NAMES
from qmailldap.generations import Generations
from qmailldap.loglevel import Kind, Log
from qmailldap.options import Options
from qmailldap.privsep.broker_process import BrokerProcess
from qmailldap.threads import Busy, Offload
from qmailldap.tls.pem import BadCertificate

__all__ = [
    "READ_LIMIT",
    "Reload",
    "changes",
    "read_by_broker",
    "read_by_ourselves",
    "read_snapshot",
]

READ_LIMIT = 60.0
"""Seconds that all files may take to be read; the broker's child has less."""

_log = Log(namespace="qmailldap.service", of_sessions=False)

Read = Callable[[], Deferred[ControlSnapshot]]
"""Reads all files, and fails with `ControlError`, `Busy` or ``OSError``."""


def read_snapshot(options: Options) -> ControlSnapshot:
    """All control files and certificates as they are now; blocks.

    Raises `ControlError` and `CannotStart`.
    """
    named = certificate_paths(options) if options["certificate"] else ()
    return ControlSnapshot.read(options["control"], named)


def read_by_ourselves(options: Options, offload: Offload) -> Read:
    """Reads what this process may, relative paths as they were when this was called."""
    directory = Path(options["control"]).absolute()
    named = certificate_paths(options) if options["certificate"] else ()

    def read() -> Deferred[ControlSnapshot]:
        return offload(ControlSnapshot.read, directory, named)

    return read


def read_by_broker(options: Options, broker: BrokerProcess) -> Read:
    """Has the broker read them, which was told at the start what there is."""
    directory = str(Path(options["control"]).absolute())
    paths = [str(path) for path in certificate_paths(options)]
    named = paths if options["certificate"] else []

    async def read() -> ControlSnapshot:
        try:
            files = await broker.read_control()
        except OSError as error:
            raise ControlError(directory, f"cannot be used: {error.strerror or error}") from None
        control, certificates = files[: len(NAMES)], files[len(NAMES) :]
        by_path = dict(zip(named, certificates[: len(named)], strict=True))
        return ControlSnapshot.found(directory, control, by_path)

    return lambda: Deferred.fromCoroutine(read())


def changes(before: ControlSnapshot, after: ControlSnapshot) -> str:
    """The names of the files that are not as they were, for a line in the log."""
    return ",".join(after.changes(before)) or "none"


class Reload(Service):
    """Has all that follows from the files made anew each time that it is called.

    What cannot be used is told in one line, and everything from before stays in force; so it does
    after a fault of ours. Called while files are being read, it has them read once more; called
    before the start, at the start; called while logins ask too many states of them, when some of
    these logins are over.
    ``begins`` and ``is_over`` are called before and after each time, ``count`` with what came of
    it, ok or failed.
    """

    name = "reload"

    def __init__(
        self,
        read: Read,
        generations: Generations,
        clock: IReactorTime,
        begins: Callable[[], object] = lambda: None,
        is_over: Callable[[], object] = lambda: None,
        count: Callable[[str], object] = lambda result: None,
    ) -> None:
        self._count = count
        self._begins = begins
        self._is_over = is_over
        self._read = read
        self._generations = generations
        self._clock = clock
        self._wanted = False
        self._under_way = False

    def __call__(self) -> None:
        self._wanted = True
        self._begin()

    def startService(self) -> None:
        super().startService()
        self._begin()

    def _begin(self) -> None:
        if self._wanted and self.running and not self._under_way:
            self._under_way = True
            done = Deferred.fromCoroutine(self._all())
            done.addErrback(lambda why: _log.failure("control was not loaded", why))

    async def _all(self) -> None:
        try:
            while self._wanted and self.running:
                await self._generations.room()
                if not self.running:
                    return
                self._wanted = False
                self._begins()
                try:
                    await self._once()
                except Exception:
                    self._generations.abort()
                    self._count("failed")
                    _log.failure("control was not loaded")
                finally:
                    self._is_over()
        finally:
            self._under_way = False

    async def _once(self) -> None:
        generations = self._generations
        try:
            snapshot = await self._in_time(self._read())
            await self._in_time(generations.prepare(snapshot))
        except (ControlError, BadCertificate, Busy, OSError, TimeoutError) as error:
            generations.abort()
            self._not_loaded(error)
            return
        if not self.running:
            generations.abort()
            return
        changed = changes(generations.in_force.snapshot, snapshot)
        generations.commit()
        self._count("ok")
        _log.info("control loaded changed={changed}", kind=Kind.WARNINGS, changed=changed)

    def _in_time(self, asked: Deferred[Any]) -> Deferred[Any]:
        return asked.addTimeout(READ_LIMIT, self._clock)

    def _not_loaded(self, error: Exception) -> None:
        why = str(error)
        if isinstance(error, TimeoutError):
            why = f"the files could not be read within {READ_LIMIT:.0f} s"
        watch = self._generations.in_force.watch.value
        if isinstance(error, BadCertificate) and watch is not None:
            watch.told(why)
        self._count("failed")
        _log.error("control was not loaded, what was in force stays so: {why}", why=why)
