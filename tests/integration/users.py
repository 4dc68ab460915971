"""Entries of the directory as LDIF text, and the values that their passwords are stored as."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence

__all__ = [
    "OWNER",
    "SUFFIX",
    "Owner",
    "entry",
    "md5_value",
    "qmail_user",
    "ssha_value",
    "user_dn",
]

SUFFIX = "dc=example,dc=org"

Value = str | bytes | int
Attributes = Mapping[str, Value | Sequence[Value] | None]

Owner = tuple[int, int]
"""A user id and a group id."""

OWNER: Owner = (os.getuid() or 20125, os.getgid() or 20126)
"""Whom a mailbox belongs to where nothing else is said.

Only root can give files to somebody else, and ids below 100 are not accepted, so root gives them to
ids that no system uses.
"""


def entry(dn: str, attributes: Attributes) -> str:
    """One entry as LDIF (RFC 2849). A value of None leaves the attribute out."""
    lines = [_line("dn", dn)]
    for name, values in attributes.items():
        if values is None:
            continue
        if isinstance(values, str | bytes | int):
            values = [values]
        lines.extend(_line(name, value) for value in values)
    return "\n".join(lines) + "\n\n"


def user_dn(uid: str) -> str:
    """The DN of a user; every octet that could mean something is escaped (RFC 4514)."""
    escaped = "".join(
        chr(octet) if chr(octet).isalnum() and octet < 128 else f"\\{octet:02x}"
        for octet in uid.encode()
    )
    return f"uid={escaped},{SUFFIX}"


def qmail_user(
    uid: str,
    password_value: str | Sequence[str] | None,
    attributes: Attributes,
    *,
    dn: str = "",
    owner: Owner = OWNER,
) -> str:
    """A user as qmail-ldap sites have them; ``attributes`` add to these or replace them."""
    usual: dict[str, Value | Sequence[Value] | None] = {
        "objectClass": ["inetOrgPerson", "qmailUser"],
        "cn": uid,
        "sn": uid,
        "uid": uid,
        "mail": f"{hashlib.md5(uid.encode()).hexdigest()[:12]}@example.org",
        "userPassword": password_value,
        "qmailUID": owner[0],
        "qmailGID": owner[1],
        "accountStatus": "active",
        "deliveryMode": "nolocal",
    }
    return entry(dn or user_dn(uid), {**usual, **attributes})


def ssha_value(password: str) -> str:
    """An {SSHA} value: what most sites use."""
    salt = os.urandom(8)
    digest = hashlib.sha1(password.encode() + salt).digest()
    return "{SSHA}" + base64.b64encode(digest + salt).decode()


def md5_value(password: str) -> str:
    """An {MD5} value: what old sites still have."""
    return "{MD5}" + base64.b64encode(hashlib.md5(password.encode()).digest()).decode()


def _line(name: str, value: Value) -> str:
    raw = value if isinstance(value, bytes) else str(value).encode()
    # Always base64, which is right for any value; LDIF's rules for plain ones are many.
    return f"{name}:: {base64.b64encode(raw).decode()}"
