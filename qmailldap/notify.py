"""What a service manager is told by sd_notify(3): that the server is ready, loads, lives, stops.

By the sdnotify library. Nothing at all is done where no NOTIFY_SOCKET is given.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

import attrs
from sdnotify import SystemdNotifier
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from qmailldap.loglevel import Log

__all__ = ["STATUS_PERIOD", "Notifications", "Subject"]

STATUS_PERIOD = 10.0
"""Seconds after which a status that is not right any more is told anew."""

_PINGS = 3
"""In the time after which the service manager takes the server for dead."""

_BEYOND_GRACE = 5.0
"""Seconds that it takes at most to end when all sessions have ended."""

_MICROSECONDS = 1_000_000

_log = Log(namespace="qmailldap.service")


@attrs.frozen(kw_only=True)
class Subject:
    """The server of which is told.

    ``ready`` gives what fires when it takes connections, in all its processes. ``alive`` is given
    seconds to find out whether all of them answer: empty if so, else a line about one that does
    not. ``status`` is a line for people, in ASCII. ``grace`` are the seconds in which it ends.
    """

    ready: Callable[[], Deferred[None]]
    alive: Callable[[float], Awaitable[str]]
    status: Callable[[], str]
    grace: float


class Notifications(Service):
    """Tells whoever has started this process, from the start of the service on.

    Takes what it needs out of ``environment``, so that no process started from here takes itself
    for the one that is watched. Where that has no NOTIFY_SOCKET, all of this does nothing.
    """

    name = "notifications"

    def __init__(
        self, reactor: Any, subject: Subject, environment: MutableMapping[str, str] = os.environ
    ) -> None:
        self._reactor = reactor
        self._subject = subject
        # It looks at the environment itself.
        self._socket = _connected() if "NOTIFY_SOCKET" in environment else None
        self._watchdog = _microseconds(environment.get("WATCHDOG_USEC", ""))
        self._watched = environment.get("WATCHDOG_PID", "")
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
            environment.pop(name, None)
        self._is_ready = self._is_loading = self._is_stopping = False
        self._status = ""
        self._fault = ""
        # What could not be done for a fault of ours, and the fault.
        self._failures: dict[str, str] = {}
        self._complained = False
        self._calls: list[LoopingCall] = []

    def startService(self) -> None:
        super().startService()
        if self._socket is None:
            return
        # First of all that is done at the end, and not when its turn comes among services.
        self._reactor.addSystemEventTrigger("before", "shutdown", self._stopping)
        ready = self._subject.ready().addCallback(lambda _: self._ready())
        ready.addErrback(partial(self._failed, "ready"))

    def stopService(self) -> None:
        super().stopService()
        for each in self._calls:
            each.stop()
        self._calls.clear()

    def reloading(self) -> None:
        """Control files are being read again; to be followed by `reloaded`."""
        self._is_loading = True
        if self._is_ready and not self._is_stopping:
            # The clock of both: CLOCK_MONOTONIC.
            self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        """Whether all went well or not: what is in force is in force."""
        self._is_loading = False
        if self._is_ready and not self._is_stopping:
            self._tell("READY=1")

    def _ready(self) -> None:
        if not self.running or self._is_stopping:
            return
        self._is_ready = True
        self._tell("READY=1", *self._new_status())
        if self._is_loading:
            self.reloading()
        self._repeat(STATUS_PERIOD, self._tell_status)
        if self._watchdog and self._watched in ("", str(os.getpid())):
            self._repeat(self._watchdog / _PINGS, self._ping)
            # Nobody knows when the last one was, if there was one.
            self._tell("WATCHDOG=1")

    def _repeat(self, period: float, call: Callable[[], object]) -> None:
        repeated = LoopingCall(call)
        repeated.clock = self._reactor
        repeated.start(period, now=False).addErrback(partial(self._failed, "repeat"))
        self._calls.append(repeated)

    def _tell_status(self) -> None:
        changed = self._new_status()
        if changed:
            self._tell(*changed)

    def _new_status(self) -> list[str]:
        """As a variable, if it is another than was told."""
        try:
            status = self._subject.status()
        except Exception:
            # Raised, it would be the last time that anybody asks.
            self._failed("status", Failure())
            return []
        self._failures.pop("status", None)
        if status == self._status:
            return []
        self._status = status
        return [f"STATUS={status}"]

    def _ping(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._look_and_ping())

    async def _look_and_ping(self) -> None:
        try:
            fault = await self._subject.alive(self._watchdog / _PINGS)
        except Exception:
            # Nobody knows: it is told nothing for now.
            self._failed("alive", Failure())
            return
        self._failures.pop("alive", None)
        if not fault:
            self._tell("WATCHDOG=1")
        elif fault != self._fault:
            _log.error("watchdog is told nothing for now: {fault}", fault=fault)
        self._fault = fault

    def _failed(self, what: str, failure: Failure) -> None:
        """A fault of ours, told once as long as it is the same."""
        fault = failure.getErrorMessage()
        if self._failures.get(what) != fault:
            self._failures[what] = fault
            _log.failure("watchdog a look at the server failed", failure)

    def _stopping(self) -> None:
        self._is_stopping = True
        limit = int((self._subject.grace + _BEYOND_GRACE) * _MICROSECONDS)
        self._tell("STOPPING=1", "STATUS=is stopping", f"EXTEND_TIMEOUT_USEC={limit}")

    def _tell(self, *variables: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.notify("\n".join(variables))
        except OSError as error:
            # Told once: the service manager will say the rest, when it ends us.
            if not self._complained:
                self._complained = True
                _log.warn("watchdog the service manager cannot be told: {error}", error=error)


def _microseconds(text: str) -> float:
    """The seconds of that many; 0 for what is no number of them."""
    return int(text) / _MICROSECONDS if text.isascii() and text.isdecimal() else 0.0


def _connected() -> SystemdNotifier | None:
    try:
        # Without debug, it would keep every error to itself.
        notifier = SystemdNotifier(debug=True)
    except Exception as error:
        _log.warn("watchdog the service manager cannot be told: {error}", error=error)
        return None
    # Its socket has room for some messages; nobody waits for one that does not read them.
    notifier.socket.setblocking(False)
    return notifier
