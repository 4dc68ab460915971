"""PROXY headers: which are taken, and what they say."""

from __future__ import annotations

import struct

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.haproxy import BadHeader, Header, parse_header
from qmailldap.haproxy.header import LONGEST

from .support import PREFIX, tlv, v2, v2_tcp4, v2_tcp6

V1 = b"PROXY TCP4 192.0.2.1 192.0.2.110 4711 110\r\n"
SPOKE_TLS = tlv(0x20, b"\1\0\0\0\0" + tlv(0x21, b"TLSv1.3"))
GOOD = [
    V1,
    b"PROXY TCP6 2001:db8::1 2001:db8::110 4711 110\r\n",
    b"PROXY UNKNOWN\r\n",
    b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
    v2_tcp4("192.0.2.1"),
    v2_tcp6("2001:db8::1", tlvs=SPOKE_TLS),
    v2(0x20, 0, b""),
    v2(0x21, 0, b""),
]


def parse(octets: bytes) -> Header:
    found = parse_header(octets)
    assert found is not None, octets
    return found[0]


class HeaderTestCase(SynchronousTestCase):
    def assert_bad(self, octets: bytes, problem: str = "") -> None:
        with self.assertRaises(BadHeader, msg=repr(octets)) as caught:
            parse_header(octets)
        self.assertIn(problem, str(caught.exception))


