"""How a server stands: what each of its processes knows, and all of it together.

A process tells its `Part` as JSON. What comes from another is looked at as if from a stranger: what
is no part counts as no answer, and every text is one that a terminal and a page may show.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import attrs

from qmailldap.figures import Minute

__all__ = [
    "LATEST",
    "MOST_PLACES",
    "Part",
    "Place",
    "Places",
    "Refused",
    "Sessions",
    "State",
    "plain",
]

LATEST = 50
"""Refusals that are kept by each process, and shown of all together."""

MOST_PLACES = 100
"""Directory servers, and machines of members, that are told of."""

_MOST_NAMED = 5
"""Members that are down and are told of one by one, before all else."""

_LONGEST = 300
_LARGEST = 1e15
_LATEST = 1e11
"""Seconds since the epoch: in a year that can be shown."""

_AVERAGED = 6
"""Minutes, the one under way included, over which logins are averaged."""

T = TypeVar("T")


def plain(text: object) -> str:
    """Text without anything that a terminal or a reader of a page might be misled by.

    Control characters, those that turn the direction of writing and the like are escaped.
    """
    if not isinstance(text, str):
        raise TypeError(f"{text!r:.40} is no text")
    short = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    if short.isprintable():
        return short
    return "".join(each if each.isprintable() else _escaped(each) for each in short)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _number(value: Any) -> float:
    # A boolean would be one, and what is not finite cannot be shown.
    if type(value) not in (int, float) or not abs(value) < _LARGEST:
        raise TypeError(f"{value!r:.40} is no number")
    return value  # type: ignore[no-any-return]  # looked at above


def _seconds(value: Any) -> float | None:
    return None if value is None else _number(value)


def _moment(value: Any) -> float:
    if not 0 <= _number(value) < _LATEST:
        raise ValueError(f"{value!r:.40} is no time")
    return value  # type: ignore[no-any-return]  # looked at above


def _moment_if_any(value: Any) -> float | None:
    return None if value is None else _moment(value)


def _whole(value: Any) -> int:
    return int(_number(value))


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError(f"{value!r:.40} is neither true nor false")
    return value


def _items(value: Any, kind: Callable[..., T], most: int) -> tuple[T, ...]:
    """Of a list, what are objects by now and what is still JSON."""
    if not isinstance(value, list | tuple):
        raise TypeError(f"{value!r:.40} is no list")
    return tuple(each if attrs.has(type(each)) else kind(**each) for each in value[:most])


def _places(value: Any) -> tuple[Place, ...]:
    return _items(value, Place, MOST_PLACES)


def _refusals(value: Any) -> tuple[Refused, ...]:
    return _items(value, Refused, LATEST)


@attrs.frozen(kw_only=True)
class Place:
    """A directory server or a machine of a member, as one process sees it.

    ``latency`` is the seconds that the last answer took, ``failed`` when it failed last, in seconds
    since the epoch, and ``why`` the reason. ``sessions`` are those forwarded there.
    """

    name: str = attrs.field(converter=plain)
    up: bool = attrs.field(converter=_flag)
    latency: float | None = attrs.field(default=None, converter=_seconds)
    failed: float | None = attrs.field(default=None, converter=_moment_if_any)
    why: str = attrs.field(default="", converter=plain)
    sessions: int = attrs.field(default=0, converter=_whole)


@attrs.frozen(kw_only=True)
class Refused:
    """A login, or a connection, that was refused; ``user`` is empty unless names are wanted."""

    time: float = attrs.field(converter=_moment)
    reason: str = attrs.field(converter=plain)
    peer: str = attrs.field(converter=plain)
    user: str = attrs.field(default="", converter=plain)


@attrs.frozen(kw_only=True)
class Part:
    """What one process knows. ``worker`` is its number, 0 where there are no others.

    ``started`` is when it was, ``loaded`` since when its control files are in force; both in
    seconds since the epoch.
    """

    worker: int = attrs.field(converter=_whole)
    started: float = attrs.field(converter=_moment)
    loaded: float = attrs.field(converter=_moment)
    servers: tuple[Place, ...] = attrs.field(default=(), converter=_places)
    members: tuple[Place, ...] = attrs.field(default=(), converter=_places)
    refusals: tuple[Refused, ...] = attrs.field(default=(), converter=_refusals)

    def to_json(self) -> dict[str, Any]:
        return attrs.asdict(self)

    @classmethod
    def from_json(cls, told: object) -> Part | None:
        """None where it is no part."""
        try:
            if not isinstance(told, Mapping):
                return None
            return cls(**told)
        except (TypeError, ValueError):
            return None


@attrs.frozen(kw_only=True)
class Places:
    """A directory server or a machine as all processes see it: ``up`` in so many ``of`` them."""

    name: str = attrs.field(converter=plain)
    up: int = attrs.field(converter=_whole)
    of: int = attrs.field(converter=_whole)
    latency: float | None = attrs.field(converter=_seconds)
    failed: float | None = attrs.field(converter=_moment_if_any)
    why: str = attrs.field(converter=plain)
    sessions: int = attrs.field(converter=_whole)

    @property
    def word(self) -> str:
        if self.up == self.of:
            return "up"
        return "down" if not self.up else f"up in {self.up} of {self.of}"

    @classmethod
    def of_all(cls, places: Sequence[Place]) -> Places:
        """``places`` are of one name."""
        latencies = [each.latency for each in places if each.latency is not None]
        last = max(places, key=lambda each: each.failed or 0.0)
        return cls(
            name=places[0].name,
            up=sum(each.up for each in places),
            of=len(places),
            latency=sum(latencies) / len(latencies) if latencies else None,
            failed=last.failed,
            why=last.why if last.failed is not None else "",
            sessions=sum(each.sessions for each in places),
        )


@attrs.frozen
class Sessions:
    """How many there are of each kind."""

    local: int
    forwarded: int
    waiting: int

    @property
    def all(self) -> int:
        return self.local + self.forwarded + self.waiting


@attrs.frozen(kw_only=True)
class State:
    """All that there is to be shown, at the moment ``now``, in seconds since the epoch.

    ``workers`` is how many processes there should be, ``silent`` the numbers of those that have not
    answered. ``started`` is when the first of those that are there was, ``loaded`` since when the
    control files are in force, of the process that has read them last. ``octets`` and ``messages``
    are what was sent, ``logins`` and ``refused`` how many there were, since the server was started.
    """

    now: float
    name: str
    version: str
    workers: int
    silent: tuple[int, ...]
    started: float
    loaded: float
    sessions: Sessions
    logins: int
    refused: int
    octets: int
    messages: int
    servers: tuple[Places, ...]
    members: tuple[Places, ...]
    refusals: tuple[Refused, ...]
    minutes: tuple[Minute, ...]

    @property
    def logins_a_minute(self) -> float:
        """On the average of the last minutes."""
        return sum(minute.logins for minute in self._last) / self._lasted

    @property
    def refusals_a_minute(self) -> float:
        """As `logins_a_minute`."""
        return sum(minute.refusals for minute in self._last) / self._lasted

    @property
    def _last(self) -> Sequence[Minute]:
        return self.minutes[-_AVERAGED:]

    @property
    def _lasted(self) -> float:
        """How many minutes these are so far, of a server that may be younger; never less than 1."""
        begun = self._last[0].at if self._last else self.now
        return max(1.0, (self.now - max(begun, self.started)) / 60)

    @property
    def troubles(self) -> tuple[str, ...]:
        """What an administrator should look at, in sentences."""
        return tuple(_troubles(self))

    def to_json(self) -> dict[str, Any]:
        """As `from_json` reads it."""
        return {**attrs.asdict(self), "troubles": list(self.troubles)}

    @classmethod
    def from_json(cls, told: Any) -> State:
        """Raises ``ValueError`` where it is none."""
        try:
            fields = {key: value for key, value in told.items() if key != "troubles"}
            return cls(
                **{
                    **fields,
                    "name": plain(fields["name"]),
                    "version": plain(fields["version"]),
                    "silent": tuple(fields["silent"]),
                    "sessions": Sessions(**fields["sessions"]),
                    "servers": tuple(Places(**each) for each in fields["servers"]),
                    "members": tuple(Places(**each) for each in fields["members"]),
                    "refusals": tuple(Refused(**each) for each in fields["refusals"]),
                    "minutes": tuple(Minute(**each) for each in fields["minutes"]),
                }
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"the answer is none of this version: {error}") from None


def _troubles(state: State) -> Iterable[str]:
    for number in state.silent:
        yield f"Worker {number} does not answer."
    if state.servers:
        down = [each.name for each in state.servers if not each.up]
        if len(down) == len(state.servers):
            yield "No directory server answers: nobody can log in."
        else:
            for name in down:
                yield f"The directory server {name} is down."
    lost = [each.name for each in state.members if not each.up]
    if len(lost) > _MOST_NAMED:
        yield f"{len(lost)} members of {len(state.members)} are down."
    else:
        for name in lost:
            yield f"The member {name} is down."


def together_of(places: Iterable[Place]) -> tuple[Places, ...]:
    """Those of the same name as one, in the order in which they come first."""
    by_name: dict[str, list[Place]] = defaultdict(list)
    for each in places:
        by_name[each.name].append(each)
    return tuple(Places.of_all(each) for each in by_name.values())


def latest(refusals: Iterable[Refused]) -> tuple[Refused, ...]:
    """The last of all, the newest first."""
    return tuple(sorted(refusals, key=lambda each: -each.time)[:LATEST])
