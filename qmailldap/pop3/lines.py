"""Octets from the network into command lines, within bounds."""

from __future__ import annotations

__all__ = ["LineBuffer", "LineTooLong"]


class LineTooLong(Exception):
    """A line longer than allowed has ended; it was thrown away."""


class LineBuffer:
    """What a client sent and nobody has looked at yet.

    A line ends with LF; a CR before it is taken off. (RFC 1939 wants CRLF; the original took
    either, and people type into netcat.) ``whole`` is how many of them have ended.
    """

    def __init__(self) -> None:
        self._octets = b""
        self._start = 0
        self._too_long = False
        self.whole = 0

    def __len__(self) -> int:
        """Octets that are held."""
        return len(self._octets) - self._start

    def append(self, octets: bytes) -> None:
        """Take in what has arrived."""
        self._octets = self._octets[self._start :] + octets
        self._start = 0
        self.whole += octets.count(b"\n")

    def take_all(self) -> bytes:
        """All that nobody has looked at, for somebody who does not want lines."""
        octets = self._octets[self._start :]
        self._octets, self._start = b"", 0
        self._too_long = False
        self.whole = 0
        return octets

    def next_line(self, longest: int) -> bytes | None:
        """The next whole line without its end; None when there is none yet.

        Raises `LineTooLong` in place of a line of more than ``longest`` octets without its end; no
        more was kept of it than that.
        """
        if not self.whole:
            # One more octet may be the CR of a line that is just as long as allowed.
            if self._too_long or len(self) > longest + 1:
                self._too_long = True
                self._octets, self._start = b"", 0
            return None
        end = self._octets.index(b"\n", self._start)
        line = self._octets[self._start : end]
        self._start = end + 1
        self.whole -= 1
        if self._start == len(self._octets):
            self._octets, self._start = b"", 0
        if line.endswith(b"\r"):
            line = line[:-1]
        if self._too_long or len(line) > longest:
            self._too_long = False
            raise LineTooLong
        return line
