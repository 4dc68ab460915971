"""One PROXY header: from octets to what it says, or what is wrong with it."""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterator

import attrs
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress

from qmailldap.ip import parse_ip

__all__ = ["LONGEST", "BadHeader", "Header", "parse_header"]

LONGEST = 4096
"""Octets of the longest header that is read. With addresses and all that proxies say about TLS they
have a few hundred."""

_LONGEST_V1 = 107  # with CRLF, by the specification

_V1_START = b"PROXY "
_V1_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?\Z")
_V1_KNOWN = re.compile(
    rb"PROXY (?:TCP4 [0-9.]+ [0-9.]+|TCP6 [0-9A-Fa-f]*:[0-9A-Fa-f:.]* [0-9A-Fa-f]*:[0-9A-Fa-f:.]*)"
    rb" (?:0|[1-9][0-9]{0,4}) (?:0|[1-9][0-9]{0,4})\Z"
)

_V2_START = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED = struct.Struct("!12sBBH")  # prefix, version and command, family and protocol, length
_V2_LOCAL = 0x20
_V2_PROXY = 0x21
# TCP by IPv4 and IPv6: both addresses, both ports.
_V2_STREAMS = {0x11: struct.Struct("!4s4sHH"), 0x21: struct.Struct("!16s16sHH")}
_V2_NO_ADDRESS = {0x00, 0x31}  # nothing is said; a UNIX socket

_TLV = struct.Struct("!BH")  # type, length
_TLV_SSL = 0x20
_CLIENT_SSL = 0x01


class BadHeader(ValueError):
    """What is there is no PROXY header, or one that is not accepted; the text says why."""


@attrs.frozen
class Header:
    """What a proxy says of a connection.

    ``source`` is the client and ``destination`` what it has connected to; both are None where
    nothing is said of them, as for the proxy's own checks: then the proxy is the client.
    ``client_spoke_tls``: it says that the client spoke TLS with the proxy.
    """

    source: IAddress | None = None
    destination: IAddress | None = None
    client_spoke_tls: bool = False


def parse_header(octets: bytes) -> tuple[Header, int] | None:
    """The header that ``octets`` begin with, and how long it is; None while it is not complete.

    Raises `BadHeader` as soon as it can be none.
    """
    if octets.startswith(_V2_START):
        return _parse_v2(octets)
    if octets.startswith(_V1_START):
        return _parse_v1(octets)
    if _V2_START.startswith(octets) or _V1_START.startswith(octets):
        return None
    raise BadHeader("the connection begins with something else")


def _parse_v1(octets: bytes) -> tuple[Header, int] | None:
    end = octets.find(b"\r\n", 0, _LONGEST_V1)
    if end < 0:
        if len(octets) >= _LONGEST_V1:
            raise BadHeader(f"no end of a line within {_LONGEST_V1} octets")
        return None
    line = octets[:end]
    if _V1_UNKNOWN.match(line):  # HAProxy's checks have no word behind it
        return Header(), end + 2
    if not _V1_KNOWN.match(line):
        raise BadHeader("malformed line of version 1")
    source, destination, source_port, destination_port = line.decode("ascii").split(" ")[2:]
    return (
        Header(_source(source, int(source_port)), _address(destination, int(destination_port))),
        end + 2,
    )


def _parse_v2(octets: bytes) -> tuple[Header, int] | None:
    if len(octets) < _V2_FIXED.size:
        return None
    _, command, transport, length = _V2_FIXED.unpack_from(octets)
    whole = _V2_FIXED.size + length
    if command not in (_V2_LOCAL, _V2_PROXY):
        raise BadHeader(f"version and command 0x{command:02x}")
    if whole > LONGEST:
        raise BadHeader(f"a header of {whole} octets")
    if len(octets) < whole:
        return None
    if command == _V2_LOCAL or transport in _V2_NO_ADDRESS:
        return Header(), whole
    if transport not in _V2_STREAMS:
        raise BadHeader(f"address family and protocol 0x{transport:02x}")
    addresses = _V2_STREAMS[transport]
    addresses_end = _V2_FIXED.size + addresses.size
    if whole < addresses_end:
        raise BadHeader(f"{length} octets where addresses have to be")
    source, destination, source_port, destination_port = addresses.unpack_from(
        octets, _V2_FIXED.size
    )
    return (
        Header(
            _source(str(ipaddress.ip_address(source)), source_port),
            _address(str(ipaddress.ip_address(destination)), destination_port),
            _says_tls(octets[addresses_end:whole]),
        ),
        whole,
    )


def _address(text: str, port: int) -> IPv4Address | IPv6Address:
    """An address and port as the log and other rooms know them: no IPv4 in the clothes of IPv6."""
    host = parse_ip(text)
    if host is None:
        raise BadHeader(f"address {text!a}")
    if port > 65535:
        raise BadHeader(f"port {port}")
    kind = IPv4Address if isinstance(host, ipaddress.IPv4Address) else IPv6Address
    return kind("TCP", str(host), port)


def _source(text: str, port: int) -> IPv4Address | IPv6Address:
    source = _address(text, port)
    host = ipaddress.ip_address(source.host)
    if host.is_unspecified or host.is_multicast:
        raise BadHeader(f"nobody connects from {host}")
    return source


def _says_tls(tlvs: bytes) -> bool:
    said = [value for kind, value in _each_tlv(tlvs) if kind == _TLV_SSL]
    # One octet of flags and four of a verification result; more TLVs, which are not looked at.
    if any(len(value) < 5 for value in said):
        raise BadHeader("malformed TLV about TLS")
    return any(value[0] & _CLIENT_SSL for value in said)


def _each_tlv(tlvs: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset < len(tlvs):
        if len(tlvs) - offset < _TLV.size:
            raise BadHeader("malformed TLV")
        kind, length = _TLV.unpack_from(tlvs, offset)
        offset += _TLV.size
        if len(tlvs) - offset < length:
            raise BadHeader("malformed TLV")
        yield kind, tlvs[offset : offset + length]
        offset += length
