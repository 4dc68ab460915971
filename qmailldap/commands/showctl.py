"""`qmailldap showctl`: the control directory as the server reads it, and what is wrong with it.

What is read and how is told by `qmailldap.control`; here it is only shown, and the servers of the
directory are asked whether they can be used. No secret is shown, nor anything of one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from qmailldap.commands import add_control_option
from qmailldap.control import Control, ControlError, ServerAddress
from qmailldap.control.inspection import (
    FileReport,
    Inspection,
    inspect_control,
    with_faults_of,
    with_warnings,
)
from qmailldap.directory import (
    Directory,
    DirectoryUnavailable,
    EntryTooLarge,
    Search,
    tls_by_server,
)
from qmailldap.forward import ClusterTLS
from qmailldap.tls.certificates import CertificateFiles, Certificates
from qmailldap.tls.pem import BadCertificate

__all__ = ["ServerCheck", "add_to", "as_json", "as_text", "check_servers"]

_LONGEST = 400
"""Characters of a value or a problem that are shown."""

_NO_LOGIN = b"-"

_NAME_WIDTH = 20
_STATE_WIDTH = 9


@attrs.frozen
class ServerCheck:
    """Whether a server of the directory can be used, and else why not; it took ``seconds``.

    ``warning`` is what should be looked at in one that can be used.
    """

    server: ServerAddress
    seconds: float
    problem: str | None = None
    warning: str | None = None


def add_to(commands: Any) -> None:
    """Make the command known to an argparse parser's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "showctl",
        help="show the control files and what is wrong with them",
        description="Show every control file, the value in force and what is wrong with it."
        " Exit code 0: the server would start; 1: it would not.",
    )
    add_control_option(parser)
    parser.add_argument(
        "--check",
        action="store_true",
        help="also connect to each directory server, bind, and search the base for users;"
        " exit code 1 if any of them fails",
    )
    parser.add_argument("--json", action="store_true", help="write JSON, for scripts")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    inspection = _with_doubts(with_faults_of(inspect_control(options.control), _use))
    checks: tuple[ServerCheck, ...] | None = None
    if options.check and inspection.control is not None and not inspection.all_errors:
        checks = _check(inspection.control)
    show = as_json if options.json else as_text
    text = show(inspection, checks)
    if options.check and checks is None and not options.json:
        text += "The directory servers were not checked.\n"
    _write(text)
    fails = any(check.problem is not None for check in checks or ())
    return 1 if inspection.all_errors or fails else 0


def _use(control: Control) -> None:
    """What else of the server is made from control files and may refuse them."""
    Search(control)
    tls_by_server(control)
    ClusterTLS(control)
    _certificates(control)


def _certificates(control: Control) -> Certificates | None:
    """That of cert.pem, where there is one. Raises `ControlError`."""
    if control.certificate is None:
        return None
    files = CertificateFiles(control.certificate)
    try:
        return Certificates([files])
    except BadCertificate as error:
        raise control.error("cert.pem", str(error).removeprefix(f"{files}: ")) from None


def _with_doubts(inspection: Inspection) -> Inspection:
    """The same with what a server does take, and its clients may not."""
    control = inspection.control
    if control is None:
        return inspection
    if control.requiretls and control.certificate is None:
        problem = "without a cert.pem, the server starts with a --certificate only"
        inspection = with_warnings(inspection, "requiretls", [problem])
    with suppress(ControlError):  # which is among the errors already
        certificates = _certificates(control)
        if certificates is not None:
            prefix = f"certificate {CertificateFiles(certificates.paths[0])}: "
            doubts = [warning.removeprefix(prefix) for warning in certificates.warnings]
            inspection = with_warnings(inspection, "cert.pem", doubts)
    return inspection


async def check_servers(reactor: Any, control: Control) -> tuple[ServerCheck, ...]:
    """Connect to each server of the directory by itself, bind, and search the base.

    For its entry alone first, then as for a login, of a user that there is not, and for any entry
    that ldapobjectclass matches. Each search may take ldaptimeout. What goes wrong is in what comes
    back.
    """
    return tuple([await _check_server(reactor, control, each) for each in control.ldapserver])


async def _check_server(reactor: Any, control: Control, server: ServerAddress) -> ServerCheck:
    alone = attrs.evolve(control, ldapserver=(server,))
    directory = Directory(reactor, alone, connections=1)
    begun = reactor.seconds()
    problem = warning = None
    try:
        await directory.check()
        # Without a base, the check is answered by every server, and a login by few.
        await directory.find(_NO_LOGIN)
        if control.ldapobjectclass is not None:
            warning = await _doubt(directory, server, control.ldapobjectclass)
    except DirectoryUnavailable as error:
        problem = error.reason.replace(f"{server}: ", "")
    except EntryTooLarge:
        problem = "it answers with an entry that is too large"
    finally:
        taken = reactor.seconds() - begun
        await directory.stop()
    return ServerCheck(server, taken, problem, warning)


async def _doubt(directory: Directory, server: ServerAddress, object_class: str) -> str | None:
    """What there is to be said of ldapobjectclass; a server may be unable to tell, and be right."""
    try:
        found = await directory.sample()
    except DirectoryUnavailable as error:
        reason = error.reason.replace(f"{server}: ", "")
        return f"whether any entry matches ldapobjectclass is not known: {reason}"
    if found.value:
        return None
    return (
        f"no entry matches ldapobjectclass {object_class!r}: a wrong name, or access rules of the"
        " directory hide them"
    )


