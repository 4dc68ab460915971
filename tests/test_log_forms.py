"""Lines as text and as JSON: one for each event, whatever is in it, and JSON gives it back."""

from __future__ import annotations

import io
import json
import os
import re
import time
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.logger import LogEvent, Logger, LogLevel, textFileLogObserver
from twisted.python import log as legacy
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.log_forms import (
    MOST_LETTERS,
    JSONForm,
    TextForm,
    journal_form,
    priority_of,
)
from qmailldap.log_words import words_of
from qmailldap.loglevel import Log
from qmailldap.printable import Fields, escaped, printable

from .loglevels import log_at

_FEWER = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

octets = st.binary(max_size=128) | st.text(max_size=30).map(
    lambda text: text.encode("utf-8", "surrogatepass")
)
texts = st.text(max_size=50) | st.text('a \n\r\x1b\x00"\\{}%\u2028\x85\ud800', max_size=20)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)


class FormTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        log_at(self, LOGLEVEL=255)
        self.events: list[LogEvent] = []
        observer: Any = self.events.append
        self.log = Log(namespace="qmailldap.pop3", observer=observer)
        self.theirs = Logger(namespace="twisted.x", observer=observer)

    def last(self) -> LogEvent:
        (event,) = self.events
        self.events.clear()
        return event

    def json_of(self, event: LogEvent, **form: Any) -> dict[str, Any]:
        line = JSONForm(**form)(event)
        self.assertEqual(line.count(b"\n"), 1)
        self.assertTrue(line.endswith(b"}\n") and line.isascii(), line)
        parsed: dict[str, Any] = json.loads(line, parse_constant=self.fail)
        return parsed

    def fields_of(self, event: LogEvent) -> dict[str, Any]:
        """Without what every line has."""
        line = self.json_of(event)
        return {name: line[name] for name in line if name not in ("time", "level", "source")}

    def text_of(self, event: LogEvent) -> str:
        text = TextForm()(event).decode()
        self.assertEqual(len(text.splitlines()), 1, text)
        self.assertEqual(text.count("\n"), 1)
        return text


class FieldTests(FormTestCase):
    def test_the_event_is_the_first_word_and_the_fields_have_their_names(self) -> None:
        self.log.info("proof user={user} by={how} password={proved}", user="joe", how="SSHA",
                      proved="right")  # fmt: skip
        self.assertEqual(
            self.json_of(self.last()) | {"time": ""},
            {"time": "", "level": "info", "source": "qmailldap.pop3", "event": "proof",
             "user": "joe", "by": "SSHA", "password": "right"},
        )  # fmt: skip

    def test_words_of_the_format_are_values_as_well(self) -> None:
        self.log.info("account user={user} mail=here entries=0 path={a}:{b}", user="x", a=1, b=2)
        self.assertEqual(
            self.fields_of(self.last()),
            {"event": "account", "user": "x", "mail": "here", "entries": 0, "path": "1:2"},
        )

    def test_a_line_for_people_is_there_as_a_whole(self) -> None:
        self.log.warn("member {machine} is down: {why}; next try in {pause:.0f} s",
                      machine="a:1", why="x y", pause=2.4)  # fmt: skip
        self.assertEqual(
            self.fields_of(self.last()),
            {"event": "member", "machine": "a:1", "why": "x y", "pause": 2,
             "text": "member a:1 is down: x y; next try in 2 s"},
        )  # fmt: skip

    def test_numbers_are_numbers_with_the_digits_that_are_shown(self) -> None:
        self.log.info("a n={n} s={s:.3f} t={t:g} b={b} e={e}", n=3, s=0.12345, t=1.5, b=True,
                      e=None)  # fmt: skip
        self.assertEqual(
            self.fields_of(self.last()),
            {"event": "a", "n": 3, "s": 0.123, "t": 1.5, "b": True, "e": None},
        )
        self.log.info("a x={x}", x=float("inf"))
        self.assertEqual(self.fields_of(self.last())["x"], "inf")

    def test_several_fields_in_one_place_are_several(self) -> None:
        facts = Fields([("uid", printable(b"joe")), ("mail", "a"), ("mail", printable(b"b c"))])
        self.log.info("record user={user} {attributes}", user="joe", attributes=facts)
        event = self.last()
        self.assertEqual(
            self.fields_of(event),
            {"event": "record", "user": "joe", "uid": "joe", "mail": ["a", "b c"]},
        )
        self.assertIn(' record user=joe uid=joe mail=a mail="b c"\n', self.text_of(event))

    def test_a_line_of_a_login_has_its_fields(self) -> None:
        self.log.login("login user={user} messages={messages}", user=printable(b"a b"), messages=3)
        event = self.last()
        self.assertEqual(self.fields_of(event), {"event": "login", "user": "a b", "messages": 3})
        self.assertIn(' login user="a b" messages=3\n', self.text_of(event))

    def test_a_field_in_quotes_is_its_value(self) -> None:
        self.log.info('search filter="{filter}"', filter="(uid=joe)")
        self.assertEqual(self.fields_of(self.last())["filter"], "(uid=joe)")

    def test_what_is_longer_than_shown_ends_in_dots(self) -> None:
        self.log.info("a user={user}", user=printable(b"x\n" * 100, 10))
        self.assertEqual(self.fields_of(self.last())["user"], "x\n" * 5 + "...")

    @_FEWER
    @given(octets)
    def test_octets_come_back_as_text(self, value: bytes) -> None:
        for tell in (self.log.info, self.log.login):
            tell("a user={user} end={end}", user=printable(value), end="x")
            event = self.last()
            self.assertTrue(self.text_of(event).isascii())
            self.assertEqual(
                self.fields_of(event),
                {"event": "a", "user": value.decode("utf-8", "backslashreplace"), "end": "x"},
            )

    @_FEWER
    @given(texts, numbers)
    def test_any_text_is_one_line_and_comes_back(self, text: str, number: float) -> None:
        self.log.warn("a is so: {text_of_it} n={n}", text_of_it=text, n=number)
        event = self.last()
        self.text_of(event)
        fields = self.fields_of(event)
        whole = text.encode("utf-8", "backslashreplace").decode()
        self.assertEqual((fields["text_of_it"], fields["n"]), (whole, number))

    @_FEWER
    @given(texts)
    def test_any_error_is_one_line(self, text: str) -> None:
        self.log.error("a failed: {error}", error=OSError(text))
        event = self.last()
        self.text_of(event)
        self.fields_of(event)

    @given(texts)
    def test_what_can_be_shown_is_shown_as_it_is(self, text: str) -> None:
        self.assertTrue(escaped(text).isprintable())
        if text.isprintable():
            self.assertEqual(escaped(text), text)

    def test_formats_are_read_once(self) -> None:
        self.assertIs(words_of("a b={b}"), words_of("a b={b}"))


