"""Which machine of a member is spoken to, and what is remembered of those that do not greet."""

from __future__ import annotations

import errno
from functools import partial

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.forward import machines
from qmailldap.forward.dialing import dial
from qmailldap.forward.dialogue import Dialogue
from qmailldap.forward.limits import ForwardLimits
from qmailldap.forward.machines import MOST_ADDRESSES, Greeted, Machines, Unreachable
from tests.forward.support import ForwardTestCase, Network, Wire, our_own_fault

A, B, C = "10.0.0.1", "2001:db8::2", "10.0.0.3"
LIMITS = ForwardLimits()
PORT = 110


def make_machines(network: Network) -> Machines:
    return Machines(network, partial(dial, network, Failure.getErrorMessage), LIMITS)


class MachinesTestCase(ForwardTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.machines = make_machines(self.network)

    def reach(self, *addresses: str, seconds: float = LIMITS.reach) -> Deferred[Greeted]:
        deadline = self.network.seconds() + seconds
        return self.begin(self.machines.first_to_greet(addresses, PORT, deadline))

    def pending(self) -> list[str]:
        return [wire.host for wire in self.network.wires if wire.pending]

    def greet(self, wire: Wire) -> None:
        wire.accept()
        wire.say(b"+OK ready\r\n")

    def reached(self, asked: Deferred[Greeted]) -> str:
        """Where somebody greeted; hangs up."""
        greeted = self.successResultOf(asked)
        greeted.dialogue.hang_up()
        self.network.settle()
        self.assertEqual(greeted.greeting, b"ready")
        return greeted.where

    def unreachable(self, asked: Deferred[Greeted]) -> str:
        return str(self.failureResultOf(asked, Unreachable).value)

    def bring_down(self, *addresses: str) -> None:
        """Each machine refuses a connection."""
        asked = self.reach(*addresses)
        for address in addresses:
            self.connecting(address).fail()
        self.unreachable(asked)
        self.network.wires.clear()
        self.log_lines()


class KnownTests(MachinesTestCase):
    def test_those_that_were_tried_are_known_with_their_last_failure(self) -> None:
        self.assertEqual(self.machines.known(), [])
        self.bring_down(A)
        asked = self.reach(C)
        self.greet(self.connecting(C))
        self.reached(asked)
        first, other = self.machines.known()
        self.assertEqual((first.where, first.up), ("10.0.0.1:110", False))
        assert first.last_failure is not None
        self.assertIn("refused", first.last_failure[1].lower())
        self.assertEqual((other.where, other.up, other.last_failure), ("10.0.0.3:110", True, None))


class RaceTests(MachinesTestCase):
    def test_one_that_greets_is_reached(self) -> None:
        for address, where in ((A, "10.0.0.1:110"), (B, "[2001:db8::2]:110")):
            asked = self.reach(address)
            self.greet(self.connecting(address))
            self.assertEqual(self.reached(asked), where)
            self.assertEqual(self.log_lines(), [])

    def test_the_next_is_tried_beside_one_that_lets_wait(self) -> None:
        asked = self.reach(A, B, C)
        self.assertEqual(self.pending(), [A])
        self.network.advance(0.24)
        self.assertEqual(self.pending(), [A])
        self.network.advance(0.01)
        self.assertEqual(self.pending(), [A, B])
        self.network.advance(0.25)
        self.assertEqual(self.pending(), [A, B, C])
        self.greet(self.connecting(B))
        self.assertEqual(self.reached(asked), "[2001:db8::2]:110")

    def test_the_next_is_tried_at_once_when_one_refuses(self) -> None:
        asked = self.reach(A, B, C)
        self.connecting(A).fail()
        self.assertEqual(self.pending(), [B])
        self.network.advance(0.2)
        self.connecting(B).fail()
        self.assertEqual(self.pending(), [C])
        self.greet(self.connecting(C))
        self.assertEqual(self.reached(asked), "10.0.0.3:110")

    def test_a_refusal_begins_the_stagger_anew(self) -> None:
        asked = self.reach(A, B, C)
        self.network.advance(0.2)
        self.connecting(A).fail()
        self.network.advance(0.24)
        self.assertEqual(self.pending(), [B])
        self.network.advance(0.01)
        self.assertEqual(self.pending(), [B, C])
        asked.cancel()
        self.failureResultOf(asked, CancelledError)

    def test_those_that_lose_are_not_down_but_come_last_for_a_while(self) -> None:
        asked = self.reach(A, B, C)
        self.network.advance(0.25)
        self.network.advance(0.25)
        self.greet(self.connecting(C))
        self.reached(asked)
        self.assertEqual(self.network.standing(), [])
        self.assertEqual(self.log_lines(), [])
        for first in (C, A):
            self.network.wires.clear()
            asked = self.reach(A, B, C)
            self.assertEqual(self.pending(), [first])
            self.greet(self.connecting(first))
            self.reached(asked)
            self.network.advance(LIMITS.down)

    def test_who_is_probed_and_answers_nothing_keeps_one_login_waiting_not_all(self) -> None:
        self.bring_down(A)
        self.network.advance(LIMITS.down)
        for first in (A, B, B, B):
            asked = self.reach(A, B)
            self.assertEqual(self.pending(), [first])
            self.network.advance(0.25)
            self.greet(self.connecting(B))
            self.reached(asked)

    def test_one_greeting_that_does_not_come_says_nothing_of_who_greets_others(self) -> None:
        # As from a machine whose queue of connections was full for a moment.
        unlucky = self.reach(A)
        self.connecting(A).accept()
        self.network.advance(1)
        waiting = self.reach(A)
        asked = self.reach(A)
        wires = [wire for wire in self.network.wires if wire.pending]
        self.greet(wires[1])
        self.reached(asked)
        self.network.advance(LIMITS.answer - 1)
        self.unreachable(unlucky)
        self.assertEqual(self.log_lines(), [])
        self.greet(wires[0])
        self.reached(waiting)

    def test_who_had_hardly_any_time_is_not_down(self) -> None:
        # A name that was slow to resolve may have used it up.
        others = self.reach(A)
        asked = self.reach(A, seconds=0.1)
        self.network.advance(0.1)
        self.unreachable(asked)
        asked = self.reach(A, seconds=1)
        self.network.advance(1)
        self.unreachable(asked)
        self.assertEqual(self.log_lines(), [])
        self.assertNoResult(others)
        others.cancel()
        self.failureResultOf(others, CancelledError)

    def test_nobody_else_is_tried_while_one_is_about_to_greet(self) -> None:
        asked = self.reach(A, B, C)
        self.network.advance(0.25)
        wire = self.connecting(B)
        wire.accept()
        self.assertEqual(self.network.standing(), [wire])
        self.network.advance(LIMITS.answer - 0.1)
        self.assertEqual(self.network.standing(), [wire])
        wire.say(b"+OK ready\r\n")
        self.assertEqual(self.reached(asked), "[2001:db8::2]:110")

    def test_the_others_are_tried_again_when_it_does_not_greet(self) -> None:
        asked = self.reach(A, B, C)
        self.network.advance(0.25)
        self.connecting(B).accept()
        self.network.advance(LIMITS.answer)
        self.assertEqual(self.pending(), [A])
        self.network.advance(0.25)
        self.assertEqual(self.pending(), [A, C])
        self.greet(self.connecting(A))
        self.assertEqual(self.reached(asked), "10.0.0.1:110")
        self.assertEqual(
            self.log_lines(),
            ["member [2001:db8::2]:110 is down: gave no greeting within 10 s"],
        )

    def test_one_that_greets_with_err_is_passed_over_but_not_down(self) -> None:
        for _ in range(2):
            asked = self.reach(A, B)
            wire = self.connecting(A)
            wire.accept()
            wire.say(b"-ERR too many \x80\r\n")
            self.assertEqual(self.pending(), [B])
            self.greet(self.connecting(B))
            self.reached(asked)
            self.assertTrue(wire.aborted)
            self.assertEqual(self.log_lines(), [])
        asked = self.reach(A)
        wire = self.connecting(A)
        wire.accept()
        wire.say(b"-ERR no\r\n")
        wire.close()
        self.assertEqual(self.unreachable(asked), "10.0.0.1:110 greets with -ERR no")

    def test_all_that_is_wrong_is_told(self) -> None:
        asked = self.reach(A, B, C)
        self.connecting(A).fail()
        wire = self.connecting(B)
        wire.accept()
        wire.say(b"220 smtp\r\n")
        wire = self.connecting(C)
        wire.accept()
        wire.lose()
        said = self.unreachable(asked)
        self.assertRegex(
            said,
            r"\A10\.0\.0\.1:110 Connection was refused .*; \[2001:db8::2\]:110 gave no greeting,"
            r' but "220 smtp"; 10\.0\.0\.3:110 gave no greeting: Connection .* lost',
        )

    def test_without_addresses_nobody_is_reached(self) -> None:
        self.assertEqual(self.unreachable(self.reach()), "no address")

    def test_a_bounded_number_of_addresses_is_tried(self) -> None:
        addresses = [f"10.0.1.{each}" for each in range(3 * MOST_ADDRESSES)]
        asked = self.reach(*addresses)
        for address in addresses[:MOST_ADDRESSES]:
            self.assertEqual(self.pending(), [address])
            self.connecting(address).fail()
        self.unreachable(asked)
        self.assertEqual(len(self.network.wires), MOST_ADDRESSES)

    def test_all_of_many_that_are_silent_are_given_up_together(self) -> None:
        addresses = [f"10.0.1.{each}" for each in range(MOST_ADDRESSES)]
        asked = self.reach(*addresses)
        for _ in addresses:
            self.network.advance(0.25)
        self.assertEqual(self.pending(), addresses)
        self.network.advance(LIMITS.reach - 0.25 * MOST_ADDRESSES - 0.01)
        self.assertNoResult(asked)
        self.network.advance(0.01)
        self.unreachable(asked)

    def test_an_own_fault_is_not_held_against_the_machine(self) -> None:
        for number in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            asked = self.reach(A, B)
            self.connecting(A).fail(our_own_fault(number))
            self.connecting(B).fail(our_own_fault(number))
            self.assertIn("cannot be connected to from here", self.unreachable(asked))
            self.assertEqual(self.log_lines(), [])
        asked = self.reach(A)
        self.greet(self.connecting(A))
        self.reached(asked)

    def test_a_fault_in_the_program_is_not_hidden(self) -> None:
        def broken(address: str, port: int, limit: float) -> Deferred[Dialogue]:
            raise ZeroDivisionError

        broken_machines = Machines(self.network, broken, LIMITS)
        asked = self.begin(broken_machines.first_to_greet([A, B], PORT, 30))
        self.failureResultOf(asked, ZeroDivisionError)


class DeadlineTests(MachinesTestCase):
    def test_all_together_have_thirty_seconds(self) -> None:
        # Each greets no sooner than in ten, and nobody else is tried meanwhile.
        addresses = [f"10.0.1.{each}" for each in range(MOST_ADDRESSES)]
        asked = self.reach(*addresses)
        for address in addresses[:3]:
            self.assertNoResult(asked)
            self.connecting(address).accept()
            self.network.advance(LIMITS.answer)
        self.assertIn("10.0.1.3:110 was not tried in time", self.unreachable(asked))
        self.assertEqual(self.network.seconds(), LIMITS.reach)
        self.assertEqual(len(self.network.wires), 3)

    def test_one_that_connects_late_has_what_is_left_to_greet(self) -> None:
        asked = self.reach(A)
        self.network.advance(LIMITS.reach - 1)
        self.connecting(A).accept()
        self.network.advance(1)
        self.assertIn("gave no greeting within 1 s", self.unreachable(asked))

    def test_one_that_connects_at_the_very_last_is_too_late(self) -> None:
        # Real timers are late, by as long as the reactor is busy with something else.
        asked = self.reach(A)
        self.network.rightNow += LIMITS.reach + 0.5
        self.connecting(A).accept()
        self.network.settle()
        self.assertIn("too late", self.unreachable(asked))
        self.assertEqual(self.log_lines(), [])

    def test_nobody_is_tried_when_there_is_no_time_left(self) -> None:
        said = self.unreachable(self.reach(A, B, seconds=0))
        self.assertEqual(
            said,
            "10.0.0.1:110 was not tried in time; [2001:db8::2]:110 was not tried in time",
        )
        self.assertEqual(self.network.wires, [])
        self.assertEqual(self.log_lines(), [])


class CancellationTests(MachinesTestCase):
    def cancel(self, asked: Deferred[Greeted]) -> None:
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.network.settle()
        self.assertEqual(self.network.standing(), [])
        self.assertEqual(self.network.getDelayedCalls(), [])
        self.assertEqual(self.log_lines(), [])

    def test_who_goes_away_while_machines_are_tried_leaves_nothing_behind(self) -> None:
        asked = self.reach(A, B, C)
        self.network.advance(0.25)
        self.cancel(asked)

    def test_who_goes_away_before_the_greeting_leaves_nothing_behind(self) -> None:
        asked = self.reach(A, B, C)
        self.network.advance(0.25)
        self.connecting(A).accept()
        self.cancel(asked)

    def test_the_machine_is_not_held_to_be_down_for_that(self) -> None:
        self.cancel(self.reach(A))
        asked = self.reach(A)
        self.connecting(A).accept()
        self.cancel(asked)
        asked = self.reach(A)
        self.greet(self.connecting(A))
        self.reached(asked)

    def test_others_go_on(self) -> None:
        gone, stays = self.reach(A), self.reach(A)
        first, second = self.network.wires
        first.accept()
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.greet(second)
        self.reached(stays)

    def test_a_probe_that_is_broken_off_lets_the_next_one_probe(self) -> None:
        self.bring_down(A)
        self.network.advance(LIMITS.down)
        probe = self.reach(A)
        self.assertEqual(self.pending(), [A])
        self.cancel(probe)
        probe = self.reach(A)
        self.greet(self.connecting(A))
        self.reached(probe)


class DownTests(MachinesTestCase):
    def test_a_machine_that_does_not_greet_is_left_alone_for_a_while(self) -> None:
        self.bring_down(A)
        self.network.advance(LIMITS.down - 0.1)
        said = self.unreachable(self.reach(A))
        self.assertRegex(said, r"\A10\.0\.0\.1:110 is down: Connection was refused")
        self.assertEqual(self.network.wires, [])

    def test_then_exactly_one_tries_it(self) -> None:
        self.bring_down(A)
        self.network.advance(LIMITS.down)
        probe = self.reach(A)
        self.assertEqual(self.pending(), [A])
        for _ in range(3):
            self.assertIn("is down", self.unreachable(self.reach(A)))
        wire = self.connecting(A)
        wire.accept()
        self.assertIn("is down", self.unreachable(self.reach(A)))
        self.assertEqual(len(self.network.wires), 1)
        wire.say(b"+OK ready\r\n")
        self.reached(probe)
        self.assertEqual(self.log_lines(), ["member 10.0.0.1:110 is up again"])
        after = [self.reach(A) for _ in range(2)]
        self.assertEqual(self.pending(), [A, A])
        for wire, asked in zip(self.network.wires[1:], after, strict=True):
            self.greet(wire)
            self.reached(asked)

    def test_one_that_does_not_greet_still_is_left_alone_again(self) -> None:
        self.bring_down(A)
        for _ in range(3):
            self.network.advance(LIMITS.down)
            probe = self.reach(A)
            self.connecting(A).fail()
            self.unreachable(probe)
            self.network.advance(LIMITS.down - 0.1)
            self.assertIn("is down", self.unreachable(self.reach(A)))
        self.assertEqual(len(self.network.wires), 3)
        self.assertEqual(self.log_lines(), [])

    def test_each_change_leaves_one_line_in_the_log(self) -> None:
        asked = [self.reach(A) for _ in range(5)]
        self.network.wires[2].fail()
        for each in asked:
            self.unreachable(each)
        (line,) = self.log_lines()
        self.assertRegex(line, r"\Amember 10\.0\.0\.1:110 is down: Connection was refused")
        self.network.advance(LIMITS.down)
        probe = self.reach(A)
        self.greet(self.connecting(A))
        self.reached(probe)
        self.assertEqual(self.log_lines(), ["member 10.0.0.1:110 is up again"])

    def test_all_who_try_a_machine_hear_at_once_that_it_is_down(self) -> None:
        asked = [self.reach(A) for _ in range(3)]
        self.network.wires[1].accept()
        self.network.wires[2].fail()
        for each in asked[:2]:
            self.assertIn("10.0.0.1:110 is down: ", self.unreachable(each))
        self.unreachable(asked[2])
        self.network.settle()
        self.assertEqual(self.network.standing(), [])

    def test_and_go_on_with_the_next(self) -> None:
        ours, others = self.reach(A, B), self.reach(A)
        self.network.wires[1].fail()
        self.unreachable(others)
        self.assertEqual(self.pending(), [B])
        self.greet(self.connecting(B))
        self.assertEqual(self.reached(ours), "[2001:db8::2]:110")

    def test_who_has_been_greeted_is_not_disturbed(self) -> None:
        first = self.reach(A)
        wire = self.connecting(A)
        self.greet(wire)
        second = self.reach(A)
        self.connecting(A).fail()
        self.unreachable(second)
        self.assertTrue(wire.open)
        self.reached(first)

    def test_a_machine_that_is_down_is_passed_over_at_once(self) -> None:
        self.bring_down(A)
        asked = self.reach(A, B)
        self.assertEqual(self.pending(), [B])
        self.greet(self.connecting(B))
        self.reached(asked)

    def test_all_down_is_known_at_once(self) -> None:
        self.bring_down(A, B)
        said = self.unreachable(self.reach(A, B))
        self.assertRegex(said, r"\A10\.0\.0\.1:110 is down: .*; \[2001:db8::2\]:110 is down: ")

    def test_ports_of_one_address_are_machines_of_their_own(self) -> None:
        self.bring_down(A)
        asked = self.begin(self.machines.first_to_greet([A], 1110, 30))
        self.greet(self.connecting(A))
        self.assertEqual(self.reached(asked), "10.0.0.1:1110")

    def test_every_way_not_to_greet_counts(self) -> None:
        for number, greeting in enumerate(
            (b"220 smtp\r\n", b"x" * 600, b"\0" * 100_000, b"close", b"reset", b"silence")
        ):
            address = f"10.0.2.{number}"
            asked = self.reach(address)
            wire = self.connecting(address)
            wire.accept()
            if greeting == b"close":
                wire.say(b"+OK al")
                wire.close()
            elif greeting == b"reset":
                wire.lose()
            elif greeting == b"silence":
                self.network.advance(LIMITS.answer)
            else:
                wire.say(greeting)
            self.unreachable(asked)
            self.network.settle()
            self.assertTrue(wire.gone)
            (line,) = self.log_lines()
            self.assertIn(f"member {address}:110 is down: gave no greeting", line)
            self.assertIn("is down", self.unreachable(self.reach(address)))

    def test_a_probe_that_is_refused_in_words_or_fails_by_our_own_fault_decides_nothing(
        self,
    ) -> None:
        self.bring_down(A)
        self.network.advance(LIMITS.down)
        for _ in range(2):
            probe = self.reach(A)
            wire = self.connecting(A)
            wire.accept()
            wire.say(b"-ERR busy\r\n")
            self.unreachable(probe)
            probe = self.reach(A)
            self.connecting(A).fail(our_own_fault(errno.EMFILE))
            self.unreachable(probe)
        self.assertEqual(self.log_lines(), [])
        probe = self.reach(A)
        self.greet(self.connecting(A))
        self.reached(probe)
        self.assertEqual(self.log_lines(), ["member 10.0.0.1:110 is up again"])

    def test_a_bounded_number_of_machines_is_remembered(self) -> None:
        self.patch(machines, "_MOST_MACHINES", 2)
        for address in (A, B, C):
            self.bring_down(address)
        self.assertEqual(len(self.machines._machines), 2)
        self.assertIn("is down", self.unreachable(self.reach(C)))
        asked = self.reach(A)
        self.greet(self.connecting(A))
        self.reached(asked)


picks = st.integers(0, 10**6)
ADDRESSES = ("10.0.0.1", "10.0.0.2", "2001:db8::3")


class Cluster(RuleBasedStateMachine):
    """Logins come and go; machines connect, greet, refuse and hang at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Network()
        self.machines = make_machines(self.network)
        # Until when a machine is down at least: what this model knows.
        self.down_until: dict[str, float] = {}
        self.last_greeting: dict[str, float] = {}
        self.logins: dict[int, tuple[float, Deferred[Greeted]]] = {}
        self.greeted: list[Greeted] = []
        self.count = 0

    def now(self) -> float:
        return self.network.seconds()

    def wire(self, pick: int, *, pending: bool) -> Wire | None:
        wires = [
            wire
            for wire in self.network.standing()
            if wire.pending == pending and not wire.disconnecting and wire not in self.in_use()
        ]
        return wires[pick % len(wires)] if wires else None

    def in_use(self) -> list[object]:
        return [greeted.dialogue.transport for greeted in self.greeted]

    def begin(self, addresses: list[str]) -> None:
        number = self.count = self.count + 1
        deadline = self.now() + LIMITS.reach
        asked = Deferred.fromCoroutine(self.machines.first_to_greet(addresses, PORT, deadline))
        self.logins[number] = deadline, asked

        def ended(result: object) -> None:
            # Never twice, and never anything else.
            del self.logins[number]
            if isinstance(result, Failure):
                result.trap(Unreachable, CancelledError)
            else:
                assert isinstance(result, Greeted)
                self.greeted.append(result)

        asked.addBoth(ended)

    @rule(addresses=st.lists(st.sampled_from(ADDRESSES), unique=True, max_size=3))
    def somebody_comes(self, addresses: list[str]) -> None:
        before = len(self.network.wires)
        self.begin(addresses)
        for wire in self.network.wires[before:]:
            assert self.now() >= self.down_until.get(wire.host, 0)

    @rule(pick=picks)
    def somebody_goes(self, pick: int) -> None:
        if self.logins:
            _, asked = list(self.logins.values())[pick % len(self.logins)]
            asked.cancel()

    @rule(pick=picks)
    def a_machine_connects(self, pick: int) -> None:
        wire = self.wire(pick, pending=True)
        if wire is not None:
            wire.accept()

    @rule(pick=picks)
    def a_machine_refuses(self, pick: int) -> None:
        wire = self.wire(pick, pending=True)
        if wire is not None:
            wire.fail()
            self.it_failed(wire)

    @rule(pick=picks)
    def we_cannot_connect(self, pick: int) -> None:
        wire = self.wire(pick, pending=True)
        if wire is not None:
            wire.fail(our_own_fault(errno.EMFILE))

    @rule(pick=picks, greeting=st.sampled_from([b"+OK ready\r\n", b"+", b"-ERR no\r\n"]))
    def a_machine_speaks(self, pick: int, greeting: bytes) -> None:
        wire = self.wire(pick, pending=False)
        if wire is not None:
            wire.say(greeting)
            if wire in self.in_use():
                self.down_until.pop(wire.host, None)
                self.last_greeting[wire.host] = self.now()

    @rule(pick=picks, how=st.sampled_from(["close", "lose"]))
    def a_machine_closes(self, pick: int, how: str) -> None:
        wire = self.wire(pick, pending=False)
        if wire is not None:
            getattr(wire, how)()
            self.network.settle()
            self.it_failed(wire)

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.25, 1.0, 5.0, 10.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        until = self.now() + seconds
        while self.now() < until:
            due = [call.getTime() for call in self.network.getDelayedCalls()]
            step = min([until, *due]) - self.now()
            self.network.advance(max(0.0, step))
            if not step:
                self.network.settle()
        self.network.settle()

    def it_failed(self, wire: Wire) -> None:
        """The machine is down, and nobody tries it, unless it has greeted others meanwhile."""
        host = wire.host
        if self.last_greeting.get(host, -1.0) >= wire.begun:
            return
        self.down_until[host] = self.now() + LIMITS.down
        self.network.settle()
        in_use = self.in_use()
        assert not [
            wire for wire in self.network.standing() if wire.host == host and wire not in in_use
        ]

    @invariant()
    def one_at_most_probes(self) -> None:
        self.network.settle()
        in_use = self.in_use()
        for machine in self.machines._machines.values():
            tried = [
                wire
                for wire in self.network.standing()
                if wire.host == machine.address and wire not in in_use
            ]
            assert len(tried) == len(machine.attempts)
            assert len(tried) <= (1 if machine.trouble else len(self.logins))
            assert machine.probed == (bool(machine.trouble) and bool(tried))

    @invariant()
    def every_login_ends_in_time(self) -> None:
        for deadline, _ in self.logins.values():
            assert self.now() < deadline

    @invariant()
    def a_login_that_waits_is_tried_somewhere(self) -> None:
        in_use = self.in_use()
        tried = [wire for wire in self.network.standing() if wire not in in_use]
        assert len(tried) >= len(self.logins)

    def teardown(self) -> None:
        for _, asked in tuple(self.logins.values()):
            asked.cancel()
        for greeted in self.greeted:
            greeted.dialogue.hang_up()
        self.network.settle()
        assert not self.logins
        assert self.network.standing() == []
        assert self.network.getDelayedCalls() == []


class MachinesModelTests(SynchronousTestCase):
    def test_any_order_of_events(self) -> None:
        run_machine(Cluster, settings=settings(max_examples=100, deadline=None))
