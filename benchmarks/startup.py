"""How long auth_pop takes from its start to the first instruction of the subprogram.

One auth_pop is started for each login, and the user waits for it. A good part of the time is
Python's, and that of importing Twisted and ldaptor, so these are measured alongside, in turn.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import attrs
from twisted.internet.interfaces import IReactorTime

from benchmarks.harness import (
    at_least_one,
    in_turn,
    make_root,
    measure,
    ratios,
    report,
    spread,
    start_directory,
)
from benchmarks.servers import DirectoryServer, Failure
from benchmarks.sites import make_home
from tests.integration.members import ScriptedMember
from tests.integration.popup import AUTH_POP, Login, handed_over
from tests.integration.scripts import UNTIL_JOINED, script
from tests.integration.server import environment, write_control
from tests.integration.site import PASSWORD
from tests.integration.slapd import SERVICE_DN, SERVICE_PASSWORD
from tests.integration.users import OWNER, SUFFIX, qmail_user, ssha_value

__all__ = ["main"]

_BASE = "imports"
_LIMIT = 30.0
_TELL = "import os; os.write(1, b'+')"
_LIBRARIES = "import twisted.internet.reactor, ldaptor.protocols.ldap.ldapclient"


@attrs.frozen
class _Way:
    """A program to be started; ``handed`` is for its descriptor 3. It is there when it says +."""

    name: str
    what: str
    arguments: Sequence[str]
    handed: bytes | None = None


@attrs.frozen
class _Start:
    """Milliseconds until it was there, and of CPU until it had ended, with all that it has run."""

    taken: float
    cpu: float


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. Ends the process: 0 if every login went as it should."""
    measure("startup", _measure, _options(arguments))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument(
        "--rounds", type=at_least_one, default=30, help="starts of each [%(default)s]"
    )
    return parser.parse_args(arguments)


async def _measure(reactor: IReactorTime, options: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        root = make_root(stack, "startup")
        # The member waits for the client to leave; it is killed instead.
        member = ScriptedMember(script(*UNTIL_JOINED))
        stack.callback(member.close)
        directory = DirectoryServer(root / "slapd")
        directory.add(_users(root))
        await start_directory(stack, directory)
        ways = _ways(root, directory.address, member.address)
        report(f"{options.rounds} starts of each; {os.cpu_count()} CPUs")
        for way in ways:
            report(f"  {way.name}: {way.what}")
            _start(way, root)  # what is read from the disk once, and compiled
        starts: dict[str, list[_Start]] = {way.name: [] for way in ways}
        for number in range(options.rounds):
            for way in in_turn(ways, number):
                starts[way.name].append(_start(way, root))
        _conclude(starts)


def _users(root: Path) -> str:
    home = root / "homes" / "joe"
    make_home(home, (), *OWNER)
    entries = {"joe": {}, "ann": {"mailHost": "mail2.example.org"}}
    return "".join(
        qmail_user(user, ssha_value(PASSWORD), {"homeDirectory": str(home), **attributes})
        for user, attributes in entries.items()
    )


def _ways(root: Path, ldapserver: str, member: str) -> list[_Way]:
    def auth_pop(name: str, what: str, user: str, control: Mapping[str, str]) -> _Way:
        place = root / name
        write_control(
            place,
            {
                "ldapserver": ldapserver,
                "ldapbasedn": SUFFIX,
                "ldaplogin": SERVICE_DN,
                "ldappassword": SERVICE_PASSWORD,
                "ldaplocaldelivery": "0",
                **control,
            },
        )
        command = [*AUTH_POP, "--control", str(place), "echo", "+"]
        return _Way(name, what, command, handed_over(user, PASSWORD))

    cluster = {
        "me": "mail1.example.org",
        "ldapcluster": "1",
        "pop3routes": f"mail2.example.org:{member}",
    }
    return [
        _Way("python", "the interpreter alone", [sys.executable, "-c", _TELL]),
        _Way(_BASE, _LIBRARIES, [sys.executable, "-c", f"{_LIBRARIES}; {_TELL}"]),
        auth_pop("hash", "auth_pop, {SSHA}, until the subprogram runs", "joe", {}),
        auth_pop("rebind", "auth_pop with ldaprebind, likewise", "joe", {"ldaprebind": "1"}),
        auth_pop("forward", "auth_pop, until a member's answer is the client's", "ann", cluster),
    ]


def _start(way: _Way, root: Path) -> _Start:
    reader, writer = os.pipe()
    errors = root / "errors"
    errors.unlink(missing_ok=True)
    before = _cpu_of_children()
    with open(os.devnull) as nothing, open(reader, "rb", buffering=0) as output:
        begun = time.perf_counter()
        descriptors = {0: nothing.fileno(), 1: writer}
        login = Login(way.arguments, way.handed, descriptors, errors, environment())
        os.close(writer)
        first = output.read(1)
        taken = time.perf_counter() - begun
        code = login.wait(_LIMIT)
    if first != b"+" or code:
        raise Failure(f"{way.name}: ended with {code}\n{login.errors}")
    return _Start(1000 * taken, 1000 * (_cpu_of_children() - before))


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _conclude(starts: Mapping[str, Sequence[_Start]]) -> None:
    base = [start.taken for start in starts[_BASE]]
    layout = "{:<10} {:>18} {:>20} {:>12}"
    report()
    report(layout.format("", "ms", f"ratio to {_BASE}", "ms of CPU"))
    for name, each in starts.items():
        taken = [start.taken for start in each]
        cpu = statistics.median(start.cpu for start in each)
        report(layout.format(name, spread(taken), ratios(taken, base), f"{cpu:.0f}"))
    report()
    report("Medians (lowest-highest); the ratio is taken round by round.")


if __name__ == "__main__":
    main()
