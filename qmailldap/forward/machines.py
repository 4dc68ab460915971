"""The machines of a member: which of them are up, and the first to greet.

A machine that does not greet is down: it is left alone for a few seconds, and then by everybody but
one, who tries it. So a thousand clients do not each find out for themselves.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from functools import partial

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, TimeoutError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from qmailldap.control import ServerAddress
from qmailldap.forward.dialogue import Dialogue, MemberRefused, MemberSilent, MemberTrouble
from qmailldap.forward.limits import ForwardLimits
from qmailldap.loglevel import Kind, Log
from qmailldap.printable import printable

__all__ = ["MOST_ADDRESSES", "Dial", "Greeted", "MachineState", "Machines", "Unreachable"]

MOST_ADDRESSES = 16
"""Addresses of one member that are tried."""

Dial = Callable[[str, int, float], Deferred[Dialogue]]
"""Connects to an address and a port within so many seconds; fails with ``ConnectError``."""

_MOST_MACHINES = 10_000

# What keeps this host from connecting to anybody.
_OUR_OWN_FAULTS = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
)

_log = Log(namespace="qmailldap.forward", of_sessions=False)


class Unreachable(Exception):
    """Nobody greets; the text says why, for the log."""


@attrs.frozen
class Greeted:
    """A machine that has greeted: ``where`` it is, and its greeting behind the +OK."""

    where: str
    greeting: bytes
    dialogue: Dialogue


@attrs.frozen
class MachineState:
    """``where`` as in `Greeted`; ``last_failure`` is when, in seconds since the epoch, and why."""

    where: str
    up: bool
    last_failure: tuple[float, str] | None


@attrs.define(eq=False)
class _Machine:
    """``trouble`` is why it is down, empty while it is up.

    ``until`` then it is left alone when it is down; and comes after the others, when it was slower.
    ``greeted`` is when it last did. ``last_failure`` is when it was found to be down, and why.
    """

    address: str
    port: int
    trouble: str = ""
    until: float = 0.0
    probed: bool = False
    greeted: float = -1.0
    last_failure: tuple[float, str] | None = None
    attempts: set[Deferred[Greeted]] = attrs.field(factory=set)

    def __str__(self) -> str:
        shown = str(ServerAddress(self.address, self.port))
        # A scope may be any text.
        return printable(shown.encode("utf-8", "replace")).strip('"')

    def is_worth_a_try(self, now: float) -> bool:
        return not self.trouble or (not self.probed and now >= self.until)


class Machines:
    """All machines that sessions are forwarded to; ``dial`` is how to connect to one."""

    def __init__(self, clock: IReactorTime, dial: Dial, limits: ForwardLimits) -> None:
        self._clock = clock
        self._dial = dial
        self._limits = limits
        self._machines: dict[tuple[str, int], _Machine] = {}

    def known(self) -> list[MachineState]:
        """Those that sessions were forwarded to, or were to be."""
        return [
            MachineState(str(each), not each.trouble, each.last_failure)
            for each in self._machines.values()
        ]

    async def first_to_greet(self, addresses: Sequence[str], port: int, deadline: float) -> Greeted:
        """Connect to one of the addresses after the other until one greets.

        Raises `Unreachable` when none does until ``deadline``, by the clock; at once when all are
        down.
        """
        machines = [self._machine(address, port) for address in addresses[:MOST_ADDRESSES]]
        now = self._clock.seconds()
        machines.sort(key=lambda machine: now < machine.until)
        race = _Race(
            self._clock,
            self._limits,
            machines,
            lambda machine, connected: self._attempt(machine, connected, deadline),
        )
        return await race.won

    def _machine(self, address: str, port: int) -> _Machine:
        machine = self._machines.get((address, port))
        if machine is None:
            while len(self._machines) >= _MOST_MACHINES:
                del self._machines[next(iter(self._machines))]
            machine = self._machines[address, port] = _Machine(address, port)
        return machine

    def _attempt(
        self, machine: _Machine, connected: Callable[[], None], deadline: float
    ) -> Deferred[Greeted]:
        begun = self._clock.seconds()
        attempt = Deferred.fromCoroutine(self._greet(machine, connected, deadline))
        machine.attempts.add(attempt)
        return attempt.addBoth(self._attempted, machine, attempt, begun)

    async def _greet(
        self, machine: _Machine, connected: Callable[[], None], deadline: float
    ) -> Greeted:
        begun = self._clock.seconds()
        if not machine.is_worth_a_try(begun):
            raise Unreachable(f"is down: {machine.trouble}")
        probing = machine.probed = bool(machine.trouble)
        try:
            dialogue = await self._connect(machine, deadline - begun)
            connected()
            try:
                greeting = await self._greeting(dialogue, deadline - self._clock.seconds())
            except BaseException:
                dialogue.hang_up()
                raise
            return Greeted(str(machine), greeting, dialogue)
        finally:
            if probing:
                machine.probed = False

    async def _connect(self, machine: _Machine, limit: float) -> Dialogue:
        if limit <= 0:
            raise Unreachable("was not tried in time")
        try:
            return await self._dial(machine.address, machine.port, limit)
        except TimeoutError:
            problem = f"was not connected to within {limit:.3g} s"
            raise self._by_time(limit, problem) from None
        except ConnectError as error:
            if error.osError in _OUR_OWN_FAULTS:
                raise Unreachable(f"cannot be connected to from here: {error}") from None
            raise MemberTrouble(str(error)) from None

    async def _greeting(self, dialogue: Dialogue, left: float) -> bytes:
        if left <= 0:
            raise Unreachable("was connected to too late")
        limit = min(left, self._limits.answer)
        try:
            return await dialogue.greeting(limit)
        except MemberRefused as refused:
            raise Unreachable(f"greets with -ERR {refused}") from None
        except MemberSilent as silent:
            raise self._by_time(limit, str(silent)) from None

    def _by_time(self, limit: float, problem: str) -> Exception:
        """What a machine has done that did not answer within ``limit`` seconds.

        Its name, or others, may have left it too little time to be judged by.
        """
        return (MemberTrouble if limit >= self._limits.answer else Unreachable)(problem)

    def _attempted(
        self, result: Greeted | Failure, machine: _Machine, attempt: Deferred[Greeted], begun: float
    ) -> Greeted | Failure:
        machine.attempts.discard(attempt)
        if not isinstance(result, Failure):
            machine.greeted = self._clock.seconds()
            if machine.trouble:
                machine.trouble = ""
                # For those who were told that it is down.
                _log.info("member {machine} is up again", kind=Kind.WARNINGS, machine=str(machine))
        elif result.check(MemberTrouble) and machine.greeted < begun:
            # (Had it greeted others meanwhile, this one would have been bad luck.)
            if not machine.trouble:
                _log.warn(
                    "member {machine} is down: {trouble}",
                    machine=str(machine),
                    trouble=result.getErrorMessage(),
                )
            machine.trouble = result.getErrorMessage()
            machine.last_failure = self._clock.seconds(), machine.trouble
            machine.until = self._clock.seconds() + self._limits.down
            for other in tuple(machine.attempts):
                other.cancel()
        return result


class _Race:
    """One attempt after the other, each begun when the ones before it let wait or fail.

    As soon as one is connected the others are put off, and are begun again should it not greet.
    """

    def __init__(
        self,
        clock: IReactorTime,
        limits: ForwardLimits,
        machines: Sequence[_Machine],
        attempt: Callable[[_Machine, Callable[[], None]], Deferred[Greeted]],
    ) -> None:
        self.won: Deferred[Greeted] = Deferred(self._give_up)
        self._clock = clock
        self._limits = limits
        self._attempt = attempt
        self._waiting = list(machines)
        self._under_way: dict[_Machine, Deferred[Greeted]] = {}
        self._next: IDelayedCall | None = None
        self._problems: list[str] = []
        self._begin_next()

    def _begin_next(self) -> None:
        self._wait_no_more()
        if self._waiting:
            machine = self._waiting.pop(0)
            attempt = self._attempt(machine, partial(self._connected, machine))
            self._under_way[machine] = attempt
            if self._waiting:
                self._next = self._clock.callLater(self._limits.stagger, self._begin_next)
            attempt.addCallbacks(self._greeted, self._failed, errbackArgs=(machine,))
        elif not self._under_way and not self.won.called:
            self.won.errback(Unreachable("; ".join(self._problems) or "no address"))

    def _give_up(self, _: Deferred[Greeted]) -> None:
        self._put_off()

    def _connected(self, machine: _Machine) -> None:
        put_off = self._put_off(but=machine)
        for slower in put_off:
            # It is not to keep the next ones waiting, too.
            slower.until = self._clock.seconds() + self._limits.down
        self._waiting[:0] = put_off

    def _greeted(self, greeted: Greeted) -> None:
        self._under_way.clear()
        self.won.callback(greeted)

    def _failed(self, failure: Failure, machine: _Machine) -> None:
        if self._under_way.pop(machine, None) is None:
            return  # put off
        if failure.check(Unreachable, MemberTrouble):
            self._problems.append(f"{machine} {failure.getErrorMessage()}")
        elif failure.check(CancelledError):
            self._problems.append(f"{machine} is down: {machine.trouble}")
        else:
            self._put_off()
            self.won.errback(failure)
            return
        self._begin_next()

    def _put_off(self, but: _Machine | None = None) -> list[_Machine]:
        """Break off all attempts but one; gives the machines."""
        self._wait_no_more()
        put_off = [machine for machine in self._under_way if machine is not but]
        for machine in put_off:
            self._under_way.pop(machine).cancel()
        return put_off

    def _wait_no_more(self) -> None:
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = None
