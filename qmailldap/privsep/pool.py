"""The keepers that are running, and whose turn it is to have one."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from qmailldap.loglevel import Log
from qmailldap.maildir.listings import ListingCache
from qmailldap.maildir.work import Place
from qmailldap.privsep.channel import Answer, Channel
from qmailldap.privsep.keeper import MOST_THREADS
from qmailldap.privsep.kept_hands import KeptHands, Owner, Question
from qmailldap.threads import WAIT_LIMIT, Busy

__all__ = ["IDLE_LIMIT", "LEAVING_LIMIT", "MOST_KEEPERS", "MOST_WAITING", "Keepers"]

MOST_KEEPERS = 64
IDLE_LIMIT = 60.0
"""Seconds after which a keeper that is asked nothing is let go."""

LEAVING_LIMIT = 10.0
"""Seconds that a keeper may take to end when it was told to."""

MOST_WAITING = 10_000

_log = Log(namespace="qmailldap.privsep", of_sessions=False)


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
    outdated: bool = False
    """Whether another is to take its place."""

    @property
    def is_full(self) -> bool:
        """Whether it would not even read another question: all its threads are at work."""
        return self.channel.under_way >= MOST_THREADS


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
    stand in line, each for one question at a time, and nobody who has a keeper may keep them
    waiting: until places are on their way for all of them, whoever asks something goes to the end
    of the line. A keeper whose threads are all at work is asked nothing more; then its owner's
    questions wait, and he does not stand in line.
    """

    def __init__(self, starter: Starter, clock: IReactorTime, most: int = MOST_KEEPERS) -> None:
        self._starter = starter
        self._clock = clock
        self._most = most
        self._keepers: dict[Owner, _Keeper] = {}
        self._leaving: set[_Keeper] = set()
        # What each owner's sessions wait to ask; none of them is empty.
        self._waiting: dict[Owner, deque[_Waiting]] = {}
        self._count = 0
        # Owners in their order, some of whom may wait for nothing any more.
        self._line: dict[Owner, None] = {}
        self._serving = False
        self._sessions = itertools.count(1)
        self._stopped = False

    @property
    def running(self) -> int:
        """How many there are, those included that were told to end."""
        return len(self._keepers) + len(self._leaving)

    def hands(self, owner: Owner, place: Place, listings: ListingCache | None = None) -> KeptHands:
        """Hands for one session in a mailbox of ``owner``; ``listings`` are of earlier ones."""
        return KeptHands(self, owner, place, next(self._sessions), listings)

    def stop(self) -> None:
        """Ask no more and let all keepers go; they end what they are doing."""
        self._stopped = True
        for waiting in [each for queue in self._waiting.values() for each in queue]:
            self._remove(waiting)
            waiting.asked.errback(Busy("the server is being stopped"))
        for keeper in list(self._keepers.values()):
            self._let_go(keeper)
        for keeper in self._leaving:
            if keeper.limit is None:
                self._close(keeper)

    def renew(self) -> None:
        """Have other keepers take the place of those there are, for they would be others now.

        One that is at work is asked no more, and is let go when it has answered. Where there is no
        room for another beside it, it serves its owner until it is idle.
        """
        for keeper in list(self._keepers.values()):
            keeper.outdated = True
            self._replace(keeper)
        self._serve()

    def _replace(self, keeper: _Keeper) -> None:
        """Ask an outdated one no more, if that is the time for it."""
        if not keeper.outdated or self._keepers.get(keeper.owner) is not keeper:
            return
        if not keeper.channel.under_way:
            self._let_go(keeper)
            return
        ending = any(each.owner == keeper.owner for each in self._leaving)
        if not ending and len(self._keepers) + len(self._leaving) < self._most:
            # Its end would be heard by what it does, as by a program that makes a home.
            del self._keepers[keeper.owner]
            self._leaving.add(keeper)

    def ask(self, owner: Owner, question: Question) -> Deferred[Answer]:
        """Ask the keeper of ``owner``, as soon as there is one that has time.

        Fails as `Channel.ask` does, with `Busy` when too many are waiting or it takes too long, and
        with what the starter raises. Cancelled, a question that has been asked goes on.
        """
        if self._stopped:
            return fail(Busy("the server is being stopped"))
        keeper = self._keepers.get(owner)
        if (
            keeper is not None
            and not keeper.is_full
            and owner not in self._waiting
            and not self._places_lacking()
        ):
            asked: Deferred[Answer] = Deferred()
            self._ask(keeper, question).addBoth(_tell, asked)
            return asked
        if self._count >= MOST_WAITING:
            return fail(Busy(f"{MOST_WAITING} sessions wait for a keeper"))
        waiting = _Waiting(owner, question, Deferred(lambda _: self._forget(waiting)))
        self._waiting.setdefault(owner, deque()).append(waiting)
        self._count += 1
        patience = self._clock.callLater(WAIT_LIMIT, self._give_up, waiting)

        def no_longer(result: Answer | Failure) -> Answer | Failure:
            if patience.active():
                patience.cancel()
            return result

        waiting.asked.addBoth(no_longer)
        self._stand_in_line(owner)
        self._serve()
        return waiting.asked

    def _remove(self, waiting: _Waiting) -> bool:
        """Whether it was still waiting."""
        queue = self._waiting.get(waiting.owner, deque())
        with suppress(ValueError):
            queue.remove(waiting)
            self._count -= 1
            if not queue:
                del self._waiting[waiting.owner]
            return True
        return False

    def _give_up(self, waiting: _Waiting) -> None:
        if self._remove(waiting):
            waiting.asked.errback(Busy("no keeper was free in time"))
            self._serve()

    def _forget(self, waiting: _Waiting) -> None:
        if self._remove(waiting):
            # Others may have waited behind it only for their turn.
            self._serve()

    def _stand_in_line(self, owner: Owner) -> None:
        keeper = self._keepers.get(owner)
        if owner in self._waiting and not (keeper is not None and keeper.is_full):
            self._line.setdefault(owner)

    def _serve(self) -> None:
        """Ask what can be asked now, the first in line first.

        What comes of it may have others ask, and this be called again: they get their turn here.
        """
        if self._serving:
            return
        self._serving = True
        try:
            while self._line and not self._stopped and self._serve_first(next(iter(self._line))):
                pass
        finally:
            self._serving = False

    def _serve_first(self, owner: Owner) -> bool:
        """False where those in line must wait on."""
        keeper = self._keepers.get(owner)
        if owner not in self._waiting or (keeper is not None and keeper.is_full):
            del self._line[owner]
            return True
        if keeper is None and len(self._keepers) + len(self._leaving) >= self._most:
            self._make_room()
            return False
        del self._line[owner]
        first = self._waiting[owner][0]
        self._remove(first)
        try:
            keeper = keeper or self._start(owner)
        except Exception:
            # Whatever it is, those behind must not wait for it.
            first.asked.errback(Failure())
        else:
            self._ask(keeper, first.question).addBoth(_tell, first.asked)
        self._stand_in_line(owner)
        return True

    def _make_room(self) -> None:
        """Let idle keepers go for those who wait."""
        idle = [keeper for keeper in self._keepers.values() if not keeper.channel.under_way]
        idle.sort(key=lambda keeper: keeper.used)
        for keeper in idle[: self._places_lacking()]:
            self._let_go(keeper)

    def _places_lacking(self) -> int:
        """How many keepers must still be let go for those first in line; all others wait on."""
        first = itertools.islice(self._line, self._most)
        homeless = sum(owner in self._waiting and owner not in self._keepers for owner in first)
        return max(0, homeless - len(self._leaving))

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
        if self._keepers.get(keeper.owner) is keeper:
            if not keeper.channel.under_way and keeper.outdated:
                self._let_go(keeper)
            elif not keeper.channel.under_way and keeper.limit is None:
                keeper.limit = self._clock.callLater(IDLE_LIMIT, self._let_go, keeper)
            self._stand_in_line(keeper.owner)
            self._serve()
        elif keeper in self._leaving and keeper.limit is None and not keeper.channel.under_way:
            self._close(keeper)
        return result

    def _let_go(self, keeper: _Keeper) -> None:
        del self._keepers[keeper.owner]
        self._leaving.add(keeper)
        if keeper.limit is not None and keeper.limit.active():
            keeper.limit.cancel()
        self._close(keeper)

    def _close(self, keeper: _Keeper) -> None:
        """Have one end that is asked no more."""
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
        current = self._keepers.get(keeper.owner)
        if current is not None:
            self._replace(current)
        if keeper.limit is not None and keeper.limit.active():
            keeper.limit.cancel()
        # At the end of the server the broker sees to it.
        if hangs and not self._stopped:
            uid, gid = keeper.owner
            _log.warn("keeper uid={uid} gid={gid} problem=lost, it is killed", uid=uid, gid=gid)
            try:
                self._starter.kill(keeper.number)
            except (Busy, OSError) as error:
                _log.warn("keeper uid={uid} not killed: {error}", uid=uid, error=error)
        self._stand_in_line(keeper.owner)
        self._serve()


def _tell(result: Answer | Failure, asked: Deferred[Answer]) -> None:
    """Whoever asked may have lost interest."""
    if not asked.called:
        asked.callback(result)
    elif isinstance(result, Answer):
        for file in result.files:
            file.close()
