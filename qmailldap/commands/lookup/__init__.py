"""`qmailldap lookup`: what becomes of one login, and why, decided by the server's own objects.

`gathering` finds out, `findings` is what it has found, `text` and `json_text` tell it. Nothing is
changed by a lookup, neither on disk nor in the directory.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
)

from qmailldap.commands import add_control_option
from qmailldap.commands.asking import ask_password
from qmailldap.commands.lookup.findings import Asked, Findings
from qmailldap.commands.lookup.gathering import gather
from qmailldap.commands.lookup.json_text import as_json
from qmailldap.commands.lookup.text import as_lines
from qmailldap.directory.search import parse_filter
from qmailldap.loglevel import on_standard_error

__all__ = ["add_to"]

_WRONG_USAGE = 2
"""As argparse has it; 1 would be an error in a control file."""

_DESCRIPTION = """\
Show the whole decision about one login: which directory server answers, the
entry and what is made of its attributes, where the mail is and what is on disk,
and whether the login would be let in. Nothing is changed.

Exit code 0: it would be let in, or forwarded; else that of checkpassword for
the reason, as 3 for a wrong password or an unknown user, and 4 for a disabled
account.
"""


def add_to(commands: Any) -> None:
    """Make the command known to an argparse parser's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "lookup",
        help="show what becomes of a login, and why",
        usage="%(prog)s [--password] [--json] [--control DIR]\n"
        "                        (USER | --mail ADDRESS | --filter FILTER)",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("user", metavar="USER", nargs="?", type=_not_empty, help="the login")
    asked.add_argument(
        "--mail",
        metavar="ADDRESS",
        type=_not_empty,
        help="the login of the entry that has the address as mail or mailAlternateAddress;"
        " no catch-all address is sought",
    )
    asked.add_argument(
        "--filter",
        metavar="FILTER",
        type=_filter,
        help="the login of the entry that a filter of RFC 4515 finds; ldapobjectclass is not added",
    )
    parser.add_argument(
        "--password",
        action="store_true",
        help="ask for the password, or read the first line of standard input where that is no"
        " terminal, and try it",
    )
    parser.add_argument("--json", action="store_true", help="write JSON, for scripts")
    add_control_option(parser)
    parser.set_defaults(run=_run)


def _not_empty(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return text


def _filter(text: str) -> str:
    try:
        parse_filter(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"it is no filter: {error}") from None
    return text


def _run(options: argparse.Namespace) -> int:
    by = next(by for by in ("user", "mail", "filter") if getattr(options, by) is not None)
    value = getattr(options, by)
    try:
        password = ask_password("Password") if options.password else None
    except SystemExit as error:
        if not isinstance(error.code, str):
            raise  # interrupted
        sys.stderr.write(f"{error.code}\n")
        return _WRONG_USAGE
    asked = Asked(by, value, options.control)
    _log_where_asked_to()
    found: list[Findings] = []

    async def find_out(reactor: Any) -> None:
        found.append(await gather(reactor, asked, os.fsencode(value), password))

    try:
        react(lambda reactor: Deferred.fromCoroutine(find_out(reactor)))
    except SystemExit as end:
        # What ends it before is an interrupt, or has been written to the log.
        if not found:
            raise SystemExit(end.code or 1) from None
    (findings,) = found
    lines = [as_json(findings)] if options.json else as_lines(findings)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return findings.verdict.exit_code


def _log_where_asked_to() -> None:
    """The log to standard error, where LOGLEVEL is set; else what it would say is in the answer."""
    observer: ILogObserver = on_standard_error("qmailldap lookup")
    if not (os.environ.get("LOGLEVEL") or os.environ.get("DEBUGLEVEL")):
        faults_only = LogLevelFilterPredicate(defaultLogLevel=LogLevel.critical)
        observer = FilteringLogObserver(observer, [faults_only])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False, discardBuffer=True)
