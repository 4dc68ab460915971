"""The command lines: thin, on the same objects that the server uses.

A command is loaded when it is called, and `auth_pop` is started for every login: so nothing is
imported here.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["COMMANDS", "add_control_option", "main", "make_parser"]

COMMANDS = ("demo", "digest", "kick", "lookup", "sessions", "showctl", "status")
"""The subcommands; each is the module of its name, with `add_to` for its part of the parser."""


def add_control_option(parser: argparse.ArgumentParser) -> None:
    """The option of all commands that read control files."""
    from qmailldap.control import default_control

    parser.add_argument(
        "--control",
        metavar="DIR",
        default=default_control(),
        help="the directory with the control files (default: %(default)s)",
    )


_CANNOT_WRITE = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def make_parser(named: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """The parser of ``qmailldap`` with these of its `COMMANDS`."""
    import argparse

    import qmailldap

    parser = argparse.ArgumentParser(
        prog="qmailldap", description="Tools for a POP3 server on a qmail-ldap directory."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {qmailldap.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in named:
        import_module(f"qmailldap.commands.{command}").add_to(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int | None:
    """The console script ``qmailldap``; returns its exit code, None for success."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # One that is named needs no other; all of them make the list of --help.
    named = [command for command in COMMANDS if arguments[:1] == [command]]
    parser = make_parser(named or COMMANDS)
    options = parser.parse_args(arguments)
    if sys.stdout is None:
        raise SystemExit("qmailldap: standard output is closed")
    try:
        result: int | None = options.run(options)
        sys.stdout.flush()
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        # A full disk, or a reader that has left. Python would try once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(f"qmailldap: standard output: {error.strerror}") from None
    return result
