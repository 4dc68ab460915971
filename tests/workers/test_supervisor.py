"""The supervisor: it starts workers, starts them again, and ends with them."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.options import CannotStart
from qmailldap.workers import supervisor as module
from qmailldap.workers.frames import Frame, Kind
from qmailldap.workers.inheritance import HEARS, SAYS, Inheritance, WorkerOptions
from qmailldap.workers.supervisor import (
    DEFAULT_GRACE,
    FIGURES_PERIOD,
    LONGEST_PAUSE,
    START_LIMIT,
    STEADY,
    Supervisor,
)

PORTS = (40, 41)
OPTIONS = ["--control=/control", "--listen=tcp:110"]


class FakeProcess:
    def __init__(self, protocol: Any, command: list[bytes], environment: Any, fds: Any) -> None:
        self.protocol = protocol
        self.command = [os.fsdecode(each) for each in command]
        self.environment = environment
        self.fds = fds
        self.hangups_blocked = signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        self.signals: list[str] = []
        self.has_ended = False
        self.told = b""
        self.closed: list[int] = []
        self.options = WorkerOptions.parse(self.command[3:])
        protocol.makeConnection(self)

    def write(self, octets: bytes) -> None:
        self.told += octets

    def registerProducer(self, producer: object, streaming: bool) -> None:
        assert streaming

    def unregisterProducer(self) -> None:
        """Nothing waits here."""

    def closeChildFD(self, descriptor: int) -> None:
        self.closed.append(descriptor)

    def says(self, kind: Kind, number: int = 0, body: bytes = b"") -> None:
        octets = Frame(kind, number, body).octets()
        self.protocol.childDataReceived(SAYS, len(octets).to_bytes(4, "big") + octets)

    def signalProcess(self, name: str) -> None:
        if self.has_ended:
            raise ProcessExitedAlready
        self.signals.append(name)

    def end(self, code: int = 0, by: int | None = None) -> None:
        self.has_ended = True
        reason = ProcessTerminated(code, by) if code or by else ProcessDone(0)
        self.protocol.processExited(Failure(reason))
        self.protocol.processEnded(Failure(reason))


def _number_asked(process: FakeProcess) -> int:
    """That of the last question."""
    *_, number, _ = re.split(rb"\x01(....)(?=[a-z]+\n)", process.told, flags=re.DOTALL)
    return int.from_bytes(number, "big")


class FakeReactor(Clock):
    def __init__(self) -> None:
        super().__init__()
        self.processes: list[FakeProcess] = []
        self.fails = 0

    @property
    def living(self) -> list[FakeProcess]:
        return [each for each in self.processes if not each.has_ended]

    def spawnProcess(
        self, protocol: Any, executable: bytes, args: Any, env: Any, childFDs: Any
    ) -> None:
        assert executable == os.fsencode(sys.executable)
        if self.fails:
            self.fails -= 1
            raise OSError("no process to be had")
        self.processes.append(FakeProcess(protocol, args, env, childFDs))


class FakeCounts:
    def __init__(self) -> None:
        self.cleared: list[int] = []

    def clear(self, number: int) -> None:
        self.cleared.append(number)


class SupervisorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.counts = FakeCounts()
        self.lines: list[str] = []

        observe: Any = lambda event: self.lines.append(formatEvent(event))  # noqa: E731
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def started(self, workers: int = 2, check: Callable[[], object] = lambda: None) -> Supervisor:
        supervisor = self.configured(workers, check)
        supervisor.privilegedStartService()
        supervisor.startService()
        self.reactor.advance(0)
        return supervisor

    def configured(self, workers: int, check: Callable[[], object]) -> Supervisor:
        def inheritance(number: int, relayed: bool) -> Inheritance:
            return Inheritance(
                number=number,
                scores=30,
                counts=31,
                ports=PORTS,
                relayed=relayed,
                start="/",
                reactor="twisted.internet.epollreactor",
            )

        return Supervisor(self.reactor, workers, OPTIONS, inheritance, self.counts, check)

    def test_it_starts_as_many_as_are_wanted_each_with_its_number(self) -> None:
        self.started(3)
        processes = self.reactor.processes
        self.assertEqual([each.options["number"] for each in processes], [1, 2, 3])
        for each in processes:
            self.assertEqual(each.options["control"], "/control")
            self.assertEqual(each.options["listen"], ["tcp:110"])
            seen = each.options.inheritance()
            descriptors = [seen.scores, seen.counts, *seen.ports]
            self.assertEqual([each.fds[number] for number in descriptors], [30, 31, *PORTS])
            # Pipes, of which the first tells it of the end of this process, too.
            self.assertEqual((each.fds[HEARS], each.fds[SAYS]), ("w", "r"))
            self.assertTrue(os.path.exists(each.command[2]))

    def test_no_worker_is_there_before_the_reactor_runs_and_heeds_signals(self) -> None:
        supervisor = self.configured(2, lambda: None)
        supervisor.privilegedStartService()
        supervisor.startService()
        self.assertEqual(self.reactor.processes, [])
        self.successResultOf(supervisor.stopService())
        self.reactor.advance(60)
        self.assertEqual(self.reactor.processes, [])

    def test_sighup_waits_until_a_worker_can_heed_it(self) -> None:
        self.started(1)
        self.assertTrue(self.reactor.processes[0].hangups_blocked)
        self.assertNotIn(signal.SIGHUP, signal.pthread_sigmask(signal.SIG_BLOCK, []))

    def test_descriptors_that_systemd_gave_are_no_workers_own(self) -> None:
        self.patch(os, "environb", {b"LISTEN_FDS": b"1", b"LISTEN_PID": b"1", b"LOGLEVEL": b"31"})
        self.started(1)
        self.assertEqual(self.reactor.processes[0].environment, {b"LOGLEVEL": b"31"})

    def test_workers_write_to_the_log_themselves_where_it_is_standard_output(self) -> None:
        self.patch(module, "workers_log_themselves", lambda: True)
        self.started(1)
        self.patch(module, "workers_log_themselves", lambda: False)
        self.started(1)
        direct, relayed = self.reactor.processes
        self.assertEqual((direct.fds[1], direct.fds[2]), (1, 2))
        self.assertEqual((relayed.fds[1], relayed.fds[2]), ("r", "r"))
        self.assertEqual([direct.options["relayed"], relayed.options["relayed"]], [0, 1])

    def test_one_that_ends_is_replaced_at_once_and_nothing_is_left_of_it(self) -> None:
        self.started()
        self.counts.cleared.clear()
        self.reactor.advance(STEADY)
        self.reactor.processes[1].end(by=signal.SIGKILL)
        self.assertEqual(self.counts.cleared, [1])
        self.assertIn("workers worker=2 has ended with signal 9: another is started in 0 s",
                      self.lines)  # fmt: skip
        self.reactor.advance(0)
        self.assertEqual([each.options["number"] for each in self.reactor.living], [1, 2])

    def test_one_that_cannot_start_is_tried_again_more_and_more_seldom(self) -> None:
        self.started(1)
        pauses = []
        for _ in range(8):
            self.reactor.processes[-1].end(code=1)
            before = self.reactor.seconds()
            while not self.reactor.living:
                self.reactor.advance(0.5)
            pauses.append(self.reactor.seconds() - before)
        self.assertEqual(pauses, [1, 2, 4, 8, 16, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE])
        self.assertIn("workers worker=1 has ended with exit code 1: another is started in 30 s",
                      self.lines)  # fmt: skip

    def test_a_host_without_processes_to_be_had_is_tried_again(self) -> None:
        self.reactor.fails = 1
        self.started(1)
        self.reactor.advance(0)
        self.assertEqual(self.reactor.living, [])
        self.assertIn("no process to be had: another is started in 1 s", self.lines[-1])
        self.reactor.advance(1)
        self.assertEqual(len(self.reactor.living), 1)

    def test_it_ends_when_all_have_ended(self) -> None:
        supervisor = self.started()
        stopped = supervisor.stopService()
        one, other = self.reactor.processes
        self.assertEqual([one.signals, other.signals], [["TERM"], ["TERM"]])
        one.end()
        self.assertNoResult(stopped)
        other.end()
        self.successResultOf(stopped)
        self.reactor.advance(LONGEST_PAUSE)
        self.assertEqual(len(self.reactor.processes), 2)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_one_that_does_not_end_is_killed_when_it_has_had_time(self) -> None:
        supervisor = self.started(1)
        supervisor.stopService()
        self.reactor.advance(DEFAULT_GRACE - 1)
        (process,) = self.reactor.processes
        self.assertEqual(process.signals, ["TERM"])
        self.reactor.advance(1)
        self.assertEqual(process.signals, ["TERM", "KILL"])
        process.end(by=signal.SIGKILL)
        self.assertIn("workers worker=1 was killed: it did not end within 10 s", self.lines)

    def test_it_ends_at_once_while_none_is_there(self) -> None:
        supervisor = self.started(1)
        self.reactor.processes[0].end(code=1)
        self.successResultOf(supervisor.stopService())
        self.reactor.advance(LONGEST_PAUSE)
        self.assertEqual(self.reactor.living, [])

    def test_it_knows_when_all_serve(self) -> None:
        supervisor = self.started(2)
        one, two = self.reactor.processes
        one.says(Kind.SERVING)
        self.assertNoResult(supervisor.all_serve)
        two.says(Kind.SERVING)
        self.successResultOf(supervisor.all_serve)
        # One that ends later changes nothing of it.
        two.end(code=1)
        self.reactor.advance(1)
        self.reactor.processes[-1].says(Kind.SERVING)

    def test_it_asks_whether_all_are_alive(self) -> None:
        supervisor = self.started(2)
        one, two = self.reactor.processes

        def look() -> Deferred[str]:
            return Deferred.fromCoroutine(supervisor.look_for_the_dead(2.0))

        # Who was just started may take a while.
        self.assertEqual(self.successResultOf(look()), "")
        one.says(Kind.SERVING)
        self.reactor.advance(START_LIMIT + 1)
        self.assertEqual(self.successResultOf(look()), "worker=2 does not begin to serve")
        two.says(Kind.SERVING)
        looked = look()
        self.reactor.advance(2)
        self.assertIn("worker=1 does not answer: no answer in 2 s", self.successResultOf(looked))
        # One that ends is started again, which is nothing to be afraid of.
        looked = look()
        one.end(code=1)
        two.says(Kind.ANSWER, _number_asked(two), b"true")
        self.assertEqual(self.successResultOf(looked), "")

    def test_when_none_has_served_for_long_that_is_a_fault_however_often_they_are_started(
        self,
    ) -> None:
        supervisor = self.started(2)

        def look() -> str:
            return self.successResultOf(Deferred.fromCoroutine(supervisor.look_for_the_dead(2.0)))

        one, two = self.reactor.living
        for each in (one, two):
            each.says(Kind.SERVING)
            self.reactor.advance(1)
        for each in (one, two):
            each.end(code=1)
        served_until = self.reactor.seconds()
        while self.reactor.seconds() <= served_until + START_LIMIT - 1:
            self.assertEqual(look(), "")
            for each in self.reactor.living:
                each.end(code=1)
            self.reactor.advance(1)
        self.reactor.advance(1)
        self.assertEqual(look(), "no worker has served for 60 s")
        # Not any more when one does.
        self.reactor.pump([1] * LONGEST_PAUSE)
        self.reactor.living[0].says(Kind.SERVING)
        looked = Deferred.fromCoroutine(supervisor.look_for_the_dead(2.0))
        process = self.reactor.living[0]
        process.says(Kind.ANSWER, _number_asked(process), b"true")
        self.assertEqual(self.successResultOf(looked), "")

    def test_one_that_says_what_no_worker_says_is_ended(self) -> None:
        self.started(1)
        (process,) = self.reactor.processes
        process.says(Kind.END)
        self.assertEqual((process.signals, process.closed), (["TERM"], [HEARS, SAYS]))
        self.assertIn("workers worker=1 is ended: a frame of kind end", self.lines)
        process.says(Kind.END)
        self.reactor.advance(DEFAULT_GRACE)
        self.assertEqual(process.signals, ["TERM", "KILL"])

    def test_what_it_has_left_behind_holds_nothing_up(self) -> None:
        self.started(1)
        (process,) = self.reactor.processes
        process.protocol.processExited(Failure(ProcessDone(0)))
        self.assertLessEqual({HEARS, SAYS}, {*process.closed})

    def test_figures_are_asked_for_now_and_then(self) -> None:
        supervisor = self.started(1)
        (process,) = self.reactor.processes
        process.says(Kind.SERVING)
        self.reactor.advance(FIGURES_PERIOD)
        self.assertTrue(process.told.endswith(b"figures\nnull"))
        process.end()
        self.successResultOf(supervisor.stopService())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_who_has_become_another_user_looks_at_the_configuration_again(self) -> None:
        def check() -> None:
            raise CannotStart("ldappassword cannot be read")

        self.started(1, check)
        supervisor = self.configured(1, check)
        self.patch(os, "geteuid", lambda: 4711)
        with self.assertRaises(CannotStart):
            supervisor.startService()

    def test_a_place_without_an_interpreter_is_told_of_at_the_start(self) -> None:
        self.patch(sys, "executable", "/nowhere/python")
        with self.assertRaises(ValueError) as caught:
            self.configured(1, lambda: None).privilegedStartService()
        self.assertIn("/nowhere/python", str(caught.exception))

    def test_lines_of_workers_are_logged_until_their_end(self) -> None:
        self.started(1)
        (process,) = self.reactor.processes
        process.protocol.childDataReceived(1, b'[null, "qmailldap.pop3", "info", "a li')
        process.protocol.childDataReceived(1, b'ne"]\n')
        process.protocol.childDataReceived(2, b"Killed")
        process.end()
        self.assertIn("a line", self.lines)
        self.assertIn("output line=Killed worker=1", self.lines)
