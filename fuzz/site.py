"""The site of the world: its users in the directory, their mail, and the server's certificate."""

from __future__ import annotations

import base64
import functools
import hashlib
import ipaddress
import shutil
import tempfile
from pathlib import Path

import attrs

from qmailldap.control import Control, POP3Limits, Route, ServerAddress
from qmailldap.tls.certificates import CertificateFiles, Certificates
from tests.integration.certificates import write_certificate

__all__ = [
    "CLEAR_PASSWORD",
    "MAIL_HOST",
    "OWNER",
    "PASSWORD",
    "TRUSTED",
    "Mail",
    "Options",
    "certificates",
    "control",
    "records",
]

PASSWORD = b"correct-horse"
CLEAR_PASSWORD = b"battery-staple"
MAIL_HOST = "mail2.example.org"
TRUSTED = "192.0.2.99"
OWNER = 20000
"""Whom all mail is said to belong to: the server takes itself for that user."""

_MESSAGES = {
    "1700000001.P1.mx1": b"Subject: one\n\n.\n..\nno end of line",
    "1700000002.P2.mx1": b"Subject: two\r\n\r\n" + b"a line of mail\r\n" * 6000,
}


@attrs.frozen
class Options:
    """How the server is run: ``tls`` is that of pop3s, ``haproxy`` the header before all else."""

    tls: bool = False
    haproxy: bool = False
    requires_tls: bool = False
    cleartext: int = 0


def control(options: Options) -> Control:
    return Control(
        ldapserver=(ServerAddress("ldap1"), ServerAddress("ldap2")),
        ldapbasedn="dc=example,dc=org",
        me="mail1.example.org",
        ldapcluster=True,
        pop3routes=(Route(MAIL_HOST, "10.0.0.2"),),
        pop3trusted=(ipaddress.ip_network(TRUSTED),),
        requiretls=options.requires_tls,
        ldapcleartext=options.cleartext,
        # Low enough to be met by a series of actions.
        pop3limits=POP3Limits(
            connections=6, connections_per_address=3, sessions=2, guesses=8, guesses_per_login=4
        ),
    )


def records(home: Path) -> dict[bytes, dict[str, list[bytes]]]:
    """The entries of the directory by login: joe's and sue's mail is here, the
    same, and hers is a password in clear text; ann's is elsewhere, tom's record is incorrect."""
    salted = base64.b64encode(hashlib.sha1(PASSWORD + b"salt").digest() + b"salt")
    joe = {
        "userPassword": [b"{SSHA}" + salted],
        "qmailUID": [b"%d" % OWNER],
        "qmailGID": [b"%d" % OWNER],
        "homeDirectory": [bytes(home)],
        "mailHost": [b"mail1.example.org"],
    }
    return {
        b"joe": joe,
        b"ann": {**joe, "mailHost": [MAIL_HOST.encode()]},
        b"sue": {**joe, "userPassword": [b"{CLEAR}" + CLEAR_PASSWORD]},
        b"tom": {**joe, "qmailUID": [b"x"]},
    }


class Mail:
    """Joe's home and the Maildir in it, as long as it is not removed."""

    def __init__(self) -> None:
        shared = Path("/dev/shm")
        self.home = Path(
            tempfile.mkdtemp(prefix="qmailldap-fuzz-", dir=shared if shared.is_dir() else None)
        )
        self._maildir = self.home / "Maildir"

    def deliver(self) -> None:
        """Have all mail in the Maildir as at first, whatever has become of it."""
        shutil.rmtree(self._maildir, ignore_errors=True)
        for folder in ("tmp", "new", "cur"):
            (self._maildir / folder).mkdir(parents=True)
        for name, content in _MESSAGES.items():
            (self._maildir / "new" / name).write_bytes(content)

    @property
    def contents(self) -> list[bytes]:
        """Of all messages that are there."""
        found = [*self._maildir.glob("new/*"), *self._maildir.glob("cur/*")]
        return sorted(path.read_bytes() for path in found)

    @property
    def all_of_it(self) -> list[bytes]:
        """The contents at first."""
        return sorted(_MESSAGES.values())

    def remove(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)


@functools.cache
def certificates() -> Certificates:
    """What the server shows of itself, the same in all worlds: to make one takes a while."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "cert.pem")
        write_certificate(path, "mail1.example.org")
        return Certificates([CertificateFiles(path)])
