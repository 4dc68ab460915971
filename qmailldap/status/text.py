"""What the page shows, for a terminal: as wide as that is, or for whatever reads a pipe."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence

import attrs

from qmailldap.figures import Minute
from qmailldap.status.state import Places, State
from qmailldap.status.words import (
    clock_time,
    count,
    latency,
    moment,
    octets,
    rate,
    span,
    time_of_day,
)

__all__ = ["NARROWEST", "as_text"]

NARROWEST = 30
"""Columns with which the text makes do; a terminal that has fewer breaks its lines itself."""

_BLOCKS = "▁▂▃▄▅▆▇█"
_LETTERS = "_.:-=+*#"

_INDENT = "  "
_TERM = 12


def as_text(state: State, *, users: bool, width: int | None, unicode: bool) -> str:
    """Lines of at most ``width`` columns, of any length where that is None.

    ``unicode``: what reads it has more than ASCII.
    """
    terminal = _Terminal(None if width is None else max(NARROWEST, width), unicode)
    return "\n".join(_lines(state, users, terminal)) + "\n"


@attrs.frozen
class _Terminal:
    """What the text is for."""

    width: int | None
    unicode: bool

    def wrapped(self, text: str, hanging: str = "", indent: int = 0) -> Iterator[str]:
        """Broken at blanks, and where there are none anywhere; all but the first line hang."""
        # Whoever looks for a number looks for its digits.
        text = text.rstrip().replace("\u202f", "")
        if not self.unicode:
            text = text.encode("ascii", "backslashreplace").decode("ascii")
        first = " " * indent
        if self.width is None or len(first + text) <= self.width:
            yield first + text
            return
        yield from textwrap.wrap(
            text,
            self.width,
            initial_indent=first,
            subsequent_indent=hanging or " " * (indent + 2),
            break_on_hyphens=False,
        )


def _lines(state: State, users: bool, terminal: _Terminal) -> Iterator[str]:
    wrapped = terminal.wrapped
    yield from wrapped(f"{state.name}, as of {clock_time(state.now)}")
    for each in state.troubles or ("All is well.",):
        yield from wrapped(each)
    yield ""
    for term, text in _facts(state):
        yield from wrapped(f"{term:{_TERM}}{text}", " " * _TERM)
    if state.minutes:
        yield from ("", f"Last hour, from {time_of_day(state.minutes[0].at)}")
    for name, value in _SERIES:
        yield _INDENT + _chart(name, [value(each) for each in state.minutes], terminal)
    for title, places, number in (
        ("Directory servers", state.servers, _latency),
        ("Members", state.members, _sessions),
    ):
        if places:
            yield from ("", title)
            for place in places:
                yield from _place(state, place, number(place), terminal)
    yield from ("", "Latest refusals")
    if not state.refusals:
        yield f"{_INDENT}none since the start"
    for refused in state.refusals:
        fields = [moment(refused.time, state.now), refused.reason, refused.peer]
        yield from wrapped(" ".join([*fields, refused.user] if users else fields), indent=2)


_SERIES: tuple[tuple[str, Callable[[Minute], int]], ...] = (
    ("sessions", lambda each: each.sessions),
    ("logins", lambda each: each.logins),
    ("refused", lambda each: each.refusals),
)


def _facts(state: State) -> Iterator[tuple[str, str]]:
    sessions, start = state.sessions, "since the start"
    kinds = (
        f"{count(sessions.local)} with mail here, {count(sessions.forwarded)} forwarded,"
        f" {count(sessions.waiting)} before their login"
    )
    yield "sessions", f"{count(sessions.all)}: {kinds}"
    yield "logins", f"{rate(state.logins_a_minute)} a minute, {count(state.logins)} {start}"
    yield "refused", f"{rate(state.refusals_a_minute)} a minute, {count(state.refused)} {start}"
    yield "mail sent", f"{octets(state.octets)} in {count(state.messages)} messages {start}"
    yield "runs for", f"{span(state.now - state.started)}, version {state.version}"
    yield "control", f"files of {moment(state.loaded, state.now)}"
    yield "processes", f"{state.workers - len(state.silent)} of {state.workers} answer"


def _chart(name: str, values: Sequence[int], terminal: _Terminal) -> str:
    """The name, a small chart, and the most; several minutes share a column where there are few."""
    most = max(values, default=0)
    end = f" most {most}"
    columns = max(1, len(values))
    if terminal.width is not None:
        columns = max(1, min(columns, terminal.width - len(_INDENT) - _TERM + 2 - len(end)))
    groups = [
        values[place * len(values) // columns : (place + 1) * len(values) // columns]
        for place in range(columns)
    ]
    marks = _BLOCKS if terminal.unicode else _LETTERS
    chart = "".join(_mark(max(group, default=0), most, marks) for group in groups)
    return f"{name:{_TERM - 2}}{chart}{end}"


def _mark(value: int, most: int, marks: str) -> str:
    if not value:
        return " "
    return marks[min(len(marks) - 1, value * len(marks) // (most + 1))]


def _place(state: State, place: Places, number: str, terminal: _Terminal) -> Iterator[str]:
    line = f"{place.name}  {place.word}  {number}"
    if place.failed is None:
        yield from terminal.wrapped(line, indent=2)
        return
    failed = f"last failure {moment(place.failed, state.now)}: {place.why}"
    if terminal.width is None:
        yield from terminal.wrapped(f"{line}  {failed}", indent=2)
    else:
        yield from terminal.wrapped(line, indent=2)
        yield from terminal.wrapped(failed, indent=4)


def _latency(place: Places) -> str:
    return "" if place.latency is None else latency(place.latency)


def _sessions(place: Places) -> str:
    return f"{count(place.sessions)} session{'' if place.sessions == 1 else 's'}"
