"""Reading the control files again, as root: those of the table, in the directory of the start.

Runs in a child of the broker that lives for one question. It is told no name and no path: where the
directory is, what the files are called and which certificates there are, the broker was started
with. The standard library only.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from typing import NamedTuple

from qmailldap.privsep import one_question
from qmailldap.raw_files import MISSING, READ, RawFile, look, pack

__all__ = [
    "DIRMAKER",
    "LIMIT",
    "LONGEST_DIRMAKER",
    "MOST_OCTETS",
    "ControlFiles",
    "dirmaker_in",
    "serve",
    "serve_dirmaker",
]

LIMIT = 30
"""Seconds that all files together may take; by then the child is ended by SIGALRM."""

MOST_OCTETS = 1024 * 1024
"""Octets of the largest file that is read."""

DIRMAKER = b"dirmaker"

LONGEST_DIRMAKER = 4000
"""Octets of the name of a program; as much as a pipe takes in one piece, and more than a path."""

_LARGEST_QUESTION = 64
_BLANKS = b" \t\n"


class ControlFiles(NamedTuple):
    """Where the ``directory`` is, the ``names`` of its files, and the paths of ``certificates``.

    No name is or holds a path.
    """

    directory: bytes
    names: Sequence[bytes]
    certificates: Sequence[bytes]


def serve(descriptor: int, files: ControlFiles) -> None:
    """Answer the one question that comes by the socket ``descriptor``: what is in all of them?

    The question is a number and ``read``. The answer is the number, ``ok``, that no files come
    along, and what `pack` makes of each file, first those of the directory; or the number,
    ``error`` and an error. Raises nothing that a question or a file can cause.
    """
    _answer(descriptor, lambda: _all(files))


def serve_dirmaker(descriptor: int, files: ControlFiles, told: int) -> None:
    """Answer likewise what the control file dirmaker says, in one field; empty where it is silent.

    By the pipe ``told`` the broker is told the same, with ``=`` before it, and before the answer.
    """
    _answer(descriptor, lambda: [_told_dirmaker(files, told)])


def dirmaker_in(file: RawFile) -> bytes:
    """The program that a file names: its first line, as of all control files of that kind.

    Raises ``OSError`` where it cannot be read.
    """
    if file.state == MISSING:
        return b""
    if file.state != READ:
        code = file.trouble or errno.EINVAL
        raise OSError(code, f"dirmaker: {file.state}")
    line = file.content.split(b"\n", 1)[0].rstrip(_BLANKS)
    if len(line) > LONGEST_DIRMAKER or b"\0" in line:
        raise OSError(errno.ENAMETOOLONG, "dirmaker: no name of a program")
    return line


def _answer(descriptor: int, read: Callable[[], list[bytes]]) -> None:
    def content(question: Sequence[bytes]) -> list[bytes]:
        if list(question) != [b"read"]:
            raise OSError(errno.EINVAL, "there is no such question")
        return [b"ok", b"0", *read()]

    one_question.serve(
        descriptor,
        content,
        limit=LIMIT,
        largest=_LARGEST_QUESTION,
        failed=one_question.failure,
    )


def _all(files: ControlFiles) -> list[bytes]:
    if not stat.S_ISDIR(os.stat(files.directory).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory")
    paths = [os.path.join(files.directory, name) for name in files.names]
    return [pack(look(path, MOST_OCTETS)) for path in (*paths, *files.certificates)]


def _told_dirmaker(files: ControlFiles, told: int) -> bytes:
    line = dirmaker_in(look(os.path.join(files.directory, DIRMAKER), MOST_OCTETS))
    os.write(told, b"=" + line)
    return line
