"""``/healthz``: whether this process serves and some directory server answers it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from qmailldap.status.gauges import FRESH
from qmailldap.status.http import Page, PlainText

__all__ = ["Health"]


class Directory(Protocol):
    """What is asked of `qmailldap.directory.Directory`."""

    def answers(self, fresh: float) -> Deferred[bool]: ...


class Health(Page):
    """200 while some directory server answers, 503 with the reason while none does.

    ``directory`` gives the one that is in force. Where nobody logs in, nothing is known of it: it
    is asked then, not more often than every `FRESH` seconds while it answers, and every second
    while it does not.
    """

    def __init__(self, directory: Callable[[], Directory]) -> None:
        super().__init__()
        self._directory = directory

    def content(self, request: Any) -> Deferred[bytes]:
        def shown(answers: bool) -> bytes:
            return (_ALIVE if answers else _NO_DIRECTORY).render(request)

        return self._directory().answers(FRESH).addCallback(shown)


_ALIVE = PlainText(200, "ok")
_NO_DIRECTORY = PlainText(503, "no directory server answers")
