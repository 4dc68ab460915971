"""A real OpenLDAP server with its own database, on a loopback port; it needs no root."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from .ports import HOST, unused_port
from .processes import Child, run, wait_until
from .users import SUFFIX, entry, ssha_value

__all__ = ["SERVICE_DN", "SERVICE_PASSWORD", "Slapd"]

SERVICE_DN = f"cn=pop3,{SUFFIX}"
SERVICE_PASSWORD = "service-account-password"

_SCHEMA = Path(__file__).resolve().parents[2] / "schema" / "qmail.schema"
_OPENLDAP_SCHEMAS = Path("/etc/ldap/schema")
_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_INSTALL = "install it with: apt-get install slapd ldap-utils"
_START_LIMIT = 10

_CONFIGURATION = """\
include {schemas}/core.schema
include {schemas}/cosine.schema
include {schemas}/nis.schema
include {schemas}/inetorgperson.schema
include {qmail_schema}
modulepath /usr/lib/ldap
moduleload back_mdb
{modules}
# A bind with a name and no password succeeds, as anonymous: the danger of proving passwords so.
allow bind_anon_dn
threads 4
{tls}
database mdb
suffix "{suffix}"
rootdn "cn=admin,{suffix}"
rootpw admin
directory {directory}/database
dbnosync
maxsize 67108864
index objectClass,uid eq
access to attrs=userPassword by dn.exact="{service_dn}" read by anonymous auth by * none
access to * by * read
"""

_TLS = """\
TLSCertificateFile {file}
TLSCertificateKeyFile {file}
"""


class Slapd:
    """One directory server; it starts with ``entries``, which are LDIF, below `SUFFIX`.

    Everybody may read everything but userPassword, which only `SERVICE_DN` may. ``modules`` are
    loaded besides what it needs. With a ``certificate``, a file of it and its key, it offers
    StartTLS; with ``ldaps``, it speaks nothing but TLS. ``host`` is how it is called, a name of the
    loopback address.
    """

    def __init__(
        self,
        directory: Path,
        entries: str = "",
        modules: Sequence[str] = (),
        *,
        certificate: Path | None = None,
        ldaps: bool = False,
        host: str = HOST,
    ) -> None:
        self.port = unused_port()
        self._certificate = certificate
        self._scheme = "ldaps" if ldaps else "ldap"
        self._host = host
        self._directory = directory
        self._entries = entries
        self._modules = modules
        self._log = directory / "slapd.log"
        self._child: Child | None = None

    @property
    def address(self) -> str:
        """As a line of the control file ldapserver."""
        host = f"{self._host}:{self.port}"
        return f"ldaps://{host}" if self._scheme == "ldaps" else host

    @property
    def log(self) -> str:
        """What it has done; one or more lines an operation."""
        return self._log.read_text("utf-8", "replace") if self._log.exists() else ""

    async def start(self) -> None:
        """Load the entries, if this is the first start, and serve them."""
        configuration = self._directory / "slapd.conf"
        if not configuration.exists():
            await self._make_database(configuration)
        self._child = Child(
            [
                _program("slapd"),
                *("-f", str(configuration)),
                *("-h", f"{self._scheme}://{HOST}:{self.port}"),
                *("-d", "stats"),
            ],
            self._log,
        )
        await wait_until(self._accepts, _START_LIMIT, f"slapd on {self.port}", self._child)

    async def stop(self) -> None:
        """End it; what it has stored stays, and `start` serves it again on the same port."""
        if self._child is not None:
            self.resume()
            await self._child.stop()
            self._child = None

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def pause(self) -> None:
        """Let it hang: connections are accepted by the kernel, and nothing is ever answered."""
        assert self._child is not None
        self._child.signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._child is not None
        self._child.signal(signal.SIGCONT)

    def count(self, operation: str) -> int:
        """How many operations it has begun: BIND, SRCH, UNBIND, and ACCEPT for connections.

        A regular expression for the rest of the log line may follow.
        """
        # An operation has several lines in the log.
        return len(set(re.findall(rf" (conn=\d+ (?:op|fd)=\d+) {operation}\b", self.log)))

    async def _make_database(self, configuration: Path) -> None:
        (self._directory / "database").mkdir(parents=True)
        configuration.write_text(
            _CONFIGURATION.format(
                schemas=_OPENLDAP_SCHEMAS,
                qmail_schema=_SCHEMA,
                suffix=SUFFIX,
                directory=self._directory,
                modules="\n".join(f"moduleload {module}" for module in self._modules),
                service_dn=SERVICE_DN,
                tls="" if self._certificate is None else _TLS.format(file=self._certificate),
            )
        )
        ldif = self._directory / "entries.ldif"
        ldif.write_text(_BASE + self._entries)
        # Values are checked against their syntax only if asked for.
        files = ["-f", str(configuration), "-l", str(ldif)]
        finished = await run([_program("slapadd"), "-o", "value-check=yes", *files], 30)
        if finished.code:
            raise AssertionError(f"slapadd: {finished.text}")

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0


_BASE = entry(
    SUFFIX,
    {"objectClass": ["dcObject", "organization"], "dc": "example", "o": "An example"},
) + entry(
    SERVICE_DN,
    {
        "objectClass": ["applicationProcess", "simpleSecurityObject"],
        "cn": "pop3",
        "userPassword": ssha_value(SERVICE_PASSWORD),
    },
)


def _program(name: str) -> str:
    """The path of a program of OpenLDAP. Without it these tests fail: they prove nothing then."""
    path = shutil.which(name, path=_SEARCH_PATH)
    if path is None or not _OPENLDAP_SCHEMAS.is_dir():
        raise AssertionError(f"{name} and the schemas in {_OPENLDAP_SCHEMAS} not found; {_INSTALL}")
    return path
