"""What keepers are asked and what they answer, as the fields of a frame and back.

Every reader checks what it reads: the network process does not trust a keeper, which works in a
mailbox that its owner can fill with anything, nor the keeper the network process. All of them raise
`FrameError`.
"""

from __future__ import annotations

import errno
import sys
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from qmailldap.maildir.creation import MailboxNotCreated
from qmailldap.maildir.reading import MessageChanged
from qmailldap.maildir.scanning import Snapshot
from qmailldap.maildir.storage import Failures, Listing, MailboxCorrupted, MailboxMissing
from qmailldap.maildir.work import Begun, Finished, Place, Unchanged
from qmailldap.privsep.wire import FrameError
from qmailldap.quota import Quota

__all__ = [
    "ENVIRONMENT",
    "Opened",
    "error_fields",
    "number",
    "number_field",
    "read_begun",
    "read_begun_again",
    "read_begun_anew",
    "read_error",
    "read_finished",
    "read_numbers",
    "read_opened",
    "read_place",
    "write_begun",
    "write_finished",
    "write_numbers",
    "write_opened",
    "write_place",
    "write_snapshot",
    "write_unchanged",
]

ENVIRONMENT = frozenset(
    [b"USER", b"AUTHENTICATED", b"HOME", b"MAILDIR", b"MAILDIRQUOTA", b"DATASIZE"]
)
"""The variables that an account has for the programs that are run for it."""

_FOLDERS = (b"\0new/", b"\0cur/")
_HIGHEST_OCTET = slice(7 if sys.byteorder == "little" else 0, None, 8)
"""Where the octets with the signs of the numbers of an array are."""

_LONGEST_TOKEN = 400
_ERRORS = {
    error.__name__: error
    for error in (MailboxMissing, MailboxCorrupted, MailboxNotCreated, MessageChanged, OSError)
}


class Opened(NamedTuple):
    """An `OpenMessage` whose file is on its way: ``has_file`` says whether there is one.

    ``device`` and ``inode`` tell which: where descriptors are scarce, some are lost on their way,
    and the next one that comes may be another's.
    """

    size: int
    first: bytes
    has_file: bool
    written_at: int
    device: int = 0
    inode: int = 0


def number_field(value: int) -> bytes:
    return b"%d" % value


def number(field: bytes) -> int:
    """A whole number, not negative, of 64 bits."""
    if not field.isdigit() or len(field) > 20 or (value := int(field)) >= 2**64:
        raise FrameError("a field is no number")
    return value


def write_place(place: Place) -> list[bytes]:
    environment = [octets for pair in place.environment.items() for octets in pair]
    return [
        place.home,
        place.mailbox,
        place.delivery,
        number_field(place.quota.size),
        number_field(place.quota.count),
        b"\0".join(environment),
        number_field(place.asks_dot_qmail),
    ]


def read_place(fields: Sequence[bytes], dirmaker: bytes | None) -> Place:
    """The program that makes homes is not asked of the network process: it could name any."""
    home, mailbox, delivery, size, count, environment, asks_dot_qmail = _exactly(7, fields)
    words = environment.split(b"\0") if environment else []
    if len(words) % 2 or not ENVIRONMENT.issuperset(words[::2]):
        raise FrameError("an environment of other variables than an account has")
    _check_path(home)
    _check_path(mailbox)
    if b"\0" in delivery:
        raise FrameError("a NUL in a path")
    return Place(
        home=home,
        mailbox=mailbox,
        delivery=delivery,
        quota=Quota(number(size), number(count)),
        dirmaker=dirmaker,
        environment=dict(zip(words[::2], words[1::2], strict=True)),
        asks_dot_qmail=bool(number(asks_dot_qmail)),
    )


def write_begun(begun: Begun) -> list[bytes]:
    listing = begun.listing
    return [
        begun.path,
        b"\0".join(listing.files),
        listing.sizes.tobytes(),
        listing.inodes.tobytes(),
        # A name may be empty, and the only one.
        b"".join(name + b"\0" for name in listing.ambiguous),
        number_field(listing.has_new),
        *_write_failures(begun.not_cleaned),
        number_field(begun.quota_is_current),
        number_field(begun.was_made),
    ]


def read_begun(fields: Sequence[bytes]) -> Begun:
    path, files, sizes, inodes, ambiguous, has_new, *rest = _exactly(10, fields)
    _check_path(path)
    if files:
        _check_files(files)
    if not sizes[_HIGHEST_OCTET].isascii():
        raise FrameError("a message of negative size")
    if ambiguous and not ambiguous.endswith(b"\0"):
        raise FrameError("a list of names ends within one")
    listing = Listing(
        files=tuple(files.split(b"\0")) if files else (),
        sizes=_read_array("q", sizes),
        inodes=_read_array("Q", inodes),
        ambiguous=frozenset(ambiguous.split(b"\0")[:-1]),
        has_new=bool(number(has_new)),
    )
    if not len(listing.files) == len(listing.sizes) == len(listing.inodes):
        raise FrameError("a listing has not as many sizes as names")
    if len(listing.ambiguous) > len(listing.files):
        raise FrameError("a listing has more names that are there twice than names")
    *failures, is_current, was_made = rest
    return Begun(
        path,
        listing,
        _read_failures(failures),
        quota_is_current=bool(number(is_current)),
        was_made=bool(number(was_made)),
    )


def write_unchanged(unchanged: Unchanged) -> list[bytes]:
    return [unchanged.path, number_field(unchanged.quota_is_current)]


