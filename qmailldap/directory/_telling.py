"""What LOGLEVEL 64 and 128 show of one directory server: what it is asked, and its connections."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, TimeoutError
from twisted.internet.interfaces import IReactorTime

from qmailldap.directory.errors import OutOfTime
from qmailldap.directory.filter_text import filter_text
from qmailldap.directory.results import Result
from qmailldap.loglevel import Kind, Log
from qmailldap.printable import printable

__all__ = ["Telling"]

_LONGEST = 256

_log = Log(namespace="qmailldap.directory")
_log_of_connections = Log(namespace="qmailldap.directory", of_sessions=False)


class Telling:
    """Tells of the server of that name; ``begun`` is when an operation was, by the clock."""

    def __init__(self, clock: IReactorTime, server: str) -> None:
        self._clock = clock
        self._server = server
        # Asked once, as the mask does not change: nobody listens at most sites.
        self._operations = _log.shows(Kind.DIRECTORY)
        self._connections = _log.shows(Kind.DIRECTORY_MORE)

    def search(
        self, request: Any, begun: float, outcome: Result | Exception, entries: int = 0
    ) -> None:
        if self._operations:
            _log.debug(
                'search server={server} base={base} filter="{filter}" entries={entries}'
                " result={result} seconds={seconds:.3f}",
                kind=Kind.DIRECTORY,
                server=self._server,
                base=printable(request.baseObject, _LONGEST),
                filter=filter_text(request.filter),
                entries=entries,
                result=_shown(outcome),
                seconds=self._clock.seconds() - begun,
            )

    def bind(self, dn: bytes, begun: float, outcome: Result | Exception) -> None:
        if self._operations:
            _log.debug(
                "bind server={server} dn={dn} result={result} seconds={seconds:.3f}",
                kind=Kind.DIRECTORY,
                server=self._server,
                dn=printable(dn, _LONGEST),
                result=_shown(outcome),
                seconds=self._clock.seconds() - begun,
            )

    def connection(self, became: str, searching: int, rebinding: int, why: str = "") -> None:
        if self._connections:
            _log_of_connections.debug(
                "connection server={server} became={became} searching={searching}"
                " rebinding={rebinding}" + (" why={why}" if why else ""),
                kind=Kind.DIRECTORY_MORE,
                server=self._server,
                became=became,
                searching=searching,
                rebinding=rebinding,
                why=printable(why.encode("utf-8", "replace"), _LONGEST),
            )


def _shown(outcome: Result | Exception) -> str:
    """How an operation ended, for the log; an exception may have no text of its own."""
    if isinstance(outcome, (CancelledError, TimeoutError, OutOfTime)):
        return "given-up"  # its time is up, or its login went away
    text = str(outcome) or type(outcome).__name__
    return printable(text.encode("utf-8", "replace"), _LONGEST)
