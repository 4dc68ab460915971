"""Values of crypt(3), which `qmailldap.crypt3` computes."""

from __future__ import annotations

from hmac import compare_digest

import attrs

from qmailldap.crypt3 import crypt
from qmailldap.passwords.settings import Setting, read_setting

__all__ = ["Crypt"]

_ANY_DIGEST = b"." * 11
"""Of the size of DES."""


@attrs.frozen(repr=False)
class Crypt:
    """A value of crypt(3): hashing a password with the value as setting gives the value again."""

    _setting: Setting
    text: bytes

    @classmethod
    def of(cls, password: bytes, setting: bytes) -> Crypt | None:
        """None where the library refuses; raises as `read_setting` and `crypt` do."""
        # With a digest of its own, as the format of some is not to be told without one.
        parsed = read_setting("CRYPT", setting + _ANY_DIGEST)
        hashed = crypt(password, setting)
        return None if hashed is None else cls(parsed, hashed)

    def matches(self, password: bytes) -> bool:
        hashed = crypt(password, self.text)
        return hashed is not None and compare_digest(hashed, self.text)

    def decoy(self) -> Crypt:
        # A setting alone is a value without a digest.
        return Crypt(self._setting, self._setting.with_random_salt())
