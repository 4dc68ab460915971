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

from qmailldap.log_forms import MOST_LETTERS, JSONForm
from qmailldap.log_output import workers_log_themselves
from qmailldap.loglevel import Log
from qmailldap.workers import logs
from qmailldap.workers.logs import LineRelay, PipeWriter, WorkerLog

_FEWER = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])

NOW = 1_700_000_000.25
_LIMIT = 10.0

TEXT: dict[str, Any] = {"log": None, "log-format": "text"}
JSON: dict[str, Any] = {"log": None, "log-format": "json"}


def twisted_line(event: LogEvent) -> str:
    written = io.StringIO()
    textFileLogObserver(written)(event)
    return written.getvalue()


class Writers:
    """What a `PipeWriter` asks of the reactor."""

    def __init__(self) -> None:
        self.writers: list[Any] = []
        self.called: list[Any] = []
        self.addWriter = self.writers.append
        self.removeWriter = self.writers.remove

    def callFromThread(self, *call: Any) -> None:
        self.called.append(call)


class LinesTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reader, self.writer = os.pipe()
        self.patch(logs, "STANDARD_OUTPUT", self.writer)
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

        log = WorkerLog(2, bool(relayed), TEXT)
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
        self.patch(logs, "STANDARD_OUTPUT", writer)
        self.addCleanup(os.close, writer)
        for relayed in (False, True):
            self.events(relayed)

    def test_where_twistd_writes_to_standard_output_so_do_workers(self) -> None:
        self.assertFalse(workers_log_themselves())
        import sys

        assert sys.__stdout__ is not None
        direct = textFileLogObserver(sys.__stdout__)
        self.patch(globalLogPublisher, "_observers", [direct])
        self.assertTrue(workers_log_themselves())


class JSONTests(LinesTestCase):
    def log(self, relayed: bool) -> Log:
        observer: Any = WorkerLog(2, relayed, JSON)
        return Log(namespace="qmailldap.pop3", observer=observer)

    def test_fields_are_handed_over_as_they_are(self) -> None:
        self.log(relayed=True).login(
            "login user={user} messages={messages}", user="joe", messages=3
        )
        (event,) = self.relay(self.written())
        line = json.loads(JSONForm()(event))
        line.pop("time")
        self.assertEqual(
            line,
            {"level": "info", "source": "qmailldap.pop3", "event": "login", "user": "joe",
             "messages": 3, "worker": 2},
        )  # fmt: skip

    def test_a_worker_writes_the_same_itself_where_it_can(self) -> None:
        # On one line of the source, which a traceback shows.
        written = []
        for relayed in (False, True):
            self.fault(self.log(relayed))
            octets = self.written()
            lines = [octets] if not relayed else [JSONForm()(e) for e in self.relay(octets)]
            (line,) = [json.loads(each) for each in lines]
            line.pop("time")
            written.append(line)
        self.assertEqual(*written)
        self.assertIn("ValueError: a fault", written[0]["traceback"])

    def fault(self, log: Log) -> None:
        try:
            raise ValueError("a fault")
        except ValueError:
            log.failure("failed what={what}", what="login")

    def test_a_worker_cannot_say_to_be_another_or_of_another_time(self) -> None:
        said = {"event": "login", "worker": 7, "time": "x", "level": "x", "source": "x"}
        (event,) = self.relay(json.dumps([NOW, "a.b", "warn", said]).encode() + b"\n")
        line = json.loads(JSONForm()(event))
        self.assertEqual((line["worker"], line["level"], line["source"]), (2, "warn", "a.b"))
        self.assertNotEqual(line["time"], "x")

    def test_what_is_no_event_has_its_octets(self) -> None:
        (event,) = self.relay(b"Fatal \x1b[2J\xff\n")
        line = json.loads(JSONForm()(event))
        self.assertEqual((line["event"], line["line"]), ("output", "Fatal \x1b[2J\\xff"))


