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
from ldaptor.protocols import pureber, pureldap
from ldaptor.protocols.ldap.ldapclient import LDAPClient
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport
from twisted.python.failure import Failure

from qmailldap.account import Entry
from qmailldap.directory._frames import MESSAGE_LIMIT, Frame, FrameReader
from qmailldap.directory.errors import (
    ConnectionDropped,
    EntryTooLarge,
    NotLDAP,
    ServerTrouble,
)
from qmailldap.directory.results import Result
from qmailldap.directory.search import ENTRIES_ASKED_FOR, SearchAnswer, entry_from_result

__all__ = ["CLOSE_LIMIT", "Connection", "Loss", "LossKind"]

CLOSE_LIMIT = 1.0
"""Seconds until a connection that does not take our farewell is cut."""

_LARGEST_MESSAGE_ID = 2**31 - 1
_NOTICE_OF_DISCONNECTION = b"1.3.6.1.4.1.1466.20036"


class _IntermediateResponse(pureldap.LDAPProtocolResponse):  # type: ignore[misc]  # no types
    """RFC 4511, section 4.13, which ldaptor does not know. What it holds is not looked at."""

    tag = pureber.CLASS_APPLICATION | 0x19

    @classmethod
    def fromBER(cls, tag: int, content: bytes, berdecoder: Any = None) -> _IntermediateResponse:
        return cls()


class _KnownTypes(pureber.BERDecoderContext):  # type: ignore[misc]  # ldaptor has no types
    """The last resort of ldaptor's decoder, which would print what it does not know and go on."""

    Identities = {
        **pureber.BERDecoderContext.Identities,
        _IntermediateResponse.tag: _IntermediateResponse,
    }

    def lookup_id(self, id: int) -> Any:
        known = super().lookup_id(id)
        if known is None:
            raise NotLDAP(f"an element of the unknown type {id:#04x}")
        return known


_RESPONSE_TYPES = pureldap.LDAPBERDecoderContext(fallback=_KnownTypes())


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


class Connection(LDAPClient):  # type: ignore[misc]  # ldaptor has no types
    """A connection on which searches and binds may be made; several searches at once.

    ``silence_limit`` is in seconds: when an operation is given up and the server has said nothing
    on this connection for that long although it was asked, the connection is presumed dead.
    ``on_lost`` is called once, when the connection is of no more use and before the operations
    under way fail.
    """

    berdecoder = pureldap.LDAPBERDecoderContext_TopLevel(
        inherit=pureldap.LDAPBERDecoderContext_LDAPMessage(
            fallback=_RESPONSE_TYPES, inherit=_RESPONSE_TYPES
        )
    )

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
        self._operations: dict[int, _Operation] = {}
        self._last_id = 0
        self._lost = False
        self._cut: IDelayedCall | None = None
        self.heard_at = -math.inf
        """When the last message came, in the clock's seconds."""
        self.asked_at: float | None = None
        """Since when the server owes a message; None while it owes none."""
        self.answers = 0
        """How many operations were answered."""
        self.closed: Deferred[None] = Deferred()
        """Fires when the transport is gone."""

    @property
    def lost(self) -> bool:
        """Whether the connection is of no more use."""
        return self._lost

    def search(self, request: Any, limit: float) -> Deferred[SearchAnswer]:
        """Make the search. Fails with TimeoutError after ``limit`` seconds, `ConnectionDropped`
        when the connection ends before, `EntryTooLarge` for an answer too large to be taken."""
        return self._ask(request, _Search(), limit)

    def bind_as(self, dn: bytes, password: bytes, limit: float) -> Deferred[Result]:
        """Bind, with nothing else under way. Fails as `search` does, but with `ServerTrouble`
        for an answer too large. The result has no diagnostic text: some servers echo the request.

        A bind cannot be abandoned (RFC 4511, section 4.2.1), so giving one up ends the connection.
        """
        return self._ask(pureldap.LDAPBindRequest(dn=dn, auth=password), _Bind(), limit)

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
            for frame in self._frames.feed(data):
                self._received(frame)
                if self.lost:
                    return
        except NotLDAP as error:
            self._abort(LossKind.GARBAGE, f"it sent what is not LDAP: {error}")

    def connectionLost(self, reason: Failure | None = None) -> None:
        half = self._frames.in_a_message or any(o.begun for o in self._operations.values())
        how = "in the middle of an answer" if half else "before it answered"
        self._end(LossKind.CLOSED, f"it closed the connection {how}")
        if self._cut is not None and self._cut.active():
            self._cut.cancel()
        if not self.closed.called:
            self.closed.callback(None)

    def _ask(self, request: Any, operation: _Operation, limit: float) -> Deferred[Any]:
        if self._lost:
            return fail(ConnectionDropped("the connection was closed before it was used"))
        message = self._send(request)
        operation.done = Deferred(lambda _: self._give_up(message.id))
        self._operations[message.id] = operation
        if self.asked_at is None:
            self.asked_at = self._clock.seconds()
        self.transport.write(message.toWire())
        return operation.done.addTimeout(limit, self._clock)

    def _send(self, op: Any, controls: Any = None) -> Any:
        """The message for an operation, with an id of this connection's own."""
        self._last_id = self._last_id % _LARGEST_MESSAGE_ID + 1
        return pureldap.LDAPMessage(op, controls=controls, id=self._last_id)

    def _give_up(self, message_id: int) -> None:
        """The time of an operation is up, or nobody waits for it any more."""
        operation = self._operations.pop(message_id, None)
        if operation is None:
            return
        waited = 0.0 if self.asked_at is None else self._clock.seconds() - self.asked_at
        if waited >= self._silence_limit:
            self._abort(LossKind.SILENT, f"it said nothing for {waited:.0f} s")
        elif isinstance(operation, _Bind):
            self._abort(LossKind.OURS, "a bind was given up")
        else:
            self.send_noResponse(pureldap.LDAPAbandonRequest(id=message_id))
            if not self._operations:
                self.asked_at = None

    def _received(self, frame: Frame) -> None:
        """Take in a message; one that answers nothing we wait for is not even decoded."""
        operation = self._operations.get(frame.message_id)
        if operation is None and frame.message_id != 0:
            self._heard()
            return
        if frame.octets is None:
            if operation is not None:
                del self._operations[frame.message_id]
                self.answers += 1
            self._heard()
            if operation is not None:
                operation.done.errback(operation.too_large())
            return
        response = self._decoded(frame.octets)
        outcome = None if operation is None else operation.receive(response)
        if outcome is not None:
            del self._operations[frame.message_id]
            self.answers += 1
        self._heard()
        if operation is None:
            self._unsolicited(response)
        elif outcome is not None:
            operation.done.callback(outcome)

    def _decoded(self, octets: bytes) -> Any:
        try:
            message, _ = pureber.berDecodeObject(self.berdecoder, octets)
        except NotLDAP:
            raise
        except Exception as error:
            # Anything at all: ldaptor asserts, indexes and looks up on what the server sent.
            raise NotLDAP(f"{type(error).__name__} in a message of {len(octets)} octets") from None
        if not isinstance(message.value, pureldap.LDAPProtocolResponse):
            raise NotLDAP(f"{type(message.value).__name__}, which no server sends")
        return message.value

    def _heard(self) -> None:
        self.heard_at = self._clock.seconds()
        self.asked_at = self.heard_at if self._operations else None

    def _unsolicited(self, response: Any) -> None:
        """RFC 4511, section 4.4: of the notices that nobody asked for, one means anything to us."""
        if getattr(response, "responseName", None) == _NOTICE_OF_DISCONNECTION:
            # By its name only: the text may echo a bind that is under way.
            self._leave(LossKind.NOTICE, f"it is disconnecting: {_result(response).name}")

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
        self._on_lost(self, Loss(kind, reason, len(operations)))
        for operation in operations.values():
            if not operation.done.called:
                operation.done.errback(ConnectionDropped(reason))


