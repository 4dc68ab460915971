"""The addresses of a host name: asked for once, remembered for a while, never waited for long."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import CancelledError, Deferred

from qmailldap.forward import addresses
from qmailldap.forward.addresses import LOOKUP_LIMIT, REMEMBERED, Addresses
from tests.forward.support import ForwardTestCase, Network

HOST = "mail2.example.org"


class AddressesTests(ForwardTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.resolver = self.network.nameResolver
        self.addresses = Addresses(self.network, self.resolver)

    def found(self, host: str = HOST) -> tuple[str, ...]:
        return self.successResultOf(self.addresses.of(host))

    def all_found(self, asked: Iterable[Deferred[tuple[str, ...]]]) -> set[tuple[str, ...]]:
        return {self.successResultOf(each) for each in asked}

    def test_the_addresses_of_a_name_are_found_in_the_order_of_the_resolver(self) -> None:
        self.resolver.known[HOST] = ["2001:db8::2", "10.0.0.2", "10.0.0.1"]
        self.assertEqual(self.found(), ("2001:db8::2", "10.0.0.2", "10.0.0.1"))

    def test_an_address_given_twice_counts_once(self) -> None:
        # The resolver gives one for each kind of socket.
        self.resolver.known[HOST] = ["10.0.0.2", "10.0.0.1", "10.0.0.2"]
        self.assertEqual(self.found(), ("10.0.0.2", "10.0.0.1"))

    def test_an_address_is_its_own(self) -> None:
        for host in ("10.0.0.1", "::1", "2001:db8::1", "fe80::1%eth0", "::ffff:10.0.0.1"):
            self.assertEqual(self.found(host), (host,))
        self.assertEqual(self.resolver.asked, [])

    def test_all_who_ask_meanwhile_share_one_lookup(self) -> None:
        asked = [self.addresses.of(HOST) for _ in range(3)]
        self.network.advance(LOOKUP_LIMIT / 2)
        asked.append(self.addresses.of(HOST))
        self.resolver.answer("10.0.0.1")
        self.assertEqual(self.all_found(asked), {("10.0.0.1",)})
        self.assertEqual(self.resolver.asked, [HOST])

    def test_names_are_looked_up_beside_each_other(self) -> None:
        one, two = self.addresses.of("one"), self.addresses.of("two")
        self.resolver.answer("10.0.0.2", which=1)
        self.assertEqual(self.successResultOf(two), ("10.0.0.2",))
        self.assertNoResult(one)
        self.resolver.answer("10.0.0.1", which=0)
        self.assertEqual(self.successResultOf(one), ("10.0.0.1",))

    def test_an_answer_is_remembered_for_a_while(self) -> None:
        self.resolver.known[HOST] = ["10.0.0.1"]
        self.assertEqual(self.found(), ("10.0.0.1",))
        self.resolver.known[HOST] = ["10.0.0.2"]
        self.network.advance(REMEMBERED - 0.1)
        self.assertEqual(self.found(), ("10.0.0.1",))
        self.network.advance(0.1)
        self.assertEqual(self.found(), ("10.0.0.2",))
        self.assertEqual(self.resolver.asked, [HOST, HOST])

    def test_that_there_are_no_addresses_is_remembered_too(self) -> None:
        self.resolver.known[HOST] = []
        self.assertEqual([self.found(), self.found()], [(), ()])
        self.assertEqual(self.resolver.asked, [HOST])
        self.network.advance(REMEMBERED)
        self.resolver.known[HOST] = ["10.0.0.1"]
        self.assertEqual(self.found(), ("10.0.0.1",))

    def test_a_resolver_that_never_answers_has_found_nothing(self) -> None:
        first = self.addresses.of(HOST)
        self.network.advance(LOOKUP_LIMIT - 0.1)
        late = self.addresses.of(HOST)
        self.assertNoResult(first)
        self.network.advance(0.1)
        self.assertEqual(self.all_found([first, late]), {()})

    def test_what_a_resolver_says_late_or_twice_counts_for_nothing(self) -> None:
        asked = self.addresses.of(HOST)
        self.network.advance(LOOKUP_LIMIT)
        self.resolver.answer("10.0.0.1")
        self.assertEqual(self.successResultOf(asked), ())
        self.assertEqual(self.found(), ())
        self.network.advance(REMEMBERED)
        asked = self.addresses.of(HOST)
        self.resolver.answer("10.0.0.2")
        self.resolver.answer("10.0.0.3")
        self.assertEqual(self.successResultOf(asked), ("10.0.0.2",))
        self.assertEqual(self.found(), ("10.0.0.2",))

    def test_a_late_answer_is_none_to_a_later_question(self) -> None:
        self.addresses.of(HOST)
        self.network.advance(LOOKUP_LIMIT)
        self.network.advance(REMEMBERED)
        asked = self.addresses.of(HOST)
        self.resolver.answer("10.0.0.1", which=0)
        self.assertNoResult(asked)
        self.resolver.answer("10.0.0.2", which=1)
        self.assertEqual(self.successResultOf(asked), ("10.0.0.2",))

    def test_addresses_of_a_kind_that_has_no_host_are_passed_over(self) -> None:
        asked = self.addresses.of(HOST)
        self.resolver.receivers[0].addressResolved(UNIXAddress(b"/run/socket"))
        self.resolver.answer("10.0.0.1")
        self.assertEqual(self.successResultOf(asked), ("10.0.0.1",))

    def test_one_who_goes_away_goes_alone(self) -> None:
        one, two, three = (self.addresses.of(HOST) for _ in range(3))
        two.cancel()
        self.failureResultOf(two, CancelledError)
        self.resolver.answer("10.0.0.1")
        self.assertEqual(self.all_found([one, three]), {("10.0.0.1",)})

    def test_the_answer_serves_others_when_all_who_asked_are_gone(self) -> None:
        asked = self.addresses.of(HOST)
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        later = self.addresses.of(HOST)
        self.assertEqual(self.resolver.asked, [HOST])
        self.resolver.answer("10.0.0.1")
        self.assertEqual(self.successResultOf(later), ("10.0.0.1",))

    def test_who_is_answered_may_ask_again_and_send_others_away(self) -> None:
        first, second = self.addresses.of(HOST), self.addresses.of(HOST)
        again: list[Deferred[tuple[str, ...]]] = []

        def answered(_: tuple[str, ...]) -> None:
            second.cancel()
            again.append(self.addresses.of(HOST))

        first.addCallback(answered)
        self.resolver.answer("10.0.0.1")
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
        self.assertEqual(self.resolver.asked, [])

    def test_names_beyond_ascii_are_looked_up(self) -> None:
        self.resolver.known["bücher.example.org"] = ["10.0.0.1"]
        self.assertEqual(self.found("bücher.example.org"), ("10.0.0.1",))

    def test_a_bounded_number_of_names_is_remembered_the_latest(self) -> None:
        self.patch(addresses, "_MOST_NAMES", 3)
        for host in "abcabd":
            self.resolver.known[host] = [f"10.0.0.{len(self.resolver.asked)}"]
            self.found(host)
        self.assertEqual(self.resolver.asked, ["a", "b", "c", "d"])
        self.found("c")
        self.found("b")
        self.assertEqual(self.resolver.asked, ["a", "b", "c", "d"])
        self.found("a")
        self.assertEqual(self.resolver.asked, ["a", "b", "c", "d", "a"])
        self.assertEqual(len(self.addresses._known), 3)


class AnyNameTests(ForwardTestCase):
    @settings(deadline=None)
    @given(st.text(max_size=80) | st.text(st.sampled_from("a.%:1[]é\ud800\0"), max_size=12))
    def test_any_name_has_addresses_or_none(self, host: str) -> None:
        network = Network()
        addresses = Addresses(network, network.nameResolver)
        asked = addresses.of(host)
        if network.nameResolver.asked:
            # What getaddrinfo does with a name before it asks anybody.
            host.encode("idna")
            network.nameResolver.answer("10.0.0.1")
            self.assertEqual(self.successResultOf(asked), ("10.0.0.1",))
        else:
            self.assertIn(self.successResultOf(asked), ((), (host,)))
        self.assertEqual(network.getDelayedCalls(), [])
