"""A message that is being read: in chunks, off the reactor, or at once for stock Twisted.

A message that fits one chunk is read by the call that opens it, so that it costs one trip through a
thread and holds no descriptor.
"""

from __future__ import annotations

import errno
import io
import os

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from qmailldap.interfaces import IStoredMessage
from qmailldap.maildir.storage import Maildir
from qmailldap.threads import Offload

__all__ = ["CHUNK", "MessageChanged", "OpenMessage", "StoredMessage", "open_message"]

CHUNK = 64 * 1024
"""Octets read at a time."""


class MessageChanged(OSError):
    """The file has grown or shrunk since it was opened: it is no longer one message."""


@attrs.frozen
class OpenMessage:
    """What opening gives: the octets of the file, the first of them, and the file to read on.

    ``file`` is closed already when ``first`` is the whole message.
    """

    size: int
    first: bytes
    file: io.FileIO
    written_at: int
    """When the file was last written, in nanoseconds."""


def open_message(maildir: Maildir, index: int) -> OpenMessage:
    """Open a message and read its first chunk; blocks, and raises what `Maildir.open` raises."""
    descriptor, size = maildir.open(index)
    file = io.FileIO(descriptor)
    written_at = os.fstat(descriptor).st_mtime_ns
    return OpenMessage(size, _read_next(file, size, CHUNK, written_at), file, written_at)


def _read_next(file: io.FileIO, left: int, most: int, written_at: int) -> bytes:
    """The next octets of a file that should have ``left`` more, at least one and at most ``most``.

    The file is closed at its end and when anything is wrong with it.
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


@implementer(IStoredMessage)
class StoredMessage:
    """An open message. One read at a time; what was read at opening is given first."""

    def __init__(self, offload: Offload, opened: OpenMessage) -> None:
        self.size = opened.size
        self._offload = offload
        self._file = opened.file
        self._written_at = opened.written_at
        self._ready = opened.first
        # Octets that are still to be read from the file.
        self._left = opened.size - len(opened.first)
        self._reading = False
        self._closed = False

    @property
    def holds_file(self) -> bool:
        """Whether a descriptor is open for it."""
        return not self._file.closed

    def readChunk(self) -> bytes | Deferred[bytes]:
        """As `IStoredMessage`; raises ``ValueError`` after `close`."""
        self._check_usable()
        if self._ready or not self._left:
            chunk, self._ready = self._ready, b""
            return chunk
        self._reading = True
        # The caller has a Deferred of its own: cancelling it must not hide when the thread is done.
        asked: Deferred[bytes] = Deferred()
        reading = self._offload(_read_next, self._file, self._left, CHUNK, self._written_at)
        reading.addBoth(self._read, asked)
        return asked

    def read(self, size: int = -1) -> bytes:
        """As `IStoredMessage`; all that is left for a negative ``size``."""
        self._check_usable()
        if size < 0:
            parts = []
            while part := self.read(CHUNK):
                parts.append(part)
            return b"".join(parts)
        if not self._ready and self._left and size:
            self._ready = _read_next(self._file, self._left, size, self._written_at)
            self._left -= len(self._ready)
        chunk, self._ready = self._ready[:size], self._ready[size:]
        return chunk

    def close(self) -> None:
        """As `IStoredMessage`. A read under way in a thread ends first: its descriptor could
        otherwise be another file's by then.
        """
        self._closed = True
        self._ready = b""
        if not self._reading:
            self._file.close()

    def _read(self, result: bytes | Failure, asked: Deferred[bytes]) -> None:
        self._reading = False
        if self._closed:
            self._file.close()
        if isinstance(result, Failure):
            asked.errback(result)
        else:
            self._left -= len(result)
            asked.callback(result)

    def _check_usable(self) -> None:
        if self._closed:
            raise ValueError("the message is closed")
        if self._reading:
            raise ValueError("the message is being read")
