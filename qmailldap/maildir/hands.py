"""Who does the file work of a session: the seam between a mailbox and the rights it needs."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from twisted.internet.defer import Deferred

from qmailldap.maildir.listings import ListingCache, Mailbox
from qmailldap.maildir.reading import OpenMessage
from qmailldap.maildir.work import Begun, Finished, Work
from qmailldap.threads import Offload
from qmailldap.turns import Turns

__all__ = ["Hands", "InThreads", "InTurn"]


class Hands(Protocol):
    """The calls of `Work`, done elsewhere.

    The Deferreds fail with what the calls raise and with `qmailldap.threads.Busy`. Cancelled, a
    call that has begun goes on to its end.
    """

    def begin(self) -> Deferred[Begun]: ...

    def fetch(self, number: int) -> Deferred[list[OpenMessage]]: ...

    def finish(self, deleted: frozenset[int]) -> Deferred[Finished]: ...

    def close(self) -> None:
        """The session has ended; calls under way go on."""


class InThreads:
    """In threads of this process, with its rights.

    With ``listings``, that of the ``mailbox`` is used where it has not changed.
    """

    def __init__(
        self,
        offload: Offload,
        work: Work,
        listings: ListingCache | None = None,
        mailbox: Mailbox | None = None,
    ) -> None:
        self._offload = offload
        self._work = work
        self._listings = listings
        self._mailbox = mailbox

    def begin(self) -> Deferred[Begun]:
        if self._listings is None or self._mailbox is None:
            return self._offload(self._work.begin)
        return Deferred.fromCoroutine(self._begin(self._listings, self._mailbox))

    async def _begin(self, listings: ListingCache, mailbox: Mailbox) -> Begun:
        begun = await listings.begin(
            mailbox,
            lambda: self._offload(self._work.begin),
            lambda token: self._offload(self._work.begin_again, token),
        )
        self._work.resume(begun)
        return begun

    def fetch(self, number: int) -> Deferred[list[OpenMessage]]:
        return self._offload(self._work.fetch, number)

    def finish(self, deleted: frozenset[int]) -> Deferred[Finished]:
        return self._offload(self._work.finish, deleted)

    def close(self) -> None:
        pass


class InTurn:
    """Other hands, where what goes through the whole mailbox is done by one session at a time.

    To list or update a large mailbox takes a while, and many sessions of one user would take all
    threads for it.
    """

    def __init__(self, hands: Hands, turns: Turns, mailbox: str) -> None:
        self._hands = hands
        self._turns = turns
        self._mailbox = mailbox

    def begin(self) -> Deferred[Begun]:
        return Deferred.fromCoroutine(self._turns.take(self._mailbox, self._hands.begin))

    def fetch(self, number: int) -> Deferred[list[OpenMessage]]:
        return self._hands.fetch(number)

    def finish(self, deleted: frozenset[int]) -> Deferred[Finished]:
        work = partial(self._hands.finish, deleted)
        return Deferred.fromCoroutine(self._turns.take(self._mailbox, work))

    def close(self) -> None:
        self._hands.close()
