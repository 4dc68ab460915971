"""How many connections are let in, from whom, and who has to go for others."""

from __future__ import annotations

import ipaddress
import os

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.admission import Connections, Place, SharedCounts
from qmailldap.admission.networks import network_of
from qmailldap.ip import parse_ip
from qmailldap.refusal import LoginRefused, Refusal


class NetworkTests(SynchronousTestCase):
    def test_an_address_of_ipv4_stands_for_itself(self) -> None:
        self.assertEqual(network_of("192.0.2.7"), "192.0.2.7")

    def test_an_ipv4_mapped_address_is_that_of_ipv4(self) -> None:
        self.assertEqual(network_of("::ffff:192.0.2.7"), "192.0.2.7")

    def test_all_of_one_slash_64_is_one(self) -> None:
        self.assertEqual(network_of("2001:db8:1:2::3"), "2001:db8:1:2::/64")
        self.assertEqual(network_of("2001:db8:1:2:ffff:ffff:ffff:ffff"), "2001:db8:1:2::/64")
        self.assertEqual(network_of("2001:db8:1:3::3"), "2001:db8:1:3::/64")

    def test_a_scope_makes_no_difference(self) -> None:
        self.assertEqual(network_of("fe80::1%eth0"), network_of("fe80::2%eth1"))

    def test_what_is_no_address_is_no_network(self) -> None:
        for host in ("", "/run/pop3", "mail.example.org", "192.0.2", "192.0.2.07", "1\0", "\ud800"):
            self.assertEqual(network_of(host), "", host)

    @given(
        st.ip_addresses().map(str)
        | st.ip_addresses(v=6, network="::ffff:0:0/96").map(str)
        | st.builds("{}%{}".format, st.ip_addresses(v=6), st.text(max_size=3))
        | st.text("0123456789abcdefABCDEF:.%/ \0\u0661", max_size=20)
    )
    def test_any_text_is_the_network_of_the_address_that_it_spells(self, host: str) -> None:
        address = parse_ip(host)
        if address is None:
            self.assertEqual(network_of(host), "")
        elif address.version == 4:
            self.assertEqual(network_of(host), str(address))
        else:
            network = ipaddress.ip_network(network_of(host))
            self.assertEqual((network.prefixlen, address in network), (64, True))
            self.assertEqual(network_of(host), str(network))


class ConnectionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.gone: list[str] = []

    def enter(
        self, connections: Connections, host: str = "192.0.2.1", name: str = "", **options: bool
    ) -> Place:
        return connections.enter(host, lambda: self.gone.append(name or host), **options)

    def assert_refused(self, connections: Connections, host: str, *details: str) -> None:
        with self.assertRaises(LoginRefused) as caught:
            self.enter(connections, host)
        self.assertIs(caught.exception.refusal, Refusal.TOO_MANY_CONNECTIONS)
        for detail in details:
            self.assertIn(detail, caught.exception.detail)

    def test_one_address_has_as_many_as_it_may(self) -> None:
        connections = Connections(100, 2)
        self.enter(connections)
        second = self.enter(connections)
        self.assert_refused(connections, "192.0.2.1", "2 from 192.0.2.1")
        self.enter(connections, "192.0.2.2")
        second.leave()
        self.enter(connections)
        self.assert_refused(connections, "192.0.2.1")
        self.assertEqual(len(connections), 3)
        self.assertEqual(self.gone, [])

    def test_one_slash_64_has_as_many_as_one_address(self) -> None:
        connections = Connections(100, 2)
        self.enter(connections, "2001:db8::1")
        self.enter(connections, "2001:db8::2")
        self.assert_refused(connections, "2001:db8::3", "2001:db8::/64")
        self.enter(connections, "2001:db8:0:1::3")

    def test_other_numbers_hold_at_once_and_nobody_who_is_there_is_forgotten(self) -> None:
        connections = Connections(100, 3)
        places = [self.enter(connections) for _ in range(3)]
        connections.limit_to(100, 2)
        places.pop().leave()
        self.assert_refused(connections, "192.0.2.1", "2 from 192.0.2.1")
        places.pop().leave()
        self.enter(connections)
        connections.limit_to(2, 0)
        self.enter(connections, "192.0.2.2")
        self.assertEqual(self.gone, ["192.0.2.1"])

    def test_nobody_is_counted_by_address_where_there_is_no_limit(self) -> None:
        connections = Connections(100, 0)
        for _ in range(100):
            self.enter(connections)
        self.assertEqual(len(connections), 100)

    def test_those_without_an_address_count_in_all_only(self) -> None:
        connections = Connections(3, 1)
        for _ in range(3):
            self.enter(connections, "").logged_in()
        self.assert_refused(connections, "192.0.2.1", "3 in all")

    def test_the_oldest_that_has_not_logged_in_goes_for_a_new_one(self) -> None:
        connections = Connections(3, 0)
        self.enter(connections, name="first").logged_in()
        self.enter(connections, name="second")
        self.enter(connections, name="third")
        self.enter(connections, name="fourth")
        self.assertEqual(self.gone, ["second"])
        self.enter(connections, name="fifth")
        self.assertEqual(self.gone, ["second", "third"])
        self.assertEqual(len(connections), 3)

    def test_when_all_are_logged_in_a_new_one_is_refused(self) -> None:
        connections = Connections(2, 0)
        first = self.enter(connections)
        first.logged_in()
        self.enter(connections).logged_in()
        self.assert_refused(connections, "192.0.2.9", "2 in all")
        first.leave()
        self.enter(connections)
        self.assertEqual(self.gone, [])

    def test_one_that_had_to_go_is_counted_no_more_when_it_is_lost(self) -> None:
        connections = Connections(1, 1)
        first = self.enter(connections, "192.0.2.1")
        self.enter(connections, "192.0.2.2")
        first.leave()
        first.logged_in()
        self.assertEqual(len(connections), 1)
        self.enter(connections, "192.0.2.1")
        self.assertEqual(self.gone, ["192.0.2.1", "192.0.2.2"])

    def test_one_that_is_lost_in_the_very_call_is_counted_once(self) -> None:
        connections = Connections(1, 0)
        places: list[Place] = []
        places.append(connections.enter("192.0.2.1", lambda: places[0].leave()))
        self.enter(connections, "192.0.2.2")
        self.assertEqual(len(connections), 1)

    def test_the_exempt_are_let_in_and_stay(self) -> None:
        connections = Connections(2, 1)
        for _ in range(3):
            self.enter(connections, exempt=True)
        self.assertEqual(len(connections), 3)
        self.assert_refused(connections, "192.0.2.9", "3 in all")
        self.assertEqual(self.gone, [])

    def test_for_the_exempt_others_have_to_go(self) -> None:
        connections = Connections(1, 1)
        self.enter(connections, name="stranger")
        self.enter(connections, exempt=True)
        self.assertEqual(self.gone, ["stranger"])
        self.assertEqual(len(connections), 1)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["enter", "exempt", "log in", "leave"]),
                st.sampled_from(["", "192.0.2.1", "192.0.2.2", "2001:db8::1"]),
                st.integers(0, 30),
            )
        )
    )
    def test_whatever_happens_the_count_is_that_of_those_who_are_there(
        self, steps: list[tuple[str, str, int]]
    ) -> None:
        connections = Connections(4, 2)
        there: dict[int, tuple[Place, str, bool]] = {}
        logged_in: set[int] = set()
        for number, (step, host, which) in enumerate(steps):
            if step in ("enter", "exempt"):
                exempt = step == "exempt"

                def go(number: int = number) -> None:
                    del there[number]

                try:
                    place = connections.enter(host, go, exempt=exempt)
                except LoginRefused:
                    same = [each for _, each, counted in there.values() if counted and each == host]
                    waiting = [key for key in there if there[key][2] and key not in logged_in]
                    full = len(there) >= 4 and not waiting
                    self.assertTrue(not exempt and (len(same) == 2 or full))
                else:
                    there[number] = (place, host, not exempt)
            elif there:
                key = sorted(there)[which % len(there)]
                if step == "log in":
                    there[key][0].logged_in()
                    logged_in.add(key)
                else:
                    there.pop(key)[0].leave()
            self.assertEqual(len(connections), len(there))
        for place, _, _ in there.values():
            place.leave()
            place.leave()
        self.assertEqual(len(connections), 0)
        for _ in range(2):
            connections.enter("192.0.2.1", lambda: None)


