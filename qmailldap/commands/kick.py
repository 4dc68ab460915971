"""`qmailldap kick`: end a session, or all of a user."""

from __future__ import annotations

import argparse
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
        epilog=f"The exit code is 0 where some were ended, {NOBODY} where there were none,"
        f" {NO_SERVER} where no server answers.",
    )
    add_admin_option(parser)
    parser.add_argument("who", metavar="USER|SESSION", help="as qmailldap sessions shows them")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    ended = ask_server(options, "kick", {"who": options.who})
    print(f"{ended} session{'' if ended == 1 else 's'} ended")
    return 0 if ended else NOBODY
