"""The users of a measurement and their mail, computed alike by who writes it and who reads it.

Nothing is stored or handed over: the site puts these messages on disk, the load generator expects
exactly them on the wire. No line starts with a dot, so a message differs only in its line ends.
"""

from __future__ import annotations

import random

__all__ = ["MESSAGES", "PASSWORD", "file_name", "login", "message"]

MESSAGES = 5
"""Messages in each mailbox, all of them in cur/: a poll finds nothing new and changes nothing."""

PASSWORD = "a-password-of-usual-length"

_SMALLEST, _LARGEST = 1024, 8 * 1024
_LINE = b"All work and no play makes a dull boy, and then some more words to fill it.\n"
_FILLING = _LINE * (_LARGEST // len(_LINE) + 1)


def login(site: str, number: int) -> str:
    """The login of the ``number``-th user of a site."""
    return f"{site}-{number}"


def message(site: str, number: int, index: int) -> bytes:
    """What a user's message of that index (from 0) holds, with LF line ends: 1 to 8 KB.

    Its size depends on the user's number and the index alone: every site has the same.
    """
    header = b"To: %s@example.org\nSubject: message %d\n\n" % (login(site, number).encode(), index)
    size = random.Random(f"{number} {index}").randint(_SMALLEST, _LARGEST)
    return header + _FILLING[: size - len(header) - 1] + b"\n"


def file_name(index: int, size: int) -> str:
    """The message's name in cur/, of a kind that qmail gives; every second one tells the size."""
    tag = f",S={size}" if index % 2 else ""
    return f"{1700000000 + index}.{4000 + index}.mx1.example.org{tag}:2,"
