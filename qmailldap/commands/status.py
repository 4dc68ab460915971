"""`qmailldap status`: how the running server stands, as its status page shows it."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from typing import Any

from qmailldap.commands.server import NO_SERVER, add_admin_option, ask_server, write

__all__ = ["add_to", "as_json"]


def add_to(commands: Any) -> None:
    """Make the command known to an argparse parser's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "status",
        help="show how a running server stands",
        description="Show what goes on in a running server, and what the last hour was like.",
        epilog=f"The exit code is {NO_SERVER} where no server answers.",
    )
    add_admin_option(parser)
    parser.add_argument("--json", action="store_true", help="write JSON")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from qmailldap.status.state import State
    from qmailldap.status.text import as_text

    answer = ask_server(options, "status")
    try:
        state = State.from_json(answer)
    except ValueError as error:
        print(f"qmailldap status: {error}", file=sys.stderr)
        return NO_SERVER
    if options.json:
        write(as_json(state))
    else:
        users = any(each.user for each in state.refusals)
        unicode = "utf" in (sys.stdout.encoding or "").lower()
        # A pipe has no width, and whoever reads it wants whole lines.
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        write(as_text(state, users=users, width=width, unicode=unicode))
    return 0


def as_json(state: Any) -> str:
    return json.dumps(state.to_json(), indent=2) + "\n"
