"""What the text of a control file means: functions from text to values, without any I/O.

Each takes a line, or the lines of a list, and somebody to warn; it raises a ValueError whose
arguments say what is wrong with the text: one, or one for each of the lines.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

import attrs

from qmailldap.account import path_is_allowed
from qmailldap.control.facts import (
    LDAP_PORT,
    LDAPS_PORT,
    POP3_PORT,
    POP3Limits,
    Route,
    ServerAddress,
)
from qmailldap.ip import parse_ip

__all__ = [
    "DOT_MODES",
    "Lines",
    "Network",
    "Warn",
    "delivery",
    "dot_mode",
    "limits",
    "message_store",
    "networks",
    "routes",
    "servers",
]

DOT_MODES = ("both", "dotonly", "ldaponly", "ldapwithprog", "none")

# Twisted's resolver knows no other names; "--" in third place is IDNA's, and only as in "xn--".
_LABEL = r"(?!(?!xn)..--)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# A last label of digits only is that of an address, or of a port in the wrong place.
_HOST_NAME = re.compile(
    rf"(?=.{{1,253}}\Z)(?!(?:.*\.)?[0-9]+\.?\Z){_LABEL}(?:\.{_LABEL})*\.?\Z", re.IGNORECASE
)
# Wider than a host name: a route leads also to where a mailHost that no resolver takes is kept.
_ROUTED = re.compile(r"(?:\.?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?)?\Z")
_CIDR = re.compile(r"[0-9a-fA-F.:]+(?:/[0-9]{1,3})?\Z")

_MOST_PROBLEMS = 20
"""So many lines of one list are named; it may be another file altogether."""

T = TypeVar("T")

Lines = tuple[str, ...]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Warn = Callable[[str], None]


def servers(lines: Lines, warn: Warn) -> tuple[ServerAddress, ...]:
    """Every word is a server of the directory, and there must be one."""
    found = _each(_server_address, (word for line in lines for word in line.split()))
    if not found:
        raise ValueError("names no directory server, and one is required")
    return found


def message_store(line: str, warn: Warn) -> str:
    """An absolute path, which comes back with one slash at its end."""
    if not line.startswith("/"):
        raise ValueError(f"{line!r} is not an absolute path")
    return line.rstrip("/") + "/"


def dot_mode(line: str, warn: Warn) -> str:
    """One of `DOT_MODES`, in any case of letters."""
    mode = line.lower()
    if mode not in DOT_MODES:
        raise ValueError(f"{mode!r} is none of {', '.join(DOT_MODES)}")
    return mode


def delivery(line: str, warn: Warn) -> str | None:
    """The path of a mailbox; None for a delivery instruction, which names none."""
    if line[0] in "|&#":
        # Right for deliveries, and no business of ours.
        warn(f"{line!r} names no mailbox and is not used")
        return None
    if not path_is_allowed(line):
        raise ValueError(f"{line!r} cannot be the path of a mailbox")
    return line


def routes(lines: Lines, warn: Warn) -> tuple[Route, ...]:
    """``mailhost:`` and what `_host_and_port` reads, the host of which may be left out."""
    patterns: set[str] = set()

    def route(line: str) -> Route:
        mail_host, colon, rest = line.partition(":")
        pattern = mail_host.lower()
        if not colon or not _ROUTED.match(pattern):
            raise ValueError(f"{line!r} is not mailhost:address:port")
        if pattern in patterns:
            raise ValueError(f"{line!r} is a second route of {pattern!r}")
        patterns.add(pattern)
        try:
            return Route(pattern, *_host_and_port(rest, POP3_PORT, hosts_optional=True))
        except ValueError as error:
            raise ValueError(f"{line!r}: {rest!r} {error}") from None

    return _each(route, lines)


def networks(lines: Lines, warn: Warn) -> tuple[Network, ...]:
    """Each line is an address or a network in CIDR notation."""
    return _each(lambda line: _network(line, warn), lines)


def _each(parse: Callable[[str], T], texts: Iterable[str]) -> tuple[T, ...]:
    """What all of them mean, or a ValueError with what is wrong with each that means nothing."""
    found: list[T] = []
    problems: list[str] = []
    for text in texts:
        try:
            found.append(parse(text))
        except ValueError as error:
            problems.append(str(error))
    more = len(problems) - _MOST_PROBLEMS
    if more > 0:
        problems[_MOST_PROBLEMS:] = [f"and {more} more that cannot be used"]
    if problems:
        raise ValueError(*problems)
    return tuple(found)


def limits(lines: Lines, warn: Warn) -> POP3Limits | None:
    """Each line is ``name:number``, the name of a field of `POP3Limits` with hyphens.

    None where there is no line.
    """
    fields = {field.name: field for field in attrs.fields(POP3Limits)}

    def limit(line: str) -> tuple[str, int]:
        name, colon, number = (part.strip(" \t") for part in line.partition(":"))
        field = fields.get(name.lower().replace("-", "_"))
        if not colon or not re.fullmatch("[0-9]{1,18}", number):
            raise ValueError(f"{line!r} is not name:number")
        if field is None:
            known = ", ".join(each.replace("_", "-") for each in fields)
            raise ValueError(f"{line!r}: {name!r} is none of {known}")
        least, most = field.metadata["least"], field.metadata["most"]
        if not least <= int(number) <= most:
            raise ValueError(f"{line!r} is out of range: {least} to {most}")
        if field.name in set_already:
            raise ValueError(f"{line!r} is a second line of {name}")
        set_already.add(field.name)
        return field.name, int(number)

    set_already: set[str] = set()
    changed = dict(_each(limit, lines))
    return POP3Limits(**changed) if changed else None


def _server_address(word: str) -> ServerAddress:
    """What `_host_and_port` reads, or a v6 address without brackets; ldap:// or ldaps:// before."""
    scheme, separator, rest = word.partition("://")
    tls = scheme.lower() == "ldaps"
    if separator and scheme.lower() not in ("ldap", "ldaps"):
        raise ValueError(f"{word!r} is no server of a directory: write host, host:port, ldaps://…")
    # Programs that make URLs end them so.
    text = rest.removesuffix("/") if separator else word
    port = LDAPS_PORT if tls else LDAP_PORT
    if text.count(":") > 1 and parse_ip(text) is not None:
        return ServerAddress(text, port, tls)
    try:
        return ServerAddress(*_host_and_port(text, port), tls)
    except ValueError as error:
        raise ValueError(f"{word!r} {error}") from None


