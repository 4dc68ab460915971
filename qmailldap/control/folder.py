"""Reading the files of one control directory by the rules of their kinds.

What a value means is not known here. Sources: reference.md, "Control files".
"""

from __future__ import annotations

import codecs
import os
import re
import stat
from pathlib import Path
from typing import Protocol

import attrs

from qmailldap.control.facts import ControlError
from qmailldap.raw_files import (
    BROKEN_LINK,
    LARGER,
    MISSING,
    OTHER,
    STRAY_LINK,
    UNREADABLE,
    RawFile,
    look,
)

__all__ = [
    "DEFAULT_CONTROL",
    "LARGEST_FILE",
    "Directory",
    "Fault",
    "Folder",
    "Source",
    "default_control",
    "open_without_waiting",
]

DEFAULT_CONTROL = "/var/qmail/control"
"""Where the control files are, unless somebody says otherwise."""

LARGEST_FILE = 1024 * 1024
"""Octets of a file that is read."""

_DIGITS = re.compile(rb"[0-9]+")
_MARK = "begins with a byte order mark (BOM)"


def default_control() -> str:
    """The control directory that the environment names by QMAILLDAP_CONTROL, else the usual one."""
    return os.environ.get("QMAILLDAP_CONTROL") or DEFAULT_CONTROL


@attrs.frozen
class Fault:
    """What is wrong with the file ``name``; an error if no server can be started with it."""

    name: str
    problem: str
    is_error: bool = False


class Source(Protocol):
    """Where control files come from: a directory, or what was found in one."""

    @property
    def directory(self) -> str: ...

    def look(self, name: str, *, read: bool = True) -> RawFile:
        """The file of that name, as `qmailldap.raw_files.look` has it."""

    @property
    def has_read(self) -> bool:
        """Whether each file has its content, wanted or not."""


class Directory:
    """A directory whose files are read when they are asked for.

    Raises `ControlError` where there is none.
    """

    has_read = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self.directory = str(self._path)
        try:
            is_directory = stat.S_ISDIR(os.stat(path).st_mode)
        except OSError as error:
            raise ControlError(self.directory, f"cannot be used: {error.strerror}") from None
        if not is_directory:
            raise ControlError(self.directory, "is not a directory")

    def look(self, name: str, *, read: bool = True) -> RawFile:
        return look(os.fsencode(self._path / name), LARGEST_FILE, read=read)


