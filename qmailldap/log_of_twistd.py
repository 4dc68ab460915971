"""How twistd itself would log: what its options say of it, and the observer that it would make.

Source: twisted/application/app.py and twisted/scripts/_twistd_unix.py, of Twisted 24.3 to 26.10.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from twisted.logger import FileLogObserver
from twisted.python import usage
from twisted.scripts._twistd_unix import ServerOptions, UnixAppLogger

__all__ = ["Unknown", "config_of_twistd", "observer_of_twistd"]


class Unknown(Exception):
    """It is not twistd that runs the server, or one that logs otherwise; the text says so."""


class _Once(ServerOptions):
    """twistd's options read once more, without doing what they ask for."""

    subCommands: Any = ()

    def opt_reactor(self, shortName: str) -> None:
        """Which one: chosen already."""

    opt_r = opt_reactor

    def opt_debug(self) -> None:
        """To be debugged, and to stay in the foreground."""
        self["debug"] = True

    opt_b = opt_debug

    def opt_spew(self) -> None:
        """To show what it does: shown already."""


def config_of_twistd(parent: Any) -> Mapping[str, Any]:
    """twistd's own options: the ``parent`` of those that came behind them, where there is one.

    A tac file is not told of them, but they are this process's arguments. Raises `Unknown`.
    """
    if parent is not None:
        return dict(parent)
    again = _Once()
    try:
        again.parseOptions(sys.argv[1:])
    except usage.UsageError as error:
        raise Unknown(f"these are no arguments of twistd: {error}") from None
    return dict(again)


def observer_of_twistd(config: Mapping[str, Any]) -> FileLogObserver:
    """The observer that it would make of its file, which is rotated, or of standard output.

    Raises `Unknown`.
    """
    observer = UnixAppLogger(config)._getLogObserver()
    if not isinstance(observer, FileLogObserver):
        raise Unknown("this twistd does not write to a file")
    return observer
