"""A message that is being read: in chunks, off the reactor, or at once for stock Twisted.

What the system has in memory is read by the reactor itself: the way to a thread and back takes
several times as long. The last chunk is always read by a thread, as is what needs waiting for.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from qmailldap.interfaces import IStoredMessage
from qmailldap.maildir.reading import CHUNK, OpenMessage, read_at_hand, read_next
from qmailldap.threads import Busy, Offload

__all__ = ["StoredMessage"]


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
        self._closing = False

    @property
    def holds_file(self) -> bool:
        """Whether a descriptor is open for it."""
        return self._file is not None and not self._closing and not self._file.closed

    def readChunk(self) -> bytes | Deferred[bytes]:
        """As `IStoredMessage`; raises ``ValueError`` after `close`."""
        self._check_usable()
        if self._ready or self._file is None or not self._left:
            chunk, self._ready = self._ready, b""
            return chunk
        if self._left > CHUNK:
            at_hand = read_at_hand(self._file, CHUNK)
            if at_hand:
                self._left -= len(at_hand)
                return at_hand
        self._reading = True
        # The caller has a Deferred of its own: cancelling it must not hide when the thread is done.
        asked: Deferred[bytes] = Deferred()
        reading = self._offload(read_next, self._file, self._left, CHUNK, self._written_at)
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
        if not self._ready and self._file is not None and self._left and size:
            self._ready = read_next(self._file, self._left, size, self._written_at)
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
            self._close_file()

    def _read(self, result: bytes | Failure, asked: Deferred[bytes]) -> None:
        self._reading = False
        if self._closed:
            self._close_file()
        if isinstance(result, Failure):
            asked.errback(result)
        else:
            self._left -= len(result)
            asked.callback(result)

    def _close_file(self) -> None:
        # Off the reactor: on some file systems to close waits for whoever serves them.
        if self._file is not None and not self._closing and not self._file.closed:
            self._closing = True
            self._offload(self._file.close).addErrback(self._not_closed)

    def _not_closed(self, failure: Failure) -> None:
        """Where no thread takes it, or the file system complains."""
        if self._file is not None and failure.check(Busy):
            self._file.close()
        else:
            failure.trap(OSError)

    def _check_usable(self) -> None:
        if self._closed:
            raise ValueError("the message is closed")
        if self._reading:
            raise ValueError("the message is being read")
