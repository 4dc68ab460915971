"""How fast a client reads: the back-pressure of its connection, as something to wait for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

__all__ = ["Flow"]


@implementer(IPushProducer)
class Flow:
    """Registered with a transport for as long as a session lasts.

    ``open`` is false while the client has not read enough of what was written. ``on_open`` is
    called whenever it has, which is also the sign that the client is alive.
    """

    def __init__(self, transport: Any, on_open: Callable[[], None]) -> None:
        self.open = True
        self._lost = False
        self._transport = transport
        self._on_open = on_open
        self._waiting: list[Deferred[None]] = []
        transport.registerProducer(self, True)

    async def opened(self) -> None:
        """Wait until the client has read on.

        Raises `CancelledError` when it goes away, or has gone.
        """
        if self._lost:
            raise CancelledError
        if not self.open:
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            await waiting

    def finish(self) -> None:
        """Nothing more will be written: the transport may close once all has been sent."""
        if not self._lost:
            self._transport.unregisterProducer()
            self._wake()

    def leave(self) -> None:
        """From now on somebody else writes to the transport."""
        self.finish()
        self.lost()

    def lost(self) -> None:
        """The connection is gone: whoever waits is told by `CancelledError`."""
        self.open, self._lost = False, True
        # Nothing may keep the session alive by way of this object: a listing can be large.
        del self._transport, self._on_open
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.cancel()

    def pauseProducing(self) -> None:
        self.open = False

    def resumeProducing(self) -> None:
        self._wake()
        self._on_open()

    def stopProducing(self) -> None:
        """The transport lost its connection; connectionLost, which follows, does what is to do."""

    def _wake(self) -> None:
        self.open = True
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)
