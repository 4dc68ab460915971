"""How many connections are let in, from whom, and who has to go for others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.admission import Connections, Place
from qmailldap.admission.networks import network_of
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
        for host in ("", "/run/pop3", "mail.example.org", "192.0.2", "192.0.2.07"):
            self.assertEqual(network_of(host), "", host)


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
