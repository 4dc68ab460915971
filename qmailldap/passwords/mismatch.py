"""Why no password can match a value, in words for an administrator.

Nothing is verified here, and no cost is spent: a value is held against the forms that its scheme
has. Of the value, only the name of its scheme is told.
"""

from __future__ import annotations

import re

from qmailldap.passwords.clear import clear_text
from qmailldap.passwords.digests import decode_base64, find_digest
from qmailldap.passwords.schemes import (
    KNOWN_SCHEMES,
    UNSALTED,
    is_elsewhere,
    is_locked,
    split_scheme,
)
from qmailldap.passwords.settings import read_setting
from qmailldap.passwords.stored import UNKNOWN_COST, MalformedHash

__all__ = ["why_no_match"]

_NAME = re.compile("[A-Za-z][A-Za-z0-9_-]{0,23}")
"""A scheme's, rather than something else in braces."""

_DIGIT = rb"[./0-9A-Za-z]"
_DES_DIGEST = rb"(?:%s{10}[.26AEIMQUYcgkosw])" % _DIGIT
"""64 bits in eleven digits of six: the last has two bits that are zero."""

_WHOLE = re.compile(
    b"|".join(
        pattern.replace(b"D", _DIGIT)
        for pattern in (
            rb"\$2[abxy]\$[0-9]{2}\$D{53}",
            rb"\$6\$(?:rounds=[0-9]+\$)?[^$]{0,16}\$D{86}",
            rb"\$(?:5|sm3)\$(?:rounds=[0-9]+\$)?[^$]{0,16}\$D{43}",
            rb"\$(?:y|gy|sm3y)\$D+\$[^$]*\$D{43}",
            rb"\$7\$D{11}[^$]*\$D{43}",
            rb"\$sha1\$[0-9]+\$[^$]*\$D{28}",
            rb"\$md5(?:,rounds=[0-9]+)?\$[^$]*\$\$?D{22}",
            rb"\$1\$[^$]{0,8}\$D{22}",
            rb"\$3\$[^$]*\$[0-9a-f]{32}",
        )
    )
    # DES, for long passwords perhaps several times (bigcrypt), and extended DES.
    + rb"|%s{2}%s{1,16}|_%s{8}%s" % (_DIGIT, _DES_DIGEST, _DIGIT, _DES_DIGEST),
    re.DOTALL,
)
"""What crypt(3) can give, of the formats known here; see crypt(5)."""


def why_no_match(value: bytes, *, cleartext: bool = False) -> str:
    """A line; empty where a password may match, or the value is malformed (`parse_password`).

    ``cleartext`` as `parse_password` has it.
    """
    if not value:
        return "it is empty"
    if cleartext and clear_text(value) is not None:
        return ""
    guess = "clear text that lacks {CLEARTEXT}?" if cleartext else "clear text?"
    split = split_scheme(value)
    if split is None:
        return _why_crypt("", value, guess)
    if split.scheme not in KNOWN_SCHEMES:
        # What is in braces and nothing else is rather a password.
        if split.text and _NAME.fullmatch(split.name):
            return f"{{{split.name}}} is a scheme that is not known here"
        return _why_crypt("", value, guess)
    shown = f"{{{split.name}}}"
    if not split.text:
        return f"{shown} is followed by nothing"
    if split.scheme == "PLAIN":
        return f"{shown} is clear text, which needs the control file ldapcleartext"
    if split.scheme == "CRYPT":
        return _why_crypt(shown, split.text)
    if split.scheme in UNSALTED:
        return _why_unsalted(shown, UNSALTED[split.scheme], split.text)
    if split.scheme == "NS-MTA-MD5" and not re.match(b"[0-9a-f]{32}", split.text):
        return f"{shown} value: its digest is not hexadecimal in small letters"
    return ""


def _why_crypt(shown: str, text: bytes, guess: str = "clear text?") -> str:
    """``guess`` is what a value may be that is of no format at all."""
    if is_locked(text):
        return "it is locked by ! or *"
    if is_elsewhere(text):
        return "it is x, which stands for a value elsewhere"
    if _WHOLE.fullmatch(text):
        return ""
    what = f"{shown} value: it is" if shown else "it has no {SCHEME} and is"
    if not text.startswith(b"$"):
        return f"{what} nothing that crypt(3) gives: {guess}"
    try:
        is_known = read_setting("CRYPT", text).cost != UNKNOWN_COST
    except MalformedHash:
        return ""
    if is_known:
        return f"{what} not whole, for crypt(3): cut off?"
    return f"{what} of no format of crypt(3) that is known here: {guess}"


def _why_unsalted(shown: str, algorithm: str, text: bytes) -> str:
    digest = find_digest(algorithm)
    octets = decode_base64(text)
    if digest is None or (octets is not None and len(octets) == digest.size):
        return ""
    return f"{shown} value: it is not {digest.size} octets in base64"