class SharedTests(SynchronousTestCase):
    """Two workers of one server."""

    def setUp(self) -> None:
        self.counts = SharedCounts.create(2)
        self.addCleanup(self.counts.close)
        self.gone: list[str] = []

    def workers(self, most: int, most_per_address: int) -> tuple[Connections, Connections]:
        return self.worker(0, most, most_per_address), self.worker(1, most, most_per_address)

    def worker(self, number: int, most: int, most_per_address: int) -> Connections:
        counts = SharedCounts.join(os.dup(self.counts.fileno()), number)
        self.addCleanup(counts.close)
        return Connections(most, most_per_address, counts)

    def enter(
        self, connections: Connections, host: str = "192.0.2.1", *, exempt: bool = False
    ) -> Place:
        return connections.enter(host, lambda: self.gone.append(host), exempt=exempt)

    def assert_refused(self, connections: Connections, host: str, detail: str) -> None:
        with self.assertRaises(LoginRefused) as caught:
            self.enter(connections, host)
        self.assertIs(caught.exception.refusal, Refusal.TOO_MANY_CONNECTIONS)
        self.assertEqual(caught.exception.detail, detail)

    def test_one_address_has_as_many_as_it_may_with_both(self) -> None:
        first, second = self.workers(100, 3)
        self.enter(first)
        place = self.enter(second)
        self.enter(second)
        for each in (first, second):
            self.assert_refused(each, "192.0.2.1", "3 from 192.0.2.1")
            self.enter(each, "192.0.2.2")
        place.leave()
        place.leave()
        self.enter(first)
        self.assert_refused(second, "192.0.2.1", "3 from 192.0.2.1")
        self.assertEqual(self.gone, [])

    def test_one_slash_64_has_as_many_as_one_address(self) -> None:
        first, second = self.workers(100, 1)
        self.enter(first, "2001:db8::1")
        self.assert_refused(second, "2001:db8::2", "1 from 2001:db8::/64")

    def test_the_oldest_of_the_same_worker_goes_when_both_have_enough(self) -> None:
        first, second = self.workers(3, 0)
        self.enter(first, "192.0.2.1")
        self.enter(second, "192.0.2.2")
        self.enter(second, "192.0.2.3")
        self.enter(second, "192.0.2.4")
        self.assertEqual(self.gone, ["192.0.2.2"])
        self.enter(first, "192.0.2.5")
        self.assertEqual(self.gone, ["192.0.2.2", "192.0.2.1"])
        self.assertEqual((len(first), len(second)), (1, 2))

    def test_a_worker_of_which_all_are_logged_in_lets_in_no_more(self) -> None:
        first, second = self.workers(2, 0)
        self.enter(first).logged_in()
        place = self.enter(second)
        self.assert_refused(first, "192.0.2.9", "2 in all, and all of this worker's are logged in")
        self.enter(first, exempt=True)
        self.assertEqual(self.gone, [])
        place.leave()
        self.assert_refused(first, "192.0.2.9", "2 in all, and all of this worker's are logged in")

    def test_the_exempt_are_held_to_nothing(self) -> None:
        first, second = self.workers(1, 1)
        for each in (first, second, first):
            self.enter(each, exempt=True)
        self.assertEqual((len(first), len(second)), (2, 1))

    def test_whom_a_worker_has_told_of_it_takes_back_whatever_the_number_is_by_then(self) -> None:
        first, second = self.workers(9, 1)
        told = self.enter(first)
        first.limit_to(9, 0)
        untold = self.enter(first)
        told.leave()
        self.enter(second).leave()
        first.limit_to(9, 1)
        untold.leave()
        self.enter(second).leave()
        again = self.enter(first)
        self.assert_refused(second, "192.0.2.1", "1 from 192.0.2.1")
        again.leave()

    def test_of_a_worker_that_has_ended_nothing_counts(self) -> None:
        first, second = self.workers(2, 1)
        self.enter(second).logged_in()
        self.enter(second, "192.0.2.2").logged_in()
        self.assert_refused(first, "192.0.2.1", "1 from 192.0.2.1")
        self.assert_refused(first, "192.0.2.9", "2 in all, and all of this worker's are logged in")
        self.counts.clear(1)
        self.enter(first).logged_in()
        again = self.worker(1, 2, 1)
        self.assert_refused(again, "192.0.2.1", "1 from 192.0.2.1")
        self.enter(again, "192.0.2.2")
