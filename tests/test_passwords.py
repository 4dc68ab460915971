"""Stored password values, held against those of other tools."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import sys
import threading
import time
import traceback
from base64 import b64encode
from collections.abc import Callable

from argon2.low_level import Type, hash_secret
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from qmailldap import crypt3
from qmailldap.passwords import (
    DEFAULT_DECOY,
    Decoys,
    MalformedHash,
    StoredPassword,
    digests,
    parse_password,
    parser,
)
from qmailldap.passwords.settings import read_setting

# All of them are values of the password "secret".

SLAPPASSWD = (  # OpenLDAP 2.5.13: slappasswd [-o module-load=pw-sha2|argon2] -h {SCHEME} -s secret
    b"{SSHA}Nj1XVX6QbuLNqMdto6BdGmQ6H9X3hK+4",
    b"{SMD5}bNESgOs36xXOLJ4wPyha4uAxxW8=",
    b"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
    b"{MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==",
    b"{SSHA256}OMQ9FWYeXAAl3IjIrDh5qiSFVRYkFv2Wj4Glk3f31CJ2hi9WI0Sexw==",
    b"{SSHA384}BRJ52bj1IgCZjL9MwKonlNMBQ4+SY/mEY+4Rcc4cE0VCnQunf0CttgGtvtnTad79hP3fgwnsvIQ=",
    (
        b"{SSHA512}ZhmD6FYyUgAWS/3fq3AEEvgICDf7cImtJTO7A1dY5ncShptmf0HxDrYMeELvTTXKpgjtpTkkTjB57HzR"
        b"+UaNY78ZLnJ19te9"
    ),
    b"{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=",
    b"{SHA384}WKd1ukESvjAFrkQHznV9iP2nHUBJe7gCbsrFTU4//HIyzo3jq1rLMK45dg/ufFPt",
    (
        b"{SHA512}vSsar3708Jvp9Szi2NWZZ02Bqp1qRCFpbcTZPdBhnWgs5WtNZKnvCXdhztmeD2cmW192CF5bDufKRpayrW/i"
        b"sg=="
    ),
    (
        b"{ARGON2}$argon2i$v=19$m=4096,t=3,p=1$uoRmlB510XjALnb5gXziuQ"
        b"$lqrDmJTkITxbbAAz9AfR9VLwqA3D2tDnt97XJGqw95c"
    ),
)
SLAPPASSWD_CRYPT = (  # the same, -h {CRYPT}, with -c FORMAT but for the first
    b"{CRYPT}rlcg0.fZequS.",
    (
        b"{CRYPT}$6$CBPmFDjf6FkKogoV$adVaF3AmtX2Hb2eFqmxZbMtteILTNsqH9Zka2/ufu7TH./mP.aUdtu3ZE1MkMaHk"
        b"jOqy11AgaG32GKP.v58xg/"
    ),
    b"{CRYPT}$2b$05$aNUp.efvZIdAdASfC2en2uV3xah7vp1VjQ4w691HatFpRGQM.p1n2",
    b"{CRYPT}$y$j75$92XXA/w59cHbhBcE401RX.$zD9PuQvTDSdotdxW43GWiZ0I73seb2LtQp5wv2ic0k.",
)
OPENSSL = (  # OpenSSL 3.0.19: openssl passwd -1|-5|-6 -salt saltsalt secret
    b"$1$saltsalt$9xy1btjgzLYfb7hivXtC//",
    b"$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA",
    (
        b"$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91"
        b"p5hVO1"
    ),
)
PERL_CRYPT = (b"abNANd1rDfiNc", b"_J9..abcd/H6HLCcf7nw")  # perl -e 'print crypt("secret", SALT)'
PASSLIB_CRYPT = (  # passlib 1.7.4: sha1_crypt, sun_md5_crypt, sha512_crypt, bsdi_crypt
    b"$sha1$1000$abcdefgh$ji8ESnkwjcTjo4hThodnLYyi.3yG",
    b"$md5,rounds=34$abcdefgh$$r0dLhB7VkSPxBH1oW.MqF/",
    (
        b"$6$rounds=1234$abcdefgh$JYy1Bl2SyLJWf33X/ypLFfV0PTI7kUcSv1KagEAuF6T.jEole3EQfDDZRy9BRYEi9Zd6"
        b"aYdRKWdcJwCEXNseD1"
    ),
    b"_dD..abcd6gd0ZOdEkvQ",
)
PASSLIB = (  # passlib 1.7.4: ldap_pbkdf2_*.using(rounds=1000), ldap_salted_sha1
    b"{PBKDF2}1000$8PHy8/T19vf4.fr7/P3./w$pj0vQY9zPgbegHSuUT3e.mDTW7g",
    b"{PBKDF2-SHA256}1000$8PHy8/T19vf4.fr7/P3./w$ih6/7sfh96XKhTsclmBCMnf1g9O/RBZ9U4Hw7jK.M5Q",
    (
        b"{PBKDF2-SHA512}1000$8PHy8/T19vf4.fr7/P3./w"
        b"$A4MkPncwC4BPhY5CAR6W1fMLKIYKKDDGTx6GvBhlC1BObzupuPut/5qxalPTg5o6QEmgXFmARv1qN8ML6c32xw"
    ),
    b"{SSHA}tCNGqyJLk/uvKpCa4vga5GB2gWoxMjM0NTY3OA==",
)
# openssl kdf -kdfopt digest:SHA1 -kdfopt salt:0123456789abcdef -kdfopt iter:1000 PBKDF2
OPENSSL_PBKDF2 = b"{PBKDF2-SHA1}1000$MDEyMzQ1Njc4OWFiY2RlZg$21EupWTmSOvnK3Sp99FL7THUyuQ"
# openssl dgst -provider legacy -md4 -binary | base64, and -ripemd160
OPENSSL_MD4 = b"{MD4}Z9Pa/vY/8AYDru83ac+/DQ=="
OPENSSL_RMD160 = b"{RMD160}zZi/AgLvB+OOh/a9lEXl5zMeLHg="
# perl: $s = "0123456789abcdef" x 2; md5_hex("$s\x59secret\xf7$s") . $s, by Digest::MD5
PERL_NETSCAPE = b"{NS-MTA-MD5}df52ce3881015fdeaff84ddfc1b25fd80123456789abcdef0123456789abcdef"

BCRYPT_12 = b"$2b$12$" + b"a" * 21 + b"." + b"b" * 31
"""No password is known for it; it takes a quarter of a second to find out that one is wrong."""

CRYPT_VALUES = (
    *(value.removeprefix(b"{CRYPT}") for value in SLAPPASSWD_CRYPT),
    *OPENSSL,
    *PERL_CRYPT,
    *PASSLIB_CRYPT,
)
OTHER_VALUES = (
    *SLAPPASSWD,
    *PASSLIB,
    OPENSSL_PBKDF2,
    OPENSSL_MD4,
    OPENSSL_RMD160,
    PERL_NETSCAPE,
)

MARK = b"Zq7xZq7xZq7xZq7x"
"""Octets of a value that must not be seen anywhere; they are base64 and hexadecimal enough."""


def host_has_it(value: bytes) -> bool:
    """Whether this host can compute the value's digest."""
    return value != OPENSSL_RMD160 or digests.find_digest("ripemd160") is not None


