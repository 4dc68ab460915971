"""What a worker is given by its supervisor, in its arguments and its descriptors."""

from __future__ import annotations

import os
from collections.abc import Sequence

import attrs
from twisted.python import usage

from qmailldap.options import Options

__all__ = ["HEARS", "SAYS", "Inheritance", "WorkerOptions"]

HEARS = 0
"""The descriptor of a pipe by which a worker is told and asked; its end is the supervisor's."""
SAYS = 3
"""The descriptor of one by which it answers and asks."""

_FIRST = 4


def _descriptor(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"a descriptor is a number, not {text!r}")
    return int(text)


def _descriptors(text: str) -> tuple[int, ...]:
    return tuple(_descriptor(each) for each in text.split(",") if each)


@attrs.frozen(kw_only=True)
class Inheritance:
    """What worker ``number``, of 1 and above, has of its supervisor's.

    ``scores``, ``counts`` and ``ports`` are descriptors, the ports in the order of the options.
    ``snapshot`` is one of sealed memory with the control files that are in force.
    ``relayed`` says that its log is a pipe that the supervisor reads. ``start`` is the directory
    from which relative paths go, ``reactor`` the module of the supervisor's.
    """

    number: int
    scores: int
    counts: int
    ports: tuple[int, ...]
    relayed: bool
    start: str
    reactor: str
    snapshot: int | None = None

    def arguments(self) -> list[str]:
        """As `WorkerOptions` reads them."""
        return [
            f"--number={self.number}",
            *(["--relayed"] if self.relayed else []),
            f"--scores={self.scores}",
            f"--counts={self.counts}",
            f"--ports={','.join(map(str, self.ports))}",
            f"--start={self.start}",
            f"--reactor={self.reactor}",
            *([] if self.snapshot is None else [f"--snapshot={self.snapshot}"]),
        ]

    def handed_over(self) -> tuple[Inheritance, dict[int, int]]:
        """The same as the worker sees it, and of each descriptor there which one here it is."""
        ours = self._descriptors()
        theirs = {_FIRST + place: descriptor for place, descriptor in enumerate(ours)}
        scores, counts, *others = theirs
        snapshot = None if self.snapshot is None else others.pop()
        seen = attrs.evolve(
            self, scores=scores, counts=counts, ports=tuple(others), snapshot=snapshot
        )
        return seen, theirs

    def keep_to_this_process(self) -> None:
        """What a worker starts in turn gets none of what it was given."""
        for descriptor in (HEARS, SAYS, *self._descriptors()):
            os.set_inheritable(descriptor, False)

    def _descriptors(self) -> list[int]:
        return [
            *(self.scores, self.counts, *self.ports),
            *([] if self.snapshot is None else [self.snapshot]),
        ]


class WorkerOptions(Options):
    """The options of the server, and an `Inheritance` besides."""

    optFlags = [["relayed", None, "The log is a pipe that the supervisor reads"]]
    optParameters = [
        ["number", None, None, "Which of the workers this is", int],
        ["scores", None, None, "The descriptor of the scores of wrong passwords", _descriptor],
        ["counts", None, None, "The descriptor of the counts of all workers", _descriptor],
        ["ports", None, None, "The descriptors of the ports", _descriptors],
        ["start", None, None, "Where relative paths begin"],
        ["reactor", None, None, "The module of the reactor"],
        ["snapshot", None, None, "The descriptor of the control files in force", _descriptor],
    ]

    def inheritance(self) -> Inheritance:
        return Inheritance(
            number=self["number"],
            scores=self["scores"],
            counts=self["counts"],
            ports=self["ports"],
            relayed=bool(self["relayed"]),
            start=self["start"],
            reactor=self["reactor"],
            snapshot=self["snapshot"],
        )

    def postOptions(self) -> None:
        super().postOptions()
        for name in ("number", "scores", "counts", "ports", "start", "reactor"):
            if self[name] is None:
                raise usage.UsageError(f"--{name} is missing: workers are started by the server")

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> WorkerOptions:
        """Raises ``UsageError``."""
        options = cls()
        options.parseOptions(list(arguments))
        return options
