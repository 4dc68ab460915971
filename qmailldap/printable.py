"""Text from outside, made safe to stand in a log line or on a terminal.

A line for people shows it in quotes, with ``\\xNN``; one for machines (`qmailldap.log_forms`) needs
what it was. So what is shown remembers that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["Fields", "Shown", "escaped", "printable"]

_PLAIN = re.compile(rb"[A-Za-z0-9@._+=/:~#-]+\Z")
_LATIN = 256


class Shown(str):
    """A value as a line for people shows it; ``raw`` is the value itself, with its control
    characters, and with ``...`` at its end where no more of it is kept."""

    __slots__ = ("raw",)

    raw: str


def printable(value: bytes, most: int = 128) -> str:
    """``value`` as it is where that is safe, else quoted, with ``\\xNN`` for what cannot be shown.

    At most ``most`` octets of it are shown; the rest is replaced by an ellipsis. What comes back
    never holds a space outside quotes, a control character or a character beyond ASCII. It is a
    `Shown` where it is not just the value.
    """
    if len(value) <= most and _PLAIN.match(value):
        return value.decode("ascii")
    kept = value[:most]
    text = "".join(
        chr(octet) if 32 <= octet < 127 and octet not in b'"\\' else f"\\x{octet:02x}"
        for octet in kept
    )
    rest = "..." if len(value) > most else ""
    shown = Shown(f'"{text}"{rest}')
    shown.raw = kept.decode("utf-8", "backslashreplace") + rest
    return shown


def escaped(text: str) -> str:
    """``text`` without what could break a line or harm a terminal; it is not quoted."""
    if text.isprintable():
        return text
    shown = Shown("".join(map(_escaped, text)))
    shown.raw = text
    return shown


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    # As octets are shown; what is beyond them as Python writes it.
    return f"\\x{code:02x}" if code < _LATIN else character.encode("unicode_escape").decode("ascii")


class Fields(tuple[tuple[str, object], ...]):
    """Several fields of a line, of which the line's format knows only the place; names may repeat.

    As text ``name=value`` of each, with blanks between.
    """

    __slots__ = ()

    @classmethod
    def of(cls, fields: Sequence[tuple[str, object]]) -> Fields:
        return cls(fields)

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self)

    def __format__(self, form: str) -> str:
        return str(self)
