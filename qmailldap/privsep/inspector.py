"""A process that looks at one account's mailbox, with its owner's rights, and says what it saw.

Started as a new interpreter, it has nothing of the memory and files of who starts it, and reads all
of its code before it gives up root: its owner may not be able to. One request on standard input, up
to its end, and one answer on standard output, each a frame:

    place, dirmaker, uid, gid    -> ok, inspection, [error]

With 0 for both ids it stays what it is; an empty dirmaker is none. The standard library only.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from qmailldap.maildir.inspection import Inspection, decode, encode, inspect
from qmailldap.maildir.work import Place
from qmailldap.privsep import encoding, wire
from qmailldap.privsep.giving_up import give_up_root

__all__ = ["MOST_OCTETS", "START", "main", "read_answer", "write_request"]

START = (
    "import sys; sys.path.append(sys.argv[1]);"
    " from qmailldap.privsep.inspector import main; main(int(sys.argv[2]))"
)
"""The program, as ``python -I -S -c`` takes it. Arguments: where the package is, the seconds that
it may take."""

MOST_OCTETS = 256 * 1024
"""Of an answer, and of a request."""

_LENGTH = 4
_NOBODY = 0


def write_request(place: Place, uid: int, gid: int) -> bytes:
    """The request for a look as ``uid`` and ``gid``; both 0: with the rights there are."""
    fields = [
        *encoding.write_place(place),
        place.dirmaker or b"",
        encoding.number_field(uid),
        encoding.number_field(gid),
    ]
    return wire.frame(fields)


def read_answer(octets: bytes) -> tuple[Inspection, OSError | None]:
    """What `inspect` has given there. Raises ``ValueError`` for an answer that is none."""
    word, *fields = wire.fields_of(octets[_LENGTH:]) or [b""]
    if word != b"ok" or not fields:
        raise wire.FrameError("no answer")
    found, *error = fields
    return decode(found), encoding.read_error(error) if error else None


def main(limit: int) -> None:
    """Answer one request; ended by SIGALRM after ``limit`` seconds."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(limit)
    place, uid, gid = _read_request(wire.fields_of(sys.stdin.buffer.read(MOST_OCTETS)[_LENGTH:]))
    os.chdir("/")
    if (uid, gid) != (_NOBODY, _NOBODY):
        give_up_root(uid, gid)
    found, error = inspect(place)
    answer = [b"ok", encode(found), *(encoding.error_fields(error) if error else ())]
    sys.stdout.buffer.write(wire.frame(answer))
    sys.stdout.buffer.flush()


def _read_request(fields: Sequence[bytes]) -> tuple[Place, int, int]:
    *place, dirmaker, uid, gid = fields
    return encoding.read_place(place, dirmaker or None), encoding.number(uid), encoding.number(gid)
