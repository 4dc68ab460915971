"""Which commands there are, when they may be given, and with what (RFC 1939)."""

from __future__ import annotations

import sys

import attrs

__all__ = ["COMMANDS", "CommandRefused", "Syntax", "number"]

_LONGEST_NUMBER = 18
"""Digits; a number of more is larger than any that means something."""


class CommandRefused(Exception):
    """A command that is answered with -ERR and the text given, as octets; the session goes on."""


@attrs.frozen
class Syntax:
    """When a command may be given, and with how many arguments."""

    before_login: bool
    after_login: bool
    least: int = 0
    most: int = 0
    blanks_count: bool = False
    """two of them in a row are not one"""


COMMANDS = {
    # A name and a password may hold blanks, as many as fit on the line.
    b"USER": Syntax(True, False, 1, sys.maxsize, True),
    b"PASS": Syntax(True, False, 1, sys.maxsize, True),
    b"APOP": Syntax(True, False, 2, sys.maxsize, True),
    b"AUTH": Syntax(True, False, 0, 2),
    b"STLS": Syntax(True, False),
    b"CAPA": Syntax(True, True),
    b"XCLIENT": Syntax(True, False, 0, sys.maxsize),
    b"NOOP": Syntax(True, True),
    b"QUIT": Syntax(True, True),
    b"STAT": Syntax(False, True),
    b"LIST": Syntax(False, True, 0, 1),
    b"UIDL": Syntax(False, True, 0, 1),
    b"RETR": Syntax(False, True, 1, 1),
    b"TOP": Syntax(False, True, 2, 2),
    b"DELE": Syntax(False, True, 1, 1),
    b"RSET": Syntax(False, True),
    b"LAST": Syntax(False, True),
}
"""Each has a method of the protocol, ``do_`` and its name."""


def number(word: bytes) -> int:
    """A number of the protocol; one that is too long to be read stands for a very large one.

    Raises `CommandRefused` for anything but decimal digits.
    """
    if not word.isdigit():
        raise CommandRefused(b"syntax error")
    return int(word) if len(word) <= _LONGEST_NUMBER else 10**_LONGEST_NUMBER
