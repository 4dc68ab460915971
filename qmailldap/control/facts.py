"""The facts of a site as plain data: what the control files become, whoever reads them.

No file is read here.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from qmailldap.account import AccountDefaults
from qmailldap.quota import Quota

__all__ = [
    "LDAPS_PORT",
    "LDAP_PORT",
    "POP3_PORT",
    "Control",
    "ControlError",
    "POP3Limits",
    "Route",
    "ServerAddress",
]

LDAP_PORT = 389
LDAPS_PORT = 636
POP3_PORT = 110


def _limit(default: int, least: int, most: int) -> Any:
    return attrs.field(default=default, metadata={"least": least, "most": most})


class ControlError(Exception):
    """A control file that a server cannot be started with.

    ``file`` is its path, ``problem`` says what is wrong with it and names the value, unless that is
    a secret.
    """

    def __init__(self, file: str, problem: str) -> None:
        super().__init__(f"{file}: {problem}")
        self.file = file
        self.problem = problem


@attrs.frozen
class ServerAddress:
    """Where a server listens: one of the directory, unless the port is given.

    ``tls`` says that TLS is spoken there from the first octet on.
    """

    host: str
    port: int = LDAP_PORT
    tls: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'ldaps://' if self.tls else ''}{host}:{self.port}"


@attrs.frozen
class Route:
    """Where a member of the cluster is reached.

    ``pattern``, in lower case, is a mailHost, or the end of many if it starts with a dot, or empty,
    which is every mailHost. ``host`` is a host name or an address, empty for the mailHost itself.
    """

    pattern: str
    host: str = ""
    port: int = POP3_PORT


@attrs.frozen(kw_only=True)
class POP3Limits:
    """What a client may ask for; each is a line of the control file pop3limits, by its name.

    ``least`` and ``most`` of a field's metadata are its range; a limit whose least is 0 is none at
    0. The defaults are such that no well-behaved client meets one.
    """

    connections: int = _limit(10_000, 1, 1_000_000)
    """in all, of one server"""

    connections_per_address: int = _limit(200, 0, 1_000_000)
    """from one IPv4 address, or one /64 of IPv6"""

    login_time: int = _limit(60, 10, 3600)
    """seconds from the connection to the login"""

    handshake_time: int = _limit(20, 1, 300)
    """seconds for a TLS handshake"""

    proxy_time: int = _limit(10, 1, 300)
    """seconds for a PROXY header"""

    logins: int = _limit(3, 1, 100)
    """refused logins until the connection is closed"""

    command: int = _limit(255, 255, 8192)
    """octets of a command line with its end (RFC 2449, section 4)"""

    sasl: int = _limit(12_288, 12_288, 65_536)
    """octets of a line within AUTH (RFC 5034, section 4)"""

    pipelined: int = _limit(64, 1, 10_000)
    """commands that are read ahead of the one being answered"""

    idle: int = _limit(600, 600, 86_400)
    """seconds without a command after the login; RFC 1939 wants 10 minutes at least"""

    sessions: int = _limit(10, 0, 100_000)
    """sessions of one user at a time"""

    guesses: int = _limit(50, 0, 100_000)
    """the score of wrong passwords from which logins of an address are refused"""

    guesses_per_login: int = _limit(10, 0, 100_000)
    """the same for one login from one address"""


@attrs.frozen(kw_only=True)
class Control:
    """The facts of the site; each field is the control file of its name, or says which it is.

    ``ldaptimeout`` is in seconds, the quota's size in octets. ``warnings`` are lines about files
    that can be used but should be looked at.
    """

    ldapserver: tuple[ServerAddress, ...]
    me: str | None = None
    ldapbasedn: str = ""
    ldapobjectclass: str | None = None
    ldaplogin: str = ""
    ldappassword: bytes = attrs.field(default=b"", repr=False)
    ldaptimeout: int = 30
    ldaptls: bool = False
    ldapcacert: Path | None = None
    """where there is one"""
    ldaprebind: bool = False
    ldapcleartext: int = 0
    """0: no value of userPassword is a clear-text password, 1: those of {CLEAR} are, and CRAM-MD5
    is offered, 2: APOP is, too"""
    ldapuid: int | None = None
    ldapgid: int | None = None
    ldapmessagestore: str | None = None
    ldapdefaultdotmode: str = "ldaponly"
    defaultquota: Quota = attrs.field(factory=Quota)
    """defaultquotasize and defaultquotacount"""
    ldapcluster: bool = False
    ldapclusterhosts: tuple[str, ...] = ()
    pop3routes: tuple[Route, ...] = ()
    pop3trusted: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    """IPv4 also where the file writes it as IPv4-mapped IPv6"""
    pop3clustertls: int = 0
    """0: no TLS between members, 1: where it is offered, 2: verified"""
    pop3clusterca: Path | None = None
    """where there is one"""
    pop3limits: POP3Limits = attrs.field(factory=POP3Limits)
    requiretls: bool = False
    ldaplocaldelivery: bool = True
    dirmaker: str | None = None
    defaultdelivery: str = "./Maildir/"
    """defaultdelivery, else aliasempty"""
    certificate: Path | None = None
    """cert.pem, where there is one"""
    warnings: tuple[str, ...] = ()
    directory: str = attrs.field(default="", eq=False)
    """where the files are"""
    held: Mapping[str, bytes] = attrs.field(factory=dict, eq=False, repr=False)
    """by name, what is in files that are used as they are, as ldapcacert: where all was read at one
    moment; else whoever uses them reads them"""

    def error(self, name: str, problem: str) -> ControlError:
        """A fault of the file ``name`` that somebody else has found."""
        return ControlError(os.path.join(self.directory, name), problem)

    @property
    def account_defaults(self) -> AccountDefaults:
        """What these files say for records that are silent."""
        return AccountDefaults(
            uid=self.ldapuid,
            gid=self.ldapgid,
            message_store=self.ldapmessagestore,
            quota=self.defaultquota,
            delivery=self.defaultdelivery,
        )
