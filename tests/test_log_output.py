"""Where the log goes: --log and --log-format, and what twistd is told."""

from __future__ import annotations

import json
import os
import sys
import syslog
from typing import Any

from twisted.application.service import Application, MultiService
from twisted.logger import FileLogObserver, ILogObserver, Logger, globalLogPublisher
from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.log_forms import JSONForm, TextForm
from qmailldap.log_output import Lines, Syslog, take_over, workers_log_themselves
from qmailldap.options import CannotStart, Options


class OutputTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.opened: list[tuple[Any, ...]] = []
        self.sent: list[tuple[int, str]] = []
        self.patch(syslog, "openlog", lambda *arguments: self.opened.append(arguments))
        self.patch(syslog, "syslog", lambda *arguments: self.sent.append(arguments))

    def observer(self, twistd: list[str], *options: str, tac: bool = False) -> Any:
        """What an application is given that runs by twistd with these arguments; None: nothing."""
        ours = Options()
        if tac:
            self.patch(sys, "argv", ["twistd", *twistd, "-y", "x.tac"])
        else:
            theirs = ServerOptions()
            theirs.parseOptions(twistd)
            ours.parent = theirs
        ours.parseOptions(options)
        application = Application("qmailldap-pop3")
        take_over(application, ours)
        return application.getComponent(ILogObserver, None)


class TakeOverTests(OutputTestCase):
    def test_by_default_twistd_decides(self) -> None:
        self.assertIsNone(self.observer(["-n"]))
        self.assertIsNone(self.observer(["-n"], "--log-format=text"))

    def test_json_goes_where_twistd_logs(self) -> None:
        path = os.path.abspath(self.mktemp())
        for tac in (False, True):
            output = self.observer(["-n"], "--log-format=json", tac=tac)
            self.assertIsInstance(output, FileLogObserver)
            self.assertIs(output._outFile, sys.stdout)
            file = self.observer(["--logfile", path], "--log-format=json", tac=tac)
            Logger("x", observer=file).info("y")
            with open(path) as log:
                self.assertEqual(json.loads(log.read())["text"], "y")
            os.unlink(path)

    def test_json_goes_to_the_syslog_of_twistd(self) -> None:
        syslogged = self.observer(["--syslog", "--prefix=mx1"], "--log-format=json")
        Logger("x", observer=syslogged).error("y")
        self.assertEqual(self.opened, [("mx1", 0, syslog.LOG_USER)])
        ((priority, text),) = self.sent
        self.assertEqual((priority, json.loads(text)["text"]), (syslog.LOG_ERR, "y"))

    def test_syslog_is_that_of_mail(self) -> None:
        options = syslog.LOG_PID | syslog.LOG_NDELAY
        for twistd, name in (([], "qmailldap-pop3"), (["--prefix=mx1"], "mx1")):
            observer = self.observer(twistd, "--log=syslog")
            self.assertEqual(self.opened.pop(), (name, options, syslog.LOG_MAIL))
            Logger("x", observer=observer).warn("two\nlines\0")
            self.assertEqual(
                self.sent,
                [(syslog.LOG_WARNING, "[x#warn] two"), (syslog.LOG_WARNING, "\tlines\\x00")],
            )
            self.sent.clear()

    def test_a_line_for_syslog_is_no_longer_than_it_takes(self) -> None:
        observer = self.observer([], "--log=syslog", "--log-format=json")
        Logger("x", observer=observer).info("{text}", text="y" * 100_000)
        ((_, text),) = self.sent
        self.assertLess(len(text), 8000)
        self.assertRegex(json.loads(text)["text"], r"\Ay+\.\.\.\Z")

    def test_a_daemon_has_no_standard_error(self) -> None:
        for log in ("stderr", "journal"):
            self.assertIsInstance(self.observer(["-n"], f"--log={log}"), Lines)
            self.assertIsInstance(self.observer(["--nodaemon"], f"--log={log}", tac=True), Lines)
            for tac in (False, True):
                with self.assertRaises(CannotStart) as caught:
                    self.observer([], f"--log={log}", tac=tac)
                self.assertIn(f"--log {log}: a daemon has no", str(caught.exception))

    def test_what_reads_the_options_once_more_does_nothing_of_it(self) -> None:
        twistd = ["-n", "-r", "nosuch", "--debug", "--spew"]
        self.assertIsInstance(self.observer(twistd, "--log=stderr", tac=True), Lines)
        self.assertIsNone(sys.gettrace())

    def test_arguments_that_are_not_twistd_s_are_said(self) -> None:
        with self.assertRaises(CannotStart) as caught:
            self.observer(["--nosuch"], "--log=stderr", tac=True)
        self.assertIn("--log stderr: these are no arguments of twistd", str(caught.exception))

    def test_a_service_that_is_not_the_application_s_changes_nothing(self) -> None:
        options = Options()
        options.parseOptions(["--log=stderr"])
        take_over(MultiService(), options)


class WriterTests(OutputTestCase):
    def test_an_event_is_written_to_the_descriptor(self) -> None:
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        Logger("x", observer=Lines(writer, TextForm(timed=False))).info("two\nlines")
        os.close(writer)
        self.assertEqual(os.read(reader, 100), b"[x#info] two\n\tlines\n")

    def test_nobody_who_reads_is_no_error(self) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        self.addCleanup(os.close, writer)
        Lines(writer, JSONForm())({"log_format": "x"})

    def test_text_that_is_no_unicode_can_be_sent(self) -> None:
        Syslog(TextForm(timed=False), "x", 0, 0)({"log_format": "\udc80", "log_namespace": "y"})
        self.assertEqual(self.sent, [(syslog.LOG_INFO, "[y#-] \\udc80")])

    def test_workers_write_to_descriptors_and_to_nothing_else(self) -> None:
        assert sys.__stdout__ is not None
        for observer, themselves in (
            (Lines(2, TextForm()), True),
            (FileLogObserver(sys.__stdout__, str), True),
            (FileLogObserver(sys.__stderr__, str), False),  # type: ignore[arg-type]
            (Syslog(TextForm(), "x", 0, 0), False),
        ):
            self.patch(globalLogPublisher, "_observers", [observer])
            self.assertEqual(workers_log_themselves(), themselves)
