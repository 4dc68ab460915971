"""A reactor and sockets without a kernel, under the transports of Twisted that really run."""

from __future__ import annotations

import errno
import os
import ssl
from contextlib import suppress
from typing import Any

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure

from tests.forward.support import Network

__all__ = ["Client", "Reactor", "Socket"]

_BUFFER = 128 * 1024
"""Octets that the network and the client's system hold for a client that does not read."""


class Socket:
    """The server's end of a connection, as the calls of a socket that `tcp.Server` makes."""

    def __init__(self, host: str, port: int) -> None:
        self.coming = bytearray()
        self.sent = bytearray()
        self.ended = False
        self.broken = False
        self.is_read = True
        self.closed = False
        self._unread = 0
        self._far = (host, port)
        self._near = ("192.0.2.1", 110)
        if ":" in host:
            self._far, self._near = (host, port, 0, 0), ("2001:db8::1", 110, 0, 0)  # type: ignore[assignment]

    @property
    def readable(self) -> bool:
        return bool(self.coming) or self.ended or self.broken

    def recv(self, most: int) -> bytes:
        if self.broken:
            raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        if not self.coming and not self.ended:
            raise OSError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
        data = bytes(self.coming[:most])
        del self.coming[:most]
        return data

    def send(self, data: memoryview) -> int:
        if self.broken:
            raise OSError(errno.EPIPE, os.strerror(errno.EPIPE))
        taken = len(data) if self.is_read else min(len(data), _BUFFER - self._unread)
        if not taken:
            raise OSError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
        if not self.is_read:
            self._unread += taken
        self.sent += data[:taken]
        return taken

    def read_on(self) -> None:
        self.is_read = True
        self._unread = 0

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def fileno(self) -> int:
        return id(self)

    def setsockopt(self, *arguments: object) -> None:
        """Nothing of it shows."""

    def getsockname(self) -> Any:
        return self._near

    def getpeername(self) -> Any:
        return self._far

    def shutdown(self, how: int) -> None:
        """The client sees to its own end."""

    def close(self) -> None:
        self.closed = True


class Reactor(Network):
    """A clock, other members to connect to, and the connections of clients."""

    def __init__(self) -> None:
        super().__init__()
        self._readers: dict[Any, None] = {}
        self._writers: dict[Any, None] = {}

    def addReader(self, reader: Any) -> None:
        self._readers[reader] = None

    def removeReader(self, reader: Any) -> None:
        self._readers.pop(reader, None)

    def addWriter(self, writer: Any) -> None:
        self._writers[writer] = None

    def removeWriter(self, writer: Any) -> None:
        self._writers.pop(writer, None)

    def accept(self, factory: Any, socket: Socket) -> None:
        """A client has connected; as `tcp.Port` does it."""
        far = socket.getpeername()
        kind = IPv4Address if len(far) == 2 else IPv6Address
        protocol = factory.buildProtocol(kind("TCP", *far[:2]))
        if protocol is None:
            socket.close()
            return
        transport = tcp.Server(socket, protocol, far, None, 0, self)  # type: ignore[arg-type]
        protocol.makeConnection(transport)

    @property
    def busy(self) -> bool:
        """Whether something can be read or is to be written."""
        readable = any(reader.socket.readable for reader in self._readers)
        return readable or any(_unsent(writer) for writer in self._writers)

    def assert_bounded(self, unread: int, unsent: int) -> None:
        """No connection may hold more octets than these for its client, or of it."""
        for transport in {*self._readers, *self._writers}:
            assert _unsent(transport) <= unsent, f"{_unsent(transport)} octets are to be sent"
            protocol = transport.protocol
            while hasattr(protocol, "wrappedProtocol"):
                protocol = protocol.wrappedProtocol
            lines = getattr(getattr(protocol, "_speaker", None), "_lines", b"")
            assert len(lines) <= unread, f"{len(lines)} octets are to be looked at"

    def turn(self) -> None:
        """All that can be read and written, and whatever is due, once."""
        for reader in [*self._readers]:
            if reader in self._readers and reader.socket.readable:
                self._lost(reader, reader.doRead(), True)
        for writer in [*self._writers]:
            if writer in self._writers:
                self._lost(writer, writer.doWrite(), False)
        self.advance(0)

    def _lost(self, descriptor: Any, why: Any, reading: bool) -> None:
        """As the reactors of Twisted tell a descriptor that it cannot be read, or written."""
        if why is None:
            return
        self.removeReader(descriptor)
        halves = IHalfCloseableDescriptor.providedBy(descriptor)
        if reading and isinstance(why, ConnectionDone) and halves:
            descriptor.readConnectionLost(Failure(CONNECTION_DONE))
        else:
            self.removeWriter(descriptor)
            descriptor.connectionLost(Failure(why))


def _unsent(transport: Any) -> int:
    unsent: int = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
    return unsent


class Client:
    """The other end of a `Socket`: octets as they are, or within TLS once that has begun."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.received = bytearray()
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._greeted = False
        self._unsaid = bytearray()

    @property
    def in_tls(self) -> bool:
        """Whether a handshake was made to its end."""
        return self._greeted

    def begin_tls(self) -> None:
        """Shake hands from now on; a second time, within the first."""
        if self._tls is not None:
            return
        self.listen()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self.listen()

    def say(self, octets: bytes) -> None:
        if self._tls is None:
            self.socket.coming += octets
        else:
            self._unsaid += octets
            self.listen()

    def leave_tls(self) -> None:
        """Take leave of TLS (close_notify), and say all that follows in the clear."""
        if self._tls is not None and self._greeted:
            with suppress(ssl.SSLError):
                self._tls.unwrap()
            self.socket.coming += self._outgoing.read()
        self._tls, self._greeted = None, False

    def listen(self) -> None:
        """Take what was sent; what the server says may be no TLS at all."""
        sent, self.socket.sent[:] = bytes(self.socket.sent), b""
        if self._tls is None:
            self.received += sent
            return
        self._incoming.write(sent)
        try:
            if not self._greeted:
                self._tls.do_handshake()
                self._greeted = True
            if self._unsaid:
                self._tls.write(bytes(self._unsaid))
                self._unsaid.clear()
            while chunk := self._tls.read(65536):
                self.received += chunk
        except ssl.SSLError:
            pass
        self.socket.coming += self._outgoing.read()