class Folder:
    """The directory, and what is wrong with the files that were read so far: ``faults``.

    ``held`` is what was found in those that others use as they are, where that was read already.

    Raises `ControlError` where there is no such directory; so do the methods, for a file that
    cannot be read or is not of its kind.
    """

    def __init__(self, where: str | os.PathLike[str] | Source) -> None:
        self._source = Directory(where) if isinstance(where, str | os.PathLike) else where
        self._directory = Path(self._source.directory)
        self.directory = str(self._directory)
        self.faults: list[Fault] = []
        self.held: dict[str, bytes] = {}

    def path(self, name: str) -> str:
        return str(self._directory / name)

    def error(self, name: str, problem: str) -> ControlError:
        return ControlError(self.path(name), problem)

    def warn(self, name: str, problem: str) -> None:
        self.faults.append(Fault(name, problem))

    def line(self, name: str) -> str | None:
        """The first line; None where there is no such file or the line is empty."""
        raw = self._first_line(name)
        return self._text(name, raw) if raw else None

    def secret(self, name: str) -> bytes | None:
        """As `line`, but octets; warned of when everybody may read it."""
        found = self._source.look(name)
        content = self._content_of(name, found)
        line = None if content is None else _first_line(content)
        if not line:
            return None
        if found.mode & stat.S_IROTH:
            self.warn(name, "can be read by everyone")
        if line.startswith(codecs.BOM_UTF8):
            self.warn(name, f"{_MARK}, which is taken for a part of it")
        if line.endswith(b"\r"):
            self.warn(
                name,
                "ends in a carriage return (a file with CRLF), which is taken for a part of it",
            )
        return line

    def list(self, name: str) -> tuple[str, ...]:
        """Every line that is neither empty nor a comment."""
        content = self.content(name) or b""
        if content.startswith(codecs.BOM_UTF8):
            raise self._marked(name)
        lines = (_stripped(line) for line in content.split(b"\n"))
        return tuple(self._text(name, line) for line in lines if line and line[:1] != b"#")

    def number(self, name: str, least: int, most: int, unset: int | None = None) -> int | None:
        """The digits that the first line starts with, in ``least`` … ``most``.

        None where there are no digits, and for the number ``unset``.
        """
        number = self._digits(name)
        if number is None or number == unset:
            return None
        if not least <= number <= most:
            raise self.error(name, f"{number} is out of range: {least} to {most}")
        return number

    def content(self, name: str) -> bytes | None:
        """The whole file; None where there is no such file."""
        return self._content_of(name, self._source.look(name))

    def existing(self, name: str, *, readable: bool = True) -> Path | None:
        """The path of the file, where there is one.

        It must be ``readable``, unless it is some programs' business only, which may read it.
        """
        found = self._source.look(name, read=False)
        if found.state == MISSING:
            return None
        self._refuse_broken_link(name, found)
        if not found.is_regular or (readable and found.state == UNREADABLE):
            raise self.error(name, "is not a file that can be read")
        if readable and found.state == LARGER:
            raise self._too_large(name)
        if readable and self._source.has_read:
            self.held[name] = found.content
        return self._directory / name

    def _content_of(self, name: str, found: RawFile) -> bytes | None:
        if found.state == MISSING:
            return None
        self._refuse_broken_link(name, found)
        if found.state == UNREADABLE:
            raise self.error(name, f"cannot be read: {os.strerror(found.trouble)}")
        if found.state == OTHER:
            raise self.error(name, "is not a regular file")
        if found.state == LARGER:
            raise self._too_large(name)
        return found.content

    def _too_large(self, name: str) -> ControlError:
        return self.error(name, f"is larger than {LARGEST_FILE} octets")

    def _digits(self, name: str) -> int | None:
        line = self._first_line(name)
        if line is None:
            return None
        digits = _DIGITS.match(line)
        if digits is None:
            mark = f" (it {_MARK})" if line.startswith(codecs.BOM_UTF8) else ""
            self.warn(name, f"{line[:80]!r} starts with no digit, and is as good as no file{mark}")
            return None
        if len(digits[0].lstrip(b"0")) > 20:
            raise self.error(name, f"a number of {len(digits[0])} digits is out of range")
        return int(digits[0])

    def _first_line(self, name: str) -> bytes | None:
        content = self.content(name)
        return None if content is None else _first_line(content)

    def _text(self, name: str, raw: bytes) -> str:
        if raw.startswith(codecs.BOM_UTF8):
            raise self._marked(name)
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.error(name, f"{raw!r} is not UTF-8 text") from None
        if any(ord(character) < 32 or ord(character) == 127 for character in text):
            crlf = ": the lines of the file end in CRLF, not LF" if text.endswith("\r") else ""
            raise self.error(name, f"{text!r} holds a control character{crlf}")
        return text

    def _refuse_broken_link(self, name: str, found: RawFile) -> None:
        leads = {BROKEN_LINK: "does not exist", STRAY_LINK: "leads nowhere itself"}
        if found.state in leads:
            target = os.fsdecode(found.content)
            raise self.error(name, f"is a symbolic link to {target!r}, which {leads[found.state]}")

    def _marked(self, name: str) -> ControlError:
        return self.error(name, f"{_MARK}: save it as UTF-8 without")


def open_without_waiting(path: str, flags: int) -> int:
    """A FIFO would otherwise wait for somebody to write to it."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _first_line(content: bytes) -> bytes:
    return _stripped(content.split(b"\n", 1)[0])


def _stripped(line: bytes) -> bytes:
    return line.rstrip(b" \t\n")