def _host_and_port(text: str, default: int, *, hosts_optional: bool = False) -> tuple[str, int]:
    """``host``, ``host:port``, ``address``, ``[v6 address]`` or ``[v6 address]:port``.

    Raises a ValueError that says of ``text`` what is wrong with it.
    """
    bad = ValueError("is neither a host name or address nor host:port")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or parse_ip(host) is None:
            raise bad
        port = rest[1:] if rest else str(default)
    else:
        host, colon, port = text.partition(":")
        port = port if colon else str(default)
        if not (
            _HOST_NAME.match(host) or parse_ip(host) is not None or (hosts_optional and not host)
        ):
            raise bad
    if not re.fullmatch("[0-9]+", port):
        raise bad
    number = int(port.lstrip("0")[:6] or "0")
    if not 1 <= number <= 65535:
        raise ValueError("has a port that is out of range: 1 to 65535")
    return host, number


def _network(line: str, warn: Warn) -> Network:
    # Without the pattern, netmasks and scope ids would be taken, which promise what is not kept.
    try:
        network = ipaddress.ip_network(line, strict=False) if _CIDR.match(line) else None
    except ValueError:
        network = None
    if network is None:
        raise ValueError(f"{line!r} is neither an address nor a network such as 192.0.2.0/24")
    if network.prefixlen == 0:
        warn(f"{line} lets every client say that it is another")
    if network.network_address != ipaddress.ip_address(line.partition("/")[0]):
        raise ValueError(f"{line!r} has host bits set: {network} is the network")
    mapped = network.network_address.version == 6 and network.network_address.ipv4_mapped
    if mapped and network.prefixlen >= 96:
        return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network
