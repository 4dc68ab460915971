"""What counts as one client: an address of IPv4, and of IPv6 all that one site is given."""

from __future__ import annotations

import ipaddress
import socket

from qmailldap.ip import parse_ip

__all__ = ["network_of"]

_MAPPED = bytes(10) + b"\xff\xff"
"""How an address of IPv6 begins that stands for one of IPv4 (RFC 4291, section 2.5.5.2)."""


def network_of(host: str) -> str:
    """The network that is counted for the address ``host``, as text.

    An IPv4 address stands for itself, an IPv4-mapped one for that of IPv4, any other of IPv6 for
    its /64. Empty where ``host`` is no address, as for UNIX sockets.
    """
    # It is asked for each connection and each login, and inet_pton(3) is many times as quick as
    # the module ipaddress. It takes IPv4 in one spelling only.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        octets = socket.inet_pton(family, host)
    except (OSError, ValueError):
        return _as_spelled_otherwise(host)
    if family == socket.AF_INET:
        return host
    if octets.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, octets[12:])
    return socket.inet_ntop(family, octets[:8] + bytes(8)) + "/64"


def _as_spelled_otherwise(host: str) -> str:
    """The same for any text; above all for one with a scope."""
    address = parse_ip(host)
    if address is None:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.IPv6Network((address, 64), strict=False))