class OthersTests(FormTestCase):
    """Lines that the package has not made."""

    def test_a_line_of_twisted_has_its_text(self) -> None:
        self.theirs.info("{x} starting on {y!r}", x="a", y="b")
        self.assertEqual(
            self.json_of(self.last()) | {"time": ""},
            {"time": "", "level": "info", "source": "twisted.x",
             "text": "a starting on 'b'"},
        )  # fmt: skip

    def test_so_has_one_of_its_older_loggers(self) -> None:
        events: list[LogEvent] = []
        publisher = legacy.LogPublisher()
        publisher.addObserver(events.append)
        publisher.msg("two\nlines", system="x")
        (event,) = events
        self.assertEqual(self.json_of(event)["text"], "two\nlines")

    def test_one_without_text_is_none(self) -> None:
        self.theirs.info("")
        self.assertEqual(JSONForm()(self.last()), b"")
        self.theirs.info("")
        self.assertEqual(TextForm()(self.last()), b"")

    @_FEWER
    @given(texts)
    def test_whatever_its_text_it_is_one_line_of_json(self, text: str) -> None:
        self.theirs.info("x{text}", text=text)
        whole = text.encode("utf-8", "backslashreplace").decode()
        self.assertEqual(self.json_of(self.last())["text"], f"x{whole}")

    def test_one_that_cannot_be_formatted_is_one_line(self) -> None:
        class Bad:
            def __str__(self) -> str:
                raise ValueError

        self.theirs.info("{bad}", bad=Bad())
        self.assertIn("format", self.json_of(self.last())["text"])


class TracebackTests(FormTestCase):
    def failure(self, words: str) -> Failure:
        try:
            raise ValueError(words)
        except ValueError:
            return Failure()

    def test_it_is_a_field(self) -> None:
        for log in (self.log, self.theirs):
            log.failure("failed what={what}", self.failure("this\nthat"), what="x")
            line = self.json_of(self.last())
            self.assertEqual(line["level"], "critical")
            self.assertRegex(line["traceback"], r"\A(?s:Traceback .*ValueError: this\nthat)")
        self.assertEqual(line["text"], "failed what=x")

    def test_of_a_long_one_the_end_is_kept(self) -> None:
        self.log.failure("failed what=x", self.failure("x" * MOST_LETTERS + "the end"))
        traceback = self.json_of(self.last())["traceback"]
        self.assertLessEqual(len(traceback), MOST_LETTERS + 3)
        self.assertRegex(traceback, r"\A\.\.\.x+the end\s*\Z")

    def test_one_that_cannot_be_shown_is_no_fault(self) -> None:
        event: LogEvent = {"log_failure": object(), "log_format": "x", "log_level": LogLevel.error}
        self.assertIn("AttributeError", self.json_of(event)["traceback"])


