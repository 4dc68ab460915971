"""Certificates of hosts, which vouch for themselves or which an authority of ours has signed."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

__all__ = ["write_authority", "write_certificate"]

_HOUR = datetime.timedelta(hours=1)


def write_certificate(
    path: Path, *names: str, days: float = 1, authority: Path | None = None
) -> None:
    """Write a new certificate and its key into one file, as the control file cert.pem has them.

    It is for the hosts ``names``, which may be addresses: localhost, if there are none. It expires
    in that many ``days``, which may be negative. ``authority`` is a file of `write_authority`.
    """
    names = names or ("localhost",)
    hosts = x509.SubjectAlternativeName([_general_name(name) for name in names])
    _write(path, names[0], hosts, days, authority)


def write_authority(
    path: Path, name: str, *, days: float = 1, authority: Path | None = None
) -> None:
    """Write the certificate of an authority of that name, and its key, into one file.

    ``authority`` is the one above it, if there is one.
    """
    _write(path, name, x509.BasicConstraints(ca=True, path_length=None), days, authority)


def _write(
    path: Path, name: str, extension: x509.ExtensionType, days: float, authority: Path | None
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    issuer, signer = (subject, key) if authority is None else _signer(authority)
    now = datetime.datetime.now(datetime.UTC)
    end = now + datetime.timedelta(days=days)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, end) - _HOUR)
        .not_valid_after(end)
        .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        .sign(signer, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(certificate.public_bytes(Encoding.PEM) + private)


def _signer(authority: Path) -> tuple[x509.Name, ec.EllipticCurvePrivateKey]:
    content = authority.read_bytes()
    key = load_pem_private_key(content, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return x509.load_pem_x509_certificate(content).subject, key


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
