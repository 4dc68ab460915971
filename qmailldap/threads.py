"""Work that would block the reactor, run in a bounded number of threads behind a bounded queue."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred, TimeoutError, fail, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from qmailldap.loglevel import Log

__all__ = ["STOP_LIMIT", "WAIT_LIMIT", "Busy", "Offload", "Workers", "in_a_thread"]

P = ParamSpec("P")
T = TypeVar("T")

WAIT_LIMIT = 60.0
"""Seconds that work may wait for a thread; a client has given up by then."""

STOP_LIMIT = 10.0
"""Seconds that the end of the server waits for work under way."""

_log = Log(namespace="qmailldap.threads")


class Busy(Exception):
    """The work was not begun: too much is waiting, for too long, or the server is being stopped."""


class Offload(Protocol):
    """How a room asks for blocking work: called with a function and its arguments."""

    def __call__(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]: ...


class _DaemonThread(threading.Thread):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, daemon=True)


class Workers:
    """Some threads and the queue before them; ``reactor`` must have a clock and take threads.

    Calling it with a function and arguments gives a Deferred of the result. It fails with `Busy`
    beyond ``queue_limit`` calls under way or waiting, and for a call that no thread has begun after
    ``wait_limit`` seconds. Cancelled before a thread has begun it, the call is not made. What has
    begun goes on to its end.
    """

    def __init__(
        self,
        reactor: Any,
        name: str,
        threads: int,
        queue_limit: int,
        wait_limit: float = WAIT_LIMIT,
        stop_limit: float = STOP_LIMIT,
    ) -> None:
        self._reactor = reactor
        self._name = name
        self._pool = ThreadPool(minthreads=0, maxthreads=threads, name=name)
        # A thread that hangs in the kernel, on a lost NFS server say, must not keep the process.
        self._pool.threadFactory = _DaemonThread
        self._queue_limit = queue_limit
        self._wait_limit = wait_limit
        self._stop_limit = stop_limit
        self._jobs: set[_Job[Any]] = set()
        self._stopped = False

    def start(self) -> None:
        self._pool.start()

    def stop(self) -> Deferred[None]:
        """Take no more work and give up what has not begun; fires when the rest is done.

        That is after ``stop_limit`` seconds at most.
        """
        if self._stopped:
            return succeed(None)
        self._stopped = True
        for job in list(self._jobs):
            job.give_up(f"{self._name}: the server is being stopped")
        ended: Deferred[None] = Deferred()

        def stop_and_tell() -> None:
            self._pool.stop()
            self._reactor.callFromThread(_fire, ended)

        # Not a thread of the reactor's own pool: the reactor would wait for it without a limit.
        threading.Thread(target=stop_and_tell, name=f"{self._name}-stop", daemon=True).start()
        return ended.addTimeout(self._stop_limit, self._reactor).addErrback(self._still_at_work)

    def __call__(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        if self._stopped:
            return fail(Busy(f"{self._name}: the server is being stopped"))
        if len(self._jobs) >= self._queue_limit:
            return fail(Busy(f"{self._name}: {self._queue_limit} calls are waiting"))
        job = _Job(functools.partial(function, *args, **kwargs))
        self._jobs.add(job)
        patience = self._reactor.callLater(
            self._wait_limit, job.give_up, f"{self._name}: no thread was free in time"
        )

        def finished(result: object) -> None:
            self._jobs.discard(job)
            if patience.active():
                patience.cancel()
            job.tell(result)

        deferToThreadPool(self._reactor, self._pool, job.run).addBoth(finished)
        return job.done

    def _still_at_work(self, failure: Failure) -> None:
        failure.trap(TimeoutError)
        _log.warn(
            "threads {name} did not end within {limit:g} s", name=self._name, limit=self._stop_limit
        )


class _Job(Generic[T]):
    """One call: either a thread begins it or it is given up, never both."""

    def __init__(self, call: Callable[[], T]) -> None:
        # Cancelled when nobody waits any more: then it need not begin.
        self.done: Deferred[T] = Deferred(self._cancelled)
        self._call = call
        # Whoever takes the one token out decides; list.pop is atomic.
        self._token = [None]

    def run(self) -> T | None:
        """In the thread: the call, unless it was given up."""
        return self._call() if self._take() else None

    def give_up(self, why: str) -> None:
        if self._take():
            self.done.errback(Busy(why))

    def tell(self, result: Any) -> None:
        """Pass on the result or failure, unless it was given up before."""
        if not self.done.called:
            self.done.callback(result)

    def _cancelled(self, _: Deferred[T]) -> None:
        self._take()

    def _take(self) -> bool:
        try:
            self._token.pop()
        except IndexError:
            return False
        return True


def _fire(deferred: Deferred[None]) -> None:
    if not deferred.called:
        deferred.callback(None)


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
