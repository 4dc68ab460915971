"""Other members as they look from here: a network on which nothing moves but what a test moves."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ParamSpec, TypeVar, cast

from twisted.internet import error
from twisted.internet.base import BaseConnector
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.forward.addresses import resolve
from tests.test_cluster import end

__all__ = ["ForwardTestCase", "Names", "Network", "Wire", "our_own_fault", "refused"]

READ_AT_ONCE = 64 * 1024
"""Octets that a real transport hands over at a time."""

P = ParamSpec("P")
T = TypeVar("T")


def refused() -> error.ConnectError:
    return error.ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


def our_own_fault(number: int) -> error.ConnectError:
    return error.ConnectBindError(number, os.strerror(number))


class Wire(StringTransport):
    """Our end of a connection, from the attempt on.

    As a real one it is not read while it is paused, not after it was closed, and tells of its end
    only a moment after that.
    """

    protocol: Any = None
    no_delay = False
    aborted = False
    gone = False
    secured: object = None

    def __init__(self, network: Network, host: str = "10.0.0.1", port: int = 110) -> None:
        near = "2001:db8::ffff" if ":" in host else "192.0.2.1"
        super().__init__(end(near, 49152), end(host, port), lenient=True)
        self.host, self.port = host, port
        self.begun = network.seconds()
        self.connector: Any = None
        self._network = network
        self._coming = b""
        self._ended = False

    def __repr__(self) -> str:
        return f"<Wire to {self.host}:{self.port}>"

    # As the connector sees it.

    def failIfNotConnected(self, reason: Exception) -> None:
        if self.protocol is None and not self.gone:
            self.gone = True
            self.connector.connectionFailed(Failure(reason))

    # As our side sees it.

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def startTLS(self, context: object) -> None:
        self.secured = context

    def write(self, data: bytes) -> None:
        # One that is about to close when all is written takes more, still.
        if not (self.aborted or self.gone):
            super().write(data)

    def loseConnection(self) -> None:
        if not (self.disconnecting or self.gone):
            self.disconnecting = True
            self._network.callLater(0, self.lose, error.ConnectionDone())

    def abortConnection(self) -> None:
        if not (self.aborted or self.gone):
            self.aborted = self.disconnecting = True
            self._network.callLater(0, self.lose, error.ConnectionAborted())

    def resumeProducing(self) -> None:
        super().resumeProducing()
        if not self.gone:
            self._network.callLater(0, self._read)

    # As the member sees it.

    @property
    def open(self) -> bool:
        return self.protocol is not None and not self.gone

    @property
    def pending(self) -> bool:
        """Whether it is still being connected."""
        return self.protocol is None and not self.gone

    def accept(self) -> None:
        self.protocol = self.connector.buildProtocol(self.getPeer())
        self.protocol.makeConnection(self)

    def fail(self, reason: Exception | None = None) -> None:
        self.failIfNotConnected(refused() if reason is None else reason)

    def say(self, *packets: bytes) -> None:
        for packet in packets:
            self._coming += packet
            self._read()

    def said(self) -> bytes:
        """What it was told since this was last asked."""
        said: bytes = self.value()
        self.clear()
        return said

    def close(self) -> None:
        """Say nothing more; as many members, and as few, read on."""
        self._ended = True
        self._read()

    def lose(self, reason: Exception | None = None) -> None:
        if not self.gone:
            self.gone = True
            failure = Failure(error.ConnectionLost() if reason is None else reason)
            self.protocol.connectionLost(failure)
            if self.connector is not None:
                self.connector.connectionLost(failure)

    def _is_read(self) -> bool:
        return self.producerState == "producing" and not (self.disconnecting or self.gone)

    def _read(self) -> None:
        while self._coming and self._is_read():
            data, self._coming = self._coming[:READ_AT_ONCE], self._coming[READ_AT_ONCE:]
            self.protocol.dataReceived(data)
        if self._ended and self._is_read():
            self._ended = False
            IHalfCloseableProtocol(self.protocol).readConnectionLost()


class _Connector(BaseConnector):
    def __init__(self, wire: Wire, factory: Any, timeout: float, network: Any) -> None:
        super().__init__(factory, timeout, network)
        self._wire = wire

    def _makeTransport(self) -> Any:
        return self._wire


class Names:
    """Where names are looked up: it knows what is in ``known``, and others when it is told."""

    def __init__(self) -> None:
        self.known: dict[str, Sequence[str]] = {}
        self.asked: list[str] = []
        self.lookups: list[Deferred[Any]] = []

    def __call__(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        assert function is cast(Any, resolve), function
        (host,) = cast("tuple[str]", args)
        self.asked.append(host)
        lookup: Deferred[Any] = Deferred()
        self.lookups.append(lookup)
        if host in self.known:
            self.answer(*self.known[host])
        return lookup

    def answer(self, *addresses: str, which: int = -1) -> None:
        self.lookups[which].callback(addresses)

    def fail(self, error: Exception, which: int = -1) -> None:
        self.lookups[which].errback(error)


class Network(Clock):
    """A reactor: its connections, in ``wires``, come about, speak and end as a test wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.names = Names()
        self.wires: list[Wire] = []
        self.fault: Exception | None = None

    def callLater(
        self, delay: float, callable: Any, *args: object, **kwargs: object
    ) -> IDelayedCall:
        # As real reactors, unlike stock clocks.
        assert delay >= 0, delay
        return super().callLater(delay, callable, *args, **kwargs)

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30) -> Any:
        if self.fault is not None:
            raise self.fault
        wire = Wire(self, host, port)
        wire.connector = _Connector(wire, factory, timeout, self)
        self.wires.append(wire)
        wire.connector.connect()
        return wire.connector

    def hosts(self) -> list[str]:
        """Whom it was tried to connect to, in that order."""
        return [wire.host for wire in self.wires]

    def standing(self) -> list[Wire]:
        """Connections and attempts at them that have not ended."""
        return [wire for wire in self.wires if not wire.gone]

    def settle(self) -> None:
        """Let happen what is about to, without letting time pass."""
        while any(call.getTime() <= self.seconds() for call in self.getDelayedCalls()):
            self.advance(0)


class ForwardTestCase(SynchronousTestCase):
    """With a network on which nothing may be left over at the end."""

    def setUp(self) -> None:
        self.network = Network()
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.addCleanup(self.nothing_is_left)

    def nothing_is_left(self) -> None:
        self.network.settle()
        self.assertEqual(self.network.getDelayedCalls(), [])
        self.assertEqual(self.network.standing(), [])

    def log_lines(self) -> list[str]:
        """What was logged since this was last asked."""
        lines = [
            formatEvent(event)
            for event in self.events
            if event.get("log_namespace") == "qmailldap.forward"
        ]
        self.events.clear()
        return lines

    def begin(self, coroutine: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        return Deferred.fromCoroutine(coroutine)

    def connecting(self, host: str) -> Wire:
        """The attempt to connect to the host that is under way."""
        (wire,) = (wire for wire in self.network.wires if wire.host == host and wire.pending)
        return wire
