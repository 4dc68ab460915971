"""A chain of certificates and its key as PEM files have them: parsed and judged, without I/O."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

__all__ = ["BadCertificate", "Chain", "PrivateKey", "parse_chain"]

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey | Ed448PrivateKey
"""What TLS can use; there are others in PEM files."""

_BLOCK = re.compile(
    # A line within it can be read in one way only: a block without an end is not searched long.
    rb"^-----BEGIN ([A-Z0-9 ]+)-----[ \t\r]*\n(?:[^-\n].*\n|\n)*-----END \1-----",
    re.MULTILINE,
)
_CERTIFICATES = (b"CERTIFICATE", b"X509 CERTIFICATE")
_KEY = b"PRIVATE KEY"
_ENCRYPTED = (b"ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED")


class BadCertificate(ValueError):
    """A certificate that cannot be used. Its text holds nothing of a key."""


@attrs.frozen(eq=False)
class Chain:
    """Certificates, that of this host first, and its private key."""

    certificates: tuple[x509.Certificate, ...]
    key: PrivateKey = attrs.field(repr=False)
    names: tuple[str, ...]
    """Hosts and addresses that the first is for, in small letters; hosts may begin with ``*.``."""

    @property
    def until(self) -> datetime.datetime:
        """When the first certificate of the chain that expires does."""
        return min(each.not_valid_after_utc for each in self.certificates)

    def doubts(self, now: datetime.datetime) -> Iterator[str]:
        """Why clients may not accept it."""
        for number, each in enumerate(self.certificates, 1):
            which = "it" if number == 1 else f"the certificate number {number} in it"
            if each.not_valid_after_utc < now:
                yield f"{which} has expired on {each.not_valid_after_utc:%Y-%m-%d}"
            if each.not_valid_before_utc > now:
                yield f"{which} is not valid before {each.not_valid_before_utc:%Y-%m-%d}"
        if not self.names:
            yield "it is for no host: it has no subjectAltName"
        for number, above in enumerate(self.certificates[1:], 2):
            if self.certificates[number - 2].issuer != above.subject:
                yield f"the certificate number {number} in it is not that of the issuer before it"


def parse_chain(certificates: bytes, key: bytes) -> Chain:
    """What a file with certificates, and one with a key, hold; they may be the same.

    Raises `BadCertificate`, also where the key is not that of the first certificate.
    """
    chain = tuple(_certificates(certificates))
    if not chain:
        raise BadCertificate("it holds no certificate in PEM format")
    private = _private_key(key)
    if chain[0].public_key() != private.public_key():
        raise BadCertificate("the key is not that of the first certificate")
    return Chain(chain, private, _names(chain[0]))


def _blocks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The label and the whole text of each block."""
    for match in _BLOCK.finditer(content):
        yield match[1], match[0] + b"\n"


def _certificates(content: bytes) -> Iterator[x509.Certificate]:
    blocks = [block for label, block in _blocks(content) if label in _CERTIFICATES]
    for number, block in enumerate(blocks, 1):
        try:
            certificate = x509.load_pem_x509_certificate(block)
            certificate.public_key()
        except (ValueError, UnsupportedAlgorithm):
            raise BadCertificate(f"the certificate number {number} in it is none") from None
        yield certificate


def _private_key(content: bytes) -> PrivateKey:
    keys = [block for label, block in _blocks(content) if label.endswith(_KEY)]
    if len(keys) != 1:
        raise BadCertificate(f"one private key in PEM format is wanted, and there are {len(keys)}")
    if any(sign in keys[0] for sign in _ENCRYPTED):
        raise BadCertificate("the key is encrypted: there is nobody to ask for a passphrase")
    try:
        # To look whether primes are primes takes 0.4 s for an RSA key of 4096 bits, and nothing
        # else goes on meanwhile. Whether the key signs is tried when it is put to use.
        key = load_pem_private_key(keys[0], None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Not the exception's own text: what it could quote is the key.
        raise BadCertificate("the private key in it is none") from None
    if not isinstance(key, PrivateKey):
        raise BadCertificate("the key is neither RSA nor of an elliptic curve")
    return key


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        hosts = extension.value.get_values_for_type(x509.DNSName)
        addresses = extension.value.get_values_for_type(x509.IPAddress)
    except x509.ExtensionNotFound:
        return ()
    except ValueError:
        raise BadCertificate("the names in it cannot be read") from None
    return tuple(host.lower() for host in hosts) + tuple(map(str, addresses))
