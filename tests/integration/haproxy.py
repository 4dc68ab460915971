"""A real HAProxy on loopback addresses."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

import attrs

from .ports import HOST, unused_port
from .processes import Child, wait_until

__all__ = ["HAProxy", "Way"]

_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_START_LIMIT = 10

_CONFIGURATION = """\
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
"""

_WAY = """\
listen way{port}
  bind {host}:{port} {bind}
  {source}
  server pop3 {host}:{to} {server}
"""


@attrs.frozen
class Way:
    """One port of the proxy, and what it does with those who come there.

    They go on to the port ``to`` as ``server``, words of its configuration, says; ``bind`` are
    those for clients, and ``client`` is the address that they are to have.
    """

    to: int
    server: str
    bind: str = ""
    client: str = ""
    port: int = attrs.field(factory=unused_port)

    def __str__(self) -> str:
        source = f"tcp-request connection set-src str({self.client})" if self.client else ""
        return _WAY.format(
            host=HOST, port=self.port, bind=self.bind, source=source, to=self.to, server=self.server
        )


class HAProxy:
    """One HAProxy with all its ``ways``."""

    def __init__(self, directory: Path, ways: Sequence[Way]) -> None:
        self._ways = ways
        self._log = directory / "haproxy.log"
        self._configuration = directory / "haproxy.cfg"
        self._configuration.write_text(_CONFIGURATION + "".join(map(str, ways)))
        self._child: Child | None = None

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace") if self._log.exists() else ""

    async def start(self) -> None:
        self._child = Child([_program(), "-db", "-f", str(self._configuration)], self._log)
        await wait_until(self._accepts, _START_LIMIT, "haproxy", self._child)

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()

    def _accepts(self) -> bool:
        return all(_is_open(way.port) for way in self._ways)


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _program() -> str:
    """The path of HAProxy. Without it these tests fail: they prove nothing then."""
    path = shutil.which("haproxy", path=_SEARCH_PATH)
    if path is None:
        raise AssertionError("haproxy not found; install it with: apt-get install haproxy")
    return path
