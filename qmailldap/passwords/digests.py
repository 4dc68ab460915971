"""Values that are one plain digest: RFC 2307's, those of OpenLDAP's pw-sha2, Netscape's."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from hmac import compare_digest

import attrs

from qmailldap.passwords.stored import MalformedHash

__all__ = [
    "SALT_SIZE",
    "Digest",
    "NetscapeMD5",
    "Salted",
    "Unsalted",
    "decode_base64",
    "find_digest",
]

SALT_SIZE = 8
"""Octets of salt in a value made here."""

_NETSCAPE_HALF = 32

_BASE64 = re.compile(
    rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?",
)


@attrs.frozen
class Digest:
    """A digest function; ``size`` is in octets."""

    size: int
    of: Callable[[bytes], bytes]


@functools.cache
def find_digest(algorithm: str) -> Digest | None:
    """The digest by hashlib's name for it; None where no library of this host computes it."""
    # A host in FIPS mode gives MD5 and SHA-1 only to those who say so; the digests were chosen by
    # those who stored the values.
    try:
        empty = hashlib.new(algorithm, usedforsecurity=False)
    except ValueError:
        # OpenSSL 3 has no MD4; passlib brings its own, and takes its time to load.
        from passlib.crypto.digest import lookup_hash

        known = lookup_hash(algorithm, required=False)
        if not known.supported:
            return None
        return Digest(known.digest_size, lambda octets: known.const(octets).digest())
    return Digest(
        empty.digest_size,
        lambda octets: hashlib.new(algorithm, octets, usedforsecurity=False).digest(),
    )


# passlib's ldap_* handlers are not used: they take salts of 4 to 16 octets only, while any length
# is allowed here, and raise on a password of more than 4096 octets.


@attrs.frozen(repr=False)
class Unsalted:
    """base64 of digest(password), exactly; ``text`` is compared as it is.

    So text that is no base64 at all matches nothing, as reference.md has it.
    """

    _digest: Digest
    text: bytes

    @classmethod
    def of(cls, digest: Digest, password: bytes) -> Unsalted:
        return cls(digest, b64encode(digest.of(password)))

    def matches(self, password: bytes) -> bool:
        return compare_digest(Unsalted.of(self._digest, password).text, self.text)

    def decoy(self) -> Unsalted:
        return Unsalted(self._digest, b64encode(os.urandom(self._digest.size)))


@attrs.frozen(repr=False)
class Salted:
    """base64 of digest(password + salt) + salt; the salt is whatever follows the digest."""

    _digest: Digest
    _expected: bytes
    _salt: bytes

    @classmethod
    def parse(cls, scheme: str, digest: Digest, text: bytes) -> Salted:
        """Raises `MalformedHash` for text that does not decode or does not hold a digest."""
        octets = decode_base64(text)
        if octets is None:
            raise MalformedHash(scheme, "its base64 does not decode") from None
        if len(octets) < digest.size:
            raise MalformedHash(scheme, "it is too short to hold its digest") from None
        return cls(digest, octets[: digest.size], octets[digest.size :])

    @classmethod
    def of(cls, digest: Digest, password: bytes, salt: bytes) -> Salted:
        return cls(digest, digest.of(password + salt), salt)

    @classmethod
    def random(cls, digest: Digest) -> Salted:
        """A value of a password that nobody knows."""
        return cls(digest, os.urandom(digest.size), os.urandom(SALT_SIZE))

    @property
    def text(self) -> bytes:
        return b64encode(self._expected + self._salt)

    def matches(self, password: bytes) -> bool:
        hashed = Salted.of(self._digest, password, self._salt)
        return compare_digest(hashed._expected, self._expected)

    def decoy(self) -> Salted:
        return Salted(self._digest, os.urandom(self._digest.size), os.urandom(len(self._salt)))


@attrs.frozen(repr=False)
class NetscapeMD5:
    """Netscape Mail Transport Agent's: hex MD5 of the password between two salts, then the salt."""

    _digest: Digest
    _expected: bytes
    _salt: bytes

    @classmethod
    def parse(cls, scheme: str, digest: Digest, text: bytes) -> NetscapeMD5:
        """Raises `MalformedHash` for another length than 64."""
        if len(text) != 2 * _NETSCAPE_HALF:
            raise MalformedHash(scheme, f"it is not of {2 * _NETSCAPE_HALF} characters") from None
        return cls(digest, text[:_NETSCAPE_HALF], text[_NETSCAPE_HALF:])

    @classmethod
    def of(cls, digest: Digest, password: bytes, salt: bytes) -> NetscapeMD5:
        """``salt`` is the text that follows the digest, 32 octets."""
        octets = salt + b"\x59" + password + b"\xf7" + salt
        return cls(digest, digest.of(octets).hex().encode("ascii"), salt)

    @property
    def text(self) -> bytes:
        return self._expected + self._salt

    def matches(self, password: bytes) -> bool:
        hashed = NetscapeMD5.of(self._digest, password, self._salt)
        return compare_digest(hashed._expected, self._expected)

    def decoy(self) -> NetscapeMD5:
        half = _NETSCAPE_HALF // 2
        return NetscapeMD5(
            self._digest,
            os.urandom(half).hex().encode("ascii"),
            os.urandom(half).hex().encode("ascii"),
        )


def decode_base64(text: bytes) -> bytes | None:
    """The octets; None for text that is not base64 from end to end, padded."""
    # What b64decode calls valid differs between versions of Python.
    return b64decode(text) if _BASE64.fullmatch(text) else None
