"""Control files read again by a server with workers: by all of them, or by none."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.workers.crew import NotDone
from qmailldap.workers.links import Link
from qmailldap.workers.member import Member
from qmailldap.workers.reload import COMMIT_LIMIT, PREPARE_LIMIT, InForce, ReloadOfAll
from qmailldap.workers.sealed import read_sealed

from .crews import Site

OLD, NEW, NEWER = b'"old"', b'"new"', b'"newer"'


class Worker:
    """What a worker has in force, and what it would take."""

    def __init__(self, member: Member, state: str = "old") -> None:
        self.state = state
        self.prepared: str | None = None
        self.fault: Exception | None = None
        self.hangs_at = ""
        for question in ("prepare", "commit", "abort"):
            member.answer(question, self._answering(question))

    def _answering(self, question: str) -> Callable[[Any], Any]:
        def answer(argument: Any) -> Any:
            if question == self.hangs_at:
                return Deferred()
            if question == "prepare":
                if self.fault is not None:
                    raise self.fault
                self.prepared = argument
            elif question == "commit":
                assert self.prepared is not None
                self.state, self.prepared = self.prepared, None
            else:
                self.prepared = None
            return None

        return answer


class ReloadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lines: list[str] = []
        observe: Any = lambda event: self.lines.append(formatEvent(event))  # noqa: E731
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.site = Site()
        self.in_force = InForce(OLD)
        self.addCleanup(lambda: os.close(self.in_force.descriptor))
        self.readings: list[Deferred[bytes]] = []
        self.told: list[str] = []
        self.ended: list[int] = []
        self.reload = ReloadOfAll(
            self.site.links,
            self.in_force,
            self.read,
            lambda number, why: self.ended.append(number),
            lambda before, now: f"{before.decode()},{now.decode()}",
            lambda: self.told.append("begins"),
            lambda: self.told.append("is over"),
        )
        self.site.links.serves = self.serves
        self.one, self.two = self.worker(1), self.worker(2)

    def serves(self, link: Link) -> None:
        self.reload.serves(link)

    def worker(self, number: int) -> Worker:
        return Worker(self.site.worker(number, self.in_force.serial))

    def read(self) -> Deferred[bytes]:
        self.readings.append(Deferred())
        return self.readings[-1]

    def hang_up(self, now: bytes = NEW) -> None:
        self.reload()
        self.readings.pop().callback(now)
        self.site.carry()

    def states(self, *workers: Worker) -> list[str]:
        return [each.state for each in workers or (self.one, self.two)]

    def test_all_take_what_was_read(self) -> None:
        self.hang_up()
        self.assertEqual(self.states(), ["new", "new"])
        self.assertEqual(read_sealed(self.in_force.descriptor, 100), NEW)
        self.assertEqual(self.lines, ['control loaded changed="old","new"'])
        self.assertEqual(self.told, ["begins", "is over"])
        self.hang_up(NEWER)
        self.assertEqual(self.states(), ["newer", "newer"])

    def test_what_one_cannot_use_none_uses(self) -> None:
        self.two.fault = NotDone("/control/ldapserver: no host")
        self.hang_up()
        self.assertEqual(self.states(), ["old", "old"])
        self.assertEqual([self.one.prepared, self.two.prepared], [None, None])
        self.assertEqual(read_sealed(self.in_force.descriptor, 100), OLD)
        (line,) = self.lines
        self.assertIn("/control/ldapserver: no host worker=2", line)
        self.assertEqual(self.told, ["begins", "is over"])

    def test_what_cannot_be_read_no_worker_is_bothered_with(self) -> None:
        self.reload()
        self.readings.pop().errback(ValueError("/control/me: is a directory"))
        self.site.carry()
        (line,) = self.lines
        self.assertIn("/control/me: is a directory", line)
        self.assertEqual(self.states(), ["old", "old"])
        self.hang_up()
        self.assertEqual(self.states(), ["new", "new"])

    def test_one_that_hangs_before_it_is_ready_keeps_all_from_it(self) -> None:
        self.two.hangs_at = "prepare"
        self.hang_up()
        self.assertEqual(self.lines, [])
        self.site.clock.advance(PREPARE_LIMIT)
        self.site.carry()
        self.assertEqual(self.states(), ["old", "old"])
        self.assertIn("no answer in 30 s worker=2", self.lines[-1])
        self.assertEqual(self.ended, [])

    def test_one_that_ends_before_it_is_ready_keeps_all_from_it(self) -> None:
        self.two.hangs_at = "prepare"
        self.hang_up()
        self.site.links.remove(2)
        self.site.carry()
        self.assertEqual(self.states(self.one), ["old"])
        self.assertIn("it has ended worker=2", self.lines[-1])

    def test_one_that_does_not_take_what_it_was_ready_for_is_ended(self) -> None:
        self.two.hangs_at = "commit"
        self.hang_up()
        self.site.clock.advance(COMMIT_LIMIT)
        self.site.carry()
        self.assertEqual(self.ended, [2])
        self.assertEqual(self.states(self.one), ["new"])
        self.assertIn('control loaded changed="old","new"', self.lines)
        # Its successor begins with what is in force.
        self.assertEqual(read_sealed(self.in_force.descriptor, 100), NEW)

    def test_one_that_was_started_meanwhile_follows(self) -> None:
        self.two.hangs_at = "prepare"
        starting = self.site.starting(3, self.in_force.serial)
        three = Worker(starting)
        self.site.links.remove(2)
        self.two = self.worker(2)
        self.hang_up()
        self.assertEqual(self.states(self.one, self.two, three), ["new", "new", "old"])
        starting.serving()
        self.site.carry()
        self.assertEqual(self.states(self.one, self.two, three), ["new", "new", "new"])
        self.assertEqual(len(self.lines), 1)

    def test_one_that_cannot_follow_is_ended(self) -> None:
        starting = self.site.starting(3, self.in_force.serial)
        three = Worker(starting)
        three.fault = NotDone("no memory")
        self.hang_up()
        starting.serving()
        self.site.carry()
        self.assertEqual(self.ended, [3])

    def test_what_is_asked_for_meanwhile_is_done_once_more(self) -> None:
        self.reload()
        self.reload()
        self.reload()
        self.readings.pop().callback(NEW)
        self.site.carry()
        self.assertEqual(self.states(), ["new", "new"])
        self.readings.pop().callback(NEWER)
        self.site.carry()
        self.assertEqual(self.states(), ["newer", "newer"])
        self.assertEqual(self.readings, [])
        self.assertEqual(self.told, ["begins", "is over"] * 2)

    def test_where_nobody_serves_those_who_come_have_it(self) -> None:
        for number in (1, 2):
            self.site.links.remove(number)
        self.hang_up()
        self.assertEqual(read_sealed(self.in_force.descriptor, 100), NEW)

    def test_without_memory_for_it_all_stays_as_it_was(self) -> None:
        def take(octets: bytes) -> None:
            raise OSError(24, "Too many open files")

        self.patch(self.in_force, "take", take)
        self.hang_up()
        self.assertEqual(self.states(), ["old", "old"])
        self.assertIn("Too many open files", self.lines[-1])


class NothingToReadTests(SynchronousTestCase):
    def test_whatever_fails_is_told_and_does_not_stop_the_next(self) -> None:
        site, in_force = Site(), InForce(OLD)
        self.addCleanup(lambda: os.close(in_force.descriptor))
        results = [fail(OSError(5, "Input/output error")), succeed(NEW)]
        reload = ReloadOfAll(
            site.links, in_force, lambda: results.pop(0), lambda *_: None, lambda *_: "all"
        )
        reload()
        self.assertEqual(in_force.octets, OLD)
        reload()
        self.assertEqual(in_force.octets, NEW)
