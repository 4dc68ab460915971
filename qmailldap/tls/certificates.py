"""The certificates that clients are shown: read, checked, and chosen by the name that is asked for.

A client names the host that it means by SNI (RFC 6066 section 3). Where several certificates are
given, it is shown one that bears that name; the first, where it names none or one that none bears.
"""

from __future__ import annotations

import datetime
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

from qmailldap.printable import Fields, printable
from qmailldap.regular_files import read_regular
from qmailldap.tls.contexts import server_context
from qmailldap.tls.pem import BadCertificate, Chain, parse_chain

if TYPE_CHECKING:
    from twisted.protocols.tls import TLSMemoryBIOProtocol

__all__ = [
    "MOST_OCTETS",
    "TICKET_KEYS_LAST",
    "BadCertificate",
    "Certificate",
    "CertificateFiles",
    "Certificates",
    "Renewal",
    "read_certificate_file",
    "unreadable",
]

MOST_OCTETS = 1024 * 1024
"""Octets of the largest file: chains of certificates have some thousand."""

TICKET_KEYS_LAST = datetime.timedelta(days=1)
"""For how long sessions can be resumed by tickets of one key (RFC 5077 section 5.5).

Who comes by the key can read what was recorded of TLS 1.2 meanwhile.
"""

_SHOWN_NAMES = 5


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@attrs.frozen
class CertificateFiles:
    """Where one certificate is: its chain, host first, and its key, which may be in the same file.

    The paths are absolute.
    """

    chain: Path
    key: Path | None = None

    @classmethod
    def parse(cls, text: str) -> CertificateFiles:
        """Of ``CHAIN`` or ``CHAIN:KEY``. Raises ``ValueError``."""
        chain, colon, key = text.partition(":")
        if not chain or (colon and not key) or ":" in key:
            raise ValueError(f"FILE or CHAIN:KEY is wanted, without further colons, not {text!r}")
        return cls(Path(os.path.abspath(chain)), Path(os.path.abspath(key)) if key else None)

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.chain,) if self.key is None else (self.chain, self.key)

    def __str__(self) -> str:
        """As it is shown in the log."""
        return _shown(*self.paths)


@attrs.frozen(eq=False)
class Certificate:
    """One certificate as clients are shown it, with what is to be told of it."""

    files: CertificateFiles
    chain: Chain
    context: SSL.Context = attrs.field(repr=False)
    digest: bytes = attrs.field(repr=False)
    """of what the files held"""
    since: datetime.datetime
    """when the context was made, and with it the key of its tickets"""

    @property
    def facts(self) -> Fields:
        """For a line in the log."""
        names = [printable(name.encode()) for name in self.chain.names]
        more = ["..."] if len(names) > _SHOWN_NAMES else []
        shown = ",".join(names[:_SHOWN_NAMES] + more) or "none"
        until = f"{self.chain.until:%Y-%m-%d}"
        return Fields((("file", str(self.files)), ("names", shown), ("until", until)))

    def __str__(self) -> str:
        return str(self.facts)

    def warnings(self, now: datetime.datetime) -> list[str]:
        """What clients may not accept of it, each as a line that names the file."""
        return [f"certificate {self.files}: {doubt}" for doubt in self.chain.doubts(now)]


@attrs.frozen(eq=False)
class Renewal:
    """What `Certificates` can show from some moment on, and which of that was another before."""

    shown: tuple[Certificate, ...]
    changed: tuple[Certificate, ...]


