"""What the name of a file in a Maildir says; octets in, data out, no I/O.

A name is ``unique`` or ``unique:info``. The unique name stays with the message for ever, the info
part changes whenever a mail program sets a flag. Sources: cr.yp.to/proto/maildir.html, Maildir++
for the sizes in names, reference.md ("qmail-popup and qmail-pop3d") for order and unique-ids.
"""

from __future__ import annotations

import re

__all__ = [
    "PRINTABLE",
    "delivery_number",
    "is_trashed",
    "seen_name",
    "size_in_name",
    "stored_size",
    "unique_id",
    "unique_ids",
    "unique_name",
]

_LONGEST_SIZE = 18
"""Digits of a size in a name; a number of more is no size of any file."""

PRINTABLE = bytes(range(0x21, 0x7F))
_NOT_PRINTABLE = re.compile(rb"[^\x21-\x7e]")


def unique_name(name: bytes) -> bytes:
    """The part of a file's name that stays: all up to the first colon."""
    return name.partition(b":")[0]


def unique_id(unique: bytes) -> bytes:
    """What UIDL shows for a unique name: printable ASCII without blanks, never empty.

    A name that is clean already is shown as it is, even beyond the 70 octets of RFC 1939: any other
    answer than the one the original gave makes clients download everything again. In other names
    every octet that may not be shown becomes ``:XX``; two names never share an id, for a unique
    name holds no colon.
    """
    # One look at the whole name: a mailbox of 10,000 asks 10,000 times.
    if unique and not unique.translate(None, PRINTABLE):
        return unique
    return _NOT_PRINTABLE.sub(lambda octet: b":%02X" % ord(octet[0]), unique) or b":"


def unique_ids(uniques: list[bytes]) -> list[bytes]:
    """The `unique_id` of each of many unique names; a list of clean ones may be given back."""
    # None of them is empty if the octets between them that no name has are never side by side.
    text = b"\0%b\0" % b"\0".join(uniques)
    if b"\0\0" not in text and not text.translate(None, PRINTABLE + b"\0"):
        return uniques
    return [unique_id(unique) for unique in uniques]


def delivery_number(unique: bytes) -> int | None:
    """The number a name starts with, by custom the second of delivery; None where it has none."""
    digits, dot, _ = unique.partition(b".")
    if dot and digits.isdigit():
        return int(digits) or None
    return None


def size_in_name(unique: bytes) -> int | None:
    """The octets of the message as its name tells them, with CRLF (``,W=``) where it says so."""
    size = _number_behind(b",W=", unique)
    return stored_size(unique) if size is None else size


def stored_size(unique: bytes) -> int | None:
    """The octets of the file as its name tells them (``,S=``): what a quota counts."""
    return _number_behind(b",S=", unique)


def _number_behind(tag: bytes, unique: bytes) -> int | None:
    # By hand, for a regular expression takes half as long again, 10,000 times a login.
    _, found, rest = unique.partition(tag)
    if found:
        digits = rest.partition(b",")[0]
        if digits.isdigit() and len(digits) <= _LONGEST_SIZE:
            return int(digits)
    return None


def is_trashed(name: bytes) -> bool:
    """Whether a mail program has flagged the file as to be deleted: no quota counts it."""
    _, found, flags = name.partition(b":2,")
    return bool(found) and b"T" in flags.partition(b",")[0]


def seen_name(name: bytes) -> bytes:
    """The name in cur/ of a file that is in new/ under ``name``."""
    return name if name[len(unique_name(name)) :].startswith(b":2,") else name + b":2,"
