"""Listings that are kept from one session to the next: most sessions find nothing new.

A listing is used again where new/ and cur/ are the same directories and their mtime and ctime the
same as when they were read. Every file that comes, goes or is renamed sets both times of its
directory to what the file system's clock shows, so all depends on that clock showing something
else by then. It does not within one tick: a message that comes right after the reading, within the
tick of the change before, leaves no trace. Nor does it where it is set back. So a listing is kept
only if

- the times had been seen already in another session, `SETTLED` seconds before the reading began,
  as this process measures seconds. Whatever the clock of the file system shows, perhaps that of
  another machine and wrong by hours, it has gone on for so long since;
- and the latest of the times was `SETTLED` seconds ago when the reading began, by our own clock. On
  a local disk this is the same clock, and so holds even where it was set back before; times in the
  future are never relied on.

It is used until our clock is found to have been set back, for `LONGEST` at most, and not before
whoever does the file work has looked at the directories again. What this assumes of a file system:

- its clock ticks at least every two seconds, and goes on about as fast as ours does;
- it is not set back unless ours is, nor ours back and forth between two sessions. Where it is, a
  message that comes at the very tick of the change before could be hidden, until the next change
  or for `LONGEST`;
- opening a directory asks the server what it is like now (for NFS, no mount option ``nocto``). A
  scan, too, could see no more than that tells.

What is not in the directories is taken to be as it was: the sizes of messages whose names do not
tell them. A message in a Maildir is never written to; where somebody does, the file is newer than
its directory, and `scanning` gives no snapshot to rely on. Once a listing is kept, only the size
that is listed could be wrong: what is sent is always the file as it is.

A session's own update changes the directories as well as anybody's, so nothing need be told here.
Everything is looked up and kept by owner and path: no keeper can speak of another owner's mail.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeAlias

from qmailldap.maildir.names import PRINTABLE
from qmailldap.maildir.scanning import SETTLED, Snapshot
from qmailldap.maildir.storage import Listing
from qmailldap.maildir.work import Begun, Unchanged

__all__ = ["LONGEST", "MOST_OCTETS", "Begin", "BeginAgain", "ListingCache", "Mailbox"]

MOST_OCTETS = 64 * 1024 * 1024
"""Octets that listings may take by default: some 32 of 10,000 messages, or 30,000 usual ones."""

LONGEST = 6 * 3600.0
"""Seconds that a listing is used, and so also until tmp/ is tidied in a mailbox that rests."""

_STEP = 0.5
"""Seconds by which our clock may seem to have been set back, as it is read in two calls."""

_AN_ENTRY = 700
"""Octets that it takes to remember a mailbox at all."""

_A_MESSAGE = 96
"""Octets of a message in a listing, and in what sessions make of it, without its name."""

_A_NAME = 100
"""Octets of a name that is there twice, without itself."""


class Mailbox(NamedTuple):
    """Whose mailbox at which path, as the account says it."""

    uid: int
    gid: int
    path: bytes


Begin: TypeAlias = Callable[[], Awaitable[Begun]]
BeginAgain: TypeAlias = Callable[[bytes], Awaitable[Begun | Unchanged]]
"""`Work.begin` and `Work.begin_again`, wherever they are done."""


class _Entry(NamedTuple):
    """What is remembered of a mailbox.

    ``seen`` is when the times of its folders were first seen to be those of the token. ``listing``
    is None until it may be kept; ``read`` is when it was made, and ``offset`` how far our clock was
    ahead of the monotonic one. Both are in seconds of the latter.
    """

    token: bytes
    seen: float
    listing: Listing | None = None
    read: float = 0.0
    offset: float = 0.0
    octets: int = _AN_ENTRY


class ListingCache:
    """The listings of the mailboxes that were looked at last, ``most_octets`` of them.

    ``monotonic`` and ``time`` are clocks in seconds; the second is that of our file systems, which
    may be set.
    """

    def __init__(
        self,
        most_octets: int = MOST_OCTETS,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        time: Callable[[], float] = time.time,
    ) -> None:
        self._most = most_octets
        self._monotonic = monotonic
        self._time = time
        # The one that was used last is the last.
        self._entries: OrderedDict[Mailbox, _Entry] = OrderedDict()
        self._octets = 0
        self.hits = 0
        """Sessions whose mailbox had not changed since it was listed."""
        self.misses = 0
        """Sessions for which it was listed."""

    @property
    def octets(self) -> int:
        """About how many octets of memory are taken."""
        return self._octets

    @property
    def mailboxes(self) -> int:
        """How many are remembered, with a listing or without."""
        return len(self._entries)

    async def begin(self, mailbox: Mailbox, begin: Begin, begin_again: BeginAgain) -> Begun:
        """Begin a session in the mailbox, with its listing made anew only where that is needed."""
        known = self._usable(mailbox)
        began, began_at = self._monotonic(), self._time()
        if known is None or known.listing is None:
            found: Begun | Unchanged = await begin()
        else:
            found = await begin_again(known.token)
            if isinstance(found, Unchanged):
                self.hits += 1
                return found.with_listing(known.listing)
        self.misses += 1
        assert isinstance(found, Begun), "nothing is unchanged that nobody knows"
        self._learn(mailbox, found, began, began_at)
        return found

    def _usable(self, mailbox: Mailbox) -> _Entry | None:
        """What is known of a mailbox; its listing, if there is one, may be used where the mailbox
        has not changed.
        """
        entry = self._entries.get(mailbox)
        if entry is None:
            return None
        self._entries.move_to_end(mailbox)
        if entry.listing is not None:
            now = self._monotonic()
            if self._time() - now < entry.offset - _STEP:
                self._forget(mailbox)
                return None
            if now - entry.read > LONGEST:
                return entry._replace(listing=None)
        return entry

    def _learn(self, mailbox: Mailbox, begun: Begun, began: float, began_at: float) -> None:
        snapshot = begun.snapshot
        before = self._forget(mailbox)
        if snapshot is None:
            return
        if before is None or before.token != snapshot.token:
            # Not the time when it began: the times that were seen may be younger.
            self._keep(mailbox, _Entry(snapshot.token, self._monotonic()))
        elif not _is_settled(before, snapshot, began, began_at):
            self._keep(mailbox, before._replace(listing=None, octets=_AN_ENTRY))
        else:
            octets = _octets_of(begun.listing)
            listing = None
            if octets <= self._most // 2:
                listing = begun.listing
                listing.share()
            self._keep(
                mailbox,
                before._replace(
                    listing=listing,
                    read=began,
                    offset=began_at - began,
                    octets=octets if listing else _AN_ENTRY,
                ),
            )

    def _keep(self, mailbox: Mailbox, entry: _Entry) -> None:
        self._entries[mailbox] = entry
        self._octets += entry.octets
        while self._octets > self._most:
            self._forget(next(iter(self._entries)))

    def _forget(self, mailbox: Mailbox) -> _Entry | None:
        entry = self._entries.pop(mailbox, None)
        if entry is not None:
            self._octets -= entry.octets
        return entry


def _is_settled(before: _Entry, snapshot: Snapshot, began: float, began_at: float) -> bool:
    """Whether whatever changes behind a reading that began then shows in the folders' times."""
    least = SETTLED + _STEP
    return began - before.seen >= least and began_at - snapshot.newest / 1e9 >= least


def _octets_of(listing: Listing) -> int:
    """About what the listing takes, and what sessions have made of it."""
    names = b"".join(listing.files)
    texts = len(names) + 2 * len(names.translate(None, PRINTABLE))
    twice = sum(map(len, listing.ambiguous)) + len(listing.ambiguous) * _A_NAME
    return _AN_ENTRY + len(listing.files) * _A_MESSAGE + len(names) + texts + twice
