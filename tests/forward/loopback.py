"""A relay on real connections, and what is at their far ends, in one thread.

A far end is a plain socket without Twisted. All of it moves only while `Loopback.until` or
`Loopback.turn` is called, which turn the reactor: so a test says what happens in which order.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from zope.interface import implementer

from qmailldap.forward.relay import Relay
from qmailldap.handover import Connection
from qmailldap.interfaces import Relayed

__all__ = ["Far", "Loopback", "buffered"]

# Seconds that anything here may take.
_LIMIT = 10.0
# Small enough for back-pressure to come soon, where a test asks for it.
_SMALL = 4096


def buffered(transport: Any) -> int:
    """Octets that wait in the memory of a transport of Twisted."""
    return int(len(transport.dataBuffer) - transport.offset + transport._tempDataLen)


@implementer(IHalfCloseableProtocol)
class _Host(Protocol):
    """Who has a connection before the relay: does nothing, or starts TLS."""

    def __init__(self, tls: tuple[Any, bool] | None) -> None:
        self._tls = tls

    def connectionMade(self) -> None:
        if self._tls is not None and self._tls[0] is not None:
            transport: Any = self.transport
            transport.startTLS(*self._tls)

    def readConnectionLost(self) -> None:
        """The relay is told, where a test is about that."""

    def writeConnectionLost(self) -> None:
        """Never of itself."""


class Far:
    """The other end of one of the relay's connections.

    ``send`` and ``close`` take effect as the connection allows. It reads while ``reading`` is true.
    ``got`` is what it has read, ``ended`` that it was told the end, ``reset`` that the connection
    was lost. With ``tls``, a context, it speaks that.
    """

    def __init__(self, sock: socket.socket, tls: ssl.SSLContext | None, server: bool) -> None:
        sock.setblocking(False)
        self.tls = tls is not None
        if tls is not None:
            sock = tls.wrap_socket(
                sock,
                server_side=server,
                do_handshake_on_connect=False,
                server_hostname=None if server else "localhost",
            )
        self.sock = sock
        self.got = bytearray()
        self.ended = self.reset = False
        self.reading = True
        # Octets read in one go, and so in one turn.
        self.most = 1 << 20
        self._unsent = b""
        self._closing = False

    def send(self, data: bytes) -> None:
        self._unsent += data

    @property
    def sent(self) -> bool:
        """All is in the hands of the kernel, and the end as well if there is one."""
        return not self._unsent and not self._closing

    def half_close(self) -> None:
        self._closing = True

    def close(self) -> None:
        self.sock.close()

    def abort(self) -> None:
        """Reset the connection."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def move(self) -> None:
        """Send and read what can be."""
        if self.sock.fileno() < 0:
            return
        try:
            self._send()
            if self.reading and not self.ended and not self.reset:
                self._read()
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except OSError:
            self.reset = True
            self._unsent, self._closing = b"", False

    def _send(self) -> None:
        while self._unsent:
            try:
                sent = self.sock.send(self._unsent[: 1 << 18])
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            self._unsent = self._unsent[sent:]
        if self._closing:
            self._closing = False
            self.sock.shutdown(socket.SHUT_WR)

    def _read(self) -> None:
        data = self.sock.recv(self.most)
        self.got += data
        self.ended = not data


class Loopback:
    """A `Relay` between two far ends, ``client`` and ``member``, with a clock of its own.

    ``client_tls`` and ``member_tls`` are what ``startTLS`` takes on the relay's side, if it is to
    be called, and the context for the far end. ``small`` names the sides where the kernel is to
    hold little, ``wrapped`` puts a layer below the client's protocol. ``options`` are the relay's.
    """

    def __init__(
        self,
        *,
        client_tls: tuple[Any, ssl.SSLContext] | None = None,
        member_tls: tuple[Any, ssl.SSLContext] | None = None,
        small: tuple[str, ...] = (),
        wrapped: Callable[[IProtocolFactory], IProtocolFactory] | None = None,
        **options: Any,
    ) -> None:
        self.clock = Clock()
        self.ends: list[Relayed] = []
        self.relay = Relay(self.clock, self.ends.append, **options)
        self.client, self.client_host = self._connect(client_tls, True, "client" in small, wrapped)
        self.member, self.member_host = self._connect(member_tls, False, "member" in small, None)

    def _connect(
        self,
        tls: tuple[Any, ssl.SSLContext] | None,
        serving: bool,
        small: bool,
        wrapped: Callable[[IProtocolFactory], IProtocolFactory] | None,
    ) -> tuple[Far, Connection]:
        """A connection and its far end; ``serving`` as the server of TLS."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            if small:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL)
            far = socket.socket()
            if small:
                far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL)
            far.connect(listening.getsockname())
            near, _ = listening.accept()
        if small:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SMALL)
            far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SMALL)
        connection = Connection(_Host(tls and (tls[0], serving)))
        factory: IProtocolFactory = Factory.forProtocol(lambda: connection)
        if wrapped is not None:
            factory = wrapped(factory)
        with near:
            reactor.adoptStreamConnection(  # type: ignore[attr-defined]
                near.fileno(), socket.AF_INET, factory
            )
        return Far(far, tls and tls[1], not serving), connection

    def join(self) -> Loopback:
        """Hand both connections over to the relay."""
        self.member_host.hand_over(self.relay.member)
        self.client_host.hand_over(self.relay.client)
        return self

    def turn(self, turns: int = 1) -> None:
        """Let everything move once or more often."""
        for _ in range(turns):
            self.client.move()
            self.member.move()
            reactor.iterate(0.001)

    def until(self, condition: Callable[[], object]) -> None:
        """Let everything move until it is so."""
        limit = time.monotonic() + _LIMIT
        while not condition():
            if time.monotonic() > limit:
                raise AssertionError("it did not come about")
            self.turn()

    def held(self) -> int:
        """Octets that wait in both transports' memory."""
        hosts = (self.client_host, self.member_host)
        return max(buffered(host.transport) for host in hosts)

    def close(self) -> None:
        """Leave nothing behind."""
        self.client.close()
        self.member.close()
        self.until(lambda: self.ends)
