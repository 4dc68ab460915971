"""The facts of a site as plain data: what the control files become, whoever reads them.

No file is read here.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import attrs

from qmailldap.account import AccountDefaults
from qmailldap.quota import Quota

__all__ = ["LDAP_PORT", "POP3_PORT", "Control", "ControlError", "Route", "ServerAddress"]

LDAP_PORT = 389
POP3_PORT = 110


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
    """Where a server listens: one of the directory, unless the port is given."""

    host: str
    port: int = LDAP_PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


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
    ldaprebind: bool = False
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
    ldaplocaldelivery: bool = True
    dirmaker: str | None = None
    defaultdelivery: str = "./Maildir/"
    """defaultdelivery, else aliasempty"""
    certificate: Path | None = None
    """cert.pem, where there is one"""
    warnings: tuple[str, ...] = ()
    directory: str = attrs.field(default="", eq=False)
    """where the files are"""

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
