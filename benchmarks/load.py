"""The load generator: clients at one server without a pause, in a process of its own.

It shares the machine with what it measures, so it must cost little: one thread, one epoll, blocking
sockets that are read only when there is something to read, into buffers that nothing is copied out
of, and no work on an answer but to compare it. Every octet of what is listed and retrieved is
compared; the first one that is wrong ends all.

Run as ``python -m benchmarks.load``; writes one line of JSON, the fields of `Load`.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import select
import socket
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import attrs

from benchmarks.mail import PASSWORD, login, mailbox, on_the_wire

__all__ = ["PATIENCE", "SCRIPTS", "Load", "WrongAnswer", "generate"]

PATIENCE = 20.0
"""Seconds that one answer, and what is under way at the end of a round, may take."""

_HOST = "127.0.0.1"
_LONGEST_LINE = 512
_RETRIEVALS = 50


class WrongAnswer(Exception):
    """The server said, or failed to say, something that makes any figure worthless."""


@attrs.frozen
class Load:
    """What one run did.

    ``in_time`` sessions ended within ``seconds``, and ``octets_in_time`` came. ``sessions`` and
    ``octets`` count those, too, of the sessions that were then under way and were let end, after
    ``elapsed`` seconds in all; ``cpu`` are the seconds of CPU that the generator took for them.
    """

    seconds: float
    in_time: int
    octets_in_time: int
    elapsed: float
    sessions: int
    octets: int
    cpu: float


class _Step(NamedTuple):
    """What is said, and the answer: a line that begins with ``status``, then exactly ``rest``."""

    command: bytes
    status: bytes = b"+OK"
    rest: bytes = b""


@attrs.frozen
class _Session:
    """What one user does, from the greeting, which has no command, to QUIT.

    A command is sent once the answer to the one before has come.
    """

    user: str
    steps: tuple[_Step, ...]
    room: int


def _session(user: str, *steps: _Step) -> _Session:
    steps = (
        _Step(b""),
        _Step(b"USER %s\r\n" % user.encode()),
        _Step(b"PASS %s\r\n" % PASSWORD.encode()),
        *steps,
        _Step(b"QUIT\r\n"),
    )
    # For one octet too many, too.
    room = max(len(step.rest) for step in steps) + 2 * _LONGEST_LINE
    return _Session(user, steps, room)


def _poll(site: str, number: int) -> _Session:
    """LIST, and RETR of all messages."""
    messages = mailbox(site, number)
    listing = [b"%d %d\r\n" % (index, len(text)) for index, text in enumerate(messages, 1)]
    return _session(
        login(site, number),
        _Step(b"LIST\r\n", rest=b"".join(listing) + b".\r\n"),
        *_retrievals(messages),
    )


def _visit(site: str, number: int) -> _Session:
    """STAT and nothing more. Its sizes are those on the wire, as RFC 1939 has them."""
    sizes = [len(on_the_wire(text)) for text in mailbox(site, number)]
    return _session(
        login(site, number), _Step(b"STAT\r\n", b"+OK %d %d\r\n" % (len(sizes), sum(sizes)))
    )


def _transfer(site: str, number: int) -> _Session:
    """RETR of all messages in turn, again and again."""
    retrievals = _retrievals(mailbox(site, number))
    return _session(
        login(site, number),
        *(retrievals[turn % len(retrievals)] for turn in range(_RETRIEVALS)),
    )


def _retrievals(messages: Sequence[bytes]) -> list[_Step]:
    return [
        _Step(b"RETR %d\r\n" % index, rest=on_the_wire(text) + b".\r\n")
        for index, text in enumerate(messages, 1)
    ]


SCRIPTS = {"poll": _poll, "visit": _visit, "transfer": _transfer}
"""What the clients may do, by name."""


class _Client:
    """One connection, from the greeting to the server's closing it."""

    __slots__ = ("_buffer", "_filled", "_step", "_view", "connection", "session")

    def __init__(self, port: int, session: _Session) -> None:
        self.session = session
        self._step = 0
        self._buffer = bytearray(session.room)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self.connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.connection.connect((_HOST, port))

    def read(self) -> int:
        """Take what has come and say what comes next; how many octets, 0 at the session's end."""
        count = self.connection.recv_into(self._view[self._filled :])
        steps = self.session.steps
        if self._step == len(steps):
            if count:
                raise self._wrong("went on after QUIT")
            self.connection.close()
            return 0
        if not count:
            raise self._wrong("closed the connection")
        self._filled += count
        _, status, rest = steps[self._step]
        line_end = self._buffer.find(b"\r\n", 0, self._filled) + 2
        if line_end < 2:
            if self._filled > _LONGEST_LINE:
                raise self._wrong("sent a line without an end")
            return count
        if line_end < len(status) or not self._buffer.startswith(status):
            raise self._wrong("refused, or said something else")
        missing = line_end + len(rest) - self._filled
        if missing > 0:
            if self._buffer.endswith(b"\r\n.\r\n", line_end, self._filled):
                raise self._wrong(f"sent {missing} octets too few")
            return count
        if missing < 0:
            raise self._wrong(f"sent {-missing} octets too many")
        if not self._buffer.startswith(rest, line_end):
            raise self._wrong("sent something else")
        self._filled = 0
        self._step += 1
        if self._step < len(steps):
            self.connection.send(steps[self._step].command)
        return count

    def _wrong(self, what: str) -> WrongAnswer:
        steps = self.session.steps
        asked = steps[min(self._step, len(steps) - 1)].command or b"(greeting)"
        data = bytes(self._view[: self._filled])
        shown = data if len(data) < 200 else data[:100] + b"..." + data[-40:]
        return WrongAnswer(f"{self.session.user}, {asked!r}: the server {what}: {shown!r}")


