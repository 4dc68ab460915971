"""Making password values, by the rules that `parse_password` verifies them by.

What a type is called, costs and is worth is one row of `TYPES`. Nothing may be made here that the
server would not verify; and no password, salt or digest may be in an error.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Callable
from functools import partial

import attrs

from qmailldap.passwords.crypted import Crypt
from qmailldap.passwords.derived import ARGON2_MEMORY, PBKDF2, Argon2
from qmailldap.passwords.digests import (
    SALT_SIZE,
    Digest,
    NetscapeMD5,
    Salted,
    Unsalted,
    find_digest,
)
from qmailldap.passwords.limits import MOST_BCRYPT_LOG_ROUNDS, MOST_MEMORY_WORK, MOST_ROUNDS
from qmailldap.passwords.schemes import PBKDF2_SCHEMES, SALTED, UNSALTED
from qmailldap.passwords.settings import ALPHABET, random_salt
from qmailldap.passwords.stored import MalformedHash

__all__ = [
    "BCRYPT_FORMAT",
    "BCRYPT_MOST",
    "DEFAULT_TYPE",
    "DES_FORMAT",
    "MD5_FORMAT",
    "ORIGINAL_TYPES",
    "TYPES",
    "NotMade",
    "PasswordType",
    "Rounds",
    "crypt_type",
]

DES_FORMAT = "XX"
MD5_FORMAT = "$1$XXXXXXXX$"
BCRYPT_FORMAT = "$2a$07$XXXXXXXXXXXXXXXXXXXXXXXX"
"""The original's formats of crypt(3); the last one asks for more salt than bcrypt looks at."""

BCRYPT_MOST = 72
"""Octets of a password that bcrypt looks at."""

_CRYPT_MOST = 511
"""Octets of a password that libxcrypt takes; glibc's own takes more."""

_LEAST_ROUNDS = 1000
"""Of PBKDF2: the least of RFC 8018, section 4.2; of crypt(3)'s SHA: the least there is."""

_DERIVED_SALT_SIZE = 16
_NETSCAPE_SALT_SIZE = 16
"""Octets of salt in a value made here."""

_LEAST_SALT = 4
_LEAST_DERIVED_SALT = 8
"""Octets of a salt that is given: the original's least, and Argon2's."""

_FORMAT = re.compile(r"([!-WY-~]*)(X+)[!-~]*")


class NotMade(ValueError):
    """No value can be made of what was given, or on this host; the text says why."""


@attrs.frozen
class Rounds:
    """The cost that a type takes; what a unit of it is, ``unit`` says."""

    least: int
    most: int
    usual: int
    unit: str


@attrs.frozen
class PasswordType:
    """A type of value. ``name`` is what a person calls it, ``prefix`` what its values begin with.

    ``remark`` is a line for people. ``rounds`` is None where a type has no cost to choose.
    """

    name: str
    prefix: str
    remark: str
    _method: Callable[[bytes, bytes | None, int], bytes]
    rounds: Rounds | None = None

    def make(
        self, password: bytes, *, salt: bytes | None = None, rounds: int | None = None
    ) -> bytes:
        """A value that matches the password.

        ``salt`` is octets, None for random ones; ``rounds`` is within `rounds`, None for the usual
        number. Raises `NotMade`, and `MemoryError` where the host has not what the type needs.
        Blocks for as long as verifying does.
        """
        if b"\0" in password:
            raise NotMade("a password with a NUL in it: many a program reads none beyond it")
        if rounds is not None:
            self._check(rounds)
        elif self.rounds is not None:
            rounds = self.rounds.usual
        return self._method(password, salt, rounds or 0)

    def _check(self, rounds: int) -> None:
        if self.rounds is None:
            raise NotMade(f"a value of type {self.name} has no rounds to choose")
        if not self.rounds.least <= rounds <= self.rounds.most:
            raise NotMade(
                f"rounds of {self.name} are {self.rounds.least} to {self.rounds.most}"
                f" ({self.rounds.unit})"
            )


def crypt_type(format: str, remark: str = "crypt(3)") -> PasswordType:
    """The type crypt with a format: a setting of crypt(5) with X for each character of salt.

    What follows the first run of X is dropped, as the original does. Raises `NotMade`.
    """
    _parsed(format)
    return PasswordType(
        "crypt", "{CRYPT}", remark, lambda password, salt, _: _crypt(format, password, salt)
    )


