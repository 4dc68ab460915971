"""Values of crypt(3), which `qmailldap.crypt3` computes."""

from __future__ import annotations

from hmac import compare_digest

import attrs

from qmailldap.crypt3 import crypt
from qmailldap.passwords.settings import Setting

__all__ = ["Crypt"]


@attrs.frozen(repr=False)
class Crypt:
    """A value of crypt(3): hashing a password with the value as setting gives the value again."""

    _setting: Setting
    _value: bytes

    def matches(self, password: bytes) -> bool:
        hashed = crypt(password, self._value)
        return hashed is not None and compare_digest(hashed, self._value)

    def decoy(self) -> Crypt:
        # A setting alone is a value without a digest.
        return Crypt(self._setting, self._setting.with_random_salt())
