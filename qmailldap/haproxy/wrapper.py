"""Reads the header of each connection, and only then lets anybody know of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet import protocol
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IProtocolFactory,
    IReactorTime,
)
from twisted.python.failure import Failure
from zope.interface import Interface, alsoProvides, directlyProvides, providedBy

from qmailldap.figures.tally import Tally
from qmailldap.haproxy.header import BadHeader, Header, parse_header
from qmailldap.loglevel import Log
from qmailldap.present import Presence, Present
from qmailldap.printable import printable
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.session import Session

__all__ = ["ProxyFactory"]

# Of the protocol behind: what its transport asks for, and finds here in its place.
_PASSED_ON: tuple[type[Interface], ...] = (IHalfCloseableProtocol, IHandshakeListener)


class _Place(Protocol):
    """What is asked of `qmailldap.admission.Place`."""

    def leave(self) -> None: ...


class _Admission(Protocol):
    """What is asked of `qmailldap.admission.Admission`."""

    def enter(self, host: str, make_room: Callable[[], None]) -> _Place: ...


class ProxyFactory(protocol.ServerFactory):
    """Makes the connections of a listener behind a proxy.

    ``wrapped`` is asked for a protocol when the header is there, within ``limit`` seconds, by the
    client's address. That protocol's transport tells the client's address as that of its peer, and
    has ``client_spoke_tls``, whether the proxy says so. A connection with a bad header, or without
    any, is closed and leaves a line in ``log``; one that ends before leaves none.

    ``admission`` counts the connections without a header as well, if there is one, ``tally`` those
    that were closed; ``present`` knows of those that are there.
    """

    noisy = False

    def __init__(
        self,
        wrapped: IProtocolFactory,
        clock: IReactorTime,
        limit: float,
        log: Log | None = None,
        admission: _Admission | None = None,
        tally: Tally | None = None,
        present: Present | None = None,
    ) -> None:
        self.wrapped = wrapped
        self.clock = clock
        self.limit = limit
        self.log = log or Log(namespace="qmailldap.haproxy")
        self.admission = admission
        self.tally = tally
        self.present = Present(clock) if present is None else present

    def doStart(self) -> None:
        self.wrapped.doStart()
        super().doStart()

    def doStop(self) -> None:
        self.wrapped.doStop()
        super().doStop()

    def buildProtocol(self, addr: IAddress | None) -> protocol.Protocol:
        return _Proxied(self)


class _Proxied(protocol.Protocol):
    """One connection: the protocol of its transport, and the transport of the protocol behind."""

    transport: Any

    def __init__(self, factory: ProxyFactory) -> None:
        self._factory = factory
        self.client_spoke_tls = False
        self.disconnecting = False
        self._behind: Any = None
        self._header: Header | None = None
        self._received = bytearray()
        self._limit: IDelayedCall | None = None
        self._place: _Place | None = None
        self._since = factory.clock.seconds()

    # What the transport asks for.

    def connectionMade(self) -> None:
        factory = self._factory
        if factory.admission is not None:
            try:
                # The proxy's address is everybody's: the client's is counted when it is known.
                self._place = factory.admission.enter("", self._make_room)
            except LoginRefused as refused:
                self._refuse(refused)
                return
        self._limit = factory.clock.callLater(factory.limit, self._too_late)
        factory.present.enter(self)

    def logPrefix(self) -> str:
        return str(self._behind.logPrefix()) if self._behind else "PROXY"

    def dataReceived(self, data: bytes) -> None:
        if self._behind is not None:
            self._behind.dataReceived(data)
        elif not self.disconnecting:
            self._received += data
            self._look()

    def readConnectionLost(self) -> None:
        self._behind.readConnectionLost()

    def writeConnectionLost(self) -> None:
        self._behind.writeConnectionLost()

    def handshakeCompleted(self) -> None:
        self._behind.handshakeCompleted()

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        self._leave_waiting()
        behind, self._behind = self._behind, None
        self.disconnecting = True
        if behind is not None:
            behind.connectionLost(reason)

    # What the protocol behind asks for, besides all that is the transport's own.

    def __getattr__(self, name: str) -> Any:
        if name == "transport":  # of none yet
            raise AttributeError(name)
        return getattr(self.transport, name)

    def getPeer(self) -> IAddress:
        said = self._header and self._header.source
        peer: IAddress = said or self.transport.getPeer()
        return peer

    def getHost(self) -> IAddress:
        said = self._header and self._header.destination
        host: IAddress = said or self.transport.getHost()
        return host

    def loseConnection(self) -> None:
        self.disconnecting = True
        self.transport.loseConnection()

    def abortConnection(self) -> None:
        self.disconnecting = True
        self.transport.abortConnection()

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        self.transport.startTLS(contextFactory, normal)
        self._provide()

    @property
    def bufferSize(self) -> int:
        """Octets read at once."""
        size: int = self.transport.bufferSize
        return size

    @bufferSize.setter
    def bufferSize(self, size: int) -> None:
        self.transport.bufferSize = size

    # The header.

    def _look(self) -> None:
        try:
            found = parse_header(bytes(self._received))
        except BadHeader as error:
            self._refuse(LoginRefused(Refusal.PROXY_HEADER, str(error)))
            return
        if found is None:
            return
        self._header, end = found
        rest = bytes(self._received[end:])
        self._leave_waiting()
        self.client_spoke_tls = self._header.client_spoke_tls
        self._behind = self._factory.wrapped.buildProtocol(self.getPeer())
        if self._behind is None:
            self.abortConnection()
            return
        self._provide()
        self._behind.makeConnection(self)
        if rest and not self.disconnecting:
            self._behind.dataReceived(rest)

    def _leave_waiting(self) -> None:
        """Nothing is waited for any more, whether it came or not."""
        self._received.clear()
        limit, self._limit = self._limit, None
        if limit is not None and limit.active():
            limit.cancel()
        place, self._place = self._place, None
        if place is not None:
            place.leave()
        self._factory.present.leave(self)

    def _provide(self) -> None:
        """Both sides ask for interfaces: be what the transport is, and what the protocol is."""
        directlyProvides(self, providedBy(self.transport))
        alsoProvides(self, *(each for each in _PASSED_ON if each.providedBy(self._behind)))

    # One of those who are on, until there is a session: see `qmailldap.present.Entry`.

    def presence(self) -> Presence:
        host = str(getattr(self.transport.getPeer(), "host", None) or "local")
        return Presence(host=printable(host.encode("utf-8", "replace")), since=self._since)

    def kick(self) -> bool:
        self.abortConnection()
        return True

    def stop(self, quiet: float) -> None:
        """Without a word: who is there is not known, nor whether they expect TLS."""
        if self._factory.clock.seconds() - self._since >= quiet:
            self.cut_off()

    def cut_off(self) -> bool:
        self._leave_waiting()
        self.abortConnection()
        return False

    def _too_late(self) -> None:
        limit = self._factory.limit
        self._refuse(LoginRefused(Refusal.PROXY_HEADER, f"none within {limit:g} s"))

    def _make_room(self) -> None:
        self._refuse(LoginRefused(Refusal.TOO_MANY_CONNECTIONS, "the oldest without a header"))

    def _refuse(self, refused: LoginRefused) -> None:
        session = Session(self._factory.log, self.transport.getPeer, tally=self._factory.tally)
        session.refused(b"", refused)
        self._leave_waiting()
        self.abortConnection()
