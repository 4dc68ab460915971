"""Running the program that makes homes, and saying what became of it.

A plain call that blocks, within a limit. The standard library only, and little of it, as
`creation`.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import NamedTuple

from qmailldap.maildir import programs

__all__ = ["DIRMAKER_LIMIT", "Dirmaker", "run"]

DIRMAKER_LIMIT = 30.0
"""Seconds that the program may take which makes a home."""


class Dirmaker(NamedTuple):
    """How a missing home is made: ``program HOME mailbox`` is run with the ``environment``.

    ``program`` is what the control file dirmaker says, sought along PATH unless it has a slash;
    ``mailbox`` is worded as in the record, perhaps relative to the home; ``limit`` is in seconds.
    """

    program: bytes
    mailbox: bytes
    environment: Mapping[bytes, bytes]
    limit: float = DIRMAKER_LIMIT


def run(dirmaker: Dirmaker, home: bytes) -> tuple[int, str]:
    """Run the program to its end, or to that of its time; blocks.

    Gives an errno and a text that say what became of it, for whoever finds no home then: whether
    there is one is looked at by the caller alone. Raises nothing that the program can cause.
    """
    arguments = dirmaker.program, home, dirmaker.mailbox
    try:
        code, output = programs.run(arguments, dirmaker.environment, dirmaker.limit)
    except programs.NotStarted as error:
        return error.errno or errno.EIO, f"could not be started: {error.strerror}"
    said = f": {output.strip().decode('utf-8', 'backslashreplace')}" if output else ""
    if code is None:
        return errno.ETIMEDOUT, f"took more than {dirmaker.limit:g} seconds and was killed{said}"
    if code < 0:
        return errno.EIO, f"was killed by signal {-code}{said}"
    if code == 0:
        return errno.ENOENT, f"ended as if all were well, but left no directory there{said}"
    for_good = " for good" if code == 100 else ""
    return errno.EIO, f"failed{for_good} (exit {code}){said}"
