"""The asynchronous front of a `Maildir`: what the protocol holds while a session lasts.

Nothing here touches a file: blocking work is handed to an `Offload`, so that where it runs is the
business of whoever opens the mailbox.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable
from typing import overload

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from qmailldap.interfaces import IMaildrop
from qmailldap.maildir.message import OpenMessage, StoredMessage, open_message
from qmailldap.maildir.storage import Failures, Listing, Maildir
from qmailldap.printable import printable
from qmailldap.threads import Offload

__all__ = ["MaildirMailbox", "open_mailbox"]

_log = Logger(namespace="qmailldap.maildir")


async def open_mailbox(
    offload: Offload,
    path: str | bytes,
    *,
    exclusively: Offload | None = None,
    time: Callable[[], float] = time.time,
) -> MaildirMailbox:
    """Open the Maildir at ``path`` for a session, its tmp/ tidied and its messages listed.

    ``exclusively`` is for the work that goes through the whole mailbox, where that is to be done by
    one session at a time; ``time`` gives the seconds since the epoch. Raises `MailboxMissing`,
    `MailboxCorrupted`, another ``OSError``, and what the offload itself fails with.
    """
    maildir = Maildir(os.fsencode(path), time=time)
    exclusively = exclusively or offload
    not_cleaned, listing = await exclusively(_begin, maildir)
    mailbox = MaildirMailbox(offload, exclusively, maildir, listing)
    mailbox._warn("not-cleaned", not_cleaned)
    return mailbox


def _begin(maildir: Maildir) -> tuple[Failures, Listing]:
    return maildir.clean_tmp(), maildir.scan()


@implementer(IMaildrop)
class MaildirMailbox:
    """A Maildir as one session sees it: the messages that were there when it was opened."""

    def __init__(
        self, offload: Offload, exclusively: Offload, maildir: Maildir, listing: Listing
    ) -> None:
        self._offload = offload
        self._exclusively = exclusively
        self._maildir = maildir
        self._listing = listing
        self._octets = sum(listing.sizes)
        self._deleted: set[int] = set()
        self._deleted_octets = 0
        # Those a descriptor is open for. Weak, for stock Twisted forgets messages without close().
        self._open: list[weakref.ref[StoredMessage]] = []
        self._closed = False
        self._syncing: list[Deferred[int]] = []
        self._synced: int | None = None

    @overload
    def listMessages(self, index: None = None) -> list[int]: ...

    @overload
    def listMessages(self, index: int) -> int: ...

    def listMessages(self, index: int | None = None) -> int | list[int]:
        """Octets of a message or of all, 0 for one marked for deletion."""
        if index is not None:
            self._check(index)
            return 0 if index in self._deleted else self._listing.sizes[index]
        sizes = self._listing.sizes.tolist()
        for deleted in self._deleted:
            sizes[deleted] = 0
        return sizes

    def messageCount(self) -> int:
        """How many messages there are, marked or not."""
        return len(self._listing.files)

    def dropListing(self) -> tuple[int, int]:
        """The count and octets of the messages that are not marked."""
        count = len(self._listing.files) - len(self._deleted)
        return count, self._octets - self._deleted_octets

    def getUidl(self, index: int) -> bytes:
        """The unique-id of a message, marked or not."""
        self._check(index)
        return self._listing.unique_id(index)

    def isDeleted(self, index: int) -> bool:
        """Whether a message is marked for deletion."""
        self._check(index)
        return index in self._deleted

    def deleteMessage(self, index: int) -> None:
        """Mark a message for deletion; nothing happens to it before `sync`."""
        self._check(index)
        if index not in self._deleted:
            self._deleted.add(index)
            self._deleted_octets += self._listing.sizes[index]

    def undeleteMessages(self) -> None:
        """Take all marks away."""
        self._deleted.clear()
        self._deleted_octets = 0

    def getMessage(self, index: int) -> Deferred[StoredMessage]:
        """Open a message, marked or not.

        Raises ``ValueError`` for a bad index. The Deferred fails with ``FileNotFoundError`` for a
        message that is gone, another ``OSError`` for one that cannot be read, and
        ``CancelledError`` when the mailbox is closed meanwhile.
        """
        self._check(index)
        # The caller has a Deferred of its own: cancelling it must not lose an open file.
        asked: Deferred[StoredMessage] = Deferred()
        self._offload(open_message, self._maildir, index).addBoth(self._opened, asked)
        return asked

    def sync(self) -> Deferred[int]:
        """Do what QUIT promises; a Deferred of how many marked messages could not be removed.

        It goes on to its end whatever becomes of the session. Once it has succeeded, further calls
        only tell the result.
        """
        if self._synced is not None:
            return succeed(self._synced)
        if not self._deleted and not self._listing.has_new:
            return succeed(0)
        asked: Deferred[int] = Deferred()
        self._syncing.append(asked)
        if len(self._syncing) == 1:
            marked = frozenset(self._deleted)
            self._exclusively(self._maildir.finish, marked).addBoth(self._finished)
        return asked

    def close(self) -> None:
        """The session has ended. Open messages are closed; an open or a sync that is still running
        in a thread is taken care of when it ends.
        """
        self._closed = True
        for message in self._open_messages():
            message.close()

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self._listing.files):
            raise ValueError(f"no message has the index {index}")

    def _open_messages(self) -> list[StoredMessage]:
        messages = (reference() for reference in self._open)
        return [message for message in messages if message is not None and message.holds_file]

    def _opened(self, result: OpenMessage | Failure, asked: Deferred[StoredMessage]) -> None:
        if isinstance(result, Failure):
            asked.errback(result)
            return
        message = StoredMessage(self._offload, result)
        if self._closed or asked.called:
            message.close()
            asked.errback(CancelledError())
            return
        if message.holds_file:
            self._open = [weakref.ref(other) for other in self._open_messages()]
            self._open.append(weakref.ref(message))
        asked.callback(message)

    def _finished(self, result: tuple[Failures, Failures] | Failure) -> None:
        waiting, self._syncing = self._syncing, []
        if isinstance(result, Failure):
            for asked in waiting:
                asked.errback(result)
            return
        not_removed, not_moved = result
        self._warn("not-removed", not_removed)
        self._warn("not-moved-to-cur", not_moved)
        self._synced = not_removed.count
        for asked in waiting:
            asked.callback(not_removed.count)

    def _warn(self, problem: str, failures: Failures) -> None:
        if failures.count:
            _log.warn(
                "mailbox path={path} problem={problem} count={count} first={first}",
                path=printable(self._maildir.path),
                problem=problem,
                count=failures.count,
                first=printable(os.fsencode(failures.first)),
            )
