"""How much a mailbox may hold, and how Maildir++ writes it.

The standard library only: the processes that touch mail load this.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Quota"]


class Quota(NamedTuple):
    """A limit of ``size`` octets and one of ``count`` messages; 0 is no limit.

    As text it is what MAILDIRQUOTA and the first line of maildirsize hold: ``1000000S,1000C``, of
    which only the parts that are set.
    """

    size: int = 0
    count: int = 0  # type: ignore[assignment]  # hides tuple.count, which nobody misses

    def __str__(self) -> str:
        parts = ((self.size, "S"), (self.count, "C"))
        return ",".join(f"{number}{unit}" for number, unit in parts if number)

    @property
    def is_set(self) -> bool:
        """Whether there is any limit."""
        return bool(self.size or self.count)
