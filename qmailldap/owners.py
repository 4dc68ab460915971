"""With whose rights the file work of an account is done.

In this process where it runs as the account's owner already, else by a keeper of that owner; where
there can be no keepers, another's mail is not touched at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from qmailldap.account import Account
from qmailldap.maildir.creation import MailboxNotCreated
from qmailldap.maildir.hands import Hands, InThreads
from qmailldap.maildir.listings import ListingCache, Mailbox
from qmailldap.maildir.storage import MailboxCorrupted, MailboxMissing
from qmailldap.maildir.work import Place, Work
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.threads import Busy, Offload

__all__ = ["Keepers", "Owners", "mailbox_refused", "not_its_owner", "place_of"]

_REFUSALS = (
    (MailboxMissing, Refusal.MAILBOX_MISSING),
    (MailboxCorrupted, Refusal.MAILBOX_CORRUPTED),
    (MailboxNotCreated, Refusal.MAILBOX_NOT_CREATED),
    (MemoryError, Refusal.OUT_OF_MEMORY),
)
"""What the errors mean with which a mailbox cannot be had; all others pass."""


class Keepers(Protocol):
    """What is asked of `qmailldap.privsep.pool.Keepers`."""

    def hands(
        self, owner: tuple[int, int], place: Place, listings: ListingCache | None = None
    ) -> Hands: ...


class Owners:
    """Finds hands for an account.

    ``offload`` is for work in this process; ``keepers`` is None where it was not started as root;
    ``dirmaker`` is the program that makes homes. ``own_ids`` tells as whom this process runs.
    ``listings`` keeps those of mailboxes that do not change; without it every session makes one.
    """

    def __init__(
        self,
        offload: Offload,
        keepers: Keepers | None,
        dirmaker: str | None,
        own_ids: Callable[[], tuple[int, int]] = lambda: (os.geteuid(), os.getegid()),
        listings: ListingCache | None = None,
    ) -> None:
        self._offload = offload
        self._keepers = keepers
        self._dirmaker = dirmaker
        self._own_ids = own_ids
        self._listings = listings

    def hands(self, account: Account) -> Hands:
        """Hands for one session. Raises `LoginRefused` where nobody may touch the mailbox."""
        uid, gid = self._own_ids()
        place = place_of(account, self._dirmaker)
        if self._keepers is not None and (account.uid, account.gid) != (uid, gid):
            return self._keepers.hands((account.uid, account.gid), place, self._listings)
        # Who was not started as root has no choice of groups.
        if account.uid == uid:
            mailbox = Mailbox(account.uid, account.gid, place.mailbox)
            return InThreads(self._offload, Work(place), self._listings, mailbox)
        raise not_its_owner(account, uid)


def place_of(account: Account, dirmaker: str | None) -> Place:
    """Where the account's mail is, and how what is missing of it is made."""
    return Place(
        home=os.fsencode(account.home),
        mailbox=os.fsencode(account.mailbox),
        delivery=os.fsencode(account.delivery),
        quota=account.quota,
        dirmaker=None if dirmaker is None else os.fsencode(dirmaker),
        environment=account.environment(),
        asks_dot_qmail=account.asks_dot_qmail,
    )


def not_its_owner(account: Account, uid: int) -> LoginRefused:
    """What to raise where the account's mail is not that of ``uid``, which is not root's."""
    return LoginRefused(
        Refusal.RECORD_INCORRECT,
        f"the mail belongs to uid {account.uid}, and this program, not started as root,"
        f" runs as uid {uid}",
    )


def mailbox_refused(
    error: Exception, account: Account, rights: tuple[int, int] | None = None
) -> LoginRefused:
    """What to raise where ``error`` keeps the account's mailbox from being had.

    It is an ``OSError``, `Busy` or a ``MemoryError``. ``rights`` are the uid and gid that were not
    enough, where they are not the account's.
    """
    refusal = next(
        (refusal for kind, refusal in _REFUSALS if isinstance(error, kind)), Refusal.TEMPORARY
    )
    if isinstance(error, OSError):
        return LoginRefused(refusal, _told(error, account, rights))
    reason = f": {error}" if isinstance(error, Busy) else ""
    return LoginRefused(refusal, f"{account.mailbox}{reason}")


def _told(error: OSError, account: Account, rights: tuple[int, int] | None) -> str:
    """What is wrong with which file, and for whom."""
    file = error.filename
    path = os.fsdecode(file) if isinstance(file, str | bytes) else account.mailbox
    uid, gid = rights or (account.uid, account.gid)
    return f"{path}: {error.strerror or error} (for uid {uid}, gid {gid})"
