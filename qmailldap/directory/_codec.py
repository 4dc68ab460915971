"""The octets of a login's search: its request made up, the messages of its answer taken apart.

ldaptor does both as well, in about ten times the time of a processor: it makes an object of every
element. Here is only what each login needs (RFC 4511, sections 4.5 and 5.1), all else stays
ldaptor's. No I/O may enter here.
"""

from __future__ import annotations

import enum
from typing import Any, Final

from ldaptor.protocols import pureber, pureldap

from qmailldap.account import ACCOUNT_ATTRIBUTES, PASSWORD_ATTRIBUTE, Entry
from qmailldap.directory.errors import NotLDAP
from qmailldap.directory.results import SUCCESS, Result

__all__ = ["PASSED_OVER", "PassedOver", "RequestTemplate", "attribute_name", "decoded"]

_INTEGER = 0x02
_STRING = 0x04
_ENUMERATED = 0x0A
_SEQUENCE = 0x30
_SET = 0x31
_ENTRY = 0x64
_DONE = 0x65
_REFERENCE = 0x73
_INTERMEDIATE = 0x79

_LONG_FORM = 0x80
_LONGEST_LENGTH = 4
_LONGEST_CODE = 4

_SHORT_LENGTHS = tuple(bytes([length]) for length in range(_LONG_FORM))


class PassedOver(enum.Enum):
    """A message of an answer that says nothing of the login: nobody looks at what it holds."""

    PASSED_OVER = "a reference to another server, or an intermediate response"


PASSED_OVER: Final = PassedOver.PASSED_OVER

_WELL = Result(SUCCESS)
_WELL_OCTETS = b"\x0a\x01\x00\x04\x00\x04\x00"


class RequestTemplate:
    """The requests that differ in the value they ask for: encoded once, but for what differs.

    ``example`` is one of them, an LDAPSearchRequest of ldaptor, whose filter is an equality match
    or an "and" that ends with one.
    """

    def __init__(self, example: Any) -> None:
        match = example.filter
        self._terms: bytes | None = None
        if isinstance(match, pureldap.LDAPFilter_and):
            *terms, match = match
            self._terms = b"".join(bytes(term.toWire()) for term in terms)
        self._attribute = bytes(match.attributeDesc.toWire())
        self._begins = b"".join(
            bytes(element.toWire())
            for element in (
                pureber.BEROctetString(example.baseObject),
                pureber.BEREnumerated(example.scope),
                pureber.BEREnumerated(example.derefAliases),
                pureber.BERInteger(example.sizeLimit),
            )
        )
        self._types_only = bytes(pureber.BERBoolean(example.typesOnly).toWire())
        attributes = pureber.BERSequence(map(pureber.BEROctetString, example.attributes))
        self._ends = bytes(attributes.toWire())

    def encoded(self, value: bytes, time_limit: int, message_id: int) -> bytes:
        """The message with the request for ``value``; ``time_limit`` is in seconds."""
        filter = _element(b"\xa3", self._attribute + _element(b"\x04", value))
        if self._terms is not None:
            filter = _element(b"\xa0", self._terms + filter)
        parts = (self._begins, _integer(time_limit), self._types_only, filter, self._ends)
        return _element(b"\x30", _integer(message_id) + _element(b"\x63", b"".join(parts)))


def decoded(octets: bytes, at: int) -> Entry | Result | PassedOver | None:
    """What the message ``octets`` holds from ``at`` on, behind its id.

    None where it may be something that is not known here: it is for ldaptor to say, then. Raises
    `NotLDAP` where an element does not end with what holds it. The time it takes grows with the
    length of the message, whatever is in it.
    """
    try:
        kind, size, at = octets[at], octets[at + 1], at + 2
        if size >= _LONG_FORM:
            size, at = _long_length(octets, at, size)
        missing = at + size - len(octets)
        if missing:
            if missing > 0:
                raise NotLDAP("a message that ends within its answer")
            return None  # Controls, which nobody has asked for.
        if kind == _ENTRY:
            return _entry(octets, at)
        if kind == _DONE:
            return _WELL if octets[at:] == _WELL_OCTETS else _result(octets, at)
        if kind == _REFERENCE:
            return None if _strings(octets, at, len(octets)) is None else PASSED_OVER
        return PASSED_OVER if kind == _INTERMEDIATE else None
    except IndexError:
        raise NotLDAP("a message that ends within an element") from None


def attribute_name(description: bytes) -> str:
    """The name that an attribute has among those of an `Entry`: lower case, without options."""
    return description.decode("ascii", "backslashreplace").partition(";")[0].lower()


_KNOWN_NAMES = {
    spelling.encode("ascii"): name.lower()
    for name in (*ACCOUNT_ATTRIBUTES, PASSWORD_ATTRIBUTE)
    for spelling in (name, name.lower())
}
"""What `attribute_name` says of those that are asked for."""


