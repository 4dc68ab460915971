"""What follows the +OK of a multi-line response (RFC 1939, section 3): messages and listings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

__all__ = ["DotStuffer", "TopOfMessage", "framed", "lines_at_once"]

# In a usual message more than twice as fast as to ask whether these two octets are `in` it.
_DOT_AT_LINE_START = re.compile(rb"\n\.")
_USUAL_LINE = 64
"""Octets of a line of UIDL, with a long name."""

_HEADER_END = re.compile(rb"\n\r?\n")


class DotStuffer:
    """Turns chunks of a message into lines that end in CRLF, with a dot before a leading dot.

    Chunks may be cut anywhere. LF and CRLF both end a line, a CR elsewhere is passed on as it is.
    """

    def __init__(self) -> None:
        self._at_line_start = True
        # A CR at the end of a chunk waits here: what follows decides whether it ends a line.
        self._held = b""

    def encode(self, chunk: bytes) -> bytes:
        """The next part of the message, as it is sent."""
        data = self._held + chunk if self._held else chunk
        if data.endswith(b"\r"):
            data, self._held = data[:-1], b"\r"
        else:
            self._held = b""
        if not data:
            return b""
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        if _DOT_AT_LINE_START.search(data) is not None:
            data = data.replace(b"\n.", b"\n..")
        if self._at_line_start and data.startswith(b"."):
            data = b"." + data
        self._at_line_start = data.endswith(b"\n")
        return data.replace(b"\n", b"\r\n")

    def finish(self) -> bytes:
        """What ends the response; a last line that has no end gets one."""
        if self._held or not self._at_line_start:
            return self._held + b"\r\n.\r\n"
        return b".\r\n"


class TopOfMessage:
    """Cuts a message, given in chunks, behind its header and the first ``lines`` lines of its body.

    ``complete`` becomes true when nothing more is wanted.
    """

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._in_header = True
        # The end of what came before: an empty line may be the first, or cut by a chunk boundary.
        self._tail = b"\n"
        self.complete = False

    def take(self, chunk: bytes) -> bytes:
        """The part of this chunk that belongs to the top."""
        if not self._in_header:
            return chunk[: self._body_end(chunk, 0)]
        seen = self._tail + chunk
        end = _HEADER_END.search(seen)
        if end is None:
            self._tail = seen[-2:]
            return chunk
        self._in_header = False
        return chunk[: self._body_end(chunk, end.end() - len(self._tail))]

    def _body_end(self, chunk: bytes, start: int) -> int:
        """Where the wanted lines end in ``chunk``, whose body part begins at ``start``."""
        ends_here = chunk.count(b"\n", start)
        if ends_here < self._lines:
            self._lines -= ends_here
            return len(chunk)
        self.complete = True
        for _ in range(self._lines):
            start = chunk.index(b"\n", start) + 1
        return start


def lines_at_once(octets: int) -> int:
    """How many lines of a usual listing make up so many octets; one at least."""
    return max(1, octets // _USUAL_LINE)


def framed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """A multi-line response of these pieces, which are whole lines; in one where it is small."""
    following = iter(pieces)
    first, held = b"+OK \r\n", next(following, b"")
    for piece in following:
        yield first + held
        first, held = b"", piece
    yield b"".join([first, held, b".\r\n"])
