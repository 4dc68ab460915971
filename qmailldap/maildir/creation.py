"""Making what is missing of a home and of the Maildir in it, as plain calls that may block.

The standard library only, and little of it: the small processes that act as a mailbox's owner load
this. Nothing that exists is ever changed, and nothing is left half done that the next call could
not complete, so no lock is needed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress

from qmailldap.maildir.dirmaker import Dirmaker, run
from qmailldap.maildir.storage import MailboxCorrupted, MailboxMissing

__all__ = [
    "MailboxNotCreated",
    "folders_to_make",
    "has_home",
    "provide_home",
    "provide_maildir",
]

_Look = Callable[[bytes], os.stat_result]


class MailboxNotCreated(OSError):
    """A home, or a folder of a mailbox, could not be made."""


def provide_home(home: bytes, dirmaker: Dirmaker | None) -> None:
    """Have a missing home made by ``dirmaker``; it may be a symbolic link to a directory.

    What counts is that it is there afterwards, whoever made it: of two logins at once, the program
    of one fails.

    Raises `MailboxMissing` when there is no home and no ``dirmaker``, `MailboxCorrupted` when
    something other than a directory is in the way, `MailboxNotCreated` when it could not be made,
    and another ``OSError`` when what is there cannot be looked at.
    """
    if has_home(home, dirmaker is not None):
        return
    assert dirmaker is not None, "has_home has raised otherwise"
    number, text = run(dirmaker, home)
    made = False
    with suppress(MailboxCorrupted):
        made = _is_directory(home, os.stat)
    if not made:
        raise MailboxNotCreated(number, f"dirmaker {os.fsdecode(dirmaker.program)} {text}", home)


def has_home(home: bytes, can_be_made: bool) -> bool:
    """Whether there is a home, false only where it ``can_be_made``; raises as `provide_home`."""
    if _is_directory(home, os.stat):
        return True
    if not can_be_made:
        text = "the home does not exist, and there is no control file dirmaker to make it"
        raise MailboxMissing(errno.ENOENT, text, home)
    return False


def provide_maildir(mailbox: bytes) -> None:
    """Make what is missing of a Maildir, an absolute path, but none of its parents; mode 700.

    The Maildir may be a symbolic link to a directory, its folders may not. Raises as
    `provide_home`, but for `MailboxMissing`.
    """
    for path, look in _folders(mailbox):
        _provide_folder(path, look)


def folders_to_make(mailbox: bytes) -> tuple[bytes, ...]:
    """What `provide_maildir` would make, in its order; raises as it does, as far as can be seen."""
    missing: list[bytes] = []
    for path, look in _folders(mailbox):
        if _is_directory(path, look):
            continue
        if os.path.lexists(path):
            raise _corrupted(path)
        parent = os.path.dirname(path)
        if parent not in missing and not os.access(parent, os.W_OK | os.X_OK):
            number = errno.EACCES if os.path.lexists(parent) else errno.ENOENT
            raise MailboxNotCreated(number, os.strerror(number), path)
        missing.append(path)
    return tuple(missing)


def _folders(mailbox: bytes) -> list[tuple[bytes, _Look]]:
    folders = [os.path.join(mailbox, name) for name in (b"tmp", b"cur", b"new")]
    return [(mailbox, os.stat), *[(folder, os.lstat) for folder in folders]]


def _provide_folder(path: bytes, look: _Look) -> None:
    if _is_directory(path, look):
        return
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        # Another login was faster, or this is a symbolic link to nowhere.
        if not _is_directory(path, look):
            raise _corrupted(path) from None
    except NotADirectoryError:
        raise _corrupted(path) from None
    except OSError as error:
        raise MailboxNotCreated(error.errno, error.strerror, path) from None


def _is_directory(path: bytes, look: _Look) -> bool:
    """Whether there is a directory rather than nothing; `MailboxCorrupted` for all else."""
    try:
        status = look(path)
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        raise _corrupted(path) from None
    if not stat.S_ISDIR(status.st_mode):
        raise _corrupted(path)
    return True


def _corrupted(path: bytes) -> MailboxCorrupted:
    return MailboxCorrupted(errno.ENOTDIR, "something other than a directory is there", path)
