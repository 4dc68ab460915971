"""Where a local user has his mail delivered, as far as a login server can tell: ~/.qmail.

The standard library only, as `storage`. Source: reference.md, issue of the local passwd; the lines
of dot-qmail(5).
"""

from __future__ import annotations

import os
import stat

__all__ = ["mailbox_in_dot_qmail"]

_MOST_OCTETS = 64 * 1024
"""Octets of the file that are looked at; a line that goes on beyond is none."""


def mailbox_in_dot_qmail(home: bytes) -> bytes | None:
    """The absolute path that the first line of HOME/.qmail with a Maildir's path names.

    Such a line starts with a dot or a slash and ends with a slash. None where there is no such
    line or no regular file. Raises ``OSError`` when the file cannot be read.
    """
    try:
        # O_NONBLOCK: a FIFO would otherwise wait for a writer.
        descriptor = os.open(
            os.path.join(home, b".qmail"), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        content = b""
        while more := os.read(descriptor, _MOST_OCTETS + 1 - len(content)):
            content += more
    finally:
        os.close(descriptor)
    lines = content.split(b"\n")
    if len(content) > _MOST_OCTETS:
        # Half a path would be another one.
        lines.pop()
    for line in lines:
        path = line.rstrip(b" \t")
        if path[:1] in (b".", b"/") and path.endswith(b"/") and b"\0" not in path:
            return os.path.join(home, path.rstrip(b"/") or b"/")
    return None
