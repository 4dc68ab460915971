"""One connection to a directory server: ldaptor's client, made to survive the server.

ldaptor's own lets what a server sends raise out of ``dataReceived``, collects it without a bound,
takes message ids from a counter that all connections share and that grows past what LDAP allows,
and waits for ever. Here whatever comes is an answer to something asked, or is ignored, or ends the
connection with a `Loss`.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import Any

import attrs
from ldaptor.protocols import pureldap
from ldaptor.protocols.ldap.ldapclient import LDAPClient
from OpenSSL import SSL
from twisted.internet.defer import Deferred, TimeoutError, fail
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IReactorTime,
    ITCPTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from qmailldap.directory._frames import FrameReader
from qmailldap.directory._operations import (
    BERDECODER,
    BindOperation,
    Operation,
    SearchOperation,
    StartTLSOperation,
    response_of,
    result_of,
)
from qmailldap.directory.errors import ConnectionDropped, NotLDAP, ServerTrouble, TLSRefused
from qmailldap.directory.results import SUCCESS, Result
from qmailldap.directory.search import LoginRequest, SearchAnswer
from qmailldap.tls.verification import CertificateRefused, problem

__all__ = ["CLOSE_LIMIT", "Connection", "Loss", "LossKind"]

CLOSE_LIMIT = 1.0
"""Seconds until a connection that does not take our farewell is cut."""

_LARGEST_MESSAGE_ID = 2**31 - 1
_NOTICE_OF_DISCONNECTION = b"1.3.6.1.4.1.1466.20036"


class LossKind(enum.Enum):
    """How a connection ended."""

    CLOSED = "closed by the server or the network"
    NOTICE = "a notice of disconnection (RFC 4511, section 4.4.1)"
    SILENT = "the server said nothing"
    GARBAGE = "the server sent what is not LDAP"
    OURS = "closed by us"


@attrs.frozen
class Loss:
    """The end of a connection: its kind, a line on it, and how many operations it took along."""

    kind: LossKind
    reason: str
    under_way: int


@implementer(IHandshakeListener)
class Connection(LDAPClient):  # type: ignore[misc]  # ldaptor has no types
    """A connection on which searches and binds may be made; several searches at once.

    ``silence_limit`` is in seconds: when an operation is given up and the server has said nothing
    on this connection for that long although it was asked, the connection is presumed dead.
    ``on_lost`` is called once, when the connection is of no more use and before the operations
    under way fail.
    """

    berdecoder = BERDECODER

    def __init__(
        self,
        clock: IReactorTime,
        silence_limit: float,
        on_lost: Callable[[Connection, Loss], None],
    ) -> None:
        super().__init__()
        self._clock = clock
        # A little less: what a timer waited and what the clock says differ by rounding.
        self._silence_limit = silence_limit * 0.99
        self._on_lost = on_lost
        self._frames = FrameReader()
        self._operations: dict[int, Operation] = {}
        self._handshake: Deferred[None] | None = None
        self._last_id = 0
        self._lost = False
        self._cut: IDelayedCall | None = None
        self.heard_at = -math.inf
        """When the last message came, in the clock's seconds."""
        self.asked_at: float | None = None
        """Since when the server owes a message; None while it owes none."""
        self.answers = 0
        """How many operations were answered, StartTLS not among them."""
        self.closed: Deferred[None] = Deferred()
        """Fires when the transport is gone."""

    @property
    def lost(self) -> bool:
        """Whether the connection is of no more use."""
        return self._lost

    def search(self, request: Any, limit: float) -> Deferred[SearchAnswer]:
        """Make the search; the request is a `LoginRequest`, or an LDAPSearchRequest of ldaptor.

        Fails with TimeoutError after ``limit`` seconds, `ConnectionDropped` when the connection
        ends before, `EntryTooLarge` for an answer too large to be taken.
        """
        return self._ask(request, SearchOperation(), limit)

    def bind_as(self, dn: bytes, password: bytes, limit: float) -> Deferred[Result]:
        """Bind, with nothing else under way. Fails as `search` does, but with `ServerTrouble`
        for an answer too large. The result has no diagnostic text: some servers echo the request.

        A bind cannot be abandoned (RFC 4511, section 4.2.1), so giving one up ends the connection.
        """
        return self._ask(pureldap.LDAPBindRequest(dn=dn, auth=password), BindOperation(), limit)

    def begin_tls(self, creator: IOpenSSLClientConnectionCreator, limit: float) -> Deferred[None]:
        """Speak TLS from here on, nothing else having been asked; fires when it is spoken.

        Fails as `search` does, and with `TLSRefused` when the server's certificate is not accepted.
        Unless it succeeds, the connection is of no more use.
        """
        if self._lost:
            return fail(ConnectionDropped("the connection was closed before it was used"))
        if self._frames.in_a_message:
            # Nobody has vouched for it: somebody on the way may have sent it, to be taken for the
            # server's when TLS is spoken.
            reason = "it sent something in plain text where TLS begins"
            self._abort(LossKind.GARBAGE, reason)
            return fail(ConnectionDropped(reason))
        self.answers = 0
        handshake: Deferred[None] = Deferred(self._give_up_handshake)
        self._handshake = handshake
        self.transport.startTLS(creator)
        return handshake.addTimeout(limit, self._clock)

    def start_tls(self, creator: IOpenSSLClientConnectionCreator, limit: float) -> Deferred[None]:
        """The same where the server must be asked for it (RFC 4511, section 4.14).

        Fails with `TLSRefused` when it refuses, too.
        """
        give_up_at = self._clock.seconds() + limit

        def answered(result: Result) -> Deferred[None]:
            if result.code != SUCCESS:
                self.close()
                raise TLSRefused(f"it refuses StartTLS (control file ldaptls): {result}")
            return self.begin_tls(creator, max(0.0, give_up_at - self._clock.seconds()))

        # Called while the answer is being received, before anything that comes behind it.
        request = pureldap.LDAPStartTLSRequest()
        return self._ask(request, StartTLSOperation(), limit).addCallback(answered)

    def handshakeCompleted(self) -> None:
        self._heard()
        handshake, self._handshake = self._handshake, None
        if handshake is not None:
            handshake.callback(None)

    def close(self) -> None:
        """Take leave of the server, and see to it that the transport ends."""
        if self._lost:
            return
        self.send_noResponse(pureldap.LDAPUnbindRequest())
        self._leave(LossKind.OURS, "closed by us")

    def drop(self, reason: str) -> None:
        """End the connection at once; what is under way fails with `ConnectionDropped`."""
        self._abort(LossKind.OURS, reason)

    def connectionMade(self) -> None:
        super().connectionMade()
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)

    def dataReceived(self, data: bytes) -> None:
        if self._lost:
            return
        try:
            for message_id, octets, operation_at in self._frames.feed(data):
                self._received(message_id, octets, operation_at)
                if self.lost:
                    return
        except NotLDAP as error:
            self._abort(LossKind.GARBAGE, f"it sent what is not LDAP: {error}")

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self._handshake is not None and reason is not None:
            self._handshake_failed(self._handshake, reason)
        half = self._frames.in_a_message or any(o.begun for o in self._operations.values())
        how = "in the middle of an answer" if half else "before it answered"
        why = f": {problem(reason)}" if reason is not None and reason.check(SSL.Error) else ""
        self._end(LossKind.CLOSED, f"it closed the connection {how}{why}")
        if self._cut is not None and self._cut.active():
            self._cut.cancel()
        if not self.closed.called:
            self.closed.callback(None)

    def _ask(self, request: Any, operation: Operation, limit: float) -> Deferred[Any]:
        if self._lost:
            return fail(ConnectionDropped("the connection was closed before it was used"))
        message_id = self._next_id()
        if isinstance(request, LoginRequest):
            octets = request.encoded(message_id)
        else:
            octets = pureldap.LDAPMessage(request, id=message_id).toWire()
        operation.done = Deferred(lambda _: self._give_up(message_id))
        operation.time_is_up = self._clock.callLater(limit, self._time_is_up, message_id)
        self._operations[message_id] = operation
        if self.asked_at is None:
            self.asked_at = self._clock.seconds()
        self.transport.write(octets)
        return operation.done

    def _next_id(self) -> int:
        """A message id of this connection's own."""
        self._last_id = self._last_id % _LARGEST_MESSAGE_ID + 1
        return self._last_id

    def _send(self, op: Any, controls: Any = None) -> Any:
        """The message that ldaptor sends for an operation which is not answered."""
        return pureldap.LDAPMessage(op, controls=controls, id=self._next_id())

    def _time_is_up(self, message_id: int) -> None:
        done = self._operations[message_id].done
        self._give_up(message_id)
        if not done.called:
            done.errback(TimeoutError())

    def _give_up(self, message_id: int) -> None:
        """The time of an operation is up, or nobody waits for it any more."""
        operation = self._operations.pop(message_id, None)
        if operation is None:
            return
        if operation.time_is_up.active():
            operation.time_is_up.cancel()
        waited = 0.0 if self.asked_at is None else self._clock.seconds() - self.asked_at
        if waited >= self._silence_limit:
            self._abort(LossKind.SILENT, f"it said nothing for {waited:.0f} s")
        elif operation.can_be_abandoned:
            self.send_noResponse(pureldap.LDAPAbandonRequest(id=message_id))
            if not self._operations:
                self.asked_at = None
        else:
            self._abort(LossKind.OURS, "what cannot be abandoned was given up")

    def _give_up_handshake(self, _: Deferred[None]) -> None:
        self._handshake = None
        self.drop("a TLS handshake was given up")

    def _handshake_failed(self, handshake: Deferred[None], reason: Failure) -> None:
        self._handshake = None
        refused = reason.check(CertificateRefused) is not None
        said = problem(reason)
        error = TLSRefused(said) if refused else ServerTrouble(f"TLS cannot be begun: {said}")
        self._end(LossKind.CLOSED, str(error))
        handshake.errback(error)

    def _received(self, message_id: int, octets: bytes | None, operation_at: int) -> None:
        """Take in a message; one that answers nothing we wait for is not even decoded."""
        operation = self._operations.get(message_id)
        if operation is None:
            response = response_of(octets) if message_id == 0 and octets is not None else None
            self._heard()
            if response is not None:
                self._unsolicited(response)
            return
        outcome = None if octets is None else operation.receive(octets, operation_at)
        if outcome is None and octets is not None:  # There is more to come.
            self._heard()
            return
        del self._operations[message_id]
        operation.time_is_up.cancel()
        self.answers += 1
        self._heard()
        if octets is None:
            operation.done.errback(operation.too_large())
        else:
            operation.done.callback(outcome)

    def _heard(self) -> None:
        self.heard_at = self._clock.seconds()
        self.asked_at = self.heard_at if self._operations else None

    def _unsolicited(self, response: Any) -> None:
        """RFC 4511, section 4.4: of the notices that nobody asked for, one means anything to us."""
        if getattr(response, "responseName", None) == _NOTICE_OF_DISCONNECTION:
            # By its name only: the text may echo a bind that is under way.
            self._leave(LossKind.NOTICE, f"it is disconnecting: {result_of(response).name}")

    def _leave(self, kind: LossKind, reason: str) -> None:
        self._cut = self._clock.callLater(CLOSE_LIMIT, self._abort_transport)
        self.transport.loseConnection()
        self._end(kind, reason)

    def _abort(self, kind: LossKind, reason: str) -> None:
        if not self._lost:
            self._abort_transport()
            self._end(kind, reason)

    def _abort_transport(self) -> None:
        self.transport.abortConnection()

    def _end(self, kind: LossKind, reason: str) -> None:
        if self._lost:
            return
        self._lost = True
        self.connected = 0
        operations, self._operations = self._operations, {}
        handshake, self._handshake = self._handshake, None
        self._on_lost(self, Loss(kind, reason, len(operations)))
        for operation in operations.values():
            operation.time_is_up.cancel()
        for operation in operations.values():
            if not operation.done.called:
                operation.done.errback(ConnectionDropped(reason))
        if handshake is not None:
            handshake.errback(ConnectionDropped(reason))
