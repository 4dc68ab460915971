"""What can be read from a crypt(3) setting before it is run: its cost, and where its salt is.

A setting is all of a value but the digest; see crypt(5). Only the library knows what a format
means; here is just enough to bound the cost of a value and to make a decoy for it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

import attrs

from qmailldap.passwords.limits import (
    MOST_BCRYPT_LOG_ROUNDS,
    MOST_MEMORY,
    MOST_MEMORY_WORK,
    MOST_ROUNDS,
)
from qmailldap.passwords.stored import UNKNOWN_COST, MalformedHash

__all__ = ["ALPHABET", "Setting", "random_salt", "read_setting"]

ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""crypt(3)'s digits of base 64, in their order."""

_MOST_SALT = 86
"""Characters: yescrypt's most; a format of fewer cuts it itself."""

_COUNTED = re.compile(rb"_[./0-9A-Za-z]{8}|\$(?:2[abxy]|[567]|sha1|md5|g?y|sm3y?)[$,]")
"""The formats with a cost in them."""


def random_salt(size: int) -> bytes:
    """``size`` characters of crypt(3)'s base 64."""
    return "".join(secrets.choice(ALPHABET) for _ in range(size)).encode("ascii")


@attrs.frozen
class Setting:
    """The setting of a value; ``cost`` names its format and cost parameters."""

    cost: str
    _prefix: bytes = attrs.field(repr=False)
    _salt_size: int
    _end: bytes = attrs.field(repr=False)

    def with_random_salt(self) -> bytes:
        """This setting with a salt of the same size."""
        if not self._salt_size:
            return self._prefix + self._end
        # Where a salt is octets in base 64, its last character has bits that must be zero.
        return self._prefix + random_salt(self._salt_size - 1) + b"." + self._end


_UNKNOWN = Setting(UNKNOWN_COST, prefix=b"*0", salt_size=0, end=b"")
"""A setting that the library refuses, as it does values of no format known here."""


def read_setting(scheme: str, value: bytes) -> Setting:
    """The setting of a crypt(3) value.

    Raises `MalformedHash` for a cost beyond the limits, or one that cannot be read, as it could be
    beyond them.
    """
    for form in _FORMATS:
        fields = form.pattern.match(value)
        if fields is not None:
            fault = form.fault(fields)
            if fault is not None:
                raise MalformedHash(scheme, fault) from None
            prefix: bytes = fields["prefix"]
            return Setting(
                cost=f"CRYPT {form.name or prefix.decode('ascii')}",
                prefix=prefix,
                salt_size=min(len(fields["salt"]), _MOST_SALT),
                end=b"$" if prefix.startswith(b"$") and form.salt_is_delimited else b"",
            )
    if _COUNTED.match(value):
        raise MalformedHash(scheme, "its cost cannot be read") from None
    return _UNKNOWN


def _no_fault(fields: re.Match[bytes]) -> str | None:
    return None


def _rounds_fault(fields: re.Match[bytes]) -> str | None:
    if int(fields["rounds"] or 0) > MOST_ROUNDS:
        return f"its rounds are more than {MOST_ROUNDS}"
    return None


def _extended_des_fault(fields: re.Match[bytes]) -> str | None:
    """The rounds are four digits, the least significant first."""
    digits = (ALPHABET.index(chr(octet)) for octet in fields["rounds"])
    if sum(digit << 6 * place for place, digit in enumerate(digits)) > MOST_ROUNDS:
        return f"its rounds are more than {MOST_ROUNDS}"
    return None


def _bcrypt_fault(fields: re.Match[bytes]) -> str | None:
    if int(fields["log_rounds"]) > MOST_BCRYPT_LOG_ROUNDS:
        return f"its cost is more than {MOST_BCRYPT_LOG_ROUNDS}"
    return None


def _scrypt_fault(fields: re.Match[bytes]) -> str | None:
    """One digit is the logarithm of N, five each are r and p, the least significant first."""
    log_n, *digits = (ALPHABET.index(chr(octet)) for octet in fields["parameters"])
    r, p = (
        sum(digit << 6 * place for place, digit in enumerate(number))
        for number in (digits[:5], digits[5:])
    )
    return _memory_fault(log_n, r, p)


