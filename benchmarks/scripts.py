"""What the load generator is to say and to hear: sessions, written to a file that it reads.

The generator is a program in C, `benchmarks/generator/`: it shares the machine with what it
measures and must not be what limits. It knows no mail and no users. Here the sessions are made,
each with every octet that a right server answers (of UIDL, whose ids are the server's own: with the
number of lines), and one file may be played to any server. `build_generator` compiles it. It has
three commands; all sizes are octets, all connections go to 127.0.0.1 unless told otherwise.

``load run --script FILE --port P --clients N --seconds S [--warmup S] [--seed K]
[--tls full|resumed] [--pace SESSIONS_PER_SECOND] [--host ADDRESS] [--sources N]``

    N clients at a time, each with a session picked at random among those that none has just then;
    the same ``--seed`` gives the same numbers to pick by. The file must have at least N sessions.
    Each ended session is at once followed by another, or as ``--pace`` says: then a session is
    begun when it is due, later only if no client is free. ``--sources`` uses that many addresses,
    from 127.0.0.1 on; one is good for 28,000 connections. TLS is there from the first octet
    (pop3s): ``full`` makes a new TLS session for each connection, ``resumed`` has each client offer
    the last ticket that it was given. On standard output comes one line of JSON:

    ``seconds``         what was asked for, without the warm-up
    ``in_time``         sessions that ended within these seconds
    ``octets_in_time``  that came within these seconds, TLS taken off
    ``elapsed``         seconds until the last session ended: at the end of the measured time those
                        under way are let end, and no new ones are begun
    ``sessions``        that ended within ``elapsed``
    ``octets``          that came within ``elapsed``
    ``cpu``             seconds of CPU that the generator took within ``elapsed``
    ``handshakes``      of TLS, done within ``elapsed``; 0 without ``--tls``
    ``resumed``         how many of these did resume an earlier TLS session
    ``postponed``       sessions that ``--pace`` had due when no client was free: they began late,
                        or not at all
    ``pass_ms``         from the sending of PASS to its answer, of each PASS sent within ``seconds``
    ``login_ms``        from the connecting to the answer to PASS, of each connection begun within
                        ``seconds``

    The last two are objects of ``count``, ``p50``, ``p90``, ``p99`` and ``max``, in milliseconds.
    Warm-up counts nowhere; ``in_time`` has the sessions that were begun in it and ended later.

``load hold --script FILE --port P --clients N [--tls full|resumed] [--host] [--sources]``

    Logs N clients in, at most 200 at a time; the first takes the file's first session, and so on,
    round and round if there are fewer. Each says all of its session but QUIT. Then comes the line
    ``holding N``. At the end of standard input all say QUIT, and come to their end; then comes one
    line of JSON with ``elapsed`` (seconds until all held), ``sessions``, ``octets``, ``cpu``,
    ``handshakes``, ``resumed``, ``pass_ms`` and ``login_ms``, as above.

``load serve --script FILE --port P``

    The server that costs next to nothing, for what the generator itself can do. Knows a session
    by its login and gives each command the answer of the file. Says ``listening``, then
    serves until it is killed. No TLS.

The exit code is 0, and 1 with a line on standard error at the first wrong octet, at an answer that
took longer than 20 seconds, a connection that was refused or closed, or a file that makes no sense;
2 for a wrong command line. Nothing is said of passwords.
"""

from __future__ import annotations

import enum
import shutil
import struct
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

from benchmarks.mail import PASSWORD, on_the_wire
from benchmarks.servers import Failure

__all__ = [
    "RETRIEVALS",
    "Mode",
    "Session",
    "Step",
    "build_generator",
    "listing",
    "poll",
    "transfer",
    "visit",
    "write_script",
]

RETRIEVALS = 50
"""Messages that a `transfer` retrieves in one session."""

_SOURCES = Path(__file__).parent / "generator"
_COMPILING = ("-std=gnu11", "-O2", "-Wall", "-Wextra")
_LIBRARIES = ("-lssl", "-lcrypto")
_COMPILING_LIMIT = 120.0

_MAGIC = b"QLB1"


class Mode(enum.IntEnum):
    """How the octets after the first line of an answer are judged."""

    EXACT = 0
    """They are ``rest``."""

    LINES = 1
    """They are as many lines as the decimal number in ``rest`` says, then a line with a dot."""


@attrs.frozen
class Step:
    """What is said, and the answer: a line that begins with ``status``, then ``rest``.

    ``status`` may have the line's end, too: then the line is nothing else.
    """

    command: bytes
    status: bytes = b"+OK"
    rest: bytes = b""
    mode: Mode = Mode.EXACT


