"""Certificates and keys for the tests, and a client that shakes hands with who shows them."""

from __future__ import annotations

import datetime
import functools
import ipaddress
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, cast

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from OpenSSL import SSL

from qmailldap.tls.certificates import Certificates

__all__ = [
    "DAY",
    "NOW",
    "PASSPHRASE",
    "Identity",
    "accepting",
    "client",
    "identity",
    "key_of",
    "patiently",
    "shake_hands",
    "shown_to",
]

NOW = datetime.datetime(2030, 5, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
PASSPHRASE = b"a passphrase"


@functools.cache
def key_of(kind: str, number: int) -> Any:
    """A private key; another one for another number."""
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    if kind == "small":
        return rsa.generate_private_key(65537, 1024)
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "dsa":
        return dsa.generate_private_key(2048)
    return ec.generate_private_key(ec.SECP256R1())


@attrs.frozen(eq=False)
class Identity:
    """A certificate and its key."""

    certificate: x509.Certificate
    private: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key(self) -> bytes:
        return self.key_as(PrivateFormat.PKCS8)

    @property
    def both(self) -> bytes:
        """As a file cert.pem has them."""
        return self.pem + self.key

    def key_as(self, form: PrivateFormat, passphrase: bytes = b"") -> bytes:
        encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        text: bytes = self.private.private_bytes(Encoding.PEM, form, encryption)
        return text


def identity(
    *names: str,
    kind: str = "ec",
    number: int = 0,
    issuer: Identity | None = None,
    start: datetime.datetime = NOW - DAY,
    end: datetime.datetime = NOW + 30 * DAY,
    common_name: str = "",
) -> Identity:
    """Of hosts or addresses; of none, it is that of an authority, or of nobody."""
    private = key_of(kind, number)
    subject = _name(common_name or (names or ("nobody",))[0])
    signer = issuer.private if issuer else private
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    if names:
        alternatives = x509.SubjectAlternativeName(list(map(_general_name, names)))
        builder = builder.add_extension(alternatives, critical=False)
    digest = None if kind == "ed25519" and not issuer else hashes.SHA256()
    return Identity(builder.sign(signer, digest), private)


def client(
    host: str = "", *, oldest: int = SSL.TLS1_2_VERSION, newest: int = SSL.TLS1_3_VERSION
) -> SSL.Connection:
    """A client that asks for a host, if any, and believes everything."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(oldest)
    context.set_max_proto_version(newest)
    # Of its own accord OpenSSL does not even offer what is older than TLS 1.2.
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    connection = SSL.Connection(context, None)
    if host:
        connection.set_tlsext_host_name(host.encode())
    connection.set_connect_state()
    return connection


def shake_hands(one: SSL.Connection, other: SSL.Connection) -> None:
    """Raises ``SSL.Error`` when one of them does not want to."""
    for _ in range(6):
        for each, peer in ((one, other), (other, one)):
            with suppress(SSL.WantReadError):
                each.do_handshake()
            with suppress(SSL.WantReadError):
                peer.bio_write(each.bio_read(1024 * 1024))


def patiently(step: Callable[[], Any]) -> None:
    """Do it, unless it has to wait for the other side."""
    with suppress(SSL.WantReadError):
        step()


def accepting(server: Certificates) -> SSL.Connection:
    """The server's side of a connection that has just come."""
    # Which protocol of Twisted's it belongs to, nobody asks.
    connection = server.serverConnectionForTLS(cast(Any, None))
    connection.set_accept_state()
    return connection


def shown_to(server: Certificates, host: str = "") -> Sequence[x509.Certificate]:
    """The chain that a client is shown by `Certificates`."""
    connection = accepting(server)
    asking = client(host)
    shake_hands(asking, connection)
    return [each.to_cryptography() for each in asking.get_peer_cert_chain() or []]


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
