"""XCLIENT: what another member says of the client that it speaks for.

As Dovecot's login processes have it: words of ``KEY=value``, in any case of letters; those that are
not known here are passed over, as is a name of a session that could not stand in a log.
"""

from __future__ import annotations

import ipaddress
import re

from qmailldap.client import Introduction
from qmailldap.pop3.syntax import CommandRefused

__all__ = ["parse_xclient"]

_SESSION = re.compile(rb"[A-Za-z0-9@._+=/:~#-]{1,64}")
_HIGHEST_PORT = 65535
_HIGHEST_TTL = 255


def parse_xclient(words: tuple[bytes, ...]) -> Introduction:
    """Read the arguments of the command. Raises `CommandRefused` when a value is malformed."""
    values = {}
    for word in words:
        key, _, value = word.partition(b"=")
        values[key.upper()] = value
    host, session = values.get(b"ADDR"), values.get(b"SESSION", b"")
    return Introduction(
        host=None if host is None else _address(host),
        port=_number(values.get(b"PORT"), _HIGHEST_PORT),
        session=session.decode("ascii") if _SESSION.fullmatch(session) else None,
        ttl=_number(values.get(b"TTL"), _HIGHEST_TTL),
    )


def _address(value: bytes) -> str:
    try:
        return str(ipaddress.ip_address(value.decode("ascii")))
    except ValueError:
        raise CommandRefused(b"syntax error") from None


def _number(value: bytes | None, highest: int) -> int | None:
    if value is None:
        return None
    if not value.isdigit() or len(value) > 5 or int(value) > highest:
        raise CommandRefused(b"syntax error")
    return int(value)
