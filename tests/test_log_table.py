"""The table of all lines, and the calls that log them."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from qmailldap.log_lines import FIELDS, LINES
from qmailldap.log_words import RESERVED, words_of
from qmailldap.loglevel import DEFAULT_MASK, Kind

from .log_calls import Call, log_calls
from .test_docs import rows

_LEVELS = {"failure": "critical", "unmasked": "warn", "login": "info"}
_BITS = {
    "debug": Kind.DEBUG,
    "info": Kind.ACTIONS,
    "warn": Kind.WARNINGS,
    "error": Kind.ERRORS,
    "critical": Kind.ERRORS,
}
_SEVERITY = "refused.refusal.outcome.severity"
_WITHOUT_A_CALL = ("output", "log")

Row = tuple[str, str, Kind]


def row_of(call: Call) -> Row:
    """What the table should have of it."""
    if call.level:
        assert (call.method, call.level) == ("login", _SEVERITY), call.place
        return call.format, "info, warn or error", Kind.LOGINS | Kind.WARNINGS | Kind.ERRORS
    level = _LEVELS.get(call.method, call.method)
    if call.method == "unmasked":
        return call.format, level, Kind(0)
    if call.method == "login":
        return call.format, level, Kind.LOGINS
    return call.format, level, Kind[call.kind.split(".")[1]] if call.kind else _BITS[level]


class TableTests(SynchronousTestCase):
    def test_every_call_has_its_row(self) -> None:
        table = {(line.format, line.level, line.bits) for line in LINES}
        missing = [f"{call.place}: {row_of(call)}" for call in log_calls()
                   if row_of(call) not in table]  # fmt: skip
        self.assertEqual(missing, [], "they are to be explained in qmailldap/log_lines.py")

    def test_every_row_has_its_call(self) -> None:
        called = {row_of(call) for call in log_calls()}
        for line in LINES:
            if line.event not in _WITHOUT_A_CALL:
                self.assertIn((line.format, line.level, line.bits), called)

    def test_no_row_is_there_twice(self) -> None:
        rows = [(line.format, line.level, line.bits) for line in LINES]
        self.assertEqual(len({*rows}), len(rows))

    def test_every_line_begins_with_the_word_of_its_event(self) -> None:
        for line in LINES:
            self.assertRegex(line.event, r"\A[a-z]+\Z")

    def test_every_field_is_explained(self) -> None:
        for line in LINES:
            for name, meaning in line.all_fields.items():
                self.assertTrue(meaning, f"{name} of {line.shown}")

    def test_every_line_says_what_it_means_and_what_to_do(self) -> None:
        for line in LINES:
            for text in (line.means, line.todo):
                self.assertRegex(text, r"\A[^ ].*[^. ]\Z")
            # What is shown by default, and is no outcome of a login, is for somebody to look at.
            if line.level in ("warn", "error", "critical") and line.bits & DEFAULT_MASK:
                self.assertNotEqual(line.todo, "nothing", line.shown)

    def test_no_field_takes_the_place_of_what_every_line_has(self) -> None:
        for line in LINES:
            names = {*words_of(line.format).names, *line.fields} - {"worker"}
            self.assertEqual(names & {*RESERVED}, set(), line.shown)

    def test_no_explanation_is_there_for_nothing(self) -> None:
        used = {name for line in LINES for name in line.all_fields}
        self.assertEqual(set(FIELDS) - used, set())

    def test_a_row_is_shown_as_the_line_with_its_values_left_out(self) -> None:
        (line,) = [each for each in LINES if each.event == "connect"]
        self.assertEqual(line.shown, "connect peer=… session=… at=…")
        self.assertFalse(any(re.search("[{}]", line.shown) for line in LINES))


class ManualTests(SynchronousTestCase):
    def test_what_one_may_count_on_is_as_it_is_said(self) -> None:
        """docs/logging.md"""
        promised = ("login", "refused", "abandoned", "logout")
        documented = {
            (name, *re.findall("`([a-z]+)`", fields))
            for line, fields, *_ in rows("logging.md")
            for name in promised
            if f"`{name}`" in line
        }
        made = {(line.event, *line.all_fields) for line in LINES if line.event in promised}
        self.assertEqual(documented, made)
