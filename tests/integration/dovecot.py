"""A real Dovecot with POP3 on a loopback address, and all of its files in one folder."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from .mailboxes import Maildir
from .ports import HOST, unused_port
from .processes import Child, wait_until

__all__ = ["Dovecot"]

_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_POP3 = Path("/usr/lib/dovecot/pop3-login")
_INSTALL = "install it with: apt-get install dovecot-pop3d"
_START_LIMIT = 10

_CONFIGURATION = """\
base_dir = {directory}/run
state_dir = {directory}/run
log_path = {log}
protocols = pop3
listen = {host}
service pop3-login {{
  inet_listener pop3 {{
    port = {port}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
login_trusted_networks = {trusted}
disable_plaintext_auth = no
ssl = {ssl}
{certificate}
login_log_format_elements = user=<%u> rip=%r rport=%b lip=%l session=<%{{session}}> %c
# A failed login is answered at once.
auth_failure_delay = 0
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
mail_location = maildir:~/Maildir
# As qmail-pop3d: the name of the file, without its flags.
pop3_uidl_format = %f
{users}
"""

_BY_FILE = """\
passdb {{
  driver = passwd-file
  args = username_format=%u {directory}/users
}}
userdb {{
  driver = passwd-file
  args = username_format=%u {directory}/users
}}
"""

_BY_CHECKPASSWORD = """\
passdb {{
  driver = checkpassword
  args = {program}
}}
userdb {{
  driver = prefetch
}}
# Whoever is to become the owner of the mail has to be root.
service auth {{
  user = root
}}
"""


class Dovecot:
    """One Dovecot; it is started by root, as it has files of many owners to read.

    ``mailboxes`` are those that it keeps, by user, in homes with a folder Maildir; ``proxied`` says
    of further users at which ``host:port`` their sessions go on. All of them have ``password``.
    ``trusted`` are networks whose XCLIENT it believes; ``ssl`` is no, yes or required, and but for
    no takes the ``certificate`` and its key from one file. With ``checkpassword``, a program, it
    has no users but those that are let in by that.
    """

    def __init__(
        self,
        directory: Path,
        password: str,
        mailboxes: Mapping[str, Maildir],
        *,
        proxied: Mapping[str, str] | None = None,
        host: str = HOST,
        trusted: str = "",
        ssl: str = "no",
        certificate: Path | None = None,
        checkpassword: Path | None = None,
    ) -> None:
        self.host = host
        self.port = unused_port()
        self._directory = directory
        self._log = directory / "dovecot.log"
        self._child: Child | None = None
        (directory / "run").mkdir(parents=True)
        users = [_kept(user, password, mailbox) for user, mailbox in mailboxes.items()]
        users += [_proxied(user, password, where) for user, where in (proxied or {}).items()]
        (directory / "users").write_text("".join(users))
        files = f"ssl_cert = <{certificate}\nssl_key = <{certificate}" if certificate else ""
        (directory / "dovecot.conf").write_text(
            _CONFIGURATION.format(
                directory=directory,
                log=self._log,
                host=host,
                port=self.port,
                trusted=trusted,
                ssl=ssl,
                certificate=files,
                users=_BY_FILE.format(directory=directory)
                if checkpassword is None
                else _BY_CHECKPASSWORD.format(program=checkpassword),
            )
        )

    @property
    def address(self) -> str:
        """As in a line of pop3routes."""
        return f"{self.host}:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace") if self._log.exists() else ""

    async def start(self) -> None:
        configuration = str(self._directory / "dovecot.conf")
        output = self._directory / "output"
        self._child = Child([_program(), "-F", "-c", configuration], output)
        try:
            await wait_until(self._accepts, _START_LIMIT, f"dovecot on {self.address}", self._child)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None

    async def stop(self) -> None:
        """End it in order, with all of its processes."""
        if self._child is not None:
            await self._child.stop()

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self.host, self.port)) == 0


def _kept(user: str, password: str, mailbox: Maildir) -> str:
    uid, gid = mailbox.owner
    return f"{user}:{{PLAIN}}{password}:{uid}:{gid}::{mailbox.path.parent}::\n"


def _proxied(user: str, password: str, where: str) -> str:
    host, _, port = where.rpartition(":")
    return f"{user}:{{PLAIN}}{password}::::::proxy=y host={host} port={port}\n"


def _program() -> str:
    """The path of Dovecot. Without it these tests fail: they prove nothing then."""
    path = shutil.which("dovecot", path=_SEARCH_PATH)
    if path is None or not _POP3.exists():
        raise AssertionError(f"dovecot and {_POP3} not found; {_INSTALL}")
    return path
