"""Whose mail is here (reference.md, "The decision", step 4), who has the other's, who is ours."""

from __future__ import annotations

import ipaddress

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.cluster import Cluster, Member
from qmailldap.control import Control, Route, ServerAddress


def cluster(*routes: Route, trusted: tuple[str, ...] = (), clustering: bool = True) -> Cluster:
    return Cluster(
        Control(
            ldapserver=(ServerAddress("localhost"),),
            me="Mail1.example.org",
            ldapcluster=clustering,
            ldapclusterhosts=("old.example.org",),
            pop3routes=routes,
            pop3trusted=tuple(ipaddress.ip_network(network) for network in trusted),
        )
    )


def end(host: str, port: int = 110) -> IAddress:
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)


class KeepingTests(SynchronousTestCase):
    def keeps(self, mail_host: str, *, clustering: bool = True) -> bool:
        return cluster(clustering=clustering).keeps(mail_host)

    def test_our_names_are_compared_without_case(self) -> None:
        self.assertTrue(self.keeps("MAIL1.EXAMPLE.ORG"))
        self.assertTrue(self.keeps("Old.Example.Org"))

    def test_another_host_is_not_here(self) -> None:
        self.assertFalse(self.keeps("mail2.example.org"))

    def test_a_dot_at_the_end_makes_it_another_name(self) -> None:
        self.assertFalse(self.keeps("mail1.example.org."))

    def test_without_clustering_everything_is_here(self) -> None:
        self.assertTrue(self.keeps("mail2.example.org", clustering=False))


PATTERNS = st.text(st.sampled_from("ab."), max_size=6)


class MemberTests(SynchronousTestCase):
    def test_without_a_route_a_member_is_reached_by_its_name(self) -> None:
        member = cluster().member("Mail2.Example.Org")
        self.assertEqual(member, Member("mail2.example.org", "mail2.example.org", 110))
        self.assertEqual(str(member), "mail2.example.org")

    def test_a_route_gives_the_address_the_port_or_both(self) -> None:
        there = cluster(
            Route("a.example.org", "10.0.0.2", 2110),
            Route("b.example.org", "10.0.0.2"),
            Route("c.example.org", port=2110),
            Route("d.example.org", "2001:db8::1"),
        )
        for name, shown in (
            ("A.example.org", "a.example.org at 10.0.0.2:2110"),
            ("b.example.org", "b.example.org at 10.0.0.2:110"),
            ("c.Example.Org", "c.example.org at c.example.org:2110"),
            ("d.example.org", "d.example.org at [2001:db8::1]:110"),
            ("e.example.org", "e.example.org"),
        ):
            self.assertEqual(str(there.member(name)), shown)

    def test_the_name_is_before_its_longest_end_and_that_before_all_names(self) -> None:
        there = cluster(
            Route("", "10.0.0.1"),
            Route(".example.org", "10.0.0.2"),
            Route(".a.example.org", "10.0.0.3"),
            Route("x.a.example.org", "10.0.0.4"),
        )
        for name, host in (
            ("x.a.example.org", "10.0.0.4"),
            ("y.a.example.org", "10.0.0.3"),
            ("y.x.a.example.org", "10.0.0.3"),
            ("a.example.org", "10.0.0.2"),
            ("example.org", "10.0.0.1"),
            ("bexample.org", "10.0.0.1"),
            ("a.example.org.", "10.0.0.1"),
            ("", "10.0.0.1"),
        ):
            self.assertEqual(there.member(name).host, host, name)

    def test_a_route_to_nowhere_else_takes_a_name_out_of_the_others(self) -> None:
        there = cluster(Route("mail2.example.org"), Route("", "10.0.0.1", 2110))
        self.assertEqual(str(there.member("mail2.example.org")), "mail2.example.org")

    def test_a_very_long_name_is_found_quickly(self) -> None:
        there = cluster(Route(".example.org", "10.0.0.2"), Route("", "10.0.0.1"))
        self.assertEqual(there.member("a." * 100_000).host, "10.0.0.1")
        self.assertEqual(there.member("a." * 100_000 + "example.org").host, "10.0.0.2")

    @given(
        st.lists(PATTERNS, unique=True, max_size=8), st.text(st.sampled_from("abAB."), max_size=8)
    )
    @example(["", ".", ".a", "a.a"], "A.a")
    def test_the_route_is_the_one_that_a_naive_search_finds(
        self, patterns: list[str], mail_host: str
    ) -> None:
        routes = [
            Route(pattern, f"10.0.0.{each}", each) for each, pattern in enumerate(patterns, 1)
        ]
        name = mail_host.lower()
        member = cluster(*routes).member(mail_host)
        matching = [
            route
            for route in routes
            if name == route.pattern
            or not route.pattern
            or (route.pattern.startswith(".") and name.endswith(route.pattern))
        ]
        best = max(matching, key=lambda route: len(route.pattern), default=Route("", name, 110))
        self.assertEqual(member, Member(name, best.host, best.port))


