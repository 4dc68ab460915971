"""The one search of a login as plain data: the filter, the request, and an entry of its answer.

No I/O may enter here. A login gets into a filter as the value of an equality assertion, which LDAP
sends as counted octets; it is never part of a text that is parsed.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import attrs
from ldaptor.protocols import pureldap

from qmailldap.account import ACCOUNT_ATTRIBUTES, PASSWORD_ATTRIBUTE, Entry
from qmailldap.control import Control
from qmailldap.directory._codec import RequestTemplate, attribute_name
from qmailldap.directory.errors import NotLDAP
from qmailldap.directory.results import Result

__all__ = [
    "ENTRIES_ASKED_FOR",
    "LoginRequest",
    "Search",
    "SearchAnswer",
    "entry_from_result",
    "equals",
    "load_filters",
    "parse_filter",
    "search_filter",
]

ENTRIES_ASKED_FOR = 2
"""The size limit of the search: a login is one entry, and a second tells that it is not."""

_NO_ATTRIBUTES = b"1.1"
"""RFC 4511, section 4.5.1.8."""

_BLANKS = " \t"
_BLANKS_BETWEEN_TERMS = re.compile(r"(?<=\))[ \t]+(?=[()])|(?<=[&|!])[ \t]+(?=\()")
_ESCAPED_OCTETS = re.compile(r"(?:\\[89A-Fa-f][0-9A-Fa-f])+")

_ATTRIBUTE_VALUE = re.compile("[A-Za-z0-9-]+")
"""Values that a filter holds as they are, as the name of an object class."""

_ATTRIBUTE_TYPE = r"(?:[A-Za-z][A-Za-z0-9-]*|(?:[Oo][Ii][Dd]\.)?[0-9]+(?:\.[0-9]+)+)"
_ESCAPE = r'\\(?:[ "#+,;<=>\\]|[0-9A-Fa-f]{2})'
_VALUE = rf'(?:(?:[^\\",;+\0]|{_ESCAPE})*|[ \t]*"(?:[^\\"\0]|{_ESCAPE})*"[ \t]*)'
_TYPE_AND_VALUE = rf"[ \t]*{_ATTRIBUTE_TYPE}[ \t]*={_VALUE}"
_DISTINGUISHED_NAME = re.compile(rf"{_TYPE_AND_VALUE}(?:[,;+]{_TYPE_AND_VALUE})*")
"""RFC 4514, section 3, and what RFC 2253, section 4, has servers take from older writers: blanks,
quoted values, semicolons and ``OID.``."""


@attrs.frozen
class SearchAnswer:
    """The entries that came, at most `ENTRIES_ASKED_FOR`, and how the search ended."""

    result: Result
    entries: tuple[Entry, ...] = ()


class Search:
    """The search that the control files describe.

    Raises `ControlError` when ldapobjectclass or ldapbasedn cannot be parsed.
    """

    def __init__(self, control: Control) -> None:
        self.base = _base_dn(control)
        self.base_octets = self.base.encode("utf-8")
        self._filter = search_filter(control)
        self._attributes = [name.encode("ascii") for name in attributes_asked_for(control)]
        self._template = RequestTemplate(self.request(self.login_filter(b""), 1.0))

    def filter(self, *terms: Any) -> Any:
        """The filter of the records for which one of ``terms`` holds."""
        return self._filter(terms[0] if len(terms) == 1 else pureldap.LDAPFilter_or(terms))

    def request(self, filter: Any, limit: float, more: Iterable[str] = ()) -> Any:
        """The LDAPSearchRequest for what a filter matches; the server may take ``limit`` seconds.

        ``more`` are attributes to ask for besides those that a login needs.
        """
        return pureldap.LDAPSearchRequest(
            baseObject=self.base_octets,
            scope=pureldap.LDAP_SCOPE_wholeSubtree,
            sizeLimit=ENTRIES_ASKED_FOR,
            timeLimit=_time_limit(limit),
            filter=filter,
            attributes=[*self._attributes, *(name.encode("ascii") for name in more)],
        )

    def login_request(self, login: bytes, limit: float) -> LoginRequest:
        """The same for the records whose uid is ``login``, at a small part of the cost."""
        return LoginRequest(self, self._template, login, _time_limit(limit))

    def login_filter(self, login: bytes) -> Any:
        """The filter of the records whose uid is ``login``."""
        return self.filter(equals("uid", login))

    def check_request(self, limit: float) -> Any:
        """A search of the base alone, and for none of its attributes: as cheap as one can be."""
        return pureldap.LDAPSearchRequest(
            baseObject=self.base_octets,
            scope=pureldap.LDAP_SCOPE_baseObject,
            sizeLimit=1,
            timeLimit=_time_limit(limit),
            filter=pureldap.LDAPFilterMatchAll,
            attributes=[_NO_ATTRIBUTES],
        )

    def sample_request(self, limit: float) -> Any:
        """A search for one of all the entries that a login may find, and none of its attributes."""
        return pureldap.LDAPSearchRequest(
            baseObject=self.base_octets,
            scope=pureldap.LDAP_SCOPE_wholeSubtree,
            sizeLimit=1,
            timeLimit=_time_limit(limit),
            filter=self.filter(pureldap.LDAPFilterMatchAll),
            attributes=[_NO_ATTRIBUTES],
        )


@attrs.define(eq=False)
class LoginRequest:
    """The request for a login; of the LDAPSearchRequest that it stands for, what we look at."""

    _search: Search
    _template: RequestTemplate
    _login: bytes
    _time_limit: int

    sizeLimit = ENTRIES_ASKED_FOR

    @property
    def baseObject(self) -> bytes:
        return self._search.base_octets

    @property
    def filter(self) -> Any:
        return self._search.login_filter(self._login)

    def encoded(self, message_id: int) -> bytes:
        """The message of that id with this request."""
        return self._template.encoded(self._login, self._time_limit, message_id)


def attributes_asked_for(control: Control) -> tuple[str, ...]:
    """The names of the attributes that a login needs; the hash only where it proves passwords."""
    return ACCOUNT_ATTRIBUTES if control.ldaprebind else (*ACCOUNT_ATTRIBUTES, PASSWORD_ATTRIBUTE)


def search_filter(control: Control) -> Callable[[Any], Any]:
    """A function from a term to the filter, the term itself or ``(&(objectClass=X)TERM)``.

    X is ldapobjectclass and may be more than one term, as in ``qmailUser)(accountStatus=active``;
    blanks between terms count for nothing.
    Raises `ControlError` when it does not parse.
    """
    if control.ldapobjectclass is None:
        return lambda term: term
    terms = _static_terms(control, control.ldapobjectclass)
    return lambda term: pureldap.LDAPFilter_and([*terms, term])


def equals(attribute: str, value: bytes) -> Any:
    """The term ``(attribute=value)``, whatever octets the value holds."""
    return pureldap.LDAPFilter_equalityMatch(
        attributeDesc=pureldap.LDAPAttributeDescription(attribute.encode("ascii")),
        assertionValue=pureldap.LDAPAssertionValue(value),
    )


def load_filters() -> Any:
    """The module that parses filters, which a server loads at its start.

    Later it may have no right to read it; and a command need not wait for it: that takes longer
    than a login.
    """
    with warnings.catch_warnings():
        # ldaptor 21.2 uses names that pyparsing 3.3 deprecates, on import and when it parses.
        warnings.simplefilter("ignore", DeprecationWarning)
        from ldaptor import ldapfilter
    return ldapfilter


def parse_filter(text: str) -> Any:
    """The filter of the text, as in RFC 4515. Raises ``ValueError`` where it is none."""
    ldapfilter = load_filters()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            # ldaptor takes an escaped octet for the character of that number: right for ASCII only.
            readable = _ESCAPED_OCTETS.sub(_unescaped, text.strip(_BLANKS))
            # Parentheses in a value are escaped. libldap takes blanks here, ldaptor does not.
            parsed = ldapfilter.parseFilter(_BLANKS_BETWEEN_TERMS.sub("", readable))
            # Encodes it once, so that what can only fail then fails now.
            parsed.toWire()
        except (ldapfilter.InvalidLDAPFilter, ValueError, RecursionError) as error:
            raise ValueError(str(error)) from None
    return parsed


def entry_from_result(message: Any) -> Entry:
    """The entry of an LDAPSearchResultEntry.

    Names are compared without case and without options (RFC 4512, section 2.5): the values of
    ``mailHost`` and ``mailHost;lang-en`` are all values of mailHost. The DN is text that encodes
    with ``surrogateescape`` to the octets that came. Raises `NotLDAP` where a value is not octets.
    """
    attributes: dict[str, tuple[bytes, ...]] = {}
    for description, values in message.attributes:
        name = attribute_name(_octets(description))
        found = tuple(_octets(value) for value in values)
        attributes[name] = attributes.get(name, ()) + found
    dn = _octets(message.objectName).decode("utf-8", "surrogateescape")
    return Entry(dn, attributes)


def _static_terms(control: Control, text: str) -> list[Any]:
    if _ATTRIBUTE_VALUE.fullmatch(text):
        return [equals("objectClass", text.encode("ascii"))]
    try:
        return list(parse_filter(f"(&(objectClass={text.strip(_BLANKS)}))"))
    except ValueError as error:
        raise control.error(
            "ldapobjectclass", f"{text!r} does not make a filter (&(objectClass=…)): {error}"
        ) from None


def _time_limit(limit: float) -> int:
    """The time limit that the server is told: whole seconds, and 0 would be none."""
    return max(1, math.ceil(limit))


def _unescaped(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("\\", "")).decode("utf-8")


def _base_dn(control: Control) -> str:
    text = control.ldapbasedn
    if text and not _DISTINGUISHED_NAME.fullmatch(text):
        raise control.error("ldapbasedn", f"{text!r} is not a distinguished name")
    return text


def _octets(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise NotLDAP("an entry with a value that is not octets")
    return value
