"""Reading new/ and cur/: which messages are there, and what their names and inodes say of them.

Only looks. Every name costs time at every login, so a file is asked for its status only where its
name tells too little.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from qmailldap.maildir.names import delivery_number, size_in_name, unique_name

__all__ = ["OPEN_FOLDER", "Folders", "Row", "read_messages", "regular_files"]

Folders = Mapping[bytes, int]
"""The descriptors of new and cur, in the order they must be read, without one that is missing."""

Row = tuple[int, bytes, int, bytes, int]
"""What is learned of a message: the number it is ordered by, unique name, size in octets, its file
relative to the Maildir, and its inode number. The order of rows is that of the listing.
"""

OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How the folders of a Maildir are opened: never by way of a symbolic link, nor waiting."""

_ATTEMPTS = 3
"""How often folders are read because other programs keep changing them."""


def read_messages(folders: Folders) -> tuple[dict[bytes, Row], frozenset[bytes]]:
    """What `_read` gives, read again where a folder changed meanwhile.

    readdir(3) may miss a file that is renamed while it runs, or show it under both names.
    """
    for _ in range(_ATTEMPTS):
        before = _last_changes(folders)
        read = _read(folders)
        if _last_changes(folders) == before:
            break
    return read


def _read(folders: Folders) -> tuple[dict[bytes, Row], frozenset[bytes]]:
    """The messages by unique name, and the unique names of more than one file.

    new/ comes before cur/, for that is the way messages go: one that is moved meanwhile is then
    seen twice rather than never.
    """
    rows: dict[bytes, Row] = {}
    twice = set()
    for folder, descriptor in folders.items():
        prefix = folder + b"/"
        for entry in regular_files(descriptor):
            name = os.fsencode(entry.name)
            unique = unique_name(name)
            number = delivery_number(unique)
            size = size_in_name(unique)
            if number is None or size is None:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                number = int(status.st_mtime) if number is None else number
                size = status.st_size if size is None else size
            file = prefix + name
            if unique in rows:
                twice.add(unique)
                # The lesser name is listed: the one in cur/ before the one in new/.
                if rows[unique][3] < file:
                    continue
            rows[unique] = number, unique, size, file, entry.inode()
    return rows, frozenset(twice)


def regular_files(descriptor: int) -> Iterator[os.DirEntry[str]]:
    """The files of a folder that may be messages. Their kind mostly comes with their names."""
    with os.scandir(descriptor) as entries:
        for entry in entries:
            if entry.name[0] != "." and entry.is_file(follow_symlinks=False):
                yield entry


def _last_changes(folders: Folders) -> list[int]:
    return [os.fstat(descriptor).st_mtime_ns for descriptor in folders.values()]
