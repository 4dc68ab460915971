"""Octets from the network into command lines, within bounds."""

from __future__ import annotations

__all__ = ["LineBuffer", "LineTooLong"]


class LineTooLong(Exception):
    """A line longer than allowed has ended; it was thrown away."""


class LineBuffer:
    """What a client sent and nobody has looked at yet.

    A line ends with LF; a CR before it is taken off. (RFC 1939 wants CRLF; the original took
    either, and people type into netcat.) Of a line longer than ``longest`` octets no more is kept
    than its being too long.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._octets = b""
        self._start = 0
        self._too_long = False

    def __len__(self) -> int:
        """Octets that are held."""
        return len(self._octets) - self._start

    def append(self, octets: bytes) -> None:
        """Take in what has arrived."""
        self._octets = self._octets[self._start :] + octets
        self._start = 0

    def take_all(self) -> bytes:
        """All that nobody has looked at, for somebody who does not want lines."""
        octets = self._octets[self._start :]
        self._octets, self._start = b"", 0
        return octets

    def next_line(self) -> bytes | None:
        """The next whole line without its end; None when there is none yet.

        Raises `LineTooLong` in place of a line that was.
        """
        end = self._octets.find(b"\n", self._start)
        if end < 0:
            # One more octet may be the CR of a line that is just as long as allowed.
            if self._too_long or len(self) > self._longest + 1:
                self._too_long = True
                self._octets, self._start = b"", 0
            return None
        line = self._octets[self._start : end]
        self._start = end + 1
        if self._start == len(self._octets):
            self._octets, self._start = b"", 0
        if line.endswith(b"\r"):
            line = line[:-1]
        if self._too_long or len(line) > self._longest:
            self._too_long = False
            raise LineTooLong
        return line
