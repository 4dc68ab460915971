"""A look at an account's home and mailbox, for people: what is there, whose it is, what is missing.

Nothing is changed: no folder is made, no message moved, no quota file written, no tmp/ tidied.
Whether a session could begin is what `Work.rehearse` says. The standard library only, and all calls
may block: this runs in a process of the mailbox's owner.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from qmailldap.maildir.maildirsize import count_all, stored
from qmailldap.maildir.work import Place, Work, find_mailbox, programs_path

__all__ = ["KINDS", "Inspection", "Messages", "QuotaUse", "Seen", "decode", "encode", "inspect"]

KINDS = ("directory", "file", "other", "link to nowhere", "missing", "not to be seen")

_FOLDERS = (b"tmp", b"new", b"cur")
_MOST_HINDRANCES = 2


class Seen(NamedTuple):
    """What is at a path: one of `KINDS`, and of what is there, mode, uid and gid.

    ``link`` is where a symbolic link at the path leads, empty for none; the rest is of what is
    there. ``problem`` says why it is not to be seen, or may not be there.
    """

    path: str
    kind: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    link: str = ""
    problem: str = ""


class Messages(NamedTuple):
    """What a session would list: messages in new/ and in cur/, and the octets of all."""

    new: int
    cur: int
    octets: int


class QuotaUse(NamedTuple):
    """What the mailbox holds that its quota counts, and what maildirsize says of that.

    ``octets`` and ``messages`` are as counted now; None where that was not possible.
    ``definition`` is the quota that the file has, as MAILDIRQUOTA words it, None where there is no
    file; its ``stored_octets`` and ``stored_messages`` are None where it is to be written anew.
    ``problem`` says what could not be read, and why.
    """

    octets: int | None = None
    messages: int | None = None
    definition: str | None = None
    stored_octets: int | None = None
    stored_messages: int | None = None
    problem: str = ""


class Inspection(NamedTuple):
    """What a look at an account's home and mailbox has found.

    ``by_dot_qmail`` says that ~/.qmail names the mailbox. ``makes_home`` and ``makes`` are what a
    login would make (see `Rehearsal`). ``messages`` and ``quota`` are None where there is no
    mailbox to look at. ``hindrances`` say what whoever looked may not do that a dirmaker needs.
    """

    home: Seen
    mailbox: Seen
    folders: tuple[Seen, ...] = ()
    by_dot_qmail: bool = False
    makes_home: bool = False
    makes: tuple[str, ...] = ()
    messages: Messages | None = None
    quota: QuotaUse | None = None
    hindrances: tuple[str, ...] = ()


def inspect(place: Place) -> tuple[Inspection, OSError | None]:
    """What is there, and what `Work.begin` would fail with."""
    home = _look(place.home)
    try:
        path = find_mailbox(place)
    except OSError as error:
        return Inspection(home, _look(place.mailbox)), error
    mailbox = _look(path)
    found = Inspection(
        home,
        mailbox,
        folders=_look_into(path) if mailbox.kind == "directory" else (),
        by_dot_qmail=path != place.mailbox,
    )
    try:
        rehearsal = Work(place).rehearse()
    except OSError as error:
        return found, error
    found = found._replace(
        makes_home=rehearsal.makes_home, makes=tuple(map(os.fsdecode, rehearsal.makes))
    )
    if rehearsal.makes_home:
        found = found._replace(hindrances=tuple(_hindrances(place)))
    listing = rehearsal.listing
    if listing is None:
        return found, None
    new = sum(file.startswith(b"new/") for file in listing.files)
    messages = Messages(new, len(listing.files) - new, sum(listing.sizes))
    return found._replace(messages=messages, quota=_quota_use(path)), None


def encode(found: Inspection) -> bytes:
    """JSON that `decode` reads: the tuples as lists."""
    return json.dumps(found).encode("ascii")


def decode(octets: bytes) -> Inspection:
    """What `encode` has written. Raises ``ValueError`` for anything else.

    Who has written it had the owner's rights only, and is not trusted.
    """
    try:
        (
            home,
            mailbox,
            folders,
            by_dot_qmail,
            makes_home,
            makes,
            messages,
            quota,
            hindrances,
        ) = json.loads(octets)
        if len(folders) > len(_FOLDERS) or len(makes) > len(_FOLDERS) + 1:
            raise ValueError
        if len(hindrances) > _MOST_HINDRANCES:
            raise ValueError
        return Inspection(
            _read_seen(home),
            _read_seen(mailbox),
            tuple(map(_read_seen, folders)),
            _read(by_dot_qmail, bool),
            _read(makes_home, bool),
            tuple(_read(path, str) for path in makes),
            None if messages is None else _read_messages(messages),
            None if quota is None else _read_quota_use(quota),
            tuple(_read(line, str) for line in hindrances),
        )
    except (ValueError, TypeError, RecursionError):
        raise ValueError("an inspection cannot be read") from None


def _look(path: bytes, follow: bool = True) -> Seen:
    text = os.fsdecode(path)
    link = ""
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            link = os.fsdecode(os.readlink(path))
            if follow:
                status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Seen(text, "link to nowhere" if link else "missing", link=link)
    except OSError as error:
        return Seen(text, "not to be seen", link=link, problem=error.strerror or str(error))
    kind = "other"
    if stat.S_ISDIR(status.st_mode):
        kind = "directory"
    elif stat.S_ISREG(status.st_mode):
        kind = "file"
    return Seen(text, kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, link)


def _look_into(maildir: bytes) -> tuple[Seen, ...]:
    return tuple(map(_look_at_folder, (os.path.join(maildir, name) for name in _FOLDERS)))


def _look_at_folder(path: bytes) -> Seen:
    folder = _look(path, follow=False)
    return folder._replace(problem="a symbolic link is not allowed here") if folder.link else folder


def _hindrances(place: Place) -> Iterator[str]:
    """What keeps a dirmaker from being run, or from making the home without other rights."""
    program = place.dirmaker or b""
    if shutil.which(program, mode=os.X_OK, path=os.fsdecode(programs_path())) is None:
        name = os.fsdecode(program)
        if os.path.dirname(program):
            yield f"the owner may not execute the dirmaker {name}, or it is not there"
        else:
            yield f"the dirmaker {name} is not along PATH, or the owner may not execute it"
    parent = os.path.dirname(place.home.rstrip(b"/"))
    while not os.path.lexists(parent):
        parent = os.path.dirname(parent)
    if not os.access(parent, os.W_OK | os.X_OK):
        yield (
            f"the owner, as whom dirmaker is run, may not write in {os.fsdecode(parent)},"
            " where the home is to be made"
        )


def _quota_use(maildir: bytes) -> QuotaUse:
    use, problems = QuotaUse(), []
    try:
        counted = count_all(maildir)
        use = use._replace(octets=counted.octets, messages=counted.messages)
    except OSError as error:
        problems.append(_told(error, "the folders"))
    try:
        file = stored(maildir)
    except OSError as error:
        problems.append(_told(error, "maildirsize"))
    else:
        if file is not None:
            definition, held = file
            octets, messages = (None, None) if held is None else held
            use = use._replace(
                definition=str(definition), stored_octets=octets, stored_messages=messages
            )
    return use._replace(problem="; ".join(problems))


def _told(error: OSError, what: str) -> str:
    file = error.filename
    name = os.fsdecode(file) if isinstance(file, str | bytes) else what
    return f"{name}: {error.strerror or error}"


def _read_seen(fields: Sequence[Any]) -> Seen:
    path, kind, mode, uid, gid, link, problem = fields
    if kind not in KINDS:
        raise ValueError
    return Seen(
        _read(path, str),
        kind,
        _number(mode),
        _number(uid),
        _number(gid),
        _read(link, str),
        _read(problem, str),
    )


def _read_messages(fields: Sequence[Any]) -> Messages:
    new, cur, octets = fields
    return Messages(_number(new), _number(cur), _number(octets))


def _read_quota_use(fields: Sequence[Any]) -> QuotaUse:
    octets, messages, definition, stored_octets, stored_messages, problem = fields
    return QuotaUse(
        None if octets is None else _number(octets),
        None if messages is None else _number(messages),
        None if definition is None else _read(definition, str),
        None if stored_octets is None else _number(stored_octets),
        None if stored_messages is None else _number(stored_messages),
        _read(problem, str),
    )


def _read(value: Any, kind: type[Any]) -> Any:
    if type(value) is not kind:
        raise ValueError
    return value


def _number(value: Any) -> int:
    number: int = _read(value, int)
    if not 0 <= number < 2**64:
        raise ValueError
    return number
