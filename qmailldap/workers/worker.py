"""A worker: the whole server, on ports that its supervisor has bound, until that has ended."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.logger import globalLogBeginner
from twisted.python.reflect import namedModule
from twisted.python.usage import UsageError

from qmailldap.loglevel import Log
from qmailldap.options import CannotStart
from qmailldap.workers.crew import Crew
from qmailldap.workers.inheritance import Inheritance, WorkerOptions
from qmailldap.workers.logs import WorkerLog
from qmailldap.workers.member import Member

__all__ = ["run"]

_log = Log(namespace="qmailldap.workers")


def run(arguments: Sequence[str]) -> int:
    """Serve until the supervisor says TERM, or is gone; gives the exit code."""
    _ignore_hangups()
    try:
        options = WorkerOptions.parse(arguments)
    except UsageError as error:
        print(f"worker: {error}", file=sys.stderr)  # noqa: T201  # there is no log yet
        return 1
    inherited = options.inheritance()
    inherited.keep_to_this_process()
    log = WorkerLog(inherited.number, inherited.relayed, options)
    globalLogBeginner.beginLoggingTo([log])
    try:
        return _serve(options, inherited, log)
    finally:
        log.finish()


def _serve(options: WorkerOptions, inherited: Inheritance, log: WorkerLog) -> int:
    namedModule(inherited.reactor).install()
    from twisted.internet import reactor

    log.attend(reactor)
    stop = _Stop(reactor)
    crew = Member(reactor, stop)
    try:
        _start(options, reactor, crew)
    except CannotStart as error:
        _log.critical("workers cannot start: {problem}", problem=error.code)
        return 1
    except Exception:
        _log.failure("workers a worker cannot start")
        return 1
    running: Any = reactor
    # By then the reactor has handlers of its own, which do not expect a second signal.
    running.callWhenRunning(stop.by_signals)
    running.callWhenRunning(_join, crew, running)
    running.run()
    return 0


def _join(crew: Member, reactor: Any) -> None:
    crew.connect(reactor)
    crew.serving()


def _start(options: WorkerOptions, reactor: Any, crew: Crew) -> None:
    """Raises `CannotStart`."""
    from qmailldap.service import make_worker

    # Relative paths were those of the directory in which twistd was started.
    with _directory(options["start"]):
        service = make_worker(options, reactor, crew)
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


def _ignore_hangups() -> None:
    """The supervisor heeds SIGHUP, and tells its workers what to do; one may still be sent to all.

    This process was started with it blocked. A handler, unlike what ignores a signal, is not that
    of programs started from here.
    """
    signal.signal(signal.SIGHUP, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


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