def malformed(value: bytes) -> MalformedHash:
    """The error that parsing gives."""
    try:
        stored = parse_password(value)
    except MalformedHash as error:
        return error
    raise AssertionError(f"a value of {stored.scheme} was taken as well-formed")


class SchemeTests(SynchronousTestCase):
    """Values of the schemes that are a library's or our own work."""

    def test_values_of_other_tools_match_their_password(self) -> None:
        for value in filter(host_has_it, OTHER_VALUES):
            self.assertTrue(parse_password(value).verify(b"secret"), value)

    def test_values_of_other_tools_match_no_other_password(self) -> None:
        wrong = (b"", b"Secret", b"secret ", b"secre", b"\0secret", b"\0", b"s" * 10240)
        for value in filter(host_has_it, OTHER_VALUES):
            stored = parse_password(value)
            for password in wrong:
                self.assertFalse(stored.verify(password), value)

    def test_a_nul_is_an_octet_of_the_password_as_any_other(self) -> None:
        for value in filter(host_has_it, OTHER_VALUES):
            # HMAC, and so PBKDF2, fills a key up with NULs by its definition.
            if not value.startswith(b"{PBKDF2"):
                self.assertFalse(parse_password(value).verify(b"secret\0"), value)
                self.assertFalse(parse_password(value).verify(b"secret\0more"), value)

    def test_the_scheme_is_named_in_any_case(self) -> None:
        for value in filter(host_has_it, OTHER_VALUES):
            scheme, brace, text = value.partition(b"}")
            for name in (scheme.lower(), scheme.title()):
                self.assertTrue(parse_password(name + brace + text).verify(b"secret"), name)

    def test_the_scheme_has_one_name_however_it_is_written(self) -> None:
        for value, scheme in (
            (b"{ssha}Nj1XVX6QbuLNqMdto6BdGmQ6H9X3hK+4", "SSHA"),
            (b"{Sha1}5en6G6MezRroT3XKqkdPOmY/BfQ=", "SHA"),
            (PASSLIB[0], "PBKDF2-SHA1"),
            (OPENSSL_PBKDF2, "PBKDF2-SHA1"),
            (b"{Blf-Crypt}" + BCRYPT_12, "CRYPT"),
            (BCRYPT_12, "CRYPT"),
            (SLAPPASSWD[-1].replace(b"{ARGON2}", b"{argon2i}"), "ARGON2"),
            (PERL_NETSCAPE, "NS-MTA-MD5"),
            (b"*", "NEVER"),
        ):
            self.assertEqual(parse_password(value).scheme, scheme)

    def test_dovecots_other_names_are_known(self) -> None:
        argon2i = SLAPPASSWD[-1].removeprefix(b"{ARGON2}")
        md5, sha256, sha512 = OPENSSL
        for value in (
            b"{SHA1}5en6G6MezRroT3XKqkdPOmY/BfQ=",
            b"{DES-CRYPT}abNANd1rDfiNc",
            b"{MD5-CRYPT}" + md5,
            b"{SHA256-CRYPT}" + sha256,
            b"{SHA512-CRYPT}" + sha512,
            b"{BLF-CRYPT}" + SLAPPASSWD_CRYPT[2].removeprefix(b"{CRYPT}"),
            b"{ARGON2I}" + argon2i,
            b"{ARGON2ID}" + hash_secret(b"secret", b"saltsalt", 1, 64, 1, 16, Type.ID),
        ):
            self.assertTrue(parse_password(value).verify(b"secret"), value)

    def test_every_variant_and_version_of_argon2_matches(self) -> None:
        for kind in Type:
            for version in (16, 19):
                encoded = hash_secret(b"secret", b"saltsalt", 2, 64, 2, 24, kind, version)
                stored = parse_password(b"{ARGON2}" + encoded)
                self.assertTrue(stored.verify(b"secret"), encoded)
                self.assertFalse(stored.verify(b"Secret"), encoded)

    def test_argon2_of_before_versions_were_written_matches(self) -> None:
        encoded = hash_secret(b"secret", b"saltsalt", 1, 64, 1, 24, Type.I, 16)
        stored = parse_password(b"{ARGON2}" + encoded.replace(b"$v=16", b""))
        self.assertTrue(stored.verify(b"secret"))

    def test_argon2_without_memory_is_neither_right_nor_wrong(self) -> None:
        from argon2.exceptions import HashingError

        from qmailldap.passwords import derived

        def fail(*args: object, **options: object) -> bytes:
            raise HashingError("Memory allocation error")

        stored = parse_password(SLAPPASSWD[-1])
        self.patch(derived, "hash_secret_raw", fail)
        self.assertRaises(MemoryError, stored.verify, b"secret")

    @given(password=st.binary(), salt=st.binary(max_size=80))
    def test_a_salt_is_of_any_length_none_included(self, password: bytes, salt: bytes) -> None:
        for scheme, algorithm in (
            (b"{SMD5}", "md5"),
            (b"{SSHA}", "sha1"),
            (b"{SSHA256}", "sha256"),
            (b"{SSHA512}", "sha512"),
        ):
            digest = hashlib.new(algorithm, password + salt).digest()
            stored = parse_password(scheme + b64encode(digest + salt))
            self.assertTrue(stored.verify(password))
            self.assertFalse(stored.verify(password + b"x"))

    @given(password=st.binary(max_size=600))
    def test_an_unsalted_digest_is_of_the_passwords_octets(self, password: bytes) -> None:
        for scheme, algorithm in ((b"{MD5}", "md5"), (b"{SHA}", "sha1"), (b"{SHA512}", "sha512")):
            digest = hashlib.new(algorithm, password).digest()
            stored = parse_password(scheme + b64encode(digest))
            self.assertTrue(stored.verify(password))
            self.assertFalse(stored.verify(password + b"\0"))

    @given(password=st.binary(), salt=st.binary(min_size=32, max_size=32))
    def test_a_netscape_salt_is_any_32_octets(self, password: bytes, salt: bytes) -> None:
        digest = hashlib.md5(salt + bytes([89]) + password + bytes([247]) + salt).hexdigest()
        stored = parse_password(b"{NS-MTA-MD5}" + digest.encode("ascii") + salt)
        self.assertTrue(stored.verify(password))
        self.assertFalse(stored.verify(password + b"x"))

    def test_a_netscape_digest_in_capitals_does_not_match(self) -> None:
        digest = PERL_NETSCAPE[12:44].upper()
        value = b"{NS-MTA-MD5}" + digest + PERL_NETSCAPE[44:]
        self.assertFalse(parse_password(value).verify(b"secret"))

    def test_an_unsalted_value_that_does_not_decode_just_never_matches(self) -> None:
        for text in (b"", b"!", b"*", b"5en6G6MezRroT3XKqkdPOmY/BfQ", b"secret", b"\xff\0"):
            for scheme in (b"{MD5}", b"{SHA}", b"{MD4}", b"{SHA256}"):
                self.assertFalse(parse_password(scheme + text).verify(b"secret"))
                self.assertFalse(parse_password(scheme + text).verify(b""))

    def test_an_unsalted_value_is_compared_exactly(self) -> None:
        for value in (
            b"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n",
            b"{SHA} 5en6G6MezRroT3XKqkdPOmY/BfQ=",
        ):
            self.assertFalse(parse_password(value).verify(b"secret"))

    def test_a_digest_that_the_host_lacks_is_a_fault_and_not_a_wrong_password(self) -> None:
        self.patch(parser, "find_digest", lambda algorithm: None)
        self.assertIn("no library of this host", str(malformed(OPENSSL_RMD160)))

    def test_a_digest_that_openssl_lacks_is_taken_from_passlib(self) -> None:
        def refuse(*args: object, **options: object) -> None:
            raise ValueError("unsupported hash type")

        self.patch(digests.hashlib, "new", refuse)  # type: ignore[attr-defined]
        digest = digests.find_digest.__wrapped__("md4")
        assert digest is not None
        self.assertEqual(b"{MD4}" + b64encode(digest.of(b"secret")), OPENSSL_MD4)
        self.assertEqual(digest.size, 16)
        self.assertIsNone(digests.find_digest.__wrapped__("ripemd128"))


