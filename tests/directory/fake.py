"""Directory servers in memory, for tests that drive time: a network of them, and what they do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ldaptor.protocols import pureber, pureldap
from ldaptor.protocols.ldap.ldapserver import BaseLDAPServer
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
)
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from qmailldap.control import ServerAddress
from qmailldap.directory._frames import MESSAGE_LIMIT
from qmailldap.tls.verification import CertificateRefused

LATENCY = 0.001
"""Seconds that anything takes on this network."""

BASE = "dc=example,dc=org"
NOTICE_OF_DISCONNECTION = "1.3.6.1.4.1.1466.20036"

Behaviour = Callable[["Peer", Any], None]
Attributes = Sequence[tuple[str, Sequence[str | bytes]]]


class Network:
    """Servers by address; ``connect`` is what a Directory takes to reach them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._servers: dict[ServerAddress, FakeServer] = {}

    def server(self, host: str, *, tls: bool = False) -> FakeServer:
        address = ServerAddress(host, tls=tls)
        server = self._servers[address] = FakeServer(self.clock, address)
        return server

    def connect(self, address: ServerAddress, factory: IProtocolFactory) -> Deferred[IProtocol]:
        return self._servers[address].connect(factory)

    def settle(self, seconds: float = 0.05) -> None:
        """Let pass what takes the network's own time only."""
        for _ in range(round(seconds / LATENCY)):
            self.clock.advance(LATENCY)


class FakeServer:
    """A server that does as it is told: ``bind`` and ``search`` are what it does with either.

    ``extended`` is what it does with StartTLS, and ``handshake`` when TLS is begun.
    """

    def __init__(self, clock: Clock, address: ServerAddress) -> None:
        self.clock = clock
        self.address = address
        self.entries: dict[bytes, list[str]] = {b"joe": [f"uid=joe,{BASE}"]}
        self.passwords = {f"uid=joe,{BASE}".encode(): b"secret"}
        self.reachable = True
        """Whether it answers a request to connect at all."""
        self.running = True
        """Whether it accepts one."""
        self.bind: Behaviour = checks_password
        self.search: Behaviour = finds
        self.extended: Behaviour = agrees_to_tls
        self.handshake: Callable[[Peer], None] = shakes_hands
        self.peers: list[Peer] = []
        self.requests: list[Any] = []
        self.attempts = 0

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        self.attempts += 1
        if not self.running:
            return fail(ConnectionRefusedError())
        made: Deferred[IProtocol] = Deferred()
        if self.reachable:
            self.clock.callLater(LATENCY, self._accept, factory, made)
        return made

    def _accept(self, factory: IProtocolFactory, made: Deferred[IProtocol]) -> None:
        if made.called:
            return
        protocol: Any = factory.buildProtocol(None)  # type: ignore[arg-type]
        peer = Peer(self, protocol)
        self.peers.append(peer)
        protocol.makeConnection(peer)
        made.callback(protocol)

    def stop(self) -> None:
        self.running = False
        for peer in list(self.open_peers):
            peer.close()

    @property
    def open_peers(self) -> list[Peer]:
        return [peer for peer in self.peers if peer.open]

    def asked(self, kind: type) -> list[Any]:
        """The requests of this type that came, in their order."""
        return [message.value for message in self.requests if isinstance(message.value, kind)]

    @property
    def logins(self) -> list[bytes]:
        """The logins that were searched for, without the probes."""
        searches = self.asked(pureldap.LDAPSearchRequest)
        return [login_of(search) for search in searches if search.scope != 0]

    @property
    def probes(self) -> list[Any]:
        """The searches that only saw whether it answers."""
        searches = self.asked(pureldap.LDAPSearchRequest)
        return [search for search in searches if search.scope == 0]

    def received(self, peer: Peer, message: Any) -> None:
        self.requests.append(message)
        if isinstance(message.value, pureldap.LDAPBindRequest):
            self.bind(peer, message)
        elif isinstance(message.value, pureldap.LDAPSearchRequest):
            self.search(peer, message)
        elif isinstance(message.value, pureldap.LDAPExtendedRequest):
            self.extended(peer, message)


class Peer(StringTransport):
    """A connection as the server has it, and the client's transport at once."""

    def __init__(self, server: FakeServer, protocol: Any) -> None:
        super().__init__()
        self.server = server
        self.protocol = protocol
        self.open = True
        self.tls = False
        """Whether TLS has been begun."""
        self.asked_in_plain_text = False
        """Whether anything was asked of it without TLS, but StartTLS."""
        self._incoming = b""

    def write(self, data: bytes) -> None:
        self._incoming += data
        while self._incoming:
            message, size = pureber.berDecodeObject(BaseLDAPServer.berdecoder, self._incoming)
            self._incoming = self._incoming[size:]
            harmless = (pureldap.LDAPExtendedRequest, pureldap.LDAPUnbindRequest)
            if not self.tls and not isinstance(message.value, harmless):
                self.asked_in_plain_text = True
            self.server.clock.callLater(LATENCY, self._received, message)

    def _received(self, message: Any) -> None:
        if self.open:
            self.server.received(self, message)

    def startTLS(self, creator: object) -> None:
        assert IOpenSSLClientConnectionCreator.providedBy(creator)
        assert not self._incoming
        self.tls = True
        self.server.clock.callLater(LATENCY, self._handshake)

    def _handshake(self) -> None:
        if self.open:
            self.server.handshake(self)

    def answer(self, message: Any, *operations: Any) -> None:
        octets = [pureldap.LDAPMessage(op, id=message.id).toWire() for op in operations]
        self.deliver(b"".join(octets))

    def deliver(self, octets: bytes) -> None:
        if self.open:
            self.protocol.dataReceived(octets)

    def close(self, reason: Failure = connectionDone) -> None:
        self._end(reason)

    def loseConnection(self) -> None:
        self.server.clock.callLater(LATENCY, self._end, Failure(ConnectionDone()))

    def abortConnection(self) -> None:
        self.server.clock.callLater(0, self._end, Failure(ConnectionAborted()))

    def _end(self, reason: Failure) -> None:
        if self.open:
            self.open = False
            self.protocol.connectionLost(reason)


