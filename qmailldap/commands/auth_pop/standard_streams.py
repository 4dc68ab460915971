"""Standard input and output as the one connection that they are for whoever started the program."""

from __future__ import annotations

import os
import socket
import stat
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import ServerFactory
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure

from qmailldap.handover import Connection

__all__ = ["connect"]


def connect(reactor: Any, protocol: IProtocol) -> None:
    """Give ``protocol``, which provides ``IHalfCloseableProtocol``, a transport of these streams.

    Where both are one socket, as under tcpserver, it is that connection. Raises ``OSError`` where
    they cannot be used.
    """
    if not _is_one_socket():
        _Streams(_StreamsProtocol(protocol), reactor=reactor)
        return
    with socket.socket(fileno=os.dup(0)) as connection:
        family = connection.family
        reactor.adoptStreamConnection(connection.fileno(), family, _Factory(protocol))
    # What the transport closes is then closed for this process.
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)


def _is_one_socket() -> bool:
    reading, writing = os.fstat(0), os.fstat(1)
    return stat.S_ISSOCK(reading.st_mode) and os.path.samestat(reading, writing)


class _Factory(ServerFactory):
    noisy = False

    def __init__(self, protocol: IProtocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> Any:
        return self._protocol


class _Streams(StandardIO):
    """With what a relay asks of a transport that is to end at once.

    Whoever shares the streams, a shell for one, finds them as they were.
    """

    def __init__(self, protocol: IProtocol, *, reactor: Any) -> None:
        self._were = [(os.dup(stream), os.get_blocking(stream)) for stream in (0, 1)]
        super().__init__(protocol, reactor=reactor)

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)  # type: ignore[misc]  # it has no types
        while self._were:
            stream, blocking = self._were.pop()
            os.set_blocking(stream, blocking)
            os.close(stream)

    def abortConnection(self) -> None:
        self.connectionLost(Failure(ConnectionAborted()))


class _StreamsProtocol(Connection):
    """Whoever speaks on two streams: where nothing can be written any more, nobody reads."""

    transport: Any

    def writeConnectionLost(self) -> None:
        self.transport.connectionLost(Failure(ConnectionLost()))
