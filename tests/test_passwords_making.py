"""Password values made here, which the server must verify."""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode

from argon2.low_level import Type, hash_secret
from hypothesis import given, settings
from hypothesis import strategies as st
from passlib.hash import ldap_pbkdf2_sha1, ldap_pbkdf2_sha256, ldap_pbkdf2_sha512
from twisted.trial.unittest import SynchronousTestCase

from qmailldap import crypt3
from qmailldap.passwords import crypted, derived, making, parse_password
from qmailldap.passwords.making import (
    BCRYPT_FORMAT,
    BCRYPT_MOST,
    DEFAULT_TYPE,
    MD5_FORMAT,
    ORIGINAL_TYPES,
    TYPES,
    NotMade,
    PasswordType,
    crypt_type,
)

USUAL_MEMORY = derived.ARGON2_MEMORY
SALT = b"0123456789abcdefgh"
FORMATS = (
    MD5_FORMAT,
    BCRYPT_FORMAT,
    "$2b$05$XXXXXXXXXXXXXXXXXXXXXX",
    "$5$XXXXXXXXXXXX$",
    "$6$rounds=1000$XXXX",
    "$6$abXXXX$",
    "_J9..XXXX",
    "$y$j75$XXXXXXXXXXXXXXXXXXXXXX",
    "$sha1$1000$XXXXXXXX$",
    "$md5,rounds=34$XXXXXXXX$",
)
MARK = b"Zq7xZq7xZq7xZq7x"

passwords = st.binary(max_size=BCRYPT_MOST).map(lambda octets: octets.replace(b"\0", b""))


def cheap(each: PasswordType, password: bytes, salt: bytes | None = None) -> bytes:
    """A value of the least cost."""
    return each.make(password, salt=salt, rounds=each.rounds.least if each.rounds else None)


class MakingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(derived, "ARGON2_MEMORY", 64)

    def compute_nothing(self) -> None:
        """Have the costly functions give some octets at once."""
        self.patch(crypted, "crypt", lambda password, setting: setting + b"." * 11)
        self.patch(derived.hashlib, "pbkdf2_hmac", lambda *_: bytes(64))  # type: ignore[attr-defined]
        self.patch(derived, "hash_secret_raw", lambda *_, **__: bytes(32))

    def assert_verifies(self, value: bytes, password: bytes) -> None:
        stored = parse_password(value)
        self.assertTrue(stored.verify(password), value)
        # In a bit of the first octet, as some types look at no more than 7 bits of 8 octets.
        wrong = bytes([(password or b"\0")[0] ^ 1]) + password[1:]
        self.assertFalse(stored.verify(wrong), value)

    @settings(max_examples=25, deadline=None)
    @given(password=passwords)
    def test_every_value_is_verified(self, password: bytes) -> None:
        for each in TYPES.values():
            self.assert_verifies(cheap(each, password), password)

    @settings(max_examples=25, deadline=None)
    @given(password=passwords, salt=st.binary(min_size=18, max_size=40))
    def test_every_value_with_a_given_salt_is_verified_and_made_again(
        self, password: bytes, salt: bytes
    ) -> None:
        for each in TYPES.values():
            value = cheap(each, password, salt)
            self.assert_verifies(value, password)
            self.assertEqual(cheap(each, password, salt), value)

    @settings(max_examples=15, deadline=None)
    @given(password=passwords, salt=st.none() | st.binary(min_size=18, max_size=18))
    def test_every_value_of_a_format_is_verified(self, password: bytes, salt: bytes | None) -> None:
        for format in FORMATS:
            value = crypt_type(format).make(password, salt=salt)
            self.assertTrue(value.startswith(b"{CRYPT}" + format.encode().split(b"X")[0]), value)
            self.assert_verifies(value, password)

    @settings(max_examples=200, deadline=None)
    @given(
        format=st.text(st.sampled_from("$_X./ab01269yjT,=:*!{\n\xff"), max_size=30),
        salt=st.none() | st.binary(max_size=24),
    )
    def test_any_format_is_refused_or_makes_what_is_verified(
        self, format: str, salt: bytes | None
    ) -> None:
        try:
            value = crypt_type(format).make(b"secret", salt=salt)
        except NotMade:
            return
        self.assertTrue(parse_password(value).verify(b"secret"), value)
        self.assertRegex(value, rb"\A[!-~]+\Z")

    def test_long_passwords_are_whole_but_for_bcrypt_and_des(self) -> None:
        password = b"s" * 511
        for name, each in TYPES.items():
            if name in ("bcrypt", "crypt"):
                continue
            stored = parse_password(cheap(each, password))
            self.assertTrue(stored.verify(password), name)
            self.assertFalse(stored.verify(password[:-1]), name)

    def test_a_password_that_bcrypt_would_cut_is_refused(self) -> None:
        for each in (TYPES["bcrypt"], crypt_type(BCRYPT_FORMAT)):
            self.assertIn("72", str(self.assertRaises(NotMade, each.make, b"s" * 73)))
            self.assertTrue(parse_password(cheap(each, b"s" * 72)).verify(b"s" * 72))

    def test_what_crypt_does_not_take_is_refused(self) -> None:
        error = self.assertRaises(NotMade, TYPES["yescrypt"].make, b"s" * 512)
        self.assertIn("511", str(error))

    def test_a_nul_is_refused_by_every_type(self) -> None:
        for each in TYPES.values():
            self.assertIn("NUL", str(self.assertRaises(NotMade, each.make, b"a\0b")))

    def test_salts_are_random(self) -> None:
        salted = [each for each in TYPES.values() if "no salt" not in each.remark]
        self.assertEqual(len(TYPES) - len(salted), 4)
        for each in salted:
            # DES has 4096 salts.
            self.assertGreater(len({cheap(each, b"secret") for _ in range(5)}), 2, each.name)

    def test_the_whole_salt_is_random(self) -> None:
        values = [crypt_type("XX").make(b"secret") for _ in range(400)]
        for place in (7, 8):
            self.assertGreater(len({value[place] for value in values}), 48)

    def test_rounds_are_in_the_value_and_within_what_the_server_takes(self) -> None:
        self.compute_nothing()
        for name, written in (
            ("bcrypt", (b"$2b$04$", b"$2b$16$", b"$2b$12$")),
            ("argon2id", (b",t=1,", b",t=64,", b",t=3,")),
            ("pbkdf2", (b"}1000$", b"}2500000$", b"}210000$")),
            ("pbkdf2-sha256", (b"}1000$", b"}2500000$", b"}600000$")),
            ("pbkdf2-sha1", (b"}1000$", b"}2500000$", b"}1300000$")),
            ("sha512-crypt", (b"$rounds=1000$", b"$rounds=2500000$", b"$rounds=200000$")),
            ("sha256-crypt", (b"$rounds=1000$", b"$rounds=2500000$", b"$rounds=200000$")),
            ("yescrypt", (b"$y$j7T$", b"$y$jDT$", b"$y$j9T$")),
        ):
            rounds = TYPES[name].rounds
            assert rounds is not None
            for number, text in zip((rounds.least, rounds.most, None), written, strict=True):
                value = TYPES[name].make(b"secret", rounds=number)
                self.assertIn(text, value)
            for number in (rounds.least - 1, rounds.most + 1, 0, -1):
                error = self.assertRaises(NotMade, TYPES[name].make, b"s", rounds=number)
                self.assertIn(f"{rounds.least} to {rounds.most}", str(error))

    def test_the_dearest_values_are_still_verified(self) -> None:
        self.compute_nothing()
        self.patch(derived, "ARGON2_MEMORY", USUAL_MEMORY)
        for each in TYPES.values():
            if each.rounds is None or each.name.startswith("pbkdf2"):
                continue
            parse_password(each.make(b"secret", rounds=each.rounds.most))

    def test_yescrypts_rounds_are_those_of_crypt_gensalt(self) -> None:
        self.compute_nothing()
        # crypt_gensalt("$y$", N, …) of libxcrypt 4.4.33.
        for rounds, prefix in ((5, b"$y$j9T$"), (3, b"$y$j7T$"), (9, b"$y$jDT$")):
            self.assertIn(prefix, TYPES["yescrypt"].make(b"secret", rounds=rounds))

    def test_a_type_without_rounds_takes_none(self) -> None:
        self.assertIn("rounds", str(self.assertRaises(NotMade, TYPES["ssha"].make, b"s", rounds=5)))

    def test_a_format_beyond_the_servers_limits_is_refused_before_it_runs(self) -> None:
        def run(password: bytes, setting: bytes) -> bytes:
            raise AssertionError("it has run")

        self.patch(crypted, "crypt", run)
        for format in ("$6$rounds=99999999$XXXX", "$2b$31$" + 22 * "X", "$y$jET$" + 22 * "X"):
            error = self.assertRaises(NotMade, crypt_type(format).make, b"secret")
            self.assertIn("more than", str(error))

    def test_a_format_without_a_place_for_the_salt_is_refused(self) -> None:
        for format in ("", "zz", "$1$salt$", "\n", "é"):
            self.assertIn("no X", str(self.assertRaises(NotMade, crypt_type, format)))
        self.assertRaises(NotMade, crypt_type, "XX\n")
        self.assertRaises(NotMade, crypt_type, "é$XX")

    def test_a_salt_that_is_too_short_is_refused(self) -> None:
        for name, salt in (
            ("crypt", b"A"),
            ("bcrypt", bytes(15)),
            ("ssha", b"ABC"),
            ("smd5", b""),
            ("ns-mta-md5", bytes(15)),
            ("pbkdf2", bytes(7)),
            ("argon2id", bytes(7)),
        ):
            error = self.assertRaises(NotMade, TYPES[name].make, b"secret", salt=salt)
            self.assertIn("salt", str(error))

    def test_a_host_whose_crypt_lacks_the_method_is_said_to(self) -> None:
        self.patch(crypted, "crypt", lambda password, setting: None)
        for name in ("bcrypt", "yescrypt", "sha512-crypt", "crypt"):
            error = self.assertRaises(NotMade, TYPES[name].make, b"secret")
            self.assertIn("crypt(3) of this host", str(error))

    def test_a_host_that_lacks_the_digest_is_said_to(self) -> None:
        self.patch(making, "find_digest", lambda algorithm: None)
        for name in ("md4", "rmd160", "ssha", "ns-mta-md5"):
            error = self.assertRaises(NotMade, TYPES[name].make, b"secret")
            self.assertIn(name.upper(), str(error))

    def test_no_error_shows_what_it_is_about(self) -> None:
        mark = MARK.decode()
        self.patch(crypted, "crypt", lambda password, setting: None)
        for each in (TYPES["bcrypt"], crypt_type(f"$1${mark}XX"), crypt_type("$1$XXXX$" + mark)):
            for salt in (None, MARK, MARK[:1]):
                error = self.assertRaises(NotMade, each.make, MARK, salt=salt)
                self.assertNotIn(mark, str(error))

    def test_no_repr_shows_the_value(self) -> None:
        value = TYPES["ssha"].make(b"secret", salt=MARK)
        self.assertIn(MARK, b64decode(value.removeprefix(b"{SSHA}")))
        method = parse_password(value)._method
        for shown in (repr(method), repr(TYPES["ssha"]), repr(crypt_type("$1$XXXX$"))):
            self.assertNotIn(b64encode(MARK).decode()[:8], shown)
            self.assertNotIn(value.decode()[6:], shown)


