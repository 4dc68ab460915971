"""Workers: bounded, and honest about it."""

from __future__ import annotations

import threading
from typing import cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.trial.unittest import TestCase

from qmailldap.threads import Busy, Workers


class WorkersTests(TestCase):
    def setUp(self) -> None:
        self.workers = Workers(cast(IReactorFromThreads, reactor), "test", threads=1, queue_limit=2)
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

    async def test_work_asked_for_before_the_stop_is_done_and_none_is_taken_after(self) -> None:
        done = [self.workers(int, "1"), self.workers(int, "2")]
        self.workers.stop()
        self.failureResultOf(self.workers(int, "3"), Busy)
        self.assertEqual([await each for each in done], [1, 2])