def _entry(octets: bytes, at: int) -> Entry | None:
    """The SearchResultEntry whose contents begin at ``at`` and end the message.

    RFC 4511, section 4.5.2. Positions only grow: an element that reaches beyond the end of what
    holds it is found out where that end is compared with the end of the last element within.
    """
    end = len(octets)
    kind, size, at = octets[at], octets[at + 1], at + 2
    if kind != _STRING:
        return None
    if size >= _LONG_FORM:
        size, at = _long_length(octets, at, size)
    dn = octets[at : at + size].decode("utf-8", "surrogateescape")
    at += size
    kind, size, at = octets[at], octets[at + 1], at + 2
    if kind != _SEQUENCE:
        return None
    if size >= _LONG_FORM:
        size, at = _long_length(octets, at, size)
    if at + size < end:
        return None  # Something behind the attributes, of another version of LDAP.
    if at + size > end:
        raise NotLDAP("attributes that do not end with their entry")
    attributes: dict[str, tuple[bytes, ...]] = {}
    repeated: dict[str, list[bytes]] = {}
    while at < end:
        kind, size, at = octets[at], octets[at + 1], at + 2
        if kind != _SEQUENCE:
            return None
        if size >= _LONG_FORM:
            size, at = _long_length(octets, at, size)
        attribute_end = at + size
        kind, size, at = octets[at], octets[at + 1], at + 2
        if kind != _STRING:
            return None
        if size >= _LONG_FORM:
            size, at = _long_length(octets, at, size)
        description = octets[at : at + size]
        at += size
        kind, size, at = octets[at], octets[at + 1], at + 2
        if kind != _SET:
            return None
        if size >= _LONG_FORM:
            size, at = _long_length(octets, at, size)
        if at + size != attribute_end:
            raise NotLDAP("values that do not end with their attribute")
        size = octets[at + 1] if size else 0
        values: tuple[bytes, ...] | None
        if size < _LONG_FORM and at + 2 + size == attribute_end and octets[at] == _STRING:
            values = (octets[at + 2 : attribute_end],)  # A single one, as of nearly all.
        else:
            values = _strings(octets, at, attribute_end)
        if values is None:
            return None
        at = attribute_end
        name = _KNOWN_NAMES.get(description) or attribute_name(description)
        if name not in attributes:
            attributes[name] = values
        elif name in repeated:
            repeated[name] += values
        else:
            repeated[name] = [*attributes[name], *values]
    if at != end:
        raise NotLDAP("an attribute that does not end with its entry")
    for name, all_values in repeated.items():
        attributes[name] = tuple(all_values)
    return Entry(dn, attributes)


def _result(octets: bytes, at: int) -> Result | None:
    """The LDAPResult whose contents begin at ``at`` and end the message (section 4.1.9)."""
    end = len(octets)
    kind, size, at = octets[at], octets[at + 1], at + 2
    if kind != _ENUMERATED or not 1 <= size <= _LONGEST_CODE:
        return None
    code = int.from_bytes(octets[at : at + size], "big", signed=True)
    at += size
    for _ in ("matchedDN", "diagnosticMessage"):
        kind, size, at = octets[at], octets[at + 1], at + 2
        if kind != _STRING:
            return None
        if size >= _LONG_FORM:
            size, at = _long_length(octets, at, size)
        text_at, at = at, at + size
    if at < end:
        return None  # A referral, or something of another version of LDAP.
    if at > end:
        raise NotLDAP("a result that ends within its text")
    return Result(code, octets[text_at:])


def _strings(octets: bytes, at: int, end: int) -> tuple[bytes, ...] | None:
    """The values of the strings that are all there is from ``at`` to ``end``."""
    strings = []
    while at < end:
        kind, size, at = octets[at], octets[at + 1], at + 2
        if kind != _STRING:
            return None
        if size >= _LONG_FORM:
            size, at = _long_length(octets, at, size)
        strings.append(octets[at : at + size])
        at += size
    if at != end:
        raise NotLDAP("a value that does not end with what holds it")
    return tuple(strings)


def _long_length(octets: bytes, at: int, first: int) -> tuple[int, int]:
    """A length in the long form, whose ``first`` octet is before ``at``; where contents begin.

    Some servers, as Active Directory, send all lengths of elements in four octets.
    """
    start = at + first - _LONG_FORM
    if not at < start <= at + _LONGEST_LENGTH:
        raise NotLDAP("a length that is indefinite or absurd")
    if start > len(octets):
        raise NotLDAP("a message that ends within a length")
    return int.from_bytes(octets[at:start], "big"), start


def _element(tag: bytes, contents: bytes) -> bytes:
    return tag + _length(len(contents)) + contents


def _length(length: int) -> bytes:
    """A length in the shortest form."""
    if length < _LONG_FORM:
        return _SHORT_LENGTHS[length]
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([_LONG_FORM | len(octets)]) + octets


def _integer(number: int) -> bytes:
    """An INTEGER, which is not negative."""
    if number < 0x80:
        return b"\x02\x01" + _SHORT_LENGTHS[number]
    octets = number.to_bytes(number.bit_length() // 8 + 1, "big")
    return bytes([_INTEGER, len(octets)]) + octets
