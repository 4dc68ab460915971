"""Scores that fade, in memory of a fixed size which several processes share.

The memory is a file, on a disk or of no name, and no more of it than a few records is ever read.
What is found there was written by others: whatever it is, it is a score or it is none.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import stat
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from qmailldap.loglevel import Log

__all__ = ["HALF_LIFE", "BadScores", "ScoreTable"]

HALF_LIFE = 15 * 60.0
"""Seconds in which a score becomes half of what it was."""

_MOST = 1_000_000.0
"""The highest score; what is higher was not written by us."""

_SETS = 8192
"""With 8 records of 32 octets each: 2 MiB, the scores of 32,768 guessers with one login each."""

_WAYS = 8
_RECORD = struct.Struct("<8sdd")  # whose it is, the score, when it was that
_CHECK = struct.Struct("<II")  # of those; and to make it 32
_RECORD_SIZE = _RECORD.size + _CHECK.size
_SET_SIZE = _WAYS * _RECORD_SIZE

_MAGIC = b"qmailldap scores"
_VERSION = 1
_HEADER = struct.Struct("<16sII32s")  # magic, version, sets, the key of the hashes
_CHECKED_HEADER = struct.Struct("<56sI4x")

_TRIES = 200
"""How often a lock is tried for. Nobody holds one for longer than some microseconds, but for those
that were stopped then, and they are not waited for."""

_LOOKS = 3
"""How often a record is looked at that may be half-written."""

_START_TRIES = 50
_START_PAUSE = 0.1

_STEP = 60.0
"""Seconds by which the clocks of two processes may differ, or one clock be set back. What is from
later than that was written before the clock was begun anew."""


class BadScores(ValueError):
    """A file that scores cannot be kept in; the text says why."""


class ScoreTable:
    """Scores of keys, any octets, of which a keyed hash is kept.

    Where there is room for no more, the lowest of a few gives way. ``fd``, a descriptor opened for
    reading and writing, is of a table that was begun by `in_memory` or `in_file`, perhaps in
    another process; raises `BadScores` where it is not. All times are seconds of one clock, the
    same in all processes.
    """

    _log = Log(namespace="qmailldap.admission", of_sessions=False)

    def __init__(self, fd: int) -> None:
        header = os.pread(fd, _CHECKED_HEADER.size, 0)
        if len(header) < _CHECKED_HEADER.size or not header.startswith(_MAGIC):
            raise BadScores("holds something else than scores")
        facts, check = _CHECKED_HEADER.unpack(header)
        _, version, self._sets, key = _HEADER.unpack(facts)
        if version != _VERSION:
            raise BadScores(f"holds scores of another version, {version}")
        intact = check == zlib.crc32(facts) and self._sets > 0
        if not intact or os.fstat(fd).st_size != _offset(self._sets):
            raise BadScores("is damaged; it may be removed")
        self._fd = fd
        self._hash = hashlib.blake2b(digest_size=16, key=key)
        self._told = False

    @classmethod
    def in_memory(cls, sets: int = _SETS) -> ScoreTable:
        """A new one, for this process and those that are given its descriptor."""
        fd = os.memfd_create("scores")
        try:
            _begin(fd, sets)
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def in_file(cls, path: str, sets: int = _SETS) -> ScoreTable:
        """That of a file, which is made where there is none. To be called at start: it may wait.

        Raises `BadScores` where it cannot be used; a file with anything else in it is not touched.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, 0o600)
        except OSError as error:
            raise BadScores(f"cannot be opened: {error.strerror}") from None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise BadScores("is not a file")
            _lock_for_start(fd)
            if _is_new(fd, sets):
                _begin(fd, sets)
            table = cls(fd)
            fcntl.lockf(fd, fcntl.LOCK_UN)
        except OSError as error:
            os.close(fd)
            raise BadScores(f"cannot be used: {error.strerror}") from None
        except BaseException:
            os.close(fd)
            raise
        return table

    def fileno(self) -> int:
        """The descriptor, by which another process shares the scores."""
        return self._fd

    def close(self) -> None:
        os.close(self._fd)

    def score(self, key: bytes, now: float) -> float:
        """The score of ``key`` at the time ``now``, in seconds; 0.0 where none is kept."""
        tag, offset = self._place(key)
        highest = 0.0
        for _ in range(_LOOKS):
            data = self._octets(offset)
            whole = True
            # Not `_read`: hardly anybody has a score, and to see that none has this tag is enough.
            start = data.find(tag)
            while start >= 0:
                if start % _RECORD_SIZE == 0:
                    record = _read_record(data[start : start + _RECORD_SIZE], now)
                    if record is None:
                        whole = False
                    elif record[0] == tag:
                        highest = max(highest, record[1])
                start = data.find(tag, start + 1)
            if whole:
                break
        return highest

    def add(self, key: bytes, now: float) -> float:
        """Add 1 to the score of ``key``; gives what it is then."""
        tag, offset = self._place(key)
        with self._locked(offset):
            records = self._read(offset, now)
            tags = [each for each, _ in records]
            if tag in tags:
                way = tags.index(tag)
                score = min(_MOST, records[way][1] + 1.0)
            else:
                way = min(range(_WAYS), key=lambda each: records[each][1])
                score = 1.0
            self._write(offset + way * _RECORD_SIZE, _RECORD.pack(tag, score, now))
        return score

    def _place(self, key: bytes) -> tuple[bytes, int]:
        """The tag of a key, and where the records are among which its own is."""
        keyed = self._hash.copy()
        keyed.update(key)
        digest = keyed.digest()
        return digest[:8], _offset(int.from_bytes(digest[8:], "little") % self._sets)

    def _read(self, offset: int, now: float) -> list[tuple[bytes, float]]:
        """The records of a set, each a tag and its score at ``now``: no tag where there is none."""
        for _ in range(_LOOKS):
            data = self._octets(offset)
            records = [
                _read_record(data[start : start + _RECORD_SIZE], now)
                for start in range(0, _SET_SIZE, _RECORD_SIZE)
            ]
            if None not in records:
                break
        # What stays no record is a place that is free.
        return [each or _NONE for each in records]

    def _octets(self, offset: int) -> bytes:
        data = b""
        try:
            data = os.pread(self._fd, _SET_SIZE, offset)
        except OSError as error:
            self._tell(error)
        # Somebody may have cut off the file.
        return data.ljust(_SET_SIZE, b"\0")

    def _write(self, offset: int, record: bytes) -> None:
        try:
            os.pwrite(self._fd, record + _CHECK.pack(zlib.crc32(record), 0), offset)
        except OSError as error:
            self._tell(error)

    def _tell(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            self._log.error(
                "scores of wrong passwords are not kept: {problem}", problem=error.strerror
            )

    @contextmanager
    def _locked(self, offset: int) -> Iterator[None]:
        """Keep other processes from changing a set, if they let us.

        They may not: then a guess of theirs or ours is lost, which is better than to wait.
        """
        locked = False
        for _ in range(_TRIES):
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, _SET_SIZE, offset)
            except OSError:
                os.sched_yield()
            else:
                locked = True
                break
        try:
            yield
        finally:
            if locked:
                with suppress(OSError):  # what is released with the process at the latest
                    fcntl.lockf(self._fd, fcntl.LOCK_UN, _SET_SIZE, offset)


