"""What a service manager is told by sd_notify(3)."""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.notify import STATUS_PERIOD, Notifications, Subject


class NotificationsTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.mkdtemp(prefix="qn", dir="/tmp")
        self.addCleanup(shutil.rmtree, directory)
        self.path = os.path.join(directory, "notify")
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.manager.close)
        self.manager.bind(self.path)
        self.manager.setblocking(False)
        self.reactor = MemoryReactorClock()
        self.ready: Deferred[None] = Deferred()
        self.fault = ""
        self.sessions = 0
        self.is_broken = False
        self.asked: list[float] = []

    def started(self, **variables: str) -> Notifications:
        environment = {"NOTIFY_SOCKET": self.path, "PATH": "/bin", **variables}
        # The library looks there.
        self.patch(os, "environ", environment)
        notifications = Notifications(self.reactor, self.subject(), environment)
        self.assertEqual(environment, {"PATH": "/bin"})
        notifications.startService()
        self.addCleanup(notifications.stopService)
        return notifications

    def subject(self) -> Subject:
        async def alive(limit: float) -> str:
            self.asked.append(limit)
            return self.fault if not self.is_broken else str(1 / 0)

        return Subject(
            ready=lambda: self.ready,
            alive=alive,
            status=lambda: f"{self.sessions / (not self.is_broken):.0f} sessions",
            grace=10,
        )

    def told(self) -> list[list[str]]:
        messages = []
        while True:
            try:
                messages.append(self.manager.recv(4096).decode("ascii").split("\n"))
            except BlockingIOError:
                return messages

    def test_ready_is_told_when_it_is(self) -> None:
        self.started()
        self.assertEqual(self.told(), [])
        self.ready.callback(None)
        self.assertEqual(self.told(), [["READY=1", "STATUS=0 sessions"]])

    def test_a_reload_is_told_with_its_time_and_its_end(self) -> None:
        notifications = self.started()
        self.ready.callback(None)
        self.told()
        notifications.reloading()
        ((reloading, when),) = self.told()
        self.assertEqual(reloading, "RELOADING=1")
        self.assertRegex(when, r"^MONOTONIC_USEC=\d+$")
        notifications.reloaded()
        self.assertEqual(self.told(), [["READY=1"]])

    def test_a_reload_before_the_start_is_over_is_told_after_it(self) -> None:
        notifications = self.started()
        notifications.reloading()
        self.assertEqual(self.told(), [])
        self.ready.callback(None)
        self.assertEqual([each[0] for each in self.told()], ["READY=1", "RELOADING=1"])
        notifications.reloaded()
        self.assertEqual(self.told(), [["READY=1"]])

    def test_the_status_is_told_when_it_has_changed(self) -> None:
        self.started()
        self.ready.callback(None)
        self.told()
        self.reactor.advance(STATUS_PERIOD)
        self.assertEqual(self.told(), [])
        self.sessions = 3
        self.reactor.advance(STATUS_PERIOD)
        self.assertEqual(self.told(), [["STATUS=3 sessions"]])

    def test_the_watchdog_is_told_well_before_its_time_while_all_answer(self) -> None:
        self.started(WATCHDOG_USEC="6000000", WATCHDOG_PID=str(os.getpid()))
        self.reactor.advance(30)
        self.assertEqual(self.told(), [])
        self.ready.callback(None)
        self.told()
        for _ in range(3):
            self.reactor.advance(2)
            self.assertIn(["WATCHDOG=1"], self.told())
        self.fault = "worker=2 does not answer"
        for _ in range(5):
            self.reactor.advance(2)
        self.assertNotIn(["WATCHDOG=1"], self.told())
        self.fault = ""
        self.reactor.advance(2)
        self.assertIn(["WATCHDOG=1"], self.told())
        self.assertEqual({*self.asked}, {2.0})

    def test_a_fault_of_ours_is_logged_once_and_does_not_end_it(self) -> None:
        self.started(WATCHDOG_USEC="6000000")
        self.is_broken = True
        self.ready.callback(None)
        self.reactor.pump([2] * 15)
        # It is ready nevertheless; but whether all live, nobody knows.
        self.assertEqual(self.told(), [["READY=1"], ["WATCHDOG=1"]])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.is_broken = False
        self.reactor.pump([2] * 5)
        told = self.told()
        self.assertEqual(told.count(["STATUS=0 sessions"]), 1)
        self.assertEqual(told.count(["WATCHDOG=1"]), 5)
        self.is_broken = True
        self.reactor.pump([2] * 15)
        self.assertEqual(self.told(), [])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_a_start_that_fails_is_logged(self) -> None:
        self.started()
        self.ready.errback(ZeroDivisionError())
        self.assertEqual(self.told(), [])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_watchdog_of_another_process_is_not_ours(self) -> None:
        for variables in (
            {"WATCHDOG_USEC": "6000000", "WATCHDOG_PID": "1"},
            {"WATCHDOG_USEC": "soon"},
            {"WATCHDOG_USEC": "0"},
        ):
            self.ready = Deferred()
            self.started(**variables)
            self.ready.callback(None)
            self.reactor.advance(6)
            self.assertNotIn(["WATCHDOG=1"], self.told())

    def test_the_end_is_told_first_of_all_with_the_time_that_it_takes(self) -> None:
        notifications = self.started(WATCHDOG_USEC="6000000")
        self.ready.callback(None)
        self.told()
        ((function, arguments, keywords),) = self.reactor.triggers["before"]["shutdown"]
        function(*arguments, **keywords)
        ((stopping, status, extended),) = self.told()
        self.assertEqual(stopping, "STOPPING=1")
        self.assertTrue(status.startswith("STATUS="))
        seconds = int(re.sub("EXTEND_TIMEOUT_USEC=", "", extended)) / 1_000_000
        self.assertGreater(seconds, 10)
        # What takes its time at the end is watched on, and a reload says nothing more.
        notifications.reloading()
        notifications.reloaded()
        self.reactor.advance(2)
        self.assertEqual(self.told(), [["WATCHDOG=1"]])

    def test_one_that_is_not_ready_when_it_stops_never_says_so(self) -> None:
        notifications = self.started()
        notifications.stopService()
        self.ready.callback(None)
        self.assertEqual(self.told(), [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        notifications.startService()

    def test_without_a_socket_nothing_happens(self) -> None:
        notifications = Notifications(self.reactor, self.subject(), {"WATCHDOG_USEC": "6000000"})
        notifications.startService()
        self.ready.callback(None)
        notifications.reloading()
        notifications.reloaded()
        self.reactor.advance(60)
        notifications.stopService()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.asked, [])

    def test_a_manager_that_is_gone_or_does_not_read_holds_nothing_up(self) -> None:
        notifications = self.started()
        self.ready.callback(None)
        for _ in range(5000):
            notifications.reloaded()
        self.assertLess(len(self.told()), 5000)
        self.manager.close()
        notifications.reloaded()

    def test_a_socket_that_nobody_has_is_no_reason_not_to_serve(self) -> None:
        os.unlink(self.path)
        self.started()
        self.ready.callback(None)
        self.assertEqual(self.told(), [])
