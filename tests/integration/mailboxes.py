"""Maildirs on disk as qmail leaves them, and what is found in them afterwards."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from .users import OWNER_GID, OWNER_UID

__all__ = ["BIG_MESSAGE", "MESSAGES", "Maildir", "as_lines", "brief", "give_to_owner"]

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
    """A mailbox at ``path``, made for its owner with tmp, new and cur."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._delivered = 0
        for folder in ("tmp", "new", "cur"):
            (path / folder).mkdir(parents=True, exist_ok=True)
        self._own([path.parent, path, *path.iterdir()])

    def deliver(self, content: bytes, folder: str = "new", flags: str = "") -> str:
        """Put a message where a delivery agent would; gives the unique part of its name.

        Messages are listed in the order in which they were delivered.
        """
        self._delivered += 1
        name = f"{1700000000 + self._delivered}.{4000 + self._delivered}.mx1.example.org"
        path = self.path / folder / (name + flags)
        path.write_bytes(content)
        self._own([path])
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
        return {
            f"{folder}/{name}": brief((self.path / folder / name).read_bytes())
            for folder, names in (("new", self.new()), ("cur", self.cur()))
            for name in names
        }

    def _own(self, paths: Iterable[Path]) -> None:
        for path in paths:
            give_to_owner(path)


def give_to_owner(path: Path) -> None:
    """Make ``path`` the accounts' own; without root it already is."""
    os.chown(path, OWNER_UID, OWNER_GID)


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
