"""What a mailbox holds as its quota counts it: by going through all of its folders.

The standard library only, as `maildirsize`, which asks for this when its file cannot be relied on.
What is counted here and what `storage` subtracts for a message that is removed must be the same:
both ask `names.is_trashed` and `names.stored_size`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from qmailldap.maildir.names import is_trashed, stored_size, unique_name
from qmailldap.maildir.scanning import OPEN_FOLDER, regular_files

__all__ = ["TRASH", "Count", "count"]

TRASH = ".Trash"
"""The one Maildir++ folder that no quota counts."""


class Count(NamedTuple):
    """What the quota counts, and the sum of the folders' mtimes, larger after any change."""

    octets: int = 0
    messages: int = 0
    changes: int = 0

    def plus(self, octets: int, messages: int, changes: int) -> Count:
        return Count(self.octets + octets, self.messages + messages, self.changes + changes)


def count(root: int) -> Count:
    """What a Maildir, given by its descriptor, and its Maildir++ folders hold.

    Without the messages flagged T and the folder .Trash. Raises ``OSError`` when a folder cannot be
    read; what is no directory, or a symbolic link to one, is no folder.
    """
    total = Count().plus(*_count_maildir(root))
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name[0] == "." and entry.name != TRASH:
                with _folder(root, entry.name) as folder:
                    if folder is not None:
                        total = total.plus(*_count_maildir(folder))
    return total


def _count_maildir(maildir: int) -> Count:
    octets = messages = changes = 0
    # The order matters: a message that is moved meanwhile is then seen twice rather than never.
    for name in ("new", "cur"):
        with _folder(maildir, name) as folder:
            if folder is None:
                continue
            changes += os.fstat(folder).st_mtime_ns
            for entry in regular_files(folder):
                size = _size(entry)
                if size is not None:
                    octets += size
                    messages += 1
    return Count(octets, messages, changes)


def _size(entry: os.DirEntry[str]) -> int | None:
    """The octets a message counts for, None where it does not count."""
    file = os.fsencode(entry.name)
    if is_trashed(file):
        return None
    size = stored_size(unique_name(file))
    if size is not None:
        return size
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return None


@contextmanager
def _folder(parent: int, name: str) -> Iterator[int | None]:
    """The descriptor of a folder, None where there is no directory of that name."""
    try:
        descriptor = os.open(name, OPEN_FOLDER, dir_fd=parent)
    except OSError as error:
        # A symbolic link in a folder's place is refused, by either of the last two.
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)
