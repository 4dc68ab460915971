"""How the lines of workers come into the log of the server.

Where the supervisor logs to standard output, workers write there themselves, in the same form.
Anywhere else they hand their lines to the supervisor by a pipe, each as one line of JSON, for it to
log them. Either way a line says at its end which worker's it is, as a field like the others.
"""

from __future__ import annotations

import json
import os
import re
import select
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.logger import (
    ILogObserver,
    InvalidLogLevelError,
    LogEvent,
    LogLevel,
    eventAsText,
    formatTime,
    globalLogPublisher,
)
from zope.interface import implementer

from qmailldap.printable import printable

__all__ = ["PATIENCE", "LineRelay", "PipeWriter", "logs_to_standard_output", "observer"]

_STANDARD_OUTPUT = 1

MOST_LETTERS = 10_000
"""Of one event; what is more is a traceback that nobody reads to its end."""

_LONGEST_LETTER = 12
"""Octets of one in JSON: beyond the BMP it is two surrogates, of six each (RFC 8259 section 7)."""

_LONGEST_LINE = _LONGEST_LETTER * MOST_LETTERS + 1024
"""Octets of one line from a worker: the letters, and what stands around them."""

PATIENCE = 2.0
"""Seconds that a worker waits for the supervisor to read; then its lines are lost until it does."""

_NAMESPACE = re.compile(r"[\w.]{1,100}", re.ASCII)
_OLDEST = 600.0
"""Seconds by which a worker's line may be older than its arrival."""


def logs_to_standard_output() -> bool:
    """Whether twistd writes this process's log there. False, too, where that cannot be told."""
    observers = getattr(globalLogPublisher, "_observers", ())
    return any(getattr(each, "_outFile", None) is sys.__stdout__ for each in observers)


def observer(number: int, relayed: bool) -> ILogObserver:
    """What logs the events of worker ``number``: to standard output, which is a pipe if relayed."""
    write = PipeWriter(_STANDARD_OUTPUT, number).write if relayed else _write_all
    form = _as_json if relayed else _TextForm().line

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        # The lines of a login are made up already.
        text = event.get("log_line") or eventAsText(
            event, includeTimestamp=False, includeSystem=False
        )
        if text:
            first, newline, more = text.partition("\n")
            write(form(event, f"{first} worker={number}{newline}{more}"))

    logged: ILogObserver = observe
    return logged


def _level(event: LogEvent) -> str:
    level = event.get("log_level")
    return "-" if level is None else str(level.name)


class _TextForm:
    """Lines as Twisted's own observers write them."""

    def __init__(self) -> None:
        self._second = -1
        self._shown = ""

    def line(self, event: LogEvent, text: str) -> bytes:
        system = event.get("log_system")
        if system is None:
            system = f"{event.get('log_namespace', '-')}#{_level(event)}"
        shown = text.replace("\n", "\n\t")
        line = f"{self._time(event.get('log_time'))} [{system}] {shown}\n"
        return line.encode("utf-8", "backslashreplace")

    def _time(self, when: float | None) -> str:
        if when is None:
            return "-"
        # To the second, and there may be thousands of lines in one.
        if int(when) != self._second:
            self._second, self._shown = int(when), formatTime(when)
        return self._shown


def _as_json(event: LogEvent, text: str) -> bytes:
    if len(text) > MOST_LETTERS:
        text = f"{text[:MOST_LETTERS]}..."
    return _json_line(event.get("log_time"), event.get("log_namespace"), _level(event), text)


def _json_line(when: float | None, namespace: str | None, level: str, text: str) -> bytes:
    return json.dumps([when, namespace, level, text]).encode("ascii") + b"\n"


def _write_all(line: bytes) -> None:
    """In one piece, where the kernel has room for it; lost where nobody reads any more."""
    try:
        while line:
            line = line[os.write(_STANDARD_OUTPUT, line) :]
    except OSError:
        return


class PipeWriter:
    """Lines into a pipe whose reader may be slow, and is not waited for without end."""

    def __init__(self, descriptor: int, number: int) -> None:
        self._descriptor = descriptor
        self._number = number
        os.set_blocking(descriptor, False)
        self._broken = False
        self._lost = 0
        self._patient = True

    def write(self, line: bytes) -> None:
        if self._lost:
            text = f"log lines={self._lost} were lost worker={self._number}"
            line = _json_line(None, __name__, "warn", text) + line
        if self._broken:
            # The end of what was begun will never come.
            line = b"\n" + line
        rest = self._begin(line)
        if not rest:
            self._lost, self._broken, self._patient = 0, False, True
            return
        self._lost += 1
        self._broken = self._broken or len(rest) < len(line)

    def _begin(self, line: bytes) -> bytes:
        """What could not be written in time."""
        deadline = time.monotonic() + (PATIENCE if self._patient else 0.0)
        while line:
            try:
                line = line[os.write(self._descriptor, line) :]
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0:
                    self._patient = False
                    return line
                waiting = select.poll()
                waiting.register(self._descriptor, select.POLLOUT)
                waiting.poll(left * 1000)
            except OSError:
                return line
        return b""


class LineRelay:
    """Logs what comes from the pipe of a worker, whatever it is; ``publish`` is given events.

    A line that is no event, as of a library that writes to standard error, is a warning.
    """

    def __init__(
        self,
        number: int,
        publish: Callable[[LogEvent], None],
        seconds: Callable[[], float] = time.time,
    ) -> None:
        self._number = number
        self._publish = publish
        self._seconds = seconds
        self._unfinished = b""

    def received(self, octets: bytes) -> None:
        *lines, self._unfinished = (self._unfinished + octets).split(b"\n")
        for line in lines:
            self._line(line[:_LONGEST_LINE])
        self._unfinished = self._unfinished[:_LONGEST_LINE]

    def ended(self) -> None:
        self.received(b"\n")

    def _line(self, line: bytes) -> None:
        if not line:
            return
        now = self._seconds()
        event = _event(line, now)
        if event is None:
            text = f"{printable(line)} worker={self._number}"
            event = _of(now, __name__, LogLevel.warn, text)
        self._publish(event)


def _event(line: bytes, now: float) -> LogEvent | None:
    """What `_as_json` has made a line of; None for others."""
    try:
        when, namespace, level, text = json.loads(line)
        named = LogLevel.lookupByName(level) if level != "-" else LogLevel.info
    except (ValueError, TypeError, RecursionError, InvalidLogLevelError):
        return None
    if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
        return None
    if not isinstance(text, str):
        return None
    if not isinstance(when, float) or not now - _OLDEST <= when <= now:
        when = now
    return _of(when, namespace, named, text)


def _of(when: float, namespace: str, level: Any, text: str) -> LogEvent:
    return {
        "log_time": when,
        "log_namespace": namespace,
        "log_level": level,
        "log_format": "{log_line}",
        "log_line": text,
    }
