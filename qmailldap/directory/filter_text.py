"""A filter as people write it (RFC 4515), for the log and for those who want to see it.

ldaptor's own ``asText`` fails where a value is octets, and a login always is.
"""

from __future__ import annotations

from typing import Any

from ldaptor.protocols import pureldap

__all__ = ["filter_text"]

_SIGNS = (
    (pureldap.LDAPFilter_equalityMatch, "="),
    (pureldap.LDAPFilter_greaterOrEqual, ">="),
    (pureldap.LDAPFilter_lessOrEqual, "<="),
    (pureldap.LDAPFilter_approxMatch, "~="),
)
_ESCAPED = frozenset(b'*()\\"')


def filter_text(filter: Any) -> str:
    """The text of a filter of ldaptor: printable ASCII without a double quote, the rest escaped."""
    if isinstance(filter, pureldap.LDAPFilterSet):
        sign = "&" if isinstance(filter, pureldap.LDAPFilter_and) else "|"
        return f"({sign}{''.join(map(filter_text, filter))})"
    if isinstance(filter, pureldap.LDAPFilter_not):
        return f"(!{filter_text(filter.value)})"
    if isinstance(filter, pureldap.LDAPFilter_present):
        return f"({_text(filter)}=*)"
    if isinstance(filter, pureldap.LDAPFilter_substrings):
        return f"({_text(filter.type)}={_pattern(filter.substrings)})"
    if isinstance(filter, pureldap.LDAPFilter_extensibleMatch):
        return f"({_rule(filter)}:={_text(filter.matchValue)})"
    for kind, sign in _SIGNS:
        if isinstance(filter, kind):
            return f"({_text(filter.attributeDesc)}{sign}{_text(filter.assertionValue)})"
    raise TypeError(f"{type(filter).__name__} is no filter")


def _pattern(substrings: Any) -> str:
    pattern = "*".join(map(_text, substrings))
    if not isinstance(substrings[0], pureldap.LDAPFilter_substrings_initial):
        pattern = "*" + pattern
    if not isinstance(substrings[-1], pureldap.LDAPFilter_substrings_final):
        pattern += "*"
    return pattern


def _rule(filter: Any) -> str:
    attribute = "" if filter.type is None else _text(filter.type)
    dn = ":dn" if filter.dnAttributes is not None and filter.dnAttributes.value else ""
    rule = "" if filter.matchingRule is None else f":{_text(filter.matchingRule)}"
    return attribute + dn + rule


def _text(string: Any) -> str:
    """A string of LDAP, or what ldaptor takes for one; its value is text or octets."""
    value = getattr(string, "value", string)
    octets = value.encode("utf-8") if isinstance(value, str) else value
    return "".join(
        chr(octet) if 32 <= octet < 127 and octet not in _ESCAPED else f"\\{octet:02x}"
        for octet in octets
    )
