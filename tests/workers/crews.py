"""A supervisor's links and the members at their other ends, in one process and without pipes."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from qmailldap.workers.frames import Frames
from qmailldap.workers.links import Link, Links
from qmailldap.workers.member import Member

__all__ = ["Site", "Wire", "frame"]


class Wire(StringTransport):
    """One end of two pipes. What is written waits until it is carried over."""

    def __init__(self) -> None:
        super().__init__()
        self.is_closed = False

    def loseConnection(self) -> None:
        self.is_closed = True

    def taken(self) -> bytes:
        octets = bytes(self.value())
        self.clear()
        return octets


class Site:
    """A supervisor and its workers, in one process."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.ended: list[tuple[int, str]] = []
        self.serve: list[Link] = []
        self.links = Links(
            self.clock, self.serve.append, lambda number, why: self.ended.append((number, why))
        )
        self.ends: list[tuple[Frames, Frames]] = []

    def worker(self, number: int, serial: int = 0) -> Member:
        """One that serves."""
        member = self.starting(number, serial)
        member.serving()
        self.carry()
        return member

    def starting(self, number: int, serial: int = 0) -> Member:
        """One that will serve."""
        member = Member(self.clock, lambda: None)
        frames = self.connect(number, serial)
        member._frames = Frames(member._received, member._lost)
        member._frames.makeConnection(Wire())
        self.ends.append((frames, member._frames))
        return member

    def hostile(self, number: int) -> Frames:
        """One that has said nothing yet; what it says is given to `dataReceived`."""
        return self.connect(number)

    def connect(self, number: int, serial: int = 0) -> Frames:
        frames = self.links.add(number, serial).frames
        frames.makeConnection(Wire())
        return frames

    def carry(self) -> None:
        """Whatever is written arrives, and what is answered to that."""
        moved = True
        while moved:
            moved = False
            for one, other in self.ends:
                for sender, receiver in ((one, other), (other, one)):
                    octets = sender.transport.taken()
                    if octets and not sender.is_lost and not receiver.is_lost:
                        receiver.dataReceived(octets)
                        moved = True


def frame(kind: int, number: int = 0, body: bytes = b"") -> bytes:
    octets = bytes([kind]) + number.to_bytes(4, "big") + body
    return len(octets).to_bytes(4, "big") + octets
