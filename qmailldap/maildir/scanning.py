"""Reading new/ and cur/: which messages are there, and what their names and inodes say of them.

Only looks. Every name costs time at every login, so a file is asked for its status only where its
name tells too little, and names of the usual kind are looked at all at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from qmailldap.maildir.names import delivery_number, size_in_name, unique_name

__all__ = [
    "OPEN_FOLDER",
    "SETTLED",
    "Folders",
    "Found",
    "Row",
    "Snapshot",
    "read_in_order",
    "read_messages",
    "regular_files",
    "token_of",
]

T = TypeVar("T")

Folders = Mapping[bytes, int]
"""The descriptors of new and cur, in the order they must be read, without one that is missing."""

Row = tuple[int, bytes, int, bytes, int]
"""What is learned of a message: the number it is ordered by, unique name, size in octets, its file
relative to the Maildir, and its inode number. The order of rows is that of the listing.
"""

OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How the folders of a Maildir are opened: never by way of a symbolic link, nor waiting."""

SETTLED = 2.0
"""Seconds after which a change of a folder shows in its times: no file system's clock ticks slower.
"""

_ATTEMPTS = 3
"""How often folders are read because other programs keep changing them."""

_USUAL = re.compile(
    r"\0[1-9][0-9]{9}\.[^\0:,]*(?:,S=[0-9]{1,18}(?=,W=))?(?:,[SW]=([0-9]{1,18}))?(?=[\0:])"
)
"""A name that begins with a second since 2001 and has no commas but those of sizes; and what
`size_in_name` says of it.
"""

_State = tuple[int, int, int, int]
"""Of a folder: device, inode, and the nanoseconds of mtime and ctime."""

_Entries = Sequence[tuple[bytes, Sequence[os.DirEntry[str]]]]
"""The files of each folder, as they were read."""


class Snapshot(NamedTuple):
    """What new/ and cur/ were while they were read.

    ``token`` tells their identities and times, to be compared with `token_of` a later look.
    ``newest`` is the latest of the times, in nanoseconds since the epoch by the clock of the file
    system.
    """

    token: bytes
    newest: int


class Found(NamedTuple):
    """The messages in their order, as the fields of `Listing` say."""

    files: tuple[bytes, ...]
    sizes: Sequence[int]
    inodes: Sequence[int]
    ambiguous: frozenset[bytes]
    has_new: bool
    written: int
    """When the last one of those was written to whose size was asked of the file, in nanoseconds
    since the epoch; 0 for none.
    """


def read_messages(folders: Folders) -> tuple[dict[bytes, Row], frozenset[bytes]]:
    """What `_read` gives, read again where a folder changed meanwhile."""
    return _at_rest(folders, _read)[0]


def read_in_order(folders: Folders) -> tuple[Found, Snapshot | None]:
    """The messages, read again where a folder changed meanwhile.

    No snapshot where it changed all the time or a folder is missing, and none where a file whose
    size was asked for was written to in its place: then its size is not settled.
    """
    found, states = _at_rest(folders, lambda folders: _in_order(_entries(folders)))
    if states is None or len(states) < 2:
        return found, None
    newest = max(max(state[2:]) for state in states)
    if found.written > newest + SETTLED * 1e9:
        return found, None
    return found, Snapshot(_token(states), newest)


def token_of(folders: Folders) -> bytes:
    """What the ``token`` of a `Snapshot` would be now."""
    return _token(_last_changes(folders))


def _at_rest(folders: Folders, read: Callable[[Folders], T]) -> tuple[T, list[_State] | None]:
    """What ``read`` gives, and the states of the folders if they stayed the same meanwhile.

    readdir(3) may miss a file that is renamed while it runs, or show it under both names.
    """
    for _ in range(_ATTEMPTS):
        before = _last_changes(folders)
        found = read(folders)
        if _last_changes(folders) == before:
            return found, before
    return found, None


def _read(folders: Folders) -> tuple[dict[bytes, Row], frozenset[bytes]]:
    """The messages by unique name, and the unique names of more than one file."""
    rows, twice, _ = _rows(_entries(folders))
    return rows, twice


def _entries(folders: Folders) -> _Entries:
    """new/ comes before cur/, for that is the way messages go: one that is moved meanwhile is then
    seen twice rather than never.
    """
    return [(folder, list(regular_files(folders[folder]))) for folder in folders]


def _in_order(read: _Entries) -> Found:
    found = _usual_in_order(read)
    if found is not None:
        return found
    rows, twice, written = _rows(read)
    in_order = sorted(rows.values())
    files = tuple([row[3] for row in in_order])
    return Found(
        files,
        [row[2] for row in in_order],
        [row[4] for row in in_order],
        twice,
        # In the order of names, new/ comes after cur/.
        max(files, default=b"").startswith(b"new/"),
        written,
    )


def _rows(read: _Entries) -> tuple[dict[bytes, Row], frozenset[bytes], int]:
    """The messages by unique name, the unique names of more than one file, and `Found.written`."""
    rows: dict[bytes, Row] = {}
    twice = set()
    written = 0
    for folder, entries in read:
        prefix = folder + b"/"
        for entry in entries:
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
                written = max(written, status.st_mtime_ns)
            file = prefix + name
            if unique in rows:
                twice.add(unique)
                # The lesser name is listed: the one in cur/ before the one in new/.
                if rows[unique][3] < file:
                    continue
            rows[unique] = number, unique, size, file, entry.inode()
    return rows, frozenset(twice), written


def _usual_in_order(read: _Entries) -> Found | None:
    """What `_rows` would find, in its order, where all names are usual ones; None where not.

    Numbers of ten digits are in the order of their digits, so that names alone tell the order: up
    to the colon, which has to come before any other octet for that.
    """
    entries = [entry for _, each in read for entry in each]
    if not entries:
        return Found((), (), (), frozenset(), False, 0)
    text = "\0".join([entry.name for entry in entries])
    if not text.isascii() or "\1" in text:
        return None
    told = _USUAL.findall(f"\0{text}\0")
    if len(told) != len(entries):
        return None
    keys = text.replace(":", "\1").split("\0")
    if len({key.partition("\1")[0] for key in keys}) != len(keys):
        return None
    sizes = []
    written = 0
    try:
        for entry, size in zip(entries, told, strict=True):
            if size:
                sizes.append(int(size))
            else:
                status = entry.stat(follow_symlinks=False)
                sizes.append(status.st_size)
                written = max(written, status.st_mtime_ns)
    except FileNotFoundError:
        return None
    order = sorted(range(len(keys)), key=keys.__getitem__)
    paths = [f"{folder.decode()}/{entry.name}" for folder, each in read for entry in each]
    return Found(
        tuple("\0".join([paths[index] for index in order]).encode().split(b"\0")),
        [sizes[index] for index in order],
        [entries[index].inode() for index in order],
        frozenset(),
        any(folder == b"new" and each for folder, each in read),
        written,
    )


def regular_files(descriptor: int) -> Iterator[os.DirEntry[str]]:
    """The files of a folder that may be messages. Their kind mostly comes with their names."""
    with os.scandir(descriptor) as entries:
        for entry in entries:
            if entry.name[0] != "." and entry.is_file(follow_symlinks=False):
                yield entry


def _last_changes(folders: Folders) -> list[_State]:
    statuses = [os.fstat(descriptor) for descriptor in folders.values()]
    return [
        (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        for status in statuses
    ]


def _token(states: Sequence[_State]) -> bytes:
    return b" ".join([b"%d %d %d %d" % state for state in states])
