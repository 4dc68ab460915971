"""The load generator: clients that poll one server without a pause, in a process of its own.

It shares the machine with what it measures, so it must cost little: one thread, one epoll, blocking
sockets that are read only when there is something to read, and no work on an answer but to compare
it. Every octet of LIST and of the messages is compared; the first one that is wrong ends all.

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

import attrs

from benchmarks.mail import MESSAGES, PASSWORD, login, message

__all__ = ["PATIENCE", "Load", "WrongAnswer", "generate"]

PATIENCE = 20.0
"""Seconds that one answer, and what is under way at the end of a round, may take."""

_HOST = "127.0.0.1"
_LARGEST_READ = 64 * 1024


class WrongAnswer(Exception):
    """The server said, or failed to say, something that makes any figure worthless."""


@attrs.frozen
class Load:
    """What one run did.

    ``in_time`` polls ended within ``seconds``. ``polls`` counts those, too, that were then under
    way and were let end; ``cpu`` are the seconds of CPU that the generator took for all of them.
    """

    in_time: int
    seconds: float
    polls: int
    cpu: float


@attrs.frozen
class _Poll:
    """One user's session: ``commands[i]`` is sent once ``answers[i]`` has come.

    An answer is all that follows its status line. The last one has no command: the server closes.
    """

    user: str
    answers: tuple[bytes, ...]
    commands: tuple[bytes, ...]


def _poll(site: str, number: int) -> _Poll:
    user = login(site, number)
    messages = [message(site, number, index) for index in range(MESSAGES)]
    listing = [b"%d %d\r\n" % (index, len(text)) for index, text in enumerate(messages, 1)]
    retrieved = [text.replace(b"\n", b"\r\n") + b".\r\n" for text in messages]
    return _Poll(
        user,
        answers=(b"", b"", b"", b"".join(listing) + b".\r\n", *retrieved, b""),
        commands=(
            b"USER %s\r\n" % user.encode(),
            b"PASS %s\r\n" % PASSWORD.encode(),
            b"LIST\r\n",
            *(b"RETR %d\r\n" % index for index in range(1, MESSAGES + 1)),
            b"QUIT\r\n",
            b"",
        ),
    )


class _Client:
    """One connection, from the greeting to the server's closing it."""

    __slots__ = ("_got", "_step", "connection", "poll")

    def __init__(self, port: int, poll: _Poll) -> None:
        self.poll = poll
        self._step = 0
        self._got = b""
        self.connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.connection.connect((_HOST, port))

    def read(self) -> bool:
        """Take what has come and say what comes next; whether this was the end of the session."""
        data = self.connection.recv(_LARGEST_READ)
        if self._step == len(self.poll.answers):
            if data:
                raise self._wrong("went on after QUIT", data)
            self.connection.close()
            return True
        if not data:
            raise self._wrong("closed the connection", self._got)
        if self._got:
            data = self._got + data
        if not data.startswith(b"+OK") and len(data) >= 3:
            raise self._wrong("refused", data)
        answer = self.poll.answers[self._step]
        line_end = data.find(b"\r\n") + 2
        missing = line_end + len(answer) - len(data)
        if line_end < 2 or missing > 0:
            if answer and data.endswith(b"\r\n.\r\n"):
                raise self._wrong(f"sent {missing} octets too few", data)
            self._got = data
            return False
        if missing < 0:
            raise self._wrong(f"sent {-missing} octets too many", data)
        if not data.endswith(answer):
            raise self._wrong("sent something else", data)
        self._got = b""
        command = self.poll.commands[self._step]
        self._step += 1
        if command:
            self.connection.send(command)
        return False

    def _wrong(self, what: str, data: bytes) -> WrongAnswer:
        asked = self.poll.commands[self._step - 1] if self._step else b"(greeting)"
        shown = data if len(data) < 200 else data[:100] + b"..." + data[-40:]
        return WrongAnswer(f"{self.poll.user}, {asked!r}: the server {what}: {shown!r}")


def generate(
    site: str, port: int, *, users: int, clients: int, seconds: float, seed: int = 0
) -> Load:
    """Poll for ``seconds`` with that many clients at a time.

    Users are picked at random among those whom nobody is polling just then; the same ``seed``
    gives the same sequence. Raises `WrongAnswer`, and OSError when there is no connection.
    """
    choose = random.Random(seed).randrange
    idle = [_poll(site, number) for number in range(users)]
    working: dict[int, _Client] = {}
    with select.epoll() as epoll:

        def connect() -> None:
            chosen = choose(len(idle))
            idle[chosen], idle[-1] = idle[-1], idle[chosen]
            client = _Client(port, idle.pop())
            number = client.connection.fileno()
            working[number] = client
            epoll.register(number, select.EPOLLIN)

        polls = in_time = 0
        cpu, start = _cpu(), time.perf_counter()
        now, deadline = start, start + seconds
        for _ in range(clients):
            connect()
        while working:
            events = epoll.poll(PATIENCE)
            if not events or now > deadline + PATIENCE:
                users_left = ", ".join(client.poll.user for client in working.values())
                raise WrongAnswer(f"no answer for {PATIENCE:g} seconds to {users_left}")
            now = time.perf_counter()
            for number, _ in events:
                if working[number].read():
                    idle.append(working.pop(number).poll)
                    polls += 1
                    if now < deadline:
                        in_time += 1
                        connect()
        return Load(in_time, seconds, polls, _cpu() - cpu)


def _cpu() -> float:
    """Seconds of CPU that this process has taken."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    """The command line, which only the measurement itself uses; gives the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.load", description=__doc__)
    parser.add_argument("site")
    parser.add_argument("port", type=int)
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
