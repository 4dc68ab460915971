"""What a line of the log looks like: as text for people, as one object of JSON for machines.

Both are made from the same event. A form gives all the octets of an event, with their newlines, and
none for one that has no text.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from twisted.logger import LogEvent, LogLevel, eventAsText, formatEvent, formatTime

from qmailldap.log_words import words_of
from qmailldap.loglevel import Log

__all__ = [
    "MOST_LETTERS",
    "Form",
    "JSONForm",
    "TextForm",
    "journal_form",
    "json_fields",
    "level_of",
    "priority_of",
    "text_of",
]

Form = Callable[[LogEvent], bytes]

MOST_LETTERS = 10_000
"""Of one value in JSON, and of all values of one line; what is more is a traceback that nobody
reads to its end."""

_PRIORITIES = {
    LogLevel.critical: 2,
    LogLevel.error: 3,
    LogLevel.warn: 4,
    LogLevel.info: 6,
    LogLevel.debug: 7,
}


def level_of(event: LogEvent) -> str:
    level = event.get("log_level")
    return "-" if level is None else str(level.name)


def priority_of(event: LogEvent) -> int:
    """As syslog(3) and sd-daemon(3) count them."""
    level: Any = event.get("log_level")
    return _PRIORITIES.get(level, _PRIORITIES[LogLevel.info])


def text_of(event: LogEvent, worker: int | None = None) -> str:
    """A line, and those of its traceback; at the end of the first which worker says it."""
    # The lines of a login are made up already.
    text = event.get("log_line") or eventAsText(event, includeTimestamp=False, includeSystem=False)
    if not text or worker is None:
        return str(text)
    first, newline, more = text.partition("\n")
    return f"{first} worker={worker}{newline}{more}"


class TextForm:
    """Lines as Twisted's own observers write them; without their time, unless they are ``timed``.

    ``worker`` is put at their end.
    """

    def __init__(self, worker: int | None = None, *, timed: bool = True) -> None:
        self._worker = worker
        self._timed = timed
        self._second = -1
        self._shown = ""

    def __call__(self, event: LogEvent) -> bytes:
        text = text_of(event, self._worker)
        if not text:
            return b""
        system = event.get("log_system")
        if system is None:
            system = f"{event.get('log_namespace', '-')}#{level_of(event)}"
        shown = text.replace("\n", "\n\t")
        when = f"{self._time(event.get('log_time'))} " if self._timed else ""
        return f"{when}[{system}] {shown}\n".encode("utf-8", "backslashreplace")

    def _time(self, when: float | None) -> str:
        if when is None:
            return "-"
        # To the second, and there may be thousands of lines in one.
        if int(when) != self._second:
            self._second, self._shown = int(when), formatTime(when)
        return self._shown


class JSONForm:
    """One object a line, of no more than ``most`` octets if that is given; see docs/logging.md."""

    def __init__(self, worker: int | None = None, *, most: int | None = None) -> None:
        self._worker = worker
        self._most = most
        self._zone = _Zone()

    def __call__(self, event: LogEvent) -> bytes:
        fields = json_fields(event, self._worker)
        if not fields:
            return b""
        when = event.get("log_time")
        head = {
            "time": self._zone.shown(time.time() if when is None else when),
            "level": "info" if event.get("log_level") is None else level_of(event),
            "source": str(event.get("log_namespace") or "-"),
        }
        # In that order, and not to be taken by what a worker has handed on.
        complete = {**head, **fields, **head}
        line = _encoded(complete)
        if self._most is not None and len(line) > self._most:
            line = _shortened(complete, self._most)
        return line


def json_fields(event: LogEvent, worker: int | None = None) -> dict[str, Any]:
    """All of an event but its time, level and source; nothing where it has no text.

    One of the package has its ``event`` and the fields of its line. Others have ``text`` only: what
    else they hold is of any kind.
    """
    relayed = event.get("log_fields")
    if relayed is not None:
        return dict(relayed)
    fields: dict[str, Any] = {}
    if isinstance(event.get("log_logger"), Log):
        words = words_of(event.get("log_words") or event.get("log_format") or "")
        values, prose = words.fields(event)
        fields = {"event": words.event, **values}
        if prose:
            fields["text"] = formatEvent(event)
    else:
        text = event.get("log_line") or formatEvent(event)
        if not text and "log_failure" not in event:
            return {}
        fields["text"] = text
    if worker is not None:
        fields["worker"] = worker
    failure = event.get("log_failure")
    if failure is not None:
        fields["traceback"] = _traceback(failure)
    return _bounded(fields)


def _traceback(failure: Any) -> str:
    try:
        return str(failure.getTraceback())
    except Exception as error:
        # Of an exception that cannot be shown, say.
        return f"(no traceback: {type(error).__name__})"


def _bounded(fields: dict[str, Any]) -> dict[str, Any]:
    """With texts that JSON in UTF-8 can hold, of `MOST_LETTERS` in all."""
    left = MOST_LETTERS
    for name, value in fields.items():
        if isinstance(value, str):
            if len(value) > left:
                value = _cut(name, value, left)
            fields[name] = _whole_characters(value)
            left = max(0, left - len(value))
        elif isinstance(value, list):
            kept = []
            for each in value:
                left = max(0, left - len(str(each)) - 1)
                if not left:
                    break
                kept.append(_whole_characters(each) if isinstance(each, str) else each)
            fields[name] = kept
    return fields


def _whole_characters(text: str) -> str:
    """Half a surrogate pair is none."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _cut(name: str, text: str, most: int) -> str:
    # What has happened is said at the end of a traceback.
    return f"...{text[len(text) - most :]}" if name == "traceback" else f"{text[:most]}..."


def _encoded(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode("ascii") + b"\n"


def _shortened(fields: dict[str, Any], most: int) -> bytes:
    """The same in no more than ``most`` octets: its longest texts are cut, one after the other."""
    fields = dict(fields)
    while len(line := _encoded(fields)) > most:
        texts = {name: each for name, each in fields.items() if isinstance(each, (str, list))}
        longest = max(texts, key=lambda name: len(json.dumps(texts[name])), default=None)
        if longest is None or len(json.dumps(texts[longest])) < _SHORT:
            break
        text = texts[longest]
        if isinstance(text, list):
            text = " ".join(map(str, text))
        fields[longest] = _cut(longest, text, len(text) // 2)
    return line


_SHORT = 40
"""What is not made shorter, in octets of JSON."""


class _Zone:
    """Times of RFC 3339 with milliseconds, in the time zone of the host."""

    def __init__(self) -> None:
        self._second = -1
        self._before = self._behind = ""

    def shown(self, when: float) -> str:
        second = int(when // 1)
        if second != self._second:
            self._second = second
            local = time.localtime(second)
            self._before = time.strftime("%Y-%m-%dT%H:%M:%S", local)
            zone = time.strftime("%z", local)
            self._behind = f"{zone[:3]}:{zone[3:5]}"
        return f"{self._before}.{int((when - second) * 1000):03d}{self._behind}"


def journal_form(form: Form) -> Form:
    """Lines of ``form`` as sd-daemon(3) has them on standard error: each begins with its priority.

    A traceback is many lines.
    """

    def prefixed(event: LogEvent) -> bytes:
        octets = form(event)
        if not octets:
            return octets
        prefix = b"<%d>" % priority_of(event)
        return prefix + octets[:-1].replace(b"\n", b"\n" + prefix) + b"\n"

    return prefixed
