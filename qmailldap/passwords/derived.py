"""Values of key derivation functions that are not crypt(3)'s: PBKDF2 and Argon2."""

from __future__ import annotations

import hashlib
import os
import re
from hmac import compare_digest

import argon2
import attrs
from argon2.low_level import ARGON2_VERSION, Type, hash_secret_raw
from passlib.utils.binary import ab64_decode, ab64_encode, b64s_encode

from qmailldap.passwords.limits import MOST_LANES, MOST_MEMORY, MOST_MEMORY_WORK, MOST_ROUNDS
from qmailldap.passwords.stored import MalformedHash

__all__ = ["ARGON2_MEMORY", "PBKDF2", "Argon2"]

ARGON2_MEMORY = 64 * 1024
"""KiB of memory that a value made here asks for."""

_PBKDF2 = re.compile(rb"([0-9]{1,20})\$([A-Za-z0-9./+]*)\$([A-Za-z0-9./+]+)")
_ARGON2 = re.compile(
    rb"\$argon2(?P<kind>id|i|d)(?:\$v=(?P<version>16|19))?"
    rb"\$m=(?P<memory>[0-9]{1,20}),t=(?P<passes>[0-9]{1,20}),p=(?P<lanes>[0-9]{1,20})"
    rb"\$(?P<salt>[A-Za-z0-9/+]+)\$(?P<digest>[A-Za-z0-9/+]+)"
)
_ARGON2_TYPES = {b"id": Type.ID, b"i": Type.I, b"d": Type.D}
_FIRST_ARGON2_VERSION = 16
_LEAST_ARGON2_SALT = 8
_ARGON2_DIGEST = range(4, 513)
"""Octets; the least is RFC 9106's, the most is ours."""


@attrs.frozen(repr=False)
class PBKDF2:
    """``rounds$salt$digest`` of OpenLDAP's pw-pbkdf2 and passlib's ldap_pbkdf2_*.

    passlib's handlers are not used: they raise on a password of more than 4096 octets.
    """

    _algorithm: str
    rounds: int
    _expected: bytes
    _salt: bytes

    @classmethod
    def parse(cls, scheme: str, algorithm: str, size: int, text: bytes) -> PBKDF2:
        """``size`` is the digest's, in octets. Raises `MalformedHash`."""
        fields = _PBKDF2.fullmatch(text)
        if fields is None:
            raise MalformedHash(scheme, "it is not rounds$salt$digest") from None
        rounds = int(fields[1])
        if not 1 <= rounds <= MOST_ROUNDS:
            raise MalformedHash(scheme, f"its rounds are not 1 to {MOST_ROUNDS}") from None
        salt, expected = _decoded(fields[2]), _decoded(fields[3])
        if salt is None or expected is None:
            raise MalformedHash(scheme, "its base64 does not decode") from None
        if len(expected) != size:
            raise MalformedHash(scheme, f"its digest is not of {size} octets") from None
        return cls(algorithm, rounds, expected, salt)

    @classmethod
    def of(cls, algorithm: str, password: bytes, rounds: int, salt: bytes) -> PBKDF2:
        key = hashlib.pbkdf2_hmac(algorithm, password, salt, rounds)
        return cls(algorithm, rounds, key, salt)

    @property
    def text(self) -> bytes:
        salt, key = ab64_encode(self._salt), ab64_encode(self._expected)
        return b"$".join((b"%d" % self.rounds, salt, key))

    def matches(self, password: bytes) -> bool:
        hashed = PBKDF2.of(self._algorithm, password, self.rounds, self._salt)
        return compare_digest(hashed._expected, self._expected)

    def decoy(self) -> PBKDF2:
        return attrs.evolve(
            self, expected=os.urandom(len(self._expected)), salt=os.urandom(len(self._salt))
        )


