"""Workers: bounded, and honest about it."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
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

    async def test_a_stop_takes_no_longer_than_there_is_time(self) -> None:
        for limit, taken in ((2.0, 2.0), (STOP_LIMIT + 5, STOP_LIMIT)):
            clock: Any = MemoryReactorClock()
            clock.callFromThread = lambda *_: None
            workers = Workers(clock, "test", threads=1, queue_limit=2)
            workers.start()
            began, gate = threading.Event(), threading.Event()

            def hang(began: threading.Event = began, gate: threading.Event = gate) -> None:
                began.set()
                gate.wait(30)

            workers(hang)
            began.wait(30)
            stopped = workers.stop(limit)
            clock.advance(taken - 0.1)
            self.assertNoResult(stopped)
            clock.advance(0.1)
            self.successResultOf(stopped)
            gate.set()

    async def test_a_stop_ends_the_threads(self) -> None:
        workers = Workers(reactor, "ending", threads=2, queue_limit=2)
        workers.start()
        began, gate = threading.Barrier(3), threading.Event()

        def work() -> None:
            began.wait(30)
            gate.wait(30)

        waiting = [workers(work) for _ in range(2)]
        began.wait(30)
        threads = [each for each in threading.enumerate() if each.name.startswith("ending-")]
        self.assertEqual([each.name for each in threads], ["ending-1", "ending-2"])
        stopped = workers.stop()
        gate.set()
        await stopped
        for deferred in waiting:
            self.successResultOf(deferred)
        for each in threads:
            each.join(30)
            self.assertFalse(each.is_alive())
        self.successResultOf(workers.stop())

    def test_a_stop_has_nothing_to_wait_for_where_no_thread_was_needed(self) -> None:
        workers = Workers(reactor, "test", threads=2, queue_limit=2)
        waiting = workers(int, "1")
        self.successResultOf(workers.stop())
        self.failureResultOf(waiting, Busy)

    async def test_what_is_asked_before_the_start_waits_for_it(self) -> None:
        workers = Workers(reactor, "test", threads=2, queue_limit=3)
        self.addCleanup(workers.stop)
        before = threading.active_count()
        asked = [workers(int, number) for number in ("1", "2", "3")]
        self.assertEqual(threading.active_count(), before)
        workers.start()
        self.assertEqual(await gatherResults(asked), [1, 2, 3])

    async def test_a_thread_is_made_when_there_is_more_to_do_than_there_are(self) -> None:
        workers = Workers(reactor, "few", threads=3, queue_limit=9)
        workers.start()
        self.addCleanup(workers.stop)

        def names() -> list[str]:
            return [each.name for each in threading.enumerate() if each.name.startswith("few-")]

        self.assertEqual(names(), [])
        for _ in range(5):
            await workers(int, "1")
        self.assertEqual(len(names()), 1)
        gate = threading.Event()
        waiting = [workers(gate.wait, 30) for _ in range(9)]
        self.assertEqual(len(names()), 3)
        gate.set()
        await gatherResults(waiting)

    async def test_each_of_many_gets_its_own_result(self) -> None:
        workers = Workers(reactor, "test", threads=4, queue_limit=500)
        workers.start()
        self.addCleanup(workers.stop)
        results = await gatherResults([workers(divmod, number, 7) for number in range(500)])
        self.assertEqual(results, [divmod(number, 7) for number in range(500)])

    async def test_nothing_is_kept_of_a_call_that_is_done(self) -> None:
        class Thing:
            pass

        def work(thing: Thing) -> Thing:
            made.append(weakref.ref(thing))
            made.append(weakref.ref(result := Thing()))
            return result

        made: list[weakref.ref[Thing]] = []
        await self.workers(work, Thing())
        # Whoever has the result now is not in the midst of being called any more.
        await deferLater(reactor, 0)
        self.assertEqual([each() for each in made], [None, None])

    async def test_where_no_thread_can_be_started_nothing_waits_for_one(self) -> None:
        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with self.subTest("none at all"):
            patch = self.patch(threading.Thread, "start", refuse)
            self.failureResultOf(self.workers(int, "1"), Busy)
            patch.restore()
        self.assertEqual(await self.workers(int, "1"), 1)
        # With one that there is, all goes on.
        workers = Workers(reactor, "test", threads=2, queue_limit=2)
        workers.start()
        self.addCleanup(workers.stop)
        await workers(int, "1")
        self.patch(threading.Thread, "start", refuse)
        asked = [workers(int, number) for number in ("1", "2")]
        self.assertEqual(await gatherResults(asked), [1, 2])


class NiceTests(TestCase):
    def workers(self, nice: int) -> Workers:
        workers = Workers(reactor, "test", threads=1, queue_limit=2, nice=nice)
        workers.start()
        self.addCleanup(workers.stop)
        return workers

    async def test_threads_give_way_to_the_reactor(self) -> None:
        ours = niceness()
        self.assertEqual(await self.workers(0)(niceness), ours)
        self.assertEqual(await self.workers(7)(niceness), min(19, ours + 7))
        self.assertEqual(niceness(), ours)

    async def test_threads_that_cannot_give_way_work_all_the_same(self) -> None:
        def refuse(*_: int) -> None:
            raise PermissionError

        self.patch(os, "setpriority", refuse)
        self.assertEqual(await self.workers(7)(niceness), niceness())


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


class FakeReactor(MemoryReactorClock):
    """Keeps what threads call until it is asked to do it."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[Callable[[], object]] = []

    def callFromThread(self, function: Callable[[], object]) -> None:
        self.called.append(function)


