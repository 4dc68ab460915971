"""What is in a file with certificates and a key, and what is wrong with it."""

from __future__ import annotations

import time

from cryptography.hazmat.primitives.serialization import PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.tls.pem import BadCertificate, parse_chain
from tests.tls.support import DAY, NOW, PASSPHRASE, Identity, identity

AUTHORITY = identity(number=9, common_name="an authority")
HOST = identity("pop.example.org")


def doubts(*chain: Identity) -> list[str]:
    pem = b"".join(each.pem for each in chain)
    return list(parse_chain(pem, chain[0].key).doubts(NOW))


class ParsingTests(SynchronousTestCase):
    def assert_bad(self, problem: str, certificates: bytes, key: bytes) -> None:
        with self.assertRaisesRegex(BadCertificate, problem) as caught:
            parse_chain(certificates, key)
        body = key.split(b"-----\n")[1:2]
        for line in filter(None, body[0].splitlines() if body else []):
            self.assertNotIn(line.decode("ascii", "replace"), str(caught.exception))

    def test_the_key_may_be_before_between_and_behind_the_certificates(self) -> None:
        host = identity("pop.example.org", issuer=AUTHORITY)
        for content in (
            host.key + host.pem + AUTHORITY.pem,
            host.pem + host.key + AUTHORITY.pem,
            host.pem + AUTHORITY.pem + host.key,
        ):
            chain = parse_chain(content, content)
            self.assertEqual(chain.certificates, (host.certificate, AUTHORITY.certificate))

    def test_all_usual_forms_of_keys_are_read(self) -> None:
        for kind, form in (
            ("ec", PrivateFormat.PKCS8),
            ("ec", PrivateFormat.TraditionalOpenSSL),
            ("rsa", PrivateFormat.PKCS8),
            ("rsa", PrivateFormat.TraditionalOpenSSL),
            ("ed25519", PrivateFormat.PKCS8),
        ):
            host = identity("pop.example.org", kind=kind)
            chain = parse_chain(host.pem, host.key_as(form))
            self.assertEqual(chain.key.public_key(), host.private.public_key())

    def test_text_parameters_and_line_ends_of_others_do_not_matter(self) -> None:
        host = identity("pop.example.org")
        content = (
            b"subject=CN = pop.example.org\n-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n"
            b"-----END EC PARAMETERS-----\n" + host.both + b"\nthe end, without a newline"
        )
        for text in (content, content.replace(b"\n", b"\r\n"), host.both.rstrip(b"\n")):
            self.assertEqual(parse_chain(text, text).names, ("pop.example.org",))

    def test_a_block_that_nothing_ends_is_none_and_is_found_to_be_so_at_once(self) -> None:
        # Of 40 such lines an expression that backtracks would make a work of hours.
        for line in (b"\n", b" \n", b"\r\n", b"MII\n", b"\n \n"):
            content = b"-----BEGIN CERTIFICATE-----\n" + line * 10_000
            begun = time.monotonic()
            with self.assertRaisesRegex(BadCertificate, "no certificate"):
                parse_chain(content, content)
            self.assertLess(time.monotonic() - begun, 5)

    def test_names_are_in_small_letters(self) -> None:
        host = identity("POP.Example.org", "*.Example.org", "192.0.2.1", "2001:db8::1")
        self.assertEqual(
            parse_chain(host.pem, host.key).names,
            ("pop.example.org", "*.example.org", "192.0.2.1", "2001:db8::1"),
        )

    def test_a_key_that_nobody_can_decrypt_is_not_asked_for(self) -> None:
        host = identity("pop.example.org")
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
            self.assert_bad("encrypted", host.pem, host.key_as(form, PASSPHRASE))

    def test_the_key_of_another_is_not_taken(self) -> None:
        host, other = identity("pop.example.org"), identity("other.example.org", number=1)
        self.assert_bad("not that of the first", host.pem, other.key)
        self.assert_bad("not that of the first", AUTHORITY.pem + host.pem, host.key)
        self.assert_bad("not that of the first", host.pem, identity(kind="rsa").key)

    def test_one_key_is_wanted_neither_none_nor_two(self) -> None:
        host = identity("pop.example.org")
        self.assert_bad("there are 0", host.pem, host.pem)
        self.assert_bad("there are 2", host.pem, host.key + identity(kind="rsa").key)
        # Half of it was written.
        self.assert_bad("there are 0", host.pem, host.key[:-20])

    def test_a_file_without_a_certificate_is_none(self) -> None:
        host = identity("pop.example.org")
        for content in (b"", host.key, host.pem[:-20], b"\0" * 1000):
            self.assert_bad("no certificate in PEM", content, host.key)

    def test_a_damaged_certificate_or_key_is_told_by_its_number(self) -> None:
        host = identity("pop.example.org")
        nothing = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        self.assert_bad("number 2", host.pem + nothing, host.key)
        damaged = b"-----BEGIN PRIVATE KEY-----\nMIGHAgEA\n-----END PRIVATE KEY-----\n"
        self.assert_bad("private key in it is none", host.pem, damaged)

    def test_a_key_that_tls_has_no_use_for_is_told(self) -> None:
        host = identity("pop.example.org", kind="dsa")
        self.assert_bad("neither RSA nor", host.pem, host.key)

    def test_a_key_is_in_no_repr(self) -> None:
        host = identity("pop.example.org")
        self.assertNotIn("rivate", repr(parse_chain(host.pem, host.key)))

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def test_anything_in_a_file_is_a_chain_or_no_certificate(self, data: st.DataObject) -> None:
        content = bytearray(HOST.both)
        for _ in range(data.draw(st.integers(0, 5))):
            at = data.draw(st.integers(0, 1000))
            content[at : at + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=20))
        try:
            parse_chain(bytes(content), bytes(content))
        except BadCertificate as error:
            self.assertTrue(str(error))


class DoubtTests(SynchronousTestCase):
    def test_a_good_one_leaves_none(self) -> None:
        self.assertEqual(doubts(identity("pop.example.org", issuer=AUTHORITY), AUTHORITY), [])

    def test_one_that_has_expired_is_told_with_the_day(self) -> None:
        old = identity("pop.example.org", start=NOW - 3 * DAY, end=NOW - DAY)
        self.assertEqual(doubts(old), ["it has expired on 2030-04-30"])

    def test_one_of_tomorrow_is_told(self) -> None:
        new = identity("pop.example.org", start=NOW + DAY)
        self.assertEqual(doubts(new), ["it is not valid before 2030-05-02"])

    def test_one_above_that_has_expired_is_told_by_its_number(self) -> None:
        above = identity(number=9, start=NOW - 3 * DAY, end=NOW - DAY)
        host = identity("pop.example.org", issuer=above)
        self.assertEqual(
            doubts(host, above), ["the certificate number 2 in it has expired on 2030-04-30"]
        )

    def test_one_for_no_host_is_told(self) -> None:
        (doubt,) = doubts(identity(common_name="pop.example.org"))
        self.assertIn("for no host", doubt)

    def test_a_chain_in_another_order_is_told(self) -> None:
        middle = identity(number=8, issuer=AUTHORITY, common_name="between")
        host = identity("pop.example.org", issuer=middle)
        self.assertEqual(doubts(host, middle, AUTHORITY), [])
        first, second = doubts(host, AUTHORITY, middle)
        self.assertIn("number 2 in it is not that of the issuer", first)
        self.assertIn("number 3 in it is not that of the issuer", second)
