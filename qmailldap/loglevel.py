"""Which lines go into the log: the bit mask LOGLEVEL of the environment.

All loggers of the package are `Log`: a line that the mask leaves out costs no more than looking at
it. Source: the seed, "ENVIRONMENT VARIABLES", and reference.md, "auth_pop".
"""

from __future__ import annotations

import enum
import functools
import os
import re
from typing import Any

from twisted.logger import Logger, LogLevel

__all__ = ["DEFAULT_MASK", "Kind", "Log", "mask"]


class Kind(enum.IntFlag):
    """The bits of LOGLEVEL. The original's 256, which shows passwords, is none of them."""

    ERRORS = 1
    WARNINGS = 2
    LOGINS = 4
    """logins and their outcome, and the end of sessions"""
    ACTIONS = 8
    """what is done besides: sessions forwarded, homes made, rights given up"""
    DEBUG = 16
    """how a login was decided"""
    DEBUG_MORE = 32
    """and what it was decided by"""
    DIRECTORY = 64
    """what is asked of the directory, and what it answers"""
    DIRECTORY_MORE = 128
    """its connections"""


DEFAULT_MASK = int(Kind.ERRORS | Kind.WARNINGS | Kind.LOGINS)

# Plain numbers, as every line is measured by them.
_ALL = sum(map(int, Kind))
_DIGITS = re.compile("[0-9]{1,18}")
_KINDS = {
    LogLevel.critical: int(Kind.ERRORS),
    LogLevel.error: int(Kind.ERRORS),
    LogLevel.warn: int(Kind.WARNINGS),
    LogLevel.info: int(Kind.ACTIONS),
    LogLevel.debug: int(Kind.DEBUG),
}


def mask() -> int:
    """What is logged: LOGLEVEL, else DEBUGLEVEL, as the original; a number in decimal digits.

    `DEFAULT_MASK` where neither begins with a digit. Bits that mean nothing are left out.
    """
    return _read(os.environ.get("LOGLEVEL", ""), os.environ.get("DEBUGLEVEL", ""))


@functools.lru_cache(maxsize=8)
def _read(*texts: str) -> int:
    for text in texts:
        digits = _DIGITS.match(text)
        if digits is not None:
            return int(digits[0]) & _ALL
    return DEFAULT_MASK


class Log(Logger):
    """A logger whose lines have a kind: that of their level, or the one given as ``kind=``."""

    def emit(self, level: Any, format: str | None = None, **kwargs: Any) -> None:
        kind: int = kwargs.pop("kind", 0) or _KINDS[level]
        if kind & mask():
            super().emit(level, format, **kwargs)

    def login(self, format: str, **kwargs: Any) -> None:
        """A line of the kind LOGINS, of the level info."""
        self.emit(LogLevel.info, format, kind=Kind.LOGINS, **kwargs)
