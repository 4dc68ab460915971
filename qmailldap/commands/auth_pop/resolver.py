"""Host names into addresses without the reactor's thread pool, which takes its time to start."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from qmailldap.ip import parse_ip
from qmailldap.threads import Offload, in_a_thread

__all__ = ["Resolver"]


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


@implementer(IHostnameResolver)
class Resolver:
    """Asks the system, in a thread for each name; addresses are their own."""

    def __init__(self, reactor: Any) -> None:
        self._offload: Offload = in_a_thread(reactor)

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)

        def found(addresses: Sequence[IAddress]) -> None:
            if resolution.cancelled:
                return
            for address in addresses:
                if addressTypes is None or isinstance(address, tuple(addressTypes)):
                    resolutionReceiver.addressResolved(address)
            resolutionReceiver.resolutionComplete()

        if parse_ip(hostName) is not None:
            found(_look_up(hostName, portNumber))
        else:
            self._offload(_look_up, hostName, portNumber).addErrback(_nothing).addCallback(found)
        return resolution


def _look_up(name: str, port: int) -> Sequence[IAddress]:
    """Raises ``OSError``, and ``UnicodeError`` for what cannot be a name."""
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [
        IPv6Address("TCP", *address) if family == socket.AF_INET6 else IPv4Address("TCP", *address)
        for family, _, _, _, address in found
    ]


def _nothing(failure: Failure) -> Sequence[IAddress]:
    """Of a name that cannot be resolved there are no addresses; the receiver says so."""
    failure.trap(OSError, UnicodeError)
    return ()
