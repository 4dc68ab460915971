"""The last hour, minute by minute: logins, refusals, and how many sessions there were at most."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs

__all__ = ["LAST_MINUTES", "History", "Minute", "merged", "minutes"]

LAST_MINUTES = 60
"""Minutes that are kept, the one under way included."""

Row = list[int]
"""A minute as it is handed on: its number since the epoch, logins, refusals, most sessions."""


@attrs.frozen
class Minute:
    """One minute: ``at`` is its begin in seconds since the epoch.

    ``sessions`` is how many there were at the same time, at most. Of several workers it is the sum
    of what each had at most, which may be more than there ever were together.
    """

    at: int
    logins: int = 0
    refusals: int = 0
    sessions: int = 0


class History:
    """What happened in this process; ``now`` tells the seconds since the epoch."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._minutes: dict[int, Row] = {}
        self._sessions = 0

    def login(self) -> None:
        self._minute()[1] += 1

    def refusal(self) -> None:
        self._minute()[2] += 1

    def sessions(self, change: int) -> None:
        """So many have come, or left where it is negative."""
        minute = self._minute()
        self._sessions += change
        minute[3] = max(minute[3], self._sessions)

    def rows(self) -> list[Row]:
        """What is kept, oldest first; a minute in which there was nothing may be missing."""
        self._minute()
        return [list(row) for row in self._minutes.values()]

    def _minute(self) -> Row:
        number = int(self._now()) // 60
        row = self._minutes.get(number)
        if row is None:
            row = self._begin(number)
        return row

    def _begin(self, number: int) -> Row:
        if self._minutes:
            last = next(reversed(self._minutes))
            if number <= last - LAST_MINUTES:
                # The clock was wrong by far, and nothing was when it said.
                self._minutes.clear()
                last = number
            elif number < last:
                # The clock was set back: time goes on where it was.
                return self._minutes[last]
            # Sessions that stayed on were there in the minutes between, too.
            for between in range(max(last + 1, number - LAST_MINUTES + 1), number):
                self._minutes[between] = [between, 0, 0, self._sessions]
        row = self._minutes[number] = [number, 0, 0, self._sessions]
        for old in [each for each in self._minutes if each <= number - LAST_MINUTES]:
            del self._minutes[old]
        return row


def merged(first: Iterable[Any], second: Iterable[Any]) -> list[Row]:
    """The rows of two processes as those of one: the last `LAST_MINUTES` of them."""
    rows: dict[int, Row] = {}
    for number, *counts in [*first, *second]:
        before = rows.get(number, [number, 0, 0, 0])
        rows[number] = [number, *(a + b for a, b in zip(before[1:], counts, strict=True))]
    newest = max(rows, default=0)
    return [rows[number] for number in sorted(rows) if number > newest - LAST_MINUTES]


def minutes(rows: Iterable[Any], now: float) -> list[Minute]:
    """The last `LAST_MINUTES` until ``now``, oldest first, those without anything included."""
    known = {number: counts for number, *counts in rows}
    last = int(now) // 60
    return [
        Minute(number * 60, *known.get(number, ()))
        for number in range(last - LAST_MINUTES + 1, last + 1)
    ]
