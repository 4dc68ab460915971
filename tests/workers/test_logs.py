"""Lines of workers: in the form of the others, whoever writes them, and whatever they are."""

from __future__ import annotations

import io
import json
import os
import select
import threading
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.logger import (
    LogEvent,
    Logger,
    LogLevel,
    globalLogPublisher,
    textFileLogObserver,
)
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.workers import logs
from qmailldap.workers.logs import LineRelay, PipeWriter, logs_to_standard_output, observer

_FEWER = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])

NOW = 1_700_000_000.25
_LIMIT = 10.0


def twisted_line(event: LogEvent) -> str:
    written = io.StringIO()
    textFileLogObserver(written)(event)
    return written.getvalue()


class LinesTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reader, self.writer = os.pipe()
        self.patch(logs, "_STANDARD_OUTPUT", self.writer)
        os.set_blocking(self.reader, False)
        self.addCleanup(os.close, self.reader)
        self.addCleanup(os.close, self.writer)

    def written(self) -> bytes:
        try:
            return os.read(self.reader, 1 << 20)
        except BlockingIOError:
            return b""

    def events(self, relayed: int) -> list[LogEvent]:
        """Some, which worker 2 has logged."""
        seen: list[LogEvent] = []

        def both(event: LogEvent) -> None:
            seen.append(dict(event))
            log(event)

        log = observer(2, bool(relayed))
        logger = Logger("qmailldap.pop3", observer=both)  # type: ignore[arg-type]
        logger.info("login user={user}", user="joe")
        logger.warn("two\nlines")
        try:
            raise ValueError("a fault")
        except ValueError:
            logger.failure("failed")
        logger.info("")
        return [each for each in seen if each["log_format"]]

    def relay(self, octets: bytes) -> list[LogEvent]:
        published: list[LogEvent] = []
        relay = LineRelay(2, published.append, lambda: NOW)
        relay.received(octets)
        relay.ended()
        return published


class FormTests(LinesTestCase):
    def test_a_line_is_that_of_twisted_with_the_worker_at_its_end(self) -> None:
        expected = ""
        for event in self.events(relayed=0):
            first, newline, more = twisted_line(event).partition("\n")
            expected += f"{first} worker=2{newline}{more}"
        self.assertEqual(self.written().decode(), expected)
        self.assertIn("ValueError: a fault", expected)

    def test_one_that_is_relayed_becomes_the_same(self) -> None:
        # On one line of the source, which a traceback shows.
        (direct, lines), (_, handed) = [(self.events(each), self.written()) for each in (0, 1)]
        times = iter([each["log_time"] for each in direct])
        relayed = ""
        for event in self.relay(handed):
            self.assertLessEqual(event["log_time"], NOW)
            relayed += twisted_line({**event, "log_time": next(times)})
        self.assertEqual(relayed, lines.decode())

    def test_nobody_who_reads_is_no_error(self) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        self.patch(logs, "_STANDARD_OUTPUT", writer)
        self.addCleanup(os.close, writer)
        for relayed in (False, True):
            self.events(relayed)

    def test_where_twistd_writes_to_standard_output_so_do_workers(self) -> None:
        self.assertFalse(logs_to_standard_output())
        import sys

        assert sys.__stdout__ is not None
        direct = textFileLogObserver(sys.__stdout__)
        self.patch(globalLogPublisher, "_observers", [direct])
        self.assertTrue(logs_to_standard_output())


