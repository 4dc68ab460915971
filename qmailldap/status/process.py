"""What the kernel says of this process, most of it as prometheus_client finds it out."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.process_collector import ProcessCollector
from twisted.internet.interfaces import IReactorTime

from qmailldap.figures import Tally

__all__ = ["register_process"]

_FRESH = 5.0
"""Seconds for which it holds: to count open files takes long where there are many."""

_NANOSECONDS = 1000
"""In a microsecond."""

_BY_WORKER = (
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
)


def register_process(tally: Tally, worker: int, clock: IReactorTime) -> None:
    """Have ``tally`` read it of this process, which is the ``worker`` of that number."""
    process = _Process(clock)

    def reader(name: str) -> Callable[[], dict[str, float]]:
        def read() -> dict[str, float]:
            found = process.read()
            return {str(worker): found[name]} if name in found else {}

        return read

    # Which is known even where all that the library reads in /proc is not, as where systemd has
    # ProcSubset=pid.
    tally.gauge("process_cpu_seconds_total", lambda: time.process_time_ns() // _NANOSECONDS)
    for name in _BY_WORKER:
        tally.gauge(name, reader(name))


class _Process:
    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        # In a registry of its own: the library's is of one process, and open to all.
        self._collector = ProcessCollector(registry=CollectorRegistry())
        self._read_at = float("-inf")
        self._values: dict[str, float] = {}

    def read(self) -> dict[str, float]:
        """The values by their names; all may be missing where some of /proc is."""
        now = self._clock.seconds()
        if not 0 <= now - self._read_at < _FRESH:
            self._read_at = now
            self._values = {
                sample.name: sample.value
                for family in self._collector.collect()
                for sample in family.samples
            }
        return self._values
