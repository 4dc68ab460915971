"""What the commands have in common that ask a running server."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from qmailldap.admin.client import NoServer, ask, default_path

__all__ = ["NO_SERVER", "add_admin_option", "ask_server", "write"]

NO_SERVER = 111
"""The exit code where nobody answers; as of all programs of qmail that should be called again."""


def add_admin_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--admin",
        metavar="PATH",
        default=default_path(),
        help="the socket that the server has by its --admin (default: %(default)s)",
    )


def ask_server(
    options: argparse.Namespace, question: str, argument: dict[str, Any] | None = None
) -> Any:
    """What it answers. Ends the program with a line and `NO_SERVER` where there is none."""
    try:
        return ask(options.admin, question, argument)
    except NoServer as error:
        print(f"qmailldap {question}: {error}", file=sys.stderr)
        raise SystemExit(NO_SERVER) from None


def write(text: str) -> None:
    """To standard output, whatever characters its encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
