"""A list of sessions as the processes of a server tell it, and as the command reads it.

No Twisted here: the command does what takes long. A process tells, in JSON, {"sessions": [slice,
...], "more": how many there are besides}. A slice is a list of objects, as JSON, packed by zlib
and base64: those who pass it on have few octets to handle, and nothing in them to look at.

Whoever reads it believes no shape of it, and finds no character that a terminal would obey.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from typing import Any

import attrs

__all__ = [
    "LONGEST_TEXT",
    "MOST_OCTETS",
    "MOST_SESSIONS",
    "Telling",
    "Told",
    "told",
]

MOST_SESSIONS = 10_000
"""Sessions that one process tells of; of more, those that came first."""

MOST_OCTETS = 1024 * 1024
"""Of what it tells, packed; it tells of fewer where they are called so. The frames of workers have
room for more, and what waits for one of them to be read is room for those of 16."""

LONGEST_TEXT = 300
"""Characters of a text; what is behind them is left out."""

_SLICE = 200
"""Sessions in a slice."""

_LARGEST_SLICE = 8 * 1024 * 1024
"""Octets of a slice that is not packed any more; with the longest of texts it has some 5 million.
"""

_MOST_UNPACKED = 256 * 1024 * 1024
"""Octets of all slices that are read."""

_TEXTS = ("id", "user", "host", "kind", "doing", "tls", "member")
_NUMBERS = ("since", "octets")


class Telling:
    """What one process tells of its sessions."""

    def __init__(self) -> None:
        self._slices: list[str] = []
        self._next: list[dict[str, Any]] = []
        self._octets = 0
        self._is_full = False
        self._more = 0

    def add(self, presence: Any) -> None:
        """A `qmailldap.present.Presence`."""
        if self._is_full:
            self._more += 1
            return
        self._next.append(told(presence))
        if len(self._next) == _SLICE:
            self._pack()

    def to_json(self) -> dict[str, Any]:
        """All of it; nothing is added behind."""
        self._pack()
        return {"sessions": self._slices, "more": self._more}

    def _pack(self) -> None:
        sessions, self._next = self._next, []
        if not sessions:
            return
        packed = _packed(sessions)
        self._octets += len(packed)
        if self._octets > MOST_OCTETS:
            self._is_full = True
            self._more += len(sessions)
        else:
            self._slices.append(packed)
            self._is_full = len(self._slices) * _SLICE >= MOST_SESSIONS


@attrs.frozen
class Told:
    """Sessions by the names of the fields of `qmailldap.present.Presence`, and how many more there
    are of which nothing is told."""

    sessions: list[dict[str, Any]]
    more: int = 0

    @classmethod
    def of(cls, answers: Any) -> Told:
        """What several processes have told, a list of it; those on for longest come first.

        What is no session is left out.
        """
        sessions: list[dict[str, Any]] = []
        more, left = 0, _MOST_UNPACKED
        for answer in answers if isinstance(answers, list) else ():
            if not isinstance(answer, dict):
                continue
            more += _count(answer.get("more"))
            slices = answer.get("sessions")
            for octets in map(_unpacked, slices if isinstance(slices, list) else ()):
                left -= len(octets)
                if left < 0:
                    break
                sessions += _sessions(octets)
        sessions.sort(key=lambda each: each["since"])
        return cls(sessions, more)


def _packed(sessions: list[dict[str, Any]]) -> str:
    # As quickly as it can be: names of fields come again and again.
    octets = zlib.compress(json.dumps(sessions).encode("ascii"), 1)
    return base64.b64encode(octets).decode("ascii")


def _unpacked(text: Any) -> bytes:
    """JSON, if it was a slice; it ends somewhere if that was too large."""
    try:
        packed = base64.b64decode(text, validate=True)
        return zlib.decompressobj().decompress(packed, _LARGEST_SLICE)
    except (TypeError, ValueError, zlib.error):
        return b""


def _sessions(octets: bytes) -> Iterator[dict[str, Any]]:
    try:
        given = json.loads(octets)
    except (ValueError, RecursionError):
        return
    for each in given if isinstance(given, list) else ():
        session = _session(each)
        if session is not None:
            yield session


def _count(number: Any) -> int:
    return number if type(number) is int and 0 <= number < 2**53 else 0


def told(presence: Any) -> dict[str, Any]:
    """One session of this process."""
    texts = {name: getattr(presence, name)[:LONGEST_TEXT] for name in _TEXTS}
    return {**texts, **{name: getattr(presence, name) for name in _NUMBERS}}


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
