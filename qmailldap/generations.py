"""The generation in force, the one that is to follow, and those that logins still ask.

A login asks the generation that is in force when it begins, and keeps to it until it is over; the
one before is let go when no login asks it any more.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.cred.error import UnhandledCredentials
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, DeferredList, TimeoutError, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from zope.interface import Interface

from qmailldap.control import ControlSnapshot
from qmailldap.directory import load_filters
from qmailldap.generation import Generation, Lasting
from qmailldap.loglevel import Log
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.threads import Busy

__all__ = ["LONGEST_LOGIN", "MOST_LEAVING", "ROOM_LIMIT", "Generations"]

LONGEST_LOGIN = 300.0
"""Seconds, besides what the directory may take, after which a login that is still under way loses
the generation it began with."""

MOST_LEAVING = 8
"""Generations that logins still ask, besides that in force; the next waits until one is let go."""

ROOM_LIMIT = 20.0
"""Seconds that what is to follow waits for that by itself: a supervisor gives `prepare` 30."""

_log = Log(namespace="qmailldap.service", of_sessions=False)


class Generations(Service):
    """``in_force`` is that of the start, which the service begins, until another is committed.

    It is so ``since`` then, by the reactor's clock.
    ``followers`` are told of each that comes into force. Raises as `Generation.of`.
    """

    name = "generations"

    def __init__(self, snapshot: ControlSnapshot, lasting: Lasting) -> None:
        # What one that follows may need: there may be no right to read it by then.
        load_filters()
        self.in_force = Generation.of(snapshot, lasting)
        self.since: float = lasting.reactor.seconds()
        self.portal = _PortalInForce(self)
        self.followers: list[Callable[[Generation], None]] = []
        self._lasting = lasting
        self._prepared: Generation | None = None
        # What the broker has read of the program that makes homes, where that is another.
        self._dirmaker: int | None = None
        self._preparations = 0
        # When each of them is let go at the latest, whoever asks it.
        self._leaving: dict[Generation, IDelayedCall] = {}
        self._waiting: list[Deferred[None]] = []
        self._ending: set[Deferred[None]] = set()

    def trusts(self, host: str) -> bool:
        """Whether what a peer at the address ``host`` says of its client is believed now."""
        return self.in_force.cluster.trusts(host)

    def startService(self) -> None:
        super().startService()
        self.in_force.begin()

    def stopService(self) -> Deferred[None]:
        """Fires when nothing of any is left."""
        super().stopService()
        self.abort()
        for each in list(self._leaving):
            self._let_go(each)
        self._end(self.in_force)
        ended = DeferredList(list(self._ending))
        return ended.addCallback(lambda _: None)

    def room(self) -> Deferred[None]:
        """Fires when another may follow; that has a limit, as each is let go in the end."""
        if len(self._leaving) < MOST_LEAVING:
            return succeed(None)
        _log.warn("control waits: logins under way ask {count} earlier states", count=MOST_LEAVING)
        self._waiting.append(Deferred(self._waiting.remove))
        return self._waiting[-1]

    def prepare(self, snapshot: ControlSnapshot) -> Deferred[None]:
        """Make ready what follows from these files; all is as it was until `commit`.

        Takes the place of what was prepared before. Fails with `ControlError` and
        `BadCertificate`, a line that names the file, and with `Busy` and ``OSError``; so where
        there is no `room` within `ROOM_LIMIT`.
        """
        self.abort()
        return Deferred.fromCoroutine(self._prepare(snapshot, self._preparations))

    async def _prepare(self, snapshot: ControlSnapshot, number: int) -> None:
        try:
            await self.room().addTimeout(ROOM_LIMIT, self._lasting.reactor)
        except TimeoutError:
            problem = f"logins under way ask {MOST_LEAVING} earlier states; try again"
            raise Busy(problem) from None
        if number != self._preparations:
            return
        generation = Generation.of(snapshot, self._lasting, self.in_force)
        dirmaker = await self._read_dirmaker(generation)
        # It may have been aborted meanwhile.
        if number == self._preparations:
            self._prepared, self._dirmaker = generation, dirmaker

    async def _read_dirmaker(self, generation: Generation) -> int | None:
        """Have the broker read itself what it is to believe; None where it need not."""
        control, broker = generation.control, self._lasting.broker
        if broker is None or control.dirmaker == self.in_force.control.dirmaker:
            return None
        number, program = await broker.read_dirmaker()
        if program != os.fsencode(control.dirmaker or ""):
            raise control.error("dirmaker", "was changed while the control files were read")
        return number

    def abort(self) -> None:
        """Forget what was prepared, if anything was."""
        self._preparations += 1
        self._prepared = self._dirmaker = None

    def commit(self) -> None:
        """Have what was prepared come into force, for each login that begins from now on."""
        generation, dirmaker = self._prepared, self._dirmaker
        assert generation is not None, "nothing was prepared"
        self.abort()
        known = set(self.in_force.control.warnings)
        self._take(generation)
        for warning in generation.control.warnings:
            if warning not in known:
                _log.warn("control {doubt}", doubt=warning)
        if dirmaker is not None and self._lasting.broker is not None:
            self._lasting.broker.take_dirmaker(dirmaker, self._renew_keepers)
        for follow in self.followers:
            follow(generation)

    def _renew_keepers(self) -> None:
        if self._lasting.keepers is not None:
            self._lasting.keepers.renew()

    def _take(self, generation: Generation) -> None:
        if self.running:
            generation.begin()
        before, self.in_force = self.in_force, generation
        self.since = self._lasting.reactor.seconds()
        watch = generation.watch.value
        if watch is not None and generation.renewal is not None:
            watch.renewed(watch.certificates.take(generation.renewal))
        elif watch is None and before.watch.value is not None:
            _log.warn("certificate none is left: no client is offered TLS any more")
        if not self.running:
            return
        limit = LONGEST_LOGIN + 2 * before.control.ldaptimeout
        self._leaving[before] = self._lasting.reactor.callLater(limit, self._let_go, before)
        self._let_go_if_unused(before)

    def entered(self) -> Generation:
        """A login begins: the generation that it asks until `left` is called with it."""
        generation = self.in_force
        generation.logins += 1
        return generation

    def left(self, generation: Generation) -> None:
        """A login is over."""
        generation.logins -= 1
        self._let_go_if_unused(generation)

    def _let_go_if_unused(self, generation: Generation) -> None:
        if generation in self._leaving and not generation.logins:
            self._let_go(generation)

    def _let_go(self, generation: Generation) -> None:
        limit = self._leaving.pop(generation)
        if limit.active():
            limit.cancel()
        self._end(generation)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def _end(self, generation: Generation) -> None:
        ended = generation.end()
        self._ending.add(ended)
        ended.addCallback(lambda _: self._ending.discard(ended))


class _PortalInForce(Portal):
    """Asks, for each login, the portal that is in force when it begins."""

    def __init__(self, generations: Generations) -> None:
        self._generations = generations

    def login(self, credentials: Any, mind: object, *interfaces: type[Interface]) -> Any:
        generation = self._generations.entered()

        def over(result: Any) -> Any:
            self._generations.left(generation)
            return result

        asked: Deferred[Any] = generation.portal.login(credentials, mind, *interfaces)
        return asked.addBoth(over).addErrback(_no_longer_taken)


def _no_longer_taken(failure: Failure) -> Failure:
    """A connection may be older than what is in force, and have been offered more."""
    if failure.check(UnhandledCredentials):
        raise LoginRefused(
            Refusal.WRONG_CREDENTIALS, "answers to challenges are taken no more", judged=False
        )
    return failure