class CleartextTests(SynchronousTestCase):
    """Clear text, which matches only where the site has asked for it."""

    SCHEMES = (b"{PLAIN}", b"{cleartext}", b"{Clear}")

    def test_it_never_matches_unless_asked_for(self) -> None:
        for scheme in self.SCHEMES:
            stored = parse_password(scheme + b"secret")
            self.assertEqual(stored.scheme, "NEVER")
            self.assertFalse(stored.verify(b"secret"))

    def test_it_matches_where_asked_for(self) -> None:
        for scheme in self.SCHEMES:
            stored = parse_password(scheme + b"secret", cleartext=True)
            self.assertEqual(stored.scheme, "PLAIN")
            self.assertTrue(stored.verify(b"secret"))
            self.assertFalse(stored.verify(b"Secret"))
            self.assertFalse(stored.verify(b""))

    def test_an_empty_one_never_matches(self) -> None:
        self.assertFalse(parse_password(b"{PLAIN}", cleartext=True).verify(b""))


class CryptTests(SynchronousTestCase):
    """Values of crypt(3)."""

    def test_values_of_other_tools_match_their_password(self) -> None:
        for value in CRYPT_VALUES:
            for prefix in (b"", b"{CRYPT}", b"{crypt}"):
                self.assertTrue(parse_password(prefix + value).verify(b"secret"), value)

    def test_values_of_other_tools_match_no_other_password(self) -> None:
        for value in CRYPT_VALUES:
            stored = parse_password(value)
            for password in (b"", b"Secret", b"secre", b"s" * 10240, value):
                self.assertFalse(stored.verify(password), value)

    def test_a_password_with_a_nul_never_matches(self) -> None:
        for value in CRYPT_VALUES:
            stored = parse_password(value)
            for password in (b"secret\0", b"secret\0more", b"\0secret", b"\0"):
                self.assertFalse(stored.verify(password), value)

    def test_a_password_that_is_cut_at_its_nul_would_have_matched(self) -> None:
        self.assertTrue(parse_password(b"{CRYPT}abNANd1rDfiNc").verify(b"secret"))
        self.assertIsNone(crypt3.crypt(b"secret\0more", b"ab"))

    def test_a_value_cut_at_its_nul_does_not_match(self) -> None:
        self.assertFalse(parse_password(b"abNANd1rDfiNc\0").verify(b"secret"))
        self.assertFalse(parse_password(b"abNANd1rDfiNc\0rest").verify(b"secret"))

    def test_locked_and_empty_values_never_match(self) -> None:
        locked = (b"", b"*", b"!", b"!!", b"x", b"*0", b"*1", b"*LK*", b"*NP*")
        for value in (*locked, *(b"!" + value for value in CRYPT_VALUES), b"*" + CRYPT_VALUES[0]):
            for prefix in (b"", b"{CRYPT}", b"{crypt}"):
                stored = parse_password(prefix + value)
                self.assertEqual(stored.scheme, "NEVER")
                self.assertTrue(stored.is_quick)
                for password in (b"", b"secret", b"x", b"*0", b"*1", value):
                    self.assertFalse(stored.verify(password), value)

    def test_what_the_library_refuses_never_matches(self) -> None:
        for value in (b"{FOO}abcdefgh", b"{", b"{}", b"$", b"$9$abc$def", b"a", b"a:", b"\xff\xfe"):
            stored = parse_password(value)
            self.assertEqual(stored.scheme, "CRYPT")
            for password in (b"", b"secret", b"*0", value):
                self.assertFalse(stored.verify(password), value)

    def test_a_setting_without_a_digest_never_matches(self) -> None:
        for value in (b"ab", b"$1$saltsalt$", b"$6$saltsalt", b"$2b$04$" + b"a" * 21 + b"."):
            self.assertFalse(parse_password(value).verify(b"secret"))
            self.assertFalse(parse_password(value).verify(b""))

    def test_a_library_that_gives_no_answer_means_no_match(self) -> None:
        stored = parse_password(b"abNANd1rDfiNc")
        self.patch(crypt3, "_library", FakeLibrary(None, errno.EINVAL))
        self.assertFalse(stored.verify(b"secret"))

    def test_without_memory_a_password_is_neither_right_nor_wrong(self) -> None:
        stored = parse_password(b"abNANd1rDfiNc")
        self.patch(crypt3, "_library", FakeLibrary(b"*0", errno.ENOMEM))
        self.assertRaises(MemoryError, stored.verify, b"secret")

    def test_a_host_without_the_library_is_told_its_name(self) -> None:
        error = self.assertRaises(ImportError, crypt3._load, ("libnosuchcrypt.so.2",))
        self.assertIn("libnosuchcrypt.so.2", str(error))

    def test_nothing_of_the_password_stays_in_the_scratch_space(self) -> None:
        parse_password(OPENSSL[2]).verify(b"secret")
        self.assertEqual(crypt3._thread.data.raw.strip(b"\0"), b"")

    def test_many_threads_at_once_get_right_answers(self) -> None:
        values = [value for value in CRYPT_VALUES if not value.startswith(b"$sha1")]
        start = threading.Barrier(len(values))
        answers: dict[bytes, set[tuple[bool, bool]]] = {}

        def run(value: bytes) -> None:
            stored = parse_password(value)
            start.wait()
            answers[value] = {
                (stored.verify(b"secret"), stored.verify(b"Secret")) for _ in range(20)
            }

        in_threads(*(lambda value=value: run(value) for value in values))
        self.assertEqual(answers, {value: {(True, False)} for value in values})

    def test_the_rest_of_the_program_runs_while_a_password_is_hashed(self) -> None:
        # So long a turn that a thread runs until it lets go of the lock by itself.
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1000)
        stored = parse_password(BCRYPT_12)
        counter = 0
        readings: list[int] = []

        def run() -> None:
            readings.append(counter)
            stored.verify(b"secret")
            readings.append(counter)

        thread = threading.Thread(target=run)
        thread.start()
        while thread.is_alive():
            time.sleep(0.001)
            counter += 1
        before, after = readings
        self.assertGreater(after, before)


