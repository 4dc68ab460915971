"""What scripted members do: the parts of a script, and that of the original programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from .mailboxes import stuffed
from .members import Caller, Script

__all__ = [
    "GREETING",
    "TRUSTING",
    "UNTIL_JOINED",
    "UNTIL_PASS",
    "UNTIL_USER",
    "Step",
    "endless",
    "original",
    "script",
    "slowly",
]

Step = Callable[[Caller], object] | bytes
"""Part of a script; octets are to be said."""

GREETING = b"+OK <1.2@mail>\r\n"
TRUSTING = b"+OK [XCLIENT] <1.2@mail>\r\n"


def script(*steps: Step) -> Script:
    """One step after the other, octets are said; then, until the front has enough of it."""

    def run(caller: Caller) -> None:
        for step in steps:
            if isinstance(step, bytes):
                caller.say(step)
            else:
                step(caller)
        caller.hear_all()

    return run


UNTIL_USER: tuple[Step, ...] = (GREETING, Caller.hear)
UNTIL_PASS = (*UNTIL_USER, b"+OK \r\n", Caller.hear)
UNTIL_JOINED = (*UNTIL_PASS, b"+OK \r\n")


def endless(octets: bytes) -> Step:
    return partial(Caller.say_without_end, octets=octets)


def slowly(octets: bytes) -> Step:
    return partial(Caller.say_slowly, octets=octets)


def original(user: str, password: str, messages: Sequence[bytes] = ()) -> Script:
    """A member that still runs qmail-popup, auth_pop and qmail-pop3d, as seen from outside.

    They write one line a packet. qmail-popup knows USER, PASS and QUIT; once it has a name and a
    password it is replaced by the next program, and what it had read beyond these is lost. After a
    failed login the connection is closed.
    """

    def script(caller: Caller) -> None:
        caller.say(b"+OK <4711.1700000000@mail.example.org>\r\n")
        name = b""
        while command := caller.hear():
            verb, _, argument = command.partition(b" ")
            if verb.upper() == b"USER":
                name = argument
                caller.say(b"+OK \r\n")
            elif verb.upper() == b"PASS" and name:
                caller.forget()
                if (name, argument) != (user.encode(), password.encode()):
                    caller.say(b"-ERR authorization failed\r\n")
                    return
                caller.say(b"+OK \r\n")
                _serve_maildrop(caller, messages)
                return
            elif verb.upper() == b"QUIT":
                caller.say(b"+OK \r\n")
                return
            else:
                caller.say(b"-ERR authorization first\r\n")

    return script


def _serve_maildrop(caller: Caller, messages: Sequence[bytes]) -> None:
    while command := caller.hear():
        verb, *arguments = command.upper().split()
        if verb == b"STAT":
            caller.say(b"+OK %d %d\r\n" % (len(messages), sum(map(len, messages))))
        elif verb in (b"LIST", b"UIDL"):
            caller.say(b"+OK \r\n")
            for number, message in enumerate(messages, 1):
                fact = b"%d" % len(message) if verb == b"LIST" else b"1700000000.%d.mx1" % number
                caller.say(b"%d %b\r\n" % (number, fact))
            caller.say(b".\r\n")
        elif verb == b"RETR":
            caller.say(b"+OK \r\n")
            for line in stuffed(messages[int(arguments[0]) - 1]):
                caller.say(line + b"\r\n")
            # The original adds an empty line to every message.
            caller.say(b"\r\n")
            caller.say(b".\r\n")
        elif verb in (b"DELE", b"RSET", b"NOOP"):
            caller.say(b"+OK \r\n")
        elif verb == b"QUIT":
            caller.say(b"+OK \r\n")
            return
        else:
            caller.say(b"-ERR unimplemented\r\n")
