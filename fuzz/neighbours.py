"""Those whom the server depends on, and all that they may do to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from ldaptor.protocols import pureldap
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from fuzz.sockets import Reactor
from qmailldap.threads import WAIT_LIMIT, Busy
from tests.directory import fake

__all__ = ["LATENCY", "Threads", "answers"]

P = ParamSpec("P")
T = TypeVar("T")

LATENCY = 0.002
"""Seconds that a turn of the reactor takes."""


class Threads:
    """As `qmailldap.threads.Workers`: work is done a moment later, none while it is ``held``."""

    def __init__(self, reactor: Reactor) -> None:
        self.held = False
        self._reactor = reactor
        self._waiting: list[Callable[[], None]] = []

    def __call__(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        begun = False

        def cancelled(_: Deferred[T]) -> None:
            nonlocal begun
            begun = True

        done: Deferred[T] = Deferred(cancelled)

        def give_up() -> None:
            if not begun:
                cancelled(done)
                done.errback(Busy("no thread was free in time"))

        patience = self._reactor.callLater(WAIT_LIMIT, give_up)

        def work() -> None:
            if patience.active():
                patience.cancel()
            if begun:
                return
            try:
                result: Any = function(*args, **kwargs)
            except Exception:
                result = Failure()
            if not done.called:
                done.callback(result)

        self._waiting.append(work)
        self._reactor.callLater(LATENCY, self.work)
        return done

    def work(self) -> None:
        while self._waiting and not self.held:
            self._waiting.pop(0)()


def answers(clock: IReactorTime, right: fake.Behaviour) -> list[fake.Behaviour]:
    """What a directory server may answer: first ``right``, which is as it should be."""

    def late(seconds: float) -> fake.Behaviour:
        def answer(peer: fake.Peer, message: Any) -> None:
            clock.callLater(seconds, right, peer, message)

        return answer

    def twice(peer: fake.Peer, message: Any) -> None:
        right(peer, message)
        right(peer, message)

    def another_kind(peer: fake.Peer, message: Any) -> None:
        peer.answer(message, pureldap.LDAPExtendedResponse(resultCode=0))

    def to_another(peer: fake.Peer, message: Any) -> None:
        message.id += 1
        right(peer, message)

    return [
        right,
        *(late(seconds) for seconds in (0.5, 4.9, 29.0, 300.0)),
        *(fake.says_nothing, fake.closes, fake.sends_half, fake.begins, fake.disconnects),
        *(fake.finds_nothing_but(code) for code in (1, 4, 32, 49, 51, 80)),
        *(fake.binds_with(code) for code in (0, 49, 53)),
        *(
            fake.sends(octets)
            for octets in (b"HTTP/1.0 200 OK\r\n", b"\x30\x05\x02\x01\x01\x04\x00")
        ),
        *(fake.finds_a_large_entry, twice, another_kind, to_another),
    ]
