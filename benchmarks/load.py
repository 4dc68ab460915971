"""The load generator from outside: compiled, told what to do, and what it has to say of it.

It is the program in C of `benchmarks.scripts`, a process of its own. The first wrong octet in any
answer ends it, and with it the measurement.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from benchmarks.scripts import Session, build_generator, write_script
from benchmarks.servers import Failure, Server
from tests.integration.ports import HOST
from tests.integration.processes import Child, wait_until

__all__ = ["FULL", "RESUMED", "Generator", "Held", "Holding", "Load", "Times", "TrivialServer"]

FULL, RESUMED = "full", "resumed"
"""Kinds of TLS handshakes."""

_PATIENCE = 60.0
"""Seconds that sessions under way at the end of a run may take; one answer may take 20."""

_HOLDING_LIMIT = 300.0


@attrs.frozen
class Times:
    """How long something took, each of ``count`` times, in milliseconds."""

    count: int
    p50: float
    p90: float
    p99: float
    max: float


@attrs.frozen(kw_only=True)
class Held:
    """What was done by sessions that are held; the fields are those of `benchmarks.scripts`."""

    elapsed: float
    sessions: int
    octets: int
    cpu: float
    handshakes: int
    resumed: int
    pass_ms: Times
    login_ms: Times


@attrs.frozen(kw_only=True)
class Load(Held):
    """What one run did; the fields are those of `benchmarks.scripts`."""

    seconds: float
    in_time: int
    octets_in_time: int
    postponed: int


class TrivialServer(Server):
    """The generator's own server of ``script``, which costs next to nothing."""

    def __init__(self, directory: Path, program: Path, script: Path) -> None:
        super().__init__("trivial", directory)
        self._command = [str(program), "serve", "--script", str(script)]

    async def start(self) -> None:
        self.directory.mkdir(parents=True)
        await self.run([*self._command, "--port", str(self.port)])


class Generator:
    """Compiled at once, below ``directory``, where the scripts are written as well.

    Every method that runs it raises `Failure` unless every answer was right.
    """

    def __init__(self, reactor: IReactorTime, directory: Path) -> None:
        directory.mkdir(parents=True)
        self._reactor = reactor
        self._directory = directory
        self.program = build_generator(directory)
        self._runs = 0

    def script(self, name: str, sessions: Iterable[Session]) -> Path:
        """Write what is to be said and heard, under a name that no other script has."""
        path = self._directory / f"{name}.script"
        write_script(path, sessions)
        return path

    async def run(
        self,
        server: Server,
        script: Path,
        *,
        clients: int,
        seconds: float,
        seed: int,
        tls: str | None = None,
        pace: float | None = None,
    ) -> Load:
        """Sessions in random order for ``seconds``, with that many clients at a time.

        With ``tls`` they are at the server's port for TLS; it is `FULL` or `RESUMED`. ``pace`` are
        sessions a second; without, one session follows the other at once.
        """
        arguments = ["run", *_at(server, script, clients, tls)]
        # A seed is not negative; warm-ups have those that follow the highest.
        arguments += ["--seconds", f"{seconds:g}", "--seed", str(seed % 2**32)]
        if pace is not None:
            arguments += ["--pace", f"{pace:g}"]
        text = await self._told(server, arguments, seconds)
        done = Load(**_fields(text))
        if not done.sessions:
            raise Failure(f"{server.name}: not one session ended within {done.elapsed:g} s")
        return done

    async def once(self, server: Server, script: Path, *, clients: int) -> Held:
        """The first ``clients`` sessions of the script, all at the same time, each once."""
        text = await self._told(server, ["hold", *_at(server, script, clients)], 0)
        return Held(**_fields(text.partition("\n")[2]))

    def holding(self, server: Server, script: Path, *, clients: int) -> Holding:
        """Sessions that are to be held; see there."""
        self._runs += 1
        arguments = [str(self.program), "hold", *_at(server, script, clients)]
        return Holding(server, arguments, clients, self._directory / f"hold-{self._runs}")

    async def _told(self, server: Server, arguments: list[str], seconds: float) -> str:
        """Let it run to its end; gives what it wrote."""
        self._runs += 1
        output = self._directory / f"run-{self._runs}"
        child = Child([str(self.program), *arguments], output)
        try:
            if seconds:
                # Looking at the child more often than needed would cost CPU that is measured.
                await deferLater(cast(Any, self._reactor), seconds)
            code = await child.ended(_PATIENCE)
        finally:
            child.kill()
        text = output.read_text("utf-8", "replace").strip()
        output.unlink()
        if code:
            raise Failure(f"{server.name}: {text}\n{server.last_lines()}")
        return text


class Holding:
    """Sessions that are logged in and then say nothing until the end."""

    def __init__(self, server: Server, arguments: list[str], clients: int, scratch: Path) -> None:
        self._server = server
        self._arguments = arguments
        self._clients = clients
        self._output = scratch.with_suffix(".output")
        # Its standard input: a FIFO, as the harness starts all children without one.
        self._input = scratch.with_suffix(".input")
        self._open: int | None = None
        self._child: Child | None = None

    async def begin(self) -> None:
        """Log all of them in. Raises `Failure` if one of them cannot be."""
        os.mkfifo(self._input)
        # For reading, too: to open it waits for nobody then.
        self._open = os.open(self._input, os.O_RDWR | os.O_CLOEXEC)
        command = ["sh", "-c", 'input=$1; shift; exec "$@" <"$input"', "sh", str(self._input)]
        self._child = Child([*command, *self._arguments], self._output)
        said = f"holding {self._clients}\n"

        def holds() -> bool:
            return self._output.read_text("utf-8", "replace").startswith(said)

        try:
            await wait_until(holds, _HOLDING_LIMIT, f"{self._clients} sessions", self._child)
        except AssertionError as error:
            raise Failure(f"{self._server.name}: {error}\n{self._server.last_lines()}") from None

    async def end(self) -> Held:
        """Let all of them say QUIT. Raises `Failure` unless every answer was right."""
        assert self._child is not None and self._open is not None
        os.close(self._open)
        self._open = None
        code = await self._child.ended(_PATIENCE)
        text = self._output.read_text("utf-8", "replace").strip()
        if code:
            raise Failure(f"{self._server.name}: {text}\n{self._server.last_lines()}")
        return Held(**_fields(text.partition("\n")[2]))

    def kill(self) -> None:
        """Leave nothing of it. Harmless when it has ended."""
        if self._open is not None:
            os.close(self._open)
            self._open = None
        if self._child is not None:
            self._child.kill()


def _at(server: Server, script: Path, clients: int, tls: str | None = None) -> list[str]:
    port = server.port if tls is None else server.tls_port
    arguments = ["--script", str(script), "--host", HOST, "--port", str(port)]
    arguments += ["--clients", str(clients)]
    return arguments if tls is None else [*arguments, "--tls", tls]


def _fields(text: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(text)
    for name in ("pass_ms", "login_ms"):
        fields[name] = Times(**fields[name])
    return fields
