"""Addresses of hosts, as texts and as what they can be compared by."""

from __future__ import annotations

import functools
import ipaddress

__all__ = ["IPAddress", "parse_ip"]

_KEPT = 1024
"""Texts whose address is kept: a client's is asked for several times, and takes longer to parse
than a line to answer."""

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@functools.lru_cache(maxsize=_KEPT)
def parse_ip(text: str) -> IPAddress | None:
    """The address, without a scope, and IPv4 where it is IPv4-mapped; None for any other text."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    return address.ipv4_mapped or ipaddress.IPv6Address(int(address))
