"""The real server: twistd, a control directory, a log."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .ports import HOST, unused_port
from .process_table import Process, living_processes
from .processes import Child, Finished, run, wait_until
from .users import Owner

__all__ = ["PROJECT", "TAC", "TWISTD", "Pop3Server", "environment", "write_control"]

PROJECT = Path(__file__).resolve().parents[2]
TAC = PROJECT / "tac" / "qmailldap-pop3.tac"

# The twistd of this interpreter, installed as a script or not.
TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]

_START_LIMIT = 20
_GRACE = "3"
"""Seconds; what a test has left under way is not waited for as long as on a real site."""
_OF_THE_LOG = ("LOGLEVEL", "DEBUGLEVEL")
_FAULT = re.compile(r"Traceback \(most recent call last\)|Unhandled [Ee]rror", re.MULTILINE)


class Pop3Server:
    """One server with its control directory and everything it writes below ``directory``.

    It listens on ``port`` of ``host``, a loopback address, and on what ``listen`` adds, which are
    Twisted endpoint strings. ``options`` are further ones of its own, ``twistd`` those of twistd;
    both come after the command that ``before`` begins with, as setpriv. With ``tac`` it is started
    from the tac file.
    """

    def __init__(
        self,
        directory: Path,
        control: Mapping[str, str],
        *,
        host: str = HOST,
        port: int | None = None,
        listen: Sequence[str] = (),
        options: Sequence[str] = (),
        twistd: Sequence[str] = (),
        before: Sequence[str] = (),
        tac: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.host = host
        self.port = port or unused_port()
        self._directory = directory
        self._control = directory / "control"
        self._log = directory / "server.log"
        self._listen = [f"tcp:{self.port}:interface={host}", *listen]
        self._options = options
        self._twistd = [*before, *TWISTD, "-n", "--pidfile=", *twistd]
        self._tac = tac
        self._environment = environment(**(variables or {}))
        self._child: Child | None = None
        self.descriptors: Sequence[int] = ()
        """What it is handed of this process's, by the same numbers."""
        write_control(self._control, control)

    @property
    def control(self) -> Path:
        """The directory with the control files."""
        return self._control

    @property
    def log(self) -> str:
        """All that it has written so far, of all its runs."""
        return self._log.read_text("utf-8", "replace") if self._log.exists() else ""

    @property
    def is_running(self) -> bool:
        return self._child is not None and self._child.code is None

    @property
    def child(self) -> Child:
        assert self._child is not None, "the server was not started"
        return self._child

    @property
    def processes(self) -> list[Process]:
        """All that are alive, those too that it left behind."""
        return living_processes(self.child.pid)

    @property
    def network(self) -> Process:
        """The process that was started, and speaks to the network."""
        (network,) = [each for each in self.processes if each.pid == self.child.pid]
        return network

    @property
    def broker(self) -> Process:
        """The only child of the former."""
        (broker,) = [each for each in self.processes if each.parent == self.child.pid]
        return broker

    @property
    def keepers(self) -> list[Process]:
        """The children of the broker. One that has just been begun may still be root."""
        processes = self.processes
        brokers = {each.pid for each in processes if each.parent == self.child.pid}
        return [each for each in processes if each.parent in brokers]

    def keeper_of(self, owner: Owner) -> Process:
        (keeper,) = [each for each in self.keepers if each.owner == owner]
        return keeper

    async def start(self) -> None:
        arguments, variables = self._command()
        self._child = Child(
            arguments,
            self._log,
            environment=variables,
            directory=self._rundir(),
            descriptors=self.descriptors,
        )
        await wait_until(self._accepts, _START_LIMIT, f"a server on {self.port}", self._child)

    async def refuse_to_start(self) -> Finished:
        """Start it with configuration that it must not accept; gives how it ended."""
        arguments, variables = self._command()
        return await run(arguments, _START_LIMIT, environment=variables, directory=self._rundir())

    async def stop(self) -> None:
        """SIGTERM. Fails unless it ends in order, and soon."""
        code = await self.child.stop()
        # Once all is done twistd ends itself with the signal that it was sent.
        if code not in (0, -signal.SIGTERM) or "Server Shut Down." not in self.log:
            raise AssertionError(f"SIGTERM ended with {code}:\n{self.child.last_lines()}")

    def kill(self) -> None:
        """Leave nothing of it running, whatever state it is in."""
        if self._child is not None:
            self._child.kill()

    def assert_no_tracebacks(self) -> None:
        """Nothing that a client, a directory or a disk does may end in one."""
        fault = _FAULT.search(self.log)
        if fault is not None:
            excerpt = self.log[max(0, fault.start() - 500) : fault.end() + 3000]
            raise AssertionError(f"the server's log has:\n{excerpt}")

    def _command(self) -> tuple[list[str], dict[str, str]]:
        if self._tac:
            variables = {
                "QMAILLDAP_CONTROL": str(self._control),
                "QMAILLDAP_LISTEN": " ".join(self._listen),
            }
            return [*self._twistd, "-y", str(TAC)], {**self._environment, **variables}
        listen = [argument for one in self._listen for argument in ("--listen", one)]
        options = ["--control", str(self._control), *listen, "--grace", _GRACE, *self._options]
        return [*self._twistd, "qmailldap-pop3", *options], self._environment

    def _rundir(self) -> Path:
        rundir = self._directory / "run"
        rundir.mkdir(exist_ok=True)
        return rundir

    def _accepts(self) -> bool:
        """Whether all its ports are listened on."""
        ports = re.findall(r"\b(?:tcp|ssl):(\d+)", " ".join(self._listen))
        return all(_is_open(self.host, int(port)) for port in ports)


def _is_open(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def write_control(directory: Path, files: Mapping[str, str]) -> None:
    """Make a control directory; a text gets the newline that an editor would leave."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = directory / name
        path.write_text(text + "\n")
        path.chmod(0o640 if name == "ldappassword" else 0o644)


def environment(**variables: str) -> dict[str, str]:
    """The variables for a child that is to run this checkout's code, and nothing else's.

    What it logs does not depend on who runs the tests.
    """
    path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    ours = {name: os.environ[name] for name in os.environ if name not in _OF_THE_LOG}
    return {**ours, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **variables}
