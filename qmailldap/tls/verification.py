"""Connections by TLS to other servers, and whom we take for the server that is meant.

A certificate that is not accepted is told from others by what is wrong with it, which OpenSSL says
only while it verifies: hence a callback of our own, in the place of that of Twisted's
optionsForClientTLS. Chains are judged by OpenSSL, names by service_identity, as there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from OpenSSL import SSL
from OpenSSL.crypto import X509, Error, X509StoreFlags
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import (
    DNS_ID,
    DNSPattern,
    IPAddress_ID,
    IPAddressPattern,
    verify_service_identity,
)
from service_identity.pyopenssl import extract_patterns
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    TLSVersion,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from qmailldap.loglevel import Log
from qmailldap.printable import printable

if TYPE_CHECKING:
    from twisted.protocols.tls import TLSMemoryBIOProtocol

__all__ = [
    "BadAuthorities",
    "CertificateRefused",
    "NameNotVerifiable",
    "Unverified",
    "Verified",
    "problem",
]

_BEGIN = b"-----BEGIN CERTIFICATE-----"
_SHOWN_NAMES = 5
# What a certificate can be compared with. Longer, or with empty labels, TLS could not say it.
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\Z", re.IGNORECASE | re.ASCII)
# The X509_V_ERR numbers of x509_vfy.h that an administrator meets.
_VERIFY_ERRORS = {
    7: "has a bad signature",
    9: "is not valid yet",
    10: "has expired",
    23: "has been revoked",
    26: "is not for servers",
}
_NOT_TRUSTED = frozenset({2, 18, 19, 20, 21})

_log = Log(namespace="qmailldap.tls", of_sessions=False)


class BadAuthorities(ValueError):
    """What is wrong with a file of certificates to trust, without the file's name."""


class NameNotVerifiable(ValueError):
    """A host that no certificate can bear: neither an address nor a host name."""


class CertificateRefused(Exception):
    """Why a server's certificate was not accepted, as a line for the log."""


class Verified:
    """Connections to servers whose certificate must be trusted, and be for the host meant.

    ``authorities`` is a file of certificates to trust, None for those of the system; ``content`` is
    what it holds, where somebody has read it who may. Else it is read here and never again, for
    this may be the only moment with the right to.

    Raises `BadAuthorities`.
    """

    def __init__(self, authorities: Path | None = None, content: bytes | None = None) -> None:
        if authorities is None:
            self._context = _verifying_context(None)
        else:
            found = _read(authorities) if content is None else content
            self._context = _verifying_context(_certificates_in(found))

    def connections_to(self, host: str) -> IOpenSSLClientConnectionCreator:
        """What ``startTLS`` takes for a connection to the server of that name, or address.

        Raises `NameNotVerifiable` for a name that no certificate can bear.
        """
        identity = _identity(host.removesuffix("."))
        if identity is None:
            shown = printable(host.encode("utf-8", "surrogatepass"))
            raise NameNotVerifiable(f"{shown} is no name that a certificate can bear")
        return _Connections(self._context, identity, True)


class Unverified:
    """Connections to servers whose certificate is not looked at."""

    def __init__(self) -> None:
        self._context = CertificateOptions(raiseMinimumTo=TLSVersion.TLSv1_2).getContext()

    def connections_to(self, host: str) -> IOpenSSLClientConnectionCreator:
        """What ``startTLS`` takes for a connection to the server of that name, or address."""
        return _Connections(self._context, _identity(host.removesuffix(".")), False)


def problem(reason: Failure) -> str:
    """Why a connection ended, as a line for the log: what is wrong with a certificate, too."""
    error = reason.value
    if isinstance(error, CertificateRefused):
        return str(error)
    if isinstance(error, SSL.Error):
        # A list of (library, function, what) where OpenSSL has said anything.
        said = error.args[0] if error.args and isinstance(error.args[0], list) else []
        return "; ".join(str(each[-1]) for each in said) or "TLS failed without a reason"
    return reason.getErrorMessage()


