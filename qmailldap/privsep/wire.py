"""Frames between the network process and those that have rights: lists of byte strings.

A frame is its length and then each of its fields, with the field's length before it; all lengths
are four octets, big end first. There are bounds to both. Open files travel beside a frame by
SCM_RIGHTS (unix(7)); how many belong to it, the fields say. Neither side trusts the other to keep
to this.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Sequence

__all__ = [
    "MOST_FIELDS",
    "MOST_OCTETS",
    "FrameError",
    "fields_of",
    "frame",
    "receive",
    "send",
    "send_data",
]

MOST_OCTETS = 128 * 1024 * 1024
"""Octets of the largest frame: the listing of a mailbox of more than a million messages."""

MOST_FIELDS = 1000

_LENGTH = struct.Struct("!I")


class FrameError(ValueError):
    """What came is no frame."""


def frame(fields: Iterable[bytes]) -> bytes:
    """The fields as they are sent."""
    parts = [b""]
    for field in fields:
        parts.append(_LENGTH.pack(len(field)))
        parts.append(field)
    parts[0] = _LENGTH.pack(sum(map(len, parts)))
    return b"".join(parts)


def fields_of(body: bytes) -> list[bytes]:
    """The fields of a frame without its length. Raises `FrameError`."""
    fields: list[bytes] = []
    at = 0
    while at < len(body):
        end = at + _LENGTH.size
        if end > len(body):
            raise FrameError("a frame ends within a length")
        (size,) = _LENGTH.unpack_from(body, at)
        at = end + size
        if at > len(body):
            raise FrameError("a field is longer than its frame")
        if len(fields) == MOST_FIELDS:
            raise FrameError(f"a frame of more than {MOST_FIELDS} fields")
        fields.append(body[end:at])
    return fields


def send(connection: socket.socket, fields: Iterable[bytes], files: Sequence[int] = ()) -> None:
    """Send a frame and open files with it; blocks. Raises ``OSError`` when nobody listens."""
    send_data(connection, frame(fields), files)


def send_data(connection: socket.socket, data: bytes, files: Sequence[int] = ()) -> None:
    """As `send`, a frame that is made already."""
    rest = memoryview(data)
    if files:
        rest = rest[socket.send_fds(connection, [rest], files) :]
    connection.sendall(rest)


def receive(connection: socket.socket, most: int = MOST_OCTETS) -> list[bytes] | None:
    """The fields of the next frame, None at the end; blocks.

    Raises `FrameError`, also when the end comes within a frame or it has more than ``most`` octets,
    and ``OSError``.
    """
    head = _exactly(connection, _LENGTH.size)
    if not head:
        return None
    (size,) = _LENGTH.unpack(head)
    if size > most:
        raise FrameError(f"a frame of {size} octets")
    body = _exactly(connection, size)
    if len(body) < size:
        raise FrameError("the end within a frame")
    return fields_of(body)


def _exactly(connection: socket.socket, size: int) -> bytes:
    """So many octets; fewer, none that is, where the end comes before the first.

    Raises `FrameError` when the end comes later.
    """
    received = bytearray()
    while len(received) < size:
        chunk = connection.recv(min(size - len(received), 1024 * 1024))
        if not chunk:
            if received:
                raise FrameError("the end within a frame")
            break
        received += chunk
    return bytes(received)
