"""What a worker is given by its supervisor, in its arguments and its descriptors."""

from __future__ import annotations

import os
from collections.abc import Sequence

import attrs
from twisted.python import usage

from qmailldap.options import Options

__all__ = ["LIFELINE", "Inheritance", "WorkerOptions"]

LIFELINE = 0
"""The descriptor that a worker reads the end of its supervisor from; nothing is ever written."""

_FIRST = 3


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
        ]

    def handed_over(self) -> tuple[Inheritance, dict[int, int]]:
        """The same as the worker sees it, and of each descriptor there which one here it is."""
        ours = [self.scores, self.counts, *self.ports]
        theirs = {_FIRST + place: descriptor for place, descriptor in enumerate(ours)}
        scores, counts, *ports = theirs
        seen = attrs.evolve(self, scores=scores, counts=counts, ports=tuple(ports))
        return seen, theirs


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


def keep_to_this_process(inherited: Inheritance) -> None:
    """What a worker starts in turn gets none of what it was given."""
    for descriptor in (LIFELINE, inherited.scores, inherited.counts, *inherited.ports):
        os.set_inheritable(descriptor, False)