_Identity = DNS_ID | IPAddress_ID


@implementer(IOpenSSLClientConnectionCreator)
@attrs.frozen
class _Connections:
    """Connections to one server: all servers share the context, which takes long to make."""

    _context: SSL.Context
    _identity: _Identity | None
    _verified: bool

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if isinstance(self._identity, DNS_ID):
            connection.set_tlsext_host_name(self._identity.hostname)
        if self._verified:
            assert self._identity is not None
            verification = _Verification(self._identity, tlsProtocol.failVerification)
            connection.set_verify(SSL.VERIFY_PEER, verification.judge)
        return connection


@attrs.frozen
class _Verification:
    """The question whether one connection's certificate is that of the server meant."""

    _identity: _Identity
    _fail: Callable[[Failure], object]

    def judge(
        self, connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int
    ) -> bool:
        """Called by OpenSSL for what is wrong with a chain, and for each certificate in order."""
        problem = None
        if not ok:
            problem = _fault(error, depth)
        elif depth == 0:
            try:
                problem = _mismatch(certificate, self._identity)
            except Exception:
                # Nobody would hear of what is raised into OpenSSL.
                _log.failure("certificate of another server cannot be read")
                problem = "its certificate cannot be read"
        if problem is not None:
            self._fail(Failure(CertificateRefused(problem)))
        return problem is None


def _verifying_context(authorities: list[Certificate] | None) -> SSL.Context:
    trusted = platformTrust() if authorities is None else trustRootFromCertificates(authorities)
    context = CertificateOptions(trustRoot=trusted, raiseMinimumTo=TLSVersion.TLSv1_2).getContext()
    if authorities is not None:
        # Every certificate of the file is trusted, one that another authority has signed, too.
        store = context.get_cert_store()
        assert store is not None
        store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
    return context


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadAuthorities(f"cannot be read: {error.strerror}") from None


def _certificates_in(content: bytes) -> list[Certificate]:
    blocks = content.split(_BEGIN)[1:]
    if not blocks:
        raise BadAuthorities("holds no certificate in PEM format")
    certificates = []
    for number, block in enumerate(blocks, 1):
        try:
            certificates.append(Certificate.loadPEM(_BEGIN + block))
        except (Error, ValueError):
            raise BadAuthorities(f"the certificate number {number} in it is none") from None
    return certificates


def _identity(name: str) -> _Identity | None:
    try:
        return IPAddress_ID(name)
    except ValueError:
        pass
    try:
        return DNS_ID(name) if _NAME.match(name) else None
    except ValueError:
        return None


def _fault(error: int, depth: int) -> str:
    """What is wrong with a chain of certificates."""
    if error in _NOT_TRUSTED:
        return "its certificate is of no authority that is trusted here"
    which = "its certificate" if depth == 0 else "a certificate above its own"
    return f"{which} {_VERIFY_ERRORS.get(error, f'fails verification: error {error}')}"


def _mismatch(certificate: X509, identity: _Identity) -> str | None:
    """What is wrong with the names in a certificate, if anything."""
    try:
        patterns = extract_patterns(certificate)
    except CertificateError as error:
        return f"the names in its certificate cannot be used: {printable(str(error).encode())}"
    except ValueError:
        # Of cryptography: an extension that is malformed, an address of two octets.
        return "the names in its certificate cannot be read"
    # With no name at all, service_identity raises different exceptions in different versions.
    if patterns:
        try:
            verify_service_identity(patterns, [identity], [])
        except VerificationError:
            pass
        else:
            return None
    names = [
        pattern.pattern if isinstance(pattern, DNSPattern) else str(pattern.pattern).encode()
        for pattern in patterns
        if isinstance(pattern, DNSPattern | IPAddressPattern)
    ]
    shown = [printable(name) for name in names[:_SHOWN_NAMES]]
    more = ["..."] if len(names) > _SHOWN_NAMES else []
    return f"its certificate is for {', '.join(shown + more) or 'no host'}"
