"""What workers have counted, of which nothing is lost when one ends."""

from __future__ import annotations

import json
from typing import Any

from qmailldap.figures import fold
from qmailldap.loglevel import Log
from qmailldap.workers.frames import MOST_OCTETS

__all__ = ["Counted"]

_NOTHING: dict[str, Any] = {"counters": [], "histograms": [], "gauges": [], "history": []}

_log = Log(namespace="qmailldap.workers")


class Counted:
    """The last "figures" of each worker that is there, and those of all that have ended.

    Figures are what `qmailldap.figures.Tally.snapshot` gives, in JSON, as octets.
    """

    def __init__(self) -> None:
        self._last: dict[int, bytes] = {}
        self._ended: dict[str, Any] = _NOTHING
        self.of_ended = b""
        """Empty while none has ended that had told of its own."""

    def keep(self, number: int, figures: bytes) -> None:
        """Those that worker ``number`` has told now."""
        self._last[number] = figures

    def last(self, number: int) -> bytes | None:
        """Those that it has told before."""
        return self._last.get(number)

    def worker_ended(self, number: int) -> None:
        """Another will begin at 0 in its place."""
        figures = self._last.pop(number, None)
        if figures is None:
            return
        # They are of a worker, who may say anything; then they are worth nothing.
        try:
            ended = fold(self._ended, json.loads(figures))
            octets = json.dumps(ended).encode("ascii")
        except Exception as error:
            _log.error(
                "workers worker={number} told figures that are none: {why}",
                number=number,
                why=type(error).__name__,
            )
            return
        if len(octets) < MOST_OCTETS // 2:
            self._ended, self.of_ended = ended, octets
