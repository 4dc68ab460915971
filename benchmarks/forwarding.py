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
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import attrs
from twisted.internet.interfaces import IReactorTime

from benchmarks.cpu import Usage, machine, usage
from benchmarks.harness import (
    add_round_options,
    at_least_one,
    in_turn,
    load,
    make_root,
    measure,
    ratios,
    report,
    spread,
    start_all,
    start_directory,
)
from benchmarks.load import Load
from benchmarks.mail import TRANSFERS
from benchmarks.peers import DovecotMember, DovecotProxy, HAProxy, ScriptedMember
from benchmarks.servers import DirectoryServer, OurServer, Server, user_entry
from tests.integration.ports import HOST

__all__ = ["main"]

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
    script: str
    unit: str
    counted: Callable[[Load], tuple[float, float]]


_WORKLOADS = {
    "visits": _Workload(
        "connect, USER, PASS, STAT, QUIT",
        "visits",
        "visit",
        "visit",
        lambda load: (load.sessions, load.in_time),
    ),
    "transfers": _Workload(
        "RETR of messages of 1 MB, one after the other",
        TRANSFERS,
        "transfer",
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
class _Round:
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
    # One more than are at work: the next is picked among those who are not.
    options.users = {"visits": options.users, "transfers": options.transfers + 1}
    options.clients = {"visits": options.visitors, "transfers": options.transfers}
    return options


async def _measure(reactor: IReactorTime, options: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        root = make_root(stack, "forwarding")
        directory = DirectoryServer(root / "slapd")
        members = await _start(stack, root, directory, options)
        _introduce(options)
        for workload in options.workload or _WORKLOADS:
            for name, member in members.items():
                report(f"{workload} at the member {name}")
                rounds: dict[str, list[_Round]] = {front: [] for front in member.fronts}
                for number in range(options.rounds):
                    for front in in_turn([*member.fronts], number):
                        measured = await _round(
                            reactor, workload, member, front, directory, options, number
                        )
                        rounds[front].append(measured)
                _conclude(_WORKLOADS[workload].unit, rounds)
        for member in members.values():
            for server in {*member.fronts.values(), member.server}:
                await server.stop()
                server.check_log()
        report("Medians of the rounds (lowest-highest); ratios are those of the rates, round by")
        report("round. ms are CPU time, user and system, of all processes; busy is how many")
        report(
            "processors were, of others the most: if much, repeat it on a quiet machine. Compare"
        )
        report("figures of this one run only: on another day or machine they mean nothing.")


async def _start(
    stack: AsyncExitStack, root: Path, directory: DirectoryServer, options: argparse.Namespace
) -> dict[str, _Member]:
    """Start everything: the directory with all users, the members with their mail, the fronts."""
    users = {_WORKLOADS[name].site: count for name, count in options.users.items()}
    for site, count in users.items():
        for number in range(count):
            home = {"homeDirectory": f"/nonexistent/{site}/{number}", "mailHost": _MAIL_HOST}
            directory.add(user_entry(site, number, home))
    await start_directory(stack, directory)
    members = {}
    for name in options.member or _MEMBERS:
        place = root / name
        server: Server
        if name == "scripted":
            server = ScriptedMember("member-scripted", place / "member")
        else:
            server = DovecotMember("member-dovecot", place / "member", users)
        fronts: dict[str, Server] = {
            "qmailldap": OurServer(
                f"qmailldap-{name}",
                place / "qmailldap",
                directory.address,
                options=("--user=nobody",),
                control={
                    "me": "front.example.org",
                    "ldapcluster": "1",
                    "pop3routes": f"{_MAIL_HOST}:{HOST}:{server.port}",
                },
            ),
            "dovecot": DovecotProxy(
                f"dovecot-{name}", place / "dovecot", directory.address, server.port
            ),
            "haproxy": HAProxy(f"haproxy-{name}", place / "haproxy", server.port),
            _NONE: server,
        }
        wanted = {front: fronts[front] for front in options.only or _FRONTS}
        await start_all(stack, {server: None, **dict.fromkeys(wanted.values())})
        members[name] = _Member(server, wanted)
    return members


async def _round(
    reactor: IReactorTime,
    name: str,
    member: _Member,
    front: str,
    directory: DirectoryServer,
    options: argparse.Namespace,
    number: int,
) -> _Round:
    workload = _WORKLOADS[name]
    server = member.fronts[front]

    async def run(seconds: float, seed: int) -> Load:
        return await load(
            reactor,
            server,
            workload.site,
            script=workload.script,
            users=options.users[name],
            clients=options.clients[name],
            seconds=seconds,
            seed=seed,
        )

    def used() -> list[Usage]:
        # Without a front its CPU time is none, not the member's a second time.
        own = Usage(0, 0.0) if server is member.server else usage(server.pid)
        return [own, usage(member.server.pid), usage(directory.pid)]

    await run(options.warmup, -1 - number)
    before, begun = used(), machine()
    done = await run(options.seconds, number)
    ended, after = machine(), used()
    units, in_time = workload.counted(done)
    cpu = [now.cpu - then.cpu for now, then in zip(after, before, strict=True)]
    measured = _Round(
        rate=in_time / done.seconds,
        front=1000 * cpu[0] / units,
        member=1000 * cpu[1] / units,
        directory=1000 * cpu[2] / units,
        generator=1000 * done.cpu / units,
        busy=cpu[0] / done.elapsed,
        generator_busy=done.cpu / done.elapsed,
        others=max(0.0, ended - begun - sum(cpu) - done.cpu) / done.elapsed,
        processes=after[0].processes,
    )
    report(f"round {number + 1}, {front}: {measured.rate:.0f} {workload.unit}/s")
    return measured


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


def _conclude(unit: str, rounds: Mapping[str, Sequence[_Round]]) -> None:
    compared = [name for name in _COMPARED if name in rounds]

    def median(measured: Sequence[_Round], of: Callable[[_Round], float], digits: int = 2) -> str:
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
