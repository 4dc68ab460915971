"""Tables of the reference pages, made from the code: plain text, without any markup.

`TABLES` has them by the names that the pages use. Nothing of Sphinx is here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import attrs

from qmailldap.control import POP3Limits
from qmailldap.control.files import FILES
from qmailldap.figures.table import FIGURES
from qmailldap.log_lines import FIELDS, LINES
from qmailldap.loglevel import Kind
from qmailldap.options import Options
from qmailldap.refusal import Refusal

__all__ = ["TABLES", "Row", "Table"]


@attrs.frozen
class Row:
    """``name`` is what the row is about, ``cells`` what is said of it: a line each paragraph."""

    name: str
    cells: tuple[str, ...]


@attrs.frozen
class Table:
    """``kind`` begins the anchors of the rows, as in ``option-control``.

    ``headings`` are those of all columns, the first of which has the names.
    """

    kind: str
    headings: tuple[str, ...]
    rows: tuple[Row, ...]

    def anchors(self) -> list[str]:
        """By which each row can be linked to; the second of a name has a number."""
        found: list[str] = []
        for row in self.rows:
            words = re.sub("[^A-Za-z0-9]+", " ", row.name.split(" ")[0]).split()
            name = "-".join([self.kind, *words])
            number = sum(each == name or each.startswith(f"{name}.") for each in found)
            found.append(f"{name}.{number + 1}" if number else name)
        return found


_DEFAULTS = {"hash-threads": "as many as processors, from 2 to 4"}
"""Defaults that depend on the machine: that on which the site is built is nobody's."""


def _options() -> Table:
    """What `twistd qmailldap-pop3` takes, in the order of its help."""
    options = Options()
    defaults = {str(row[0]): str(row[2]) for row in options.optParameters if row[2] is not None}
    rows = []
    for name in sorted(set(options.synonyms.values()) - {"version", "help"}):
        short = [f"-{each}" for each in options.synonyms if options.synonyms[each] == name != each]
        value = "" if name in options.longOpt else " VALUE"
        rows.append(
            Row(
                ", ".join([f"--{name}{value}", *short]),
                (_DEFAULTS.get(name, defaults.get(name, "")), options.docs[name]),
            )
        )
    return Table("option", ("option", "default", "meaning"), tuple(rows))


def _control_files() -> Table:
    rows = tuple(Row(file.name, (file.kind, file.default, file.meaning)) for file in FILES)
    return Table("control", ("file", "kind", "default", "meaning"), rows)


def _limits() -> Table:
    """The names of the control file pop3limits."""
    rows = tuple(
        Row(
            field.name.replace("_", "-"),
            (str(field.default), f"{field.metadata['least']} to {field.metadata['most']}"),
        )
        for field in attrs.fields(POP3Limits)
    )
    return Table("limit", ("name", "default", "range"), rows)


def _refusals() -> Table:
    rows = tuple(
        Row(
            refusal.name.lower().replace("_", "-"),
            (
                refusal.outcome.text,
                refusal.outcome.code,
                "" if refusal.is_of_a_listener else str(refusal.outcome.exit_code),
                refusal.outcome.severity.name,
            ),
        )
        for refusal in Refusal
    )
    return Table(
        "refusal", ("reason", "text", "code", "exit code of auth_pop", "severity in the log"), rows
    )


def _metrics() -> Table:
    rows = tuple(
        Row(figure.shown, (figure.kind.value, ", ".join(figure.labels), figure.help))
        for figure in FIGURES
    )
    return Table("metric", ("metric", "kind", "labels", "meaning"), rows)


def _log_lines() -> Table:
    rows = tuple(
        Row(
            line.shown,
            (
                ", ".join(str(each.value) for each in Kind if each & line.bits) or "always",
                "\n".join(
                    [line.means, *(f"{name}: {meaning}" for name, meaning in line.fields.items())]
                ),
                line.todo,
            ),
        )
        for line in LINES
    )
    return Table("line", ("line", "LOGLEVEL", "what it means", "what to do"), rows)


def _log_fields() -> Table:
    rows = tuple(Row(name, (meaning,)) for name, meaning in FIELDS.items())
    return Table("field", ("field", "meaning"), rows)


TABLES: dict[str, Callable[[], Table]] = {
    "options": _options,
    "control-files": _control_files,
    "limits": _limits,
    "refusals": _refusals,
    "metrics": _metrics,
    "log-lines": _log_lines,
    "log-fields": _log_fields,
}
