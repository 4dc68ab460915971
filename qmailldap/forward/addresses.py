"""The addresses of a host name, asked for once for all who want them at about the same time.

Not by the reactor's own resolver: it takes some failures of the system for its own, and the reactor
would wait for it at the end of the server.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401  # getaddrinfo would load it when the right to read it is gone
import re
import socket

import attrs
from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from qmailldap.ip import parse_ip
from qmailldap.threads import Offload

__all__ = ["KEPT", "LOOKUP_LIMIT", "REMEMBERED", "Addresses", "resolve"]

LOOKUP_LIMIT = 30.0
"""Seconds that somebody waits for a lookup. It goes on, and no other is begun meanwhile."""

REMEMBERED = 10.0
"""Seconds until a name is looked up again, also one that has no addresses."""

KEPT = 600.0
"""Seconds that addresses are used while a newer lookup is under way or fails."""

_FAILED = 1.0
_MOST_NAMES = 1000
_SCOPE = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_NO_SUCH_NAME = frozenset(
    getattr(socket, name)
    for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY")
    if hasattr(socket, name)
)

Found = tuple[str, ...]


@attrs.define
class _Known:
    """``addresses`` are right until ``fresh``, and better than nothing until ``kept``."""

    addresses: Found
    fresh: float
    kept: float


class Addresses:
    """Host names into addresses; ``offload`` is where `resolve` may take its time."""

    def __init__(self, clock: IReactorTime, offload: Offload) -> None:
        self._clock = clock
        self._offload = offload
        self._known: dict[str, _Known] = {}
        self._waiting: dict[str, list[Deferred[Found]]] = {}

    def of(self, host: str) -> Deferred[Found]:
        """All addresses of ``host``, in the system's order; none where none are to be found.

        An address is its own. Cancelled, only this asking ends.
        """
        if parse_ip(host) is not None:
            scope = host.partition("%")[2]
            return succeed((host,) if not scope or _SCOPE.fullmatch(scope) else ())
        if not _is_name(host):
            return succeed(())
        now = self._clock.seconds()
        known = self._known.get(host)
        if known is None or now >= known.fresh:
            self._look_up(host)
            # It may be there at once.
            known = self._known.get(host)
        if known is not None and (now < known.fresh or (known.addresses and now < known.kept)):
            return succeed(known.addresses)
        asked: Deferred[Found] = Deferred()
        self._waiting[host].append(asked)
        return asked.addTimeout(LOOKUP_LIMIT, self._clock).addErrback(_nothing_in_time)

    def _look_up(self, host: str) -> None:
        if host in self._waiting:
            return
        self._waiting[host] = []
        self._offload(resolve, host).addCallbacks(
            self._found, self._not_found, callbackArgs=(host,), errbackArgs=(host,)
        )

    def _found(self, addresses: Found, host: str) -> None:
        now = self._clock.seconds()
        self._remember(host, _Known(addresses, now + REMEMBERED, now + KEPT))

    def _not_found(self, failure: Failure, host: str) -> None:
        """Nobody could say: what was known before is as good as ever."""
        now = self._clock.seconds()
        known = self._known.get(host) or _Known((), now, now)
        known.fresh = now + _FAILED
        if now >= known.kept:
            known.addresses = ()
        self._remember(host, known)

    def _remember(self, host: str, known: _Known) -> None:
        self._known.pop(host, None)
        while len(self._known) >= _MOST_NAMES:
            del self._known[next(iter(self._known))]
        self._known[host] = known
        for asked in self._waiting.pop(host):
            asked.callback(known.addresses)


def resolve(host: str) -> Found:
    """Ask the system for the addresses of a name; to be called in a thread.

    Raises ``OSError`` and the like when that is not to be found out at the moment.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in _NO_SUCH_NAME:
            return ()
        raise
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


def _nothing_in_time(failure: Failure) -> Found:
    failure.trap(TimeoutError)
    return ()


def _is_name(host: str) -> bool:
    """Whether the system can be asked: it takes offence at what IDNA cannot encode."""
    try:
        return 0 < len(host.encode("idna")) < 255 and "\0" not in host
    except UnicodeError:
        return False
