"""Other servers: Dovecot as a proxy and as a member, HAProxy, and the member that costs nothing.

Each is set up to be as fast as its manual says it can be, and to do what ours does, no less.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import sys
from pathlib import Path

from benchmarks.mail import PASSWORD, login, mailbox, on_the_wire
from benchmarks.servers import Failure, Server
from benchmarks.sites import make_home
from tests.integration.ports import HOST
from tests.integration.processes import run
from tests.integration.server import PROJECT, environment
from tests.integration.slapd import SERVICE_DN, SERVICE_PASSWORD
from tests.integration.users import SUFFIX

__all__ = ["DovecotMember", "DovecotProxy", "HAProxy", "ScriptedMember"]

_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_LIMIT = 10.0

# The syntax is that of 2.3. Login processes are kept, as many as there are processors, and each
# serves as many clients as come: what Dovecot's manual calls its high-performance mode. No password
# is cached: each login is looked up in the directory, as ours is.
_DOVECOT = """\
base_dir = {directory}/run
state_dir = {directory}/state
instance_name = {name}
log_path = {log}
listen = {host}
protocols = pop3
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
mail_max_userip_connections = 0
service pop3-login {{
  inet_listener pop3 {{
    port = {port}
  }}
  inet_listener pop3s {{
    port = 0
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

# hostip, lest the name be asked for at each login; our server is given an address, too.
_PROXY = """\
passdb {{
  driver = ldap
  args = {directory}/ldap.conf
}}
"""

_PROXY_LDAP = """\
hosts = {ldapserver}
dn = {service_dn}
dnpass = {service_password}
base = {suffix}
scope = subtree
pass_filter = (uid=%u)
pass_attrs = uid=user, userPassword=password, mailHost=host, =proxy=y, =hostip={host}, =port={port}
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

# As many threads as our server has. Nothing is logged.
_HAPROXY = """\
global
  nbthread 1
  maxconn 4000
defaults
  mode tcp
  timeout connect 10s
  timeout client 30m
  timeout server 30m
listen pop3
  bind {host}:{port}
  server member {host}:{member}
"""


class _Dovecot(Server):
    """Dovecot 2.3 with a configuration of its own, apart from the host's."""

    # Warned of is also that it was ended.
    fault = re.compile(r"(?:Error|Fatal|Panic|Warning): (?!Killed with signal 15)")

    async def _serve(self, rest: str) -> None:
        dovecot = _program("dovecot", "dovecot-pop3d dovecot-ldap")
        version = await run([dovecot, "--version"], _LIMIT)
        if not version.text.startswith("2.3."):
            raise Failure(f"configured is Dovecot 2.3, not {version.text.strip()}")
        self.directory.mkdir(parents=True, exist_ok=True)
        configuration = self.directory / "dovecot.conf"
        configuration.write_text(
            _DOVECOT.format(
                directory=self.directory,
                name=self.name,
                log=self._log,
                host=HOST,
                port=self.port,
                processors=os.cpu_count(),
            )
            + rest
        )
        await self.run([dovecot, "-F", "-c", str(configuration)])


class DovecotProxy(_Dovecot):
    """It finds the user in the directory, proves the password, and logs in on the member with it.

    ``member`` is the port of the member to which all users' mailHost leads.
    """

    def __init__(self, name: str, directory: Path, ldapserver: str, member: int) -> None:
        super().__init__(name, directory)
        self._ldapserver = ldapserver
        self._member = member

    async def start(self) -> None:
        self.directory.mkdir(parents=True)
        (self.directory / "ldap.conf").write_text(
            _PROXY_LDAP.format(
                ldapserver=self._ldapserver,
                service_dn=SERVICE_DN,
                service_password=SERVICE_PASSWORD,
                suffix=SUFFIX,
                host=HOST,
                port=self._member,
            )
        )
        await self._serve(_PROXY.format(directory=self.directory))


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
                messages = enumerate(mailbox(site, number))
                named = {_file_name(index, text): text for index, text in messages}
                make_home(home, named, owner.pw_uid, owner.pw_gid)
        await self._serve(
            _MEMBER.format(
                password=PASSWORD,
                uid=owner.pw_uid,
                gid=owner.pw_gid,
                directory=self.directory,
                processors=os.cpu_count(),
            )
        )


class HAProxy(Server):
    """It knows nothing of POP3: the client logs in on the member, whose port is ``member``."""

    fault = re.compile(r"\[(?:WARNING|ALERT|EMERG)\]")

    def __init__(self, name: str, directory: Path, member: int) -> None:
        super().__init__(name, directory)
        self._member = member

    async def start(self) -> None:
        haproxy = _program("haproxy", "haproxy")
        self.directory.mkdir(parents=True)
        configuration = self.directory / "haproxy.cfg"
        configuration.write_text(
            _HAPROXY.format(host=HOST, port=self.port, member=self._member),
        )
        await self.run([haproxy, "-db", "-f", str(configuration)])


class ScriptedMember(Server):
    """See `benchmarks.member`."""

    async def start(self) -> None:
        self.directory.mkdir(parents=True)
        await self.run(
            [sys.executable, "-m", "benchmarks.member", str(self.port)],
            variables=environment(),
            rundir=PROJECT,
        )


def _file_name(index: int, text: bytes) -> str:
    """As Dovecot itself names a message: with its size, and that on the wire."""
    sizes = f"S={len(text)},W={len(on_the_wire(text))}"
    return f"{1700000000 + index}.M{index}P{4000 + index}.mx1.example.org,{sizes}:2,S"


def _program(name: str, packages: str) -> str:
    path = shutil.which(name, path=_SEARCH_PATH)
    if path is None:
        raise Failure(f"{name} not found; install it with: apt-get install {packages}")
    return path
