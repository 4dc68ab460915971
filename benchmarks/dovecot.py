"""Dovecot 2.3: as the server that ours is measured beside, as a proxy, and as a member behind one.

It is set up to be as fast as its manual says it can be, and to do what ours does, no less. The
host's own configuration of it is neither read nor touched.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
from pathlib import Path

from benchmarks.mail import PASSWORD, login, mailbox
from benchmarks.servers import Failure, Server
from benchmarks.sites import make_home
from tests.integration.ports import HOST
from tests.integration.processes import run
from tests.integration.slapd import SERVICE_DN, SERVICE_PASSWORD
from tests.integration.users import SUFFIX

__all__ = ["SESSIONS_A_PROCESS", "DovecotMember", "DovecotProxy", "DovecotServer", "program"]

SESSIONS_A_PROCESS = 100
"""Of a `DovecotServer`: what its processes for mail share."""

_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_LIMIT = 10.0

# Login processes are kept, as many as there are processors, and each serves as many clients as
# come: what Dovecot's manual calls its high-performance mode. No password is cached: each login is
# looked up in the directory, as ours is.
_COMMON = """\
base_dir = {directory}/run
state_dir = {directory}/state
instance_name = {name}
log_path = {log}
listen = {host}
protocols = pop3
disable_plaintext_auth = no
auth_mechanisms = plain
mail_max_userip_connections = 0
service pop3-login {{
  inet_listener pop3 {{
    port = {port}
  }}
  inet_listener pop3s {{
    port = {tls_port}
  }}
  service_count = 0
  process_min_avail = {processors}
  process_limit = {processors}
  client_limit = 2000
}}
service anvil {{
  client_limit = 6000
}}
service auth {{
  client_limit = 6000
}}
"""

_NO_TLS = "ssl = no\n"

_TLS = """\
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{certificate}
ssl_min_protocol = TLSv1.2
"""

_PASSDB = """\
passdb {{
  driver = ldap
  args = {directory}/ldap.conf
}}
"""

_LDAP = """\
hosts = {ldapserver}
dn = {service_dn}
dnpass = {service_password}
base = {suffix}
scope = subtree
pass_filter = (uid=%u)
pass_attrs = {attributes}
"""

# hostip, lest the name be asked for at each login; our server is given an address, too.
_TO_MEMBER = (
    "uid=user, userPassword=password, mailHost=host, =proxy=y, =hostip={host}, =port={member}"
)

# One search is enough for both of Dovecot's questions, the password and where the mail is.
_PREFETCHED = (
    "uid=user, userPassword=password, homeDirectory=userdb_home, qmailUID=userdb_uid,"
    " qmailGID=userdb_gid"
)

# Indexes are where and what they are by default. Processes that share sessions must have one owner
# of all mail, as there is here.
_SERVER = """\
mail_location = maildir:~/Maildir
first_valid_uid = 1
userdb {{
  driver = prefetch
}}
service pop3 {{
  service_count = 0
  client_limit = {sessions}
  process_min_avail = {processors}
  process_limit = 1000
}}
"""

_MEMBER = """\
mail_location = maildir:~/Maildir
first_valid_uid = 1
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={directory}/homes/%u
}}
service pop3 {{
  service_count = 0
  process_min_avail = {processors}
}}
"""


class _Dovecot(Server):
    """A Dovecot with a configuration of its own; with a ``certificate`` it also speaks TLS."""

    # Warned of is also that it was ended.
    fault = re.compile(r"(?:Error|Fatal|Panic|Warning): (?!Killed with signal 15)")

    def __init__(self, name: str, directory: Path, certificate: Path | None = None) -> None:
        super().__init__(name, directory)
        self._certificate = certificate
        self.version = ""

    async def _serve(self, rest: str) -> None:
        dovecot = program("dovecot", "dovecot-pop3d dovecot-ldap")
        self.version = (await run([dovecot, "--version"], _LIMIT)).text.strip()
        if not self.version.startswith("2.3."):
            raise Failure(f"configured is Dovecot 2.3, not {self.version}")
        self.directory.mkdir(parents=True, exist_ok=True)
        configuration = self.directory / "dovecot.conf"
        common = _COMMON.format(
            directory=self.directory,
            name=self.name,
            log=self._log,
            host=HOST,
            port=self.port,
            tls_port=self.tls_port if self._certificate else 0,
            processors=os.cpu_count(),
        )
        tls = _TLS.format(certificate=self._certificate) if self._certificate else _NO_TLS
        configuration.write_text(common + tls + rest)
        await self.run([dovecot, "-F", "-c", str(configuration)])

    def _passdb(self, ldapserver: str, attributes: str) -> str:
        """The part of the configuration that has logins looked up in the directory."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "ldap.conf").write_text(
            _LDAP.format(
                ldapserver=ldapserver,
                service_dn=SERVICE_DN,
                service_password=SERVICE_PASSWORD,
                suffix=SUFFIX,
                attributes=attributes,
            )
        )
        return _PASSDB.format(directory=self.directory)


class DovecotServer(_Dovecot):
    """It finds the user in the directory, proves the password, and serves the Maildir."""

    def __init__(self, name: str, directory: Path, ldapserver: str, certificate: Path) -> None:
        super().__init__(name, directory, certificate)
        self._ldapserver = ldapserver

    async def start(self) -> None:
        rest = _SERVER.format(sessions=SESSIONS_A_PROCESS, processors=os.cpu_count())
        await self._serve(self._passdb(self._ldapserver, _PREFETCHED) + rest)


class DovecotProxy(_Dovecot):
    """It finds the user in the directory, proves the password, and logs in on the member with it.

    ``member`` is the port of the member to which all users' mailHost leads.
    """

    def __init__(self, name: str, directory: Path, ldapserver: str, member: int) -> None:
        super().__init__(name, directory)
        self._ldapserver = ldapserver
        self._member = member

    async def start(self) -> None:
        attributes = _TO_MEMBER.format(host=HOST, member=self._member)
        await self._serve(self._passdb(self._ldapserver, attributes))


class DovecotMember(_Dovecot):
    """It holds the mail of all users of some sites; ``users`` says how many each of these has."""

    def __init__(self, name: str, directory: Path, users: dict[str, int]) -> None:
        super().__init__(name, directory)
        self._users = users

    async def start(self) -> None:
        owner = pwd.getpwnam("nobody")
        for site, count in self._users.items():
            for number in range(count):
                home = self.directory / "homes" / login(site, number)
                make_home(home, mailbox(site, number), owner.pw_uid, owner.pw_gid)
        await self._serve(
            _MEMBER.format(
                password=PASSWORD,
                uid=owner.pw_uid,
                gid=owner.pw_gid,
                directory=self.directory,
                processors=os.cpu_count(),
            )
        )


def program(name: str, packages: str) -> str:
    """The path of a program, which ``packages`` of Debian have. Raises `Failure` without it."""
    path = shutil.which(name, path=_SEARCH_PATH)
    if path is None:
        raise Failure(f"{name} not found; install it with: apt-get install {packages}")
    return path
