"""Sessions per second and MB/s through a front, and the CPU that they cost, side by side.

The front is our server, Dovecot's proxy or HAProxy; behind all of them is the same member, and
beside them, as what none can surpass, the same clients at the member itself. A visit is: connect,
USER, PASS, STAT, QUIT. A transfer is: one login, then RETR of messages of 1 MB without a pause.
All servers run at once and are measured in turn, round by round, and what counts are the ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from benchmarks.dovecot import DovecotMember, DovecotProxy
from benchmarks.harness import (
    add_round_options,
    at_least_one,
    in_turn,
    make_root,
    measure,
    ratios,
    report,
    spread,
    start_all,
    start_directory,
    weigh,
)
from benchmarks.load import Generator, Load
from benchmarks.mail import TRANSFERS, login, mailbox, on_the_wire
from benchmarks.peers import HAProxy, ScriptedMember
from benchmarks.scripts import Session, transfer, visit
from benchmarks.servers import DirectoryServer, OurServer, Server, user_entry
from tests.integration.ports import HOST

__all__ = ["Fronts", "Round", "main"]

_NONE = "none"
_FRONTS = {
    "qmailldap": "this checkout, run as nobody",
    "dovecot": "Dovecot's proxy: passdb ldap, login processes kept",
    "haproxy": "HAProxy in TCP mode, one thread; it does no login",
    _NONE: "no front: the clients are at the member itself",
}
_MEMBERS = {
    "scripted": "answers from memory that cost next to nothing",
    "dovecot": "Dovecot with Maildirs, login and mail processes kept",
}
_COMPARED = ("dovecot", "haproxy")
_MAIL_HOST = "member.example.org"


@attrs.frozen
class _Workload:
    """What is done by whom, and what is counted; ``counted`` gives all, and what was in time."""

    what: str
    site: str
    session: Callable[[str, Sequence[bytes]], Session]
    unit: str
    counted: Callable[[Load], tuple[float, float]]


def _visit(user: str, messages: Sequence[bytes]) -> Session:
    return visit(user, [len(on_the_wire(text)) for text in messages])


_WORKLOADS = {
    "visits": _Workload(
        "connect, USER, PASS, STAT, QUIT",
        "visits",
        _visit,
        "visit",
        lambda load: (load.sessions, load.in_time),
    ),
    "transfers": _Workload(
        "RETR of messages of 1 MB, one after the other",
        TRANSFERS,
        transfer,
        "MB",
        lambda load: (load.octets / 1e6, load.octets_in_time / 1e6),
    ),
}


@attrs.frozen
class _Member:
    """A member, and what leads to it, by name; without a front that is the member itself."""

    server: Server
    fronts: Mapping[str, Server]


@attrs.frozen
class Round:
    """One round of one front: units per second, and milliseconds of CPU for each unit.

    ``busy`` is how many processors the front has kept busy, ``generator_busy`` the load generator,
    ``others`` whatever has nothing to do with the measurement.
    """

    rate: float
    front: float
    member: float
    directory: float
    generator: float
    busy: float
    generator_busy: float
    others: float
    processes: int


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. Ends the process: 0 if every answer was right."""
    measure("forwarding", _measure, _options(arguments))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forwarding", description=__doc__)

    def choose(option: str, choices: Mapping[str, object], what: str) -> None:
        parser.add_argument(
            option,
            action="append",
            choices=[*choices],
            help=f"measure only this {what}; may be repeated",
        )

    choose("--only", _FRONTS, "front")
    choose("--member", _MEMBERS, "member")
    choose("--workload", _WORKLOADS, "workload")
    add_round_options(parser, seconds=5.0, warmup=1.0)
    add = parser.add_argument
    add("--visitors", type=at_least_one, default=20, help="at a time [%(default)s]")
    add("--transfers", type=at_least_one, default=4, help="at a time [%(default)s]")
    add("--users", type=at_least_one, default=300, help="who visit [%(default)s]")
    options = parser.parse_args(arguments)
    if options.visitors >= options.users:
        parser.error("--visitors must be fewer than --users: nobody has two sessions at a time")
    options.users = {"visits": options.users, "transfers": _at_work(options.transfers)}
    options.clients = {"visits": options.visitors, "transfers": options.transfers}
    return options