def _offset(number: int) -> int:
    return _CHECKED_HEADER.size + number * _SET_SIZE


_NONE = (b"", 0.0)
_UNUSED = bytes(_RECORD_SIZE)


def _read_record(octets: bytes, now: float) -> tuple[bytes, float] | None:
    """The tag and the score; None for octets that are no record."""
    if octets == _UNUSED:
        return _NONE
    check, unused = _CHECK.unpack_from(octets, _RECORD.size)
    if unused or check != zlib.crc32(octets[: _RECORD.size]):
        return None
    tag, score, since = _RECORD.unpack_from(octets)
    if not (0.0 <= score <= _MOST and math.isfinite(since)) or since > now + _STEP:
        return _NONE
    return tag, score * 0.5 ** (max(0.0, now - since) / HALF_LIFE)


def _is_new(fd: int, sets: int) -> bool:
    """Whether nothing was ever in the file, or somebody did not come to the end of `_begin`."""
    size = os.fstat(fd).st_size
    if size != _offset(sets):
        return size == 0
    return os.pread(fd, _CHECKED_HEADER.size, 0) == bytes(_CHECKED_HEADER.size)


def _begin(fd: int, sets: int) -> None:
    # Now, rather than when a disk is full and there is no room for a score.
    os.posix_fallocate(fd, 0, _offset(sets))
    facts = _HEADER.pack(_MAGIC, _VERSION, sets, os.urandom(32))
    os.pwrite(fd, _CHECKED_HEADER.pack(facts, zlib.crc32(facts)), 0)


def _lock_for_start(fd: int) -> None:
    """Of several servers that start at the same time, one begins the file."""
    for _ in range(_START_TRIES):
        with suppress(BlockingIOError, PermissionError):
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, _CHECKED_HEADER.size)
            return
        time.sleep(_START_PAUSE)
    raise BadScores("is kept locked by another process")