@attrs.define(eq=False)
class _Operation:
    """Something asked and not yet answered."""

    done: Deferred[Any] = attrs.field(init=False)

    @property
    def begun(self) -> bool:
        """Whether a part of the answer has come."""
        return False

    def receive(self, response: Any) -> object | None:
        """Take one message of the answer; what the operation came to when it was the last."""
        raise NotImplementedError

    def too_large(self) -> Exception:
        """What an answer means that is too large to be decoded."""
        return ServerTrouble(f"an answer of more than {MESSAGE_LIMIT} octets")


@attrs.define(eq=False)
class _Search(_Operation):
    entries: list[Entry] = attrs.field(factory=list)

    @property
    def begun(self) -> bool:
        return bool(self.entries)

    def receive(self, response: Any) -> SearchAnswer | None:
        if isinstance(response, pureldap.LDAPSearchResultDone):
            return SearchAnswer(_result(response), tuple(self.entries))
        if isinstance(response, pureldap.LDAPSearchResultEntry):
            # A server may ignore the size limit.
            if len(self.entries) < ENTRIES_ASKED_FOR:
                self.entries.append(entry_from_result(response))
        elif not isinstance(response, (pureldap.LDAPSearchResultReference, _IntermediateResponse)):
            raise NotLDAP(f"{type(response).__name__} to a search")
        return None

    def too_large(self) -> Exception:
        return EntryTooLarge(f"an entry of more than {MESSAGE_LIMIT} octets")


@attrs.define(eq=False)
class _Bind(_Operation):
    def receive(self, response: Any) -> Result:
        if not isinstance(response, pureldap.LDAPBindResponse):
            raise NotLDAP(f"{type(response).__name__} to a bind")
        # The text is dropped here, before anyone can log it: it may echo the password.
        return Result(_result(response).code)


def _result(response: Any) -> Result:
    code, diagnostic = response.resultCode, response.errorMessage
    if not isinstance(code, int) or not isinstance(diagnostic, bytes):
        raise NotLDAP("a result without a result code")
    return Result(code, diagnostic)