def _at_work(clients: int) -> int:
    """Users for so many clients: the next is picked among those who have no session."""
    return clients + 1


async def _measure(reactor: IReactorTime, options: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        root = make_root(stack, "forwarding")
        generator = Generator(reactor, root / "generator")
        fronts = Fronts(root, generator, options.users)
        wanted = options.only or _FRONTS
        await fronts.start(stack, options.member or _MEMBERS, wanted)
        _introduce(options)
        for workload in options.workload or _WORKLOADS:
            for member in options.member or _MEMBERS:
                report(f"{workload} at the member {member}")
                rounds: dict[str, list[Round]] = {front: [] for front in wanted}
                for number in range(options.rounds):
                    for front in in_turn([*wanted], number):
                        measured = await fronts.round(
                            workload,
                            member,
                            front,
                            number,
                            clients=options.clients[workload],
                            seconds=options.seconds,
                            warmup=options.warmup,
                        )
                        rounds[front].append(measured)
                        report(
                            f"round {number + 1}, {front}:"
                            f" {measured.rate:.0f} {_WORKLOADS[workload].unit}/s"
                        )
                _conclude(_WORKLOADS[workload].unit, rounds)
        await fronts.check()
        report("Medians of the rounds (lowest-highest); ratios are those of the rates, round by")
        report("round. ms are CPU time, user and system, of all processes; busy is how many")
        report(
            "processors were, of others the most: if much, repeat it on a quiet machine. Compare"
        )
        report("figures of this one run only: on another day or machine they mean nothing.")


class Fronts:
    """The members, what leads to them, and their directory, all below ``root``.

    ``users`` is how many there are for each workload; ``options`` are further ones of our server.
    """

    def __init__(
        self,
        root: Path,
        generator: Generator,
        users: Mapping[str, int],
        options: Sequence[str] = (),
    ) -> None:
        self._root = root
        self._generator = generator
        self._users = {_WORKLOADS[name].site: count for name, count in users.items()}
        self._options = options
        self._directory = DirectoryServer(root / "slapd")
        self._members: dict[str, _Member] = {}
        self._scripts = {
            name: self._script(_WORKLOADS[name].site, _WORKLOADS[name].session) for name in users
        }

    async def start(
        self, stack: AsyncExitStack, members: Iterable[str], fronts: Iterable[str]
    ) -> None:
        """Start all of it; it runs as long as the stack is not closed."""
        for site, count in self._users.items():
            for number in range(count):
                home = {"homeDirectory": f"/nonexistent/{site}/{number}", "mailHost": _MAIL_HOST}
                self._directory.add(user_entry(login(site, number), home))
        await start_directory(stack, self._directory)
        for name in members:
            place = self._root / name
            server: Server
            if name == "scripted":
                server = ScriptedMember("member-scripted", place / "member")
            else:
                server = DovecotMember("member-dovecot", place / "member", self._users)
            all_fronts = self._leading_to(server, name, place)
            wanted = {front: all_fronts[front] for front in fronts}
            await start_all(stack, {server: None, **dict.fromkeys(wanted.values())})
            self._members[name] = _Member(server, wanted)

    async def round(
        self,
        workload: str,
        member: str,
        front: str,
        number: int,
        *,
        clients: int,
        seconds: float,
        warmup: float,
    ) -> Round:
        """Measure one front of a member, having warmed it up."""
        behind = self._members[member].server
        server = self._members[member].fronts[front]
        script = self._scripts[workload]

        def run(seconds: float, seed: int) -> Coroutine[Deferred[Any], Any, Load]:
            return self._generator.run(server, script, clients=clients, seconds=seconds, seed=seed)

        await run(warmup, -1 - number)
        leaders = dict.fromkeys((server.pid, behind.pid, self._directory.pid))
        done, cost = await weigh(run(seconds, number), *leaders)
        units, in_time = _WORKLOADS[workload].counted(done)
        *of_front, of_member, of_directory = cost.cpu
        # Without a front its CPU time is none, not the member's a second time.
        own = sum(of_front)
        return Round(
            rate=in_time / done.seconds,
            front=1000 * own / units,
            member=1000 * of_member / units,
            directory=1000 * of_directory / units,
            generator=1000 * done.cpu / units,
            busy=own / done.elapsed,
            generator_busy=done.cpu / done.elapsed,
            others=cost.others,
            processes=cost.processes[0] if of_front else 0,
        )

    async def check(self) -> None:
        """End all servers. Raises `Failure` if one has met what it did not expect."""
        for member in self._members.values():
            for server in {*member.fronts.values(), member.server}:
                await server.stop()
                server.check_log()

    def _script(self, site: str, session: Callable[[str, Sequence[bytes]], Session]) -> Path:
        logins = [(login(site, each), mailbox(site, each)) for each in range(self._users[site])]
        sessions = (session(user, messages) for user, messages in logins)
        return self._generator.script(f"forwarding-{site}", sessions)

    def _leading_to(self, member: Server, name: str, place: Path) -> dict[str, Server]:
        return {
            "qmailldap": OurServer(
                f"qmailldap-{name}",
                place / "qmailldap",
                self._directory.address,
                options=("--user=nobody", *self._options),
                control={
                    "me": "front.example.org",
                    "ldapcluster": "1",
                    "pop3routes": f"{_MAIL_HOST}:{HOST}:{member.port}",
                },
            ),
            "dovecot": DovecotProxy(
                f"dovecot-{name}", place / "dovecot", self._directory.address, member.port
            ),
            "haproxy": HAProxy(f"haproxy-{name}", place / "haproxy", member.port),
            _NONE: member,
        }


def _introduce(options: argparse.Namespace) -> None:
    report(f"{options.rounds} rounds of {options.seconds:g} s; {os.cpu_count()} CPUs")
    for name in options.workload or _WORKLOADS:
        clients, users = options.clients[name], options.users[name]
        report(f"  {name}: {_WORKLOADS[name].what}; {clients} clients, {users} users")
    for name in options.member or _MEMBERS:
        report(f"  member {name}: {_MEMBERS[name]}")
    for name in options.only or _FRONTS:
        report(f"  front {name}: {_FRONTS[name]}")
    report()


def _conclude(unit: str, rounds: Mapping[str, Sequence[Round]]) -> None:
    compared = [name for name in _COMPARED if name in rounds]

    def median(measured: Sequence[Round], of: Callable[[Round], float], digits: int = 2) -> str:
        return f"{statistics.median(of(each) for each in measured):.{digits}f}"

    def rates(name: str) -> list[float]:
        return [each.rate for each in rounds[name]]

    layout = "{:<10} {:>18}" + " {:>18}" * len(compared) + " {:>8}" * 7 + " {:>9}"
    ratio_heads = [f"to {name}" for name in compared]
    heads = ("front", "member", "slapd", "load", "front", "load", "others")
    units = (*[f"ms/{unit}"] * 4, *["busy"] * 3)
    report()
    report(layout.format("", f"{unit}/s", *ratio_heads, *heads, "front"))
    report(layout.format("", "", *[""] * len(compared), *units, "processes"))
    for name, measured in rounds.items():
        report(
            layout.format(
                name,
                spread(rates(name)),
                *(ratios(rates(name), rates(other)) for other in compared),
                median(measured, lambda each: each.front),
                median(measured, lambda each: each.member),
                median(measured, lambda each: each.directory),
                median(measured, lambda each: each.generator),
                median(measured, lambda each: each.busy),
                median(measured, lambda each: each.generator_busy),
                f"{max(each.others for each in measured):.2f}",
                max(each.processes for each in measured),
            )
        )
    report()


if __name__ == "__main__":
    main()