def login_of(search: Any) -> bytes:
    """The login of a search request, whatever other terms its filter has."""
    term = search.filter
    if isinstance(term, pureldap.LDAPFilter_and):
        term = term[-1]
    login = term.assertionValue.value
    assert isinstance(login, bytes)
    return login


def entry(dn: str | bytes, attributes: Attributes = ()) -> Any:
    return pureldap.LDAPSearchResultEntry(objectName=dn, attributes=list(attributes))


def done(code: int = 0, text: str = "") -> Any:
    return pureldap.LDAPSearchResultDone(resultCode=code, errorMessage=text)


def checks_password(peer: Peer, message: Any) -> None:
    """Accept an anonymous bind, and that of an entry with its password."""
    request = message.value
    right = not request.dn or peer.server.passwords.get(request.dn) == request.auth
    peer.answer(message, pureldap.LDAPBindResponse(resultCode=0 if right else 49))


def finds(peer: Peer, message: Any) -> None:
    """Answer with the entries of the login."""
    search = message.value
    found = [] if search.scope == 0 else peer.server.entries.get(login_of(search), [])
    peer.answer(message, *(entry(dn) for dn in found[:2]), done(4 if len(found) > 2 else 0))


def agrees_to_tls(peer: Peer, message: Any) -> None:
    """Agree to StartTLS."""
    peer.answer(message, pureldap.LDAPExtendedResponse(resultCode=0))


def shakes_hands(peer: Peer) -> None:
    """Speak TLS, with a certificate that is accepted."""
    peer.protocol.handshakeCompleted()


def shows_a_certificate(problem: str) -> Callable[[Peer], None]:
    """Speak TLS, with a certificate that is not accepted."""
    return lambda peer: peer.close(Failure(CertificateRefused(problem)))


def extends_with(code: int, text: str = "", **more: str) -> Behaviour:
    """End every extended operation with this result code."""
    return lambda peer, message: peer.answer(
        message, pureldap.LDAPExtendedResponse(resultCode=code, errorMessage=text, **more)
    )


def says_nothing(peer: Peer, message: Any) -> None:
    """Be silent."""


def closes(peer: Peer, message: Any) -> None:
    """Close the connection instead of answering."""
    peer.close()


def sends_half(peer: Peer, message: Any) -> None:
    """Close the connection in the middle of an answer."""
    octets = pureldap.LDAPMessage(entry(f"uid=joe,{BASE}"), id=message.id).toWire()
    peer.deliver(octets[:-3])
    peer.close()


def sends(octets: bytes) -> Behaviour:
    """Answer anything with these octets."""
    return lambda peer, message: peer.deliver(octets)


def finds_nothing_but(code: int, text: str = "") -> Behaviour:
    """End every search with this result code."""
    return lambda peer, message: peer.answer(message, done(code, text))


def binds_with(code: int) -> Behaviour:
    """End every bind with this result code."""
    return lambda peer, message: peer.answer(message, pureldap.LDAPBindResponse(resultCode=code))


def refuses_with_an_echo(code: int) -> Behaviour:
    """End every bind with this result code, and with the request as the text for people."""

    def refuse(peer: Peer, message: Any) -> None:
        request = message.value
        text = b"cannot decode " + request.dn + b" " + request.auth
        peer.answer(message, pureldap.LDAPBindResponse(resultCode=code, errorMessage=text))

    return refuse


def begins(peer: Peer, message: Any) -> None:
    """Send an entry, and never the end of the answer."""
    peer.answer(message, entry(f"uid=joe,{BASE}"))


def finds_a_large_entry(peer: Peer, message: Any) -> None:
    """Answer with an entry that is too large to be taken."""
    large = entry(f"uid=joe,{BASE}", [("jpegPhoto", [b"x" * MESSAGE_LIMIT])])
    peer.answer(message, large, done())


def except_for(name: str, usual: Behaviour, otherwise: Behaviour) -> Behaviour:
    """Bind as usual, but the entry of this name otherwise."""

    def bind(peer: Peer, message: Any) -> None:
        (otherwise if message.value.dn == name.encode() else usual)(peer, message)

    return bind


def disconnects(peer: Peer, message: Any) -> None:
    """Send a notice of disconnection instead of answering."""
    peer.deliver(notice_of_disconnection())


def notice_of_disconnection() -> bytes:
    notice = pureldap.LDAPExtendedResponse(
        resultCode=52, responseName=NOTICE_OF_DISCONNECTION, errorMessage="shutting down"
    )
    octets = pureldap.LDAPMessage(notice, id=0).toWire()
    assert isinstance(octets, bytes)
    return octets