def _parsed(format: str) -> tuple[bytes, int]:
    """What stands before the salt, and how many characters of salt are wanted."""
    fields = _FORMAT.fullmatch(format)
    if fields is None:
        raise NotMade(
            "the format of crypt has no X to stand for the salt, or characters"
            " that are not printable ASCII"
        )
    return fields[1].encode("ascii"), len(fields[2])


def _crypt(format: str, password: bytes, salt: bytes | None) -> bytes:
    prefix, size = _parsed(format)
    if prefix.startswith(b"$2") and len(password) > BCRYPT_MOST:
        raise NotMade(f"bcrypt would cut a password of more than {BCRYPT_MOST} octets")
    for characters in _salt_characters(size, salt):
        try:
            made = Crypt.of(password, prefix + characters)
        except MalformedHash as error:
            # The server would call the record incorrect.
            raise NotMade(f"the format of crypt: {error.problem}") from None
        if made is not None:
            return _value("CRYPT", made.text)
    if len(password) > _CRYPT_MOST:
        raise NotMade(f"crypt(3) of this host takes no password of more than {_CRYPT_MOST} octets")
    # The format is not shown: somebody may have taken a value for one.
    raise NotMade("crypt(3) of this host has no such method, or not with this salt or cost")


def _salt_characters(size: int, salt: bytes | None) -> list[bytes]:
    """What to try for the salt of a setting; crypt(3) refuses at once what it cannot read."""
    if salt is None:
        characters = random_salt(size)
    elif 3 * size > 4 * len(salt):
        raise NotMade(f"the salt is too short for {size} characters of base64")
    else:
        characters = b64encode(salt)[:size]
    # Most formats have no + in their base 64. Where a salt is octets, which then are encoded in
    # crypt(3)'s own way, its last character has bits that must be zero.
    without_plus = characters.replace(b"+", b".")
    return [characters, without_plus, without_plus[:-1] + b"."]


def _unsalted(scheme: str, password: bytes, salt: bytes | None, _: int) -> bytes:
    return _value(scheme, Unsalted.of(_digest(scheme, UNSALTED[scheme]), password).text)


def _salted(scheme: str, password: bytes, salt: bytes | None, _: int) -> bytes:
    digest = _digest(scheme, SALTED[scheme])
    salt = _octets(salt, SALT_SIZE, _LEAST_SALT)
    return _value(scheme, Salted.of(digest, password, salt).text)


def _netscape(scheme: str, password: bytes, salt: bytes | None, _: int) -> bytes:
    salt = _octets(salt, _NETSCAPE_SALT_SIZE, _NETSCAPE_SALT_SIZE)[:_NETSCAPE_SALT_SIZE]
    digest = _digest(scheme, "md5")
    return _value(scheme, NetscapeMD5.of(digest, password, salt.hex().encode("ascii")).text)


def _pbkdf2(scheme: str, password: bytes, salt: bytes | None, rounds: int) -> bytes:
    salt = _octets(salt, _DERIVED_SALT_SIZE, _LEAST_DERIVED_SALT)
    return _value(scheme, PBKDF2.of(PBKDF2_SCHEMES[scheme], password, rounds, salt).text)


def _argon2(password: bytes, salt: bytes | None, rounds: int) -> bytes:
    salt = _octets(salt, _DERIVED_SALT_SIZE, _LEAST_DERIVED_SALT)
    return _value("ARGON2", Argon2.of(password, rounds, salt).text)


def _value(scheme: str, text: bytes) -> bytes:
    return f"{{{scheme}}}".encode("ascii") + text


def _digest(scheme: str, algorithm: str) -> Digest:
    digest = find_digest(algorithm)
    if digest is None:
        raise NotMade(f"no library of this host computes the digest of {{{scheme}}}")
    return digest


def _octets(salt: bytes | None, size: int, least: int) -> bytes:
    """The salt that was given, of ``least`` octets; or ``size`` random ones."""
    if salt is None:
        return os.urandom(size)
    if len(salt) < least:
        raise NotMade(f"the salt is shorter than {least} octets")
    return salt


def _modern_crypt(
    name: str, prefix: str, remark: str, rounds: Rounds, format: Callable[[int], str]
) -> PasswordType:
    return PasswordType(
        name,
        "{CRYPT}" + prefix,
        remark,
        lambda password, salt, rounds: _crypt(format(rounds), password, salt),
        rounds,
    )


