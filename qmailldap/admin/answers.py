"""What the socket answers: for all processes of the server, whichever of them is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from qmailldap.admin.protocol import Answer, Peer
from qmailldap.admin.sessions import Told, told
from qmailldap.loglevel import Kind, Log
from qmailldap.present import Present
from qmailldap.printable import printable
from qmailldap.status.state import State
from qmailldap.workers.crew import Crew

__all__ = ["MOST_SESSIONS", "Answers"]

MOST_SESSIONS = 10_000
"""Sessions that one process tells of; of more, those that are on for longest."""

_LONGEST_NAME = 1000

_log = Log(namespace="qmailldap.admin")


class Answers:
    """``present`` are the sessions of this process, ``state`` gives how all processes stand."""

    def __init__(self, crew: Crew, present: Present, state: Callable[[], Deferred[State]]) -> None:
        self._crew = crew
        self._present = present
        self._state = state
        crew.answer("sessions", self._sessions_here)
        crew.answer("kick", self._kick_here)

    def by_name(self) -> Mapping[str, Answer]:
        return {"sessions": self._sessions, "kick": self._kick, "status": self._status}

    async def _all_sessions(self, user: str) -> dict[str, Any]:
        answers = await self._crew.ask("sessions", {"user": user})
        return Told.together(map(Told.from_json, answers)).to_json()

    def _sessions(self, question: Mapping[str, Any], peer: Peer) -> Deferred[dict[str, Any]]:
        return Deferred.fromCoroutine(self._all_sessions(_name(question, "user")))

    def _sessions_here(self, argument: Any) -> dict[str, Any]:
        user = argument["user"]
        found = [each for each in self._present.sessions() if user in ("", each.user)]
        shown = found[:MOST_SESSIONS]
        return Told([told(each) for each in shown], len(found) - len(shown)).to_json()

    def _kick(self, question: Mapping[str, Any], peer: Peer) -> Deferred[int]:
        who = _name(question, "who")
        if not who:
            raise ValueError("nobody is named")
        return Deferred.fromCoroutine(self._kick_everywhere(who, peer))

    async def _kick_everywhere(self, who: str, peer: Peer) -> int:
        answers = await self._crew.ask("kick", {"who": who})
        ended = sum(each for each in answers if type(each) is int)
        # Who may do this may do all, and is to be found again.
        _log.info(
            "kicked who={who} sessions={sessions} by-uid={uid} by-pid={pid}",
            kind=Kind.LOGINS,
            who=printable(who.encode("utf-8", "replace")),
            sessions=ended,
            uid=peer.uid,
            pid=peer.pid,
        )
        return ended

    def _kick_here(self, argument: Any) -> int:
        return self._present.kick(str(argument["who"]))

    def _status(self, question: Mapping[str, Any], peer: Peer) -> Deferred[dict[str, Any]]:
        return self._state().addCallback(State.to_json)


def _name(question: Mapping[str, Any], key: str) -> str:
    """Raises ``ValueError``."""
    name = question.get(key, "")
    if not isinstance(name, str) or len(name) > _LONGEST_NAME:
        raise ValueError(f"{key} is no name")
    return name
