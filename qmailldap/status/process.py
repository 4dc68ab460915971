"""What the kernel says of this process, as prometheus_client finds it out."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.process_collector import ProcessCollector
from twisted.internet.interfaces import IReactorTime

from qmailldap.figures import Tally

__all__ = ["register_process"]

_FRESH = 5.0
"""Seconds for which it holds: to count open files takes long where there are many."""

_CPU = "process_cpu_seconds_total"
_MICROSECONDS = 1_000_000
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

    tally.gauge(_CPU, lambda: int(process.read().get(_CPU, 0) * _MICROSECONDS))
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
        """The values by their names; some may be missing where /proc is."""
        now = self._clock.seconds()
        if not 0 <= now - self._read_at < _FRESH:
            self._read_at = now
            self._values = {
                sample.name: sample.value
                for family in self._collector.collect()
                for sample in family.samples
            }
        return self._values