class FakeLibrary:
    """A libcrypt that always gives the same answer."""

    def __init__(self, answer: bytes | None, failure: int) -> None:
        self._answer = answer
        self._failure = failure

    def crypt_r(self, password: bytes, setting: bytes, data: object) -> bytes | None:
        ctypes.set_errno(self._failure)
        return self._answer


def in_threads(*functions: Callable[[], None]) -> None:
    """Run every function in a thread of its own, all at once, to their ends."""
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class MalformedTests(SynchronousTestCase):
    """Values that cannot be of their scheme."""

    def test_a_salted_value_must_decode(self) -> None:
        for scheme in (b"{SMD5}", b"{SSHA}", b"{SSHA256}", b"{SSHA512}"):
            for text in (b"*", b"Zq7", b"A" * 120 + b"=", b"A" * 119 + b"\n", b"\xff" * 120):
                self.assertIn("does not decode", str(malformed(scheme + text)))

    def test_a_salted_value_must_hold_its_digest(self) -> None:
        for scheme, size in ((b"{SMD5}", 16), (b"{SSHA}", 20), (b"{SSHA512}", 64)):
            for short in (b"", b"\1", b"\1" * (size - 1)):
                self.assertIn("too short", str(malformed(scheme + b64encode(short))))
            self.assertFalse(parse_password(scheme + b64encode(b"\1" * size)).verify(b"secret"))

    def test_an_extended_des_value_has_a_bound_on_its_rounds(self) -> None:
        self.assertIn("rounds", str(malformed(b"_zzzzabcd" + b"." * 11)))
        # What is not of the whole form would be computed all the same.
        self.assertIn("cannot be read", str(malformed(b"_zzzzabcd")))

    def test_a_netscape_value_is_of_64_characters(self) -> None:
        for text in (b"", PERL_NETSCAPE[12:-1], PERL_NETSCAPE[12:] + b"0"):
            self.assertIn("64 characters", str(malformed(b"{NS-MTA-MD5}" + text)))

    def test_a_pbkdf2_value_is_rounds_salt_and_digest(self) -> None:
        salt, digest = b"MDEyMzQ1Njc4OWFiY2RlZg", b"21EupWTmSOvnK3Sp99FL7THUyuQ"
        for text in (
            b"",
            b"1000",
            b"1000$" + salt,
            b"x$" + salt + b"$" + digest,
            b"1000$" + salt + b"$",
            b"1000$" + salt + b"$" + digest[:-1],
            b"1000$" + salt + b"$" + digest + b"\n",
            b"1000$" + salt[:-1] + b"$" + digest,
            b"1000$" + salt[:-2] + b"!$" + digest,
            b"-1$" + salt + b"$" + digest,
            b"1000$" + salt + b"$" + digest + b"$",
        ):
            malformed(b"{PBKDF2}" + text)

    def test_a_digest_of_another_pbkdf2_is_malformed(self) -> None:
        text = OPENSSL_PBKDF2.partition(b"}")[2]
        self.assertIn("32 octets", str(malformed(b"{PBKDF2-SHA256}" + text)))

    def test_an_argon2_value_is_in_encoded_form(self) -> None:
        cost, salt, digest = b"m=64,t=1,p=1", b"c2FsdHNhbHQ", b"HXUF0bTInM4EKJmawGN8Eg"
        encoded = b"{ARGON2}$argon2id$v=19$" + b"$".join((cost, salt, digest))
        self.assertFalse(parse_password(encoded).verify(b"secret"))
        for value in (
            b"{ARGON2}",
            b"{ARGON2}*",
            encoded[:-1] + b"=",
            encoded + b"\n",
            encoded + b"$",
            encoded.replace(b"argon2id", b"argon2x"),
            encoded.replace(b"v=19", b"v=20"),
            encoded.replace(b"m=64", b"m=-64"),
            encoded.replace(b"m=64", b"m=7"),
            encoded.replace(b"t=1", b"t=0"),
            encoded.replace(b"p=1", b"p=0"),
            encoded.replace(salt, salt[:-2]),
            encoded.replace(salt, salt[:5]),
            encoded.replace(digest, digest[:4]),
        ):
            malformed(value)

    def test_a_cost_beyond_the_limits_is_malformed(self) -> None:
        argon2 = b"{ARGON2}$argon2id$v=19$m=%d,t=%d,p=%d$c2FsdHNhbHQ$HXUF0bTInM4EKJmawGN8Eg"
        for value in (
            argon2 % (64 * 1024 * 1024, 1, 1),
            argon2 % (64, 10**9, 1),
            argon2 % (262144, 17, 1),
            argon2 % (2**14, 1, 1000),
            argon2 % (10**19, 10**19, 10**19),
            b"{PBKDF2}0$MDEyMzQ1Njc4OWFiY2RlZg$21EupWTmSOvnK3Sp99FL7THUyuQ",
            b"{PBKDF2}1000000000$MDEyMzQ1Njc4OWFiY2RlZg$21EupWTmSOvnK3Sp99FL7THUyuQ",
            b"$2b$17$" + b"a" * 53,
            b"$2y$31$" + b"a" * 53,
            b"$5$rounds=999999999$salt$digest",
            b"$6$rounds=999999999$salt$digest",
            b"$6$rounds=2500001$salt$digest",
            b"$sha1$4294967295$salt$digest",
            b"$md5,rounds=4294967295$salt$$digest",
            b"$y$jET$92XXA/w59cHbhBcE401RX.$digest",
            b"$gy$jFT$92XXA/w59cHbhBcE401RX.$digest",
            b"$y$jzzzzzz$salt$digest",
            b"$y$j9T.zzzzzz$salt$digest",
            b"$7$GU..../....salt$digest",
            b"$7$zzzzzzzzzzzsalt$digest",
        ):
            for prefix in (b"",) if value.startswith(b"{") else (b"", b"{CRYPT}", b"{BLF-CRYPT}"):
                malformed(prefix + value)

    def test_a_cost_that_cannot_be_read_is_malformed(self) -> None:
        for value in (
            b"$2b$",
            b"$2b$1$abc",
            b"$2y$+9$abc",
            b"$6$rounds=abc$salt$digest",
            b"$6$rounds=+999999999$salt$digest",
            b"$6$rounds=999999999",
            b"$5$rounds= 9$salt$digest",
            b"$sha1$$salt$digest",
            b"$sha1$0x10000000$salt$digest",
            b"$md5,rounds=$salt$$digest",
            b"$md5,",
            b"$y$",
            b"$y$$salt$digest",
            b"$y$j$salt$digest",
            b"$y$j9$salt$digest",
            b"$y$j9T:$salt$digest",
            b"$y$j9TPPPPPP$salt$digest",
            b"$7$CU",
        ):
            self.assertIn("cannot be read", str(malformed(value)))

    def test_a_cost_at_the_limits_is_taken(self) -> None:
        for value in (
            b"{ARGON2}$argon2id$v=19$m=262144,t=16,p=16$c2FsdHNhbHQ$HXUF0bTInM4EKJmawGN8Eg",
            b"{PBKDF2}2500000$MDEyMzQ1Njc4OWFiY2RlZg$21EupWTmSOvnK3Sp99FL7THUyuQ",
            b"$2b$16$" + b"a" * 53,
            b"$6$rounds=2500000$salt$digest",
            b"$y$jDT$92XXA/w59cHbhBcE401RX.$digest",
            b"$7$EU..../....salt$digest",
        ):
            self.assertFalse(parse_password(value).is_quick)