def generate(
    site: str,
    port: int,
    *,
    script: str,
    users: int,
    clients: int,
    seconds: float,
    seed: int = 0,
) -> Load:
    """Run sessions of ``script`` for ``seconds`` with that many clients at a time.

    Users are picked at random among those who have no session just then; the same ``seed`` gives
    the same sequence. Raises `WrongAnswer`, and OSError when there is no connection.
    """
    choose = random.Random(seed).randrange
    idle = [SCRIPTS[script](site, number) for number in range(users)]
    working: dict[int, _Client] = {}
    with select.epoll() as epoll:

        def connect() -> None:
            chosen = choose(len(idle))
            idle[chosen], idle[-1] = idle[-1], idle[chosen]
            client = _Client(port, idle.pop())
            number = client.connection.fileno()
            working[number] = client
            epoll.register(number, select.EPOLLIN)

        sessions = in_time = octets = octets_in_time = 0
        cpu, start = _cpu(), time.perf_counter()
        now, deadline = start, start + seconds
        for _ in range(clients):
            connect()
        while working:
            events = epoll.poll(PATIENCE)
            if not events or now > deadline + PATIENCE:
                users_left = ", ".join(client.session.user for client in working.values())
                raise WrongAnswer(f"no answer for {PATIENCE:g} seconds to {users_left}")
            now = time.perf_counter()
            for number, _ in events:
                count = working[number].read()
                octets += count
                if now < deadline:
                    octets_in_time += count
                if not count:
                    idle.append(working.pop(number).session)
                    sessions += 1
                    if now < deadline:
                        in_time += 1
                        connect()
        elapsed = time.perf_counter() - start
        return Load(seconds, in_time, octets_in_time, elapsed, sessions, octets, _cpu() - cpu)


def _cpu() -> float:
    """Seconds of CPU that this process has taken."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    """The command line, which only the measurement itself uses; gives the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.load", description=__doc__)
    parser.add_argument("site")
    parser.add_argument("port", type=int)
    parser.add_argument("--script", choices=SCRIPTS, required=True)
    for option in ("users", "clients", "seed"):
        parser.add_argument(f"--{option}", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    try:
        load = generate(**vars(parser.parse_args()))
    except (WrongAnswer, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(attrs.asdict(load)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