class PipeTests(LinesTestCase):
    def test_a_reader_that_does_not_read_loses_lines_and_is_told_of_them(self) -> None:
        self.patch(logs, "PATIENCE", 0.01)
        writer = PipeWriter(self.writer, 2)
        # Longer than what a pipe takes whole or not at all.
        text = "x" * 2 * select.PIPE_BUF
        line = json.dumps([None, "qmailldap.pop3", "info", text]).encode() + b"\n"
        for _ in range(100):
            writer.write(line)
        published: list[LogEvent] = []
        relay = LineRelay(2, published.append, lambda: NOW)
        relay.received(self.written())
        whole = len(published)
        self.assertGreater(whole, 3)
        self.assertEqual([each["log_line"] for each in published], [text] * whole)
        writer.write(line)
        relay.received(self.written())
        begun, lost, last = published[whole:]
        # What was begun is shown as something that is no event.
        self.assertEqual(begun["log_level"], LogLevel.warn)
        self.assertIn("xxx", begun["log_line"])
        self.assertEqual(lost["log_line"], f"log lines={100 - whole} were lost worker=2")
        self.assertEqual(last["log_line"], text)

    def test_a_long_text_is_cut(self) -> None:
        log: Any = observer(2, relayed=True)
        log({"log_format": "{text}", "text": "é" * 100_000, "log_level": LogLevel.info,
             "log_namespace": "qmailldap.pop3", "log_time": NOW})  # fmt: skip
        (event,) = self.relay(self.written())
        self.assertEqual(event["log_line"], "é" * logs.MOST_LETTERS + "...")

    def test_the_longest_text_arrives_whole_whatever_its_letters(self) -> None:
        published: list[LogEvent] = []
        relay = LineRelay(2, published.append, lambda: NOW)
        arriving = select.poll()
        arriving.register(self.reader, select.POLLIN)

        def read() -> None:
            while not published and arriving.poll(_LIMIT * 1000):
                relay.received(self.written())

        # Twelve octets each, and more in all than a pipe holds.
        text = "\U0001f4a9" * logs.MOST_LETTERS
        reading = threading.Thread(target=read)
        reading.start()
        log: Any = observer(2, relayed=True)
        log({"log_format": "{text}", "text": text, "log_level": LogLevel.error,
             "log_namespace": "qmailldap.pop3", "log_time": NOW})  # fmt: skip
        reading.join(_LIMIT)
        (event,) = published
        self.assertEqual(event["log_level"], LogLevel.error)
        self.assertEqual(event["log_line"], f"{text}...")


class RelayTests(LinesTestCase):
    def test_what_is_no_event_is_a_warning_without_harm(self) -> None:
        (event,) = self.relay(b"Fatal Python error: \x1b[2J\n")
        self.assertEqual(event["log_level"], LogLevel.warn)
        self.assertEqual(event["log_line"], '"Fatal Python error: \\x1b[2J" worker=2')

    def test_a_time_that_cannot_be_is_that_of_arrival(self) -> None:
        for when in (None, "x", 1e300, -1.0, NOW + 5, True, [1]):
            (event,) = self.relay(json.dumps([when, "a.b", "info", "text"]).encode() + b"\n")
            self.assertEqual(event["log_time"], NOW)
        (event,) = self.relay(json.dumps([NOW - 1, "a.b", "info", "text"]).encode() + b"\n")
        self.assertEqual(event["log_time"], NOW - 1)

    @_FEWER
    @given(st.lists(st.binary(max_size=300)))
    def test_any_octets_in_any_pieces_are_logged_or_not_but_never_raise(
        self, pieces: list[bytes]
    ) -> None:
        published: list[LogEvent] = []
        relay = LineRelay(1, published.append, lambda: NOW)
        for each in pieces:
            relay.received(each)
        relay.ended()
        whole = self.relay(b"".join(pieces))
        self.assertEqual(len(whole), len(published))
        for event in published:
            twisted_line(event)

    json_values: Any = st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=10),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=6,
    )

    @_FEWER
    @given(st.lists(json_values, max_size=5) | json_values)
    def test_any_json_is_logged_and_never_raises(self, value: Any) -> None:
        (event,) = self.relay(json.dumps(value).encode() + b"\n")
        twisted_line(event)

    def test_a_line_without_end_takes_no_more_memory_than_a_long_one(self) -> None:
        published: list[LogEvent] = []
        relay = LineRelay(1, published.append, lambda: NOW)
        for _ in range(100):
            relay.received(b"[" * 10_000)
        self.assertLessEqual(len(relay._unfinished), logs._LONGEST_LINE)
        relay.ended()
        self.assertEqual(len(published), 1)
