"""Giving up the rights of root: once, in one way, by every process that had them.

The standard library only: the broker's children do this.
"""

from __future__ import annotations

import errno
import os

__all__ = ["give_up_root"]


def give_up_root(uid: int, gid: int) -> None:
    """Have no rights but those of ``uid`` and ``gid``, in every thread and for ever.

    To be called as root. Raises ``OSError`` when that is refused.
    """
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if (os.getresuid(), os.getresgid(), os.getgroups()) != ((uid,) * 3, (gid,) * 3, []):
        raise PermissionError(errno.EPERM, "the rights of root were not given up")
