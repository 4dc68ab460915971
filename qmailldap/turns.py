"""So many at a time for each name, so that nobody's many logins keep everybody else waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, TimeoutError
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
        self._names: dict[str, _Places] = {}

    async def take(self, name: str, work: Callable[[], Deferred[T]]) -> T:
        """What ``work()`` gives, once one of this name's places is free and all before are served.

        Cancelled while it waits, it gives up its turn. Cancelled later, it keeps it until the work
        is done: a thread or a server goes on with what it has begun, whoever has lost interest.
        Raises `Busy` when too many are waiting or the wait is too long, and what the work raises.
        """
        places = self._names.get(name)
        if places is None:
            places = self._names[name] = _Places()
        if places.taken < self._places and not places.waiting:
            places.taken += 1
        elif len(places.waiting) >= MOST_WAITING * self._places:
            raise Busy(f"{len(places.waiting)} sessions wait for {name}")
        else:
            turn: Deferred[None] = Deferred(places.waiting.remove)
            places.waiting.append(turn)
            try:
                await turn.addTimeout(self._wait, self._clock)
            except TimeoutError:
                raise Busy(f"{name} was not free in time") from None
        try:
            working = work()
        except BaseException:
            self._leave(name, places)
            raise
        asked: Deferred[T] = Deferred()

        def done(result: T | Failure) -> None:
            self._leave(name, places)
            if not asked.called:
                asked.callback(result)

        working.addBoth(done)
        return await asked

    def _leave(self, name: str, places: _Places) -> None:
        places.taken -= 1
        if places.serving:
            # Work that was done at once: whoever let it in lets the next one in, or the stack would
            # grow with all who wait.
            return
        places.serving = True
        while places.waiting and places.taken < self._places:
            places.taken += 1
            places.waiting.popleft().callback(None)
        places.serving = False
        if not places.taken:
            del self._names[name]


class _Places:
    """Of one name: how many places are taken, and those who wait for one, whose Deferreds give it
    to them. ``serving`` says that they are being given it just now.
    """

    __slots__ = ("serving", "taken", "waiting")

    def __init__(self) -> None:
        self.taken = 0
        self.serving = False
        self.waiting: deque[Deferred[None]] = deque()
