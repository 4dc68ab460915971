"""Reading again, as root, the files that the broker was started with: certificates and keys.

Runs in a child of the broker that lives for one file, and is told which by its number only: nobody
has another file read by it. The standard library only.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from qmailldap.privsep import one_question
from qmailldap.regular_files import read_regular

__all__ = ["LIMIT", "MOST_OCTETS", "serve"]

LIMIT = 30
"""Seconds that a file may take; by then the child is ended by SIGALRM."""

MOST_OCTETS = 1024 * 1024
"""Octets of the largest file that is read: chains of certificates have some thousand."""

_LARGEST_QUESTION = 64


def serve(descriptor: int, files: Sequence[bytes]) -> None:
    """Answer the one question that comes by the socket ``descriptor``: what is in a file?

    The question is a number, ``read``, and the number of one of the ``files``, from 0. The answer
    is the number, ``ok``, that no files come along, and the content; or the number, ``error`` and
    an error. Raises nothing that a question or a file can cause.
    """
    one_question.serve(
        descriptor,
        lambda question: _content(question, files),
        limit=LIMIT,
        largest=_LARGEST_QUESTION,
        failed=one_question.failure,
    )


def _content(question: Sequence[bytes], files: Sequence[bytes]) -> list[bytes]:
    word, index = question
    if word != b"read" or not index.isdigit() or int(index) >= len(files):
        raise OSError(errno.EINVAL, "there is no file of that number")
    return [b"ok", b"0", read_regular(files[int(index)], MOST_OCTETS)]
