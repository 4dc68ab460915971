"""The front page of ``--status``, for people: what goes on now, and what the last hour was like.

It works without scripts, and what it shows is text to the template: names, addresses and what
servers have said cannot become anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.template import Tag, flattenString, tags

from qmailldap.figures import Minute
from qmailldap.loglevel import Log
from qmailldap.status.charts import Chart, Series
from qmailldap.status.state import Places, State
from qmailldap.status.style import CONTENT_SECURITY_POLICY, STYLE
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

__all__ = ["EVERY", "StatusPage", "html"]

EVERY = 30
"""Seconds after which the page is loaded again by a browser that was asked to."""

_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath"
    " fill='%232d6a94' d='M1 3h14v10H1z'/%3E%3Cpath fill='none' stroke='%23fff' stroke-width='1.4'"
    " d='M2 4.5l6 4.5 6-4.5'/%3E%3C/svg%3E"
)

SESSIONS = Chart("Sessions", [Series("Sessions", "first", lambda each: each.sessions)], bars=False)
LOGINS = Chart(
    "Logins a minute",
    [
        Series("Logins", "first", lambda each: each.logins),
        Series("Refused", "second", lambda each: each.refusals),
    ],
    bars=True,
)

_COUNTS = ("Sessions at most", "Logins", "Refused")
_MINUTES_A_ROW = 5

_log = Log(namespace="qmailldap.status")


class StatusPage(Resource):
    """``state`` gives how things stand; ``users`` says whether names of users may be shown."""

    isLeaf = True

    def __init__(
        self, clock: IReactorTime, state: Callable[[], Deferred[State]], users: bool
    ) -> None:
        super().__init__()
        self._clock = clock
        self._state = state
        self._users = users
        # By whether it is loaded again: the last that was made, and who waits for the next.
        self._made: dict[bool, tuple[State, bytes]] = {}
        self._waiting: dict[bool, list[Deferred[bytes]]] = {}

    def render_GET(self, request: Any) -> int:
        every = request.args.get(b"every") == [b"%d" % EVERY]
        answer = self._page(every)
        # Who has left need not be written to.
        request.notifyFinish().addErrback(lambda _: answer.cancel())
        answer.addCallback(self._write, request)
        answer.addErrback(self._failed, request)
        return NOT_DONE_YET

    def _page(self, every: bool) -> Deferred[bytes]:
        """The page of this moment, which is made once however many look at it."""
        waiting = self._waiting.get(every)
        is_first = waiting is None
        if waiting is None:
            waiting = self._waiting[every] = []
        answer: Deferred[bytes] = Deferred(waiting.remove)
        waiting.append(answer)
        if is_first:
            Deferred.fromCoroutine(self._making(every)).addBoth(self._came, every)
        return answer

    def _came(self, result: bytes | Failure, every: bool) -> None:
        for each in [*self._waiting.pop(every)]:
            if not each.called:
                each.callback(result)  # a Failure is one for all of them

    async def _making(self, every: bool) -> bytes:
        state = await self._state()
        made = self._made.get(every)
        if made is not None and made[0] is state:
            return made[1]
        octets = await self._make(state, every)
        self._made[every] = state, octets
        return octets

    async def _make(self, state: State, every: bool) -> bytes:
        page = html(state, users=self._users, every=every, breathe=self._breathe)
        flat = await flattenString(None, page)
        return b"<!DOCTYPE html>\n" + bytes(flat) + b"\n"

    def _breathe(self) -> Iterator[Deferred[str]]:
        """Nothing, a moment later: the whole page at once would hold up logins.

        As a generator it is begun when the page has come so far.
        """
        yield deferLater(self._clock, 0, str)

    def _write(self, page: bytes, request: Any) -> None:
        request.setHeader(b"Content-Type", b"text/html; charset=utf-8")
        request.setHeader(b"Content-Security-Policy", CONTENT_SECURITY_POLICY.encode("ascii"))
        request.setHeader(b"Content-Length", b"%d" % len(page))
        request.write(page)
        request.finish()

    def _failed(self, failure: Failure, request: Any) -> None:
        if not failure.check(CancelledError):
            _log.failure("status the page was not made", failure)
            request.setResponseCode(500)
            request.finish()


def html(state: State, *, users: bool, every: bool, breathe: Callable[[], Any] = str) -> Tag:
    """The page, of the state at one moment. It is made with what ``breathe`` gives in between."""
    troubles = state.troubles
    title = f"{state.name}: {'trouble' if troubles else 'all is well'}"
    again = [tags.meta(content=str(EVERY), **{"http-equiv": "refresh"})] if every else []
    return tags.html(lang="en")(
        tags.head(
            tags.meta(charset="utf-8"),
            tags.meta(name="viewport", content="width=device-width, initial-scale=1"),
            *again,
            tags.title(title),
            tags.link(rel="icon", href=_ICON),
            tags.style(STYLE),
        ),
        tags.body(
            tags.header(
                tags.h1(state.name),
                tags.p(
                    f"POP3, as of {clock_time(state.now)}. ",
                    tags.a("Stop reloading", href="./")
                    if every
                    else tags.a(f"Reload every {EVERY} s", href=f"./?every={EVERY}"),
                    class_="soft",
                ),
            ),
            Tag("main")(
                _verdict(troubles),
                _now(state),
                breathe(),
                _hour(state, breathe),
                breathe(),
                *_places(state),
                breathe(),
                _refusals(state, users),
            ),
            tags.footer(
                tags.p(
                    f"qmailldap {state.version}. Numbers for a program: ",
                    tags.a("metrics", href="metrics"),
                    ". For a load balancer: ",
                    tags.a("healthz", href="healthz"),
                    ".",
                )
            ),
        ),
    )


def _verdict(troubles: Sequence[str]) -> Tag:
    if not troubles:
        return tags.p("All is well.", class_="verdict")
    return tags.ul(*(tags.li(each) for each in troubles), class_="verdict trouble")


def _card(ident: str, title: str, *content: Any) -> Tag:
    return tags.section(class_="card", **{"aria-labelledby": ident})(
        tags.h2(title, id=ident), *content
    )


def _now(state: State) -> Tag:
    sessions = state.sessions
    answering = state.workers - len(state.silent)
    logins = (
        f"{count(state.logins)} since the start; refused: {rate(state.refusals_a_minute)} a minute,"
        f" {count(state.refused)} since the start"
    )
    kinds = (
        f"{count(sessions.local)} with mail here, {count(sessions.forwarded)} forwarded,"
        f" {count(sessions.waiting)} before their login"
    )
    since = (
        f"since {moment(state.started, state.now)}; control files of"
        f" {moment(state.loaded, state.now)}"
    )
    facts = (
        ("Sessions", count(sessions.all), kinds),
        ("Logins a minute", rate(state.logins_a_minute), logins),
        (
            "Mail sent",
            octets(state.octets),
            f"in {count(state.messages)} messages from mailboxes here, since the start",
        ),
        ("Runs for", span(state.now - state.started), since),
        (
            "Processes",
            f"{answering} of {state.workers}" if state.silent else str(answering),
            "answer" if state.silent else "serve",
        ),
    )
    return _card(
        "now",
        "Now",
        tags.dl(
            *(
                tags.div(
                    tags.dt(term),
                    tags.dd(figure, class_="figure"),
                    tags.dd(more, class_="note"),
                )
                for term, figure, more in facts
            ),
            class_="now",
        ),
    )


def _hour(state: State, breathe: Callable[[], Any]) -> Tag:
    return _card(
        "hour",
        "The last hour",
        tags.div(
            SESSIONS.drawn(state.minutes, "sessions"),
            breathe(),
            LOGINS.drawn(state.minutes, "logins"),
            class_="pair",
        ),
        Tag("details")(
            Tag("summary")(f"In numbers, by {_MINUTES_A_ROW} minutes"),
            breathe(),
            _table(
                "The last hour in numbers",
                [_Column("From"), *(_Column(each, "number") for each in _COUNTS)],
                map(_minutes_row, _together(state.minutes)),
                stacked=False,
            ),
        ),
    )


def _together(minutes: Sequence[Minute]) -> Iterator[Minute]:
    """So many minutes as one; the newest first."""
    for start in reversed(range(0, len(minutes), _MINUTES_A_ROW)):
        several = minutes[start : start + _MINUTES_A_ROW]
        yield Minute(
            several[0].at,
            sum(each.logins for each in several),
            sum(each.refusals for each in several),
            max(each.sessions for each in several),
        )


def _minutes_row(minute: Minute) -> Sequence[str]:
    return (
        time_of_day(minute.at),
        count(minute.sessions),
        count(minute.logins),
        count(minute.refusals),
    )


def _places(state: State) -> Iterator[Tag]:
    servers = [
        _Column("Server", "name"),
        _Column("State", "short"),
        _Column("Last answer took", "number", label=True),
        _Column("Last failure", "full name", label=True),
    ]
    yield _card(
        "servers",
        "Directory servers",
        _table("Directory servers", servers, (_server_row(state, each) for each in state.servers)),
    )
    members = [
        _Column("Member", "name"),
        _Column("State", "short"),
        _Column("Sessions", "number", label=True),
        _Column("Last failure", "full name", label=True),
    ]
    if state.members:
        yield _card(
            "members",
            "Other members of the cluster",
            _table("Other members", members, (_member_row(state, each) for each in state.members)),
        )


def _server_row(state: State, place: Places) -> Sequence[_Cell]:
    took = "none yet" if place.latency is None else latency(place.latency)
    return place.name, _up(place), took, _failure(state, place)


def _member_row(state: State, place: Places) -> Sequence[_Cell]:
    return place.name, _up(place), count(place.sessions), _failure(state, place)


def _up(place: Places) -> Tag:
    return tags.span(place.word, class_="up" if place.up == place.of else "down")


def _failure(state: State, place: Places) -> str:
    if place.failed is None:
        return "none since the start"
    return f"{moment(place.failed, state.now)}: {place.why}"


def _refusals(state: State, users: bool) -> Tag:
    columns = [
        _Column("Time", "short"),
        _Column("Reason", "name"),
        _Column("Address", "name"),
        *([_Column("User", "name")] if users else []),
    ]
    rows = (
        (
            moment(each.time, state.now),
            each.reason,
            each.peer,
            *([each.user] if users else []),
        )
        for each in state.refusals
    )
    if not state.refusals:
        return _card("refusals", "Latest refusals", tags.p("None since the start.", class_="soft"))
    return _card("refusals", "Latest refusals", _table("Latest refusals", columns, rows))


_Cell = str | Tag


@attrs.frozen
class _Column:
    """``label``: where rows are no longer lines, its title stands before each cell."""

    title: str
    style: str = ""
    label: bool = False


def _table(
    caption: str,
    columns: Sequence[_Column],
    rows: Iterable[Sequence[_Cell]],
    *,
    stacked: bool = True,
) -> Tag:
    """The first cell of a row is its header; where it is narrow, rows are ``stacked``."""
    headers = (tags.th(each.title, scope="col", class_=each.style) for each in columns)
    return tags.table(class_="rows" if stacked else "", **{"aria-label": caption})(
        tags.thead(tags.tr(*headers)), tags.tbody(*(_row(columns, each) for each in rows))
    )


def _row(columns: Sequence[_Column], cells: Sequence[_Cell]) -> Tag:
    return tags.tr(
        tags.th(cells[0], scope="row", class_=columns[0].style),
        *(
            tags.td(
                cell,
                class_=column.style,
                **({"data-label": column.title} if column.label else {}),
            )
            for column, cell in zip(columns[1:], cells[1:], strict=True)
        ),
    )