class TrustTests(SynchronousTestCase):
    def test_addresses_and_networks_are_trusted(self) -> None:
        there = cluster(trusted=("10.0.0.1/32", "192.0.2.0/24", "2001:db8::/32", "fe80::1/128"))
        for host, trusted in (
            ("10.0.0.1", True),
            ("10.0.0.2", False),
            ("192.0.2.255", True),
            ("192.0.3.0", False),
            ("2001:db8:ffff::1", True),
            ("2001:db9::", False),
            ("::ffff:192.0.2.7", True),
            ("::FFFF:c000:0207", True),
            ("::ffff:10.0.0.2", False),
            ("::192.0.2.7", False),
            ("fe80::1%eth0", True),
            ("fe80::2%eth0", False),
        ):
            self.assertEqual(there.trusts(host), trusted, host)

    def test_nobody_is_trusted_by_default(self) -> None:
        for host in ("127.0.0.1", "::1", "10.0.0.1"):
            self.assertFalse(cluster().trusts(host))

    def test_ipv4_is_no_part_of_all_ipv6_nor_the_other_way_round(self) -> None:
        self.assertFalse(cluster(trusted=("::/0",)).trusts("::ffff:10.0.0.1"))
        self.assertFalse(cluster(trusted=("0.0.0.0/0",)).trusts("::1"))

    def test_what_is_no_address_is_not_trusted(self) -> None:
        there = cluster(trusted=("0.0.0.0/0", "::/0"))
        for host in ("", "localhost", "/run/pop3.socket", "10.0.0.1:110", "[::1]", "%eth0", "1"):
            self.assertFalse(there.trusts(host), host)

    @given(st.text(max_size=30) | st.text(st.sampled_from("01af.:%"), max_size=20))
    def test_any_host_is_trusted_or_not(self, host: str) -> None:
        trusted = cluster(trusted=("0.0.0.0/0", "::/0")).trusts(host)
        try:
            ipaddress.ip_address(host)
        except ValueError:
            self.assertFalse(trusted)
        else:
            self.assertTrue(trusted)

    @given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 32))
    def test_whoever_is_in_the_network_is_trusted(
        self,
        network: ipaddress.IPv4Address | ipaddress.IPv6Address,
        host: ipaddress.IPv4Address | ipaddress.IPv6Address,
        bits: int,
    ) -> None:
        length = network.max_prefixlen
        near = ipaddress.ip_network((network, length - bits), strict=False)
        there = cluster(trusted=(str(near),))
        mapped = isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped
        same = network.version == host.version and int(network) >> bits == int(host) >> bits
        if not mapped:
            self.assertEqual(there.trusts(str(host)), same)
        if network.version == 4:
            self.assertTrue(there.trusts(f"::ffff:{network}"))


