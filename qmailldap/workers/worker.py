"""A worker: the whole server, on ports that its supervisor has bound, until that has ended."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import globalLogBeginner
from twisted.python.reflect import namedModule
from twisted.python.usage import UsageError
from zope.interface import implementer

from qmailldap.loglevel import Log
from qmailldap.options import CannotStart
from qmailldap.workers.inheritance import LIFELINE, WorkerOptions, keep_to_this_process
from qmailldap.workers.logs import observer

__all__ = ["run"]

_log = Log(namespace="qmailldap.workers")


def run(arguments: Sequence[str]) -> int:
    """Serve until the supervisor says TERM, or is gone; gives the exit code."""
    hangups = _Hangups()
    try:
        options = WorkerOptions.parse(arguments)
    except UsageError as error:
        print(f"worker: {error}", file=sys.stderr)  # noqa: T201  # there is no log yet
        return 1
    inherited = options.inheritance()
    keep_to_this_process(inherited)
    globalLogBeginner.beginLoggingTo([observer(inherited.number, inherited.relayed)])
    namedModule(inherited.reactor).install()
    from twisted.internet import reactor

    try:
        _start(options, reactor)
    except CannotStart as error:
        _log.critical("{line}", line=error.code)
        return 1
    except Exception:
        _log.failure("workers a worker cannot start")
        return 1
    hangups.pass_on()
    stop = _Stop(reactor)
    _Lifeline(stop).watch(reactor)
    running: Any = reactor
    # By then the reactor has handlers of its own, which do not expect a second signal.
    running.callWhenRunning(stop.by_signals)
    running.run()
    return 0


def _start(options: WorkerOptions, reactor: Any) -> None:
    """Raises `CannotStart`."""
    from qmailldap.service import make_worker

    # Relative paths were those of the directory in which twistd was started.
    with _directory(options["start"]):
        service = make_worker(options, reactor)
    service.privilegedStartService()
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)


@contextmanager
def _directory(path: str) -> Iterator[None]:
    """Be in that directory meanwhile. Raises `CannotStart` where that cannot be."""
    here = _working_directory(path)
    # Who is there already may stay, even as a user who could not enter it.
    elsewhere = here != path
    if elsewhere:
        _enter(path)
    yield
    if elsewhere:
        _enter(here)


def _working_directory(expected: str) -> str:
    try:
        return os.getcwd()
    except OSError as error:
        # It was removed, and most likely is the one that was asked for.
        raise _no_directory(expected, error) from None


def _enter(path: str) -> None:
    try:
        os.chdir(path)
    except OSError as error:
        raise _no_directory(path, error) from None


def _no_directory(path: str, error: OSError) -> CannotStart:
    return CannotStart(f"the directory {path} cannot be entered: {error.strerror}")


class _Hangups:
    """SIGHUP between the start of the process, which has it blocked, and that of the server."""

    def __init__(self) -> None:
        self._came = False
        signal.signal(signal.SIGHUP, self._remember)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    def _remember(self, *_: object) -> None:
        self._came = True

    def pass_on(self) -> None:
        """The server heeds it now: what came meanwhile it is sent again."""
        if self._came:
            os.kill(os.getpid(), signal.SIGHUP)


class _Stop:
    """Stops the reactor once, however often that is wanted.

    A supervisor of services may send TERM to all processes, and ours sends it to its workers then.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._stopping = False

    def __call__(self) -> None:
        if not self._stopping:
            self._stopping = True
            # It may be stopping because the broker has ended.
            with suppress(ReactorNotRunning):
                self._reactor.stop()

    def by_signals(self) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, lambda *_: self._reactor.callFromThread(self))


@implementer(IReadDescriptor)
class _Lifeline:
    """A pipe whose other end the supervisor has: it closes when that ends, however it does."""

    def __init__(self, ended: _Stop) -> None:
        self._ended = ended
        self._reactor: Any = None

    def watch(self, reactor: Any) -> None:
        self._reactor = reactor
        reactor.addReader(self)

    def fileno(self) -> int:
        return LIFELINE

    def doRead(self) -> None:
        if not os.read(LIFELINE, 1024):
            self._reactor.removeReader(self)
            self._ended()

    def connectionLost(self, reason: object) -> None:
        # What some reactors tell of in place of something to read.
        self._ended()

    def logPrefix(self) -> str:
        return "supervisor"
