"""The pool under any order of events: never too many run, and no question is forgotten."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.privsep.channel import Answer
from qmailldap.privsep.pool import IDLE_LIMIT, Keepers
from qmailldap.threads import Busy
from tests.privsep.support import FakeKeeper, FakeStarter

MOST = 3
OWNERS = 6

picks = st.integers(0, 10**6)


class Pool(RuleBasedStateMachine):
    """Owners ask; keepers answer, err, die, hang and leave when told to, all of it at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.starter = FakeStarter(self.clock)
        self.keepers = Keepers(self.starter, self.clock, MOST)
        self.results: dict[bytes, int] = {}
        self.owners: dict[bytes, int] = {}
        # Those under way or waiting, in the order in which they came.
        self.open: list[bytes] = []

    def ask(self, owner: int, again: int) -> None:
        word = b"%d" % len(self.results)
        self.results[word] = 0
        self.owners[word] = owner
        self.open.append(word)
        asked: Deferred[Answer] = self.keepers.ask((owner, owner), lambda channel: [word])

        def answered(result: object) -> None:
            self.results[word] += 1
            self.open.remove(word)
            if isinstance(result, Answer):
                assert result.fields == [word]
            if again:
                self.ask(owner, again - 1)

        asked.addBoth(answered)

    def a_keeper(self, pick: int) -> FakeKeeper | None:
        running = self.starter.running()
        return running[pick % len(running)] if running else None

    @rule(owner=st.integers(1000, 1000 + OWNERS), again=st.integers(0, 2))
    def somebody_asks(self, owner: int, again: int) -> None:
        self.ask(owner, again)

    @rule(pick=picks, outcome=st.sampled_from([b"ok", b"ok", b"ok", b"fault", b"no-memory"]))
    def a_keeper_answers(self, pick: int, outcome: bytes) -> None:
        keeper = self.a_keeper(pick)
        if keeper is not None and keeper.awaited():
            keeper.answer(keeper.awaited()[0][1], outcome=outcome)

    @rule(pick=picks)
    def a_keeper_dies(self, pick: int) -> None:
        keeper = self.a_keeper(pick)
        if keeper is not None:
            keeper.end()

    @rule(pick=picks)
    def a_keeper_talks_nonsense(self, pick: int) -> None:
        keeper = self.a_keeper(pick)
        if keeper is not None:
            keeper.channel.dataReceived(b"\0\0\0\0")

    @rule()
    def keepers_leave(self) -> None:
        for keeper in self.starter.running():
            if keeper.transport.half_closed and not keeper.awaited():
                keeper.end()

    @rule(fault=st.sampled_from([None, None, None, Busy("no"), OSError(24, "no")]))
    def the_broker_is_busy_or_not(self, fault: Exception | None) -> None:
        self.starter.fault = fault

    @rule()
    def they_would_be_others_now(self) -> None:
        self.keepers.renew()

    @rule(seconds=st.sampled_from([0.5, 5, 11, 61, 301]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def no_more_run_than_may(self) -> None:
        assert len(self.starter.running()) <= MOST

    @invariant()
    def nobody_waits_while_there_is_a_place(self) -> None:
        running = self.starter.running()
        asked = {frame[1] for keeper in running for frame in keeper.awaited()}
        waiting = {self.owners[word] for word in self.open if word not in asked}
        if waiting:
            assert len(running) == MOST
            leaving = sum(keeper.transport.half_closed for keeper in running)
            idle = sum(not keeper.awaited() for keeper in running) > leaving
            assert not idle or leaving > 0

    def teardown(self) -> None:
        self.starter.fault = None
        # All that is open is answered within as many rounds as there are owners, whoever asks on.
        for _ in range(10 * OWNERS):
            for keeper in self.starter.running():
                for frame in keeper.awaited():
                    keeper.answer(frame[1])
            self.keepers_leave()
        assert not self.open
        assert set(self.results.values()) <= {1}
        self.clock.advance(IDLE_LIMIT)
        self.keepers_leave()
        assert not self.starter.running()
        self.keepers.stop()
        assert not self.clock.getDelayedCalls()


class PoolModelTests(SynchronousTestCase):
    def test_any_order_of_events(self) -> None:
        run_machine(Pool, settings=settings(deadline=None, max_examples=80, stateful_step_count=40))
