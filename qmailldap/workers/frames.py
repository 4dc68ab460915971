"""What goes between the supervisor and a worker.

By two pipes, and not by a socket: over that a worker could hand descriptors to its supervisor,
which closes them, and the end of a file on a file system of somebody's own may be a long time
coming.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.protocol import Protocol

__all__ = [
    "LARGEST",
    "MOST_ANSWER",
    "MOST_OCTETS",
    "Frame",
    "FrameError",
    "Frames",
    "Kind",
    "asked_of",
]

MOST_OCTETS = 4 * 1024 * 1024
"""Of a frame of a worker: the largest answer is some ten thousand sessions."""

LARGEST = 80 * 1024 * 1024
"""Octets of a frame of the supervisor, which has the contents of all control files in it."""

MOST_NAME = 40
"""Octets of the name of a question."""

_HEADER = struct.Struct("!BI")
_LENGTH = struct.Struct("!I")

MOST_ANSWER = MOST_OCTETS - _HEADER.size
"""Octets of its body."""


class FrameError(ValueError):
    """What came is nothing that the other end says."""


class Kind(enum.IntEnum):
    """What a frame is. Questions are numbered by who asks them, each anew."""

    ASK = 1
    """a question, by either end: its name, a newline, and JSON"""
    ANSWER = 2
    """by a worker: JSON, the answer to that question"""
    FAILURE = 3
    """by a worker: in place of an answer, a line of text"""
    PIECE = 4
    """by the supervisor: one of the answers to what the worker has asked, as it was given"""
    END = 5
    """by the supervisor: there are no more of them"""
    SERVING = 6
    """by a worker, once: it takes connections"""


@attrs.frozen
class Frame:
    kind: Kind
    number: int = 0
    body: bytes = b""

    def octets(self) -> bytes:
        return _HEADER.pack(self.kind, self.number % 2**32) + self.body

    @classmethod
    def of(cls, octets: bytes) -> Frame:
        """Raises `FrameError`."""
        try:
            kind, number = _HEADER.unpack_from(octets)
            return cls(Kind(kind), number, octets[_HEADER.size :])
        except (struct.error, ValueError) as error:
            raise FrameError(f"no frame: {error}") from None


def asked_of(body: bytes) -> tuple[str, bytes]:
    """The name of a question and its argument, which is JSON if all is well: see for yourself.

    Raises `FrameError`.
    """
    name, newline, argument = body.partition(b"\n")
    if not newline or not name.isalpha() or len(name) > MOST_NAME:
        raise FrameError("no question")
    return name.decode("ascii"), argument


class Frames(Protocol):
    """Passes on what comes, as long as it is frames of at most ``most`` octets each.

    ``received`` may raise `FrameError`. ``lost`` is called once, with a line that says why, empty
    where the other end has ended; the connection is closed then.
    """

    transport: Any

    def __init__(
        self,
        received: Callable[[Frame], None],
        lost: Callable[[str], None],
        most: int = MOST_OCTETS,
    ) -> None:
        self._received = received
        self._lost = lost
        self._most = most
        self._pieces: list[bytes] = []
        self._octets = 0
        self._wanted = _LENGTH.size
        self.is_lost = False
        self.is_full = False
        """Whether the other end reads less than it is sent."""
        self.unread = 0
        """Octets that were sent while that was so."""

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)

    def send(self, frame: Frame) -> None:
        """Nothing happens when the other end is gone."""
        if self.is_lost or not self.connected:
            return
        octets = frame.octets()
        if self.is_full:
            self.unread += len(octets)
        self.transport.write(_LENGTH.pack(len(octets)))
        self.transport.write(octets)

    def lose(self, why: str) -> None:
        """Hear and say nothing more."""
        if self.is_lost:
            return
        self.is_lost = True
        self._pieces = []
        if self.connected:
            self.transport.unregisterProducer()
            self.transport.loseConnection()
        self._lost(why)

    def dataReceived(self, data: bytes) -> None:
        self._pieces.append(data)
        self._octets += len(data)
        if self._octets < self._wanted or self.is_lost:
            return
        # Joined when a frame is all there, and not with each piece that comes; cut once for all.
        joined = b"".join(self._pieces)
        try:
            taken = self._take(joined)
        except FrameError as error:
            self.lose(str(error))
            return
        if not self.is_lost:
            self._pieces, self._octets = [joined[taken:]], len(joined) - taken

    def _take(self, joined: bytes) -> int:
        """All whole frames of those octets; gives how many octets are done with."""
        start, after = 0, _LENGTH.size
        while len(joined) >= after and not self.is_lost:
            (length,) = _LENGTH.unpack_from(joined, start)
            if length > self._most:
                raise FrameError(f"{length} octets are too many")
            end = after + length
            if len(joined) < end:
                self._wanted = end - start
                return start
            self._received(Frame.of(joined[after:end]))
            start, after = end, end + _LENGTH.size
        self._wanted = _LENGTH.size
        return start

    def connectionLost(self, reason: object = None) -> None:
        if not self.is_lost:
            self.is_lost = True
            self._lost("")

    # The transport takes us for what produces all that is written: so we learn when it is full.
    def pauseProducing(self) -> None:
        self.is_full = True

    def resumeProducing(self) -> None:
        self.is_full = False
        self.unread = 0

    def stopProducing(self) -> None:
        """The transport is closed, which `connectionLost` tells."""
