"""Reading whole small files, without waiting for what is none. The standard library only."""

from __future__ import annotations

import errno
import os
import stat

__all__ = ["read_regular"]


def read_regular(path: str | bytes | os.PathLike[str], most: int) -> bytes:
    """The content of a regular file of at most ``most`` octets; symbolic links are followed.

    Raises ``OSError`` with errno and text: EINVAL for what is no regular file, EFBIG for one that
    is larger.
    """
    # O_NONBLOCK: to open a FIFO would wait for somebody to write to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        content = bytearray()
        while chunk := os.read(descriptor, most + 1 - len(content)):
            content += chunk
            if len(content) > most:
                raise OSError(errno.EFBIG, f"it has more than {most} octets")
        return bytes(content)
    finally:
        os.close(descriptor)
