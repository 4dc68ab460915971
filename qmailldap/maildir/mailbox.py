"""The asynchronous front of a Maildir: what the protocol holds while a session lasts.

Nothing here touches a file: that is done by `Hands`, so that where it is done is the business of
whoever opens the mailbox. Only messages too large for one chunk are read from here, by files that
were opened there.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from typing import TypeVar, overload

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from qmailldap.interfaces import IMaildrop
from qmailldap.loglevel import Log, current_session
from qmailldap.maildir.hands import Hands
from qmailldap.maildir.message import StoredMessage
from qmailldap.maildir.reading import OpenMessage
from qmailldap.maildir.storage import Failures
from qmailldap.maildir.work import Begun, Finished
from qmailldap.printable import printable
from qmailldap.threads import Offload

__all__ = ["MaildirMailbox", "open_mailbox"]

T = TypeVar("T")

_log = Log(namespace="qmailldap.maildir")


async def open_mailbox(hands: Hands, offload: Offload) -> MaildirMailbox:
    """Open the mailbox that ``hands`` work on for a session, its messages listed.

    ``offload`` is where large messages are read. Raises what `Work.begin` raises, and what the
    hands themselves fail with.
    """
    try:
        begun = await hands.begin()
    except BaseException:
        hands.close()
        raise
    return MaildirMailbox(hands, offload, begun)


@implementer(IMaildrop)
class MaildirMailbox:
    """A Maildir as one session sees it: the messages that were there when it was opened."""

    def __init__(self, hands: Hands, offload: Offload, begun: Begun) -> None:
        self._hands = hands
        self._offload = offload
        self._path = begun.path
        self._listing = begun.listing
        self._octets = begun.listing.octets()
        self._must_update = begun.listing.has_new or not begun.quota_is_current
        self._deleted: set[int] = set()
        self._deleted_octets = 0
        # Small messages that were opened together with one that was asked for, by index.
        self._ahead: dict[int, OpenMessage] = {}
        # Those a descriptor is open for. Weak, for stock Twisted forgets messages without close().
        self._open: list[weakref.ref[StoredMessage]] = []
        self._closed = False
        self._syncing: list[Deferred[int]] = []
        self._synced: int | None = None
        # What the hands have done is told by callbacks, which are of no session.
        self._session = current_session.get()
        if begun.was_made:
            _log.info("mailbox path={path} made=what-was-missing", path=printable(begun.path))
        self._warn("not-cleaned", begun.not_cleaned)

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

    def sizes(self, start: int, stop: int) -> Sequence[int]:
        """The octets of the messages from ``start`` on and before ``stop``, marked or not."""
        return self._listing.sizes[start:stop]

    def uniqueIds(self, start: int, stop: int) -> Sequence[bytes]:
        """The unique-ids of these."""
        return self._listing.unique_ids(start, stop)

    def shared(self, make: Callable[[object], T]) -> T | None:
        """What ``make``, called with anything, gave for this listing once; see `IMaildrop`."""
        return self._listing.derived(make) if self._listing.is_shared else None

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

    def takeAtHand(self, index: int) -> bytes | None:
        """A whole message that was read ahead: not opened once more, and no longer kept."""
        self._check(index)
        ahead = self._ahead.get(index)
        if ahead is None or ahead.file is not None or len(ahead.first) != ahead.size:
            return None
        del self._ahead[index]
        return ahead.first

    def getMessage(self, index: int) -> Deferred[StoredMessage]:
        """Open a message, marked or not.

        Raises ``ValueError`` for a bad index. The Deferred fails with ``FileNotFoundError`` for a
        message that is gone, another ``OSError`` for one that cannot be read, and
        ``CancelledError`` when the mailbox is closed meanwhile.
        """
        self._check(index)
        ahead = self._ahead.pop(index, None)
        if ahead is not None:
            return succeed(self._hand_out(StoredMessage(self._offload, ahead)))
        self._ahead.clear()
        # The caller has a Deferred of its own: cancelling it must not lose an open file.
        asked: Deferred[StoredMessage] = Deferred()
        self._hands.fetch(index).addBoth(self._opened, index, asked)
        return asked

    def sync(self) -> Deferred[int]:
        """Do what QUIT promises; a Deferred of how many marked messages could not be removed.

        It goes on to its end whatever becomes of the session. Once it has succeeded, further calls
        only tell the result.
        """
        if self._synced is not None:
            return succeed(self._synced)
        if not self._deleted and not self._must_update:
            return succeed(0)
        asked: Deferred[int] = Deferred()
        self._syncing.append(asked)
        if len(self._syncing) == 1:
            marked = frozenset(self._deleted)
            self._hands.finish(marked).addBoth(self._finished)
        return asked

    def close(self) -> None:
        """The session has ended. Open messages are closed; an open or a sync that is still under
        way is taken care of when it ends.
        """
        self._closed = True
        self._ahead.clear()
        self._hands.close()
        for message in self._open_messages():
            message.close()

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self._listing.files):
            raise ValueError(f"no message has the index {index}")

    def _open_messages(self) -> list[StoredMessage]:
        messages = (reference() for reference in self._open)
        return [message for message in messages if message is not None and message.holds_file]

    def _opened(
        self, result: list[OpenMessage] | Failure, index: int, asked: Deferred[StoredMessage]
    ) -> None:
        if isinstance(result, Failure):
            asked.errback(result)
            return
        message = StoredMessage(self._offload, result[0])
        if self._closed or asked.called:
            message.close()
            asked.errback(CancelledError())
            return
        self._ahead = dict(enumerate(result[1:], index + 1))
        asked.callback(self._hand_out(message))

    def _hand_out(self, message: StoredMessage) -> StoredMessage:
        if message.holds_file:
            self._open = [weakref.ref(other) for other in self._open_messages()]
            self._open.append(weakref.ref(message))
        return message

    def _finished(self, result: Finished | Failure) -> None:
        waiting, self._syncing = self._syncing, []
        if isinstance(result, Failure):
            for asked in waiting:
                asked.errback(result)
            return
        self._warn("not-removed", result.not_removed)
        self._warn("not-moved-to-cur", result.not_moved)
        if result.quota_problem:
            self._warn("quota", Failures(1, result.quota_problem))
        self._synced = result.not_removed.files
        for asked in waiting:
            asked.callback(self._synced)

    def _warn(self, problem: str, failures: Failures) -> None:
        if failures.files:
            named = " session={session}" if self._session else ""
            _log.warn(
                "mailbox path={path} problem={problem} count={count} first={first}" + named,
                path=printable(self._path),
                problem=problem,
                count=failures.files,
                first=printable(os.fsencode(failures.first)),
                session=self._session,
            )