@implementer(IOpenSSLServerConnectionCreator)
class Certificates:
    """All certificates of a server; what listeners and ``startTLS`` are given.

    Reads the files of each at once, unless ``contents`` are what they hold. Raises
    `BadCertificate`.
    """

    def __init__(
        self,
        files: Sequence[CertificateFiles],
        now: Callable[[], datetime.datetime] = _now,
        contents: Sequence[bytes] | None = None,
    ) -> None:
        if not files:
            raise BadCertificate("no certificate is given")
        self._files = tuple(files)
        self._now = now
        self._shown: tuple[Certificate, ...] = ()
        self._by_name: dict[str, SSL.Context] = {}
        if contents is None:
            contents = [read_certificate_file(path) for path in self.paths]
        self.replace(contents)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files, in the order in which `replace` wants their contents."""
        return tuple(path for each in self._files for path in each.paths)

    @property
    def shown(self) -> tuple[Certificate, ...]:
        """Those that new connections are shown."""
        return self._shown

    @property
    def warnings(self) -> list[str]:
        """What clients may not accept now, each as a line for the log."""
        now = self._now()
        return [warning for each in self._shown for warning in each.warnings(now)]

    def replace(self, contents: Sequence[bytes]) -> list[Certificate]:
        """Show, from the next connection on, what these contents of `paths` are.

        Gives those of the certificates that have changed. Raises `BadCertificate` if any of them
        is of no use, and then nothing has changed.
        """
        return self.take(self.prepare(contents))

    def prepare(self, contents: Sequence[bytes]) -> Renewal:
        """What is to be shown when these are the contents of `paths`; nothing has changed yet.

        The context that connections begin with, and by whose key sessions are resumed, is also made
        anew when it is older than `TICKET_KEYS_LAST`. Raises `BadCertificate`.
        """
        left = list(contents)
        if len(left) != len(self.paths):
            raise ValueError(f"{len(left)} contents of {len(self.paths)} files")
        before = {each.files: each for each in self._shown}
        shown: list[Certificate] = []
        changed: list[Certificate] = []
        for files in self._files:
            own, left = left[: len(files.paths)], left[len(files.paths) :]
            known = before.get(files)
            if known is None or known.digest != _digest(own):
                known = self._load(files, own)
                changed.append(known)
            elif not shown and abs(self._now() - known.since) >= TICKET_KEYS_LAST:
                known = self._load(files, own)
            shown.append(known)
        return Renewal(tuple(shown), tuple(changed))

    def take(self, renewal: Renewal) -> list[Certificate]:
        """Show what was prepared, from the next connection on; gives what has changed."""
        self._shown = renewal.shown
        self._by_name = {}
        for each in renewal.shown:
            for name in each.chain.names:
                self._by_name.setdefault(name, each.context)
        return list(renewal.changed)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return SSL.Connection(self._shown[0].context, None)

    def _load(self, files: CertificateFiles, contents: Sequence[bytes]) -> Certificate:
        try:
            chain = parse_chain(contents[0], contents[-1])
            # Where there is no choice, nobody needs to be asked.
            context = server_context(chain, self._said_hello if len(self._files) > 1 else None)
        except BadCertificate as error:
            raise BadCertificate(f"{files}: {error}") from None
        return Certificate(files, chain, context, _digest(contents), self._now())

    def _said_hello(self, connection: SSL.Connection) -> None:
        """Called by OpenSSL: show the certificate that bears the name which is asked for."""
        # Octets of the client: the name of a host is in ASCII.
        asked = (connection.get_servername() or b"").decode("ascii", "replace").lower()
        context = self._by_name.get(asked) or self._by_name.get(f"*.{asked.partition('.')[2]}")
        if context is not None and context is not connection.get_context():
            connection.set_context(context)


def read_certificate_file(path: Path) -> bytes:
    """Its content; blocks. Raises `BadCertificate`."""
    try:
        return read_regular(path, MOST_OCTETS)
    except OSError as error:
        raise BadCertificate(unreadable(path, error)) from None


def unreadable(path: Path, error: OSError) -> str:
    """Why a file could not be read, as the text of a `BadCertificate`."""
    return f"{_shown(path)}: cannot be read: {error.strerror or error}"


def _shown(*paths: Path) -> str:
    """Whole, however long: these are the administrator's own files, and the end is what tells."""
    shown = b":".join(map(os.fsencode, paths))
    return printable(shown, most=len(shown))


def _digest(contents: Sequence[bytes]) -> bytes:
    """What tells other contents from these; not they themselves, which hold a key."""
    return hashlib.sha256(b"".join(hashlib.sha256(each).digest() for each in contents)).digest()
