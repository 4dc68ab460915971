"""The connections of one kind to one server: handed out, opened as needed, and bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from qmailldap.directory._client import Connection
from qmailldap.directory.errors import ServerTrouble

__all__ = ["GROWTH_PAUSE", "IDLE_LIMIT", "Pool"]

IDLE_LIMIT = 180.0
"""Seconds after which an unused connection is replaced rather than trusted: firewalls forget."""

GROWTH_PAUSE = 1.0
"""Seconds until a further connection is tried where some work and another could not be had."""


@attrs.define(eq=False)
class _Member:
    """A connection of the pool, how many hold it, and since when none does."""

    connection: Connection
    holders: int = 0
    idle_since: float = 0.0


class Pool:
    """At most ``size`` connections, each held by at most ``share`` at a time.

    One attempt to open a connection is under way at most, and everybody who has none waits for that
    one. When it fails and there is no connection, ``on_failure`` is called with the error and then
    all who wait fail with it.
    """

    def __init__(
        self,
        clock: IReactorTime,
        open_connection: Callable[[], Deferred[Connection]],
        *,
        size: int,
        share: int,
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._clock = clock
        self._open_connection = open_connection
        self._size = size
        self._share = share
        self._on_failure = on_failure
        self._members: list[_Member] = []
        self._waiting: deque[Deferred[Connection]] = deque()
        self._opening = False
        self._attempt: Deferred[None] | None = None
        self._era = 0  # an attempt begun in an earlier one is no longer wanted
        self._grow_at = 0.0
        self._handing_out = False
        self._again = False

    @property
    def alive(self) -> bool:
        """Whether there is a connection, or may soon be one."""
        return bool(self._members) or self._opening

    @property
    def connections(self) -> list[Connection]:
        """The open connections."""
        return [member.connection for member in self._members]

    def take_now(self) -> Connection | None:
        """A connection that is there, to be given back; None where one must be waited for."""
        if self._waiting:
            return None
        self._close_idle_since(self._clock.seconds() - IDLE_LIMIT)
        member = self._least_held()
        if member is None:
            return None
        member.holders += 1
        if member.holders > 1:
            self._grow()
        return member.connection

    def take(self) -> Deferred[Connection]:
        """A connection, to be given back. Fails with `ServerTrouble` when none can be opened."""
        waiter: Deferred[Connection] = Deferred(self._waiting.remove)
        self._waiting.append(waiter)
        self._hand_out()
        return waiter

    def give_back(self, connection: Connection) -> None:
        """No longer hold ``connection``, which may have been lost meanwhile."""
        for member in self._members:
            if member.connection is connection:
                member.holders -= 1
                member.idle_since = self._clock.seconds()
                break
        if self._waiting:
            self._hand_out()

    def forget(self, connection: Connection) -> None:
        """Take a lost connection out."""
        self._members = [m for m in self._members if m.connection is not connection]
        self._hand_out()

    def close_idle(self) -> None:
        """Close what nobody holds: what has ended one connection may have ended others unseen."""
        self._close_idle_since(self._clock.seconds())

    def drop_all(self, reason: str) -> None:
        """Leave nothing open: all that is under way or waits here fails."""
        members, self._members = self._members, []
        self._era += 1
        self._opening = False
        if self._attempt is not None:
            self._attempt.cancel()
        for member in members:
            member.connection.drop(reason)
        self._fail_waiting(reason)

    def _hand_out(self) -> None:
        """Give connections to those who wait, and open another if they are too few."""
        self._again = True
        if self._handing_out:  # what is handed out may come back before this returns
            return
        self._handing_out = True
        while self._again:
            self._again = False
            self._close_idle_since(self._clock.seconds() - IDLE_LIMIT)
            crowded = False
            while self._waiting and (member := self._least_held()) is not None:
                crowded = member.holders > 0
                member.holders += 1
                self._waiting.popleft().callback(member.connection)
            if self._waiting or crowded:
                self._grow()
        self._handing_out = False

    def _least_held(self) -> _Member | None:
        least, holders = None, self._share
        for member in self._members:
            if member.holders < holders:
                least, holders = member, member.holders
        return least

    def _close_idle_since(self, when: float) -> None:
        stale = [m for m in self._members if not m.holders and m.idle_since <= when]
        if not stale:
            return
        self._members = [member for member in self._members if member not in stale]
        for member in stale:
            member.connection.close()

    def _grow(self) -> None:
        if self._opening or len(self._members) >= self._size:
            return
        if self._members and self._clock.seconds() < self._grow_at:
            return
        self._opening = True
        self._attempt = Deferred.fromCoroutine(self._open_another())

    async def _open_another(self) -> None:
        era = self._era
        try:
            connection = await self._open_connection()
        except Exception as error:  # also CancelledError, which drop_all brings about
            if era == self._era:
                self._attempt_is_over()
                self._not_opened(error)
            return
        if era != self._era:
            connection.close()
            return
        self._attempt_is_over()
        self._members.append(_Member(connection, idle_since=self._clock.seconds()))
        self._hand_out()

    def _attempt_is_over(self) -> None:
        self._opening = False
        # What follows may come to drop_all, and an attempt cannot be cancelled by itself.
        self._attempt = None

    def _not_opened(self, error: Exception) -> None:
        if self._members:
            self._grow_at = self._clock.seconds() + GROWTH_PAUSE
        else:
            self._on_failure(error)
            self._fail_waiting(str(error))

    def _fail_waiting(self, reason: str) -> None:
        waiting, self._waiting = self._waiting, deque()
        while waiting:
            waiting.popleft().errback(ServerTrouble(reason))