class Version1Tests(HeaderTestCase):
    def test_it_names_both_ends(self) -> None:
        self.assertEqual(
            parse(V1),
            Header(IPv4Address("TCP", "192.0.2.1", 4711), IPv4Address("TCP", "192.0.2.110", 110)),
        )
        self.assertEqual(
            parse(b"PROXY TCP6 2001:DB8:0::1 2001:db8::110 0 65535\r\n"),
            Header(
                IPv6Address("TCP", "2001:db8::1", 0), IPv6Address("TCP", "2001:db8::110", 65535)
            ),
        )

    def test_an_ipv4_mapped_client_is_one_of_ipv4(self) -> None:
        header = parse(b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.110 4711 110\r\n")
        self.assertEqual(header.source, IPv4Address("TCP", "192.0.2.1", 4711))

    def test_of_an_unknown_client_nothing_is_said(self) -> None:
        for line in (b"PROXY UNKNOWN", b"PROXY UNKNOWN ", b"PROXY UNKNOWN 1 2 3 4 anything"):
            self.assertEqual(parse(line + b"\r\n"), Header())

    def test_what_follows_the_line_is_not_of_it(self) -> None:
        self.assertEqual(parse_header(V1 + b"CAPA\r\n"), (parse(V1), len(V1)))

    def test_other_lines_are_refused(self) -> None:
        for line in (
            b"PROXY ",
            b"PROXY TCP4",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 ",
            b"PROXY  TCP4 192.0.2.1 192.0.2.2 1 2",
            b"PROXY TCP4 192.0.2.1 192.0.2.2  1 2",
            b"PROXY tcp4 192.0.2.1 192.0.2.2 1 2",
            b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2",
            b"PROXY UNKNOWNX",
            b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2",
            b"PROXY TCP4 192.0.2.1 192.0.2 1 2",
            b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2",
            b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2",
            b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2",
            b"PROXY TCP6 fe80::1%eth0 fe80::2 1 2",
            b"PROXY TCP6 ::1::2 ::1 1 2",
            b"PROXY TCP6 : : 1 2",
            b"PROXY TCP4 mail.example.org 192.0.2.2 1 2",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 2",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1_0 2",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 \xd9\xa1 2",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 \xff",
            b"PROXY TCP4 192.0.2.1\n 192.0.2.2 1 2",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
            b"PROXY TCP4 0.0.0.0 192.0.2.2 1 2",
            b"PROXY TCP4 224.0.0.1 192.0.2.2 1 2",
            b"PROXY TCP6 :: ::1 1 2",
        ):
            self.assert_bad(line + b"\r\n")

    def test_a_line_has_107_octets_at_most(self) -> None:
        longest = b"PROXY UNKNOWN ".ljust(105, b"x") + b"\r\n"
        self.assertEqual(parse_header(longest), (Header(), 107))
        self.assert_bad(b"PROXY UNKNOWN ".ljust(106, b"x") + b"\r\n", "107")
        self.assertIsNone(parse_header(longest[:106]))
        self.assert_bad(b"PROXY UNKNOWN ".ljust(107, b"x"), "107")


class Version2Tests(HeaderTestCase):
    def test_it_names_both_ends(self) -> None:
        self.assertEqual(
            parse(v2_tcp4("192.0.2.1")),
            Header(IPv4Address("TCP", "192.0.2.1", 4711), IPv4Address("TCP", "192.0.2.110", 110)),
        )
        self.assertEqual(
            parse(v2_tcp6("2001:db8::1")),
            Header(
                IPv6Address("TCP", "2001:db8::1", 4711), IPv6Address("TCP", "2001:db8::110", 110)
            ),
        )

    def test_an_ipv4_mapped_client_is_one_of_ipv4(self) -> None:
        header = parse(v2_tcp6("::ffff:192.0.2.1"))
        self.assertEqual(header.source, IPv4Address("TCP", "192.0.2.1", 4711))

    def test_a_check_of_the_proxy_itself_says_nothing(self) -> None:
        for content in (b"", b"\0" * 12, b"whatever"):
            for transport in (0x00, 0x11, 0x21, 0xFF):
                self.assertEqual(parse(v2(0x20, transport, content)), Header())

    def test_a_client_of_no_known_address_is_the_proxy(self) -> None:
        self.assertEqual(parse(v2(0x21, 0x00, SPOKE_TLS)), Header())
        self.assertEqual(parse(v2(0x21, 0x31, b"/run/socket".ljust(216, b"\0"))), Header())

    def test_it_says_whether_the_client_spoke_tls(self) -> None:
        for tlvs, spoke in (
            (b"", False),
            (SPOKE_TLS, True),
            (tlv(0x20, b"\0\0\0\0\0"), False),
            (tlv(0x20, b"\6\0\0\0\1"), False),
            (tlv(0x20, b"\7\0\0\0\1"), True),
            (tlv(0x21, b"\1\0\0\0\0"), False),
            (tlv(0x04, b"") + tlv(0x01, b"pop3") + SPOKE_TLS, True),
            (SPOKE_TLS + tlv(0x03, b"crc!"), True),
        ):
            self.assertIs(parse(v2_tcp4("192.0.2.1", tlvs=tlvs)).client_spoke_tls, spoke, tlvs)

    def test_malformed_additions_are_refused(self) -> None:
        for tlvs in (b"\4", b"\4\0", b"\4\0\1", SPOKE_TLS[:-1], tlv(0x20, b""), tlv(0x20, b"\1")):
            self.assert_bad(v2_tcp4("192.0.2.1", tlvs=tlvs), "malformed TLV")

    def test_other_commands_and_versions_are_refused(self) -> None:
        for command in (0x00, 0x01, 0x10, 0x11, 0x22, 0x2F, 0x31):
            self.assert_bad(v2(command, 0x11, b"\1" * 12), f"0x{command:02x}")

    def test_other_transports_are_refused(self) -> None:
        for transport in (0x01, 0x10, 0x12, 0x13, 0x20, 0x22, 0x30, 0x32, 0x41):
            self.assert_bad(v2(0x21, transport, b"\1" * 216), f"0x{transport:02x}")

    def test_addresses_that_are_cut_off_are_refused(self) -> None:
        self.assert_bad(v2(0x21, 0x11, b"\1" * 11), "11 octets")
        self.assert_bad(v2(0x21, 0x21, b"\1" * 35), "35 octets")

    def test_nobody_comes_from_nowhere(self) -> None:
        self.assert_bad(v2_tcp4("0.0.0.0"))
        self.assert_bad(v2_tcp4("239.0.0.1"))
        self.assert_bad(v2_tcp6("::"))
        self.assert_bad(v2_tcp6("ff02::1"))

    def test_a_header_of_no_end_is_refused_before_it_comes(self) -> None:
        for length in (LONGEST - 15, 0xFFFF):
            self.assert_bad(PREFIX + struct.pack("!BBH", 0x21, 0x11, length), str(length + 16))
        self.assertEqual(
            parse(v2_tcp4("192.0.2.1", tlvs=tlv(0x04, bytes(LONGEST - 16 - 12 - 3)))).source,
            IPv4Address("TCP", "192.0.2.1", 4711),
        )


class AnyOctetsTests(HeaderTestCase):
    def test_what_is_no_header_is_refused_at_the_first_octet_that_tells(self) -> None:
        for octets in (b"C", b"PX", b"PROXY\t", b"\r\n\r\n\0\r\nQUIT\r", b"\x16", b"\0"):
            self.assert_bad(octets, "something else")
            self.assertIsNone(parse_header(octets[:-1]))

    def test_a_header_is_the_same_however_it_comes(self) -> None:
        for header in GOOD:
            for end in range(len(header)):
                self.assertIsNone(parse_header(header[:end]), header[:end])
            self.assertEqual(parse_header(header), parse_header(header + b"more"))
            self.assertEqual(parse_header(header), (parse(header), len(header)))

    @given(
        st.one_of(
            st.binary(),
            st.binary().map(lambda octets: b"PROXY " + octets),
            st.builds(
                v2,
                st.one_of(st.just(0x21), st.integers(0, 255)),
                st.one_of(st.sampled_from([0, 0x11, 0x21, 0x31]), st.integers(0, 255)),
                st.binary(),
            ),
            st.builds(v2_tcp4, st.just("192.0.2.1"), st.just(1), st.binary()),
        ),
        st.binary(),
    )
    @example(V1, b"")
    def test_it_is_a_header_or_it_is_none(self, octets: bytes, more: bytes) -> None:
        try:
            found = parse_header(octets)
        except BadHeader as error:
            self.assertTrue(str(error).isprintable())
            # What is bad does not become good by what comes behind.
            self.assert_bad(octets + more)
        else:
            if found is None:
                self.assertLess(len(octets), LONGEST)
            else:
                self.assertLessEqual(found[1], len(octets))
                self.assertEqual(parse_header(octets + more), found)