def _of_digest(
    name: str, method: Callable[[str, bytes, bytes | None, int], bytes], remark: str
) -> PasswordType:
    scheme = name.upper()
    return PasswordType(name, f"{{{scheme}}}", remark, partial(method, scheme))


def _of_pbkdf2(name: str, scheme: str, usual: int, remark: str) -> PasswordType:
    return PasswordType(
        name,
        f"{{{scheme}}}",
        remark,
        partial(_pbkdf2, scheme),
        Rounds(_LEAST_ROUNDS, MOST_ROUNDS, usual, "iterations"),
    )


_SHA_ROUNDS = Rounds(_LEAST_ROUNDS, MOST_ROUNDS, 200_000, "rounds")
_NEEDS_PBKDF2 = "slapd needs pw-pbkdf2"
_NEEDS_SHA2 = "fast to guess; slapd needs pw-sha2"
_FAST = "weak: fast to guess"
_UNSALTED = "weak: no salt, fast to guess"

# The numbers of rounds are those of OWASP's password storage cheat sheet of 2025 where it has any;
# for crypt(3)'s SHA, what takes about as long as bcrypt.
_ALL = (
    _modern_crypt(
        "bcrypt",
        "$2b$",
        f"verified by slapd and Dovecot too; at most {BCRYPT_MOST} octets",
        Rounds(4, MOST_BCRYPT_LOG_ROUNDS, 12, "the binary logarithm"),
        lambda rounds: f"$2b${rounds:02}$" + 22 * "X",
    ),
    PasswordType(
        "argon2id",
        "{ARGON2}",
        f"{ARGON2_MEMORY // 1024} MiB a login; slapd needs argon2",
        _argon2,
        Rounds(1, MOST_MEMORY_WORK // 1024 // ARGON2_MEMORY, 3, "passes"),
    ),
    _of_pbkdf2("pbkdf2", "PBKDF2-SHA512", 210_000, "the same as pbkdf2-sha512"),
    _of_pbkdf2("pbkdf2-sha512", "PBKDF2-SHA512", 210_000, _NEEDS_PBKDF2),
    _of_pbkdf2("pbkdf2-sha256", "PBKDF2-SHA256", 600_000, _NEEDS_PBKDF2),
    _of_pbkdf2("pbkdf2-sha1", "PBKDF2-SHA1", 1_300_000, _NEEDS_PBKDF2),
    _modern_crypt(
        "sha512-crypt",
        "$6$",
        "",
        _SHA_ROUNDS,
        lambda rounds: f"$6$rounds={rounds}$" + 16 * "X",
    ),
    _modern_crypt(
        "sha256-crypt",
        "$5$",
        "",
        _SHA_ROUNDS,
        lambda rounds: f"$5$rounds={rounds}$" + 16 * "X",
    ),
    _modern_crypt(
        "yescrypt",
        "$y$",
        "16 MiB a login; where crypt(3) is libxcrypt",
        # crypt_gensalt(3)'s numbers, from where it begins to use blocks of 4 KiB.
        Rounds(3, 9, 5, "one more doubles time and memory"),
        lambda rounds: f"$y$j{ALPHABET[rounds + 6]}T$" + 22 * "X",
    ),
    _of_digest("ssha512", _salted, _NEEDS_SHA2),
    _of_digest("ssha256", _salted, _NEEDS_SHA2),
    crypt_type(DES_FORMAT, "weak: DES, of 8 octets, unless a format is given"),
    _of_digest("md4", _unsalted, _UNSALTED),
    _of_digest("md5", _unsalted, _UNSALTED),
    _of_digest("ns-mta-md5", _netscape, _FAST),
    _of_digest("smd5", _salted, _FAST),
    _of_digest("sha", _unsalted, _UNSALTED),
    _of_digest("ssha", _salted, _FAST),
    _of_digest("rmd160", _unsalted, _UNSALTED),
)

TYPES = {each.name: each for each in _ALL}
"""Every type by its name, the advisable ones first."""

DEFAULT_TYPE = "bcrypt"
"""What crypt(3) has is verified by slapd, by Dovecot and by the original's programs as well, where
their host has libxcrypt."""

ORIGINAL_TYPES = ("crypt", "md4", "md5", "ns-mta-md5", "smd5", "sha", "ssha", "rmd160")
"""The original's types in its order."""
