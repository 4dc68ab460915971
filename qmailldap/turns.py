"""One at a time for each name, so that nobody's many logins keep everybody else waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, DeferredLock, TimeoutError, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

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

    async def take(self, name: str, work: Callable[[], Deferred[T]]) -> T:
        """What ``work()`` gives, when everybody who came before for this name has done theirs.

        Cancelled while it waits, it gives up its turn. Cancelled later, it keeps it until the work
        is done: a thread or a server goes on with what it has begun, whoever has lost interest.
        Raises `Busy` when too many are waiting or the wait is too long, and what the work raises.
        """
        lock = self._locks.setdefault(name, DeferredLock())
        if len(lock.waiting) >= MOST_WAITING:
            raise Busy(f"{MOST_WAITING} sessions wait for {name}")
        try:
            await lock.acquire().addTimeout(WAIT_LIMIT, self._clock)
        except TimeoutError:
            raise Busy(f"{name} was not free in time") from None
        asked: Deferred[T] = Deferred()

        def done(result: T | Failure) -> None:
            lock.release()
            # Whoever was let in may be done already, and somebody new may hold a new lock.
            if not lock.locked and self._locks.get(name) is lock:
                del self._locks[name]
            if not asked.called:
                asked.callback(result)

        maybeDeferred(work).addBoth(done)
        return await asked
