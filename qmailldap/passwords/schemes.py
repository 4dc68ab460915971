"""The schemes by their names, and the name of a value's: RFC 2307's {SCHEME} before it.

Canonical names are in upper case; for those that are named by a digest, hashlib's name of that.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = [
    "KNOWN_SCHEMES",
    "PBKDF2_SCHEMES",
    "SALTED",
    "UNSALTED",
    "Split",
    "is_elsewhere",
    "is_locked",
    "split_scheme",
]

UNSALTED = {
    "MD4": "md4",
    "MD5": "md5",
    "RMD160": "ripemd160",
    "SHA": "sha1",
    "SHA256": "sha256",
    "SHA384": "sha384",
    "SHA512": "sha512",
}
SALTED = {
    "SMD5": "md5",
    "SSHA": "sha1",
    "SSHA256": "sha256",
    "SSHA384": "sha384",
    "SSHA512": "sha512",
}
PBKDF2_SCHEMES = {"PBKDF2-SHA1": "sha1", "PBKDF2-SHA256": "sha256", "PBKDF2-SHA512": "sha512"}
KNOWN_SCHEMES = frozenset(
    {*UNSALTED, *SALTED, *PBKDF2_SCHEMES, "ARGON2", "CRYPT", "NS-MTA-MD5", "PLAIN"}
)

_ALIASES = {
    "ARGON2I": "ARGON2",
    "ARGON2ID": "ARGON2",
    "BLF-CRYPT": "CRYPT",
    "CLEAR": "PLAIN",
    "CLEARTEXT": "PLAIN",
    "DES-CRYPT": "CRYPT",
    "LDAP-MD5": "MD5",
    "MD5-CRYPT": "CRYPT",
    "PBKDF2": "PBKDF2-SHA1",
    "SHA1": "SHA",
    "SHA256-CRYPT": "CRYPT",
    "SHA512-CRYPT": "CRYPT",
}
"""OpenLDAP's and Dovecot's other names; a value says itself which crypt(3) or Argon2 it is."""

_PREFIX = re.compile(rb"\{([A-Za-z0-9_-]+)\}")


class Split(NamedTuple):
    """A value with a {SCHEME}: its ``name`` as it is written, ``scheme`` the canonical one."""

    name: str
    scheme: str
    text: bytes


def split_scheme(value: bytes) -> Split | None:
    """None for a value without a scheme; one that nobody knows is a scheme, too."""
    prefix = _PREFIX.match(value)
    if prefix is None:
        return None
    written = prefix[1].decode("ascii")
    name = written.upper()
    return Split(written, _ALIASES.get(name, name), value[prefix.end() :])


def is_locked(text: bytes) -> bool:
    """Whether a value of crypt(3) is locked as in shadow(5), with a hash or without."""
    return text.startswith((b"*", b"!"))


def is_elsewhere(text: bytes) -> bool:
    """Whether it is what passwd(5) has where shadow(5) has the value."""
    return text == b"x"
