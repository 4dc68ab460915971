"""What is compared: sites that differ in who owns the mail, and in the server's code and options.

Each has homes, a control directory and a twistd of its own; all share one directory server.
"""

from __future__ import annotations

import os
import pwd
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

from benchmarks.mail import MESSAGES, PASSWORD, file_name, login, message
from tests.integration.ports import HOST, unused_port
from tests.integration.processes import Child, run, wait_until
from tests.integration.server import PROJECT, TWISTD, environment, write_control
from tests.integration.slapd import SERVICE_DN, SERVICE_PASSWORD, Slapd
from tests.integration.users import SUFFIX, qmail_user, ssha_value

__all__ = ["FEW_OWNERS", "Configuration", "DirectoryServer", "Failure", "Site", "configurations"]

FEW_OWNERS = 50
"""Fewer than the 64 processes that a server keeps by default: every owner's may stay."""

_FIRST_OWNER = 20000
_START_LIMIT = 30.0
_FAULT = re.compile(r"Traceback \(most recent call last\)|Unhandled [Ee]rror")


class Failure(Exception):
    """A measurement that came to nothing, with a text for people."""


@attrs.frozen
class Configuration:
    """One thing to be measured.

    ``code`` is the directory with the server's packages. ``twistd`` and ``server`` are options, for
    twistd and for its qmailldap-pop3. ``owners`` are the (uid, gid) that mailboxes belong to in
    turn.
    """

    name: str
    what: str
    code: Path
    owners: tuple[tuple[int, int], ...]
    twistd: tuple[str, ...] = ()
    server: tuple[str, ...] = ()


def configurations(before: Path, owners: int) -> tuple[Configuration, ...]:
    """All that there are; ``before`` is where the older code will be."""
    # An id that has a name: twistd looks up the groups of what --uid gives it.
    nobody = pwd.getpwnam("nobody")
    ids = (("uid", str(nobody.pw_uid)), ("gid", str(nobody.pw_gid)))
    as_nobody = tuple(f"--{option}={value}" for option, value in ids)

    def distinct(count: int) -> tuple[tuple[int, int], ...]:
        return tuple((_FIRST_OWNER + n, _FIRST_OWNER + n) for n in range(count))

    return (
        Configuration(
            "before",
            "the older commit, all of it run by the one owner of all mail",
            before,
            ((nobody.pw_uid, nobody.pw_gid),),
            twistd=as_nobody,
        ),
        Configuration(
            "one-owner",
            "this checkout, run as the one owner of all mail",
            PROJECT,
            ((nobody.pw_uid, nobody.pw_gid),),
            server=(f"--user={nobody.pw_uid}", f"--group={nobody.pw_gid}"),
        ),
        Configuration(
            "many-owners",
            f"this checkout, run as nobody, {owners} owners",
            PROJECT,
            distinct(owners),
            server=("--user=nobody",),
        ),
        Configuration(
            "few-owners",
            f"this checkout, run as nobody, {FEW_OWNERS} owners",
            PROJECT,
            distinct(FEW_OWNERS),
            server=("--user=nobody",),
        ),
        Configuration(
            "one-keeper",
            "this checkout, run as nobody, all mail of one other owner",
            PROJECT,
            distinct(1),
            server=("--user=nobody",),
        ),
    )


class DirectoryServer(Slapd):
    """The directory of all sites."""

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid


class Site:
    """One configuration with its users, their mail and its server, all below ``directory``."""

    def __init__(self, configuration: Configuration, directory: Path, users: int) -> None:
        self.configuration = configuration
        self.name = configuration.name
        self.port = unused_port()
        self._directory = directory
        self._log = directory / "server.log"
        self._users = users
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def entries(self) -> str:
        """The users, as LDIF."""
        return "".join(
            qmail_user(
                login(self.name, number),
                ssha_value(PASSWORD),
                {"homeDirectory": str(home), "qmailUID": uid, "qmailGID": gid},
            )
            for number, home, uid, gid in self._homes()
        )

    def deliver(self) -> None:
        """Make all homes, which only their owners can look into, with all the mail in cur/."""
        (self._directory / "run").mkdir(parents=True)
        (self._directory / "homes").mkdir()
        for number, home, uid, gid in self._homes():
            maildir = home / "Maildir"
            paths = [home, maildir, *(maildir / folder for folder in ("tmp", "new", "cur"))]
            for path in paths:
                path.mkdir(mode=0o700)
            for index in range(MESSAGES):
                content = message(self.name, number, index)
                file = maildir / "cur" / file_name(index, len(content))
                file.write_bytes(content)
                file.chmod(0o600)
                paths.append(file)
            for path in paths:
                os.chown(path, uid, gid)

    async def start(self, ldapserver: str) -> None:
        """Start the server and wait until it listens."""
        code = self.configuration.code
        variables = environment(PYTHONPATH=str(code))
        rundir = self._directory / "run"
        # An installed package, or another plugin's path, must not be measured in its place.
        found = await run(
            [sys.executable, "-c", "import qmailldap; print(qmailldap.__path__[0])"],
            _START_LIMIT,
            environment=variables,
            directory=rundir,
        )
        if found.text.strip() != str(code / "qmailldap"):
            raise Failure(f"{self.name} would run the code of {found.text.strip()}, not of {code}")
        control = self._directory / "control"
        write_control(
            control,
            {
                "ldapserver": ldapserver,
                "ldapbasedn": SUFFIX,
                "ldaplogin": SERVICE_DN,
                "ldappassword": SERVICE_PASSWORD,
                "ldaplocaldelivery": "0",
            },
        )
        arguments = [
            *(*TWISTD, "-n", "--pidfile=", *self.configuration.twistd),
            *("qmailldap-pop3", f"--control={control}"),
            *(f"--listen=tcp:{self.port}:interface={HOST}", *self.configuration.server),
        ]
        self._child = Child(arguments, self._log, environment=variables, directory=rundir)
        await wait_until(self._accepts, _START_LIMIT, f"the server of {self.name}", self._child)

    async def stop(self) -> None:
        """End the server, if there is one; kills it where it does not end by itself."""
        if self._child is not None:
            await self._child.stop()

    def last_lines(self) -> str:
        """The end of the server's log."""
        return self._child.last_lines() if self._child is not None else ""

    def check_log(self) -> None:
        """Fail if the server has met anything that it did not expect."""
        log = self._log.read_text("utf-8", "replace")
        fault = _FAULT.search(log)
        if fault is not None:
            raise Failure(f"the log of {self.name} has:\n{log[fault.start() :][:3000]}")

    def _homes(self) -> Iterator[tuple[int, Path, int, int]]:
        """Each user's number, home, uid and gid."""
        owners = self.configuration.owners
        for number in range(self._users):
            yield number, self._directory / "homes" / str(number), *owners[number % len(owners)]

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0