class CostTests(SynchronousTestCase):
    """What tells values of one cost from those of another."""

    def test_it_is_the_scheme_and_its_cost_parameters(self) -> None:
        for value, cost in (
            (SLAPPASSWD[0], "SSHA"),
            (PASSLIB[2], "PBKDF2-SHA512 1000"),
            (SLAPPASSWD[-1], "ARGON2 argon2i m=4096,t=3,p=1"),
            (BCRYPT_12, "CRYPT $2b$12$"),
            (OPENSSL[0], "CRYPT $1$"),
            (OPENSSL[2], "CRYPT $6$rounds=5000$"),
            (b"$6$rounds=5000$salt$digest", "CRYPT $6$rounds=5000$"),
            (b"$5$salt$digest", "CRYPT $5$rounds=5000$"),
            (PASSLIB_CRYPT[0], "CRYPT $sha1$1000$"),
            (PASSLIB_CRYPT[1], "CRYPT $md5,rounds=34$"),
            (PASSLIB_CRYPT[2], "CRYPT $6$rounds=1234$"),
            (SLAPPASSWD_CRYPT[3], "CRYPT $y$j75$"),
            (b"$7$CU..../....salt$digest", "CRYPT $7$CU..../...."),
            (PERL_CRYPT[0], "CRYPT DES"),
            (PERL_CRYPT[1], "CRYPT _J9.."),
            (b"{FOO}secret", "CRYPT ?"),
            (b"_secret", "CRYPT ?"),
            (b"!", "NEVER"),
        ):
            self.assertEqual(parse_password(value).cost, cost)

    def test_one_plain_digest_is_quick_and_nothing_else(self) -> None:
        for value in filter(host_has_it, OTHER_VALUES):
            slow = value.startswith((b"{PBKDF2", b"{ARGON2"))
            self.assertEqual(parse_password(value).is_quick, not slow, value)
        for value in CRYPT_VALUES:
            self.assertFalse(parse_password(value).is_quick, value)


