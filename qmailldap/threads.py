"""Work that would block the reactor, run in a bounded number of threads behind a bounded queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

__all__ = ["Busy", "Offload", "Workers"]

P = ParamSpec("P")
T = TypeVar("T")


class Busy(Exception):
    """The work was not begun: the queue of a `Workers` is full, or the server is being stopped."""


class Offload(Protocol):
    """How a room asks for blocking work: called with a function and its arguments."""

    def __call__(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]: ...


class Workers:
    """Some threads and the queue before them.

    Calling it with a function and arguments gives a Deferred of the result; beyond ``queue_limit``
    calls under way or waiting it fails at once with `Busy`.
    """

    def __init__(
        self, reactor: IReactorFromThreads, name: str, threads: int, queue_limit: int
    ) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(minthreads=0, maxthreads=threads, name=name)
        self._limit = queue_limit
        self._pending = 0
        self._stopped = False

    def start(self) -> None:
        self._pool.start()

    def stop(self) -> None:
        """End the threads once all that was asked for is done. Blocks until then."""
        # A stopped pool would take work and never do it.
        if not self._stopped:
            self._stopped = True
            self._pool.stop()

    def __call__(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        if self._stopped:
            return fail(Busy(f"{self._pool.name}: the server is being stopped"))
        if self._pending >= self._limit:
            return fail(Busy(f"{self._pool.name}: {self._limit} calls are waiting"))
        self._pending += 1
        done: Deferred[T] = deferToThreadPool(self._reactor, self._pool, function, *args, **kwargs)
        return done.addBoth(self._finished)

    def _finished(self, result: T) -> T:
        self._pending -= 1
        return result
