"""The servers of a measurement: started, watched for faults, and ended."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.mail import PASSWORD, login
from tests.integration.ports import HOST, unused_port
from tests.integration.processes import Child, run, wait_until
from tests.integration.server import PROJECT, TWISTD, environment, write_control
from tests.integration.slapd import SERVICE_DN, SERVICE_PASSWORD, Slapd
from tests.integration.users import SUFFIX, Attributes, qmail_user, ssha_value

__all__ = ["DirectoryServer", "Failure", "OurServer", "Server", "user_entry"]

_START_LIMIT = 30.0


class Failure(Exception):
    """A measurement that came to nothing, with a text for people."""


class DirectoryServer(Slapd):
    """The directory of all servers, below ``directory``, which it makes."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        super().__init__(directory)

    def add(self, entries: str) -> None:
        """Users that it is to have once it starts, as LDIF."""
        self._entries += entries

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid


def user_entry(site: str, number: int, attributes: Attributes) -> str:
    """The entry of one of a site's users, as LDIF."""
    return qmail_user(login(site, number), ssha_value(PASSWORD), attributes)


class Server:
    """A program that listens on ``port``, with all that it needs below ``directory``.

    ``fault`` is what its log has only if it met something that it did not expect.
    """

    fault = re.compile(r"Traceback \(most recent call last\)|Unhandled [Ee]rror")

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.port = unused_port()
        self.directory = directory
        self._log = directory / "server.log"
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    async def start(self) -> None:
        """Start it and wait until it listens."""
        raise NotImplementedError

    async def stop(self) -> None:
        """End it, if it was started; kills it where it does not end by itself."""
        if self._child is not None:
            await self._child.stop()

    def last_lines(self) -> str:
        """The end of its log."""
        return self._child.last_lines() if self._child is not None else ""

    def check_log(self) -> None:
        """Fail if it has met anything that it did not expect."""
        log = self._log.read_text("utf-8", "replace")
        fault = self.fault.search(log)
        if fault is not None:
            start = log.rfind("\n", 0, fault.start()) + 1
            raise Failure(f"the log of {self.name} has:\n{log[start:][:3000]}")

    async def run(
        self,
        arguments: Sequence[str],
        *,
        variables: Mapping[str, str] | None = None,
        rundir: Path | None = None,
    ) -> None:
        """Start the program and wait until it listens."""
        self._child = Child(arguments, self._log, environment=variables, directory=rundir)
        await wait_until(self._accepts, _START_LIMIT, f"the server of {self.name}", self._child)

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0


class OurServer(Server):
    """The server of this project; ``code`` is the directory with its packages.

    ``twistd`` and ``options`` are for twistd and for its qmailldap-pop3. ``control`` are files
    besides those that name the directory server.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        ldapserver: str,
        *,
        code: Path = PROJECT,
        twistd: Sequence[str] = (),
        options: Sequence[str] = (),
        control: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(name, directory)
        self._code = code
        self._twistd = twistd
        self._options = options
        self._files = {
            "ldapserver": ldapserver,
            "ldapbasedn": SUFFIX,
            "ldaplogin": SERVICE_DN,
            "ldappassword": SERVICE_PASSWORD,
            "ldaplocaldelivery": "0",
            **(control or {}),
        }

    async def start(self) -> None:
        """Start it, having made sure that it is the code that is meant."""
        variables = environment(PYTHONPATH=str(self._code))
        rundir = self.directory / "run"
        rundir.mkdir(parents=True)
        # An installed package, or another plugin's path, must not be measured in its place.
        found = await run(
            [sys.executable, "-c", "import qmailldap; print(qmailldap.__path__[0])"],
            _START_LIMIT,
            environment=variables,
            directory=rundir,
        )
        if found.text.strip() != str(self._code / "qmailldap"):
            raise Failure(f"{self.name} would run {found.text.strip()}, not {self._code}")
        control = self.directory / "control"
        write_control(control, self._files)
        await self.run(
            [
                *(*TWISTD, "-n", "--pidfile=", *self._twistd),
                *("qmailldap-pop3", f"--control={control}"),
                *(f"--listen=tcp:{self.port}:interface={HOST}", *self._options),
            ],
            variables=variables,
            rundir=rundir,
        )
