"""The quota file of Maildir++, ``maildirsize``, kept true while messages are removed.

Its first line is a quota's definition, each further one the ``octets messages`` that came or, below
zero, went; their sum is what the mailbox holds. There are no locks. Lines are appended in one
write, and a file that cannot be relied on is counted anew and replaced by a rename, so that the
file at the path is whole at any moment. Whoever appends may find that it was replaced meanwhile;
`keep_current` looks, and counts anew: any number of sessions at a time end with the right sum.

Deliveries do not look, and two interleavings with a recalculation remain that no scheme without
locks makes right. Either puts the sum off by that message until the next recalculation:

- the file is opened before it is replaced, and the message linked after the count was verified: its
  line goes to the old file, and it is missing in the new one;
- the message is linked before the count, and the file opened after it was replaced: it is there
  twice. (qmail-local opens the file, appends, then links; with it, only the first can happen.)

Nor can these be made right:

- a session that is killed after it removed messages and before it subtracted them;
- NFS, where O_APPEND is not atomic: of two hosts that append at a time, one may write over the
  other's line. A line that is broken thereby has the file counted anew; one that is missing whole
  goes unseen until the file is written anew for another reason.

The standard library only, and all calls may block: processes that touch mail load this.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import NamedTuple

from qmailldap.maildir.counting import TRASH, Count, count
from qmailldap.maildir.scanning import OPEN_FOLDER
from qmailldap.quota import Quota

__all__ = ["Removed", "count_all", "is_current", "keep_current", "stored"]

_FILE = b"maildirsize"

_TOO_LONG = 5120
"""Octets from which Maildir++ wants the file written anew."""

_ATTEMPTS = 3
"""How often a mailbox is counted that other programs keep changing."""

_LIMIT = re.compile(rb"(?<![0-9])0*([0-9]{1,20})([SC])")
_LINE = re.compile(rb"[ \t]*(-?[0-9]{1,20})[ \t]+(-?[0-9]{1,20})[ \t]*")

# O_NONBLOCK: a FIFO or device in the file's place is not waited for.
_LOOK = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_OPEN_FILE = _LOOK | os.O_RDWR | os.O_APPEND
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class Removed(NamedTuple):
    """What left the mailbox: its octets as delivered (``,S=``), not with CRLF, and its messages.

    Without those flagged T, which the quota does not count.
    """

    octets: int
    messages: int


class _File(NamedTuple):
    """An open quota file: its definition, and its sum, which is None where it is not to be used."""

    descriptor: int
    definition: Quota
    sum: Removed | None


def is_current(maildir: bytes, quota: Quota) -> bool:
    """Whether a session that removes nothing has nothing to do here.

    That is: the file is there, of this definition, and its sum can be used; or an account without
    quota has no file. False as well where it cannot be told: `keep_current` says what is wrong.
    """
    try:
        with ExitStack() as stack:
            file = _open_file(_open_root(maildir, stack), stack)
    except OSError:
        return False
    if file is None:
        return not quota.is_set
    return file.sum is not None and (not quota.is_set or file.definition == quota)


def keep_current(maildir: bytes, quota: Quota, remove: Callable[[], Removed]) -> str:
    """Run ``remove`` and bring maildirsize up to date around it.

    Gives one line for the log of what went wrong with the file, "" if nothing did. Without a quota
    a file is kept up under the definition it has, and none is made. What ``remove`` raises passes
    through.
    """
    with ExitStack() as stack:
        root, file, trouble = None, None, ""
        try:
            root = _open_root(maildir, stack)
            # Before the removal: a recalculation that does not see it is then noticed by `_append`.
            file = _open_file(root, stack)
        except OSError as error:
            trouble = _as_text(error)
        removed = remove()
        if os.path.basename(maildir) == os.fsencode(TRASH) and _is_folder(maildir):
            removed = Removed(0, 0)
        if root is not None and (file is not None or quota.is_set):
            try:
                _update(root, file, quota, removed, stack)
            except OSError as error:
                return _as_text(error)
        return trouble


def stored(maildir: bytes) -> tuple[Quota, Removed | None] | None:
    """What `parse` gives for the file of a mailbox, None where there is none.

    Only looks. Raises ``OSError`` where the file cannot be read.
    """
    with ExitStack() as stack:
        file = _open_file(_open_root(maildir, stack), stack, _LOOK | os.O_RDONLY)
        return None if file is None else (file.definition, file.sum)


def count_all(maildir: bytes) -> Count:
    """What the mailbox holds that its quota counts; raises as `count`."""
    with ExitStack() as stack:
        return count(_open_root(maildir, stack))


def parse(content: bytes) -> tuple[Quota, Removed | None]:
    """The definition a quota file begins with, and the sum of its lines, None where it is unusable.

    Unusable is a file of 5120 octets or more, with an incomplete line or one that is not two
    integers, or with a sum below zero. Unknown parts of a definition are ignored.
    """
    first, *lines = content.split(b"\n")
    limits = {unit: int(number) for number, unit in _LIMIT.findall(first)}
    definition = Quota(limits.get(b"S", 0), limits.get(b"C", 0))
    if len(content) >= _TOO_LONG or not lines or lines.pop():
        return definition, None
    octets = messages = 0
    for line in lines:
        numbers = _LINE.fullmatch(line)
        if numbers is None:
            return definition, None
        octets += int(numbers[1])
        messages += int(numbers[2])
    return definition, Removed(octets, messages) if min(octets, messages) >= 0 else None


def _update(
    root: int, file: _File | None, quota: Quota, removed: Removed, stack: ExitStack
) -> None:
    if (
        file is not None
        and file.sum is not None
        and (not quota.is_set or file.definition == quota)
        and file.sum.octets >= removed.octets
        and file.sum.messages >= removed.messages
    ):
        if removed == (0, 0) or _append(root, file, removed):
            return
        if not quota.is_set:
            # Another program has replaced it, under a definition of its own, or done away with it.
            file = _open_file(root, stack)
            if file is None:
                return
    definition = quota if quota.is_set or file is None else file.definition
    try:
        if definition.is_set and _recalculate(root, definition, file, stack):
            return
    except OSError:
        # It may look right and is not. Where it cannot be unlinked either, the text tells why.
        with suppress(OSError):
            os.unlink(_FILE, dir_fd=root)
        raise
    with suppress(FileNotFoundError):
        os.unlink(_FILE, dir_fd=root)


def _append(root: int, file: _File, removed: Removed) -> bool:
    """Subtract; whether the file at the path has the whole line now."""
    line = b"-%d -%d\n" % removed
    try:
        # One write, never the rest of a short one: other programs append as well.
        if os.write(file.descriptor, line) != len(line):
            return False
        at_path = os.stat(_FILE, dir_fd=root, follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(at_path, os.fstat(file.descriptor))


def _recalculate(root: int, definition: Quota, file: _File | None, stack: ExitStack) -> bool:
    """Count the mailbox and replace the file; False if others never let the count stay true."""
    tmp = os.open(b"tmp", OPEN_FOLDER, dir_fd=root)
    stack.callback(os.close, tmp)
    replaced = None if file is None else file.descriptor
    for _ in range(_ATTEMPTS):
        length = _length(replaced)
        counted = count(root)
        text = b"%b\n%d %d\n" % (str(definition).encode(), counted.octets, counted.messages)
        written = _replace(root, tmp, text, stack)
        # Counted again, for an mtime alone hides a change within the same tick of the clock.
        if count(root) == counted and _length(replaced) == length:
            return True
        replaced = written
    return False


def _replace(root: int, tmp: int, content: bytes, stack: ExitStack) -> int:
    """Put a file of this content at the path; its descriptor, open as long as the stack is."""
    name = b"%b.%b" % (_FILE, os.urandom(8).hex().encode())
    descriptor = os.open(name, _CREATE, 0o600, dir_fd=tmp)
    stack.callback(os.close, descriptor)
    try:
        if os.write(descriptor, content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        os.fsync(descriptor)
        os.rename(name, _FILE, src_dir_fd=tmp, dst_dir_fd=root)
    except BaseException:
        with suppress(OSError):
            os.unlink(name, dir_fd=tmp)
        raise
    return descriptor


def _length(descriptor: int | None) -> int:
    return 0 if descriptor is None else os.fstat(descriptor).st_size


def _open_root(maildir: bytes, stack: ExitStack) -> int:
    """The directory the file belongs to: the Maildir, or the one it is a Maildir++ folder of."""
    if _is_folder(maildir):
        maildir = os.path.join(maildir, b"..")
    root = os.open(maildir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, root)
    return root


def _is_folder(maildir: bytes) -> bool:
    """Whether it is a Maildir++ folder: then its mailbox is the directory that it is in."""
    return os.path.lexists(os.path.join(maildir, b"maildirfolder"))


def _open_file(root: int, stack: ExitStack, flags: int = _OPEN_FILE) -> _File | None:
    """The file as it is, None where there is none."""
    try:
        descriptor = os.open(_FILE, flags, dir_fd=root)
    except FileNotFoundError:
        return None
    stack.callback(os.close, descriptor)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", _FILE)
    content = b""
    while more := os.read(descriptor, _TOO_LONG - len(content)):
        content += more
    return _File(descriptor, *parse(content))


def _as_text(error: OSError) -> str:
    file = error.filename2 or error.filename
    name = os.fsdecode(file if isinstance(file, str | bytes) else _FILE)
    return f"{name!r}: {error.strerror or error}"
