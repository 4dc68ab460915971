"""How much one POP3 session may ask for before it is answered or cut off."""

from __future__ import annotations

import attrs

__all__ = ["Limits"]


@attrs.frozen(kw_only=True)
class Limits:
    """The limits of one session; those that a client can meet are in the administrator's guide."""

    idle: float = 20 * 60.0
    """seconds without a command, or without the client reading on, until the connection is closed
    (reference.md; RFC 1939 wants 10 minutes at least)"""

    command: int = 512
    """octets of a command line. RFC 2449 lets a server stop at 255; the original took a login and a
    password of 512 octets together."""

    input: int = 64 * 1024
    """octets of pipelined commands held; beyond, the connection is not read until some are done"""

    turn: int = 64
    """commands answered in one go before other sessions have their turn"""

    failed_logins: int = 3
    """refused logins until the connection is closed"""

    chunk: int = 64 * 1024
    """octets of a listing put together at a time"""