class OurselvesTests(SynchronousTestCase):
    def is_ourselves(self, near: str, far: str, *listening: str, port: int = 110) -> bool:
        there = cluster()
        for host in listening:
            there.listens_on(end(host))
        return there.is_ourselves(end(near, 49152), end(far, port))

    def test_our_own_port_is_ourselves(self) -> None:
        for host in ("10.0.0.1", "127.0.0.1", "::1", "2001:db8::1"):
            self.assertTrue(self.is_ourselves(host, host, host))
            self.assertTrue(self.is_ourselves(host, host, "192.0.2.1", host))

    def test_our_own_port_is_ourselves_from_wherever_we_connect(self) -> None:
        self.assertTrue(self.is_ourselves("10.0.0.1", "10.0.0.2", "10.0.0.2"))
        self.assertTrue(self.is_ourselves("127.0.0.1", "127.0.0.2", "127.0.0.2"))

    def test_another_port_or_another_address_is_not(self) -> None:
        self.assertFalse(self.is_ourselves("10.0.0.1", "10.0.0.1", "10.0.0.1", port=111))
        self.assertFalse(self.is_ourselves("10.0.0.1", "10.0.0.1", "0.0.0.0", port=111))
        self.assertFalse(self.is_ourselves("10.0.0.1", "10.0.0.1", "10.0.0.2"))
        self.assertFalse(self.is_ourselves("127.0.0.1", "127.0.0.2", "127.0.0.1"))
        self.assertFalse(self.is_ourselves("10.0.0.1", "10.0.0.1"))

    def test_a_port_on_all_addresses_is_ourselves_on_each_of_this_host(self) -> None:
        for wildcard in ("0.0.0.0", "::"):
            for near, far in (
                ("10.0.0.1", "10.0.0.1"),
                ("127.0.0.1", "127.0.0.1"),
                ("127.0.0.1", "127.0.0.2"),
            ):
                self.assertTrue(self.is_ourselves(near, far, wildcard))
            self.assertFalse(self.is_ourselves("10.0.0.1", "10.0.0.2", wildcard))
        for host in ("::1", "2001:db8::1", "fe80::1%eth0"):
            self.assertTrue(self.is_ourselves(host, host, "::"))
            self.assertFalse(self.is_ourselves(host, host, "0.0.0.0"))
        self.assertFalse(self.is_ourselves("2001:db8::1", "2001:db8::2", "::"))

    def test_a_connection_to_no_address_leads_back(self) -> None:
        self.assertTrue(self.is_ourselves("127.0.0.1", "0.0.0.0", "0.0.0.0"))
        self.assertTrue(self.is_ourselves("127.0.0.1", "0.0.0.0", "127.0.0.1"))
        self.assertTrue(self.is_ourselves("::1", "::", "::"))
        self.assertTrue(self.is_ourselves("::1", "::", "::1"))
        self.assertFalse(self.is_ourselves("127.0.0.1", "0.0.0.0", "10.0.0.1"))

    def test_mapped_addresses_are_those_that_they_stand_for(self) -> None:
        self.assertTrue(self.is_ourselves("::ffff:10.0.0.1", "10.0.0.1", "0.0.0.0"))
        self.assertTrue(self.is_ourselves("10.0.0.1", "::ffff:10.0.0.1", "::"))
        self.assertTrue(self.is_ourselves("10.0.0.2", "::ffff:10.0.0.1", "10.0.0.1"))
        self.assertTrue(self.is_ourselves("10.0.0.2", "10.0.0.1", "::ffff:10.0.0.1"))

    def test_other_kinds_of_connections_lead_elsewhere(self) -> None:
        there = cluster()
        socket, here = UNIXAddress("/run/pop3.socket"), end("127.0.0.1")
        there.listens_on(socket)
        there.listens_on(here)
        self.assertTrue(there.is_ourselves(here, here))
        self.assertFalse(there.is_ourselves(socket, here))
        self.assertFalse(there.is_ourselves(here, socket))
        self.assertFalse(there.is_ourselves(here, end("localhost")))

    @given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
    def test_no_text_in_an_address_is_a_fault(self, near: str, far: str, listening: str) -> None:
        self.assertIn(self.is_ourselves(near, far, listening), (True, False))
