"""Certificates are renewed while the server runs: their files are looked at now and then.

The first look is at the start: what the server was started with may have been read long before, as
it is for a worker that takes the place of another.

Who tells the server to read its files again has all of them read, by others; they tell here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from qmailldap.loglevel import Kind, Log
from qmailldap.threads import Busy
from qmailldap.tls.certificates import Certificate, Certificates, unreadable
from qmailldap.tls.pem import BadCertificate

__all__ = ["INTERVAL", "CertificateWatch", "reading"]

INTERVAL = 30.0
"""Seconds between two looks at the files."""

_log = Log(namespace="qmailldap.tls.watch", of_sessions=False)


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
    stay; and only when two looks in a row have found the same fault, for the first may have come
    while the file was being written.
    """

    def __init__(
        self,
        certificates: Certificates,
        read: Callable[[], Deferred[list[bytes]]],
        clock: IReactorTime,
        interval: float = INTERVAL,
    ) -> None:
        self.certificates = certificates
        self._read = read
        self._clock = clock
        self._interval = interval
        self._next: IDelayedCall | None = None
        self._is_reading = False
        # What is being read by now is older than what is shown.
        self._is_stale = False
        self._running = False
        # The fault that the last look has found, and the last that was told.
        self._found = ""
        self._told = ""
        self._warned: set[str] = set()

    def start(self) -> None:
        self._running = True
        self._warn()
        self._poll()

    def stop(self) -> None:
        """What is being read by now changes nothing any more."""
        self._running = False
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def renewed(self, changed: Sequence[Certificate]) -> None:
        """Others have read the files and had the certificates replaced: say so."""
        self._is_stale = self._is_reading
        self._tell(changed, asked=True)

    def told(self, fault: str) -> None:
        """Others have found this fault in the files, and have told it."""
        self._found = self._told = fault

    def _poll(self) -> None:
        self._next = self._clock.callLater(self._interval, self._poll)
        if self._is_reading:
            # No second one beside it: each could take a thread that hangs in a file system.
            self._judge("its files have been read for too long, without an end")
        else:
            self._begin()

    def _begin(self) -> None:
        self._is_reading = True

        def done(result: Any) -> None:
            is_stale, self._is_reading, self._is_stale = self._is_stale, False, False
            if self._running and not is_stale:
                self._look(result)

        self._read().addBoth(done).addErrback(
            lambda failure: _log.failure("certificate not read", failure)
        )

    def _look(self, result: list[bytes] | Failure) -> None:
        """At what was read."""
        try:
            if isinstance(result, Failure):
                result.raiseException()
            else:
                changed = self.certificates.replace(result)
        except (BadCertificate, Busy) as error:
            self._judge(str(error))
            return
        self._tell(changed, asked=False)

    def _tell(self, changed: Sequence[Certificate], asked: bool) -> None:
        was_told, self._found, self._told = self._told, "", ""
        for each in changed:
            # For those who were told that the one before ends, or have asked for it.
            _log.info("certificate loaded {facts}", kind=Kind.WARNINGS, facts=each.facts)
        # Also for those who were told of a fault that is gone by now.
        if not changed and (asked or was_told):
            _log.info("certificate unchanged", kind=Kind.WARNINGS)
        self._warn()

    def _judge(self, fault: str) -> None:
        """Tell of a fault, unless it is known or may pass by itself."""
        again, self._found = fault == self._found, fault
        if again and fault != self._told:
            self._told = fault
            _log.error("certificate not loaded, that from before stays: {fault}", fault=fault)

    def _warn(self) -> None:
        """Tell once of whatever clients may not accept; some comes with time."""
        warnings = self.certificates.warnings
        for warning in warnings:
            if warning not in self._warned:
                _log.warn("certificate {doubt}", doubt=warning.removeprefix("certificate "))
        self._warned = set(warnings)
