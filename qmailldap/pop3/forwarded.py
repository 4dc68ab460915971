"""A session that another member serves, as one of those who are on."""

from __future__ import annotations

from typing import Any

import attrs

from qmailldap.pop3.farewell import KICKED, STOPPED, Farewell
from qmailldap.present import QUIET, Presence, name_of
from qmailldap.session import Session

__all__ = ["Forwarded"]


@attrs.frozen(eq=False)
class Forwarded:
    """``forwarded`` is an `IForwardedSession` that has been joined, ``since`` when its client came.

    What is under way is the member's business: a session counts as idle when nothing was passed on
    for a while.
    """

    _session: Session
    _forwarded: Any
    _since: float

    def presence(self) -> Presence:
        session, forwarded = self._session, self._forwarded
        return Presence(
            id=session.id,
            user=name_of(session.user),
            host=session.peer,
            since=self._since,
            kind="forwarded",
            doing="" if self._is_idle() else "relaying",
            octets=forwarded.sent,
            tls=session.tls,
            member=forwarded.member,
        )

    def kick(self) -> bool:
        if self._is_idle():
            self._end(KICKED)
        else:
            self._forwarded.end(KICKED.end, b"")
        return True

    def stop(self, quiet: float) -> None:
        if not quiet:
            self._forwarded.read_no_more()
        # However short the time is: between two words of the member there may be a moment.
        if self._is_idle():
            self._end(STOPPED)

    def cut_off(self) -> bool:
        if self._forwarded.quiet() is not None:
            # In order, as all that was passed on may be the end of a message. If it is not, then
            # what is said here is within one that has no end.
            self._end(STOPPED)
        else:
            self._forwarded.end(STOPPED.end, b"")
        return True

    def _is_idle(self) -> bool:
        quiet = self._forwarded.quiet()
        return quiet is not None and bool(quiet >= QUIET)

    def _end(self, farewell: Farewell) -> None:
        self._forwarded.end(farewell.end, b"-ERR " + farewell.words + b"\r\n")
