"""Cuts the octets of a connection into LDAP messages, within bounds.

Only the envelope is looked at (RFC 4511, section 5.1): a SEQUENCE of definite length that starts
with the message id. What is inside is for others to decode, who are then sure to have all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from qmailldap.directory.errors import NotLDAP

__all__ = ["MESSAGE_LIMIT", "SKIP_LIMIT", "Frame", "FrameReader"]

MESSAGE_LIMIT = 16 * 1024
"""Octets of the largest message that is decoded.

Ten attributes of a login are a few hundred octets. What is left to ldaptor to decode, it copies the
rest of once for every element, while the reactor waits: 16 KiB of the smallest elements take it a
tenth of a second, 1 MiB would take it minutes.
"""

SKIP_LIMIT = 16 * 1024 * 1024
"""Octets of the largest message that is passed over; one that claims to be larger is none."""

_SEQUENCE = 0x30
_INTEGER = 0x02
_LONGEST_LENGTH = 4
_LONGEST_ID = 4


class Frame(NamedTuple):
    """A message: its id, and all of its octets, or None where they are too many to be looked at.

    The operation of the message begins at ``operation_at``, behind the id.
    """

    message_id: int
    octets: bytes | None
    operation_at: int


class FrameReader:
    """The incoming half of one connection; holds at most one message of ``message_limit``."""

    def __init__(self, message_limit: int = MESSAGE_LIMIT, skip_limit: int = SKIP_LIMIT) -> None:
        self._message_limit = message_limit
        self._skip_limit = skip_limit
        self._octets = b""
        self._at = 0
        self._skip = 0

    @property
    def in_a_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return self.held > 0 or self._skip > 0

    @property
    def held(self) -> int:
        """Octets that came and are not in a message that is whole."""
        return len(self._octets) - self._at

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The messages that ``data`` completes; one that is too large comes when it begins.

        Raises `NotLDAP`; the connection is of no more use then.
        """
        octets = self._octets = self._octets + data if self._octets else data
        end = len(octets)
        while (at := self._at) < end:
            if self._skip:
                skipped = min(self._skip, end - at)
                self._at += skipped
                self._skip -= skipped
                continue
            envelope = _envelope(octets, at, end, self._skip_limit)
            if envelope is None:
                break
            message_end, message_id, operation_at = envelope
            size = message_end - at
            if size > self._message_limit:
                self._skip = size
                yield Frame(message_id, None, 0)
            elif message_end <= end:
                self._at = message_end
                yield Frame(message_id, octets[at:message_end], operation_at - at)
            else:
                break
        # At most one message within the limit, so that to add to it costs little each time.
        self._octets = octets[self._at :]
        self._at = 0


def _envelope(octets: bytes, at: int, end: int, limit: int) -> tuple[int, int, int] | None:
    """Where the message that begins at ``at`` ends, its id, and where its operation begins.

    None until enough of it is there to say so.
    """
    if octets[at] != _SEQUENCE:
        raise NotLDAP(f"octet {octets[at]:#04x} where a message begins")
    if end - at < 2:
        return None
    length, start = octets[at + 1], at + 2
    if length >= 0x80:
        start += length - 0x80
        if not at + 3 <= start <= at + 2 + _LONGEST_LENGTH:
            raise NotLDAP("a length that is indefinite or absurd")
        if end < start:
            return None
        length = int.from_bytes(octets[at + 2 : start], "big")
        if length > limit:
            raise NotLDAP(f"a message of {length} octets")
    message_end = start + length
    id_at = start + 2
    known = min(end, message_end)
    if known >= id_at:
        id_size = octets[start + 1]
        if octets[start] != _INTEGER or not 1 <= id_size <= _LONGEST_ID:
            raise NotLDAP("a message that does not begin with its id")
        operation_at = id_at + id_size
        if known >= operation_at:
            message_id = int.from_bytes(octets[id_at:operation_at], "big", signed=True)
            return message_end, message_id, operation_at
    if end < message_end:
        return None
    raise NotLDAP("a message too short for its id")
