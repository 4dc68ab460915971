"""A connection that changes hands: from the protocol that greets to the one that stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["Connection", "close"]


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class Connection(Protocol):
    """One connection, and whoever speaks on it at the moment.

    Every transport keeps the protocol it began with, and so do the TLS and PROXY layers between.
    This is that protocol. ``protocol`` speaks first; like those that follow it provides
    ``IHalfCloseableProtocol``; those that provide ``IHandshakeListener`` hear of a TLS handshake.
    ``lost`` is called when the connection is gone, whoever speaks then.
    """

    def __init__(self, protocol: Any, lost: Callable[[], None] = lambda: None) -> None:
        self._speaker: Any = protocol
        self._lost = lost
        self._reason: Failure | None = None

    def connectionMade(self) -> None:
        self.hand_over(self._speaker)

    def hand_over(self, protocol: Any) -> None:
        """From now on it is ``protocol`` that speaks, on the same transport.

        When the connection is lost already, all it is told is that.
        """
        if self._reason is not None:
            protocol.connectionLost(self._reason)
            return
        self._speaker = protocol
        # What arrives goes to the speaker without a detour.
        self.dataReceived = protocol.dataReceived  # type: ignore[method-assign]
        protocol.makeConnection(self.transport)

    def logPrefix(self) -> str:
        return str(self._speaker.logPrefix()) if self._speaker else super().logPrefix()

    def readConnectionLost(self) -> None:
        self._speaker.readConnectionLost()

    def writeConnectionLost(self) -> None:
        self._speaker.writeConnectionLost()

    def handshakeCompleted(self) -> None:
        if IHandshakeListener.providedBy(self._speaker):
            self._speaker.handshakeCompleted()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._reason = reason
        self._lost()
        speaker, self._speaker = self._speaker, None
        del self.dataReceived
        speaker.connectionLost(reason)


def close(transport: Any) -> None:
    """Close a transport behind all that was written to it, without waiting for the other side.

    ``loseConnection`` of one with TLS waits for the other to end it as well, which a client does
    that looks at its connection when somebody has pressed a key. Nothing more may be written, and
    no producer be registered; a handshake has to be over.
    """
    transport.loseConnection()
    # TLS from the start is the transport; begun later, it is what the transport has for a protocol.
    for layer in (transport, getattr(transport, "protocol", None)):
        if isinstance(layer, TLSMemoryBIOProtocol):
            below: Any = layer.transport
            below.loseConnection()
            break
