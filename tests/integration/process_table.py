"""The processes of a server and their rights, as /proc shows them."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import attrs

__all__ = ["Process", "living_processes", "resident"]

_PROC = Path("/proc")
_CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapAmb")


@attrs.frozen
class Process:
    """A process at the moment it was looked at; see proc(5).

    ``uids`` and ``gids`` are the real, effective and saved ones and those of the file system.
    ``capabilities`` are those that it has or may take.
    """

    pid: int
    parent: int
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    groups: tuple[int, ...]
    capabilities: int

    @property
    def owner(self) -> tuple[int, int]:
        """The user and the group that it is, by right and in every respect."""
        ids = {*zip(self.uids, self.gids, strict=True)}
        assert len(ids) == 1, f"{self} is more than one user"
        return ids.pop()

    @property
    def descriptors(self) -> dict[int, str]:
        """What it has open: ``socket:[1234]``, ``pipe:[1234]``, or a path."""
        folder = _PROC / str(self.pid) / "fd"
        return {int(each.name): os.readlink(each) for each in folder.iterdir()}

    @property
    def sockets(self) -> set[str]:
        return {each for each in self.descriptors.values() if each.startswith("socket:")}


def living_processes(group: int) -> list[Process]:
    """The processes of a process group, without those that have ended or are about to."""
    found = []
    for folder in _PROC.iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            text = (folder / "status").read_text("utf-8", "replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        # A process gives up its memory first when it ends.
        if int(fields["NSpgid"].split()[0]) == group and "VmRSS" in fields:
            found.append(_process(fields))
    return found


def resident(pid: int) -> int:
    """Octets of memory that a process has in use."""
    return int((_PROC / str(pid) / "statm").read_text().split()[1]) * resource.getpagesize()


def _process(fields: dict[str, str]) -> Process:
    def numbers(name: str) -> tuple[int, ...]:
        return tuple(map(int, fields[name].split()))

    capabilities = 0
    for name in _CAPABILITIES:
        capabilities |= int(fields[name], 16)
    return Process(
        pid=int(fields["Pid"]),
        parent=int(fields["PPid"]),
        uids=numbers("Uid"),
        gids=numbers("Gid"),
        groups=numbers("Groups"),
        capabilities=capabilities,
    )
