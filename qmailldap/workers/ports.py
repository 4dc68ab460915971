"""Listening sockets of several processes: bound by one that never accepts, used by the others."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

__all__ = ["InheritedPorts", "SharedPorts", "adopt"]

_SYSTEMD = "systemd:"

_AT_A_TIME = 4
"""Connections that a worker takes in one go: the others have their share of a burst."""


class SharedPorts:
    """An `OpenEndpoint` for the supervisor: what it opens is bound, and nobody is let in."""

    def __init__(self) -> None:
        self._ports: list[Any] = []
        self._of_systemd: set[int] = set()

    def __call__(self, reactor: Any, description: str) -> IStreamServerEndpoint:
        place = len(self._ports)
        self._ports.append(None)
        if description.startswith(_SYSTEMD):
            self._of_systemd.add(place)
        endpoint = serverFromString(reactor, description)

        def bound(port: Any) -> Any:
            # Before the reactor has run even once.
            port.stopReading()
            # Or the socket would be shut down for the workers, too, which may still accept.
            port._shouldShutdown = False
            self._ports[place] = port
            return port

        return _Changed(endpoint, bound)

    def descriptors(self) -> tuple[int, ...]:
        """Of all ports, in the order of their endpoints.

        Raises ``ValueError`` where one is not bound: its endpoint takes its time.
        """
        if None in self._ports:
            raise ValueError("an endpoint that is not listened on at once is not for workers")
        return tuple(port.fileno() for port in self._ports)

    def end(self) -> None:
        """Have them shut down when they are closed: nobody connects, whoever has them still.

        Not those of systemd, where clients wait until the server is started again; and not of
        UNIX sockets, whose files are gone then.
        """
        for place, port in enumerate(self._ports):
            if isinstance(port, tcp.Port) and not isinstance(port, unix.Port):
                port._shouldShutdown = place not in self._of_systemd


class InheritedPorts:
    """An `OpenEndpoint` for a worker: its ports are ``descriptors``, in the order of the endpoints.

    What stands around a port in the description, as TLS in ``ssl:``, is made as usual.
    """

    def __init__(self, descriptors: Sequence[int]) -> None:
        self._descriptors = list(descriptors)

    def __call__(self, reactor: Any, description: str) -> IStreamServerEndpoint:
        if not self._descriptors:
            raise ValueError("no port was inherited for it")
        descriptor = self._descriptors.pop(0)
        if description.startswith(_SYSTEMD):
            # systemd has handed it to the supervisor, whose variables are not for other processes.
            return _Inherited(reactor, descriptor)
        endpoint: IStreamServerEndpoint = serverFromString(
            _WithPort(reactor, descriptor), description
        )
        return endpoint


@implementer(IStreamServerEndpoint)
class _Changed:
    """An endpoint whose port is looked at once it is bound."""

    def __init__(self, endpoint: IStreamServerEndpoint, bound: Any) -> None:
        self._endpoint = endpoint
        self._bound = bound

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return self._endpoint.listen(protocolFactory).addCallback(self._bound)


@implementer(IStreamServerEndpoint)
class _Inherited:
    """An endpoint that is bound already."""

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = descriptor

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return execute(adopt, self._reactor, self._descriptor, protocolFactory)


class _WithPort:
    """A reactor to which every port is the one that it has inherited."""

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = descriptor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: object, factory: IProtocolFactory, *_: object, **__: object) -> Any:
        return adopt(self._reactor, self._descriptor, factory)

    def listenUNIX(self, path: object, factory: IProtocolFactory, *_: object, **__: object) -> Any:
        return adopt(self._reactor, self._descriptor, factory)

    def listenSSL(
        self,
        port: object,
        factory: IProtocolFactory,
        contextFactory: Any,
        *_: object,
        **__: object,
    ) -> Any:
        wrapped = TLSMemoryBIOFactory(contextFactory, False, factory, self._reactor)
        return adopt(self._reactor, self._descriptor, wrapped)


def adopt(reactor: Any, descriptor: int, factory: IProtocolFactory) -> Any:
    """Listen on a bound socket, whose descriptor is closed: the port has one of its own.

    The file of a UNIX socket is left to whoever has made it.
    """
    with socket.socket(fileno=descriptor) as inherited:
        number, family = inherited.fileno(), inherited.family
        port: Any
        if family == socket.AF_UNIX:
            port = _InheritedUNIXPort._fromListeningDescriptor(reactor, number, factory)
        else:
            port = _InheritedPort._fromListeningDescriptor(reactor, number, family, factory)
    port.startListening()
    return port


class _InheritedPort(tcp.Port):
    """One that takes few connections in one go, so that the other workers have their share."""

    # Twisted's own takes the more the more there are, and the others go idle.
    numberAccepts = property(lambda _: _AT_A_TIME, lambda _, __: None)

    def doRead(self) -> None:
        # The supervisor may have shut it down, a moment before we are told to stop.
        if self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            super().doRead()
        else:
            self.stopReading()


class _InheritedUNIXPort(unix.Port):
    """One whose file belongs to the supervisor: neither its mode nor its end is ours.

    Twisted's own sets the mode anew, and removes the file when it is closed.
    """

    numberAccepts = _InheritedPort.numberAccepts

    def startListening(self) -> None:
        # As Twisted's own: without one in reserve, a process that is out of descriptors cannot
        # send anybody away, and wakes for the same connection without end.
        reserved: Any = getattr(tcp, "_reservedFD", None)
        if reserved is not None:
            reserved.reserve()
        self.factory.doStart()  # type: ignore[union-attr]
        self.socket, self._preexistingSocket = self._preexistingSocket, None
        self.fileno = self.socket.fileno  # type: ignore[method-assign, union-attr]
        self.connected = True
        self._shouldShutdown = False
        self.startReading()

    def connectionLost(self, reason: Any) -> None:
        tcp.Port.connectionLost(self, reason)
