"""The command lines: thin, on the same objects that the server uses."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import qmailldap
from qmailldap.commands import demo

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int | None:
    """The console script ``qmailldap``; returns its exit code, None for success."""
    parser = argparse.ArgumentParser(
        prog="qmailldap", description="Tools for a POP3 server on a qmail-ldap directory."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {qmailldap.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    demo.add_to(commands)
    options = parser.parse_args(arguments)
    result: int | None = options.run(options)
    return result
