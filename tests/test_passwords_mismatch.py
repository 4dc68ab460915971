"""Why no password matches a value, in words; and that none is accused that has a password."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap import crypt3
from qmailldap.passwords import MalformedHash, parse_password, why_no_match
from qmailldap.passwords.making import TYPES
from qmailldap.passwords.settings import ALPHABET
from tests.test_passwords import CRYPT_VALUES, MARK, OTHER_VALUES, PREFIXES, host_has_it

LOCKED = "it is locked by ! or *"
NO_SCHEME = "it has no {SCHEME} and is nothing that crypt(3) gives: clear text?"

salts = st.text(ALPHABET, min_size=2, max_size=8).map(str.encode)
passwords = st.binary(min_size=1, max_size=40).filter(lambda octets: 0 not in octets)


class ValuesWithPasswordsTests(SynchronousTestCase):
    """Of these nothing must be said."""

    def test_values_of_other_tools(self) -> None:
        for value in (*CRYPT_VALUES, *(b"{CRYPT}" + value for value in CRYPT_VALUES)):
            self.assertEqual(why_no_match(value), "", value)
        for value in filter(host_has_it, OTHER_VALUES):
            self.assertEqual(why_no_match(value), "", value)

    def test_our_own(self) -> None:
        for each in TYPES.values():
            rounds = None if each.rounds is None else each.rounds.least
            self.assertEqual(why_no_match(each.make(b"secret", rounds=rounds)), "", each.name)

    @settings(max_examples=200)
    @given(
        st.sampled_from((b"%s", b"_4...%s", b"$1$%s$", b"$3$$%s", b"$5$rounds=1000$%s$")),
        salts,
        passwords,
    )
    def test_whatever_the_library_gives(self, form: bytes, salt: bytes, password: bytes) -> None:
        value = crypt3.crypt(password, form % salt)
        if value is not None:
            self.assertEqual(why_no_match(value), "")

    def test_what_des_gives_for_passwords_that_are_longer_than_it_looks_at(self) -> None:
        value = crypt3.crypt(b"a long password", b"abNANd1rDfiNcNANd1rDfiNc")
        assert value is not None
        self.assertEqual(why_no_match(value), "")


class ValuesWithoutTests(SynchronousTestCase):
    def test_each_has_its_reason(self) -> None:
        for value, why in (
            (b"", "it is empty"),
            (b"*", LOCKED),
            (b"!", LOCKED),
            (b"{crypt}!" + CRYPT_VALUES[0], LOCKED),
            (b"{CRYPT}x", "it is x, which stands for a value elsewhere"),
            (b"{CRYPT}", "{CRYPT} is followed by nothing"),
            (b"{PLAIN}secret", "{PLAIN} is clear text, which needs the control file ldapcleartext"),
            (b"{Clear}secret", "{Clear} is clear text, which needs the control file ldapcleartext"),
            (b"{SASL}joe@example.org", "{SASL} is a scheme that is not known here"),
            (b"secret", NO_SCHEME),
            (b"a", NO_SCHEME),
            (b"\xff\xfe", NO_SCHEME),
            (b"{}secret", NO_SCHEME),
            (b"{CRYPT}secret", "{CRYPT} value: it is nothing that crypt(3) gives: clear text?"),
            (b"abNANd1rDfiNc ", NO_SCHEME),
            (b"abNANd1rDfiNd", NO_SCHEME),
            (
                b"$6$saltsalt$cut",
                "it has no {SCHEME} and is not whole, for crypt(3): cut off?",
            ),
            (
                b"{CRYPT}$9$salt$",
                "{CRYPT} value: it is of no format of crypt(3) that is known here: clear text?",
            ),
            (
                b"{MD5}5ebe2294ecd0e0f08eab7690d2a6ee69",
                "{MD5} value: it is not 16 octets in base64",
            ),
            (
                b"{NS-MTA-MD5}" + b"A" * 64,
                "{NS-MTA-MD5} value: its digest is not hexadecimal in small letters",
            ),
        ):
            self.assertEqual(why_no_match(value), why, value)

    def test_what_is_in_braces_alone_is_not_named(self) -> None:
        for value in (b"{secret}", b"{%s}x" % (b"s" * 25), b"{-secret}x", b"{secret"):
            self.assertEqual(why_no_match(value), NO_SCHEME)

    def test_a_value_that_was_cut_has_no_password(self) -> None:
        for value in CRYPT_VALUES:
            self.assertNotEqual(why_no_match(value[:-1]), "", value)

    @settings(max_examples=500)
    @given(prefix=PREFIXES, text=st.binary(max_size=100), password=st.binary(max_size=20))
    def test_what_takes_no_time_has_a_reason_and_a_reason_is_true(
        self, prefix: bytes, text: bytes, password: bytes
    ) -> None:
        try:
            stored = parse_password(prefix + text)
        except MalformedHash:
            return
        why = why_no_match(prefix + text)
        if stored.takes_no_time:
            self.assertNotEqual(why, "")
        if why:
            self.assertFalse(stored.verify(password) or stored.verify(text))

    @settings(max_examples=500)
    @given(prefix=PREFIXES, before=st.binary(max_size=30), after=st.binary(max_size=80))
    def test_nothing_of_a_value_is_told(self, prefix: bytes, before: bytes, after: bytes) -> None:
        after = after.replace(b"}", b"")  # with which it would be the name of a scheme
        why = why_no_match(prefix + before + MARK + after)
        self.assertNotIn(MARK.decode("ascii"), why)
        self.assertTrue(all(" " <= each <= "~" for each in why))
