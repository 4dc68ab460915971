"""`qmailldap sessions`: who is on, as the running server tells it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from qmailldap.admin.sessions import Told
from qmailldap.commands.server import NO_SERVER, add_admin_option, ask_server, write

__all__ = ["KINDS", "add_to", "as_json", "as_text"]

KINDS = ("waiting", "local", "forwarded")

_COLUMNS = ("SESSION", "USER", "ADDRESS", "SINCE", "KIND", "DOING", "OCTETS")
_NUMBERS = ("OCTETS",)


def add_to(commands: Any) -> None:
    """Make the command known to an argparse parser's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "sessions",
        help="show who is on",
        description="Show the sessions of a running server, those that are on for longest first.",
        epilog=f"The exit code is {NO_SERVER} where no server answers.",
    )
    add_admin_option(parser)
    parser.add_argument("--user", metavar="USER", default="", help="only sessions of that user")
    parser.add_argument("--kind", choices=KINDS, help="only sessions of that kind")
    parser.add_argument("--json", action="store_true", help="write JSON")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    told = Told.of(ask_server(options, "sessions", {"user": options.user}))
    shown = [each for each in told.sessions if options.kind in (None, each["kind"])]
    write((as_json if options.json else as_text)(shown, told.more))
    return 0


def as_text(sessions: Sequence[dict[str, Any]], more: int = 0) -> str:
    """A table with a line for each; ``more`` are those of which the server has not told."""
    rows = [_COLUMNS, *map(_row, sessions)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
    lines = ["  ".join(_cells(row, widths)).rstrip() for row in rows]
    if more:
        lines.append(f"and {more} more")
    return "\n".join(lines) + "\n"


def as_json(sessions: Sequence[dict[str, Any]], more: int = 0) -> str:
    return json.dumps({"sessions": list(sessions), "more": more}, indent=2) + "\n"


def _row(session: dict[str, Any]) -> tuple[str, ...]:
    member = session["member"]
    return (
        session["id"],
        session["user"] or "-",
        session["host"] or "-",
        f"{datetime.fromtimestamp(session['since']):%Y-%m-%d %H:%M:%S}",
        session["kind"],
        f"{session['doing'] or 'idle'}{f' at {member}' if member else ''}",
        str(session["octets"]),
    )


def _cells(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        f"{cell:>{width}}" if column in _NUMBERS else f"{cell:{width}}"
        for cell, width, column in zip(row, widths, _COLUMNS, strict=True)
    ]
