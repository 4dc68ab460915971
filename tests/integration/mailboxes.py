"""Maildirs on disk as qmail leaves them, and what is found in them afterwards."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable
from pathlib import Path

from .users import OWNER, Owner

__all__ = ["BIG_MESSAGE", "MESSAGES", "Maildir", "as_lines", "brief", "everything_below", "stuffed"]

_HEADER = b"From: ann@example.org\nTo: joe@example.org\nSubject: %s\n\n"

BIG_MESSAGE = _HEADER % b"a megabyte" + b"All work and no play makes a dull boy.\n" * 26_200

MESSAGES = {
    "plain": _HEADER % b"plain" + b"Hello,\n\nhow are you?\n",
    "crlf": (_HEADER % b"crlf" + b"stored by\na program of another system\n").replace(
        b"\n", b"\r\n"
    ),
    "8-bit": _HEADER % b"8-bit" + "Grüße aus Köln\n".encode() + b"and \xe9\xff in no encoding\n",
    "dots": _HEADER % b"dots" + b".\n..\n.hidden\n...\nin the . middle\n.\n",
    "a dot first": b".\nSubject: after a dot\n\n.\n",
    "no newline at the end": _HEADER % b"cut" + b"the last line just ends",
    "empty": b"",
    "header only": b"Subject: nothing more\n",
    "long lines": _HEADER % b"long" + (b"x" * 1500 + b"\n") * 3,
    "big": BIG_MESSAGE,
}
"""Contents that have been trouble to some POP3 server."""


class Maildir:
    """A mailbox at ``path``, made for its owner with tmp, new and cur; nobody else may look in."""

    def __init__(self, path: Path, owner: Owner = OWNER) -> None:
        self.path = path
        self.owner = owner
        self._numbers = itertools.count(1)
        for folder in ("tmp", "new", "cur"):
            (path / folder).mkdir(parents=True, exist_ok=True)
        folders = [path.parent, path, *path.iterdir()]
        for each in folders:
            each.chmod(0o700)
        self.own(*folders)

    def deliver(self, content: bytes, folder: str = "new", flags: str = "") -> str:
        """Put a message where a delivery agent would; gives the unique part of its name.

        Messages are listed in the order in which they were delivered.
        """
        number = next(self._numbers)
        name = f"{1700000000 + number}.{4000 + number}.mx1.example.org"
        written = self.path / "tmp" / name
        written.write_bytes(content)
        written.chmod(0o600)
        self.own(written)
        written.rename(self.path / folder / (name + flags))
        return name

    def deliver_all(self, contents: Iterable[bytes]) -> list[str]:
        return [self.deliver(content) for content in contents]

    def new(self) -> list[str]:
        """The names of the files in new/, in order."""
        return sorted(os.listdir(self.path / "new"))

    def cur(self) -> list[str]:
        """The names of the files in cur/, in order."""
        return sorted(os.listdir(self.path / "cur"))

    def contents(self) -> dict[str, bytes]:
        """Every message of new/ and cur/: what it holds, in `brief`, by folder and name."""
        return {file: brief(content) for file, content in self.read().items()}

    def read(self) -> dict[str, bytes]:
        """As `contents`, with everything that they hold."""
        return {
            f"{folder}/{name}": (self.path / folder / name).read_bytes()
            for folder, names in (("new", self.new()), ("cur", self.cur()))
            for name in names
        }

    def own(self, *paths: Path) -> None:
        """Make the paths the owner's, symbolic links themselves; without root they already are."""
        for path in paths:
            os.chown(path, *self.owner, follow_symlinks=False)


def everything_below(path: Path) -> dict[str, tuple[int, int, int, int, int]]:
    """What tells whether anything was done to ``path`` or below: each file's inode, mode, owner,
    size and time of change.
    """
    statuses = {str(each): each.lstat() for each in (path, *path.rglob("*"))}
    return {
        name: (each.st_ino, each.st_mode, each.st_uid, each.st_size, each.st_ctime_ns)
        for name, each in statuses.items()
    }


def brief(content: bytes) -> bytes:
    """The content itself, or what stands for it where it is so large that to show how it differs
    from another would take minutes.
    """
    if len(content) < 10_000:
        return content
    return b"%b... (%d octets, %b)" % (
        content[:60],
        len(content),
        hashlib.sha256(content).hexdigest().encode(),
    )


def as_lines(content: bytes) -> list[bytes]:
    """The lines that a client gets for a message, whichever line ends it is stored with."""
    lines = content.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return [line.removesuffix(b"\r") for line in lines]


def stuffed(content: bytes) -> list[bytes]:
    """The lines of a message as they come over the connection."""
    return [b"." + line if line.startswith(b".") else line for line in as_lines(content)]
