"""The signals that end the server, heeded once, and SIGHUP, which is never to end it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service

__all__ = ["Hangups", "StopSignals"]


class StopSignals(Service):
    """SIGTERM and SIGINT, of which a service manager and a keyboard may send several.

    The first that comes is the reactor's business. Those behind it, and all from `heed_no_more` on,
    do nothing: the reactor has a traceback for each.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._before: dict[int, Callable[[int, Any], object]] = {}
        self._ends = False

    def startService(self) -> None:
        super().startService()
        # Only then it has handlers of its own.
        self._reactor.callWhenRunning(self._take_over)

    def _take_over(self) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            before: Any = signal.getsignal(each)
            # Whoever runs the reactor may keep the signals for itself.
            if getattr(before, "__self__", None) is self._reactor:
                self._before[each] = before
                signal.signal(each, self._received)

    def _received(self, number: int, frame: Any) -> None:
        if not self._ends:
            self._ends = True
            self._before[number](number, frame)

    def heed_no_more(self) -> None:
        """The server ends already, for whatever reason."""
        self._ends = True

    def stopService(self) -> None:
        super().stopService()
        self.heed_no_more()


class Hangups(Service):
    """SIGHUP, which would end a process that does not care for it; ``reload`` is what it asks for.

    Once the server is being stopped it does nothing, to the last.
    """

    def __init__(self, reactor: Any, reload: Callable[[], object]) -> None:
        self._reactor = reactor
        self._reload = reload
        self._ends = False

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        # Before a port is open: who sees one takes the server for started.
        signal.signal(signal.SIGHUP, self._received)

    def stopService(self) -> None:
        super().stopService()
        self._ends = True

    def _received(self, *_: object) -> None:
        if not self._ends:
            self._reactor.callFromThread(self._reload)
