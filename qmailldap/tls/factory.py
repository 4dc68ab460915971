"""TLS from the first octet on, around the protocols of a factory."""

from __future__ import annotations

from twisted.internet.interfaces import (
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
)
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

__all__ = ["TLSFactory"]


class TLSFactory(TLSMemoryBIOFactory):
    """Has each client shake hands first; ``certificates`` says what it is shown.

    What is written becomes TLS records at once. Twisted's own default keeps it until the reactor's
    next turn, lest many small writes become many records, which takes a timer and a turn for each
    answer. A protocol of POP3 writes an answer as a whole, and then has to wait for a command.
    """

    protocol = TLSMemoryBIOProtocol

    def __init__(
        self,
        certificates: IOpenSSLServerConnectionCreator,
        factory: IProtocolFactory,
        clock: IReactorTime,
    ) -> None:
        super().__init__(certificates, False, factory, clock)
