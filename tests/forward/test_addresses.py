"""The addresses of a host name: asked for once, remembered for a while, never waited for long."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.forward import addresses
from qmailldap.forward.addresses import KEPT, LOOKUP_LIMIT, REMEMBERED, Addresses, resolve
from qmailldap.threads import Busy
from tests.forward.support import ForwardTestCase, Network

HOST = "mail2.example.org"


class AddressesTests(ForwardTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.names = self.network.names
        self.addresses = Addresses(self.network, self.names)

    def found(self, host: str = HOST) -> tuple[str, ...]:
        return self.successResultOf(self.addresses.of(host))

    def all_found(self, asked: Iterable[Deferred[tuple[str, ...]]]) -> set[tuple[str, ...]]:
        return {self.successResultOf(each) for each in asked}

    def test_the_addresses_of_a_name_are_found_in_the_order_of_the_resolver(self) -> None:
        self.names.known[HOST] = ["2001:db8::2", "10.0.0.2", "10.0.0.1"]
        self.assertEqual(self.found(), ("2001:db8::2", "10.0.0.2", "10.0.0.1"))

    def test_an_address_is_its_own(self) -> None:
        for host in ("10.0.0.1", "::1", "2001:db8::1", "fe80::1%eth0", "::ffff:10.0.0.1"):
            self.assertEqual(self.found(host), (host,))
        for host in ("fe80::1%" + "y" * 16, "fe80::1%\x1b", "fe80::1%a\nb"):
            self.assertEqual(self.found(host), ())
        self.assertEqual(self.names.asked, [])

    def test_all_who_ask_meanwhile_share_one_lookup(self) -> None:
        asked = [self.addresses.of(HOST) for _ in range(3)]
        self.network.advance(LOOKUP_LIMIT / 2)
        asked.append(self.addresses.of(HOST))
        self.names.answer("10.0.0.1")
        self.assertEqual(self.all_found(asked), {("10.0.0.1",)})
        self.assertEqual(self.names.asked, [HOST])

    def test_names_are_looked_up_beside_each_other(self) -> None:
        one, two = self.addresses.of("one"), self.addresses.of("two")
        self.names.answer("10.0.0.2", which=1)
        self.assertEqual(self.successResultOf(two), ("10.0.0.2",))
        self.assertNoResult(one)
        self.names.answer("10.0.0.1", which=0)
        self.assertEqual(self.successResultOf(one), ("10.0.0.1",))

    def test_an_answer_is_remembered_for_a_while(self) -> None:
        self.names.known[HOST] = ["10.0.0.1"]
        self.assertEqual(self.found(), ("10.0.0.1",))
        self.names.known[HOST] = ["10.0.0.2"]
        self.network.advance(REMEMBERED - 0.1)
        self.assertEqual(self.found(), ("10.0.0.1",))
        self.network.advance(0.1)
        self.assertEqual(self.found(), ("10.0.0.2",))
        self.assertEqual(self.names.asked, [HOST, HOST])

    def test_that_there_are_no_addresses_is_remembered_too(self) -> None:
        self.names.known[HOST] = []
        self.assertEqual([self.found(), self.found()], [(), ()])
        self.assertEqual(self.names.asked, [HOST])
        self.network.advance(REMEMBERED)
        self.names.known[HOST] = ["10.0.0.1"]
        self.assertEqual(self.found(), ("10.0.0.1",))

    def test_a_lookup_that_hangs_has_found_nothing_and_no_other_is_begun(self) -> None:
        first = self.addresses.of(HOST)
        self.network.advance(LOOKUP_LIMIT - 0.1)
        late = self.addresses.of(HOST)
        self.assertNoResult(first)
        self.network.advance(0.1)
        self.assertEqual(self.successResultOf(first), ())
        self.assertNoResult(late)
        self.network.advance(LOOKUP_LIMIT)
        self.assertEqual(self.successResultOf(late), ())
        self.assertEqual(self.names.asked, [HOST])
        # It counts when it comes at last.
        self.names.answer("10.0.0.1")
        self.assertEqual(self.found(), ("10.0.0.1",))

    def test_nobody_waits_for_a_name_that_is_known(self) -> None:
        self.names.known[HOST] = ["10.0.0.1"]
        self.found()
        del self.names.known[HOST]
        self.network.advance(REMEMBERED)
        self.assertEqual([self.found(), self.found()], [("10.0.0.1",)] * 2)
        self.assertEqual(self.names.asked, [HOST, HOST])
        self.names.answer("10.0.0.2")
        self.assertEqual(self.found(), ("10.0.0.2",))

    def test_a_name_that_is_gone_has_no_addresses(self) -> None:
        self.names.known[HOST] = ["10.0.0.1"]
        self.found()
        self.names.known[HOST] = []
        self.network.advance(REMEMBERED)
        self.assertEqual(self.found(), ())

    def test_who_cannot_be_asked_changes_nothing_for_a_while(self) -> None:
        for error in (OSError(24, "Too many open files"), socket.gaierror(-3, "later"), Busy()):
            addresses = Addresses(self.network, self.names)
            asked = addresses.of(HOST)
            self.names.fail(error)
            self.assertEqual(self.successResultOf(asked), ())
            asked = addresses.of(HOST)
            self.network.advance(1)
            again = addresses.of(HOST)
            self.assertEqual(self.successResultOf(asked), ())
            self.names.answer("10.0.0.1")
            self.assertEqual(self.successResultOf(again), ("10.0.0.1",))
            for seconds, expected in ((REMEMBERED, ("10.0.0.1",)), (KEPT, ())):
                self.network.advance(seconds)
                asked = addresses.of(HOST)
                self.names.fail(error)
                self.assertEqual(self.successResultOf(asked), expected)

    def test_one_who_goes_away_goes_alone(self) -> None:
        one, two, three = (self.addresses.of(HOST) for _ in range(3))
        two.cancel()
        self.failureResultOf(two, CancelledError)
        self.names.answer("10.0.0.1")
        self.assertEqual(self.all_found([one, three]), {("10.0.0.1",)})

    def test_the_answer_serves_others_when_all_who_asked_are_gone(self) -> None:
        asked = self.addresses.of(HOST)
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        later = self.addresses.of(HOST)
        self.assertEqual(self.names.asked, [HOST])
        self.names.answer("10.0.0.1")
        self.assertEqual(self.successResultOf(later), ("10.0.0.1",))

    def test_who_is_answered_may_ask_again_and_send_others_away(self) -> None:
        first, second = self.addresses.of(HOST), self.addresses.of(HOST)
        again: list[Deferred[tuple[str, ...]]] = []

        def answered(_: tuple[str, ...]) -> None:
            second.cancel()
            again.append(self.addresses.of(HOST))

        first.addCallback(answered)
        self.names.answer("10.0.0.1")
        self.failureResultOf(second, CancelledError)
        self.assertEqual(self.all_found(again), {("10.0.0.1",)})

    def test_what_no_resolver_could_be_asked_for_has_no_addresses(self) -> None:
        for host in (
            "",
            ".",
            ".example.org",
            "a..example.org",
            "a" * 64 + ".example.org",
            "a." * 127 + "ab",
            "\ud800.example.org",
            "mail2\0.example.org",
        ):
            self.assertEqual(self.found(host), (), host)
        self.assertEqual(self.names.asked, [])

    def test_names_beyond_ascii_are_looked_up(self) -> None:
        self.names.known["bücher.example.org"] = ["10.0.0.1"]
        self.assertEqual(self.found("bücher.example.org"), ("10.0.0.1",))

    def test_a_bounded_number_of_names_is_remembered_the_latest(self) -> None:
        self.patch(addresses, "_MOST_NAMES", 3)
        for host in "abcabd":
            self.names.known[host] = [f"10.0.0.{len(self.names.asked)}"]
            self.found(host)
        self.assertEqual(self.names.asked, ["a", "b", "c", "d"])
        self.found("c")
        self.found("b")
        self.assertEqual(self.names.asked, ["a", "b", "c", "d"])
        self.found("a")
        self.assertEqual(self.names.asked, ["a", "b", "c", "d", "a"])
        self.assertEqual(len(self.addresses._known), 3)


class AnyNameTests(ForwardTestCase):
    @settings(deadline=None)
    @given(st.text(max_size=80) | st.text(st.sampled_from("a.%:1[]é\ud800\0"), max_size=12))
    def test_any_name_has_addresses_or_none(self, host: str) -> None:
        network = Network()
        addresses = Addresses(network, network.names)
        asked = addresses.of(host)
        if network.names.asked:
            # What getaddrinfo does with a name before it asks anybody.
            host.encode("idna")
            network.names.answer("10.0.0.1")
            self.assertEqual(self.successResultOf(asked), ("10.0.0.1",))
        else:
            self.assertIn(self.successResultOf(asked), ((), (host,)))
        self.assertEqual(network.getDelayedCalls(), [])


class ResolveTests(SynchronousTestCase):
    def answers(self, *addresses: str) -> None:
        found = [(0, 0, 0, "", (address, 0)) for address in addresses]
        self.patch(socket, "getaddrinfo", lambda *_, **__: found)

    def fails(self, error: Exception) -> None:
        def fail(*_: object, **__: object) -> None:
            raise error

        self.patch(socket, "getaddrinfo", fail)

    def test_an_address_given_twice_counts_once(self) -> None:
        self.answers("10.0.0.2", "::1", "10.0.0.2")
        self.assertEqual(resolve(HOST), ("10.0.0.2", "::1"))

    def test_a_name_that_does_not_exist_has_none(self) -> None:
        self.fails(socket.gaierror(socket.EAI_NONAME, "unknown"))
        self.assertEqual(resolve(HOST), ())

    def test_a_failure_is_one(self) -> None:
        for error in (socket.gaierror(socket.EAI_AGAIN, "later"), OSError(24, "files")):
            self.fails(error)
            with self.assertRaises(OSError):
                resolve(HOST)

    def test_localhost_is_here(self) -> None:
        self.assertIn("127.0.0.1", resolve("localhost"))