def _yescrypt_fault(fields: re.Match[bytes]) -> str | None:
    """Flavour, the logarithm of N, and r; then perhaps which of p and t follow, and these."""
    digits = [ALPHABET.index(chr(octet)) for octet in fields["parameters"]]
    p = 1
    t = 0
    try:
        _take_number(digits, 0)
        log_n = _take_number(digits, 1)
        r = _take_number(digits, 1)
        if digits:
            present = _take_number(digits, 1)
            if present & 1:
                p = _take_number(digits, 2)
            if present & 2:
                t = _take_number(digits, 1)
    except IndexError:
        return "its cost cannot be read"
    if digits:
        # Hash upgrades or a ROM, of which crypt(3) has neither.
        return "its cost cannot be read"
    return _memory_fault(log_n, r, p * (t + 1))


def _take_number(digits: list[int], least: int) -> int:
    """Take a number off the front: its first digit says how many follow; see yescrypt's sources.

    Raises `IndexError` where the digits run out.
    """
    first = digits.pop(0)
    number = least
    start, end, following = 0, 47, 0
    while first > end:
        number += (end + 1 - start) << 6 * following
        start = end + 1
        end = start + (62 - end) // 2
        following += 1
    number += (first - start) << 6 * following
    for place in reversed(range(following)):
        number += digits.pop(0) << 6 * place
    return number


def _memory_fault(log_n: int, r: int, passes: int) -> str | None:
    # The first test keeps the shift below small.
    if log_n > 63 or (128 * r << log_n) > MOST_MEMORY:
        return f"it asks for more than {MOST_MEMORY} octets of memory"
    if (128 * r << log_n) * passes > MOST_MEMORY_WORK:
        return f"it asks for more than {MOST_MEMORY_WORK} octets to be filled"
    return None


@attrs.frozen
class _Format:
    """A format: ``pattern`` has groups prefix and salt, and what ``fault`` judges the cost by.

    ``name`` stands for the prefix in the cost where the prefix does not say all.
    """

    pattern: re.Pattern[bytes]
    fault: Callable[[re.Match[bytes]], str | None] = _no_fault
    name: str = ""
    salt_is_delimited: bool = True


_DIGIT = rb"[./0-9A-Za-z]"
_TO_DOLLAR = rb"(?P<salt>[^$]*)"


def _form(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL)


_FORMATS = (
    _Format(
        _form(rb"(?P<prefix>\$2[abxy]\$(?P<log_rounds>[0-9]{2})\$)(?P<salt>%s{0,22})" % _DIGIT),
        _bcrypt_fault,
        salt_is_delimited=False,
    ),
    _Format(
        _form(rb"(?P<prefix>\$(?:5|6|sm3)\$rounds=(?P<rounds>[0-9]{1,20})\$)" + _TO_DOLLAR),
        _rounds_fault,
    ),
    _Format(_form(rb"(?P<prefix>\$5\$)(?!rounds=)" + _TO_DOLLAR), name="$5$rounds=5000$"),
    _Format(_form(rb"(?P<prefix>\$6\$)(?!rounds=)" + _TO_DOLLAR), name="$6$rounds=5000$"),
    _Format(_form(rb"(?P<prefix>\$sm3\$)(?!rounds=)" + _TO_DOLLAR), name="$sm3$rounds=5000$"),
    _Format(_form(rb"(?P<prefix>\$[13]\$)" + _TO_DOLLAR)),
    _Format(_form(rb"(?P<prefix>\$sha1\$(?P<rounds>[0-9]{1,20})\$)" + _TO_DOLLAR), _rounds_fault),
    _Format(
        _form(rb"(?P<prefix>\$md5(?:,rounds=(?P<rounds>[0-9]{1,20}))?\$)" + _TO_DOLLAR),
        _rounds_fault,
    ),
    _Format(
        _form(rb"(?P<prefix>\$(?:y|gy|sm3y)\$(?P<parameters>%s{1,64})\$)" % _DIGIT + _TO_DOLLAR),
        _yescrypt_fault,
    ),
    _Format(
        _form(rb"(?P<prefix>\$7\$(?P<parameters>%s{11}))" % _DIGIT + _TO_DOLLAR),
        _scrypt_fault,
    ),
    # The whole of it, so that the cost of what only starts like it does not show four characters.
    _Format(
        _form(rb"(?P<prefix>_(?P<rounds>%s{4}))(?P<salt>%s{4})%s{11}\Z" % ((_DIGIT,) * 3)),
        _extended_des_fault,
    ),
    _Format(_form(rb"(?P<prefix>)(?P<salt>%s{2})" % _DIGIT), name="DES"),
)
