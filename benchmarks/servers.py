"""The servers of a measurement: started, watched for faults, and ended."""

from __future__ import annotations

import compileall
import re
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
from twisted.internet.threads import deferToThread

from benchmarks.mail import PASSWORD
from tests.integration.ports import HOST, unused_port
from tests.integration.processes import Child, run, wait_until
from tests.integration.server import PROJECT, TWISTD, environment, write_control
from tests.integration.slapd import SERVICE_DN, SERVICE_PASSWORD, Slapd
from tests.integration.users import SUFFIX, Attributes, qmail_user, ssha_value

__all__ = ["DirectoryServer", "Failure", "OurServer", "Server", "user_entry"]

_BACKLOG = 4000
"""Connections that may wait until they are accepted: as many as a fast Dovecot lets wait. Twisted's
default is 50, and of 200 clients who connect at once the kernel then drops some unseen."""

_START_LIMIT = 30.0
_STOP_LIMIT = 30.0
_LAST_LINES = 25
_GREETING_INTERVAL = 0.001


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


def user_entry(login: str, attributes: Attributes, value: str | None = None) -> str:
    """The entry of a user, as LDIF; ``value`` is that of userPassword, by default {SSHA}."""
    return qmail_user(login, value or ssha_value(PASSWORD), attributes)


@attrs.frozen
class _Program:
    """How a program is executed."""

    arguments: Sequence[str]
    variables: Mapping[str, str] | None
    rundir: Path | None


class Server:
    """A program that listens on ``port``, with all that it needs below ``directory``.

    ``tls_port`` is where it speaks TLS from the start, if it has been told to. ``fault`` is what
    its log has only if it met something that it did not expect, ``routine`` what it has of each
    session.
    """

    fault = re.compile(r"Traceback \(most recent call last\)|Unhandled [Ee]rror")
    routine = re.compile(r"\] (?:login|logout|abandoned) |Login: |Disconnected: Logged out")

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.port = unused_port()
        self.tls_port = unused_port()
        self.directory = directory
        self._log = directory / "server.log"
        self._child: Child | None = None
        self._program: _Program | None = None

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
            await self._child.stop(_STOP_LIMIT)
            self._child = None

    async def start_again(self) -> float:
        """Start what was started before, and stopped; gives the seconds until it greets.

        They count from the moment when the program is executed.
        """
        begun = time.perf_counter()
        self._execute()
        greeted = await deferToThread(self._greeted, begun + _START_LIMIT)
        if greeted is None:
            raise Failure(f"{self.name} does not greet:\n{self.last_lines()}")
        return greeted - begun

    def last_lines(self) -> str:
        """The end of its log, without the lines that every session has."""
        lines = self._log.read_text("utf-8", "replace").splitlines() if self._log.exists() else []
        telling = [line for line in lines if not self.routine.search(line)]
        return "\n".join(f"  {self.name}| {line}" for line in telling[-_LAST_LINES:])

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
        self._program = _Program(arguments, variables, rundir)
        child = self._execute()
        await wait_until(self._accepts, _START_LIMIT, f"the server of {self.name}", child)

    def _execute(self) -> Child:
        assert self._program is not None and self._child is None
        self._child = Child(
            self._program.arguments,
            self._log,
            environment=self._program.variables,
            directory=self._program.rundir,
        )
        return self._child

    def _greeted(self, deadline: float) -> float | None:
        """Connect until that succeeds; gives the time when the first octet came. Blocks."""
        while time.perf_counter() < deadline:
            with socket.socket() as probe:
                probe.settimeout(_START_LIMIT)
                if probe.connect_ex((HOST, self.port)) == 0 and probe.recv(1):
                    return time.perf_counter()
            time.sleep(_GREETING_INTERVAL)
        return None

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0


class OurServer(Server):
    """The server of this project; ``code`` is the directory with its packages.

    ``twistd`` and ``options`` are for twistd and for its qmailldap-pop3. ``control`` are files
    besides those that name the directory server. With a ``certificate`` it also speaks TLS.
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
        certificate: Path | None = None,
    ) -> None:
        super().__init__(name, directory)
        self._code = code
        self._twistd = twistd
        self._options = list(options)
        if certificate is not None:
            self._options += [
                f"--certificate={certificate}",
                f"--pop3s={_endpoint(self.tls_port)}",
            ]
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
        _compile(self._code / "qmailldap")
        control = self.directory / "control"
        write_control(control, self._files)
        await self.run(
            [
                *(*TWISTD, "-n", "--pidfile=", *self._twistd),
                *("qmailldap-pop3", f"--control={control}"),
                *(f"--listen={_endpoint(self.port)}", *self._options),
            ],
            variables=variables,
            rundir=rundir,
        )


def _endpoint(port: int) -> str:
    return f"tcp:{port}:interface={HOST}:backlog={_BACKLOG}"


def _compile(package: Path) -> None:
    """Have the package in bytecode that everybody can read, as one that pip has installed."""
    compileall.compile_dir(package, quiet=2)
    for file in package.rglob("*.pyc"):
        file.chmod(0o644)
