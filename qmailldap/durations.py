"""How long checks took lately, so that what only pretends to check can take as long.

A refusal that comes sooner where there is nothing to check tells a stranger who exists.
"""

from __future__ import annotations

import random
from collections import deque

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

__all__ = ["Durations"]

_REMEMBERED = 64


class Durations:
    """The last times that one kind of check took, in seconds."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._taken: deque[float] = deque(maxlen=_REMEMBERED)

    def __bool__(self) -> bool:
        """Whether any is known."""
        return bool(self._taken)

    def add(self, seconds: float) -> None:
        """A check took so long."""
        self._taken.append(seconds)

    async def sit_out(self, begun: float) -> None:
        """Wait until as much time has passed since ``begun``, by the clock, as a check took.

        That is a random one of those known, one at least. Not at all where it has passed already.
        """
        left = begun + random.choice(self._taken) - self._clock.seconds()
        if left > 0:
            await deferLater(self._clock, left)
