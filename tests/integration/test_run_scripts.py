"""The run scripts under the real supervisors: runit's and those of daemontools."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.root import require_root

from .ports import HOST, unused_port
from .processes import Child, run, wait_until
from .server import PROJECT, environment, write_control

CONTRIB = PROJECT / "contrib" / "run"
_START_LIMIT = 30.0
_LIMIT = 15.0

_SHELL = ("sh", "id", "mkdir", "chown", "setpriv")
_RUNIT = ("runsv", "sv", "chpst", "svlogd")
_DAEMONTOOLS = ("supervise", "svc", "softlimit", "envdir", "setuidgid", "multilog")


class RunScriptTests(TestCase):
    """With no other programs than those of one of the two, as on a host that has just it."""

    timeout = 90

    def setUp(self) -> None:
        require_root("has the log written by another user")
        self.directory = Path(tempfile.mkdtemp(prefix="qmailldap-test-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.directory.chmod(0o755)
        self.port = unused_port()
        self.tools = self.directory / "tools"
        self.tools.mkdir()
        twistd = self.tools / "twistd"
        start = "from twisted.scripts.twistd import run; run()"
        twistd.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{start}' \"$@\"\n")
        twistd.chmod(0o755)
        control = self.directory / "control"
        write_control(control, {"ldapserver": HOST, "ldapbasedn": "dc=example,dc=org"})
        self.service = self.directory / "service"
        shutil.copytree(CONTRIB, self.service)
        variables = {
            "QMAILLDAP_OPTIONS": f"--listen tcp:{self.port}:interface={HOST} --keepers 3",
            "QMAILLDAP_CONTROL": str(control),
            "LOGLEVEL": "15",
        }
        for name, value in variables.items():
            (self.service / "env" / name).write_text(f"{value}\n")

    @property
    def log(self) -> str:
        current = self.service / "log" / "main" / "current"
        return current.read_text("utf-8", "replace") if current.exists() else ""

    def start(self, *command: str | Path, tools: tuple[str, ...]) -> Child:
        for name in (*_SHELL, *tools):
            found = shutil.which(name)
            assert found, f"{name} not found; apt-get install runit daemontools"
            (self.tools / name).symlink_to(found)
        child = Child(
            [*map(str, command)],
            self.directory / "output",
            environment=self.variables(),
            directory=self.directory,
        )
        self.addCleanup(child.kill)
        return child

    def variables(self) -> dict[str, str]:
        return environment(PATH=str(self.tools))

    async def tell(self, *command: str | Path) -> None:
        finished = await run([*map(str, command)], _LIMIT, environment=self.variables())
        self.assertEqual(finished.code, 0, finished.text)

    async def serves(self, child: Child) -> None:
        """Wait until it does, of which a line tells that only the LOGLEVEL of env/ lets through."""
        await wait_until(
            lambda: "rights network=" in self.log, _START_LIMIT, "a server in the log", child
        )

    def assert_log_is_private(self) -> None:
        folder = self.service / "log" / "main"
        self.assertNotEqual(folder.stat().st_uid, 0)
        self.assertEqual(stat.S_IMODE(folder.stat().st_mode), 0o700)

    async def has_stopped(self, child: Child) -> None:
        await wait_until(
            lambda: "Server Shut Down." in self.log, _LIMIT, "the server to end", child
        )

    async def test_runit_starts_logs_and_stops_it(self) -> None:
        runsv = self.start("runsv", self.service, tools=_RUNIT)
        await self.serves(runsv)
        self.assert_log_is_private()
        await self.tell("sv", "hup", self.service)
        await self.tell("sv", "-w", "10", "down", self.service)
        await self.has_stopped(runsv)
        await self.tell("sv", "exit", self.service)
        await runsv.ended(_LIMIT)

    async def test_daemontools_starts_logs_and_stops_it(self) -> None:
        log = self.service / "log"
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        self.addCleanup(os.close, write)
        # As svscan does: one supervise for each, with a pipe between them.
        both = (
            f"/proc/{os.getpid()}/fd/{write}",
            f"/proc/{os.getpid()}/fd/{read}",
        )
        script = f"supervise {self.service} >{both[0]} & supervise {log} <{both[1]} & wait"
        supervise = self.start("sh", "-c", script, tools=_DAEMONTOOLS)
        await self.serves(supervise)
        self.assert_log_is_private()
        await self.tell("svc", "-h", self.service)
        await self.tell("svc", "-dx", self.service)
        await self.has_stopped(supervise)
        await self.tell("svc", "-dx", log)
        await supervise.ended(_LIMIT)
