"""All file work of one session on one object, as three plain calls that may block.

Where they run, in a thread or in a process of the mailbox's owner, is the business of `hands`. The
standard library only, as `storage`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Set
from typing import NamedTuple

from qmailldap.maildir.creation import folders_to_make, has_home, provide_home, provide_maildir
from qmailldap.maildir.dirmaker import Dirmaker
from qmailldap.maildir.dot_qmail import mailbox_in_dot_qmail
from qmailldap.maildir.maildirsize import Removed, is_current, keep_current
from qmailldap.maildir.reading import OpenMessage, open_messages
from qmailldap.maildir.scanning import Snapshot
from qmailldap.maildir.storage import Failures, Listing, Maildir, Updated
from qmailldap.quota import Quota

__all__ = [
    "Begun",
    "Entered",
    "Finished",
    "Place",
    "Rehearsal",
    "Unchanged",
    "Work",
    "find_mailbox",
    "programs_path",
]


class Place(NamedTuple):
    """Where an account's mail is, and how what is missing of it is made.

    ``home`` and ``mailbox`` are absolute paths, ``delivery`` is the mailbox as the record words it.
    ``dirmaker`` is the program that makes homes, called with ``environment``; None where there is
    none. ``asks_dot_qmail`` says that ~/.qmail may name another mailbox.
    """

    home: bytes
    mailbox: bytes
    delivery: bytes = b""
    quota: Quota = Quota()
    dirmaker: bytes | None = None
    environment: Mapping[bytes, bytes] = {}
    asks_dot_qmail: bool = False


class Begun(NamedTuple):
    """What a session finds: the path of the Maildir, its messages, and what was not tidied.

    ``quota_is_current`` says that maildirsize needs no attention where nothing is removed,
    ``was_made`` that something of the mailbox, or all of it, was missing and had to be made.
    ``snapshot`` is what the listing was made of, None where it is not to be relied on later.
    """

    path: bytes
    listing: Listing
    not_cleaned: Failures
    quota_is_current: bool
    was_made: bool = False
    snapshot: Snapshot | None = None


class Unchanged(NamedTuple):
    """A mailbox of which nothing is missing, and of whose messages all is known already.

    ``path`` and ``quota_is_current`` are those of `Begun`.
    """

    path: bytes
    quota_is_current: bool

    def with_listing(self, listing: Listing) -> Begun:
        """What the session finds, the messages being those that are known."""
        return Begun(self.path, listing, Failures(), self.quota_is_current)


class Entered(NamedTuple):
    """The path of the Maildir of a home that was entered, and whether it was missing before."""

    path: bytes
    was_made: bool


class Finished(NamedTuple):
    """What QUIT did not do; ``quota_problem`` is a line for the log, mostly empty."""

    not_removed: Failures
    not_moved: Failures
    quota_problem: str


class Rehearsal(NamedTuple):
    """What a session would find, and what it would make first.

    ``makes_home`` says that dirmaker would make the home, and with it whatever it likes; ``makes``
    are folders. ``listing`` is None where there is no Maildir yet.
    """

    makes_home: bool
    makes: tuple[bytes, ...]
    listing: Listing | None


class Work:
    """The file work of one session.

    `begin` comes first, or ``begun`` tells what it gave elsewhere; `enter` stands for itself. The
    other methods mean messages by their numbers in the listing, from 0. All raise ``OSError``:
    `MailboxMissing`, `MailboxCorrupted`, and `begin` `MailboxNotCreated`. ``time`` gives the
    seconds since the epoch.
    """

    def __init__(
        self, place: Place, begun: Begun | None = None, *, time: Callable[[], float] = time.time
    ) -> None:
        self._place = place
        self._time = time
        self._maildir = Maildir(place.mailbox, time=time)
        self._count = 0
        if begun is not None:
            self.resume(begun)

    def begin(self) -> Begun:
        """Make what is missing of the mailbox, tidy its tmp/, and list its messages."""
        maildir = self._find()
        to_be_made = not maildir.is_complete()
        if to_be_made:
            self._provide_home()
            # It may have got a .qmail with it, from a skeleton.
            maildir = self._find()
            provide_maildir(maildir.path)
        self._maildir = maildir
        not_cleaned, listing = maildir.clean_tmp(), maildir.scan()
        self._count = len(listing.files)
        quota_is_current = is_current(maildir.path, self._place.quota)
        snapshot = maildir.snapshot
        return Begun(maildir.path, listing, not_cleaned, quota_is_current, to_be_made, snapshot)

    def begin_again(self, token: bytes) -> Begun | Unchanged:
        """As `begin`, but look no further where all is as it was at the snapshot of that token.

        Then tmp/ is not tidied either, and `resume` has to tell the listing before it is used.
        """
        maildir = self._find()
        if maildir.is_unchanged(token):
            return Unchanged(maildir.path, is_current(maildir.path, self._place.quota))
        return self.begin()

    def resume(self, begun: Begun) -> None:
        """Go on with a session that was begun elsewhere, or whose listing was known already."""
        self._maildir = Maildir(begun.path, begun.listing, time=self._time)
        self._count = len(begun.listing.files)

    def rehearse(self) -> Rehearsal:
        """What `begin` would find and make, with nothing changed; raises as it does.

        Whether a dirmaker would succeed, nobody can tell.
        """
        maildir, place = self._find(), self._place
        if not maildir.is_complete() and not has_home(place.home, place.dirmaker is not None):
            return Rehearsal(True, (), None)
        makes = folders_to_make(maildir.path)
        listing = None if maildir.path in makes else maildir.scan()
        return Rehearsal(False, makes, listing)

    def enter(self) -> Entered:
        """Make what is missing of home and mailbox, and home the working directory.

        For programs that read the mailbox by themselves; raises as `begin`.
        """
        to_be_made = not self._find().is_complete()
        self._provide_home()
        os.chdir(self._place.home)
        path = self._find().path
        provide_maildir(path)
        return Entered(path, to_be_made)

    def fetch(self, number: int) -> list[OpenMessage]:
        """Open a message, and with it small ones that follow; see `open_messages`."""
        return open_messages(self._maildir, number, self._count)

    def finish(self, deleted: Set[int]) -> Finished:
        """The UPDATE state: what `Maildir.finish` does, and the quota kept in step with it."""
        updates: list[Updated] = []

        def remove() -> Removed:
            updated = self._maildir.finish(deleted)
            updates.append(updated)
            return Removed(updated.octets, updated.messages)

        problem = keep_current(self._maildir.path, self._place.quota, remove)
        return Finished(updates[0].not_removed, updates[0].not_moved, problem)

    def _find(self) -> Maildir:
        return Maildir(find_mailbox(self._place), time=self._time)

    def _provide_home(self) -> None:
        place = self._place
        dirmaker = None
        if place.dirmaker is not None:
            environment = {**place.environment, b"PATH": programs_path()}
            dirmaker = Dirmaker(place.dirmaker, place.delivery, environment)
        provide_home(place.home, dirmaker)


def programs_path() -> bytes:
    """The PATH along which a dirmaker is sought, and which it is given."""
    return os.environb.get(b"PATH", os.defpath.encode())


def find_mailbox(place: Place) -> bytes:
    """The absolute path of the mailbox. Raises ``OSError`` where ~/.qmail cannot be read."""
    mailbox = mailbox_in_dot_qmail(place.home) if place.asks_dot_qmail else None
    return mailbox or place.mailbox
