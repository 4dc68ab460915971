"""What counts as one client: an address of IPv4, and of IPv6 all that one site is given."""

from __future__ import annotations

import ipaddress

from qmailldap.ip import parse_ip

__all__ = ["network_of"]


def network_of(host: str) -> str:
    """The network that is counted for the address ``host``, as text.

    An IPv4 address stands for itself, an IPv4-mapped one for that of IPv4, any other of IPv6 for
    its /64. Empty where ``host`` is no address, as for UNIX sockets.
    """
    address = parse_ip(host)
    if address is None:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.IPv6Network((address, 64), strict=False))