@attrs.frozen(repr=False)
class Argon2:
    """The encoded form of the reference library; ``_memory`` is in KiB.

    Verified by the library's raw hash, not by its verify: the parameters must be known before it
    runs, and a decoy is then the same with other octets.
    """

    _type: Type
    _version: int
    _memory: int
    _passes: int
    _lanes: int
    _expected: bytes
    _salt: bytes

    @property
    def parameters(self) -> str:
        """The variant and its cost, in the words of the encoded form."""
        return f"{self._kind} {self._cost}"

    @property
    def _kind(self) -> str:
        return f"argon2{self._type.name.lower()}"

    @property
    def _cost(self) -> str:
        return f"m={self._memory},t={self._passes},p={self._lanes}"

    @classmethod
    def parse(cls, scheme: str, text: bytes) -> Argon2:
        """Raises `MalformedHash`."""
        fields = _ARGON2.fullmatch(text)
        if fields is None:
            raise MalformedHash(scheme, "it is not Argon2's encoded form") from None
        memory, passes, lanes = (int(fields[name]) for name in ("memory", "passes", "lanes"))
        if not 1 <= lanes <= MOST_LANES:
            raise MalformedHash(scheme, f"its lanes are not 1 to {MOST_LANES}") from None
        if passes < 1 or memory < 8 * lanes:
            raise MalformedHash(scheme, "its passes or memory are less than Argon2 has") from None
        if memory * 1024 > MOST_MEMORY or memory * 1024 * passes > MOST_MEMORY_WORK:
            raise MalformedHash(
                scheme, f"it asks for more than {MOST_MEMORY} octets of memory, or too many passes"
            ) from None
        salt, expected = _decoded(fields["salt"]), _decoded(fields["digest"])
        if salt is None or expected is None:
            raise MalformedHash(scheme, "its base64 does not decode") from None
        if len(salt) < _LEAST_ARGON2_SALT or len(expected) not in _ARGON2_DIGEST:
            raise MalformedHash(scheme, "the size of its salt or digest is not allowed") from None
        return cls(
            type=_ARGON2_TYPES[fields["kind"]],
            version=int(fields["version"] or _FIRST_ARGON2_VERSION),
            memory=memory,
            passes=passes,
            lanes=lanes,
            expected=expected,
            salt=salt,
        )

    @classmethod
    def of(cls, password: bytes, passes: int, salt: bytes) -> Argon2:
        """Argon2id by the second recommendation of RFC 9106, section 4, which has 3 ``passes``.

        Raises `MemoryError`.
        """
        setting = cls(
            type=Type.ID,
            version=ARGON2_VERSION,
            memory=ARGON2_MEMORY,
            passes=passes,
            lanes=4,
            expected=bytes(32),
            salt=salt,
        )
        return attrs.evolve(setting, expected=setting._key(password))

    @property
    def text(self) -> bytes:
        setting = f"${self._kind}$v={self._version}${self._cost}".encode("ascii")
        return b"$".join((setting, b64s_encode(self._salt), b64s_encode(self._expected)))

    def matches(self, password: bytes) -> bool:
        return compare_digest(self._key(password), self._expected)

    def _key(self, password: bytes) -> bytes:
        try:
            return hash_secret_raw(
                password,
                self._salt,
                time_cost=self._passes,
                memory_cost=self._memory,
                parallelism=self._lanes,
                hash_len=len(self._expected),
                type=self._type,
                version=self._version,
            )
        except argon2.exceptions.HashingError:
            # Every parameter was checked before: memory or threads are what is left to fail.
            raise MemoryError("Argon2 got no memory or no threads") from None

    def decoy(self) -> Argon2:
        return attrs.evolve(
            self, expected=os.urandom(len(self._expected)), salt=os.urandom(len(self._salt))
        )


def _decoded(text: bytes) -> bytes | None:
    """base64 without padding, ``.`` standing for ``+``: text that its pattern has let through."""
    try:
        return ab64_decode(text)
    except (TypeError, ValueError):
        return None
