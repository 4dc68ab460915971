"""Who is on, in this process: every connection from when it is accepted until it is gone.

What a session says, and how one of its kind is ended, is the business of its room. Here is whom to
ask, and the order of the end: who is idle is told at once, who is at work may end that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater

from qmailldap.loglevel import Log
from qmailldap.printable import escaped

__all__ = ["QUIET", "Entry", "Kicked", "Presence", "Present", "name_of"]

QUIET = 1.0
"""Seconds without a word after which nobody waits for another: a program that is in the middle of
a poll has said the next by then."""

_PATIENT = 0.5
"""The part of the time in which a session may begin further commands."""

_PAUSE = 0.25
"""Seconds between two looks at those who are left."""

_AT_ONCE = 100
"""Sessions that are looked at, or ended, in one go; others have their turn before the next."""

_LAST_WORDS = 0.1
"""Seconds in which what is written at the very end is to get out."""

_log = Log(namespace="qmailldap.present")


@attrs.frozen(kw_only=True)
class Presence:
    """One connection as it is at the moment; all texts may be shown as they are.

    ``id`` is its name in the log, ``user`` who has logged in and ``host`` the client's address, as
    there. ``since`` are seconds since 1970. ``kind`` is ``waiting`` before the login, then
    ``local`` or ``forwarded``. ``doing`` is the command under way without its arguments, empty
    while there is none. ``octets`` are those of messages that were sent, or all to the client where
    another member serves it: ``member``, its address and port. ``tls`` is as in the log: the
    version, ``proxy`` or ``no``.
    """

    id: str = ""
    user: str = ""
    host: str = ""
    since: float = 0.0
    kind: str = "waiting"
    doing: str = ""
    octets: int = 0
    tls: str = "no"
    member: str = ""


def name_of(user: bytes) -> str:
    """A user's name as a `Presence` has it: as it is, but for what cannot be shown."""
    return escaped(user.decode("utf-8", "backslashreplace"))


class Entry(Protocol):
    """A connection, as those see it who list and end them."""

    def presence(self) -> Presence:
        """What it is at the moment."""

    def kick(self) -> bool:
        """End it for somebody: with a line when it is idle, else cut off.

        Says whether it did: not while it is updating, which goes on, and ends it.
        """

    def stop(self, quiet: float) -> None:
        """End it with a line if nothing is under way and nothing was heard for so many seconds.

        With 0, what is under way becomes the last. To be said again until it is gone.
        """

    def cut_off(self) -> bool:
        """There is no more time: end it whatever is under way, but for an update, which goes on.

        Says whether something was cut off.
        """


@attrs.frozen
class Kicked:
    """How many sessions were ended, and how many are ``updating`` and end by themselves."""

    ended: int
    updating: int


class Present:
    """The sessions of one process; each enters itself, and leaves."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        # Each by the number with which it came, in their order, and the member that serves it.
        self._entries: dict[Entry, tuple[int, str]] = {}
        self._last = 0
        self._by_member: Counter[str] = Counter()
        # Those who wait for the end, and for whom it has still to be said in this round.
        self._waiting: list[Deferred[None]] = []
        self._round: list[Entry] = []
        self._draining = False
        self._patient_until = 0.0
        self._ends_at = 0.0
        self._next_look: IDelayedCall | None = None

    def __iter__(self) -> Iterator[Entry]:
        """Those who are there now, whoever comes or goes meanwhile."""
        return iter([*self._entries])

    def enter(self, entry: Entry, member: str = "") -> None:
        """``member`` is the machine that it was forwarded to, as in its `Presence`."""
        self._last += 1
        self._entries[entry] = self._last, member
        if member:
            self._by_member[member] += 1

    def leave(self, entry: Entry) -> None:
        """Harmless when said twice."""
        _, member = self._entries.pop(entry, (0, ""))
        if member:
            self._by_member[member] -= 1
            if not self._by_member[member]:
                del self._by_member[member]
        if self._draining and not self._entries:
            # Not from within: whoever leaves has more to do.
            self._look_in(0)

    @property
    def by_member(self) -> Mapping[str, int]:
        """How many are forwarded to each machine, of those to which any are."""
        return self._by_member

    async def visit(self, look: Callable[[Entry], object]) -> None:
        """Have ``look`` called with everyone, in the order in which they came, some at a time.

        Also with who comes before all were looked at, but not with who has left by then. A session
        that is forwarded meanwhile is another, and may be seen as both.
        """
        seen = looked_at = 0
        while come := [
            (entry, number) for entry, (number, _) in self._entries.items() if number > seen
        ]:
            seen = come[-1][1]
            for entry, _ in come:
                if entry in self._entries:
                    look(entry)
                looked_at += 1
                if not looked_at % _AT_ONCE:
                    await deferLater(self._clock, 0)

    async def kick(self, who: str) -> Kicked:
        """End the session of that id, or those of that user."""
        told: list[bool] = []

        def look(entry: Entry) -> None:
            presence = entry.presence()
            if who in (presence.id, presence.user):
                told.append(entry.kick())

        # All who have not logged in are called nothing.
        if who:
            await self.visit(look)
        return Kicked(sum(told), len(told) - sum(told))

    def drain(self, seconds: float) -> Deferred[None]:
        """End all sessions in order; fires when nobody is left, after ``seconds`` at the latest.

        For half of the time sessions go on as long as their clients do, so that a poll that is
        under way ends as it would have. Then no command is begun any more. Who is left at the end
        is cut off, but for updates. Asked again, it is the same end that is waited for.
        """
        gone: Deferred[None] = Deferred()
        self._waiting.append(gone)
        if not self._draining:
            self._draining = True
            now = self._clock.seconds()
            self._patient_until = now + seconds * _PATIENT
            self._ends_at = now + max(0.0, seconds - _LAST_WORDS)
            if self._entries:
                _log.info("stop sessions={sessions}", sessions=len(self._entries))
        if self._next_look is None:
            self._look()
        return gone

    def _look_in(self, seconds: float) -> None:
        if self._next_look is not None and self._next_look.active():
            self._next_look.reset(seconds)
        elif self._waiting:
            self._next_look = self._clock.callLater(seconds, self._look)

    def _look(self) -> None:
        """Say it to some of those who are left."""
        self._next_look = None
        left = self._ends_at - self._clock.seconds()
        if not self._entries:
            self._tell_gone()
            return
        if left <= 0:
            self._end_all()
            return
        quiet = QUIET if self._clock.seconds() < self._patient_until else 0.0
        self._round = self._round or [*self._entries]
        now, self._round = self._round[:_AT_ONCE], self._round[_AT_ONCE:]
        for entry in now:
            entry.stop(quiet)
        self._look_in(0 if self._round or not self._entries else min(_PAUSE, left))

    def _end_all(self) -> None:
        for entry in self:
            entry.stop(0.0)
        busy = 0
        for entry in self:
            busy += entry.cut_off()
        if busy:
            _log.warn("stop cut-off={sessions}", sessions=busy)
        self._round = []
        self._next_look = self._clock.callLater(_LAST_WORDS, self._tell_gone)

    def _tell_gone(self) -> None:
        self._next_look = None
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)
