"""Addresses by what they can be compared by."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.ip import parse_ip


class ParserTests(SynchronousTestCase):
    def test_an_address_is_one_however_it_is_written(self) -> None:
        for text, shown in (
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("::ffff:192.0.2.7%eth0", "192.0.2.7"),
        ):
            self.assertEqual(str(parse_ip(text)), shown)

    def test_other_texts_are_none(self) -> None:
        for text in ("", "localhost", "192.0.2", "192.0.2.7%eth0", "[::1]", "1.2.3.4:5", "::1%"):
            self.assertIsNone(parse_ip(text), text)

    @given(st.ip_addresses())
    def test_every_address_is_read(self, address: ipaddress.IPv4Address) -> None:
        found = parse_ip(str(address))
        mapped = getattr(address, "ipv4_mapped", None)
        self.assertEqual(found, mapped or address)

    @given(st.text())
    def test_no_text_is_an_error(self, text: str) -> None:
        parse_ip(text)
