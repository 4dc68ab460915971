"""What one process knows of how things stand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.figures.latest import Latest
from qmailldap.forward.machines import MachineState
from qmailldap.present import Present
from qmailldap.status.part import Standing
from qmailldap.status.state import MOST_PLACES, Place

from .support import NOW


class MembersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.present = Present(Clock())
        self.known: list[MachineState] = []
        directory: Any = SimpleNamespace(servers=[])
        forwarder: Any = SimpleNamespace(machines=SimpleNamespace(known=lambda: self.known))
        self.standing = Standing(
            worker=1,
            started=NOW,
            loaded=lambda: NOW,
            directory=lambda: directory,
            forwarder=lambda: forwarder,
            present=self.present,
            latest=Latest(lambda: NOW),
            users=False,
        )

    def forwarded(self, member: str) -> None:
        # Nobody asks it anything.
        entry: Any = object()
        self.present.enter(entry, member)

    def members(self) -> tuple[Place, ...]:
        return self.standing.part().members

    def test_those_with_sessions_come_first_and_then_those_that_are_down(self) -> None:
        down = MachineState("c:110", False, (NOW - 9, "refused"))
        self.known = [MachineState(each, True, None) for each in ("a:110", "b:110")] + [down]
        for member in ("b:110", "", "b:110"):
            self.forwarded(member)
        self.assertEqual(
            self.members(),
            (
                Place(name="b:110", up=True, sessions=2),
                Place(name="c:110", up=False, failed=NOW - 9, why="refused"),
                Place(name="a:110", up=True),
            ),
        )

    def test_sessions_stay_with_a_machine_that_is_no_member_since_a_reload(self) -> None:
        self.known = [MachineState("new:110", True, None)]
        self.forwarded("old:110")
        self.assertEqual(
            self.members(),
            (Place(name="old:110", up=True, sessions=1), Place(name="new:110", up=True)),
        )

    def test_of_many_those_are_told_that_matter_most(self) -> None:
        self.known = [MachineState(f"{each:04}:110", True, None) for each in range(1000)]
        self.forwarded("0999:110")
        members = self.members()
        self.assertEqual(len(members), MOST_PLACES)
        self.assertEqual([each.name for each in members[:2]], ["0999:110", "0000:110"])
