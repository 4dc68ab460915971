"""Which certificates clients are shown: those that options name, else that of the control files."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from qmailldap.control import Control, ControlSnapshot
from qmailldap.options import CannotStart, Options
from qmailldap.raw_files import LARGER, READ, UNREADABLE, RawFile
from qmailldap.tls.certificates import (
    MOST_OCTETS,
    CertificateFiles,
    Certificates,
    unreadable,
)
from qmailldap.tls.pem import BadCertificate
from qmailldap.tls.watch import CertificateWatch, reading

__all__ = [
    "CertificateReader",
    "certificate_paths",
    "contents_of",
    "named_certificates",
    "wanted_files",
    "watch_on",
]

_CERTIFICATE = "cert.pem"

CertificateReader = Callable[[int], Deferred[bytes]]
"""Reads one of `certificate_paths` again, by its number from 0."""


def named_certificates(options: Options) -> tuple[CertificateFiles, ...]:
    """Those of the options. Raises `CannotStart`."""
    named = []
    for each in options["certificate"]:
        try:
            named.append(CertificateFiles.parse(each))
        except ValueError as error:
            raise CannotStart(f"--certificate {each}: {error}") from None
    return tuple(named)


def certificate_paths(options: Options) -> tuple[Path, ...]:
    """All files that certificates can ever be read from by this server: cert.pem without others.

    Raises `CannotStart`.
    """
    named = tuple(path for each in named_certificates(options) for path in each.paths)
    return named or (Path(options["control"], _CERTIFICATE).absolute(),)


def wanted_files(
    named: Sequence[CertificateFiles], control: Control
) -> tuple[CertificateFiles, ...]:
    """Where the certificates are that clients are to be shown; none where there is no TLS."""
    if named or control.certificate is None:
        return tuple(named)
    return (CertificateFiles(control.certificate.absolute()),)


def contents_of(files: Sequence[CertificateFiles], snapshot: ControlSnapshot) -> list[bytes]:
    """What is in all of them, in the order of their paths. Raises `BadCertificate`."""
    paths = [path for each in files for path in each.paths]
    return [_content(path, snapshot.certificate(path)) for path in paths]


def watch_on(
    certificates: Certificates, read_one: CertificateReader, clock: Any
) -> CertificateWatch:
    """What has them renewed when their files change."""
    return CertificateWatch(certificates, reading(certificates.paths, read_one), clock)


def _content(path: Path, file: RawFile) -> bytes:
    if file.state == READ:
        return file.content
    if file.state == UNREADABLE and file.trouble != errno.EISDIR:
        error = OSError(file.trouble, os.strerror(file.trouble))
    elif file.state == LARGER:
        error = OSError(errno.EFBIG, f"it has more than {MOST_OCTETS} octets")
    elif file.mode:
        error = OSError(errno.EINVAL, "it is no regular file")
    else:
        error = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    raise BadCertificate(unreadable(path, error))
