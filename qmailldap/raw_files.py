"""One small file as it is found, for whoever reads it with other rights: what there is to be known
of it, and nothing of what it means. The standard library only.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

__all__ = [
    "BROKEN_LINK",
    "LARGER",
    "MISSING",
    "OTHER",
    "READ",
    "STATES",
    "STRAY_LINK",
    "UNREADABLE",
    "RawFile",
    "look",
    "pack",
    "unpack",
]

MISSING = "missing"
BROKEN_LINK = "broken-link"
"""A symbolic link to what is not there; the content is what it says."""

STRAY_LINK = "stray-link"
"""A symbolic link to another that leads nowhere; likewise."""

OTHER = "other"
"""No regular file."""

UNREADABLE = "unreadable"
"""``trouble`` is the errno that says why."""

LARGER = "larger"
"""Than anything that is read."""

READ = "read"
"""A regular file that can be read; its content is here, if it was wanted."""

STATES = frozenset({MISSING, BROKEN_LINK, STRAY_LINK, OTHER, UNREADABLE, LARGER, READ})

_HEAD = 64


class RawFile(NamedTuple):
    """A file as it was found: one of `STATES`.

    ``mode`` is st_mode of what the name leads to, 0 where that could not be looked at.
    """

    state: str
    mode: int = 0
    trouble: int = 0
    content: bytes = b""

    def __repr__(self) -> str:
        """Without the content, which may be a secret."""
        return f"RawFile({self.state}, {self.mode:o}, {len(self.content)} octets)"

    @property
    def is_regular(self) -> bool:
        return stat.S_ISREG(self.mode)


def look(path: bytes, most: int, *, read: bool = True) -> RawFile:
    """What is at the path, read up to ``most`` octets; symbolic links are followed.

    Nothing is waited for: neither at a FIFO nor at a terminal. Without ``read`` it is only found
    out whether it could be read. Blocks, as file systems do; raises nothing.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return _link(path)
    except OSError as error:
        return RawFile(UNREADABLE, _mode(path), error.errno or errno.EIO)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            return RawFile(UNREADABLE, status.st_mode, errno.EISDIR)
        if not stat.S_ISREG(status.st_mode):
            return RawFile(OTHER, status.st_mode)
        if not read:
            return RawFile(LARGER if status.st_size > most else READ, status.st_mode)
        content = bytearray()
        while chunk := os.read(descriptor, most + 1 - len(content)):
            content += chunk
            if len(content) > most:
                return RawFile(LARGER, status.st_mode)
        return RawFile(READ, status.st_mode, 0, bytes(content))
    except OSError as error:
        return RawFile(UNREADABLE, _mode(path), error.errno or errno.EIO)
    finally:
        os.close(descriptor)


def _link(path: bytes) -> RawFile:
    """What there is where nothing can be opened because it is not there."""
    try:
        target = os.readlink(path)
    except OSError:
        return RawFile(MISSING)
    there = os.path.lexists(os.path.join(os.path.dirname(path), target))
    return RawFile(STRAY_LINK if there else BROKEN_LINK, content=target)


def _mode(path: bytes) -> int:
    try:
        return os.stat(path).st_mode
    except OSError:
        return 0


def pack(file: RawFile) -> bytes:
    """As one field of a frame."""
    return b"%s %d %d\n" % (file.state.encode("ascii"), file.mode, file.trouble) + file.content


def unpack(field: bytes) -> RawFile:
    """The same again. Raises ``ValueError`` for what is none."""
    head, newline, _ = field[:_HEAD].partition(b"\n")
    words = head.split(b" ")
    if not newline or len(words) != 3 or not all(word.isdigit() for word in words[1:]):
        raise ValueError("no file as it was found")
    state, mode, trouble = words[0].decode("ascii", "replace"), int(words[1]), int(words[2])
    if state not in STATES or max(mode, trouble) >= 2**31:
        raise ValueError("no file as it was found")
    return RawFile(state, mode, trouble, field[len(head) + 1 :])
