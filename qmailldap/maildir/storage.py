"""The files of one Maildir: all that is ever asked of the disk, as plain calls that may block.

Nothing asynchronous may enter here, and nothing beyond the standard library: a `Maildir` runs in a
thread as well as in a process of the mailbox's owner. There are no lock files. Every change is one
rename or one unlink, so whatever is interrupted, and whoever else works in the mailbox, each
message is whole or, if it was to be deleted, gone.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence, Set
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from qmailldap.maildir.names import (
    is_trashed,
    seen_name,
    stored_size,
    unique_id,
    unique_ids,
    unique_name,
)
from qmailldap.maildir.scanning import (
    OPEN_FOLDER,
    Folders,
    Snapshot,
    read_in_order,
    read_messages,
    regular_files,
    token_of,
)

__all__ = [
    "STALE_AFTER",
    "Failures",
    "Listing",
    "MailboxCorrupted",
    "MailboxMissing",
    "Maildir",
    "Updated",
]

T = TypeVar("T")

STALE_AFTER = 36 * 3600
"""Seconds without a reader after which a file in tmp/ is taken for a delivery that died."""

_TMP_LIMIT = 1000
"""Files of tmp/ looked at in one go: a login shall not wait for a folder full of rubbish."""

_FOLDERS = (b"tmp", b"new", b"cur")

_ATTEMPTS = 3
"""How often a message is looked up again that other programs keep renaming."""

# O_NONBLOCK: a FIFO put in a message's place would otherwise wait for a writer.
_OPEN_MESSAGE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class MailboxMissing(FileNotFoundError):
    """There is no Maildir at the path."""


class MailboxCorrupted(NotADirectoryError):
    """Something else is where the Maildir or one of its folders should be."""


class Failures(NamedTuple):
    """How many files could not be dealt with, and for the log, why the first of them could not."""

    files: int = 0
    first: str = ""

    def and_one(self, file: bytes, error: OSError) -> Failures:
        """These, and one more."""
        return Failures(self.files + 1, self.first or f"{os.fsdecode(file)!r}: {error.strerror}")


class _Listing(NamedTuple):
    files: tuple[bytes, ...]
    sizes: array[int]
    inodes: array[int]
    ambiguous: frozenset[bytes]
    has_new: bool


class Listing(_Listing):
    """The messages of a mailbox as a scan found them, oldest first. Never changed in place.

    ``files`` are their names relative to the Maildir (``b"new/1700000000.17.mx"``), ``sizes`` their
    octets and ``inodes`` their inode numbers, eight octets of memory each. ``ambiguous`` are the
    unique names that more than one file has; ``has_new`` says whether some messages are in new/.
    """

    _shared: dict[object, Any] | None = None

    def unique_id(self, number: int) -> bytes:
        """The unique-id of a message: printable ASCII, the same in every session."""
        return unique_id(_unique_name(self.files[number]))

    def unique_ids(self, start: int = 0, stop: int | None = None) -> list[bytes]:
        """Those of the messages from ``start`` on and before ``stop``."""
        return unique_ids([file[4:].partition(b":")[0] for file in self.files[start:stop]])

    def octets(self) -> int:
        """The sum of the sizes."""
        return self.derived(_sum_of_sizes)

    def share(self) -> None:
        """From now on sessions have it in common, and what is derived from it."""
        self._shared = self._shared or {}

    @property
    def is_shared(self) -> bool:
        """Whether sessions have it in common."""
        return self._shared is not None

    def derived(self, make: Callable[[Listing], T]) -> T:
        """What ``make`` gives for this listing, made once where sessions have that in common.

        It is remembered by ``make`` itself, which therefore has to be one of few functions.
        """
        if self._shared is None:
            return make(self)
        if make not in self._shared:
            self._shared[make] = make(self)
        made: T = self._shared[make]
        return made


class Updated(NamedTuple):
    """What became of a mailbox at QUIT.

    ``octets`` and ``messages`` are what was removed and counted for a quota; the failures are the
    messages that could not be removed, and those that could not be moved to cur/.
    """

    octets: int
    messages: int
    not_removed: Failures
    not_moved: Failures


class Maildir:
    """One session's hold on the Maildir at ``path``.

    `scan` begins the session and numbers its messages from 0; the other methods mean these numbers.
    With a ``listing``, a session that was begun by another such object goes on here. ``time`` gives
    the seconds since the epoch. No descriptor is kept between calls. ``snapshot`` is what the last
    scan was made of, None where it may not have seen all.

    All methods raise `MailboxMissing`, `MailboxCorrupted`, or another ``OSError`` when the mailbox
    cannot be used.
    """

    def __init__(
        self,
        path: bytes,
        listing: Listing | None = None,
        *,
        time: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self.snapshot: Snapshot | None = None
        self._time = time
        # Replaced as a whole and never changed in place: an `open` in one thread may look while a
        # `finish` in another works. None is a message that is gone.
        self._files: Sequence[bytes | None] = ()
        self._inodes: array[int] = array("Q")
        self._ambiguous: frozenset[bytes] = frozenset()
        if listing is not None:
            self._know(listing)

    def is_complete(self) -> bool:
        """Whether the three folders are there, whatever they are.

        False as well where that cannot be told: whoever is to make what is missing finds out why.
        """
        try:
            for folder in _FOLDERS:
                os.lstat(self._path_of(folder))
        except (OSError, ValueError):
            return False
        return True

    def is_unchanged(self, token: bytes) -> bool:
        """Whether new/ and cur/ are as they were at the `snapshot` of that token, tmp/ being there.

        False as well where that cannot be told: whoever is to scan it then finds out why. The
        folders are opened for it, as for a scan: some network file systems ask the server only
        then, and tell what they remember otherwise.
        """
        try:
            with self._folders() as folders:
                if token_of(folders) != token:
                    return False
            return stat.S_ISDIR(os.lstat(self._path_of(b"tmp")).st_mode)
        except (OSError, ValueError):
            return False

    def clean_tmp(self) -> Failures:
        """Remove what died in tmp/, `STALE_AFTER` ago; tells what could not be removed."""
        failures = Failures()
        try:
            descriptor = self._open_folder(b"tmp")
        except PermissionError as error:
            return failures.and_one(b"tmp", error)
        if descriptor is None:
            return failures
        with _closed_after(descriptor):
            oldest = self._time() - STALE_AFTER
            for entry in list(islice(regular_files(descriptor), _TMP_LIMIT)):
                try:
                    if entry.stat(follow_symlinks=False).st_atime < oldest:
                        os.unlink(entry.name, dir_fd=descriptor)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    failures = failures.and_one(b"tmp/" + os.fsencode(entry.name), error)
        return failures

    def scan(self) -> Listing:
        """Read new/ and cur/ and begin the session.

        Messages are regular files whose names do not start with a dot, ordered by the number their
        name starts with, else by the time they were last written. A unique name that is there twice
        is one message: the file in cur/ is listed, the other is left alone.
        """
        with self._folders() as folders:
            found, self.snapshot = read_in_order(folders)
        listing = Listing(
            files=found.files,
            sizes=array("q", found.sizes),
            inodes=array("Q", found.inodes),
            ambiguous=found.ambiguous,
            has_new=found.has_new,
        )
        self._know(listing)
        return listing

    def open(self, index: int) -> tuple[int, int]:
        """Open a message for reading: its descriptor, the caller's from now on, and its octets.

        Raises ``FileNotFoundError`` when it is gone, and another ``OSError`` when it cannot be
        opened or is no regular file any more.
        """
        for attempt in range(_ATTEMPTS + 1):
            file = self._files[index]
            if file is None:
                break
            try:
                return self._open_file(file)
            except FileNotFoundError:
                if attempt == _ATTEMPTS or _unique_name(file) in self._ambiguous:
                    break
                self._find_again()
        raise FileNotFoundError(errno.ENOENT, "the message is gone", self.path)

    def finish(self, deleted: Set[int]) -> Updated:
        """The UPDATE state: remove the messages ``deleted``, move the others from new/ to cur/.

        A message that somebody else removed is no failure; one that cannot be moved stays in new/,
        which does no harm. May be done again.
        """
        with self._folders() as folders:
            removed, not_removed = self._remove(folders, deleted)
            not_moved = self._move_new(folders, deleted)
        return Updated(sum(removed), len(removed), not_removed, not_moved)

    def _know(self, listing: Listing) -> None:
        self._files = listing.files
        self._inodes = listing.inodes
        self._ambiguous = listing.ambiguous

    def _remove(self, folders: Folders, deleted: Set[int]) -> tuple[list[int], Failures]:
        """Gives the octets of each message removed, but for those that no quota counts."""
        # Only the listed file of a message is unlinked. Another file of the same unique name was
        # shown to nobody, and it may be the only copy of something else.
        failures = Failures()
        removed = []
        pending: Collection[int] = deleted
        for attempt in range(_ATTEMPTS + 1):
            if attempt:
                self._locate(folders)
            files = list(self._files)
            missed = []
            for index in pending:
                file = files[index]
                if file is None:
                    continue
                try:
                    octets = _unlink(folders, file)
                except FileNotFoundError:
                    missed.append(index)
                except OSError as error:
                    failures = failures.and_one(file, error)
                else:
                    files[index] = None
                    if not is_trashed(file):
                        removed.append(octets)
            self._files = files
            pending = missed
            if not pending:
                return removed, failures
        lost = OSError(errno.EBUSY, "it is copied or renamed all the time by other programs")
        for index in pending:
            failures = failures.and_one(self._files[index] or b"", lost)
        return removed, failures

    def _move_new(self, folders: Folders, deleted: Set[int]) -> Failures:
        failures = Failures()
        new, cur = folders.get(b"new"), folders.get(b"cur")
        if new is None or cur is None:
            return failures
        files = list(self._files)
        for index, file in enumerate(files):
            if file is None or not file.startswith(b"new/") or index in deleted:
                continue
            name = file[4:]
            target = seen_name(name)
            try:
                # rename(2) would silently replace a file of that name, that is, lose a message.
                if not _exists(cur, target):
                    os.rename(name, target, src_dir_fd=new, dst_dir_fd=cur)
                    files[index] = b"cur/" + target
            except FileNotFoundError:
                continue  # Somebody else has moved or removed it.
            except OSError as error:
                failures = failures.and_one(file, error)
        self._files = files
        return failures

    def _open_file(self, file: bytes) -> tuple[int, int]:
        folder = self._open_folder(file[:3])
        if folder is None:
            raise FileNotFoundError(errno.ENOENT, "the folder is gone", self.path)
        with _closed_after(folder):
            descriptor = os.open(file[4:], _OPEN_MESSAGE, dir_fd=folder)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", file)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, status.st_size

    def _find_again(self) -> None:
        with self._folders() as folders:
            self._locate(folders)

    def _locate(self, folders: Folders) -> None:
        """Learn where the messages are now, all of them at once.

        A unique name that is there twice, or was at the scan, or that another file bears by now, is
        not looked up: the wrong message might be deleted.
        """
        rows, twice = read_messages(folders)
        ambiguous = set(self._ambiguous | twice)

        def place(file: bytes, inode: int) -> bytes | None:
            unique = _unique_name(file)
            if unique in ambiguous:
                return file
            if unique not in rows:
                return None
            # A file keeps its inode when it is renamed.
            if rows[unique][4] != inode:
                ambiguous.add(unique)
                return file
            return rows[unique][3]

        self._files = [
            None if file is None else place(file, inode)
            for file, inode in zip(self._files, self._inodes, strict=True)
        ]
        self._ambiguous = frozenset(ambiguous)

    @contextmanager
    def _folders(self) -> Iterator[Folders]:
        folders: dict[bytes, int] = {}
        try:
            for folder in (b"new", b"cur"):
                descriptor = self._open_folder(folder)
                if descriptor is not None:
                    folders[folder] = descriptor
            yield folders
        finally:
            for descriptor in folders.values():
                os.close(descriptor)

    def _open_folder(self, folder: bytes) -> int | None:
        """The descriptor of a folder, None where the Maildir has no such folder."""
        try:
            return os.open(self._path_of(folder), OPEN_FOLDER)
        except FileNotFoundError:
            self._require_maildir()
            return None
        except OSError as error:
            # A symbolic link in a folder's place is refused, by either number.
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise self._corrupted() from None
            raise

    def _path_of(self, folder: bytes) -> bytes:
        # By hand, for os.path.join takes longer than what most paths are then used for.
        return self.path + b"/" + folder

    def _require_maildir(self) -> None:
        try:
            status = os.stat(self.path)
        except FileNotFoundError as error:
            raise MailboxMissing(error.errno, error.strerror, self.path) from None
        except NotADirectoryError:
            raise self._corrupted() from None
        if not stat.S_ISDIR(status.st_mode):
            raise self._corrupted()

    def _corrupted(self) -> MailboxCorrupted:
        text = "no Maildir: something else is in a folder's place"
        return MailboxCorrupted(errno.ENOTDIR, text, self.path)


def _sum_of_sizes(listing: Listing) -> int:
    # Not of the array: that would make each number as well, and more slowly.
    return sum(listing.sizes.tolist())


def _unique_name(file: bytes) -> bytes:
    return unique_name(file[4:])


def _exists(folder: int, name: bytes) -> bool:
    try:
        os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True


def _unlink(folders: Folders, file: bytes) -> int:
    """Gives the octets that the file had."""
    folder = folders.get(file[:3])
    if folder is None:
        raise FileNotFoundError(errno.ENOENT, "the folder is gone", file)
    octets = stored_size(_unique_name(file))
    if octets is None:
        octets = os.lstat(file[4:], dir_fd=folder).st_size
    os.unlink(file[4:], dir_fd=folder)
    return octets


@contextmanager
def _closed_after(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)
