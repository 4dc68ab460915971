"""Values that are a password in clear text, for sites that have asked for that.

Behind {CLEARTEXT} it is what the administrator says it is. A value without a scheme is one only if
no hash can look like it: else whoever has read a hash somewhere could log in with it, as it is.
"""

from __future__ import annotations

import re

from qmailldap.passwords.schemes import is_elsewhere, is_locked, split_scheme

__all__ = ["clear_text"]

_HASH = re.compile(
    b"|".join(
        (
            # DES, whose last character is not looked at; extended DES, cut off or whole.
            rb"[./0-9A-Za-z]{13}",
            rb"_[./0-9A-Za-z]{8}.*",
            # Half of an MD5 digest, as some databases have it.
            rb"[0-9A-Fa-f]{16,}",
            # Digests in base64 or hexadecimal, bigcrypt, and settings with a salt and a digest.
            rb"[A-Za-z0-9./+=$,:_]{20,}",
        )
    ),
    re.DOTALL,
)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


def clear_text(value: bytes) -> bytes | None:
    """The password that the value holds in clear text, never empty; None where it holds none.

    To be asked of sites alone that have asked for clear text.
    """
    split = split_scheme(value)
    if split is not None:
        return split.text or None if split.scheme == "PLAIN" else None
    return None if _may_be_a_hash(value) else value


def _may_be_a_hash(value: bytes) -> bool:
    """Whether a value without a scheme is, or may be, something else than a password."""
    text = value.strip(b" ")
    return (
        not text
        or is_locked(text)
        or is_elsewhere(text)
        # Of crypt(3)'s newer formats, known here or not; of a scheme that is misspelt.
        or text.startswith((b"$", b"{"))
        # What follows a hash that ends in a newline or a NUL is none of its.
        or _CONTROL.search(text) is not None
        or _HASH.fullmatch(text) is not None
    )
