"""Control files and certificates read again, by all workers or by none."""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.internet.defer import Deferred, TimeoutError

from qmailldap.loglevel import Kind, Log
from qmailldap.workers.links import Answers, Link, Links, Refused, Unanswered
from qmailldap.workers.sealed import seal

__all__ = ["COMMIT_LIMIT", "MOST_REFUSALS", "PREPARE_LIMIT", "InForce", "ReloadOfAll"]

PREPARE_LIMIT = 30.0
"""Seconds that a worker has to make itself ready for what was read; its files are read already."""

COMMIT_LIMIT = 10.0
"""Seconds that it has to take what it is ready for; it has nothing to wait for then."""

MOST_REFUSALS = 3
"""Of one worker that cannot follow the others; files are read anew after each, but the last."""

_log = Log(namespace="qmailldap.workers")


class InForce:
    """The `qmailldap.control.ControlSnapshot` that counts, as JSON.

    Workers are given it as memory, by ``descriptor``. It is that of the start, or one that a worker
    has taken and serves with.
    """

    def __init__(self, octets: bytes) -> None:
        """Raises ``OSError``."""
        self.octets = octets
        self.descriptor = seal(octets)
        self.serial = 1
        """Goes up with each that comes into force."""

    def take(self, octets: bytes, descriptor: int) -> None:
        """From now on it is this one, which is sealed already."""
        os.close(self.descriptor)
        self.octets, self.descriptor = octets, descriptor
        self.serial += 1


class ReloadOfAll:
    """Called at SIGHUP: ``read`` reads all files, and fails with a line that names one of them.

    All workers that serve prepare for what was read, and then all commit, or all abort. One that
    ends or hangs before it has prepared keeps all from it; one that does so after is given to
    ``end``, and begins again with what is in force. Nothing comes into force that no worker has
    taken: while none serves nothing is read, until one does. Called meanwhile, all is done once
    more.

    ``begins`` and ``is_over`` are called before and after, the latter not while no worker serves;
    ``changes`` with both snapshots, the new one last, says in a word what is not as it was.
    """

    def __init__(
        self,
        links: Links,
        in_force: InForce,
        read: Callable[[], Deferred[bytes]],
        end: Callable[[int, str], object],
        changes: Callable[[bytes, bytes], str],
        begins: Callable[[], object] = lambda: None,
        is_over: Callable[[], object] = lambda: None,
    ) -> None:
        self._links = links
        self._in_force = in_force
        self._read = read
        self._end = end
        self._changes = changes
        self._begins = begins
        self._is_over = is_over
        self._wanted = False
        self._under_way = False
        self._has_begun = False
        self._left_alone: set[Link] = set()

    def __call__(self) -> None:
        if not self._wanted and not self._links.serving():
            self._put_off()
        self._wanted = True
        self._go_on()

    def serves(self, link: Link) -> None:
        """A worker was started, perhaps with what is in force no longer."""
        self._left_alone.clear()
        self._go_on()

    def _put_off(self) -> None:
        # What none of them has looked at might keep all of them from starting.
        _log.warn("control is not read before a worker serves: none does now")

    def _is_stale(self, link: Link) -> bool:
        return link.serial != self._in_force.serial

    def _go_on(self) -> None:
        if not self._under_way:
            self._under_way = True
            done = Deferred.fromCoroutine(self._all())
            done.addErrback(lambda why: _log.failure("control was not loaded", why))

    async def _all(self) -> None:
        try:
            while self._links.serving() and (self._wanted or self._stale()):
                if self._wanted:
                    self._wanted = False
                    self._tell_that_it_begins()
                    await self._once()
                    self._tell_that_it_is_over()
                await self._bring(self._stale())
        finally:
            self._under_way = False
            self._tell_that_it_is_over()

    def _tell_that_it_begins(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._begins()

    def _tell_that_it_is_over(self) -> None:
        """But not while none serves: whoever is told takes the server for ready."""
        if self._has_begun and self._links.serving():
            self._has_begun = False
            self._is_over()

    def _stale(self) -> list[Link]:
        return [
            each
            for each in self._links.serving()
            if self._is_stale(each) and each not in self._left_alone
        ]

    async def _once(self) -> None:
        try:
            octets = await self._read()
        except TimeoutError:
            await self._give_up("the files could not be read in time", self._links.serving())
            return
        except Exception as error:
            await self._give_up(str(error) or type(error).__name__, self._links.serving())
            return
        asked = self._links.serving()
        if not asked:
            self._put_off()
            self._wanted = True
            return
        fault = _fault(await self._links.ask("prepare", octets, PREPARE_LIMIT, asked))
        if not fault:
            try:
                descriptor = seal(octets)
            except OSError as error:
                fault = f"no memory for it: {error.strerror}"
        if fault:
            await self._give_up(fault, asked)
            return
        before = self._in_force.octets
        if not await self._commit(asked):
            os.close(descriptor)
            await self._give_up("no worker took it", asked)
            return
        self._in_force.take(octets, descriptor)
        self._have_it(asked)
        changed = self._changes(before, octets)
        _log.info("control loaded changed={changed}", kind=Kind.WARNINGS, changed=changed)

    async def _bring(self, stale: list[Link]) -> None:
        """Have those take what all others have."""
        if not stale:
            return
        answers = await self._links.ask("prepare", self._in_force.octets, PREPARE_LIMIT, stale)
        unable = {link: why for link, why in answers if isinstance(why, Unanswered)}
        able = [each for each in stale if each not in unable]
        await self._commit(able)
        self._have_it(able)
        for link, why in unable.items():
            self._could_not_follow(link, why)

    def _could_not_follow(self, link: Link, why: Unanswered) -> None:
        link.refusals += 1
        if link.is_lost:
            return
        if isinstance(why, Refused) and link.refusals < MOST_REFUSALS:
            # Files may have changed since those in force were read, which it sees, and others do.
            self._wanted = True
        elif any(not self._is_stale(each) for each in self._links.serving()):
            link.serial = self._in_force.serial  # it need not be brought again
            self._end(link.number, f"it cannot follow the others: {why}")
        else:
            # There are no others, and it serves. It is asked again when one begins to.
            self._left_alone.add(link)

    async def _commit(self, prepared: list[Link]) -> bool:
        """Whether one of them has taken it. Those that have not are ended."""
        is_taken = False
        for link, answer in await self._links.ask("commit", limit=COMMIT_LIMIT, whom=prepared):
            if not isinstance(answer, Unanswered):
                is_taken = True
            elif not link.is_lost:
                self._end(link.number, f"it did not take what it was ready for: {answer}")
        return is_taken

    def _have_it(self, links: list[Link]) -> None:
        for each in links:
            each.serial, each.refusals = self._in_force.serial, 0

    async def _give_up(self, why: str, asked: list[Link]) -> None:
        """Workers count what was not loaded, whatever the reason."""
        _log.error("control was not loaded, what was in force stays so: {why}", why=why)
        await self._links.ask("abort", limit=COMMIT_LIMIT, whom=asked)


def _fault(answers: Answers) -> str:
    """That of the first who has one. The same is wrong for all, as a rule."""
    for link, answer in answers:
        if isinstance(answer, Unanswered):
            return f"{answer} (worker {link.number})"
    return ""
