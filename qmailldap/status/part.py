"""What this process knows of how things stand, gathered when it is asked."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

import attrs

from qmailldap.directory import Directory
from qmailldap.figures.latest import Latest
from qmailldap.forward import Forwarder
from qmailldap.forward.machines import MachineState
from qmailldap.present import Present
from qmailldap.printable import printable
from qmailldap.status.state import MOST_PLACES, Part, Place, Refused

__all__ = ["Standing"]


@attrs.frozen(kw_only=True)
class Standing:
    """``directory``, ``forwarder`` and ``loaded`` give those in force and since when they are.

    ``worker`` is the number of this process, ``users`` says whether names of users may be told.
    """

    worker: int
    started: float
    loaded: Callable[[], float]
    directory: Callable[[], Directory]
    forwarder: Callable[[], Forwarder]
    present: Present
    latest: Latest
    users: bool

    def part(self) -> Part:
        return Part(
            worker=self.worker,
            started=self.started,
            loaded=self.loaded(),
            servers=self._servers(),
            members=self._members(),
            refusals=tuple(
                Refused(
                    time=each.time,
                    reason=each.reason,
                    peer=each.peer,
                    user=printable(each.user) if self.users and each.user else "",
                )
                for each in self.latest
            ),
        )

    def _servers(self) -> tuple[Place, ...]:
        return tuple(
            _place(str(each), each.up, each.last_failure, latency=each.latency)
            for each in self.directory().servers[:MOST_PLACES]
        )

    def _members(self) -> tuple[Place, ...]:
        """Those with sessions first, then those that are down."""
        sessions = self.present.by_member

        def place_in_line(machine: MachineState) -> tuple[int, bool, str]:
            return -sessions.get(machine.where, 0), machine.up, machine.where

        return tuple(
            _place(each.where, each.up, each.last_failure, sessions=sessions.get(each.where, 0))
            for each in heapq.nsmallest(MOST_PLACES, self._machines(), place_in_line)
        )

    def _machines(self) -> Iterator[MachineState]:
        """Those that new sessions may go to, and those where sessions are from before a reload."""
        known = self.forwarder().machines.known()
        yield from known
        for where in self.present.by_member.keys() - {each.where for each in known}:
            yield MachineState(where, True, None)


def _place(
    name: str,
    up: bool,
    failure: tuple[float, str] | None,
    *,
    latency: float | None = None,
    sessions: int = 0,
) -> Place:
    failed, why = failure or (None, "")
    return Place(name=name, up=up, latency=latency, failed=failed, why=why, sessions=sessions)
