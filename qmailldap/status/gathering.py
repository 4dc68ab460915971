"""What goes on in all processes of the server, asked for when somebody looks, and no more often."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

import qmailldap
from qmailldap.figures import Together, together
from qmailldap.status.gauges import LOOK
from qmailldap.status.state import Part, Sessions, State, latest, plain, together_of
from qmailldap.workers.crew import Crew

__all__ = ["FRESH", "Gathering", "state_of"]

FRESH = 1.0
"""Seconds that a state is good for: however many look, processes are asked once in that time."""


class Gathering:
    """Asks the ``crew``, whose ``part`` of this process it answers for.

    ``name`` gives what the server calls itself, ``workers`` how many processes serve.
    """

    def __init__(
        self,
        clock: IReactorTime,
        crew: Crew,
        part: Callable[[], Part],
        name: Callable[[], str],
        workers: int,
    ) -> None:
        self._clock = clock
        self._crew = crew
        self._name = name
        self._workers = workers
        self._state: State | None = None
        self._asking: Deferred[State] | None = None
        self._waiting: list[Deferred[State]] = []
        crew.answer("state", lambda _: part().to_json())

    def state(self) -> Deferred[State]:
        """As of the last second."""
        if self._state is not None and 0 <= self._clock.seconds() - self._state.now < FRESH:
            waiting: Deferred[State] = Deferred()
            waiting.callback(self._state)
            return waiting
        waiting = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        if self._asking is None:
            self._asking = Deferred.fromCoroutine(self._ask())
            self._asking.addBoth(self._asked)
        return waiting

    async def _ask(self) -> State:
        # Both at once: a process that does not answer is waited for once.
        figures, told = self._crew.ask("figures", LOOK), self._crew.ask("state")
        snapshots, parts = await figures, await told
        self._state = state_of(
            snapshots, parts, self._clock.seconds(), name=self._name(), workers=self._workers
        )
        return self._state

    def _asked(self, result: Any) -> None:
        self._asking = None
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(result)  # a Failure is one for all of them


def state_of(
    snapshots: Sequence[Any], parts: Sequence[Any], now: float, *, name: str, workers: int
) -> State:
    """What the answers of all processes come to."""
    known = [part for part in map(Part.from_json, parts) if part is not None]
    figures: Together = together(snapshots)
    expected = range(1, workers + 1) if workers > 1 else range(1)
    return State(
        now=now,
        name=plain(name),
        version=qmailldap.__version__,
        workers=workers,
        silent=tuple(sorted({*expected} - {part.worker for part in known})),
        started=min((part.started for part in known), default=now),
        loaded=max((part.loaded for part in known), default=now),
        sessions=Sessions(
            *(int(figures.value("sessions", kind)) for kind in ("local", "forwarded", "waiting"))
        ),
        logins=sum(
            int(figures.value("logins_total", outcome)) for outcome in ("ok-local", "ok-forwarded")
        ),
        refused=_refused(figures),
        octets=int(figures.value("octets_sent_total")),
        messages=int(figures.value("messages_sent_total")),
        servers=together_of(server for part in known for server in part.servers),
        members=together_of(member for part in known for member in part.members),
        refusals=latest(refusal for part in known for refusal in part.refusals),
        minutes=tuple(figures.history(now)),
    )


def _refused(figures: Together) -> int:
    outcomes = figures.values.get("logins_total", {})
    good = {("ok-local",), ("ok-forwarded",), ("abandoned",)}
    return int(sum(number for labels, number in outcomes.items() if labels not in good))
