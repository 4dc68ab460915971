"""Which lines go into the log: the bit mask LOGLEVEL of the environment; and of which session.

All loggers of the package are `Log`: a line that the mask leaves out costs no more than looking at
it. Source: the seed, "ENVIRONMENT VARIABLES", and reference.md, "auth_pop".
"""

from __future__ import annotations

import enum
import functools
import os
import re
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Any, ParamSpec, TypeVar

from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, eventAsText
from zope.interface import implementer

from qmailldap.printable import Fields, escaped

__all__ = [
    "DEFAULT_MASK",
    "Kind",
    "Log",
    "complaint",
    "current_session",
    "for_no_session",
    "mask",
    "on_standard_error",
]

P = ParamSpec("P")
T = TypeVar("T")

current_session: ContextVar[str] = ContextVar("current_session", default="")
"""The id of the session for which something is done, empty for what is done for none or for all.

`qmailldap.session.Session.carry_out` sets it; coroutines hand it on to what they await. What is
called back by the reactor, a timer or a thread is of no session.
"""


def for_no_session(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``function`` gives; what it logs, and what it begins, is of no session.

    For what a session happens to begin, and others have as much of: a connection to the directory.
    """
    context = copy_context()
    context.run(current_session.set, "")
    return context.run(function, *args, **kwargs)


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

_VARIABLES = ("LOGLEVEL", "DEBUGLEVEL")
_DIGITS = re.compile("[0-9]+")

# Plain numbers, as every line is measured by them.
_ALL = sum(map(int, Kind))
_KINDS = {
    LogLevel.critical: int(Kind.ERRORS),
    LogLevel.error: int(Kind.ERRORS),
    LogLevel.warn: int(Kind.WARNINGS),
    LogLevel.info: int(Kind.ACTIONS),
    LogLevel.debug: int(Kind.DEBUG),
}
_LOGIN_KINDS = {
    **{level: kind | int(Kind.LOGINS) for level, kind in _KINDS.items()},
    LogLevel.info: int(Kind.LOGINS),
}

_HARMLESS = (Fields, bool, int, float, type(None))
"""What values of a line may be besides text."""


@functools.cache
def mask() -> int:
    """What is logged: LOGLEVEL, else DEBUGLEVEL, as the original; a number in decimal digits.

    `DEFAULT_MASK` where neither begins with a digit. Bits that mean nothing are left out. The
    environment is read once: to read it for each line takes as long as the line.
    """
    for name in _VARIABLES:
        digits = _DIGITS.match(os.environ.get(name, ""))
        if digits is not None:
            # However many there are, the last eight decide on the bits below 2 ** 8.
            return int(digits[0][-8:]) & _ALL
    return DEFAULT_MASK


def complaint() -> str | None:
    """What is wrong with the variable that counts, None where it is a number or there is none.

    `Log.unmasked` is for telling it: what counts instead may be a number that shows no warnings.
    """
    for name in _VARIABLES:
        text = os.environ.get(name, "")
        if text:
            digits = _DIGITS.match(text)
            if digits is None:
                return f"{name} is not a number: {text!a:.80}"
            if digits[0] != text.rstrip():
                return f"{name} is not a number: {text!a:.80} counts as {digits[0]:.20}"
            return None
    return None


class Log(Logger):
    """A logger whose lines have a kind: that of their level, or the one given as ``kind=``.

    A line that is logged for a session has ``session=`` at its end, unless that is in it already or
    the logger is not ``of_sessions``: what it tells of is everybody's.
    """

    def __init__(
        self,
        namespace: str | None = None,
        source: object = None,
        observer: ILogObserver | None = None,
        *,
        of_sessions: bool = True,
    ) -> None:
        # Twisted would look for a name one call too near.
        super().__init__(namespace or __name__, source, observer)
        self._of_sessions = of_sessions

    def __get__(self, instance: object, owner: object = None) -> Log:
        """As an attribute of a class it keeps its namespace, too."""
        return self

    def emit(self, level: Any, format: str | None = None, **kwargs: Any) -> None:
        kind = kwargs.pop("kind", 0) or _KINDS[level]
        if not int(kind) & mask():
            return
        format = format or ""
        for name, value in kwargs.items():
            if not isinstance(value, _HARMLESS) and not name.startswith("log_"):
                # Errors, as their text, and texts that nobody made printable.
                kwargs[name] = escaped(value if isinstance(value, str) else str(value))
        if self._of_sessions and "session" not in kwargs:
            session = current_session.get()
            if session:
                format += " session={session}"
                kwargs["session"] = session
        super().emit(level, format, **kwargs)

    def unmasked(self, format: str, **kwargs: Any) -> None:
        """A warning that is shown whatever the mask says: one of the mask itself."""
        super().emit(LogLevel.warn, format, **kwargs)

    def shows(self, kind: Kind) -> bool:
        """Whether lines of the kind are logged: to be asked before more is done for one."""
        return int(kind) & mask() != 0

    def login(self, format: str, *, level: Any = LogLevel.info, **kwargs: Any) -> None:
        """A line on a login or the end of a session, of the kind LOGINS; its session is in it.

        One of a ``level`` above info is of that level's kind, too, and shown for either. All values
        are numbers, or texts that are printable.
        """
        kind = _LOGIN_KINDS[level]
        if kind & mask():
            # In one go: Twisted's formatter takes its time for each field, and this at each login.
            line = format.format_map(kwargs)
            super().emit(level, "{log_line}", log_line=line, log_words=format, **kwargs)


def on_standard_error(program: str) -> ILogObserver:
    """An observer that writes lines and tracebacks to standard error, each in one piece.

    They begin with the name of the ``program``. Of Twisted's own lines, only errors are of
    interest.
    """

    @implementer(ILogObserver)
    def write(event: LogEvent) -> None:
        if not isinstance(event.get("log_logger"), Log):
            severe = event.get("log_level") in (LogLevel.error, LogLevel.critical)
            if not severe or not mask() & Kind.ERRORS:
                return
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        # Where there is none, there is nowhere else to say it.
        with suppress(OSError):
            os.write(2, f"{program}: {text}\n".encode("utf-8", "backslashreplace"))

    observer: ILogObserver = write
    return observer