class DecoyTests(SynchronousTestCase):
    """What is verified for users that do not exist."""

    def test_a_decoy_costs_the_same_and_matches_nothing(self) -> None:
        for value in filter(host_has_it, (*OTHER_VALUES, *CRYPT_VALUES, b"*", b"{FOO}bar")):
            stored = parse_password(value)
            decoy = stored.decoy()
            self.assertEqual(
                (decoy.scheme, decoy.cost, decoy.is_quick),
                (stored.scheme, stored.cost, stored.is_quick),
            )
            for password in (b"secret", b"", value):
                self.assertFalse(decoy.verify(password), value)
            self.assertFalse(decoy.decoy().verify(b"secret"))

    def test_a_decoy_is_verified_by_the_same_work(self) -> None:
        for value in CRYPT_VALUES:
            setting = read_setting("CRYPT", value)
            for _ in range(4):
                decoy = setting.with_random_salt()
                hashed = crypt3.crypt(b"secret", decoy)
                assert hashed is not None, f"crypt(3) refuses the decoy of {value!r}"
                self.assertEqual(len(hashed), len(value))
                self.assertNotEqual(hashed, value)
                self.assertEqual(read_setting("CRYPT", decoy + b"...........").cost, setting.cost)

    def test_a_decoy_of_yescrypt_with_more_parameters_is_verified_too(self) -> None:
        for value in (
            b"$y$j75..$abcd$",
            b"$y$j75/.$abcd$",
            b"$gy$j75$abcd$",
            b"$7$66..../....abcd$",
        ):
            if crypt3.crypt(b"secret", value) is None:
                raise SkipTest("this host's crypt(3) does not know the format")
            decoy = read_setting("CRYPT", value).with_random_salt()
            self.assertIsNotNone(crypt3.crypt(b"secret", decoy))

    def test_a_decoy_keeps_neither_digest_nor_salt(self) -> None:
        for value in filter(host_has_it, (*OTHER_VALUES, *CRYPT_VALUES)):
            stored = parse_password(value)
            kept = innards(stored) & innards(stored.decoy())
            self.assertEqual({octets for octets in kept if len(octets) > 15}, set(), value)

    def test_the_default_is_a_salted_sha(self) -> None:
        self.assertEqual(DEFAULT_DECOY.cost, "SSHA")
        self.assertTrue(DEFAULT_DECOY.is_quick)
        self.assertFalse(DEFAULT_DECOY.verify(b""))
        self.assertFalse(DEFAULT_DECOY.verify(b"secret"))


