"""What the socket answers: for all processes of the server, whichever of them is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from qmailldap.admin.protocol import Answer, Peer
from qmailldap.admin.sessions import Telling
from qmailldap.loglevel import Kind, Log
from qmailldap.present import Entry, Present
from qmailldap.printable import printable
from qmailldap.status.state import State
from qmailldap.workers.crew import Crew

__all__ = ["Answers"]

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

    def _sessions(self, question: Mapping[str, Any], peer: Peer) -> Deferred[list[Any]]:
        # As it was told: to look at all of it takes long, and nobody waits for the command.
        return self._crew.ask("sessions", {"user": _name(question, "user")})

    def _sessions_here(self, argument: Any) -> Deferred[dict[str, Any]]:
        return Deferred.fromCoroutine(self._told(argument["user"]))

    async def _told(self, user: str) -> dict[str, Any]:
        telling = Telling()

        def look(entry: Entry) -> None:
            presence = entry.presence()
            if user in ("", presence.user):
                telling.add(presence)

        await self._present.visit(look)
        return telling.to_json()

    def _kick(self, question: Mapping[str, Any], peer: Peer) -> Deferred[dict[str, int]]:
        who = _name(question, "who")
        if not who:
            raise ValueError("nobody is named")
        return Deferred.fromCoroutine(self._kick_everywhere(who, peer))

    async def _kick_everywhere(self, who: str, peer: Peer) -> dict[str, int]:
        answers = await self._crew.ask("kick", {"who": who})
        ended, updating = (
            sum(_count(each, key) for each in answers) for key in ("ended", "updating")
        )
        # Who may do this may do all, and is to be found again.
        _log.info(
            "kicked who={who} sessions={sessions} by-uid={uid} by-pid={pid}",
            kind=Kind.LOGINS,
            who=printable(who.encode("utf-8", "replace")),
            sessions=ended,
            uid=peer.uid,
            pid=peer.pid,
        )
        return {"ended": ended, "updating": updating}

    def _kick_here(self, argument: Any) -> Deferred[dict[str, int]]:
        kicked = Deferred.fromCoroutine(self._present.kick(str(argument["who"])))
        return kicked.addCallback(attrs.asdict)

    def _status(self, question: Mapping[str, Any], peer: Peer) -> Deferred[dict[str, Any]]:
        return self._state().addCallback(State.to_json)


def _count(answer: Any, key: str) -> int:
    """Of what another process has told."""
    count = answer.get(key) if isinstance(answer, dict) else None
    return count if type(count) is int and count >= 0 else 0


def _name(question: Mapping[str, Any], key: str) -> str:
    """Raises ``ValueError``."""
    name = question.get(key, "")
    if not isinstance(name, str) or len(name) > _LONGEST_NAME:
        raise ValueError(f"{key} is no name")
    return name
