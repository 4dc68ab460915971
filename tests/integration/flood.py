"""A crowd of clients that only take up room: a process of its own, for the descriptors it needs."""

from __future__ import annotations

import argparse
import resource
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .ports import HOST
from .processes import Child, wait_until
from .server import PROJECT, environment

__all__ = ["Flood"]

_AT_ONE_ADDRESS = 150
"""Less than what the server lets in from one address."""

_LIMIT = 30.0
_SAID = b"USER " + b"x" * 100


class Flood:
    """The crowd, once it is there until it is stopped.

    ``silent`` connections say nothing, on ``port`` and, every fourth of them, on ``tls_port``,
    where that is no handshake; ``slow`` ones send an octet a second.
    """

    def __init__(self, directory: Path, port: int, tls_port: int, silent: int, slow: int) -> None:
        self._output = directory / "flood.log"
        numbers = (port, tls_port, silent, slow)
        self._command = [sys.executable, "-m", "tests.integration.flood", *map(str, numbers)]
        self._size = silent + slow
        self._child: Child | None = None

    async def start(self) -> None:
        """Wait until all are connected."""
        self._output.unlink(missing_ok=True)
        child = self._child = Child(
            self._command, self._output, environment=environment(), directory=PROJECT
        )
        await wait_until(
            lambda: self._held(), _LIMIT, f"{self._size} connections to be made", child
        )

    async def all_held(self) -> bool:
        """Whether the server has still all of them, a second or two from now."""
        assert self._child is not None
        seen = len(self._lines())
        await wait_until(
            lambda: len(self._lines()) > seen, _LIMIT, "a round of the slow ones", self._child
        )
        return self._held() == self._size

    def stop(self) -> None:
        """Have all of them gone."""
        if self._child is not None:
            self._child.kill()

    def _lines(self) -> list[str]:
        return self._output.read_text().splitlines() if self._output.exists() else []

    def _held(self) -> int:
        lines = self._lines()
        return int(lines[-1]) if lines else 0


def _main(arguments: Sequence[str] | None = None) -> None:
    """Connect all, and say each second how many are left."""
    parser = argparse.ArgumentParser(prog="python -m tests.integration.flood")
    for name in ("port", "tls_port", "silent", "slow"):
        parser.add_argument(name, type=int)
    options = parser.parse_args(arguments)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    slow = [_connect(number, options.port, greeted=True) for number in range(options.slow)]
    silent = [
        _connect(options.slow + number, options.port, greeted=True)
        if number % 4
        else _connect(options.slow + number, options.tls_port, greeted=False)
        for number in range(options.silent)
    ]
    everyone = [*slow, *silent]
    for octet in _SAID:
        begun = time.monotonic()
        for client in slow:
            with suppress(OSError):
                client.send(bytes([octet]))
        sys.stdout.write(f"{sum(map(_is_there, everyone))}\n")
        sys.stdout.flush()
        time.sleep(max(0.0, 1.0 - (time.monotonic() - begun)))


def _connect(number: int, port: int, *, greeted: bool) -> socket.socket:
    """A connection by an address that has not too many yet."""
    client = socket.socket()
    client.settimeout(_LIMIT)
    client.bind((f"127.0.{1 + number // _AT_ONE_ADDRESS}.1", 0))
    client.connect((HOST, port))
    if greeted:
        # Not faster than the server takes them in: those that it cannot queue connect much later.
        client.recv(1024)
    client.setblocking(False)
    return client


def _is_there(client: socket.socket) -> bool:
    try:
        return bool(client.recv(4096))
    except BlockingIOError:
        return True
    except OSError:
        return False


if __name__ == "__main__":
    _main()
