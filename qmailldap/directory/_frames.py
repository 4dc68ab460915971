"""Cuts the octets of a connection into LDAP messages, within bounds.

Only the envelope is looked at (RFC 4511, section 5.1): a SEQUENCE of definite length that starts
with the message id. What is inside is ldaptor's to decode, which is then sure to have all of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from qmailldap.directory.errors import NotLDAP

__all__ = ["MESSAGE_LIMIT", "SKIP_LIMIT", "Frame", "FrameReader"]

MESSAGE_LIMIT = 16 * 1024
"""Octets of the largest message that is decoded.

Ten attributes of a login are a few hundred octets. ldaptor copies the rest of a message once for
every element of it, while the reactor waits: 16 KiB of the smallest elements take it a tenth of a
second, 1 MiB would take it minutes.
"""

SKIP_LIMIT = 16 * 1024 * 1024
"""Octets of the largest message that is passed over; one that claims to be larger is none."""

_SEQUENCE = 0x30
_INTEGER = 0x02
_LONGEST_LENGTH = 4
_LONGEST_ID = 4


@attrs.frozen
class Frame:
    """A message: its id, and all of its octets, or None where they are too many to be looked at."""

    message_id: int
    octets: bytes | None


class FrameReader:
    """The incoming half of one connection; holds at most one message of ``message_limit``."""

    def __init__(self, message_limit: int = MESSAGE_LIMIT, skip_limit: int = SKIP_LIMIT) -> None:
        self._message_limit = message_limit
        self._skip_limit = skip_limit
        self._buffer = bytearray()
        self._skip = 0

    @property
    def in_a_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._buffer) or self._skip > 0

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The messages that ``data`` completes; one that is too large comes when it begins.

        Raises `NotLDAP`; the connection is of no more use then.
        """
        self._buffer += data
        while self._buffer:
            if self._skip:
                skipped = min(self._skip, len(self._buffer))
                del self._buffer[:skipped]
                self._skip -= skipped
                continue
            envelope = self._envelope()
            if envelope is None:
                return
            size, message_id = envelope
            if size > self._message_limit:
                self._skip = size
                yield Frame(message_id, None)
            elif len(self._buffer) >= size:
                octets = bytes(self._buffer[:size])
                del self._buffer[:size]
                yield Frame(message_id, octets)
            else:
                return

    def _envelope(self) -> tuple[int, int] | None:
        """Size and id of the message that the buffer starts with; None until they are there."""
        if self._buffer[0] != _SEQUENCE:
            raise NotLDAP(f"octet {self._buffer[0]:#04x} where a message begins")
        length_at = self._length()
        if length_at is None:
            return None
        length, start = length_at
        if length > self._skip_limit:
            raise NotLDAP(f"a message of {length} octets")
        size = start + length
        head = self._buffer[start : min(size, start + 2 + _LONGEST_ID)]
        if len(head) >= 2 and (head[0] != _INTEGER or not 1 <= head[1] <= _LONGEST_ID):
            raise NotLDAP("a message that does not begin with its id")
        if len(head) < 2 or len(head) < 2 + head[1]:
            if len(self._buffer) < size:
                return None
            raise NotLDAP("a message too short for its id")
        return size, int.from_bytes(head[2 : 2 + head[1]], "big", signed=True)

    def _length(self) -> tuple[int, int] | None:
        """The length of the message's contents, and where they start; None until it is there."""
        if len(self._buffer) < 2:
            return None
        first = self._buffer[1]
        if first < 0x80:
            return first, 2
        start = 2 + first - 0x80
        if not 3 <= start <= 2 + _LONGEST_LENGTH:
            raise NotLDAP("a length that is indefinite or absurd")
        if len(self._buffer) < start:
            return None
        return int.from_bytes(self._buffer[2:start], "big"), start
