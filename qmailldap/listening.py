"""Where the server listens: endpoints, and what stands between them and the protocol.

From the outside in: the PROXY header of ``haproxy:``, TLS of ``--pop3s``, POP3.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import attrs
from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from qmailldap.figures.tally import Tally
from qmailldap.haproxy import ProxyFactory
from qmailldap.options import CannotStart, Options
from qmailldap.pop3.admission import Admission
from qmailldap.present import Present
from qmailldap.tls.factory import TLSFactory

__all__ = ["BACKLOG", "Listener", "OpenEndpoint", "listeners", "plain_endpoints"]

OpenEndpoint = Callable[[Any, str], IStreamServerEndpoint]
"""What makes an endpoint of a reactor and a description, as `serverFromString`. Asked for each in
the order in which they will be listened on."""

BACKLOG = 1024
"""Connections that may wait to be accepted, unless the endpoint says how many."""

_WITH_BACKLOG = re.compile("(?:tcp6?|ssl|unix):.")
_PROXY = "haproxy:"
# What is not tcp is a socket of the host itself, or has TLS already.
_WITHOUT_NETWORK = ("ssl:", "unix:")


@attrs.frozen(kw_only=True)
class Listener:
    """What all ports have in common.

    ``factory`` makes the sessions of those that speak for themselves, ``proxied`` of those who come
    through a proxy that tells of them within ``proxy_time`` seconds; until then ``admission``
    counts them. ``listens_on`` is told each port once it is bound. ``endpoint`` makes endpoints,
    ``tally`` counts those who do not get so far as to a session, ``present`` knows who is on.
    """

    reactor: Any
    factory: IProtocolFactory
    proxied: IProtocolFactory
    proxy_time: float
    certificates: IOpenSSLServerConnectionCreator | None
    listens_on: Callable[[IAddress], None]
    admission: Admission
    tally: Tally | None = None
    endpoint: OpenEndpoint = serverFromString
    present: Present | None = None
    _proxies: list[ProxyFactory] = attrs.field(factory=list, init=False)

    def limit_proxies(self, seconds: float) -> None:
        """Have those who come through a proxy from now on another time to be told of."""
        for each in self._proxies:
            each.limit = seconds

    def service(self, option: str, description: str) -> Service:
        """The service that listens on an endpoint; ``option`` is --listen or --pop3s.

        Raises `CannotStart`.
        """
        name = f"{option} {description}"
        behind_proxy = description.startswith(_PROXY)
        inner = description.removeprefix(_PROXY)
        factory = self.proxied if behind_proxy else self.factory
        if option == "--pop3s":
            if inner.startswith("ssl:"):
                raise CannotStart(f"{name}: speaks TLS already: use --listen {description}")
            if self.certificates is None:
                raise CannotStart(f"{name}: there is neither a cert.pem nor a --certificate")
            factory = TLSFactory(self.certificates, factory, self.reactor)
        if behind_proxy:
            factory = ProxyFactory(
                factory,
                self.reactor,
                self.proxy_time,
                admission=self.admission,
                tally=self.tally,
                present=self.present,
            )
            self._proxies.append(factory)
        try:
            endpoint = self.endpoint(self.reactor, _with_room_to_wait(inner))
        except Exception as error:
            raise _bad_endpoint(name, description, error) from None
        return _service(name, _Listening(endpoint, self.listens_on), factory)

    def status(self, description: str, site: IProtocolFactory) -> Service:
        """The service of --status, which ``site`` serves. Raises `CannotStart`."""
        name = f"--status {description}"
        try:
            endpoint = self.endpoint(self.reactor, description)
        except Exception as error:
            raise _bad_endpoint(name, description, error) from None
        return _service(name, endpoint, site)


def _bad_endpoint(name: str, description: str, error: Exception) -> CannotStart:
    """What an endpoint's parser raises depends on its kind: bad files, bad numbers, …"""
    if isinstance(error, LookupError) and "systemd:" in description:
        return CannotStart(f"{name}: systemd has handed over no such socket")
    hint = " (a colon within a value is written \\:)" if "::" in description else ""
    return CannotStart(f"{name}: {str(error) or type(error).__name__}{hint}")


def _service(name: str, endpoint: IStreamServerEndpoint, factory: IProtocolFactory) -> Service:
    service = StreamServerEndpointService(endpoint, factory)
    # As twisted.application.strports has it: who starts it learns that it cannot listen.
    service._raiseSynchronously = True
    service.setName(name)
    return service


def _with_room_to_wait(description: str) -> str:
    """The endpoint, with more room for those not yet accepted than Twisted's 50.

    Whom the kernel has no room for tries again after a second.
    """
    if _WITH_BACKLOG.match(description) and ":backlog=" not in description:
        return f"{description}:backlog={BACKLOG}"
    return description


def listeners(options: Options, common: Listener) -> list[Service]:
    """The services of all endpoints that the options name. Raises `CannotStart`."""
    if not options["listen"] and not options["pop3s"]:
        raise CannotStart("--listen: no endpoint is given")
    return [
        *(common.service("--listen", endpoint) for endpoint in options["listen"]),
        *(common.service("--pop3s", endpoint) for endpoint in options["pop3s"]),
    ]


def plain_endpoints(options: Options) -> list[str]:
    """The endpoints by which clients come that can have no TLS but by STLS.

    Before one of ``haproxy:`` there may be a proxy that has TLS with them.
    """
    return [
        endpoint
        for endpoint in options["listen"]
        if not endpoint.startswith((_PROXY, *_WITHOUT_NETWORK))
    ]


@implementer(IStreamServerEndpoint)
class _Listening:
    """An endpoint that tells where it has come to listen, once it does."""

    def __init__(self, endpoint: IStreamServerEndpoint, tell: Callable[[IAddress], None]) -> None:
        self._endpoint = endpoint
        self._tell = tell

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return self._endpoint.listen(protocolFactory).addCallback(self._listening)

    def _listening(self, port: IListeningPort) -> IListeningPort:
        self._tell(port.getHost())
        return port
