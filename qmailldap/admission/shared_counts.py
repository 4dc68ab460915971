"""What the worker processes of one server tell each other of how many are there.

The memory is of a fixed size, whoever comes. Each worker writes to its own part of it only, so none
waits for another; what a worker has itself, it counts exactly and elsewhere.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
import zlib
from functools import lru_cache

__all__ = ["BadCounts", "SharedCounts"]

_CELLS = 65_536
"""Of each of four rows; each is an unsigned int, so these are 1 MiB for each worker."""

_HASH = struct.Struct("<4H")

_TOTAL = 4 * _CELLS
_REGION = _TOTAL + 16
"""Cells of one worker: the rows, and in 64 octets of its own the total."""

_CELL_SIZE = struct.calcsize("@I")

_REMEMBERED = 256
"""Keys whose cells need not be worked out again."""

_MAGIC = b"qmailldap counts"
_VERSION = 1
_HEADER = struct.Struct("<16sII32s")  # magic, version, workers, the key of the hashes
_CHECKED_HEADER = struct.Struct("<56sI4x")

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
"""Of memory that could be cut off, what is mapped would end the process that looks at it."""


class BadCounts(ValueError):
    """Memory that is not of counts, or not of that worker; the text says why."""


class SharedCounts:
    """How many connections all workers have, and how many of each key; keys are any octets.

    A worker finds its own counts nowhere here but those of all others (`total_elsewhere`,
    `elsewhere`), and tells them its own (`tell_total`, `add`, `remove`).

    The keys of a worker are counted in a count-min sketch: a keyed hash names a cell in each of
    four rows, all of which are counted up for each that comes; the lowest of them is the count. It
    is never less than the truth, and more only where each of the four is shared with another key of
    that worker: by a chance of (1 - (1 - 1/65536)^n)^4 when it has n others, 5e-8 for 1,000 and
    4e-4 for 10,000. It is more by what those others have, which is 1 or 2 for most. So who is
    refused wrongly was just below a limit, and one of few even of those. What the hash is keyed by
    is of this memory only, and nobody can choose names that meet.

    Nothing is locked. Who reads while another writes finds the count from before or after; two
    workers that let somebody in at the same moment may have one more than the limit between them,
    and so one for each further worker.
    """

    def __init__(self, descriptor: int, number: int | None) -> None:
        """Use `create` or `join`."""
        header = os.pread(descriptor, _CHECKED_HEADER.size, 0)
        if len(header) < _CHECKED_HEADER.size or not header.startswith(_MAGIC):
            raise BadCounts("holds something else than counts")
        facts, check = _CHECKED_HEADER.unpack(header)
        _, version, workers, key = _HEADER.unpack(facts)
        if version != _VERSION or check != zlib.crc32(facts):
            raise BadCounts("holds counts of another version")
        size = _offset(workers)
        if _seals(descriptor) & _SEALS != _SEALS or os.fstat(descriptor).st_size != size:
            raise BadCounts("is not as it was made")
        if number is not None and not 0 <= number < workers:
            raise BadCounts(f"has no place for worker {number}, but for {workers}")
        self._descriptor = descriptor
        self._hash = hashlib.blake2b(digest_size=_HASH.size, key=key)
        # One that comes is looked for, added, and perhaps gone again soon.
        self._cells = lru_cache(_REMEMBERED)(self._cells_of)
        self._memory = mmap.mmap(descriptor, size)
        cells = memoryview(self._memory).cast("I")
        starts = (_offset(each) // _CELL_SIZE for each in range(workers))
        regions = [cells[start : start + _REGION] for start in starts]
        # Who is no worker has no cells to write to.
        self._own = cells[:0] if number is None else regions.pop(number)
        self._others = regions
        self._views = [cells, self._own, *regions]

    @classmethod
    def create(cls, workers: int) -> SharedCounts:
        """New ones for so many workers, from which this process is apart.

        Raises ``OSError`` where there is no memory for them.
        """
        descriptor = os.memfd_create("counts", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            # Now, rather than when there is none and a worker would be ended for touching it.
            os.posix_fallocate(descriptor, 0, _offset(workers))
            facts = _HEADER.pack(_MAGIC, _VERSION, workers, os.urandom(32))
            os.pwrite(descriptor, _CHECKED_HEADER.pack(facts, zlib.crc32(facts)), 0)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            return cls(descriptor, None)
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def join(cls, descriptor: int, number: int) -> SharedCounts:
        """Those of a descriptor that was given by who made them, for the worker ``number``.

        It counts from 0, and no two workers may have the same. Raises `BadCounts`.
        """
        return cls(descriptor, number)

    def fileno(self) -> int:
        """The descriptor, by which another process shares the counts."""
        return self._descriptor

    def close(self) -> None:
        for view in self._views:
            view.release()
        self._memory.close()
        os.close(self._descriptor)

    def clear(self, number: int) -> None:
        """The worker has ended, and has nothing any more. To be called before it begins again."""
        start = _offset(number)
        size = _REGION * _CELL_SIZE
        self._memory[start : start + size] = bytes(size)

    def total_elsewhere(self) -> int:
        """How many connections the other workers have."""
        return sum([region[_TOTAL] for region in self._others])

    def tell_total(self, count: int) -> None:
        """So many connections this worker has now."""
        self._own[_TOTAL] = count

    def elsewhere(self, key: bytes) -> int:
        """How many of ``key`` the other workers have, and hardly ever more than that."""
        cells = self._cells(key)
        count = 0
        for region in self._others:
            lowest = region[cells[0]]
            for cell in cells:
                if not lowest:
                    break
                lowest = min(lowest, region[cell])
            count += lowest
        return count

    def add(self, key: bytes) -> None:
        """One more of ``key`` is with this worker."""
        own = self._own
        for cell in self._cells(key):
            own[cell] += 1

    def remove(self, key: bytes) -> None:
        """One of those that were added has left."""
        own = self._own
        for cell in self._cells(key):
            # None is there when this worker was held to have ended.
            if own[cell]:
                own[cell] -= 1

    def _cells_of(self, key: bytes) -> tuple[int, int, int, int]:
        keyed = self._hash.copy()
        keyed.update(key)
        first, second, third, fourth = _HASH.unpack(keyed.digest())
        return first, _CELLS + second, 2 * _CELLS + third, 3 * _CELLS + fourth


def _offset(number: int) -> int:
    """Where the cells of a worker begin, in octets."""
    return _CHECKED_HEADER.size + number * _REGION * _CELL_SIZE


def _seals(descriptor: int) -> int:
    """Which changes nobody can make any more; none where it is a file that has no seals."""
    try:
        return fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:
        return 0