class ReactorTests(TestCase):
    """What a pool asks of its reactor."""

    def setUp(self) -> None:
        self.reactor: Any = FakeReactor()
        self.workers = Workers(self.reactor, "test", threads=1, queue_limit=9, wait_limit=8)
        self.workers.start()
        self.began, self.gate = threading.Event(), threading.Event()
        self.addCleanup(self.end)

    def end(self) -> None:
        self.gate.set()
        self.workers.stop()

    def hang(self) -> None:
        self.began.set()
        self.gate.wait(30)

    def test_it_is_called_once_for_all_that_is_done_before_it_looks(self) -> None:
        first, second = self.workers(int, "1"), self.workers(int, "2")
        third = self.workers(self.hang)
        self.began.wait(30)
        [look] = self.reactor.called
        look()
        self.assertEqual((self.successResultOf(first), self.successResultOf(second)), (1, 2))
        self.assertNoResult(third)
        self.began.clear()
        fourth = self.workers(self.hang)
        self.gate.set()
        self.began.wait(30)
        _, look_again = self.reactor.called
        look_again()
        self.successResultOf(third)
        del fourth

    def test_each_call_has_its_time_and_all_of_them_one_timer(self) -> None:
        begun = self.workers(self.hang)
        self.began.wait(30)
        waiting = [self.workers(int, "1")]
        for _ in range(3):
            self.reactor.advance(2)
            waiting.append(self.workers(int, "1"))
            self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        cancelled = waiting.pop(1)
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.reactor.advance(1)
        self.assertNoResult(waiting[0])
        for number, pause in ((0, 1), (1, 4), (2, 2)):
            self.reactor.advance(pause)
            self.failureResultOf(waiting[number], Busy)
            for later in waiting[number + 1 :]:
                self.assertNoResult(later)
        self.assertNoResult(begun)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_pool_that_was_stopped_leaves_no_timer(self) -> None:
        begun = self.workers(self.hang)
        self.began.wait(30)
        waiting = self.workers(int, "1")
        stopped = self.workers.stop()
        self.failureResultOf(waiting, Busy)
        self.reactor.advance(STOP_LIMIT)
        self.successResultOf(stopped)
        self.assertNoResult(begun)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


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
