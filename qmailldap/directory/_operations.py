"""What may be asked on a connection, and how the messages of each answer are taken together.

No I/O may enter here.
"""

from __future__ import annotations

from typing import Any

import attrs
from ldaptor.protocols import pureber, pureldap
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from qmailldap.account import Entry
from qmailldap.directory._codec import PASSED_OVER, PassedOver, decoded
from qmailldap.directory._frames import MESSAGE_LIMIT
from qmailldap.directory.errors import EntryTooLarge, NotLDAP, ServerTrouble
from qmailldap.directory.results import Result
from qmailldap.directory.search import ENTRIES_ASKED_FOR, SearchAnswer, entry_from_result

__all__ = [
    "BERDECODER",
    "BindOperation",
    "Operation",
    "SearchOperation",
    "StartTLSOperation",
    "response_of",
    "result_of",
]

_START_TLS = pureldap.LDAPStartTLSRequest.oid


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

BERDECODER = pureldap.LDAPBERDecoderContext_TopLevel(
    inherit=pureldap.LDAPBERDecoderContext_LDAPMessage(
        fallback=_RESPONSE_TYPES, inherit=_RESPONSE_TYPES
    )
)
"""ldaptor's decoder for the messages of a server; raises `NotLDAP` and much else."""


@attrs.define(eq=False)
class Operation:
    """Something asked and not yet answered."""

    done: Deferred[Any] = attrs.field(init=False)
    time_is_up: IDelayedCall = attrs.field(init=False)
    """The timer that gives it up."""

    can_be_abandoned = False
    """Whether the server may be told that nobody waits any more (RFC 4511, section 4.11)."""

    @property
    def begun(self) -> bool:
        """Whether a part of the answer has come."""
        return False

    def receive(self, octets: bytes, at: int) -> object | None:
        """Take one message of the answer; what the operation came to when it was the last.

        The response in it begins at ``at``, behind the id. Raises `NotLDAP`.
        """
        raise NotImplementedError

    def too_large(self) -> Exception:
        """What an answer means that is too large to be decoded."""
        return ServerTrouble(f"an answer of more than {MESSAGE_LIMIT} octets")


@attrs.define(eq=False)
class SearchOperation(Operation):
    entries: list[Entry] = attrs.field(factory=list)

    can_be_abandoned = True

    @property
    def begun(self) -> bool:
        return bool(self.entries)

    def receive(self, octets: bytes, at: int) -> SearchAnswer | None:
        response = decoded(octets, at)
        if response is None:
            response = _plain(response_of(octets))
        if isinstance(response, Result):
            return SearchAnswer(response, tuple(self.entries))
        # A server may ignore the size limit.
        if isinstance(response, Entry) and len(self.entries) < ENTRIES_ASKED_FOR:
            self.entries.append(response)
        return None

    def too_large(self) -> Exception:
        return EntryTooLarge(f"an entry of more than {MESSAGE_LIMIT} octets")


@attrs.define(eq=False)
class BindOperation(Operation):
    def receive(self, octets: bytes, at: int) -> Result:
        response = response_of(octets)
        if not isinstance(response, pureldap.LDAPBindResponse):
            raise NotLDAP(f"{type(response).__name__} to a bind")
        # The text is dropped here, before anyone can log it: it may echo the password.
        return Result(result_of(response).code)


@attrs.define(eq=False)
class StartTLSOperation(Operation):
    def receive(self, octets: bytes, at: int) -> Result:
        response = response_of(octets)
        if not isinstance(response, pureldap.LDAPExtendedResponse):
            raise NotLDAP(f"{type(response).__name__} to StartTLS")
        # The name may be left out (RFC 4511, section 4.14.2).
        if response.responseName not in (None, b"", _START_TLS):
            raise NotLDAP("the answer of another operation to StartTLS")
        return result_of(response)


def response_of(octets: bytes) -> Any:
    """The response in a message, as ldaptor has it. Raises `NotLDAP` where there is none."""
    try:
        message, _ = pureber.berDecodeObject(BERDECODER, octets)
    except NotLDAP:
        raise
    except Exception as error:
        # Anything at all: ldaptor asserts, indexes and looks up on what the server sent.
        raise NotLDAP(f"{type(error).__name__} in a message of {len(octets)} octets") from None
    if not isinstance(message.value, pureldap.LDAPProtocolResponse):
        raise NotLDAP(f"{type(message.value).__name__}, which no server sends")
    return message.value


def _plain(response: Any) -> Entry | Result | PassedOver:
    """What ldaptor has decoded, as `decoded` would give it."""
    if isinstance(response, pureldap.LDAPSearchResultDone):
        return result_of(response)
    if isinstance(response, pureldap.LDAPSearchResultEntry):
        return entry_from_result(response)
    if isinstance(response, (pureldap.LDAPSearchResultReference, _IntermediateResponse)):
        return PASSED_OVER
    raise NotLDAP(f"{type(response).__name__} to a search")


def result_of(response: Any) -> Result:
    """The result that a response holds. Raises `NotLDAP` where it holds none."""
    code, diagnostic = response.resultCode, response.errorMessage
    if not isinstance(code, int) or not isinstance(diagnostic, bytes):
        raise NotLDAP("a result without a result code")
    return Result(code, diagnostic)
