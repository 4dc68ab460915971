"""Work that would block the reactor, run in a bounded number of threads behind a bounded queue."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred, TimeoutError, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from qmailldap.loglevel import Log

__all__ = ["STOP_LIMIT", "WAIT_LIMIT", "Busy", "Offload", "Workers", "in_a_thread"]

P = ParamSpec("P")
T = TypeVar("T")

WAIT_LIMIT = 60.0
"""Seconds that work may wait for a thread; a client has given up by then."""

STOP_LIMIT = 10.0
"""Seconds that the end waits for work under way, where nobody says how many there are."""

_log = Log(namespace="qmailldap.threads", of_sessions=False)


class Busy(Exception):
    """The work was not begun: too much is waiting, for too long, or the server is being stopped."""


class Offload(Protocol):
    """How a room asks for blocking work: called with a function and its arguments."""

    def __call__(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]: ...


class Workers:
    """Some threads and the queue before them; ``reactor`` must have a clock and take threads.

    Calling it with a function and arguments gives a Deferred of the result. It fails with `Busy`
    beyond ``queue_limit`` calls under way or waiting, and for a call that no thread has begun after
    ``wait_limit`` seconds. Cancelled before a thread has begun it, the call is not made. What has
    begun goes on to its end.

    A thread is made when there is more to do than there are threads, none before `start`. Each
    gives way to the reactor's by ``nice`` steps: nice(2), which on Linux is of one thread.

    Not by `twisted.python.threadpool`, whose way there and back costs the reactor more than most of
    the calls do themselves.
    """

    def __init__(
        self,
        reactor: Any,
        name: str,
        threads: int,
        queue_limit: int,
        wait_limit: float = WAIT_LIMIT,
        stop_limit: float = STOP_LIMIT,
        nice: int = 0,
    ) -> None:
        self._reactor = reactor
        self._name = name
        self._most_threads = threads
        self._queue_limit = queue_limit
        self._wait_limit = wait_limit
        self._stop_limit = stop_limit
        self._nice = nice
        self._started = False
        self._stopped = False
        self._ended: Deferred[None] = Deferred()
        self._threads = 0
        # Asked and not told, given up or not: all that is held.
        self._held = 0
        # To the threads, with a None for each that has to end; and back, one from each that has.
        self._asked: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._done: deque[_Job[Any] | None] = deque()
        self._reactor_called = False
        # As they were asked for, which is also the order of their deadlines. What has begun leaves
        # when it is first; so all are still to begin, but for those that were cancelled.
        self._waiting: deque[_Job[Any]] = deque()
        self._patience: IDelayedCall | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def held(self) -> int:
        """Calls that are under way or wait for a thread."""
        return self._held

    def start(self) -> None:
        self._started = True
        for _ in range(min(self._held, self._most_threads)):
            self._start_thread()

    def stop(self, limit: float | None = None) -> Deferred[None]:
        """Take no more work and give up what has not begun; fires when the rest is done.

        That is after ``stop_limit`` seconds at most, and after ``limit`` where that is less.
        """
        if self._stopped:
            return succeed(None)
        self._stopped = True
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        while self._waiting:
            self._waiting.popleft().give_up(f"{self._name}: the server is being stopped")
        if not self._threads:
            return succeed(None)
        for _ in range(self._threads):
            self._asked.put(None)
        if limit is not None:
            self._stop_limit = min(self._stop_limit, limit)
        self._ended.addTimeout(self._stop_limit, self._reactor)
        return self._ended.addErrback(self._still_at_work)

    def __call__(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        if self._stopped:
            return fail(Busy(f"{self._name}: the server is being stopped"))
        if self._held >= self._queue_limit:
            return fail(Busy(f"{self._name}: {self._queue_limit} calls are waiting"))
        if self._started and self._threads <= self._held and self._threads < self._most_threads:
            self._start_thread()
            if not self._threads:
                return fail(Busy(f"{self._name}: no thread can be started"))
        job = _Job(self._reactor.seconds() + self._wait_limit, function, args, kwargs)
        self._held += 1
        self._waiting.append(job)
        if self._patience is None:
            self._patience = self._reactor.callLater(self._wait_limit, self._lose_patience)
        self._asked.put(job)
        return job.done

    def _start_thread(self) -> None:
        # A daemon: one that hangs in the kernel, on a lost NFS server say, must not keep the
        # process.
        thread = threading.Thread(
            target=self._work, name=f"{self._name}-{self._threads + 1}", daemon=True
        )
        # Where the host lets us have no more, those that there are have more to do.
        with suppress(RuntimeError):
            thread.start()
            self._threads += 1

    def _work(self) -> None:
        """In a thread: all that is asked for, until it is None."""
        _give_way(self._nice)
        while (job := self._asked.get()) is not None:
            job.run()
            self._tell_reactor(job)
            # Nothing of it is kept while the thread waits for the next one.
            del job
        self._tell_reactor(None)

    def _tell_reactor(self, job: _Job[Any] | None) -> None:
        """In a thread. The reactor is called once for all that is done before it looks."""
        self._done.append(job)
        if not self._reactor_called:
            self._reactor_called = True
            self._reactor.callFromThread(self._look)

    def _look(self) -> None:
        # Before anything is taken: whoever comes after this calls again.
        self._reactor_called = False
        for _ in range(len(self._done)):
            job = self._done.popleft()
            if job is not None:
                self._held -= 1
                job.tell()
                continue
            self._threads -= 1
            if not self._threads and not self._ended.called:
                self._ended.callback(None)
        while self._waiting and self._waiting[0].begun:
            self._waiting.popleft()

    def _lose_patience(self) -> None:
        """Give up those whose time is over. One timer for all, and none where nothing was asked."""
        self._patience = None
        now = self._reactor.seconds()
        while self._waiting and (self._waiting[0].begun or self._waiting[0].deadline <= now):
            self._waiting.popleft().give_up(f"{self._name}: no thread was free in time")
        if self._waiting and self._patience is None:
            left = self._waiting[0].deadline - now
            self._patience = self._reactor.callLater(left, self._lose_patience)

    def _still_at_work(self, failure: Failure) -> None:
        failure.trap(TimeoutError)
        _log.warn(
            "threads {name} did not end within {limit:g} s", name=self._name, limit=self._stop_limit
        )


class _Job(Generic[T]):
    """One call: either a thread begins it or it is given up, never both.

    ``deadline`` is when it is to have begun, in seconds of the reactor's clock.
    """

    __slots__ = ("_call", "_result", "deadline", "done")

    def __init__(
        self,
        deadline: float,
        function: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.deadline = deadline
        # Cancelled when nobody waits any more: then it need not begin.
        self.done: Deferred[T] = Deferred(self._cancelled)
        # Whoever takes the one call out decides; list.pop is atomic.
        self._call = [(function, args, kwargs)]
        self._result: Any = None

    @property
    def begun(self) -> bool:
        """Or given up."""
        return not self._call

    def run(self) -> None:
        """In the thread: the call, unless it was given up."""
        try:
            function, args, kwargs = self._call.pop()
        except IndexError:
            return
        try:
            self._result = function(*args, **kwargs)
        except BaseException:
            self._result = Failure()

    def give_up(self, why: str) -> None:
        if self._take():
            self.done.errback(Busy(why))

    def tell(self) -> None:
        """Pass on the result or failure, unless nobody waits for it any more."""
        # Out of here first: a failure knows the frames it came through, and they know this job.
        result, self._result = self._result, None
        if not self.done.called:
            self.done.callback(result)

    def _cancelled(self, _: Deferred[T]) -> None:
        self._take()

    def _take(self) -> bool:
        try:
            self._call.pop()
        except IndexError:
            return False
        return True


def _give_way(nice: int) -> None:
    """Have the thread that calls this give way to others; it is no error where that cannot be."""
    if nice:
        with suppress(OSError):
            thread = threading.get_native_id()
            niceness = os.getpriority(os.PRIO_PROCESS, thread) + nice
            os.setpriority(os.PRIO_PROCESS, thread, niceness)


def in_a_thread(reactor: Any) -> Offload:
    """An `Offload` that makes a thread of its own for each call, for processes that make few.

    What such a thread does ends with the process, which does not wait for it.
    """

    def offload(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        done: Deferred[T] = Deferred(lambda _: None)

        def tell(result: Any) -> None:
            if not done.called:
                done.callback(result)

        def run() -> None:
            result: Any
            try:
                result = function(*args, **kwargs)
            except BaseException:
                result = Failure()
            reactor.callFromThread(tell, result)

        threading.Thread(target=run, daemon=True).start()
        return done

    return offload