def _check(control: Control) -> tuple[ServerCheck, ...]:
    checks: list[ServerCheck] = []

    async def ask(reactor: Any) -> None:
        checks.extend(await check_servers(reactor, control))

    try:
        react(lambda reactor: Deferred.fromCoroutine(ask(reactor)))
    except SystemExit as end:
        # What ends it before all are asked is an interrupt, or has been written to the log.
        if end.code or not checks:
            raise SystemExit(end.code or 1) from None
    return tuple(checks)


def as_text(inspection: Inspection, checks: tuple[ServerCheck, ...] | None = None) -> str:
    """What is there for a person to read; each line ends in a newline."""
    lines = [f"Control files in {_plain(inspection.directory)}", ""]
    lines += _problems(".", inspection.errors, inspection.warnings)
    for report in inspection.files:
        lines += _file_lines(report)
    if inspection.strangers:
        lines.append("")
    for stranger in inspection.strangers:
        lines += _problems(_quoted(stranger.name), (), (stranger.problem,))
    if checks is not None:
        lines.append("")
        width = max(_NAME_WIDTH, *(len(str(check.server)) + 2 for check in checks))
        for check in checks:
            lines += _check_lines(check, width)
    lines += ["", _verdict(inspection, checks), ""]
    return "\n".join(lines)


def as_json(inspection: Inspection, checks: tuple[ServerCheck, ...] | None = None) -> str:
    """The same for a script: one object; ``servers`` is there if they were checked."""
    whole: dict[str, Any] = {
        "directory": inspection.directory,
        "starts": not inspection.all_errors,
        "errors": inspection.errors,
        "warnings": inspection.warnings,
        "files": [
            {
                "name": report.file.name,
                "path": report.path,
                "kind": report.file.kind,
                "meaning": report.file.meaning,
                "default": report.file.default,
                "set": report.is_set,
                "used": report.is_used,
                "value": _json_value(report),
                "errors": report.errors,
                "warnings": report.warnings,
            }
            for report in inspection.files
        ],
        "strangers": [attrs.asdict(stranger) for stranger in inspection.strangers],
    }
    if checks is not None:
        whole["servers"] = [
            {
                "server": str(check.server),
                "answers": check.problem is None,
                "milliseconds": round(check.seconds * 1000),
                "problem": check.problem,
                "warning": check.warning,
            }
            for check in checks
        ]
    return json.dumps(whole, indent=2) + "\n"


def _json_value(report: FileReport) -> Any:
    if report.file.kind == "list":
        return report.value
    return report.value[0] if report.value else None


def _file_lines(report: FileReport) -> Iterator[str]:
    name = report.file.name
    if not report.errors:
        if not report.is_used:
            state, values = "unused", [f"as {report.file.unless} is set"]
        elif not report.is_set:
            state, values = "default", [report.file.default]
        else:
            state, values = "set", [_quoted(value) for value in report.value] or ["(not shown)"]
        yield _columns(name, state, values[0])
        for value in values[1:]:
            yield _columns("", "", value)
        name = ""
    yield from _problems(name, report.errors, report.warnings)


def _problems(name: str, errors: tuple[str, ...], warnings: tuple[str, ...]) -> Iterator[str]:
    """A line for each; the first one is headed by the name."""
    for state, problems in (("error", errors), ("warning", warnings)):
        for problem in problems:
            yield _columns(name, state, _plain(problem))
            name = ""


def _check_lines(check: ServerCheck, width: int) -> Iterator[str]:
    if check.problem is None:
        yield _columns(str(check.server), "answers", f"{check.seconds * 1000:.0f} ms", width)
    else:
        yield _columns(_plain(str(check.server)), "fails", _plain(check.problem), width)
    if check.warning is not None:
        yield _columns("", "warning", _plain(check.warning), width)


def _verdict(inspection: Inspection, checks: tuple[ServerCheck, ...] | None) -> str:
    errors = _count(len(inspection.all_errors), "error")
    doubtful = sum(check.warning is not None for check in checks or ())
    warnings = _count(len(inspection.all_warnings) + doubtful, "warning")
    would = "would not" if inspection.all_errors else "would"
    verdict = f"The server {would} start: {errors}, {warnings}."
    if checks is not None:
        good = sum(check.problem is None for check in checks)
        verdict += f" Directory servers that can be used: {good} of {len(checks)}."
    return verdict


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _columns(name: str, state: str, text: str, width: int = _NAME_WIDTH) -> str:
    # A name that is too long for its column still keeps apart.
    name = f"{name} " if len(name) >= width else name
    return f"{name:{width}}{state:{_STATE_WIDTH}}{text}"


def _quoted(value: str) -> str:
    """A value as it is where that is clear, else as Python writes it."""
    clear = value.isprintable() and value == value.strip(" ") and not value.startswith(("'", '"'))
    return _shortened(value if clear and value else repr(value))


def _plain(text: str) -> str:
    """Text without anything that a terminal might obey."""
    return _shortened("".join(each if each.isprintable() else repr(each)[1:-1] for each in text))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _write(text: str) -> None:
    """To standard output, whatever characters its encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()
