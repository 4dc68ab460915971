"""Which values are a password in clear text, and that no hash is ever one."""

from __future__ import annotations

import base64
import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap import crypt3
from qmailldap.passwords import MalformedHash, clear_text, parse_password, why_no_match
from qmailldap.passwords.making import TYPES
from qmailldap.passwords.settings import ALPHABET
from tests.test_passwords import CRYPT_VALUES, MARK, OTHER_VALUES, PREFIXES

SETTINGS = (b"%s", b"_4...%s", b"$1$%s$", b"$3$$%s", b"$5$rounds=1000$%s$", b"$sha1$4$%s$")
DIGESTS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")

salts = st.text(ALPHABET, min_size=2, max_size=8).map(str.encode)
passwords = st.binary(min_size=1, max_size=40).filter(lambda octets: 0 not in octets)


def opens(value: bytes, password: bytes) -> bool:
    """Whether the password is that of the value, where the site has asked for clear text."""
    try:
        return parse_password(value, cleartext=True).verify(password)
    except MalformedHash:
        return False


class PasswordTests(SynchronousTestCase):
    """Values that are a password."""

    def test_behind_its_scheme_it_is_whatever_it_is(self) -> None:
        for text in (b"secret", b"x", b"*", CRYPT_VALUES[0], b"{SSHA}x", b" a b ", b"\xff"):
            for scheme in (b"{PLAIN}", b"{cleartext}", b"{Clear}"):
                self.assertEqual(clear_text(scheme + text), text)
                self.assertTrue(opens(scheme + text, text))

    def test_without_a_scheme_it_is_what_no_hash_looks_like(self) -> None:
        for value in (
            b"secret",
            b"Summer2024",
            b"a",
            b"correct horse battery staple",
            b"correct-horse-battery",
            b"gr\xc3\xbc\xc3\x9fe aus K\xc3\xb6ln",
            b"pa$$w0rd",
            b"deadbeef",
            b"_short",
            b" blanks count ",
        ):
            self.assertEqual(clear_text(value), value)
            self.assertTrue(opens(value, value), value)
            self.assertFalse(opens(value, value + b"x"))
            self.assertFalse(opens(value, value.swapcase()))
            self.assertEqual(why_no_match(value, cleartext=True), "")

    def test_none_is_one_unless_asked_for(self) -> None:
        for value in (b"secret", b"{CLEARTEXT}secret", b"correct horse battery staple"):
            self.assertFalse(parse_password(value).verify(b"secret"))
            self.assertFalse(parse_password(value).verify(value))
            self.assertNotEqual(why_no_match(value), "")


