"""LOGLEVEL: which lines are logged."""

from __future__ import annotations

import io
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.logger import LogEvent, Logger, LogLevel, textFileLogObserver
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.loglevel import DEFAULT_MASK, Kind, Log, complaint, mask, on_standard_error
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.session import Session

from .loglevels import log_at, logged_lines
from .test_docs import DOCS, rows

PACKAGE = Path(__file__).parent.parent / "qmailldap"
ALL = 255

BIT_OF_LEVEL = {"critical": 1, "error": 1, "warn": 2, "info": 8, "debug": 16}

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
not_numbers = texts.filter(lambda text: re.match("[0-9]", text) is None)


class MaskTests(SynchronousTestCase):
    def mask(self, **variables: object) -> int:
        log_at(self, **variables)
        return mask()

    def test_unset_it_means_errors_warnings_and_logins(self) -> None:
        self.assertEqual(self.mask(), 7)
        self.assertEqual(DEFAULT_MASK, 7)

    def test_it_is_a_number(self) -> None:
        for text, number in (("0", 0), ("1", 1), ("8", 8), ("255", 255), ("0012", 12), ("7 ", 7)):
            self.assertEqual(self.mask(LOGLEVEL=text), number, text)

    def test_what_is_no_number_means_the_default(self) -> None:
        for text in ("", "abc", "-1", " 8", "+8", "0x10"[1:], "٣", "²"):
            self.assertEqual(self.mask(LOGLEVEL=text), 7, text)

    def test_debuglevel_is_looked_at_where_there_is_no_loglevel(self) -> None:
        self.assertEqual(self.mask(DEBUGLEVEL=16), 16)
        self.assertEqual(self.mask(LOGLEVEL="", DEBUGLEVEL=16), 16)
        self.assertEqual(self.mask(LOGLEVEL=0, DEBUGLEVEL=16), 0)
        self.assertEqual(self.mask(LOGLEVEL=1, DEBUGLEVEL=16), 1)

    def test_bits_of_no_meaning_show_nothing(self) -> None:
        for number in (256, 512, 1024, 2**63, 2**64, 10**9 * 2**8):
            self.assertEqual(self.mask(LOGLEVEL=number), 0, number)
        self.assertEqual(self.mask(LOGLEVEL=256 + 5), 5)

    @given(st.integers(0, 10**30))
    def test_any_number_has_the_bits_that_it_has(self, number: int) -> None:
        self.assertEqual(self.mask(LOGLEVEL=number), number % 256)

    def test_a_number_of_any_length_is_read(self) -> None:
        self.assertEqual(self.mask(LOGLEVEL="9" * 100_000 + "00000005"), 5)

    @given(not_numbers, not_numbers)
    def test_any_other_text_means_the_default(self, text: str, other: str) -> None:
        self.assertEqual(self.mask(LOGLEVEL=text, DEBUGLEVEL=other), 7)

    @given(st.integers(0, 999), not_numbers)
    def test_a_number_counts_up_to_what_is_none(self, number: int, rest: str) -> None:
        self.assertEqual(self.mask(LOGLEVEL=f"{number}{rest}"), number % 256)

    def test_the_environment_is_read_once(self) -> None:
        log_at(self, LOGLEVEL=1)
        mask()
        self.patch(__import__("os"), "environ", {"LOGLEVEL": "255"})
        self.assertEqual(mask(), 1)


class ComplaintTests(SynchronousTestCase):
    def complaint(self, **variables: object) -> str | None:
        log_at(self, **variables)
        return complaint()

    def test_numbers_and_no_text_at_all_are_fine(self) -> None:
        for variables in ({}, {"LOGLEVEL": ""}, {"LOGLEVEL": "8"}, {"DEBUGLEVEL": "8"}):
            self.assertIsNone(self.complaint(**variables))
        self.assertIsNone(self.complaint(LOGLEVEL="8", DEBUGLEVEL="all"))

    def test_other_text_is_named_with_its_variable(self) -> None:
        self.assertEqual(self.complaint(LOGLEVEL="debug"), "LOGLEVEL is not a number: 'debug'")
        self.assertEqual(self.complaint(LOGLEVEL="é\n"), r"LOGLEVEL is not a number: '\xe9\n'")

    def test_what_follows_the_digits_is_told_with_what_counts(self) -> None:
        for text, digits in (("0x10", "0"), ("8x", "8"), ("4,8", "4"), ("7 # all", "7")):
            said = f"LOGLEVEL is not a number: '{text}' counts as {digits}"
            self.assertEqual(self.complaint(LOGLEVEL=text), said)
            self.assertEqual(mask(), int(digits))
        said = "DEBUGLEVEL is not a number: '8x' counts as 8"
        self.assertEqual(self.complaint(DEBUGLEVEL="8x"), said)

    def test_blanks_after_the_digits_are_fine(self) -> None:
        self.assertIsNone(self.complaint(LOGLEVEL="8 \n"))

    def test_long_text_is_cut(self) -> None:
        for text in ("x" * 10_000, "1" * 10_000 + "x"):
            self.assertLess(len(self.complaint(LOGLEVEL=text) or ""), 150)


class LogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        observer: Any = self.events.append
        self.log = Log(namespace="qmailldap.test", observer=observer)

    def is_shown(self, loglevel: int, *arguments: Any, **fields: Any) -> bool:
        """Whether the call of a method, by its name, leaves a line at that LOGLEVEL."""
        del self.events[:]
        log_at(self, LOGLEVEL=loglevel)
        name, *rest = arguments
        getattr(self.log, name)(*rest, **fields)
        return bool(self.events)

    def test_a_line_is_of_the_kind_of_its_level(self) -> None:
        for name, bit in BIT_OF_LEVEL.items():
            self.assertTrue(self.is_shown(bit, name, "a line"), name)
            self.assertFalse(self.is_shown(ALL - bit, name, "a line"), name)

    def test_a_line_may_be_of_another_kind(self) -> None:
        for kind in Kind:
            for name in BIT_OF_LEVEL:
                self.assertTrue(self.is_shown(int(kind), name, "a line", kind=kind))
                self.assertFalse(self.is_shown(ALL - kind, name, "a line", kind=kind))

    def test_a_line_of_two_kinds_is_shown_for_either(self) -> None:
        kind = Kind.LOGINS | Kind.ERRORS
        for level, shown in ((1, True), (4, True), (5, True), (ALL - 5, False)):
            self.assertEqual(self.is_shown(level, "info", "a line", kind=kind), shown)

    def test_a_traceback_is_an_error(self) -> None:
        failure = Failure(ValueError())
        self.assertTrue(self.is_shown(1, "failure", "failed", failure))
        self.assertFalse(self.is_shown(ALL - 1, "failure", "failed", failure))

    def test_0_and_256_are_silent(self) -> None:
        for level in (0, 256):
            for name in BIT_OF_LEVEL:
                self.assertFalse(self.is_shown(level, name, "a line"))
            self.assertFalse(self.is_shown(level, "login", "a line"))

    def test_what_is_said_of_it_before_is_true(self) -> None:
        for kind in Kind:
            log_at(self, LOGLEVEL=int(kind))
            self.assertEqual([other for other in Kind if self.log.shows(other)], [kind])

    def test_a_login_is_shown_by_its_own_bit_and_by_that_of_a_fault(self) -> None:
        for level, bits in ((LogLevel.info, 4), (LogLevel.warn, 6), (LogLevel.error, 5)):
            for kind in Kind:
                shown = self.is_shown(int(kind), "login", "a line", level=level)
                self.assertEqual(shown, bool(kind & bits), (level, kind))

    def test_the_event_has_its_fields_and_level_and_not_the_kind(self) -> None:
        self.is_shown(255, "warn", "a {field}", field=3, kind=Kind.DIRECTORY)
        (event,) = self.events
        self.assertEqual(
            (event["log_format"], event["field"], event["log_level"], event["log_namespace"]),
            ("a {field}", 3, LogLevel.warn, "qmailldap.test"),
        )
        self.assertNotIn("kind", event)

    def test_it_keeps_its_name_as_an_attribute_of_a_class(self) -> None:
        class Holder:
            log = self.log

        self.assertIs(Holder.log, self.log)
        self.assertIs(Holder().log, self.log)

    def test_a_warning_of_the_mask_itself_is_always_shown(self) -> None:
        self.assertTrue(self.is_shown(0, "unmasked", "a line"))
        self.assertEqual(self.events[0]["log_level"], LogLevel.warn)

    def test_twistd_writes_it_as_a_line(self) -> None:
        file = io.StringIO()
        log_at(self, LOGLEVEL=64)
        log = Log(namespace="qmailldap.test", observer=textFileLogObserver(file))
        log.debug("search filter={filter}", filter="(uid={x})", kind=Kind.DIRECTORY)
        self.assertRegex(
            file.getvalue(), r"^\S+ \[qmailldap.test#debug\] search filter=\(uid={x}\)\n$"
        )

    def test_what_a_login_line_quotes_is_no_format(self) -> None:
        file = io.StringIO()
        log_at(self, LOGLEVEL=4)
        log = Log(namespace="qmailldap.test", observer=textFileLogObserver(file))
        log.login("login user={user} peer={peer}", user="{peer}{0}{log_time}", peer="{")
        self.assertTrue(
            file.getvalue().endswith(
                "[qmailldap.test#info] login user={peer}{0}{log_time} peer={\n"
            )
        )

    def test_a_login_line_has_its_fields_in_its_event(self) -> None:
        self.is_shown(4, "login", "login user={user} messages={messages}", user="joe", messages=3)
        (event,) = self.events
        self.assertEqual((event["user"], event["messages"]), ("joe", 3))
        self.assertEqual(event["log_line"], "login user=joe messages=3")


