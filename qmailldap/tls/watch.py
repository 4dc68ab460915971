"""Certificates are renewed while the server runs: looked at now and then, and when told to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from qmailldap.loglevel import Kind, Log
from qmailldap.threads import Busy
from qmailldap.tls.certificates import Certificates, unreadable
from qmailldap.tls.pem import BadCertificate

__all__ = ["INTERVAL", "CertificateWatch", "reading"]

INTERVAL = 30.0
"""Seconds between two looks at the files."""

_log = Log(namespace="qmailldap.tls.watch")


def reading(
    paths: Sequence[Path], read_one: Callable[[int], Awaitable[bytes]]
) -> Callable[[], Deferred[list[bytes]]]:
    """What a `CertificateWatch` reads all files by, one after another.

    ``read_one`` is given the number of a path, from 0, and may raise ``OSError``.
    """

    async def read() -> list[bytes]:
        contents = []
        for number, path in enumerate(paths):
            try:
                contents.append(await read_one(number))
            except OSError as error:
                raise BadCertificate(unreadable(path, error)) from None
        return contents

    return lambda: Deferred.fromCoroutine(read())


class CertificateWatch:
    """Has new connections shown what the files of certificates hold by now.

    ``read`` gives the contents of all of them, in the order of `Certificates.paths`; it fails with
    `BadCertificate` or `Busy`. What cannot be used is told once, and the certificates from before
    stay; where nobody has asked for it, only when two looks in a row have found the same fault, for
    the first may have come while the file was being written.
    """

    def __init__(
        self,
        certificates: Certificates,
        read: Callable[[], Deferred[list[bytes]]],
        clock: IReactorTime,
        interval: float = INTERVAL,
    ) -> None:
        self._certificates = certificates
        self._read = read
        self._clock = clock
        self._interval = interval
        self._next: IDelayedCall | None = None
        self._is_reading = False
        self._asked_again = False
        self._running = False
        # The fault that the last look has found, and the last that was told.
        self._found = ""
        self._told = ""
        self._warned: set[str] = set()

    def start(self) -> None:
        self._running = True
        self._warn()
        self._next = self._clock.callLater(self._interval, self._poll)
        if self._asked_again:
            self._asked_again = False
            self._begin(asked=True)

    def stop(self) -> None:
        """What is being read by now changes nothing any more."""
        self._running = False
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def reload(self) -> None:
        """Look at once, and say what is found; before the start, as soon as that comes."""
        if self._is_reading or not self._running:
            # What was read may be what was there before somebody said that it has changed.
            self._asked_again = True
        else:
            self._begin(asked=True)

    def _poll(self) -> None:
        self._next = self._clock.callLater(self._interval, self._poll)
        if self._is_reading:
            # No second one beside it: each could take a thread that hangs in a file system.
            self._judge("its files have been read for too long, without an end", asked=False)
        else:
            self._begin(asked=False)

    def _begin(self, asked: bool) -> None:
        self._is_reading = True

        def done(result: Any) -> None:
            self._is_reading = False
            if not self._running:
                return
            self._look(result, asked)
            if self._asked_again:
                self._asked_again = False
                self._begin(asked=True)

        self._read().addBoth(done).addErrback(
            lambda failure: _log.failure("while certificates were read", failure)
        )

    def _look(self, result: list[bytes] | Failure, asked: bool) -> None:
        """At what was read."""
        try:
            if isinstance(result, Failure):
                result.raiseException()
            else:
                changed = self._certificates.replace(result)
        except (BadCertificate, Busy) as error:
            self._judge(str(error), asked)
            return
        was_told, self._found, self._told = self._told, "", ""
        for each in changed:
            # For those who were told that the one before ends, or have asked for it.
            _log.info("certificate loaded {certificate}", kind=Kind.WARNINGS, certificate=each)
        # Also for those who were told of a fault that is gone by now.
        if not changed and (asked or was_told):
            _log.info("certificate unchanged", kind=Kind.WARNINGS)
        self._warn()

    def _judge(self, fault: str, asked: bool) -> None:
        """Tell of a fault, unless it is known or may pass by itself."""
        again, self._found = fault == self._found, fault
        if asked or (again and fault != self._told):
            self._told = fault
            _log.error("certificate not loaded, that from before stays: {fault}", fault=fault)

    def _warn(self) -> None:
        """Tell once of whatever clients may not accept; some comes with time."""
        warnings = self._certificates.warnings
        for warning in warnings:
            if warning not in self._warned:
                _log.warn("{line}", line=warning)
        self._warned = set(warnings)