class PipeTests(LinesTestCase):
    # Longer than what a pipe takes whole or not at all.
    text = "x" * 2 * select.PIPE_BUF
    line = json.dumps([None, "qmailldap.pop3", "info", text]).encode() + b"\n"

    def setUp(self) -> None:
        super().setUp()
        self.published: list[LogEvent] = []
        self.pipe = PipeWriter(self.writer, 2)
        self.reactor = Writers()
        self.pipe.attend(self.reactor)
        self.incoming = LineRelay(2, self.published.append, lambda: NOW)

    def read_all(self) -> None:
        """What the reactor does while the supervisor reads."""
        while octets := self.written():
            self.incoming.received(octets)
            for each in [*self.reactor.writers]:
                each.doWrite()

    def test_a_reader_that_is_slow_is_waited_for_by_nobody_and_gets_all(self) -> None:
        for _ in range(100):
            self.pipe.write(self.line)
        self.assertEqual(self.reactor.writers, [self.pipe])
        self.read_all()
        self.assertEqual([each["log_line"] for each in self.published], [self.text] * 100)
        self.assertEqual(self.reactor.writers, [])

    def test_a_reader_that_does_not_read_loses_lines_and_is_told_how_many(self) -> None:
        count = 2 * logs.MOST_WAITING // len(self.line)
        for _ in range(count):
            self.pipe.write(self.line)
        self.assertLess(self.pipe._octets, logs.MOST_WAITING + len(self.line))
        self.read_all()
        *whole, lost = [each["log_line"] for each in self.published]
        self.assertEqual(whole, [self.text] * len(whole))
        self.assertEqual(lost, f"log lines={count - len(whole)} were lost worker=2")
        self.assertGreater(len(whole), 10)

    def test_at_the_end_what_waits_is_written_if_somebody_reads(self) -> None:
        for _ in range(20):
            self.pipe.write(self.line)

        def read() -> None:
            arriving = select.poll()
            arriving.register(self.reader, select.POLLIN)
            while len(self.published) < 20 and arriving.poll(_LIMIT * 1000):
                self.incoming.received(self.written())

        reading = threading.Thread(target=read)
        reading.start()
        self.pipe.finish()
        reading.join(_LIMIT)
        self.assertEqual(len(self.published), 20)

    def test_and_for_a_while_only_if_nobody_does(self) -> None:
        self.patch(logs, "PATIENCE", 0.01)
        for _ in range(100):
            self.pipe.write(self.line)
        self.pipe.finish()
        self.assertGreater(self.pipe._octets, 0)

    def test_nothing_is_kept_for_one_who_has_gone(self) -> None:
        reader, writer = os.pipe()
        self.addCleanup(os.close, writer)
        pipe = PipeWriter(writer, 2)
        for _ in range(100):
            pipe.write(self.line)
        os.close(reader)
        pipe.attend(self.reactor)
        for each in [*self.reactor.writers]:
            each.doWrite()
        self.assertEqual((pipe._octets, self.reactor.writers), (0, []))

    def test_a_line_of_another_thread_is_handed_to_the_reactor(self) -> None:
        thread = threading.Thread(target=self.pipe.write, args=(self.line,))
        thread.start()
        thread.join(_LIMIT)
        self.assertEqual(self.written(), b"")
        ((write, line),) = self.reactor.called
        write(line)
        self.assertEqual(self.written(), self.line)

    def test_a_long_text_is_cut(self) -> None:
        log: Any = WorkerLog(2, relayed=True, options=TEXT)
        log({"log_format": "{text}", "text": "é" * 100_000, "log_level": LogLevel.info,
             "log_namespace": "qmailldap.pop3", "log_time": NOW})  # fmt: skip
        (event,) = self.relay(self.written())
        self.assertEqual(event["log_line"], "é" * MOST_LETTERS + "...")

    def test_the_longest_text_arrives_whole_whatever_its_letters(self) -> None:
        published: list[LogEvent] = []
        relay = LineRelay(2, published.append, lambda: NOW)
        arriving = select.poll()
        arriving.register(self.reader, select.POLLIN)

        def read() -> None:
            while not published and arriving.poll(_LIMIT * 1000):
                relay.received(self.written())

        # Twelve octets each, and more in all than a pipe holds.
        text = "\U0001f4a9" * MOST_LETTERS
        reading = threading.Thread(target=read)
        reading.start()
        log: Any = WorkerLog(2, relayed=True, options=TEXT)
        log({"log_format": "{text}", "text": text, "log_level": LogLevel.error,
             "log_namespace": "qmailldap.pop3", "log_time": NOW})  # fmt: skip
        log.finish()
        reading.join(_LIMIT)
        (event,) = published
        self.assertEqual(event["log_level"], LogLevel.error)
        self.assertEqual(event["log_line"], f"{text}...")


class RelayTests(LinesTestCase):
    def test_what_is_no_event_is_a_warning_without_harm(self) -> None:
        (event,) = self.relay(b"Fatal Python error: \x1b[2J\n")
        self.assertEqual(event["log_level"], LogLevel.warn)
        self.assertEqual(event["log_line"], 'output line="Fatal Python error: \\x1b[2J" worker=2')

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
