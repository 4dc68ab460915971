"""Workers: bounded, and honest about it."""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import TestCase

from qmailldap.threads import STOP_LIMIT, Busy, Workers, in_a_thread


class WorkersTests(TestCase):
    def setUp(self) -> None:
        self.workers = Workers(reactor, "test", threads=1, queue_limit=2)
        self.workers.start()
        self.addCleanup(self.workers.stop)

    async def test_work_is_done_in_another_thread(self) -> None:
        self.assertNotEqual(await self.workers(threading.get_ident), threading.get_ident())

    async def test_an_exception_comes_back(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            await self.workers(divmod, 1, 0)

    async def test_more_than_the_limit_is_refused_at_once_and_room_comes_back(self) -> None:
        gate = threading.Event()
        first: Deferred[bool] = self.workers(gate.wait, 30)
        second: Deferred[int] = self.workers(int, "2")
        self.failureResultOf(self.workers(int, "3"), Busy)
        gate.set()
        self.assertEqual((await first, await second), (True, 2))
        self.assertEqual(await self.workers(int, "4"), 4)

    async def test_work_that_is_not_begun_in_time_is_not_done(self) -> None:
        workers = Workers(reactor, "test", threads=1, queue_limit=2, wait_limit=0.01)
        workers.start()
        self.addCleanup(workers.stop)
        gate = threading.Event()
        done: list[int] = []
        first: Deferred[bool] = workers(gate.wait, 30)
        with self.assertRaises(Busy):
            await workers(done.append, 1)
        gate.set()
        self.assertTrue(await first)
        self.assertEqual(await workers(int, "2"), 2)
        self.assertEqual(done, [])

    async def test_work_that_nobody_waits_for_any_more_is_not_begun(self) -> None:
        gate = threading.Event()
        done: list[int] = []
        first: Deferred[bool] = self.workers(gate.wait, 30)
        second = self.workers(done.append, 1)
        second.cancel()
        gate.set()
        self.assertTrue(await first)
        self.failureResultOf(second, CancelledError)
        self.assertEqual(await self.workers(int, "3"), 3)
        self.assertEqual(done, [])

    async def test_a_stop_ends_what_has_begun_and_gives_up_the_rest(self) -> None:
        began, gate = threading.Event(), threading.Event()

        def work() -> str:
            began.set()
            gate.wait(30)
            return "done"

        first = self.workers(work)
        waiting = self.workers(int, "2")
        began.wait(30)
        stopped = self.workers.stop()
        self.failureResultOf(waiting, Busy)
        self.failureResultOf(self.workers(int, "3"), Busy)
        self.assertNoResult(stopped)
        gate.set()
        await stopped
        self.assertEqual(await first, "done")

    async def test_a_stop_does_not_wait_for_ever(self) -> None:
        clock: Any = MemoryReactorClock()
        clock.callFromThread = lambda *_: None
        workers = Workers(clock, "test", threads=1, queue_limit=2)
        workers.start()
        began, gate = threading.Event(), threading.Event()

        def hang() -> None:
            began.set()
            gate.wait(30)

        workers(hang)
        began.wait(30)
        stopped = workers.stop()
        clock.advance(STOP_LIMIT)
        self.successResultOf(stopped)
        gate.set()


class InAThreadTests(TestCase):
    async def test_each_call_is_made_in_a_thread_of_its_own(self) -> None:
        offload = in_a_thread(reactor)
        gate = threading.Event()
        waiting = offload(gate.wait, 30)
        self.assertNotEqual(await offload(threading.get_ident), threading.get_ident())
        gate.set()
        self.assertTrue(await waiting)

    async def test_an_exception_comes_back(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            await in_a_thread(reactor)(divmod, 1, 0)

    async def test_nobody_need_wait_for_it(self) -> None:
        gate, ended = threading.Event(), threading.Event()

        def work() -> None:
            gate.wait(30)
            ended.set()

        waiting = in_a_thread(reactor)(work)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        gate.set()
        self.assertTrue(await in_a_thread(reactor)(ended.wait, 30))
