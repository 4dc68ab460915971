"""One at a time for each name, so that nobody's many logins keep everybody else waiting."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from twisted.internet.defer import DeferredLock, TimeoutError
from twisted.internet.interfaces import IReactorTime

from qmailldap.threads import WAIT_LIMIT, Busy

__all__ = ["MOST_WAITING", "Turns"]

T = TypeVar("T")

MOST_WAITING = 20
"""How many may wait for their turn at one name."""


class Turns:
    """Locks by name, kept only while somebody holds or awaits them."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._locks: dict[str, DeferredLock] = {}

    async def take(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        """``work()``, when everybody who came before for this name has done theirs.

        Raises `Busy` when too many are waiting or the wait is too long, and what the work raises.
        """
        lock = self._locks.setdefault(name, DeferredLock())
        if len(lock.waiting) >= MOST_WAITING:
            raise Busy(f"{MOST_WAITING} sessions wait for {name}")
        try:
            await lock.acquire().addTimeout(WAIT_LIMIT, self._clock)
        except TimeoutError:
            raise Busy(f"{name} was not free in time") from None
        try:
            return await work()
        finally:
            lock.release()
            # Whoever was let in may be done already, and somebody new may hold a new lock.
            if not lock.locked and self._locks.get(name) is lock:
                del self._locks[name]
