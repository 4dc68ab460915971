"""Which mail is kept here, and which by another member of the cluster; who the members are."""

from __future__ import annotations

import functools
import ipaddress

import attrs
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress

from qmailldap.control import POP3_PORT, Control, ServerAddress
from qmailldap.ip import IPAddress, parse_ip

__all__ = ["Cluster", "End", "Member"]

End = tuple[IPAddress, int]
"""One end of a TCP connection: an address and a port."""

_ADDRESSES_KEPT = 1024
"""Addresses of clients for which it is kept whether they are trusted: it is asked at every line."""

_WILDCARDS = {4: ipaddress.IPv4Address("0.0.0.0"), 6: ipaddress.IPv6Address("::")}


@attrs.frozen
class Member:
    """A member of the cluster, and where it is reached.

    ``mail_host`` is its name in the directory, in lower case; ``host`` is that or what a route has
    instead, a host name or an address.
    """

    mail_host: str
    host: str
    port: int

    def __str__(self) -> str:
        if (self.host, self.port) == (self.mail_host, POP3_PORT):
            return self.mail_host
        return f"{self.mail_host} at {ServerAddress(self.host, self.port)}"


class Cluster:
    """The cluster as the control files say: ldapcluster, me, ldapclusterhosts, pop3routes,
    pop3trusted.

    ``listening`` is where this server listens, shared by all that are made for it.
    """

    def __init__(self, control: Control, listening: set[End] | None = None) -> None:
        self._forwards = control.ldapcluster
        names = (control.me, *control.ldapclusterhosts)
        self._own_names = frozenset(name.lower() for name in names if name is not None)
        self._routes = {route.pattern: route for route in control.pop3routes}
        self._longest_pattern = max((len(pattern) for pattern in self._routes), default=0)
        self._trusted = control.pop3trusted
        self._trusts = functools.lru_cache(maxsize=_ADDRESSES_KEPT)(self._finds_trusted)
        self._listening: set[End] = set() if listening is None else listening

    @property
    def own_names(self) -> str:
        """What this host is called, for people: me and ldapclusterhosts."""
        return ", ".join(sorted(self._own_names))

    def keeps(self, mail_host: str) -> bool:
        """Whether this host keeps the mail of a record with that mailHost.

        Source: reference.md, "The decision", step 4.
        """
        return not self._forwards or mail_host.lower() in self._own_names

    def member(self, mail_host: str) -> Member:
        """The member of that name in the directory, which is compared without case.

        The route of the name itself is before that of its longest end, and that before the route of
        every name.
        """
        name = mail_host.lower()
        route = self._routes.get(name)
        dot = name.find(".", max(0, len(name) - self._longest_pattern))
        while route is None and dot >= 0:
            route = self._routes.get(name[dot:])
            dot = name.find(".", dot + 1)
        route = route or self._routes.get("")
        if route is None:
            return Member(name, name, POP3_PORT)
        return Member(name, route.host or name, route.port)

    def trusts(self, host: str) -> bool:
        """Whether what a peer at the address ``host`` says of its client is believed."""
        return self._trusts(host)

    def _finds_trusted(self, host: str) -> bool:
        address = parse_ip(host)
        return address is not None and any(address in network for network in self._trusted)

    def listens_on(self, address: IAddress) -> None:
        """This server listens there; to be called for each port, once it is bound."""
        end = _end(address)
        if end is not None:
            self._listening.add(end)

    def is_ourselves(self, near: IAddress, far: IAddress) -> bool:
        """Whether a connection from ``near`` to ``far`` leads to a port that we listen on."""
        near_end, far_end = _end(near), _end(far)
        if near_end is None or far_end is None:
            return False
        near_host, (far_host, port) = near_end[0], far_end
        if far_host.is_unspecified:
            # The kernel leads such a connection back to its own near end.
            far_host = near_host
        if (far_host, port) in self._listening:
            return True
        here = far_host == near_host or (far_host.is_loopback and near_host.is_loopback)
        # A socket bound to :: is given IPv4 connections, too.
        wildcards = {_WILDCARDS[far_host.version], _WILDCARDS[6]}
        return here and any((wildcard, port) in self._listening for wildcard in wildcards)


def _end(address: IAddress) -> End | None:
    """One end of a TCP connection; None for what is no such end."""
    if not isinstance(address, IPv4Address | IPv6Address):
        return None
    host = parse_ip(address.host)
    return None if host is None else (host, address.port)
