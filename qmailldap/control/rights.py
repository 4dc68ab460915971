"""Who may change or read what a server trusts: the modes and owners of files, as plain calls.

What is wrong comes back as lines for people; nothing is changed. Access control lists are not
looked at.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress

from qmailldap.control.folder import open_without_waiting

__all__ = ["directory_rights", "file_rights", "key_rights", "program_rights"]

_ROOT = 0
_LARGEST_KEY = 1024 * 1024
_CERTIFICATE_OWNER = "qmaild"
"""To whom the original's installation gives cert.pem."""


def directory_rights(path: str) -> Iterator[str]:
    """What is wrong with the rights of the directory."""
    status = _status(path)
    if status is not None:
        yield from _writable(status)


def file_rights(path: str, directory: str) -> Iterator[str]:
    """What is wrong with the rights of a file of the directory, if it is there."""
    status = _status(path)
    if status is not None:
        yield from _writable(status)
        yield from _of_strangers(status, _owners(directory))


def key_rights(path: str, directory: str) -> Iterator[str]:
    """The same for a file that is there to hold a private key."""
    status = _status(path)
    if status is None:
        return
    if status.st_mode & stat.S_IROTH:
        holds = "holds" if stat.S_ISREG(status.st_mode) and _has_key(path) else "may hold"
        yield f"can be read by everyone, and {holds} a private key"
    yield from _writable(status)
    owners = _owners(directory)
    with suppress(KeyError):
        owners.add(pwd.getpwnam(_CERTIFICATE_OWNER).pw_uid)
    yield from _of_strangers(status, owners)


def program_rights(program: str, directory: str) -> Iterator[str]:
    """What is wrong with a program that is run with the rights of the mailboxes' owners."""
    name = program.encode()
    shown = repr(program)
    if b"/" not in name:
        found = shutil.which(name)
        if found is None:
            yield f"{shown} is not found along the PATH of this command"
            return
        name, shown = found, repr(os.fsdecode(found))
    elif not name.startswith(b"/"):
        yield f"{shown} is no absolute path: where it leads depends on where the server is started"
        return
    try:
        status = os.stat(name)
    except OSError as error:
        yield f"{shown} cannot be run: {error.strerror}"
        return
    if not stat.S_ISREG(status.st_mode):
        yield f"{shown} is not a regular file"
        return
    if not status.st_mode & stat.S_IXOTH:
        yield f"{shown} cannot be executed by everyone, and is run as the mailboxes' owners"
    for problem in (*_writable(status), *_of_strangers(status, _owners(directory))):
        yield f"{shown} {problem}"


def _has_key(path: str) -> bool:
    """Whether a private key in PEM format is at the beginning of the file, for all we can read."""
    try:
        with open(path, "rb", opener=open_without_waiting) as file:
            return b"PRIVATE KEY-----" in file.read(_LARGEST_KEY)
    except OSError:
        return False


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _writable(status: os.stat_result) -> Iterator[str]:
    if status.st_mode & stat.S_IWOTH:
        yield "can be changed by everyone"
    elif status.st_mode & stat.S_IWGRP:
        yield f"can be changed by the group {status.st_gid}"


def _of_strangers(status: os.stat_result, owners: Collection[int]) -> Iterator[str]:
    if status.st_uid not in owners:
        yield f"belongs to the user {_user(status.st_uid)}, who can change it"


def _owners(directory: str) -> set[int]:
    """Whom the files of the directory may belong to."""
    status = _status(directory)
    return {_ROOT} if status is None else {_ROOT, status.st_uid}


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
