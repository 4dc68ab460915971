"""The file of the socket: made for its owner alone, never wider for a moment, and taken over.

A UNIX socket outlives the process that has made it. One that nobody listens on is replaced.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import attrs

__all__ = ["LONGEST_PATH", "PathTaken", "PrivateSocket", "bind_private", "check_path"]

LONGEST_PATH = 107
"""Octets that the path of a UNIX socket may have; see unix(7)."""

_BACKLOG = 16
_ONLY_FOR_THE_OWNER = 0o177


class PathTaken(Exception):
    """What is there keeps a socket from being made; the text says what."""


def check_path(path: str) -> None:
    """Raises ``ValueError`` where no socket can have that path."""
    if not path or "\0" in path:
        raise ValueError("this is no path")
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise ValueError(
            f"the path of a UNIX socket has {LONGEST_PATH} octets at most, and this one has"
            f" {len(os.fsencode(path))}"
        )


@attrs.frozen
class PrivateSocket:
    """A listening socket, and which file it is."""

    socket: socket.socket
    path: str
    device: int
    inode: int

    def remove(self) -> None:
        """Remove the file, unless another has taken its place or we no longer may."""
        with suppress(OSError):
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) == (self.device, self.inode):
                os.unlink(self.path)


def bind_private(path: str) -> PrivateSocket:
    """Listen on a path that only its owner may connect to, from its first moment.

    Raises `PathTaken`, and ``OSError`` where the file cannot be made.
    """
    _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with _umask(_ONLY_FOR_THE_OWNER):
            listening.bind(path)
        listening.listen(_BACKLOG)
        made = os.lstat(path)
    except BaseException:
        listening.close()
        raise
    return PrivateSocket(listening, path, made.st_dev, made.st_ino)


def _remove_stale(path: str) -> None:
    """Raises `PathTaken`."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise PathTaken("there is something that is no socket")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)) as probe:
        error = probe.connect_ex(path)
    # A server that is too busy to take it is one that lives (EAGAIN).
    if error != errno.ECONNREFUSED:
        raise PathTaken("a server that is running listens there")
    os.unlink(path)


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
