"""Has the mailbox of an account looked at, by a process with its owner's rights, within a limit."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

import qmailldap
from qmailldap.maildir.inspection import Inspection
from qmailldap.maildir.work import Place
from qmailldap.privsep.inspector import MOST_OCTETS, START, read_answer, write_request

__all__ = ["LOOK_LIMIT", "CannotLook", "look"]

LOOK_LIMIT = 30.0
"""Seconds that a look may take: file systems can hang."""

_GRACE = 2
"""Seconds after which the process ends by itself."""

# What a dynamic loader needs; nothing that changes what Python loads.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH")


class CannotLook(Exception):
    """The look gave no answer; the text says why."""


async def look(
    reactor: Any, place: Place, uid: int, gid: int, limit: float = LOOK_LIMIT
) -> tuple[Inspection, OSError | None]:
    """As `qmailldap.maildir.inspection.inspect`, as ``uid`` and ``gid``; both 0: as who we are.

    Raises `CannotLook`.
    """
    looker = _Looker(write_request(place, uid, gid))
    package = Path(qmailldap.__file__).resolve().parent
    command = [sys.executable, "-I", "-S", "-B", "-c", START, str(package.parent)]
    command.append(str(int(limit) + _GRACE))
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    try:
        reactor.spawnProcess(looker, sys.executable, command, environment, "/")
    except OSError as error:
        raise CannotLook(f"no process can be started: {error.strerror}") from None
    try:
        await looker.ended.addTimeout(limit, reactor)
    except TimeoutError:
        # One that the kernel holds cannot be ended, and is not waited for.
        looker.kill()
        raise CannotLook(f"no answer within {limit:g} seconds: is a file system hanging?") from None
    if len(looker.output) > MOST_OCTETS:
        raise CannotLook(f"the answer is longer than {MOST_OCTETS} octets")
    try:
        return read_answer(bytes(looker.output))
    except ValueError as error:
        raise CannotLook(f"{error} ({looker.last_line()})") from None


class _Looker(ProcessProtocol):
    """Sends one request and keeps the answer; ``ended`` fires when there is no more to come."""

    def __init__(self, request: bytes) -> None:
        self.ended: Deferred[None] = Deferred()
        self.output = bytearray()
        self._errors = bytearray()
        self._request = request

    def connectionMade(self) -> None:
        transport = self.transport
        assert transport is not None
        transport.write(self._request)
        transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self.output += data[: MOST_OCTETS + 1 - len(self.output)]
        if len(self.output) > MOST_OCTETS:
            self.kill()

    def errReceived(self, data: bytes) -> None:
        self._errors += data
        del self._errors[:-MOST_OCTETS]

    def processEnded(self, reason: Failure) -> None:
        if not self.ended.called:
            self.ended.callback(None)

    def kill(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def last_line(self) -> str:
        lines = self._errors.decode("utf-8", "backslashreplace").splitlines()
        return lines[-1] if lines else "it said nothing"
