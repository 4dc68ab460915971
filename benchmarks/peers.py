"""Other servers in front of a member, and behind: HAProxy, and the member that costs nothing."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from benchmarks.dovecot import program
from benchmarks.servers import Server
from tests.integration.ports import HOST
from tests.integration.server import PROJECT, environment

__all__ = ["HAProxy", "ScriptedMember"]

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


class HAProxy(Server):
    """It knows nothing of POP3: the client logs in on the member, whose port is ``member``."""

    fault = re.compile(r"\[(?:WARNING|ALERT|EMERG)\]")

    def __init__(self, name: str, directory: Path, member: int) -> None:
        super().__init__(name, directory)
        self._member = member

    async def start(self) -> None:
        haproxy = program("haproxy", "haproxy")
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
