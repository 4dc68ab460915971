"""The users of a measurement and their mail, computed alike by who writes it and who reads it.

Nothing is stored or handed over: the site puts these messages on disk, the load generator expects
exactly them on the wire. No line starts with a dot, so a message differs only in its line ends.
"""

from __future__ import annotations

import random

__all__ = [
    "MESSAGES",
    "PASSWORD",
    "TRANSFERS",
    "file_name",
    "filled",
    "login",
    "mailbox",
    "message",
    "number_of",
    "on_the_wire",
]

MESSAGES = 5
"""Messages in each usual mailbox, all of them in cur/: a poll finds nothing new, changes nothing.
"""

PASSWORD = "a-password-of-usual-length"

TRANSFERS = "transfers"
"""The site whose mailboxes hold two messages of one megabyte instead."""

_SMALLEST, _LARGEST = 1024, 8 * 1024
_MEGABYTE = 1_000_000
_LINE = b"All work and no play makes a dull boy, and then some more words to fill it.\n"


def login(site: str, number: int) -> str:
    """The login of the ``number``-th user of a site."""
    return f"{site}-{number}"


def number_of(user: str) -> tuple[str, int]:
    """The site and the number of a login."""
    site, _, number = user.rpartition("-")
    return site, int(number)


def mailbox(site: str, number: int) -> list[bytes]:
    """All messages of a user, with LF line ends."""
    if site == TRANSFERS:
        return [filled(site, number, index, _MEGABYTE) for index in range(2)]
    return [message(site, number, index) for index in range(MESSAGES)]


def message(site: str, number: int, index: int) -> bytes:
    """What a user's message of that index (from 0) holds, with LF line ends: 1 to 8 KB.

    Its size depends on the user's number and the index alone: every site has the same.
    """
    size = random.Random(f"{number} {index}").randint(_SMALLEST, _LARGEST)
    return filled(site, number, index, size)


def on_the_wire(text: bytes) -> bytes:
    """A message as it is sent, without the line of a dot that ends it."""
    return text.replace(b"\n", b"\r\n")


def file_name(index: int, text: bytes) -> str:
    """The message's name in cur/, with its size and that on the wire, as Dovecot itself names it.

    It is flagged as seen: no session has a reason to rename it.
    """
    sizes = f"S={len(text)},W={len(on_the_wire(text))}"
    return f"{1700000000 + index}.M{index}P{4000 + index}.mx1.example.org,{sizes}:2,S"


def filled(site: str, number: int, index: int, size: int) -> bytes:
    """A message of that many octets."""
    header = b"To: %s@example.org\nSubject: message %d\n\n" % (login(site, number).encode(), index)
    filling = _LINE * (size // len(_LINE) + 1)
    return header + filling[: size - len(header) - 1] + b"\n"
