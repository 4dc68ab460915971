"""All control files as they were at one moment, unread by anyone: for those who may not read them.

Whoever reads files with the rights of root hands this on; what it means, `read_control` says, as of
the directory itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from qmailldap.control.facts import ControlError
from qmailldap.control.files import FILES
from qmailldap.control.folder import LARGEST_FILE, Directory
from qmailldap.raw_files import MISSING, STATES, RawFile, look

__all__ = ["LARGEST_SNAPSHOT", "MOST_CERTIFICATES", "NAMES", "ControlSnapshot"]

NAMES = tuple(file.name for file in FILES)
"""Those of all control files."""

LARGEST_SNAPSHOT = 32 * 1024 * 1024
"""Octets of all files together; most sites have some thousand."""

MOST_CERTIFICATES = 1000
"""Files that the options may name besides."""

_LARGEST_JSON = 2 * LARGEST_SNAPSHOT
_CERTIFICATE = "cert.pem"
_MISSING = RawFile(MISSING)


@attrs.frozen(kw_only=True)
class ControlSnapshot:
    """What was found in the control directory: each file by its name, as far as it is there.

    ``certificates`` are the files that options name, by their absolute paths. Nothing of a content
    is shown by ``repr``.
    """

    directory: str
    files: Mapping[str, RawFile] = attrs.field(repr=False)
    certificates: Mapping[str, RawFile] = attrs.field(factory=dict, repr=False)

    has_read = True

    @classmethod
    def read(
        cls,
        directory: str | os.PathLike[str],
        certificates: Iterable[str | os.PathLike[str]] = (),
    ) -> ControlSnapshot:
        """What is there now; blocks.

        Raises `ControlError` where there is no such directory, or too much in it.
        """
        folder = Directory(directory)
        return cls.found(
            folder.directory,
            [folder.look(name) for name in NAMES],
            {os.fspath(path): look(os.fsencode(path), LARGEST_FILE) for path in certificates},
        )

    @classmethod
    def found(
        cls, directory: str, files: Sequence[RawFile], certificates: Mapping[str, RawFile]
    ) -> ControlSnapshot:
        """Of what somebody else has read, the ``files`` in the order of `NAMES`.

        Raises `ControlError` where that is too much.
        """
        size = sum(len(file.content) for file in (*files, *certificates.values()))
        if size > LARGEST_SNAPSHOT or len(certificates) > MOST_CERTIFICATES:
            raise ControlError(
                directory, f"its files and certificates have more than {LARGEST_SNAPSHOT} octets"
            )
        there = {
            name: file for name, file in zip(NAMES, files, strict=True) if file.state != MISSING
        }
        return cls(directory=directory, files=there, certificates=certificates)

    def look(self, name: str, *, read: bool = True) -> RawFile:
        """The file as it was."""
        return self.files.get(name, _MISSING)

    def certificate(self, path: Path) -> RawFile:
        """The file of a certificate as it was: one that options name, or cert.pem."""
        if str(path) in self.certificates:
            return self.certificates[str(path)]
        own = path == Path(self.directory, _CERTIFICATE).absolute()
        return self.look(_CERTIFICATE) if own else _MISSING

    def changes(self, before: ControlSnapshot) -> list[str]:
        """What is not as it was: names of control files in their order, paths of certificates.

        Who may read or write a file is no such change.
        """
        names = [name for name in NAMES if _without_mode(self, name) != _without_mode(before, name)]
        paths = [
            path
            for path, file in self.certificates.items()
            if before.certificates.get(path, _MISSING)._replace(mode=0) != file._replace(mode=0)
        ]
        return names + paths

    def to_json(self) -> str:
        """For another process; it holds what the files hold, secrets too."""
        # Not loaded by commands that need neither.
        import json

        return json.dumps(
            {
                "directory": self.directory,
                "files": {name: _to_list(file) for name, file in self.files.items()},
                "certificates": {path: _to_list(file) for path, file in self.certificates.items()},
            }
        )

    @classmethod
    def from_json(cls, text: str) -> ControlSnapshot:
        """The same again. Raises ``ValueError`` for what is none, without showing any of it."""
        import json

        if len(text) > _LARGEST_JSON:
            raise _no_snapshot()
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError):
            raise _no_snapshot() from None
        return cls.from_object(whole)

    @classmethod
    def from_object(cls, whole: Any) -> ControlSnapshot:
        """The same of JSON that was read already."""
        if not isinstance(whole, dict) or whole.keys() != {"directory", "files", "certificates"}:
            raise _no_snapshot()
        directory = whole["directory"]
        files, certificates = _files(whole["files"]), _files(whole["certificates"])
        if not isinstance(directory, str) or not files.keys() <= {*NAMES}:
            raise _no_snapshot()
        try:
            return cls.found(directory, [files.get(n, _MISSING) for n in NAMES], certificates)
        except ControlError:
            raise _no_snapshot() from None


def _without_mode(snapshot: ControlSnapshot, name: str) -> RawFile:
    return snapshot.look(name)._replace(mode=0)


def _to_list(file: RawFile) -> list[Any]:
    import binascii

    content = binascii.b2a_base64(file.content, newline=False).decode("ascii")
    return [file.state, file.mode, file.trouble, content]


def _files(found: Any) -> dict[str, RawFile]:
    if not isinstance(found, dict):
        raise _no_snapshot()
    return {name: _from_list(each) for name, each in found.items()}


def _from_list(found: Any) -> RawFile:
    import binascii

    if not isinstance(found, list) or [type(each) for each in found] != [str, int, int, str]:
        raise _no_snapshot()
    state, mode, trouble, content = found
    if state not in STATES or not 0 <= mode < 2**31 or not 0 <= trouble < 2**31:
        raise _no_snapshot()
    try:
        octets = binascii.a2b_base64(content, strict_mode=True)
    except ValueError:
        raise _no_snapshot() from None
    if len(octets) > LARGEST_FILE:
        raise _no_snapshot()
    return RawFile(state, mode, trouble, octets)


def _no_snapshot() -> ValueError:
    return ValueError("what came is no snapshot of control files")