def innards(thing: object) -> set[bytes]:
    """All octet strings that an object of this package holds, at any depth."""
    if isinstance(thing, bytes):
        return {thing}
    names = getattr(type(thing), "__attrs_attrs__", ())
    return {octets for name in names for octets in innards(getattr(thing, name.name))}


class DecoysTests(SynchronousTestCase):
    """The choice of a decoy by what was seen."""

    SSHA = parse_password(SLAPPASSWD[0])
    BCRYPT = parse_password(BCRYPT_12)

    def test_the_default_is_given_as_long_as_nothing_was_seen(self) -> None:
        self.assertIs(Decoys().commonest(), DEFAULT_DECOY)

    def test_the_commonest_cost_is_given(self) -> None:
        decoys = Decoys()
        for stored in (self.SSHA, self.BCRYPT, self.BCRYPT):
            decoys.seen(stored)
        self.assertEqual(decoys.commonest().cost, "CRYPT $2b$12$")

    def test_what_is_given_matches_nothing(self) -> None:
        decoys = Decoys()
        decoys.seen(self.SSHA)
        self.assertFalse(decoys.commonest().verify(b"secret"))

    def test_values_that_never_match_are_not_counted(self) -> None:
        decoys = Decoys()
        decoys.seen(parse_password(b"*"))
        self.assertIs(decoys.commonest(), DEFAULT_DECOY)

    def test_what_a_site_has_migrated_away_from_fades(self) -> None:
        decoys = Decoys(fade_at=64)
        for _ in range(10_000):
            decoys.seen(self.SSHA)
        self.assertEqual(decoys.commonest().cost, "SSHA")
        for _ in range(64):
            decoys.seen(self.BCRYPT)
        self.assertEqual(decoys.commonest().cost, "CRYPT $2b$12$")

    def test_a_cost_that_has_faded_altogether_is_forgotten(self) -> None:
        decoys = Decoys(fade_at=8)
        decoys.seen(self.SSHA)
        for _ in range(7):
            decoys.seen(self.BCRYPT)
        self.assertEqual(repr(decoys), "<Decoys of 1 costs>")

    def test_its_memory_is_bounded_and_the_commonest_stays(self) -> None:
        decoys = Decoys()
        for _ in range(5):
            decoys.seen(self.SSHA)
        for rounds in range(1000, 1200):
            decoys.seen(parse_password(b"$6$rounds=%d$salt$digest" % rounds))
        self.assertEqual(repr(decoys), "<Decoys of 16 costs>")
        self.assertEqual(decoys.commonest().cost, "SSHA")


