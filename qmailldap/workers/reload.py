"""Control files and certificates read again, by all workers or by none."""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.internet.defer import Deferred, TimeoutError

from qmailldap.loglevel import Kind, Log
from qmailldap.workers.links import Answers, Link, Links, Unanswered
from qmailldap.workers.sealed import seal

__all__ = ["COMMIT_LIMIT", "PREPARE_LIMIT", "InForce", "ReloadOfAll"]

PREPARE_LIMIT = 30.0
"""Seconds that a worker has to make itself ready for what was read; its files are read already."""

COMMIT_LIMIT = 10.0
"""Seconds that it has to take what it is ready for; it has nothing to wait for then."""

_log = Log(namespace="qmailldap.workers")


class InForce:
    """The `qmailldap.control.ControlSnapshot` that counts, as JSON.

    Workers are given it as memory, by ``descriptor``.
    """

    def __init__(self, octets: bytes) -> None:
        """Raises ``OSError``."""
        self.octets = octets
        self.descriptor = seal(octets)
        self.serial = 1
        """Goes up with each that comes into force."""

    def take(self, octets: bytes) -> None:
        """From now on it is this one. Raises ``OSError``, and all is as it was."""
        descriptor = seal(octets)
        os.close(self.descriptor)
        self.octets, self.descriptor = octets, descriptor
        self.serial += 1


class ReloadOfAll:
    """Called at SIGHUP: ``read`` reads all files, and fails with a line that names one of them.

    All workers that serve prepare for what was read, and then all commit, or all abort. One that
    ends or hangs before it has prepared keeps all from it; one that does so after is given to
    ``end``, and begins again with what is in force. Called meanwhile, all is done once more.
    ``begins`` and ``is_over`` are called before and after; ``changes`` with both snapshots, the new
    one last, says in a word what is not as it was.
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

    def __call__(self) -> None:
        self._wanted = True
        self._go_on()

    def serves(self, link: Link) -> None:
        """A worker was started, perhaps with what is in force no longer."""
        if self._is_stale(link):
            self._go_on()

    def _is_stale(self, link: Link) -> bool:
        return link.serial != self._in_force.serial

    def _go_on(self) -> None:
        if not self._under_way:
            self._under_way = True
            done = Deferred.fromCoroutine(self._all())
            done.addErrback(lambda why: _log.failure("control was not loaded", why))

    async def _all(self) -> None:
        try:
            while self._wanted or self._stale():
                if self._wanted:
                    self._wanted = False
                    self._begins()
                    try:
                        await self._once()
                    finally:
                        self._is_over()
                await self._bring(self._stale())
        finally:
            self._under_way = False

    def _stale(self) -> list[Link]:
        return [each for each in self._links.serving() if self._is_stale(each)]

    async def _once(self) -> None:
        try:
            octets = await self._read()
        except TimeoutError:
            await self._give_up("the files could not be read in time", self._links.serving())
            return
        except Exception as error:
            await self._give_up(str(error) or type(error).__name__, self._links.serving())
            return
        before = self._in_force.octets
        asked = self._links.serving()
        prepared = await self._links.ask("prepare", octets, PREPARE_LIMIT, asked)
        fault = _fault(prepared)
        if not fault:
            try:
                self._in_force.take(octets)
            except OSError as error:
                fault = f"no memory for it: {error.strerror}"
        if fault:
            await self._give_up(fault, asked)
            return
        await self._commit(asked)
        changed = self._changes(before, octets)
        _log.info("control loaded changed={changed}", kind=Kind.WARNINGS, changed=changed)

    async def _bring(self, stale: list[Link]) -> None:
        """Have those take what all others have."""
        if not stale:
            return
        for link, answer in await self._links.ask(
            "prepare", self._in_force.octets, PREPARE_LIMIT, stale
        ):
            if isinstance(answer, Unanswered):
                link.serial = self._in_force.serial  # it need not be brought again
                self._end(link.number, f"it cannot follow the others: {answer}")
        await self._commit([each for each in stale if self._is_stale(each)])

    async def _commit(self, prepared: list[Link]) -> None:
        for link, answer in await self._links.ask("commit", limit=COMMIT_LIMIT, whom=prepared):
            link.serial = self._in_force.serial
            if isinstance(answer, Unanswered) and not link.is_lost:
                self._end(link.number, f"it did not take what it was ready for: {answer}")

    async def _give_up(self, why: str, asked: list[Link]) -> None:
        """Workers count what was not loaded, whatever the reason."""
        _log.error("control was not loaded, what was in force stays so: {why}", why=why)
        await self._links.ask("abort", limit=COMMIT_LIMIT, whom=asked)


def _fault(answers: Answers) -> str:
    """That of the first who has one. The same is wrong for all, as a rule."""
    for link, answer in answers:
        if isinstance(answer, Unanswered):
            return f"{answer} worker={link.number}"
    return ""
