"""Asking a person, or a script, for a password: one way for all commands.

A password comes from here and not from an argument, which every user of the host can read.
"""

from __future__ import annotations

import os
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ask_password"]

_MOST = 64 * 1024
"""Octets of a line that is a password."""

_INTERRUPTED = 130
"""What a shell makes of SIGINT."""


def ask_password(prompt: str, *, confirm: bool = False) -> bytes:
    """The octets of a password as typed, without the newline.

    Where standard input is a terminal: asked for there with ``prompt``, and with ``confirm`` twice.
    Else: the first line of standard input, and no prompt. Raises `SystemExit` with a text where
    there is none, where it is too long, and where two differ.
    """
    if sys.stdin is None:
        raise SystemExit("qmailldap: standard input is closed: no password can be read")
    if not sys.stdin.isatty():
        return _password(sys.stdin.buffer.readline(_MOST + 1))
    # getpass is not used: it fails on octets that are none of the locale's encoding.
    try:
        with _silent_terminal() as terminal:
            password = _answer(terminal, prompt)
            if confirm and _answer(terminal, f"{prompt} (again)") != password:
                raise SystemExit("qmailldap: the two passwords are not the same")
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None
    return password


@contextmanager
def _silent_terminal() -> Iterator[int]:
    """A descriptor of the terminal, which shows nothing of what is typed."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        # A terminal, but not one that controls this process.
        terminal = os.dup(sys.stdin.fileno())
    try:
        before = termios.tcgetattr(terminal)
        silent = [*before]
        silent[3] &= ~termios.ECHO
        # Both times what was typed too early is thrown away: a shell might run the rest of it.
        termios.tcsetattr(terminal, termios.TCSAFLUSH, silent)
        try:
            yield terminal
        finally:
            termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
    finally:
        os.close(terminal)


def _answer(terminal: int, prompt: str) -> bytes:
    os.write(terminal, os.fsencode(f"{prompt}: "))
    line = b""
    try:
        while not line.endswith(b"\n") and len(line) <= _MOST:
            octets = os.read(terminal, 4096)
            if not octets:
                break
            line += octets
    finally:
        os.write(terminal, b"\n")
    return _password(line)


def _password(line: bytes) -> bytes:
    if not line:
        raise SystemExit("qmailldap: no password was given")
    password = line.removesuffix(b"\n")
    if len(password) > _MOST:
        raise SystemExit(f"qmailldap: the password is longer than {_MOST} octets")
    return password
