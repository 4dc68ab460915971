"""The searches for logins that are under way: one for all who ask for the same login meanwhile.

Nothing is remembered: a search that has come to something is joined by nobody.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from qmailldap.account import Entry
from qmailldap.directory.errors import DirectoryUnavailable, EntryTooLarge

__all__ = ["Lookups"]

Entries = tuple[Entry, ...]


class Lookups:
    """What ``search`` finds for logins; it is asked for each of them once at a time.

    ``search`` is cancelled when the last of those who waited for it has left. ``joined`` is called
    for each who is answered by the search of another.
    """

    def __init__(
        self,
        search: Callable[[bytes], Deferred[Entries]],
        joined: Callable[[], None] = lambda: None,
    ) -> None:
        self._search = search
        self._joined = joined
        self._under_way: dict[bytes, _Lookup] = {}

    def find(self, login: bytes) -> Deferred[Entries]:
        """What is found for these very octets, by a search that may have begun before.

        Each Deferred may be cancelled by itself, and fails with an exception of its own.
        """
        lookup = self._under_way.get(login)
        if lookup is not None:
            self._joined()
            return lookup.join()
        lookup = self._under_way[login] = _Lookup(login, self._under_way)
        found = lookup.join()
        lookup.begin(self._search(login))
        return found

    def stop(self) -> None:
        """Cancel what is under way; those who wait are told what ``search`` makes of that."""
        for lookup in list(self._under_way.values()):
            lookup.stop()


@attrs.define(eq=False)
class _Lookup:
    """One search, and those who wait for it, in the order in which they came.

    It is among those of its ``login`` that are ``under_way`` until it has come to something or is
    given up, and not a moment longer.
    """

    _login: bytes
    _under_way: dict[bytes, _Lookup]
    _waiting: list[Deferred[Entries]] = attrs.field(factory=list)
    _search: Deferred[None] | None = None

    def join(self) -> Deferred[Entries]:
        waiter: Deferred[Entries] = Deferred(self._left)
        self._waiting.append(waiter)
        return waiter

    def begin(self, search: Deferred[Entries]) -> None:
        self._search = search.addBoth(self._came_to)

    def stop(self) -> None:
        if self._search is not None:
            self._search.cancel()

    def _left(self, waiter: Deferred[Entries]) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)
            if not self._waiting:
                del self._under_way[self._login]
                self.stop()

    def _came_to(self, result: Entries | Failure) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            # Before anybody is told, who may ask again.
            del self._under_way[self._login]
        for waiter in waiting:
            if waiter.called:
                continue  # One of the others has had it leave.
            if isinstance(result, Failure):
                waiter.errback(result)
                result = _another(result)
            else:
                waiter.callback(result)


def _another(failure: Failure) -> Failure:
    """The same failure for somebody else: an exception grows a traceback wherever it is raised."""
    if isinstance(failure.value, (DirectoryUnavailable, EntryTooLarge)):
        return Failure(copy.copy(failure.value))
    return failure