class LibraryTests(SynchronousTestCase):
    """Against the values of the libraries that others use."""

    def test_digests_are_hashlibs(self) -> None:
        for name, algorithm in (("md5", "md5"), ("sha", "sha1")):
            digest = b64encode(hashlib.new(algorithm, b"secret").digest())
            self.assertEqual(TYPES[name].make(b"secret").partition(b"}")[2], digest)
        for name, algorithm in (
            ("smd5", "md5"),
            ("ssha", "sha1"),
            ("ssha256", "sha256"),
            ("ssha512", "sha512"),
        ):
            digest = b64encode(hashlib.new(algorithm, b"secret" + SALT).digest() + SALT)
            self.assertEqual(
                TYPES[name].make(b"secret", salt=SALT), f"{{{name.upper()}}}".encode() + digest
            )

    def test_pbkdf2_is_passlibs(self) -> None:
        for name, handler in (
            ("pbkdf2", ldap_pbkdf2_sha512),
            ("pbkdf2-sha512", ldap_pbkdf2_sha512),
            ("pbkdf2-sha256", ldap_pbkdf2_sha256),
        ):
            expected = handler.using(rounds=1234, salt=SALT).hash(b"secret")
            value = TYPES[name].make(b"secret", salt=SALT, rounds=1234).decode()
            self.assertEqual(value, expected)
        # passlib calls this one {PBKDF2}; both names are known.
        expected = ldap_pbkdf2_sha1.using(rounds=1234, salt=SALT).hash(b"secret")
        value = TYPES["pbkdf2-sha1"].make(b"secret", salt=SALT, rounds=1234).decode()
        self.assertEqual(value.replace("-SHA1}", "}"), expected)

    def test_argon2_is_the_reference_librarys(self) -> None:
        value = TYPES["argon2id"].make(b"secret", salt=SALT, rounds=1)
        expected = hash_secret(
            b"secret",
            SALT,
            time_cost=1,
            memory_cost=65536,
            parallelism=4,
            hash_len=32,
            type=Type.ID,
        )
        self.assertEqual(value, b"{ARGON2}" + expected)

    def test_crypt_is_the_hosts(self) -> None:
        value = TYPES["sha512-crypt"].make(b"secret", rounds=1000).removeprefix(b"{CRYPT}")
        self.assertEqual(crypt3.crypt(b"secret", value), value)


class TableTests(SynchronousTestCase):
    def test_the_default_is_modern(self) -> None:
        self.assertNotIn("weak", TYPES[DEFAULT_TYPE].remark)
        self.assertTrue(TYPES[DEFAULT_TYPE].make(b"secret").startswith(b"{CRYPT}$2b$12$"))

    def test_every_type_of_the_original_is_said_to_be_weak(self) -> None:
        for name in ORIGINAL_TYPES:
            self.assertIn("weak", TYPES[name].remark)

    def test_prefixes_are_what_values_begin_with(self) -> None:
        for each in TYPES.values():
            self.assertTrue(cheap(each, b"secret").startswith(each.prefix.encode()), each.name)
