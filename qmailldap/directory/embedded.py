"""A directory server of our own that serves an LDIF file: for `qmailldap demo` and for tests.

ldaptor's server on ldaptor's tree in memory, read-only, without access control and without any
index. Nothing of a real site may come to depend on it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from pathlib import Path
from typing import Any, NoReturn, cast

from ldaptor import inmemory, interfaces
from ldaptor.protocols import pureldap
from ldaptor.protocols.ldap import ldaperrors
from ldaptor.protocols.ldap.ldapserver import LDAPServer
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, DeferredList, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort, IReactorTCP
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.python.components import registerAdapter
from twisted.python.failure import Failure

__all__ = ["EmbeddedDirectory"]

_SSHA = b"{ssha}"
_SHA1_OCTETS = 20


class EmbeddedDirectory:
    """An LDIF file behind a port. The file's first entry must be the one that holds all others.

    A bind succeeds with the clear text of a userPassword without a scheme, or of one of scheme
    ``{SSHA}``; other schemes never match.
    """

    def __init__(self) -> None:
        self._port: IListeningPort | None = None
        self._factory: _Factory | None = None

    def start(
        self,
        reactor: IReactorTCP,
        ldif_path: str | os.PathLike[str],
        interface: str = "127.0.0.1",
        port: int = 0,
    ) -> Deferred[int]:
        """Read the file and listen; fires with the port, which is a free one for ``port`` 0.

        Fails with OSError when the file cannot be read, and with ValueError when it is not LDIF, or
        an entry comes before the one that holds it.
        """

        def listen(root: _Entry) -> int:
            self._factory = _Factory(root)
            self._port = reactor.listenTCP(port, self._factory, interface=interface)
            return int(cast(IPv4Address | IPv6Address, self._port.getHost()).port)

        def refuse(failure: Failure) -> NoReturn:
            failure.trap(Exception)
            raise ValueError(f"{os.fspath(ldif_path)!r} cannot be served: {failure.value!r}")

        try:
            octets = Path(ldif_path).read_bytes()
        except OSError:
            return fail()
        return maybeDeferred(_parsed, octets).addErrback(refuse).addCallback(listen)

    def stop(self) -> Deferred[None]:
        """Close the port and every connection."""
        if self._port is None or self._factory is None:
            return succeed(None)
        stopped: list[Deferred[Any]] = [
            maybeDeferred(self._port.stopListening),
            *self._factory.cut_connections(),
        ]
        return DeferredList(stopped).addCallback(lambda _: None)


class _Entry(inmemory.ReadOnlyInMemoryLDAPEntry):  # type: ignore[misc]  # ldaptor has no types
    """An entry that compares octets, keeps to size limits, and takes no hash for a password."""

    def match(self, filter: Any) -> bool:
        if isinstance(filter, pureldap.LDAPFilter_equalityMatch):
            # ldaptor's own decodes the value as UTF-8, and a login may be any octets.
            asked_for = filter.assertionValue.value.lower()
            return any(v.lower() == asked_for for v in self.get(filter.attributeDesc.value, ()))
        return bool(super().match(filter))

    def search(self, *args: Any, callback: Any = None, sizeLimit: int = 0, **kwargs: Any) -> Any:
        found = super().search(*args, **kwargs)
        if callback is None:
            return found

        def reply(entries: list[Any]) -> None:
            for entry in entries[: sizeLimit or None]:
                callback(entry)
            if sizeLimit and len(entries) > sizeLimit:
                raise ldaperrors.LDAPSizeLimitExceeded()

        return found.addCallback(reply)

    def _bind(self, password: bytes) -> _Entry:
        if not any(_is_password(value, password) for value in self.get(b"userPassword", ())):
            raise ldaperrors.LDAPInvalidCredentials()
        return self


def _is_password(value: bytes, password: bytes) -> bool:
    if value[: len(_SSHA)].lower() == _SSHA:
        octets = base64.b64decode(value[len(_SSHA) :])
        digest, salt = octets[:_SHA1_OCTETS], octets[_SHA1_OCTETS:]
        return hmac.compare_digest(hashlib.sha1(password + salt).digest(), digest)
    return not value.startswith(b"{") and hmac.compare_digest(value, password)


class _LDIF(inmemory.InMemoryLDIFProtocol):  # type: ignore[misc]  # ldaptor has no types
    """Makes a tree of our entries; ldaptor's makes children of the class of their root."""

    db: _Entry | None

    def gotEntry(self, entry: Any) -> None:
        if self.db is None:
            self.db = _Entry(dn=entry.dn, attributes=entry)
            self._deferred.callback(self.db)
        else:
            super().gotEntry(entry)


def _parsed(octets: bytes) -> Deferred[_Entry]:
    parser = _LDIF()
    # ldaptor wants bare newlines, and takes an entry to be whole when an empty line follows.
    parser.dataReceived(octets.replace(b"\r\n", b"\n").strip(b"\n") + b"\n\n")
    completed: Deferred[_Entry] = parser.completed
    parser.connectionLost(connectionDone)
    return completed


class _Server(LDAPServer):  # type: ignore[misc]  # ldaptor has no types
    """ldaptor's server without what changes entries."""

    def connectionMade(self) -> None:
        super().connectionMade()
        self.closed: Deferred[None] = Deferred()
        self.factory.connections.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.factory.connections.discard(self)
        self.closed.callback(None)

    def handle_LDAPAbandonRequest(self, request: Any, controls: Any, reply: Any) -> None:
        """RFC 4511, section 4.11: there is no answer; here a search is over when it is begun."""

    def _refuse(self, request: Any, controls: Any, reply: Any) -> None:
        raise ldaperrors.LDAPUnwillingToPerform("this directory is read-only")

    handle_LDAPAddRequest = _refuse
    handle_LDAPDelRequest = _refuse
    handle_LDAPExtendedRequest = _refuse
    handle_LDAPModifyDNRequest = _refuse
    handle_LDAPModifyRequest = _refuse


class _Factory(ServerFactory):
    noisy = False
    protocol = _Server

    def __init__(self, root: _Entry) -> None:
        self.root = root
        self.connections: set[_Server] = set()

    def cut_connections(self) -> list[Deferred[None]]:
        connections = list(self.connections)
        for connection in connections:
            connection.transport.abortConnection()
        return [connection.closed for connection in connections]


registerAdapter(lambda factory: factory.root, _Factory, interfaces.IConnectedLDAPEntry)
