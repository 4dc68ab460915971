"""So many at a time for each name, so that nobody's many logins keep everybody else waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, DeferredSemaphore, TimeoutError, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from qmailldap.threads import WAIT_LIMIT, Busy

__all__ = ["MOST_WAITING", "Turns"]

T = TypeVar("T")

MOST_WAITING = 20
"""How many may wait for their turn at each place of one name."""


class Turns:
    """``places`` by name, kept only while somebody holds or awaits one of them.

    ``wait`` is how long somebody does that, in seconds.
    """

    def __init__(self, clock: IReactorTime, places: int = 1, wait: float = WAIT_LIMIT) -> None:
        self._clock = clock
        self._places = places
        self._wait = wait
        self._names: dict[str, DeferredSemaphore] = {}

    async def take(self, name: str, work: Callable[[], Deferred[T]]) -> T:
        """What ``work()`` gives, once one of this name's places is free and all before are served.

        Cancelled while it waits, it gives up its turn. Cancelled later, it keeps it until the work
        is done: a thread or a server goes on with what it has begun, whoever has lost interest.
        Raises `Busy` when too many are waiting or the wait is too long, and what the work raises.
        """
        places = self._names.setdefault(name, DeferredSemaphore(self._places))
        if len(places.waiting) >= MOST_WAITING * self._places:
            raise Busy(f"{len(places.waiting)} sessions wait for {name}")
        try:
            await places.acquire().addTimeout(self._wait, self._clock)
        except TimeoutError:
            raise Busy(f"{name} was not free in time") from None
        asked: Deferred[T] = Deferred()

        def done(result: T | Failure) -> None:
            places.release()
            # Whoever was let in may be done already, and somebody new may hold new ones.
            if places.tokens == places.limit and self._names.get(name) is places:
                del self._names[name]
            if not asked.called:
                asked.callback(result)

        maybeDeferred(work).addBoth(done)
        return await asked