class TextFormTests(FormTestCase):
    def test_it_is_what_twistd_writes(self) -> None:
        self.log.warn("two {lines}", lines="lines")
        self.theirs.info("two\nlines")
        self.log.failure("failed", Failure(ValueError("x")))
        for event in self.events:
            written = io.StringIO()
            textFileLogObserver(written)(event)
            self.assertEqual(TextForm()(event).decode(), written.getvalue())

    def test_the_journal_has_a_priority_before_each_line_and_no_time(self) -> None:
        form = journal_form(TextForm(timed=False))
        self.theirs.warn("two\nlines")
        self.assertEqual(form(self.last()), b"<4>[twisted.x#warn] two\n<4>\tlines\n")
        self.theirs.info("")
        self.assertEqual(form(self.last()), b"")
        self.log.info("a b={b}", b=1)
        self.assertRegex(journal_form(JSONForm())(self.last()), rb'\A<6>\{"time": .*\}\n\Z')

    def test_the_priority_is_that_of_the_level(self) -> None:
        levels = [LogLevel.critical, LogLevel.error, LogLevel.warn, LogLevel.info, LogLevel.debug]
        self.assertEqual([priority_of({"log_level": each}) for each in levels], [2, 3, 4, 6, 7])
        self.assertEqual(priority_of({}), 6)


class TimeTests(FormTestCase):
    @given(st.floats(0, 4e9))
    def test_it_is_of_rfc_3339_with_milliseconds(self, when: float) -> None:
        shown = self.json_of({"log_format": "x", "log_time": when})["time"]
        self.assertRegex(shown, r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d\Z")
        behind = when - datetime.fromisoformat(shown).timestamp()
        self.assertTrue(-1e-6 < behind < 0.001 + 1e-6, (when, shown))

    def test_the_zone_is_that_of_the_host(self) -> None:
        # Those of the process itself: log_at has put others in their place.
        before = os.getenvb(b"TZ")
        os.putenv("TZ", "IST-5:30")
        time.tzset()
        self.addCleanup(time.tzset)
        self.addCleanup(os.unsetenv, "TZ") if before is None else self.addCleanup(
            os.putenv, b"TZ", before
        )
        shown = self.json_of({"log_format": "x", "log_time": 1_700_000_000.5})["time"]
        self.assertEqual(shown, "2023-11-15T03:43:20.500+05:30")
        self.assertEqual(datetime.fromisoformat(shown).utcoffset(), timedelta(hours=5.5))


class LengthTests(FormTestCase):
    @_FEWER
    @given(st.lists(st.text(max_size=300), max_size=5), st.integers(500, 2000))
    def test_a_line_may_have_to_be_short(self, values: list[str], most: int) -> None:
        fields = Fields([(f"f{n}", escaped(value)) for n, value in enumerate(values)])
        self.log.info("a user={user} {more}", user="joe", more=fields)
        event = self.last()
        line = JSONForm(most=most)(event)
        self.assertLessEqual(len(line), most)
        parsed = json.loads(line)
        self.assertEqual((parsed["event"], parsed["user"]), ("a", "joe"))
        if len(JSONForm()(event)) <= most:
            self.assertEqual(line, JSONForm()(event))

    def test_a_line_of_many_values_has_a_bound(self) -> None:
        fields = Fields([("mail", "\U0001f4a9" * 100)] * 1000)
        self.log.info("record {more}", more=fields)
        kept = self.json_of(self.last())["mail"]
        self.assertLessEqual(sum(map(len, kept)), MOST_LETTERS)


class FilterTests(FormTestCase):
    def test_what_contrib_reads_of_it_stays(self) -> None:
        self.log.login(
            "refused user={user} peer={peer} session={session} reason={reason} detail={detail}",
            user=printable(b"x y"), peer="192.0.2.1", session="s", reason="wrong-credentials",
            detail=printable(b""),
        )  # fmt: skip
        found = re.fullmatch(
            r'\S+ \[qmailldap\.\w+#\w+\] refused user="[^"]*" peer=(\S+) session=\S+'
            r' reason=wrong-credentials detail=""\n',
            self.text_of(self.last()),
        )
        assert found is not None
        self.assertEqual(found[1], "192.0.2.1")
