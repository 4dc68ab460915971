"""Opening messages and reading them in chunks, as plain calls that may block.

A message that fits one chunk is read by the call that opens it: it then costs one call in all, and
holds no descriptor. The standard library only, as `storage`.
"""

from __future__ import annotations

import errno
import io
import os
from typing import NamedTuple

from qmailldap.maildir.storage import Maildir

__all__ = [
    "CHUNK",
    "MOST_AHEAD",
    "MessageChanged",
    "OpenMessage",
    "open_message",
    "open_messages",
    "read_at_hand",
    "read_next",
]

CHUNK = 64 * 1024
"""Octets read at a time, and the most that is read ahead."""

MOST_AHEAD = 16
"""Messages opened by one call."""


# Linux only; 0 elsewhere.
_WITHOUT_WAITING: int = getattr(os, "RWF_NOWAIT", 0)
_WHERE_IT_STANDS = -1


class MessageChanged(OSError):
    """The file has grown or shrunk since it was opened: it is no longer one message."""


class OpenMessage(NamedTuple):
    """What opening gives: the octets of the file, the first of them, and the file to read on.

    ``first`` is the whole message where there is no ``file``. ``written_at`` is when the file was
    last written, in nanoseconds.
    """

    size: int
    first: bytes
    file: io.FileIO | None
    written_at: int


def open_message(maildir: Maildir, number: int) -> OpenMessage:
    """Open a message and read its first chunk; blocks, and raises what `Maildir.open` raises."""
    return _begin_to_read(*maildir.open(number))


def _begin_to_read(descriptor: int, size: int) -> OpenMessage:
    try:
        file = io.FileIO(descriptor)
    except BaseException:
        # It looks at the file first, and does not own the descriptor where that fails.
        os.close(descriptor)
        raise
    written_at = os.fstat(descriptor).st_mtime_ns
    first = read_next(file, size, CHUNK, written_at)
    return OpenMessage(size, first, None if file.closed else file, written_at)


def open_messages(maildir: Maildir, number: int, count: int) -> list[OpenMessage]:
    """The message ``number`` of ``count``, and those after it that are small.

    Clients mostly fetch messages in their order. Together they are no more than one chunk, so that
    a session holds little, and none of them has a file. Raises what opening the first one raises;
    what is wrong with a later one is found when it is asked for.
    """
    opened = [open_message(maildir, number)]
    octets = opened[0].size
    while octets < CHUNK and len(opened) < MOST_AHEAD and number + len(opened) < count:
        try:
            descriptor, size = maildir.open(number + len(opened))
            octets += size
            if octets > CHUNK:
                os.close(descriptor)
                break
            message = _begin_to_read(descriptor, size)
        except OSError:
            break
        if message.file is not None:
            # It came to less than its file was said to have: whoever asks for it is to find out.
            message.file.close()
            break
        opened.append(message)
    return opened


def read_next(file: io.FileIO, left: int, most: int, written_at: int) -> bytes:
    """The next octets of a file that should have ``left`` more, at least one and at most ``most``.

    The file is closed at its end and when anything is wrong with it. Raises `MessageChanged`, and
    ``OSError`` when it cannot be read.
    """
    try:
        # One octet more than there should be shows whether the file has grown.
        chunk = file.read(left + 1 if left <= most else most) or b""
        if len(chunk) > left:
            raise MessageChanged(errno.EIO, "the message has grown while it was read")
        if left and not chunk:
            raise MessageChanged(errno.EIO, "the message has shrunk while it was read")
        # It may have shrunk and grown again, with NULs where the message was.
        if len(chunk) == left and os.fstat(file.fileno()).st_mtime_ns != written_at:
            raise MessageChanged(errno.EIO, "the message was written to while it was read")
    except BaseException:
        file.close()
        raise
    if len(chunk) == left:
        file.close()
    return chunk


def read_at_hand(file: io.FileIO, most: int) -> bytes | None:
    """The next octets of a file as far as they are in memory, at most so many; never waits.

    None where it cannot be told without waiting: disks that have to be read, the end of the file,
    file systems that do not know this, and faults. `read_next` finds out which, and has to be what
    reads the last octets.
    """
    if not _WITHOUT_WAITING:
        return None
    buffer = bytearray(most)
    try:
        count = os.preadv(file.fileno(), [buffer], _WHERE_IT_STANDS, _WITHOUT_WAITING)
    except OSError:
        return None
    return bytes(memoryview(buffer)[:count]) if count else None
