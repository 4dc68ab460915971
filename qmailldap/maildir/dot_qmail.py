"""Where a local user has his mail delivered, as far as a login server can tell: ~/.qmail.

The standard library only, as `storage`. Source: reference.md, issue of the local passwd; the lines
of dot-qmail(5).
"""

from __future__ import annotations

import os
import stat

__all__ = ["mailbox_in_dot_qmail"]

_LARGEST_FILE = 64 * 1024


def mailbox_in_dot_qmail(home: bytes) -> bytes | None:
    """The absolute path that the first line of HOME/.qmail with a Maildir's path names.

    Such a line starts with a dot or a slash and ends with a slash. None where there is no such
    line or file. Raises ``OSError`` when the file cannot be read.
    """
    try:
        # O_NONBLOCK: a FIFO would otherwise wait for a writer.
        descriptor = os.open(
            os.path.join(home, b".qmail"), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        content = file.read(_LARGEST_FILE)
    for line in content.split(b"\n"):
        path = line.rstrip(b" \t")
        if path[:1] in (b".", b"/") and path.endswith(b"/") and b"\0" not in path:
            return os.path.join(home, path.rstrip(b"/") or b"/")
    return None