class StandardErrorTests(SynchronousTestCase):
    def written(self, **variables: Any) -> bytes:
        """What goes there of three lines: one of ours, and two of Twisted's."""
        log_at(self, **variables)
        written: list[bytes] = []
        self.patch(os, "write", lambda descriptor, octets: written.append(octets))
        observer = on_standard_error("auth_pop")
        Log(namespace="qmailldap.x", observer=observer).warn("ours {name}", name="caf\xe9")
        theirs = Logger(namespace="twisted.x", observer=observer)
        theirs.info("Main loop terminated.")
        theirs.error("theirs")
        return b"".join(written)

    def test_lines_begin_with_the_program_and_twisted_s_own_are_errors_only(self) -> None:
        ours, theirs = "auth_pop: ours caf\xe9\n".encode(), b"auth_pop: theirs\n"
        self.assertEqual(self.written(), ours + theirs)
        self.assertEqual(self.written(LOGLEVEL=255), ours + theirs)
        self.assertEqual(self.written(LOGLEVEL=2), ours)
        self.assertEqual(self.written(LOGLEVEL=0), b"")


class SessionKindTests(SynchronousTestCase):
    """Of which kinds the lines of a session are."""

    def kinds(self, tell: Any) -> int:
        """The bits of LOGLEVEL each of which shows the line."""
        lines = logged_lines(self)
        bits = 0
        for kind in Kind:
            del lines[:]
            log_at(self, LOGLEVEL=int(kind))
            tell(Session(Log(namespace="qmailldap.test"), lambda: IPv4Address("TCP", "::1", 1)))
            self.assertLessEqual(len(lines), 1)
            bits += int(kind) * len(lines)
        return bits

    def test_logins_and_their_ends_are_logins(self) -> None:
        for tell in (
            lambda session: session.logged_in(b"joe", 0, 0),
            lambda session: session.abandoned(b"joe"),
            lambda session: session.logged_out("quit", 0, 0),
        ):
            self.assertEqual(self.kinds(tell), 4)

    def test_a_refusal_that_is_a_fault_is_also_of_the_fault_s_kind(self) -> None:
        for refusal in Refusal:
            kinds = {"info": 4, "warn": 6, "error": 5}[refusal.outcome.severity.name]
            tell = partial(Session.refused, user=b"joe", refused=LoginRefused(refusal, "why"))
            self.assertEqual(self.kinds(tell), kinds, refusal)

    def test_what_goes_wrong_in_a_session_is_a_warning(self) -> None:
        self.assertEqual(self.kinds(lambda session: session.not_updated("why")), 2)
        self.assertEqual(self.kinds(lambda session: session.message_failed(b"uid", "why")), 2)

    def test_a_fault_of_the_program_is_an_error(self) -> None:
        failure = Failure(ValueError())
        self.assertEqual(self.kinds(lambda session: session.failed("x", failure)), 1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class ManualTests(SynchronousTestCase):
    """docs/logging.md"""

    def test_the_table_of_bits_is_that_of_the_code(self) -> None:
        documented = [(row[0], row[1]) for row in rows("logging.md") if row[0].isdigit()]
        names = {kind: str(kind.name).lower().replace("_", "-") for kind in Kind}
        self.assertEqual(documented, [(str(int(kind)), name) for kind, name in names.items()])

    def test_the_default_is_that_of_the_code(self) -> None:
        self.assertIn(f"Unset it is {DEFAULT_MASK}.", (DOCS / "logging.md").read_text())


class PackageTests(SynchronousTestCase):
    def test_nothing_is_logged_past_the_mask(self) -> None:
        for path in PACKAGE.rglob("*.py"):
            if path.name != "loglevel.py":
                found = re.findall(r"\bLogger\b|twisted\.python\.log\b", path.read_text())
                self.assertEqual(found, [], path)