class HashTests(SynchronousTestCase):
    """Values that are a hash, or may be one: whoever has read it must not get in by it."""

    def assert_is_not_its_own_password(self, value: bytes) -> None:
        self.assertIsNone(clear_text(value), value)
        self.assertFalse(opens(value, value), value)

    def test_no_hash_of_other_tools(self) -> None:
        for value in CRYPT_VALUES:
            self.assert_is_not_its_own_password(value)
            self.assert_is_not_its_own_password(b"{CRYPT}" + value)
            # Locked, and with what was read or copied along with it.
            for around in (b"!%s", b"*%s", b" %s ", b"%s\n", b"%s\0rest", b"{%s", b"{UNKNOWN}%s"):
                self.assert_is_not_its_own_password(around % value)
        for value in OTHER_VALUES:
            self.assert_is_not_its_own_password(value)

    def test_no_hash_of_our_own_with_or_without_its_scheme(self) -> None:
        for each in TYPES.values():
            rounds = None if each.rounds is None else each.rounds.least
            value = each.make(b"secret", rounds=rounds)
            self.assert_is_not_its_own_password(value)
            self.assert_is_not_its_own_password(value.split(b"}", 1)[-1])

    @settings(max_examples=200)
    @given(st.sampled_from(SETTINGS), salts, passwords)
    def test_nothing_that_the_library_gives(
        self, form: bytes, salt: bytes, password: bytes
    ) -> None:
        value = crypt3.crypt(password, form % salt)
        if value is not None:
            self.assert_is_not_its_own_password(value)
            self.assertTrue(opens(value, password))

    @settings(max_examples=200)
    @given(st.sampled_from(DIGESTS), passwords, st.binary(max_size=16))
    def test_no_digest_that_has_lost_its_scheme(
        self, name: str, password: bytes, salt: bytes
    ) -> None:
        digest = hashlib.new(name, password + salt)
        for value in (
            digest.hexdigest().encode("ascii"),
            digest.hexdigest().upper().encode("ascii"),
            digest.hexdigest()[:16].encode("ascii"),
            base64.b64encode(digest.digest() + salt),
            base64.b64encode(digest.digest()).rstrip(b"="),
            b"sha1$%s$%s" % (salt.hex().encode(), digest.hexdigest().encode("ascii")),
        ):
            self.assert_is_not_its_own_password(value)

    def test_nothing_that_stands_for_no_password(self) -> None:
        for value in (b"", b"x", b"*", b"!", b"!!", b"*0", b"*LK*", b" ", b"{CLEARTEXT}", b"{}x"):
            self.assert_is_not_its_own_password(value)
            self.assertFalse(opens(value, b""))

    def test_what_may_be_a_hash_says_how_it_would_be_clear_text(self) -> None:
        self.assertEqual(
            why_no_match(b"correcthorsebatterystaple", cleartext=True),
            "it has no {SCHEME} and is nothing that crypt(3) gives:"
            " clear text that lacks {CLEARTEXT}?",
        )
        self.assertEqual(
            why_no_match(b"{CRYPT}secret", cleartext=True),
            "{CRYPT} value: it is nothing that crypt(3) gives: clear text?",
        )


class AnyValueTests(SynchronousTestCase):
    """Whatever a record holds and a client sends."""

    @settings(max_examples=500)
    @given(prefix=PREFIXES, text=st.binary(max_size=60), password=st.binary(max_size=20))
    def test_what_is_clear_text_is_right_with_itself_alone(
        self, prefix: bytes, text: bytes, password: bytes
    ) -> None:
        value = prefix + text
        stored = clear_text(value)
        if stored is not None:
            self.assertTrue(stored)
            self.assertTrue(value.endswith(stored))
            self.assertTrue(opens(value, stored))
            self.assertEqual(opens(value, password), password == stored)
            self.assertEqual(why_no_match(value, cleartext=True), "")

    @settings(max_examples=500)
    @given(prefix=PREFIXES, text=st.binary(max_size=60), password=st.binary(max_size=20))
    def test_what_is_not_is_judged_as_where_clear_text_is_not_asked_for(
        self, prefix: bytes, text: bytes, password: bytes
    ) -> None:
        value = prefix + text
        if clear_text(value) is not None:
            return
        try:
            stored = parse_password(value)
        except MalformedHash:
            self.assertRaises(MalformedHash, parse_password, value, cleartext=True)
            return
        asked = parse_password(value, cleartext=True)
        self.assertEqual((asked.scheme, asked.cost), (stored.scheme, stored.cost))
        self.assertEqual(asked.verify(password), stored.verify(password))
        self.assertFalse(asked.verify(value))

    @settings(max_examples=300)
    @given(prefix=PREFIXES, before=st.binary(max_size=30), after=st.binary(max_size=80))
    def test_nothing_of_it_is_told(self, prefix: bytes, before: bytes, after: bytes) -> None:
        value = prefix + before + MARK + after.replace(b"}", b"")
        mark = MARK.decode("ascii")
        self.assertNotIn(mark, why_no_match(value, cleartext=True))
        try:
            shown = repr(parse_password(value, cleartext=True))
        except MalformedHash as error:
            shown = repr(error)
        self.assertNotIn(mark, shown)
