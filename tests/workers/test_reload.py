"""Control files read again by a server with workers: by all of them, or by none."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.workers import reload as module
from qmailldap.workers.crew import NotDone
from qmailldap.workers.links import Link
from qmailldap.workers.member import Member
from qmailldap.workers.reload import (
    COMMIT_LIMIT,
    MOST_REFUSALS,
    PREPARE_LIMIT,
    InForce,
    ReloadOfAll,
)
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
        self.read_now(now)

    def read_now(self, now: bytes) -> None:
        self.readings.pop().callback(now)
        self.site.carry()

    def all_end(self) -> None:
        for link in self.site.links.all():
            self.site.links.remove(link.number)

    def in_force_is(self, octets: bytes) -> bool:
        return read_sealed(self.in_force.descriptor, 100) == octets == self.in_force.octets

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
        self.assertIn("/control/ldapserver: no host (worker 2)", line)
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
        self.assertIn("no answer in 30 s (worker 2)", self.lines[-1])
        self.assertEqual(self.ended, [])

    def test_one_that_ends_before_it_is_ready_keeps_all_from_it(self) -> None:
        self.two.hangs_at = "prepare"
        self.hang_up()
        self.site.links.remove(2)
        self.site.carry()
        self.assertEqual(self.states(self.one), ["old"])
        self.assertIn("it has ended (worker 2)", self.lines[-1])

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

    def stale(self) -> tuple[Worker, Member]:
        """Worker 3, that was started before all others took what is new, and serves after that."""
        starting = self.site.starting(3, self.in_force.serial)
        three = Worker(starting)
        self.hang_up()
        return three, starting

    def test_for_one_that_cannot_follow_all_is_read_again_some_times_before_it_is_ended(
        self,
    ) -> None:
        three, starting = self.stale()
        three.fault = NotDone("no memory")
        starting.serving()
        self.site.carry()
        for _ in range(MOST_REFUSALS - 1):
            self.assertEqual(self.ended, [])
            self.read_now(NEWER)
        self.assertEqual(self.ended, [3])
        self.assertEqual(self.readings, [])
        self.assertEqual(self.states(), ["new", "new"])
        self.assertTrue(self.in_force_is(NEW))

    def test_one_that_can_follow_what_is_read_then_is_not_ended(self) -> None:
        three, starting = self.stale()
        three.fault = NotDone("dirmaker: was changed while the control files were read")
        starting.serving()
        self.site.carry()
        three.fault = None
        self.read_now(NEWER)
        self.assertEqual(self.states(self.one, self.two, three), ["newer"] * 3)
        self.assertEqual((self.ended, self.readings), ([], []))

    def test_one_that_hangs_instead_of_following_is_ended_at_once(self) -> None:
        three, starting = self.stale()
        three.hangs_at = "prepare"
        starting.serving()
        self.site.carry()
        self.site.clock.advance(PREPARE_LIMIT)
        self.assertEqual((self.ended, self.readings), ([3], []))

    def test_one_that_ends_instead_of_following_is_not_ended_in_its_successor(self) -> None:
        three, starting = self.stale()
        three.hangs_at = "prepare"
        starting.serving()
        self.site.carry()
        self.worker(3)
        self.assertEqual((self.ended, self.readings), ([], []))

    def test_the_only_one_that_serves_is_not_ended_for_what_it_cannot_take(self) -> None:
        three, starting = self.stale()
        three.hangs_at = "prepare"
        self.all_end_but(3)
        starting.serving()
        self.site.carry()
        self.site.clock.advance(PREPARE_LIMIT)
        self.assertEqual((self.ended, self.readings), ([], []))
        # Another that begins with what is in force shows that this can be served with.
        self.worker(1)
        self.site.clock.advance(PREPARE_LIMIT)
        self.assertEqual(self.ended, [3])

    def all_end_but(self, number: int) -> None:
        for link in self.site.links.all():
            if link.number != number:
                self.site.links.remove(link.number)

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

    def test_while_nobody_serves_nothing_is_read_until_one_does(self) -> None:
        self.all_end()
        for _ in range(3):
            self.reload()
        self.assertEqual((self.readings, self.told), ([], []))
        self.assertEqual(self.lines, ["control is not read before a worker serves: none does now"])
        one = self.worker(1)
        self.assertEqual(one.state, "old")
        self.assertTrue(self.in_force_is(OLD))
        self.read_now(NEW)
        self.assertEqual(one.state, "new")
        self.assertTrue(self.in_force_is(NEW))
        self.assertEqual((self.readings, self.told), ([], ["begins", "is over"]))

    def test_what_those_who_come_cannot_use_does_not_come_into_force(self) -> None:
        self.all_end()
        self.reload()
        one = self.worker(1)
        one.fault = NotDone("/control/cert.pem: no certificate")
        self.read_now(NEW)
        self.assertIn("/control/cert.pem: no certificate (worker 1)", self.lines[-1])
        self.assertTrue(self.in_force_is(OLD))
        # Whoever comes now begins with what the other has.
        self.worker(2)
        self.assertEqual((self.readings, self.ended), ([], []))

    def test_when_all_end_while_files_are_read_nobody_is_told_that_it_is_over(self) -> None:
        self.reload()
        self.all_end()
        self.read_now(NEW)
        self.assertEqual((self.told, self.readings), (["begins"], []))
        self.assertTrue(self.in_force_is(OLD))
        one = self.worker(1)
        self.assertEqual(self.told, ["begins"])
        self.read_now(NEWER)
        self.assertEqual(one.state, "newer")
        self.assertEqual(self.told, ["begins", "is over"])

    def test_when_all_end_before_they_are_ready_it_is_over_when_one_serves(self) -> None:
        self.one.hangs_at = "prepare"
        self.hang_up()
        self.all_end()
        self.assertIn("was not loaded", self.lines[-1])
        self.assertEqual(self.told, ["begins"])
        self.worker(1)
        self.assertEqual((self.told, self.readings), (["begins", "is over"], []))

    def test_what_no_worker_has_taken_does_not_displace_what_they_served_with(self) -> None:
        self.one.hangs_at = self.two.hangs_at = "commit"
        self.hang_up()
        self.all_end()
        self.assertTrue(self.in_force_is(OLD))
        self.assertIn("what was in force stays so: no worker took it", self.lines[-1])
        self.worker(1)
        self.hang_up(NEWER)
        self.assertTrue(self.in_force_is(NEWER))

    def test_one_that_begins_while_others_take_it_follows(self) -> None:
        self.two.hangs_at = "commit"
        self.hang_up()
        self.assertTrue(self.in_force_is(OLD))
        three = Worker(self.site.worker(3, self.in_force.serial))
        self.site.clock.advance(COMMIT_LIMIT)
        self.site.carry()
        self.assertEqual(self.states(self.one, three), ["new", "new"])
        self.assertEqual(self.ended, [2])

    def test_without_memory_for_it_all_stays_as_it_was(self) -> None:
        def seal(octets: bytes) -> int:
            raise OSError(24, "Too many open files")

        self.patch(module, "seal", seal)
        self.hang_up()
        self.assertEqual(self.states(), ["old", "old"])
        self.assertIn("Too many open files", self.lines[-1])


class NothingToReadTests(SynchronousTestCase):
    def test_whatever_fails_is_told_and_does_not_stop_the_next(self) -> None:
        site, in_force = Site(), InForce(OLD)
        Worker(site.worker(1, in_force.serial))
        self.addCleanup(lambda: os.close(in_force.descriptor))
        results = [fail(OSError(5, "Input/output error")), succeed(NEW)]
        reload = ReloadOfAll(
            site.links, in_force, lambda: results.pop(0), lambda *_: None, lambda *_: "all"
        )
        reload()
        site.carry()
        self.assertEqual(in_force.octets, OLD)
        reload()
        site.carry()
        self.assertEqual(in_force.octets, NEW)