SCHEME_NAMES = {
    *("ARGON2", "CRYPT", "MD4", "MD5", "NEVER", "NS-MTA-MD5", "PLAIN", "RMD160", "SHA"),
    *("SHA256", "SHA384", "SHA512", "SMD5", "SSHA", "SSHA256", "SSHA384", "SSHA512"),
    *("PBKDF2-SHA1", "PBKDF2-SHA256", "PBKDF2-SHA512"),
}
PREFIXES = st.sampled_from(
    (
        *(b"", b"{", b"{FOO}", b"{CRYPT}", b"{CRYPT}$1$", b"$3$", b"$9$", b"_", b"$y$", b"$7$"),
        *(b"{md4}", b"{MD5}", b"{SHA}", b"{RMD160}", b"{smd5}", b"{SSHA}", b"{SSHA512}"),
        *(b"{NS-MTA-MD5}", b"{PLAIN}", b"{PBKDF2}", b"{PBKDF2-SHA512}1$", b"{DES-CRYPT}"),
        *(b"{ARGON2}", b"{ARGON2}$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$"),
    )
)


class AnyValueTests(SynchronousTestCase):
    """Whatever a record holds and a client sends."""

    @settings(max_examples=300)
    @given(prefix=PREFIXES, text=st.binary(max_size=100), password=st.binary(max_size=80))
    def test_it_is_malformed_or_gives_an_answer(
        self, prefix: bytes, text: bytes, password: bytes
    ) -> None:
        for cleartext in (False, True):
            try:
                stored = parse_password(prefix + text, cleartext=cleartext)
            except MalformedHash:
                continue
            self.assertIn(stored.verify(password), (True, False))
            self.assertFalse(stored.decoy().verify(password))
            # Nothing but a name of this list is shown, so nothing of the value is.
            self.assertIn(stored.scheme, SCHEME_NAMES)
            for shown in (repr(stored), str(stored), f"{stored}"):
                self.assertEqual(shown, f"StoredPassword(scheme={stored.scheme!r})")

    @settings(max_examples=300)
    @given(prefix=PREFIXES, before=st.binary(max_size=30), after=st.binary(max_size=30))
    def test_nothing_of_a_malformed_one_is_told(
        self, prefix: bytes, before: bytes, after: bytes
    ) -> None:
        try:
            parse_password(prefix + before + MARK + after)
        except MalformedHash as error:
            self.assert_hidden(error)

    def test_nothing_of_a_value_beyond_the_limits_is_told(self) -> None:
        for value in (
            b"$6$rounds=987654321$" + MARK,
            b"$2b$31$" + MARK,
            b"$y$jFT$" + MARK + b"$" + MARK,
            b"{PBKDF2}987654321$" + MARK + b"$" + MARK,
            b"{ARGON2}$argon2id$v=19$m=987654321,t=1,p=1$" + MARK + b"$" + MARK,
            b"{SSHA}" + MARK,
            b"{SSHA}" + MARK + b"!",
        ):
            error = malformed(value)
            self.assert_hidden(error)
            self.assertNotIn("987654321", str(error))

    def assert_hidden(self, error: MalformedHash) -> None:
        mark = MARK.decode("ascii")
        failure = Failure(error)
        for text in (
            str(error),
            repr(error),
            "".join(traceback.format_exception(error)),
            failure.getTraceback(),
            failure.getErrorMessage(),
        ):
            self.assertNotIn(mark, text)
        self.assertIsNone(error.__cause__)
        self.assertTrue(error.__suppress_context__)

    def test_no_method_shows_a_value_either(self) -> None:
        for value in filter(host_has_it, (*OTHER_VALUES, *CRYPT_VALUES)):
            stored: StoredPassword = parse_password(value)
            shown = repr(stored._method)
            self.assertRegex(shown, r"\A<qmailldap\.passwords\.\w+\.\w+ object at 0x[0-9a-f]+>\Z")
