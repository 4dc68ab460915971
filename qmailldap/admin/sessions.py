"""A list of sessions as one process tells it to another, and to the command; no Twisted here.

Whoever reads one believes no shape of it, and finds no character that a terminal would obey.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

__all__ = ["LONGEST_TEXT", "Told", "told"]

LONGEST_TEXT = 300
"""Characters of a text; what is behind them is left out."""

_TEXTS = ("id", "user", "host", "kind", "doing", "tls", "member")
_NUMBERS = ("since", "octets")


@attrs.frozen
class Told:
    """Sessions by the names of the fields of `qmailldap.present.Presence`, and how many more there
    are of which nothing is told."""

    sessions: list[dict[str, Any]]
    more: int = 0

    @classmethod
    def from_json(cls, answer: Any) -> Told:
        """What is no session is left out."""
        if not isinstance(answer, dict) or not isinstance(answer.get("sessions"), list):
            return cls([])
        more = answer.get("more")
        return cls(
            [each for each in map(_session, answer["sessions"]) if each is not None],
            more if type(more) is int else 0,
        )

    @classmethod
    def together(cls, lists: Iterable[Told]) -> Told:
        """Those that are on for longest first."""
        lists = [*lists]
        sessions = [session for each in lists for session in each.sessions]
        sessions.sort(key=lambda each: each["since"])
        return cls(sessions, sum(each.more for each in lists))

    def to_json(self) -> dict[str, Any]:
        return {"sessions": self.sessions, "more": self.more}


def told(presence: Any) -> dict[str, Any]:
    """One session of this process."""
    return {name: getattr(presence, name) for name in (*_TEXTS, *_NUMBERS)}


def _session(given: Any) -> dict[str, Any] | None:
    if not isinstance(given, dict):
        return None
    texts = [given.get(name) for name in _TEXTS]
    numbers: list[Any] = [given.get(name) for name in _NUMBERS]
    if not all(isinstance(text, str) for text in texts):
        return None
    if not all(type(number) in (int, float) and 0 <= number < 2**53 for number in numbers):
        return None
    shown = (_plain(text) for text in texts if text is not None)
    return {**dict(zip(_TEXTS, shown, strict=True)), **dict(zip(_NUMBERS, numbers, strict=True))}


def _plain(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text[:LONGEST_TEXT])
