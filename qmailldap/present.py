"""Who is on, in this process: every connection from when it is accepted until it is gone.

What a session says, and how one of its kind is ended, is the business of its room. Here is whom to
ask, and the order of the end: who is idle is told at once, who is at work may end that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from qmailldap.loglevel import Log
from qmailldap.printable import escaped

__all__ = ["QUIET", "Entry", "Presence", "Present", "name_of"]

QUIET = 1.0
"""Seconds without a word after which nobody waits for another: a program that is in the middle of
a poll has said the next by then."""

_PATIENT = 0.5
"""The part of the time in which a session may begin further commands."""

_PAUSE = 0.25
"""Seconds between two looks at those who are left."""

_AT_ONCE = 200
"""Sessions that are ended in one go; others have their turn before the next."""

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

    def kick(self) -> None:
        """End it for somebody: with a line when it is idle, else cut off; but no update."""

    def stop(self, quiet: float) -> None:
        """End it with a line if nothing is under way and nothing was heard for so many seconds.

        With 0, what is under way becomes the last. To be said again until it is gone.
        """

    def cut_off(self) -> bool:
        """There is no more time: end it whatever is under way, but for an update, which goes on.

        Says whether something was cut off.
        """


class Present:
    """The sessions of one process; each enters itself, and leaves."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._entries: dict[Entry, None] = {}
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

    def enter(self, entry: Entry) -> None:
        self._entries[entry] = None

    def leave(self, entry: Entry) -> None:
        """Harmless when said twice."""
        self._entries.pop(entry, None)
        if self._draining and not self._entries:
            # Not from within: whoever leaves has more to do.
            self._look_in(0)

    def sessions(self) -> list[Presence]:
        """All of them, those that are on for longest first."""
        return sorted((each.presence() for each in self), key=lambda each: each.since)

    def kick(self, who: str) -> int:
        """End the session of that id, or those of that user; gives how many these are."""
        if not who:
            # All who have not logged in are called that.
            return 0
        kicked = 0
        for entry in self:
            presence = entry.presence()
            if who in (presence.id, presence.user):
                entry.kick()
                kicked += 1
        return kicked

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
