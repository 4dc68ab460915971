"""The latest refusals of this process, for those who look at how things stand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import attrs

__all__ = ["MOST_LATEST", "Latest", "Refused"]

MOST_LATEST = 50
"""Refusals that are kept."""

_LONGEST_NAME = 128


@attrs.frozen
class Refused:
    """One: ``time`` in seconds since the epoch, ``reason`` and ``peer`` as in the log."""

    time: float
    reason: str
    peer: str
    user: bytes


class Latest:
    """``now`` tells the seconds since the epoch."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._kept: deque[Refused] = deque(maxlen=MOST_LATEST)

    def refused(self, reason: str, peer: str, user: bytes) -> None:
        self._kept.append(Refused(self._now(), reason, peer, user[:_LONGEST_NAME]))

    def __iter__(self) -> Iterator[Refused]:
        return iter([*self._kept])