def write_snapshot(snapshot: Snapshot | None) -> list[bytes]:
    if snapshot is None:
        return [b"", b"0"]
    return [snapshot.token, b"%d" % snapshot.newest]


def read_begun_anew(fields: Sequence[bytes]) -> Begun:
    """What begin gave, and the snapshot of it."""
    *begun, token, newest = _at_least(2, fields)
    if len(token) > _LONGEST_TOKEN:
        raise FrameError("a token that no folders have")
    snapshot = Snapshot(token, _signed(newest)) if token else None
    return read_begun(begun)._replace(snapshot=snapshot)


def read_begun_again(fields: Sequence[bytes]) -> Begun | Unchanged:
    """As `read_begun_anew`, unless nothing has changed."""
    if len(fields) != 2:
        return read_begun_anew(fields)
    path, is_current = fields
    _check_path(path)
    return Unchanged(path, bool(number(is_current)))


def write_opened(messages: Sequence[Opened]) -> list[bytes]:
    fields = []
    for message in messages:
        fields += [
            number_field(message.size),
            message.first,
            number_field(message.has_file),
            b"%d" % message.written_at,
            number_field(message.device),
            number_field(message.inode),
        ]
    return fields


def read_opened(fields: Sequence[bytes], files: int) -> list[Opened]:
    """At least one message; each is whole, but the first may have one of the ``files``."""
    if not fields or len(fields) % 6:
        raise FrameError("an answer with no whole number of messages")
    messages: list[Opened] = []
    for size, first, has_file, written_at, device, inode in _in_rows(6, fields):
        message = Opened(
            number(size),
            first,
            bool(number(has_file)),
            _signed(written_at),
            number(device),
            number(inode),
        )
        left = message.size - len(first)
        if left < 0 or bool(left) != message.has_file:
            raise FrameError("a message is not of the size it is said to have")
        if left and messages:
            raise FrameError("a message was read ahead, and not to its end")
        messages.append(message)
    if sum(message.has_file for message in messages) != files:
        raise FrameError("not as many files as messages that have one")
    return messages


def write_finished(finished: Finished) -> list[bytes]:
    return [
        *_write_failures(finished.not_removed),
        *_write_failures(finished.not_moved),
        _text_field(finished.quota_problem),
    ]


def read_finished(fields: Sequence[bytes]) -> Finished:
    *failures, problem = _exactly(5, fields)
    return Finished(_read_failures(failures[:2]), _read_failures(failures[2:]), _text(problem))


def write_numbers(numbers: frozenset[int]) -> bytes:
    return array("Q", numbers).tobytes()


def read_numbers(field: bytes) -> frozenset[int]:
    return frozenset(_read_array("Q", field))


def error_fields(error: OSError) -> list[bytes]:
    name = type(error).__name__
    return [
        (name if name in _ERRORS else OSError.__name__).encode("ascii"),
        number_field(error.errno or errno.EIO),
        _text_field(error.strerror or str(error)),
        _path_field(error.filename),
    ]


def read_error(fields: Sequence[bytes]) -> OSError:
    """The error as it was raised in the keeper, of its own class."""
    name, code, text, path = _exactly(4, fields)
    kind = _ERRORS.get(_text(name))
    if kind is None:
        raise FrameError("an error of no known kind")
    arguments = (number(code), _text(text))
    return kind(*arguments, path) if path else kind(*arguments)


def _check_path(path: bytes) -> None:
    if not path.startswith(b"/") or b"\0" in path:
        raise FrameError("a path is not absolute")


def _check_files(files: bytes) -> None:
    """Whether all are files of new/ or cur/ that a scan may list.

    A few looks at all names at once, as there may be some 100,000: each begins with one of the
    folders, and there are no more slashes than that, and no dot or end right behind one.
    """
    text = b"\0%b\0" % files
    count = text.count(b"\0") - 1
    if (
        sum(map(text.count, _FOLDERS)) != count
        or text.count(b"/") != count
        or b"/." in text
        or b"/\0" in text
    ):
        raise FrameError("a listing names what can be no message")


def _write_failures(failures: Failures) -> list[bytes]:
    return [number_field(failures.files), _text_field(failures.first)]


def _read_failures(fields: Sequence[bytes]) -> Failures:
    files, first = fields
    return Failures(number(files), _text(first))


def _text_field(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(field: bytes) -> str:
    return field.decode("utf-8", "surrogateescape")


def _path_field(path: str | bytes | int | None) -> bytes:
    """Of no path where a call took a descriptor, which an error then names."""
    if isinstance(path, bytes):
        return path
    return _text_field(path) if isinstance(path, str) else b""


def _signed(field: bytes) -> int:
    digits = field.removeprefix(b"-")
    return number(digits) if digits == field else -number(digits)


def _read_array(kind: str, octets: bytes) -> array[int]:
    numbers: array[int] = array(kind)
    if len(octets) % numbers.itemsize:
        raise FrameError("an array ends within a number")
    numbers.frombytes(octets)
    return numbers


def _in_rows(width: int, fields: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    return (fields[at : at + width] for at in range(0, len(fields), width))


def _at_least(count: int, fields: Sequence[bytes]) -> Sequence[bytes]:
    if len(fields) < count:
        raise FrameError(f"{len(fields)} fields where {count} are wanted")
    return fields


def _exactly(count: int, fields: Sequence[bytes]) -> Sequence[bytes]:
    if len(fields) != count:
        raise FrameError(f"{len(fields)} fields where {count} are wanted")
    return fields
