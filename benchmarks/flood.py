"""How long a login takes while thousands of connections only take up room.

The server is measured idle and flooded in turn, round by round, by the same client; what counts is
the ratio. A login is: connect, USER, PASS, until it is answered. The flood is connections that say
nothing, a quarter of them where a TLS handshake is due, and others that send an octet a second.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThread

from benchmarks.harness import (
    at_least_one,
    make_root,
    measure,
    ratios,
    report,
    spread,
    start_all,
    start_directory,
)
from benchmarks.servers import DirectoryServer, Failure, OurServer
from benchmarks.sites import make_home
from tests.integration.certificates import write_certificate
from tests.integration.clients import login
from tests.integration.flood import Flood
from tests.integration.ports import HOST
from tests.integration.process_table import resident
from tests.integration.processes import wait_until
from tests.integration.site import PASSWORD
from tests.integration.users import OWNER, qmail_user, ssha_value

__all__ = ["main"]

_USER = "joe"
_LIMIT = 60.0
_BEHIND = 10
"""Descriptors that a server may have more than when it began: connections to the directory."""


@attrs.frozen
class _Round:
    """Milliseconds of each login, and octets that the server has in use meanwhile."""

    logins: Sequence[float]
    resident: int

    @property
    def median(self) -> float:
        return statistics.median(self.logins)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. Ends the process: 0 if every login went as it should."""
    measure("flood", _measure, _options(arguments))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flood", description=__doc__)
    add = parser.add_argument
    add("--rounds", type=at_least_one, default=5, help="of each [%(default)s]")
    add("--logins", type=at_least_one, default=50, help="in each round [%(default)s]")
    add("--silent", type=at_least_one, default=5000, help="connections [%(default)s]")
    add("--slow", type=at_least_one, default=1000, help="connections [%(default)s]")
    return parser.parse_args(arguments)


async def _measure(reactor: IReactorTime, options: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        root = make_root(stack, "flood")
        home = root / "homes" / _USER
        make_home(home, (), *OWNER)
        directory = DirectoryServer(root / "slapd")
        directory.add(qmail_user(_USER, ssha_value(PASSWORD), {"homeDirectory": str(home)}))
        await start_directory(stack, directory)
        certificate = root / "cert.pem"
        write_certificate(certificate, HOST)
        server = OurServer(
            "qmailldap",
            root / "server",
            directory.address,
            options=("--user=nobody",),
            certificate=certificate,
        )
        await start_all(stack, [server])
        await _logins(server, 10)  # until all is loaded, and the owner's process is there
        at_first = _descriptors(server)
        report(f"{options.rounds} rounds of {options.logins} logins; {os.cpu_count()} CPUs")
        idle, flooded = [], []
        for number in range(options.rounds):
            idle.append(await _logins(server, options.logins))
            flood = Flood(root, server.port, server.tls_port, options.silent, options.slow)
            stack.callback(flood.stop)
            await flood.start()
            flooded.append(await _logins(server, options.logins))
            if not await flood.all_held():
                raise Failure("the server has not kept all connections: are there descriptors?")
            flood.stop()
            await wait_until(
                lambda: _descriptors(server) <= at_first + _BEHIND, _LIMIT, "the flood to end"
            )
            report(f"  round {number + 1}: {idle[-1].median:.1f} and {flooded[-1].median:.1f} ms")
        server.check_log()
        _conclude(options, idle, flooded)


async def _logins(server: OurServer, count: int) -> _Round:
    taken = [await deferToThread(_login, server.port) for _ in range(count)]
    return _Round(taken, resident(server.pid))


def _login(port: int) -> float:
    begun = time.perf_counter()
    pop = login(port, _USER, PASSWORD, _LIMIT)
    taken = 1000 * (time.perf_counter() - begun)
    pop.quit()
    return taken


def _descriptors(server: OurServer) -> int:
    return len([*Path(f"/proc/{server.pid}/fd").iterdir()])


def _conclude(
    options: argparse.Namespace, idle: Sequence[_Round], flooded: Sequence[_Round]
) -> None:
    layout = "{:<10} {:>22} {:>16} {:>18} {:>10}"
    base = [each.median for each in idle]
    report()
    report(layout.format("", "ms of a login", "the longest", "ratio to idle", "MB"))
    for name, rounds in (("idle", idle), ("flooded", flooded)):
        medians = [each.median for each in rounds]
        longest = max(max(each.logins) for each in rounds)
        memory = max(each.resident for each in rounds) / 1e6
        shown = spread(medians, 1), f"{longest:.1f}", ratios(medians, base), f"{memory:.0f}"
        report(layout.format(name, *shown))
    report()
    report(
        f"Flooded: {options.silent} connections that say nothing, {options.slow} that send an octet"
        " a second.\nMedians of rounds (lowest-highest); the ratio is taken round by round."
    )


if __name__ == "__main__":
    main()
