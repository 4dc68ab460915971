"""CPU times and memory as Linux counts them in /proc; proc_pid_stat(5), proc_pid_smaps(5)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Usage", "available", "machine", "memory", "usage"]

_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """How many processes there are, and the seconds of CPU, user and system, that they took."""

    processes: int
    cpu: float


class _Process(NamedTuple):
    pid: int
    parent: int
    session: int
    ticks: int


def usage(leader: int) -> Usage:
    """All that a server has used so far; ``leader`` is its first process and leads its session.

    Counted are its descendants and whoever is in its session, so that one whose parent has ended
    is not lost. Of those that have ended the parent has the time (cutime, cstime), once it has
    waited for them.
    """
    ticks = [each.ticks for each in _family(leader)]
    return Usage(len(ticks), sum(ticks) / _PER_SECOND)


def memory(leader: int) -> list[int]:
    """The octets that each process of a server has in memory, of what it shares its part (Pss).

    Those of its sockets, which are the kernel's, are not among them.
    """
    octets = []
    for process in _family(leader):
        try:
            text = Path(f"/proc/{process.pid}/smaps_rollup").read_text("ascii")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        octets += [1024 * int(line.split()[1]) for line in text.splitlines() if line[:4] == "Pss:"]
    return octets


def available() -> int:
    """The octets of memory that programs may still take."""
    with open("/proc/meminfo", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    return 1024 * int(fields["MemAvailable"].split()[0])


def machine() -> float:
    """Seconds that all processors together were not idle, those taken by other machines too."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = file.readline().split()[1:9]
    user, nice, system, _idle, _waiting, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / _PER_SECOND


def _family(leader: int) -> list[_Process]:
    """Its descendants, and whoever is in its session."""
    processes = list(_all())
    family = {leader}
    size = 0
    while size < len(family):
        size = len(family)
        family |= {
            each.pid for each in processes if each.session == leader or each.parent in family
        }
    return [each for each in processes if each.pid in family]


def _all() -> Iterator[_Process]:
    for directory in Path("/proc").glob("[1-9]*"):
        try:
            text = (directory / "stat").read_text("utf-8", "replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        # The name, in parentheses, may hold anything. Fields below are numbered from 3, the state.
        fields = text.rpartition(")")[2].split()
        ticks = sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
        yield _Process(int(directory.name), int(fields[1]), int(fields[3]), ticks)
