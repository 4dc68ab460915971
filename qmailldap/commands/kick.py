"""`qmailldap kick`: end a session, or all of a user."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from qmailldap.commands.server import NO_SERVER, add_admin_option, ask_server

__all__ = ["NOBODY", "add_to"]

NOBODY = 1
"""The exit code where there was nobody to be ended."""


def add_to(commands: Any) -> None:
    """Make the command known to an argparse parser's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "kick",
        help="end sessions",
        description="End the session of that id, or all sessions of that user. No message is"
        " deleted, and whoever is kicked may come again.",
        epilog="The exit code is 0 where some were ended, or are updating and end by themselves,"
        f" {NOBODY} where there were none, {NO_SERVER} where no server answers.",
    )
    add_admin_option(parser)
    parser.add_argument("who", metavar="USER|SESSION", help="as qmailldap sessions shows them")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    answer = ask_server(options, "kick", {"who": options.who})
    try:
        ended, updating = int(answer["ended"]), int(answer["updating"])
    except (KeyError, TypeError, ValueError, OverflowError):
        print("qmailldap kick: the answer is none of this version", file=sys.stderr)
        return NO_SERVER
    print(f"{ended} session{'' if ended == 1 else 's'} ended")
    if updating == 1:
        print("1 session is updating its mailbox, and ends by itself")
    elif updating:
        print(f"{updating} sessions are updating their mailboxes, and end by themselves")
    return 0 if ended or updating else NOBODY
