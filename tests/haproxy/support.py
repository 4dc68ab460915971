"""Headers as proxies send them, put together by the specification and not by our own code."""

from __future__ import annotations

import socket
import struct

__all__ = ["PREFIX", "tlv", "v2", "v2_tcp4", "v2_tcp6"]

PREFIX = b"\r\n\r\n\x00\r\nQUIT\n"


def v2(command: int, transport: int, content: bytes) -> bytes:
    """A header of version 2 from its two octets and what follows the length."""
    return PREFIX + struct.pack("!BBH", command, transport, len(content)) + content


def v2_tcp4(source: str, port: int = 4711, tlvs: bytes = b"", to: str = "192.0.2.110") -> bytes:
    hosts = socket.inet_aton(source) + socket.inet_aton(to)
    return v2(0x21, 0x11, hosts + struct.pack("!HH", port, 110) + tlvs)


def v2_tcp6(source: str, port: int = 4711, tlvs: bytes = b"", to: str = "2001:db8::110") -> bytes:
    hosts = b"".join(socket.inet_pton(socket.AF_INET6, each) for each in (source, to))
    return v2(0x21, 0x21, hosts + struct.pack("!HH", port, 110) + tlvs)


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value
