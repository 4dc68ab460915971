"""The keepers that are running, and whose turn it is to have one."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar

import attrs
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from qmailldap.maildir.reading import OpenMessage
from qmailldap.maildir.work import Begun, Finished, Place
from qmailldap.privsep import encoding
from qmailldap.privsep.channel import Answer, Channel, KeeperLost
from qmailldap.privsep.wire import FrameError
from qmailldap.threads import WAIT_LIMIT, Busy

__all__ = ["IDLE_LIMIT", "LEAVING_LIMIT", "MOST_KEEPERS", "MOST_WAITING", "Keepers", "Owner"]

MOST_KEEPERS = 64
IDLE_LIMIT = 60.0
"""Seconds after which a keeper that is asked nothing is let go."""

LEAVING_LIMIT = 10.0
"""Seconds that a keeper may take to end when it was told to."""

MOST_WAITING = 10_000

T = TypeVar("T")

_log = Logger(namespace="qmailldap.privsep")

Owner = tuple[int, int]
"""A user id and a group id."""

Question = Callable[[Channel], list[bytes]]
"""Words a question for the channel that it is to be asked on."""


class Starter(Protocol):
    """What is asked of the broker."""

    def open_channel(
        self, kind: bytes, uid: int, gid: int, lost: Callable[[Channel, bool], None]
    ) -> tuple[Channel, int]: ...

    def kill(self, number: int) -> None: ...


@attrs.define(eq=False)
class _Keeper:
    """A running keeper; ``number`` is the broker's, ``used`` is the clock's."""

    owner: Owner
    channel: Channel
    number: int
    used: float
    limit: IDelayedCall | None = None
    """When it is let go, or given up once it was told to end."""


@attrs.frozen(eq=False)
class _Waiting:
    """A question that no keeper could be asked yet."""

    owner: Owner
    question: Question
    asked: Deferred[Answer]


class Keepers:
    """At most ``most`` keepers, shared by the sessions of an owner.

    One that is idle is let go when another owner needs its place, the one that was used longest ago
    first; a session whose keeper has gone continues in the next. Where there is no idle one, owners
    wait in the order in which they came, and nobody who has a keeper may keep them waiting: until
    places are on their way for all of them, whoever asks something waits behind.
    """

    def __init__(self, starter: Starter, clock: IReactorTime, most: int = MOST_KEEPERS) -> None:
        self._starter = starter
        self._clock = clock
        self._most = most
        self._keepers: dict[Owner, _Keeper] = {}
        self._leaving: set[_Keeper] = set()
        self._waiting: deque[_Waiting] = deque()
        self._sessions = itertools.count(1)
        self._stopped = False

    def hands(self, owner: Owner, place: Place) -> KeptHands:
        """Hands for one session in a mailbox of ``owner``."""
        return KeptHands(self, owner, place, next(self._sessions))

    def stop(self) -> None:
        """Ask no more and let all keepers go; they end what they are doing."""
        self._stopped = True
        while self._waiting:
            self._waiting.popleft().asked.errback(Busy("the server is being stopped"))
        for keeper in list(self._keepers.values()):
            self._let_go(keeper)

    def ask(self, owner: Owner, question: Question) -> Deferred[Answer]:
        """Ask the keeper of ``owner``, as soon as there is one.

        Fails as `Channel.ask` does, with `Busy` when too many are waiting or it takes too long, and
        with what the starter raises. Cancelled, a question that has been asked goes on.
        """
        if self._stopped:
            return fail(Busy("the server is being stopped"))
        keeper = self._keepers.get(owner)
        if keeper is not None and not self._places_lacking():
            asked: Deferred[Answer] = Deferred()
            self._ask(keeper, question).addBoth(_tell, asked)
            return asked
        if len(self._waiting) >= MOST_WAITING:
            return fail(Busy(f"{MOST_WAITING} sessions wait for a keeper"))
        waiting = _Waiting(owner, question, Deferred(lambda _: self._forget(waiting)))
        self._waiting.append(waiting)
        patience = self._clock.callLater(WAIT_LIMIT, self._give_up, waiting)

        def no_longer(result: Answer | Failure) -> Answer | Failure:
            if patience.active():
                patience.cancel()
            return result

        self._serve_waiting()
        return waiting.asked.addBoth(no_longer)

    def _give_up(self, waiting: _Waiting) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
            waiting.asked.errback(Busy("no keeper was free in time"))
            self._serve_waiting()

    def _forget(self, waiting: _Waiting) -> None:
        with suppress(ValueError):
            self._waiting.remove(waiting)
            # Others may have waited behind it only for their turn.
            self._serve_waiting()

    def _serve_waiting(self) -> None:
        while self._waiting and not self._stopped:
            first = self._waiting[0]
            keeper = self._keepers.get(first.owner)
            if keeper is None:
                if len(self._keepers) + len(self._leaving) >= self._most:
                    self._make_room()
                    return
                try:
                    keeper = self._start(first.owner)
                except Exception:
                    # Whatever it is, those behind must not wait for it.
                    self._waiting.popleft()
                    first.asked.errback(Failure())
                    continue
            self._waiting.popleft()
            self._ask(keeper, first.question).addBoth(_tell, first.asked)

    def _make_room(self) -> None:
        """Let idle keepers go for those who wait."""
        idle = [keeper for keeper in self._keepers.values() if not keeper.channel.busy]
        idle.sort(key=lambda keeper: keeper.used)
        for keeper in idle[: self._places_lacking()]:
            self._let_go(keeper)

    def _places_lacking(self) -> int:
        """How many keepers must still be let go for those who wait first; all others wait on."""
        first = itertools.islice(self._waiting, self._most)
        homeless = {waiting.owner for waiting in first} - self._keepers.keys()
        return max(0, len(homeless) - len(self._leaving))

    def _start(self, owner: Owner) -> _Keeper:
        channel, number = self._starter.open_channel(b"k", *owner, self._lost)
        keeper = _Keeper(owner, channel, number, self._clock.seconds())
        self._keepers[owner] = keeper
        return keeper

    def _ask(self, keeper: _Keeper, question: Question) -> Deferred[Answer]:
        if keeper.limit is not None:
            keeper.limit.cancel()
            keeper.limit = None
        return keeper.channel.ask(*question(keeper.channel)).addBoth(self._answered, keeper)

    def _answered(self, result: Answer | Failure, keeper: _Keeper) -> Answer | Failure:
        keeper.used = self._clock.seconds()
        if not keeper.channel.busy and self._keepers.get(keeper.owner) is keeper:
            if keeper.limit is None:
                keeper.limit = self._clock.callLater(IDLE_LIMIT, self._let_go, keeper)
            self._serve_waiting()
        return result

    def _let_go(self, keeper: _Keeper) -> None:
        del self._keepers[keeper.owner]
        self._leaving.add(keeper)
        if keeper.limit is not None and keeper.limit.active():
            keeper.limit.cancel()
        keeper.limit = self._clock.callLater(
            LEAVING_LIMIT, keeper.channel.give_up, f"it did not end in {LEAVING_LIMIT:.0f} s"
        )
        keeper.channel.close()

    def _lost(self, channel: Channel, hangs: bool) -> None:
        """The keeper has ended, or is taken for dead; the next question starts another."""
        for keeper in (*self._keepers.values(), *self._leaving):
            if keeper.channel is channel:
                break
        else:
            return
        if self._keepers.get(keeper.owner) is keeper:
            del self._keepers[keeper.owner]
        self._leaving.discard(keeper)
        if keeper.limit is not None and keeper.limit.active():
            keeper.limit.cancel()
        if hangs:
            uid, gid = keeper.owner
            _log.warn("keeper uid={uid} gid={gid} problem=lost, it is killed", uid=uid, gid=gid)
            try:
                self._starter.kill(keeper.number)
            except (Busy, OSError) as error:
                _log.warn("keeper uid={uid} not killed: {error}", uid=uid, error=error)
        self._serve_waiting()


def _tell(result: Answer | Failure, asked: Deferred[Answer]) -> None:
    """Whoever asked may have lost interest."""
    if not asked.called:
        asked.callback(result)
    elif isinstance(result, Answer):
        for file in result.files:
            file.close()


class KeptHands:
    """Hands that are a keeper's: `qmailldap.maildir.hands.Hands`.

    What the session found when it began is kept here, too, so that any keeper can go on with it.
    """

    def __init__(self, keepers: Keepers, owner: Owner, place: Place, session: int) -> None:
        self._keepers = keepers
        self._owner = owner
        self._place = place
        self._session = encoding.number_field(session)
        self._begun: Begun | None = None
        # The channel to the keeper that knows the session.
        self._known_to: Channel | None = None
        self._under_way = 0
        self._closed = False

    def begin(self) -> Deferred[Begun]:
        return Deferred.fromCoroutine(self._begin())

    def fetch(self, number: int) -> Deferred[list[OpenMessage]]:
        return Deferred.fromCoroutine(self._fetch(number))

    def finish(self, deleted: frozenset[int]) -> Deferred[Finished]:
        return Deferred.fromCoroutine(self._finish(deleted))

    def close(self) -> None:
        self._closed = True
        if not self._under_way and self._known_to is not None:
            self._known_to.tell(b"forget", self._session)
            self._known_to = None

    async def _begin(self) -> Begun:
        answer, channel = await self._ask(b"begin", *encoding.write_place(self._place))
        self._begun = _read(encoding.read_begun, answer, channel)
        return self._begun

    async def _fetch(self, number: int) -> list[OpenMessage]:
        answer, channel = await self._ask(b"fetch", encoding.number_field(number))
        opened = _read(partial(encoding.read_opened, files=len(answer.files)), answer, channel)
        files = iter(answer.files)
        return [
            OpenMessage(
                message.size,
                message.first,
                next(files) if message.has_file else None,
                message.written_at,
            )
            for message in opened
        ]

    async def _finish(self, deleted: frozenset[int]) -> Finished:
        answer, channel = await self._ask(b"finish", encoding.write_numbers(deleted))
        return _read(encoding.read_finished, answer, channel)

    async def _ask(self, operation: bytes, *about: bytes) -> tuple[Answer, Channel]:
        asked: list[Channel] = []

        def question(channel: Channel) -> list[bytes]:
            fields = [operation, self._session, *about]
            if channel is not self._known_to and self._begun is not None:
                fields += encoding.write_place(self._place)
                fields += encoding.write_begun(self._begun)
            self._known_to = channel
            asked.append(channel)
            return fields

        self._under_way += 1
        try:
            return await self._keepers.ask(self._owner, question), asked[0]
        finally:
            self._under_way -= 1
            if self._closed:
                self.close()


def _read(reader: Callable[[Sequence[bytes]], T], answer: Answer, channel: Channel) -> T:
    """What an answer says. One that says nothing comes from a keeper that is none any more."""
    try:
        return reader(answer.fields)
    except FrameError as error:
        for file in answer.files:
            file.close()
        channel.give_up(f"it sent what is no answer: {error}")
        raise KeeperLost(str(error)) from None
