"""What stands in a line, read from the format that makes it: its event, its fields, and its prose.

A format begins with the word of its event. Behind it are ``name={value}``, ``name=word``, several
fields at once (`qmailldap.printable.Fields`), and words for people. For people the format makes the
line; machines get the fields by their names, and the line as ``text`` if it has words that are no
field.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from typing import Any

import attrs

from qmailldap.printable import Fields, Shown

__all__ = ["RESERVED", "Words", "words_of"]

RESERVED = ("time", "level", "source", "event", "text", "worker", "traceback")
"""What every line may have besides its own fields. The `worker` of a line is that which says it, or
else that which it tells of."""

_FIELD = re.compile(r"([A-Za-z][A-Za-z_-]*)=(.*)", re.DOTALL)
_ONE_VALUE = re.compile(r'"?\{(\w+)(?::([^{}]*))?\}"?[,;:]?')
_VALUE = re.compile(r"\{(\w+)(?::([^{}]*))?\}")
_DIGITS = re.compile(r"\.(\d)f")
_PUNCTUATION = ",;:"


@attrs.frozen
class _Part:
    """One word of a format.

    ``name`` is that of a field, ``key`` that of its value among those of the line; empty where the
    value is the ``word`` itself, which may have values in it. ``digits`` are those behind the point
    that are shown, None for all. ``alone`` says that the word is just a value, without a name.
    """

    name: str
    key: str
    word: str = ""
    digits: int | None = None
    alone: bool = False


@attrs.frozen
class Words:
    """What a format says. ``prose`` are words that are no field."""

    event: str
    prose: bool
    _parts: tuple[_Part, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the fields, in their order; that of `Fields` is the name of its place."""
        return tuple(part.name for part in self._parts)

    def fields(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """What a line with these values has, as JSON can hold it, and whether it has prose."""
        found: dict[str, Any] = {}
        prose = self.prose
        for part in self._parts:
            if not part.key:
                found[part.name] = _literal(part.word, values)
                continue
            value = values.get(part.key)
            if isinstance(value, Fields):
                for name, each in value:
                    _add(found, name, _plain(each))
                continue
            prose = prose or part.alone
            found[part.name] = _plain(value, part.digits)
        return found, prose


@functools.lru_cache(maxsize=1000)
def words_of(format: str) -> Words:
    """What a format of the package says; there are as many as there are calls that log."""
    event, *rest = format.split(" ")
    parts: list[_Part] = []
    prose = False
    for word in rest:
        field = _FIELD.fullmatch(word)
        if field is None:
            values = list(_VALUE.finditer(word))
            alone = _VALUE.fullmatch(word) is not None
            prose = prose or not alone
            parts += [_Part(each[1], each[1], "", _digits(each[2]), alone) for each in values]
            continue
        name, text = field[1], field[2]
        one = _ONE_VALUE.fullmatch(text)
        if one is not None:
            parts.append(_Part(name, one[1], "", _digits(one[2])))
        else:
            parts.append(_Part(name, "", text.rstrip(_PUNCTUATION)))
    return Words(event, prose, tuple(parts))


def _literal(word: str, values: Mapping[str, Any]) -> str | int:
    """A word of the format, with what values there are in it."""
    if "{" in word:
        return word.format_map(values)
    return int(word) if word.isdecimal() else word


def _digits(form: str | None) -> int | None:
    found = _DIGITS.fullmatch(form or "")
    return int(found[1]) if found else None


def _add(found: dict[str, Any], name: str, value: Any) -> None:
    """Attributes of a record may have several values."""
    if name not in found:
        found[name] = value
    elif isinstance(found[name], list):
        found[name].append(value)
    else:
        found[name] = [found[name], value]


def _plain(value: Any, digits: int | None = None) -> Any:
    if isinstance(value, Shown):
        return value.raw
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        return value if digits is None else round(value, digits or None)
    if value is None or isinstance(value, (str, int)):
        return value
    return str(value)
