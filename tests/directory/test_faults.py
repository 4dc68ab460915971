"""Faults of any kind in any order: every operation ends in time, and all is well afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.control import Control
from qmailldap.directory import Directory, DirectoryUnavailable, EntryTooLarge
from qmailldap.directory._health import LONGEST_PAUSE
from tests.directory.fake import (
    BASE,
    Behaviour,
    FakeServer,
    Network,
    Peer,
    agrees_to_tls,
    begins,
    binds_with,
    checks_password,
    closes,
    disconnects,
    extends_with,
    finds,
    finds_a_large_entry,
    finds_nothing_but,
    says_nothing,
    sends,
    sends_half,
    shakes_hands,
    shows_a_certificate,
)

TIMEOUT = 8
SLACK = 0.01

bad: list[Behaviour] = [
    closes,
    sends_half,
    says_nothing,
    disconnects,
    sends(b"\x30\x03\x02\x01\x01"),
]
bad_searches: list[Behaviour] = [
    finds_nothing_but(32),
    finds_nothing_but(51),
    begins,
    finds_a_large_entry,
]
bad_answers_to_starttls: list[Behaviour] = [extends_with(2), binds_with(0)]
handshakes: list[Callable[[Peer], None]] = [
    Peer.close,
    lambda peer: None,
    shows_a_certificate("is not ours"),
    shakes_hands,
]
bad_binds: list[Behaviour] = [binds_with(49), binds_with(51)]
steps = st.one_of(
    st.tuples(st.just("search"), st.sampled_from([*bad, *bad_searches, finds])),
    st.tuples(st.just("bind"), st.sampled_from([*bad, *bad_binds, checks_password])),
    st.tuples(
        st.just("extended"), st.sampled_from([*bad, *bad_answers_to_starttls, agrees_to_tls])
    ),
    st.tuples(st.just("handshake"), st.sampled_from(handshakes)),
    st.tuples(st.just("find"), st.sampled_from([b"joe", b"ann"])),
    st.tuples(st.just("leave"), st.integers(0, 20)),
    st.tuples(st.sampled_from(["prove", "stop", "heal", "vanish"]), st.none()),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.001, 0.01, 1.0, 3.0])),
)


class FaultTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=60)
    @given(st.booleans(), st.lists(st.tuples(st.integers(0, 1), steps), max_size=60))
    def test_any_faults_are_survived(
        self, tls: bool, script: list[tuple[int, tuple[str, Any]]]
    ) -> None:
        self.clock = Clock()
        network = Network(self.clock)
        servers = [network.server("one"), network.server("two")]
        control = Control(
            ldapserver=tuple(server.address for server in servers),
            ldapbasedn=BASE,
            ldaptimeout=TIMEOUT,
            ldaptls=tls,
        )
        directory = Directory(self.clock, control, connect=network.connect)
        directory.start()
        operations: list[tuple[float, Deferred[Any]]] = []
        for which, (step, argument) in script:
            if step == "wait":
                self.wait(argument)
            elif step == "find":
                found = Deferred.fromCoroutine(directory.find(argument))
                operations.append((self.clock.seconds(), found))
            elif step == "prove":
                proved = Deferred.fromCoroutine(directory.prove(f"uid=joe,{BASE}", b"secret"))
                operations.append((self.clock.seconds(), proved))
            elif step == "leave" and operations:
                operations[argument % len(operations)][1].cancel()
            elif step != "leave":
                self.change(servers[which], step, argument)
            for begun, operation in operations:
                self.assertTrue(operation.called or self.clock.seconds() < begun + TIMEOUT + SLACK)
        self.wait(TIMEOUT)
        for _, operation in operations:
            operation.addErrback(
                lambda failure: (
                    failure.trap(DirectoryUnavailable, EntryTooLarge, CancelledError) and None
                )
            )
            self.successResultOf(operation)

        for server in servers:
            self.change(server, "heal", None)
        # A probe may just have begun, is given up after ldaptimeout, and is then due for a pause.
        self.wait(TIMEOUT + LONGEST_PAUSE + TIMEOUT)
        before = len(servers[0].logins)
        found = Deferred.fromCoroutine(directory.find(b"joe"))
        self.wait(0.1)
        self.assertEqual(len(self.successResultOf(found)), 1)
        self.assertEqual(len(servers[0].logins), before + 1)

        stopped = directory.stop()
        self.wait(0.1)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual([server.open_peers for server in servers], [[], []])
        peers = [peer for server in servers for peer in server.peers]
        self.assertNotEqual(any(peer.asked_in_plain_text for peer in peers), tls)

    def change(self, server: FakeServer, step: str, argument: Any) -> None:
        if step == "stop":
            server.stop()
        elif step == "vanish":
            server.reachable = False
        elif step == "heal":
            server.running = server.reachable = True
            server.search, server.bind = finds, checks_password
            server.extended, server.handshake = agrees_to_tls, shakes_hands
        else:
            setattr(server, step, argument)

    def wait(self, seconds: float) -> None:
        """Let time pass from each thing that is due to the next."""
        end = self.clock.seconds() + seconds
        while (due := [c.getTime() for c in self.clock.getDelayedCalls()]) and min(due) <= end:
            self.clock.advance(max(0.0, min(due) - self.clock.seconds()))
        self.clock.advance(max(0.0, end - self.clock.seconds()))
