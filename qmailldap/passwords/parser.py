"""Which scheme a value is of: reference.md, "Password values", and the names others give them."""

from __future__ import annotations

import hashlib

from qmailldap.passwords.clear import clear_text
from qmailldap.passwords.crypted import Crypt
from qmailldap.passwords.digests import Digest, NetscapeMD5, Salted, Unsalted, find_digest
from qmailldap.passwords.schemes import (
    PBKDF2_SCHEMES,
    SALTED,
    UNSALTED,
    is_elsewhere,
    is_locked,
    split_scheme,
)
from qmailldap.passwords.settings import read_setting
from qmailldap.passwords.stored import MalformedHash, Never, StoredPassword

__all__ = ["DEFAULT_DECOY", "load_libraries", "parse_password"]

_NEVER = StoredPassword("NEVER", "NEVER", True, Never())


def parse_password(value: bytes, *, cleartext: bool = False) -> StoredPassword:
    """The value of userPassword, as a whole.

    ``cleartext`` says that the site has asked for clear text: only then does a value match that is
    a password itself (`clear_text`). Raises `MalformedHash`. Libraries that few values need are
    loaded for the first that does, unless `load_libraries` has done so.
    """
    password = clear_text(value) if cleartext else None
    if password is not None:
        return _plain(password)
    split = split_scheme(value)
    if split is None:
        return _crypt(value)
    scheme, text = split.scheme, split.text
    if scheme in UNSALTED:
        return _quick(scheme, Unsalted(_digest(scheme, UNSALTED[scheme]), text))
    if scheme in SALTED:
        digest = _digest(scheme, SALTED[scheme])
        return _quick(scheme, Salted.parse(scheme, digest, text))
    if scheme == "NS-MTA-MD5":
        return _quick(scheme, NetscapeMD5.parse(scheme, _digest(scheme, "md5"), text))
    if scheme in PBKDF2_SCHEMES:
        from qmailldap.passwords.derived import PBKDF2

        algorithm = PBKDF2_SCHEMES[scheme]
        size = hashlib.new(algorithm, usedforsecurity=False).digest_size
        pbkdf2 = PBKDF2.parse(scheme, algorithm, size, text)
        return StoredPassword(scheme, f"{scheme} {pbkdf2.rounds}", False, pbkdf2)
    if scheme == "ARGON2":
        from qmailldap.passwords.derived import Argon2

        argon2 = Argon2.parse(scheme, text)
        return StoredPassword(scheme, f"{scheme} {argon2.parameters}", False, argon2)
    if scheme == "PLAIN":
        return _NEVER
    if scheme == "CRYPT":
        return _crypt(text)
    # A scheme that nobody here knows is none: crypt(3) gets the value with its braces.
    return _crypt(value)


def load_libraries() -> None:
    """Load what any value may need: later there may be no right to read it."""
    import qmailldap.passwords.derived  # noqa: F401

    for algorithm in UNSALTED.values():
        find_digest(algorithm)


def _crypt(value: bytes) -> StoredPassword:
    """A value of crypt(3), or one of shadow(5)'s that lock an account, alone or before a hash."""
    if not value or is_elsewhere(value) or is_locked(value):
        return _NEVER
    setting = read_setting("CRYPT", value)
    return StoredPassword("CRYPT", setting.cost, False, Crypt(setting, value))


def _plain(password: bytes) -> StoredPassword:
    # As a digest, so that the comparison takes the same time for any length.
    digest = _digest("PLAIN", "sha256")
    return _quick("PLAIN", Unsalted.of(digest, password))


def _quick(scheme: str, method: Unsalted | Salted | NetscapeMD5) -> StoredPassword:
    return StoredPassword(scheme, scheme, True, method)


def _digest(scheme: str, algorithm: str) -> Digest:
    digest = find_digest(algorithm)
    if digest is None:
        raise MalformedHash(scheme, "no library of this host computes its digest") from None
    return digest


DEFAULT_DECOY = _quick("SSHA", Salted.random(_digest("SSHA", "sha1"))).decoy()
"""For users that do not exist, as long as nothing is known of those that do."""
