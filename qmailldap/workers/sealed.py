"""Octets in memory that can be handed to another process and changed by nobody."""

from __future__ import annotations

import fcntl
import os

__all__ = ["Unsealed", "read_sealed", "seal"]

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Unsealed(ValueError):
    """A descriptor of something else."""


def seal(octets: bytes) -> int:
    """A descriptor of memory that holds ``octets`` from now on. Raises ``OSError``."""
    descriptor = os.memfd_create("qmailldap", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        left = memoryview(octets)
        while left:
            left = left[os.write(descriptor, left) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_sealed(descriptor: int, most: int) -> bytes:
    """What such a descriptor holds, ``most`` octets at most. Raises `Unsealed` and ``OSError``.

    Where it is read from is shared by all who have the descriptor, and left alone.
    """
    if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
        raise Unsealed("memory that others may change")
    size = os.fstat(descriptor).st_size
    if size > most:
        raise Unsealed(f"{size} octets are too many")
    octets = bytearray()
    while len(octets) < size:
        octets += os.pread(descriptor, size - len(octets), len(octets))
    return bytes(octets)
