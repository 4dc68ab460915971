"""How the lines of workers come into the log of the server.

Where the supervisor logs to standard output or standard error, workers write there themselves, in
the same form. Anywhere else they hand what they log to the supervisor by a pipe, each event as one
line of JSON, for it to log. Either way a line says which worker's it is, as a field like others.
"""

from __future__ import annotations

import json
import os
import re
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.interfaces import IWriteDescriptor
from twisted.logger import ILogObserver, InvalidLogLevelError, LogEvent, LogLevel
from zope.interface import implementer

from qmailldap.log_forms import MOST_LETTERS, json_fields, level_of, text_of
from qmailldap.log_output import STANDARD_ERROR, STANDARD_OUTPUT, Lines, form_of
from qmailldap.printable import printable

__all__ = ["MOST_WAITING", "PATIENCE", "LineRelay", "PipeWriter", "WorkerLog"]

_LONGEST_LETTER = 12
"""Octets of one in JSON: beyond the BMP it is two surrogates, of six each (RFC 8259 section 7)."""

_LONGEST_LINE = _LONGEST_LETTER * MOST_LETTERS + 4096
"""Octets of one line from a worker: the letters, and what stands around them."""

MOST_WAITING = 1024 * 1024
"""Octets of lines that wait until the supervisor has read those before; what is more is lost."""

PATIENCE = 2.0
"""Seconds that a worker gives the supervisor at its own end, to read what still waits."""

_NAMESPACE = re.compile(r"[\w.]{1,100}", re.ASCII)
_OLDEST = 600.0
"""Seconds by which a worker's line may be older than its arrival."""

_Write = Callable[[bytes], None]


@implementer(ILogObserver)
class WorkerLog:
    """What logs the events of worker ``number``, as the options --log and --log-format say.

    It goes where the supervisor logs, or if ``relayed`` to standard output, which is a pipe then.
    """

    def __init__(self, number: int, relayed: bool, options: Mapping[str, Any]) -> None:
        self._number = number
        self._pipe: PipeWriter | None = None
        self._log: Callable[[LogEvent], None]
        if relayed:
            self._pipe = PipeWriter(STANDARD_OUTPUT, number)
            as_json = options["log-format"] == "json"
            self._content = self._fields if as_json else self._text
            self._log = self._hand_over
        else:
            descriptor = STANDARD_ERROR if options["log"] else STANDARD_OUTPUT
            self._log = Lines(descriptor, form_of(options, number))

    def __call__(self, event: LogEvent) -> None:
        self._log(event)

    def attend(self, reactor: Any) -> None:
        """From now on the reactor sees to what could not be written at once."""
        if self._pipe is not None:
            self._pipe.attend(reactor)

    def finish(self) -> None:
        """The reactor has ended: wait until all is written, for a while."""
        if self._pipe is not None:
            self._pipe.finish()

    def _hand_over(self, event: LogEvent) -> None:
        content = self._content(event)
        if content:
            assert self._pipe is not None
            self._pipe.write(_json_line(event.get("log_time"), event, content))

    def _text(self, event: LogEvent) -> str:
        text = text_of(event, self._number)
        return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}..."

    def _fields(self, event: LogEvent) -> dict[str, Any]:
        return json_fields(event, self._number)


def _json_line(when: float | None, event: LogEvent, content: str | dict[str, Any]) -> bytes:
    """Either the text of the event is its content, or its fields are."""
    line = [when, event.get("log_namespace"), level_of(event), content]
    return json.dumps(line).encode("ascii") + b"\n"


def _told_of_lost(lines: int, number: int) -> bytes:
    text = f"log lines={lines} were lost worker={number}"
    event = {"log_namespace": __name__, "log_level": LogLevel.warn}
    return _json_line(None, event, {"event": "log", "lines": lines, "text": text})


@implementer(IWriteDescriptor)
class PipeWriter:
    """Lines into a pipe whose reader may be slow, and is waited for by nobody: what it has no room
    for is kept, up to `MOST_WAITING` octets, until the reactor finds that it has."""

    def __init__(self, descriptor: int, number: int) -> None:
        self._descriptor = descriptor
        self._number = number
        os.set_blocking(descriptor, False)
        self._waiting: deque[bytes] = deque()
        self._octets = 0
        self._lost = 0
        self._reactor: Any = None
        self._thread = threading.get_ident()

    def attend(self, reactor: Any) -> None:
        self._reactor = reactor
        if self._waiting:
            reactor.addWriter(self)

    def write(self, line: bytes) -> None:
        if self._reactor is not None and threading.get_ident() != self._thread:
            self._reactor.callFromThread(self.write, line)
            return
        if self._waiting and self._octets + len(line) > MOST_WAITING:
            self._lost += 1
            return
        self._keep(line)
        if len(self._waiting) == 1:
            self._write_some()
            if self._waiting and self._reactor is not None:
                self._reactor.addWriter(self)

    def finish(self) -> None:
        self._reactor = None
        deadline = time.monotonic() + PATIENCE
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        while self._waiting and (left := deadline - time.monotonic()) > 0:
            poll.poll(left * 1000)
            self._write_some()

    def _keep(self, line: bytes) -> None:
        self._waiting.append(line)
        self._octets += len(line)

    def _write_some(self) -> None:
        """As much as there is room for; nothing is left where nobody reads any more."""
        while self._waiting:
            line = self._waiting[0]
            try:
                written = os.write(self._descriptor, line)
            except BlockingIOError:
                return
            except OSError:
                self._waiting.clear()
                self._octets = self._lost = 0
                return
            self._octets -= written
            if written < len(line):
                self._waiting[0] = line[written:]
                continue
            self._waiting.popleft()
            if self._lost and not self._waiting:
                self._keep(_told_of_lost(self._lost, self._number))
                self._lost = 0

    # For the reactor.

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "log"

    def doWrite(self) -> None:
        self._write_some()
        if not self._waiting:
            self._reactor.removeWriter(self)

    def connectionLost(self, reason: object) -> None:
        """Some reactors tell so of a pipe that nobody reads any more."""
        self._waiting.clear()
        self._octets = 0


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
        event = _event(line, now, self._number)
        if event is None:
            said = printable(line)
            event = _of(now, __name__, LogLevel.warn, f"output line={said} worker={self._number}")
            raw = getattr(said, "raw", said)
            event["log_fields"] = {"event": "output", "line": raw, "worker": self._number}
        self._publish(event)


def _event(line: bytes, now: float, number: int) -> LogEvent | None:
    """What `WorkerLog` has made a line of; None for others."""
    try:
        when, namespace, level, content = json.loads(
            line, parse_constant=_refuse, parse_float=_finite
        )
        named = LogLevel.lookupByName(level) if level != "-" else LogLevel.info
    except (ValueError, TypeError, RecursionError, InvalidLogLevelError):
        return None
    if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
        return None
    if not isinstance(content, (str, dict)) or not content:
        return None
    if not isinstance(when, float) or not now - _OLDEST <= when <= now:
        when = now
    if isinstance(content, str):
        return _of(when, namespace, named, content)
    event = _of(when, namespace, named, str(content.get("text") or content.get("event")))
    event["log_fields"] = {**content, "worker": number}
    return event


def _refuse(constant: str) -> None:
    """Infinity and NaN, which only Python takes for numbers."""
    raise ValueError(constant)


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(text)
    return number


def _of(when: float, namespace: str, level: Any, text: str) -> LogEvent:
    return {
        "log_time": when,
        "log_namespace": namespace,
        "log_level": level,
        "log_format": "{log_line}",
        "log_line": text,
    }