@attrs.frozen
class Session:
    """What one user does: the greeting, which has no command, USER, PASS, and so on to QUIT.

    A command is sent once the answer to the one before has come.
    """

    steps: tuple[Step, ...]


def visit(user: str, sizes: Sequence[int], *, password: str = PASSWORD) -> Session:
    """STAT. ``sizes`` are those of the messages on the wire, as RFC 1939, section 11, has them."""
    return _session(user, password, _stat(sizes))


def poll(user: str, messages: Sequence[bytes], *, password: str = PASSWORD) -> Session:
    """LIST, UIDL, and RETR of each message; they are given as stored, with LF line ends."""
    return _session(
        user,
        password,
        _list([len(on_the_wire(text)) for text in messages]),
        _uidl(len(messages)),
        *_retrievals(messages),
    )


def transfer(
    user: str,
    messages: Sequence[bytes],
    *,
    retrievals: int = RETRIEVALS,
    password: str = PASSWORD,
) -> Session:
    """RETR of the messages in turn, again and again."""
    steps = _retrievals(messages)
    return _session(user, password, *(steps[turn % len(steps)] for turn in range(retrievals)))


def listing(user: str, sizes: Sequence[int], *, password: str = PASSWORD) -> Session:
    """LIST and UIDL: what a client does that finds nothing new."""
    return _session(user, password, _list(sizes), _uidl(len(sizes)))


def write_script(path: Path, sessions: Iterable[Session]) -> None:
    """Write the file for the generator; what many steps have in common is in it but once.

    Little endian, all numbers of 32 bits: the magic octets; the number of blobs, each its length
    and its octets; the number of sessions, each its number of steps, each the numbers of the blobs
    of its command, status and rest, and the mode.
    """
    blobs: dict[bytes, int] = {}

    def number(blob: bytes) -> int:
        return blobs.setdefault(blob, len(blobs))

    told: list[bytes] = []
    for session in sessions:
        fields = [len(session.steps)]
        for step in session.steps:
            fields += (number(step.command), number(step.status), number(step.rest), step.mode)
        told.append(struct.pack(f"<{len(fields)}I", *fields))
    with path.open("wb") as file:
        file.write(_MAGIC + struct.pack("<I", len(blobs)))
        for blob in blobs:
            file.write(struct.pack("<I", len(blob)) + blob)
        file.write(struct.pack("<I", len(told)))
        file.writelines(told)


def build_generator(directory: Path) -> Path:
    """Compile the generator; gives the program, which is in ``directory``. Raises Failure."""
    packages = "apt-get install gcc libc6-dev libssl-dev"
    compiler = shutil.which("cc")
    if compiler is None:
        raise Failure(f"cc, which compiles the load generator, not found; install it: {packages}")
    program = directory / "load"
    sources = sorted(map(str, _SOURCES.glob("*.c")))
    try:
        subprocess.run(
            [compiler, *_COMPILING, "-o", str(program), *sources, *_LIBRARIES],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMPILING_LIMIT,
            check=True,
        )
    except subprocess.SubprocessError as error:
        said = getattr(error, "stderr", None) or error
        raise Failure(f"the load generator was not compiled; it needs {packages}\n{said}") from None
    return program


def _session(user: str, password: str, *steps: Step) -> Session:
    return Session(
        (
            Step(b""),
            Step(b"USER %b\r\n" % user.encode()),
            Step(b"PASS %b\r\n" % password.encode()),
            *steps,
            Step(b"QUIT\r\n"),
        )
    )


def _stat(sizes: Sequence[int]) -> Step:
    return Step(b"STAT\r\n", b"+OK %d %d\r\n" % (len(sizes), sum(sizes)))


def _list(sizes: Sequence[int]) -> Step:
    lines = [b"%d %d\r\n" % (number, size) for number, size in enumerate(sizes, 1)]
    return Step(b"LIST\r\n", rest=b"".join(lines) + b".\r\n")


def _uidl(messages: int) -> Step:
    return Step(b"UIDL\r\n", rest=b"%d" % messages, mode=Mode.LINES)


def _retrievals(messages: Sequence[bytes]) -> list[Step]:
    return [
        Step(b"RETR %d\r\n" % number, rest=_as_retrieved(text))
        for number, text in enumerate(messages, 1)
    ]


def _as_retrieved(text: bytes) -> bytes:
    """The lines of the answer to RETR, the one of a dot included (RFC 1939, section 3)."""
    if not text.endswith(b"\n"):
        raise ValueError("servers differ in what they make of a last line without an end")
    return (b"\r\n" + on_the_wire(text)).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"
