"""What is logged during a test, at a LOGLEVEL of its own."""

from __future__ import annotations

import os
from typing import Any

from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from qmailldap.loglevel import mask

__all__ = ["log_at", "logged_lines"]


def log_at(test: SynchronousTestCase, **variables: Any) -> None:
    """Have LOGLEVEL and DEBUGLEVEL these values for the rest of the test, or none."""
    others = {n: os.environ[n] for n in os.environ if n not in ("LOGLEVEL", "DEBUGLEVEL")}
    test.patch(os, "environ", {**others, **{name: str(v) for name, v in variables.items()}})
    mask.cache_clear()
    test.addCleanup(mask.cache_clear)


def logged_lines(test: SynchronousTestCase, namespace: str = "qmailldap.") -> list[str]:
    """Collects the lines that are logged for the rest of the test."""
    lines: list[str] = []

    @implementer(ILogObserver)
    def observer(event: LogEvent) -> None:
        if str(event.get("log_namespace", "")).startswith(namespace):
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observer)
    test.addCleanup(globalLogPublisher.removeObserver, observer)
    return lines
