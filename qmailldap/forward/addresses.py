"""The addresses of a host name, asked for once for all who want them at about the same time."""

from __future__ import annotations

import encodings.idna  # noqa: F401  # getaddrinfo would load it when the right to read it is gone

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorTime,
    IResolutionReceiver,
)
from zope.interface import implementer

from qmailldap.ip import parse_ip

__all__ = ["LOOKUP_LIMIT", "REMEMBERED", "Addresses"]

LOOKUP_LIMIT = 30.0
"""Seconds after which a lookup has found nothing."""

REMEMBERED = 10.0
"""Seconds that an answer serves others, too; also the one that there are no addresses."""

_MOST_NAMES = 1000


class Addresses:
    """Host names into addresses; ``resolver`` is the reactor's."""

    def __init__(self, clock: IReactorTime, resolver: IHostnameResolver) -> None:
        self._clock = clock
        self._resolver = resolver
        self._known: dict[str, tuple[float, tuple[str, ...]]] = {}
        self._waiting: dict[str, list[Deferred[tuple[str, ...]]]] = {}

    def of(self, host: str) -> Deferred[tuple[str, ...]]:
        """All addresses of ``host``, in the resolver's order; none where there are none.

        An address is its own. Cancelled, only this asking ends.
        """
        if parse_ip(host) is not None:
            return succeed((host,))
        if not _is_name(host):
            return succeed(())
        until, addresses = self._known.get(host, (0.0, ()))
        if self._clock.seconds() < until:
            return succeed(addresses)
        asked: Deferred[tuple[str, ...]] = Deferred()
        if host in self._waiting:
            self._waiting[host].append(asked)
        else:
            self._waiting[host] = [asked]
            self._look_up(host)
        return asked

    def _look_up(self, host: str) -> None:
        found: Deferred[tuple[str, ...]] = Deferred()
        found.addTimeout(LOOKUP_LIMIT, self._clock)
        # Whatever goes wrong, there are no addresses; the reactor's own resolver does not say why.
        found.addErrback(lambda _: ())
        found.addCallback(lambda addresses: self._found(host, addresses))
        self._resolver.resolveHostName(_Receiver(found), host)

    def _found(self, host: str, addresses: tuple[str, ...]) -> None:
        self._known.pop(host, None)
        while len(self._known) >= _MOST_NAMES:
            del self._known[next(iter(self._known))]
        self._known[host] = (self._clock.seconds() + REMEMBERED, addresses)
        for asked in self._waiting.pop(host):
            # One who has lost interest was cancelled, and is not to be called again.
            if not asked.called:
                asked.callback(addresses)


@implementer(IResolutionReceiver)
class _Receiver:
    def __init__(self, found: Deferred[tuple[str, ...]]) -> None:
        self._found = found
        self._addresses: dict[str, None] = {}

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Nothing to do: who began it asks for no more than its result."""

    def addressResolved(self, address: IAddress) -> None:
        host = getattr(address, "host", None)
        if host is not None:
            self._addresses[host] = None

    def resolutionComplete(self) -> None:
        if not self._found.called:
            self._found.callback(tuple(self._addresses))


def _is_name(host: str) -> bool:
    """Whether the resolver can be asked: it takes offence at what IDNA cannot encode."""
    try:
        return 0 < len(host.encode("idna")) < 255 and "\0" not in host
    except UnicodeError:
        return False
