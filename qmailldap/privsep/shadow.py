"""Whether a password is that of a local user: asked of passwd and shadow, as root.

Runs in a child of the broker that lives for one question and answers it in one word; hashes never
leave it. The standard library only, and `qmailldap.crypt3`.
"""

from __future__ import annotations

import errno
import os
import pwd
from collections.abc import Sequence

from qmailldap.privsep import one_question

__all__ = ["LIMIT", "check", "compare", "lets_nobody_in", "serve", "stored_value"]

LIMIT = 30
"""Seconds that a question may take; by then the child is ended by SIGALRM."""

_LARGEST_QUESTION = 64 * 1024

_LOWEST_ID = 100
"""Below are the system's own users."""

_LOCKED = (b"!", b"*")
"""How a value begins that no password matches; also crypt(3)'s own words for "no"."""

_ELSEWHERE = b"x"
"""What passwd holds of a user whose hash is in shadow."""

_NOT_FOUND = (0, errno.ENOENT, errno.ESRCH)
"""What getspnam_r(3) returns for a user without an entry; ENOENT also where shadow is missing."""

_MOST_OCTETS = 1024 * 1024
"""Octets of the largest entry of shadow that is read."""


def check(login: bytes, password: bytes) -> str:
    """``yes`` or ``no`` where a hash was computed and did match or did not, else ``unknown``.

    ``unknown`` is no such user, and is also a user whom no password lets in: locked, without
    password, of a format that crypt(3) does not know; and a password that crypt(3) cannot hash.
    These take no time, which the caller makes up for: it could not, were they told as ``no``.
    Whether the user may have mail here is not judged. Raises ``OSError`` when shadow cannot be
    read, `MemoryError` when there is none for the hash.
    """
    if not password or b"\0" in login or b"\0" in password:
        return "unknown"
    try:
        user = pwd.getpwnam(os.fsdecode(login))
    except KeyError:
        return "unknown"
    if min(user.pw_uid, user.pw_gid) < _LOWEST_ID:
        # Nobody shall try root's passwords here, not even the network process.
        return "unknown"
    return {True: "yes", False: "no", None: "unknown"}[compare(password, stored_value(user))]


def stored_value(user: pwd.struct_passwd) -> bytes:
    """What `compare` takes, of shadow, else of passwd. Raises ``OSError`` as `check`."""
    value = _shadow_value(os.fsencode(user.pw_name))
    return os.fsencode(user.pw_passwd) if value is None else value


def compare(password: bytes, value: bytes) -> bool | None:
    """Whether the password is that of a value of shadow; None where there was nothing to hash."""
    if not password or lets_nobody_in(value):
        return None
    # Not before they are needed: they load libraries, which the broker would then have, too.
    from hmac import compare_digest

    from qmailldap.crypt3 import crypt

    hashed = crypt(password, value)
    return None if hashed is None else compare_digest(hashed, value)


def lets_nobody_in(value: bytes) -> bool:
    """Whether a value is locked or empty, and no password is to be hashed for it."""
    return not value or value.startswith(_LOCKED) or value == _ELSEWHERE


def serve(descriptor: int) -> None:
    """Answer the one question that comes by the socket ``descriptor``, and close it.

    The question is a number, ``check``, login and password. The answer is the number, ``ok``, that
    no files come along, and the word of `check`; or the number, ``error`` and an error in words
    that hold nothing of the question. Raises nothing that a question, passwd or shadow can cause.
    Whoever asks finds the socket closed without an answer when that took longer than `LIMIT`.
    """
    one_question.serve(descriptor, _answer, limit=LIMIT, largest=_LARGEST_QUESTION, failed=_failure)


def _answer(question: Sequence[bytes]) -> list[bytes]:
    _, login, password = question
    return [b"ok", b"0", check(login, password).encode("ascii")]


def _failure(error: Exception) -> list[bytes]:
    """What may be told of an exception: the text of most could quote the question."""
    known = error.strerror if isinstance(error, OSError) else None
    text = type(error).__name__ + (f": {known}" if known else "")
    reason = text.encode("utf-8", "backslashreplace")
    return [b"error", b"OSError", b"%d" % errno.EIO, reason, b""]


def _shadow_value(login: bytes) -> bytes | None:
    """The hash of the user's entry in shadow, None where there is none. Raises ``OSError``.

    By ctypes, as Python has lost its module spwd in 3.13.
    """
    import ctypes

    class Spwd(ctypes.Structure):
        """``struct spwd`` of shadow.h."""

        _fields_ = (
            ("name", ctypes.c_char_p),
            ("value", ctypes.c_char_p),
            *((f"number_{index}", ctypes.c_long) for index in range(6)),
            ("flag", ctypes.c_ulong),
        )

    getspnam_r = ctypes.CDLL(None).getspnam_r
    getspnam_r.argtypes = [
        ctypes.c_char_p,
        ctypes.POINTER(Spwd),
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.POINTER(ctypes.POINTER(Spwd)),
    ]
    getspnam_r.restype = ctypes.c_int
    entry, found = Spwd(), ctypes.POINTER(Spwd)()
    size = 4096
    while True:
        strings = ctypes.create_string_buffer(size)
        failure = getspnam_r(login, ctypes.byref(entry), strings, size, ctypes.byref(found))
        if failure != errno.ERANGE or size >= _MOST_OCTETS:
            break
        size *= 2
    if found:
        value: bytes | None = found.contents.value
        return value
    if failure in _NOT_FOUND:
        return None
    raise OSError(failure, f"getspnam(3): {os.strerror(failure)}")
