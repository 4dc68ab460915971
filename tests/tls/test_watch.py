"""Certificates that change while the server runs: when they are loaded, and what is said of it."""

from __future__ import annotations

import datetime
import errno
from pathlib import Path

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.threads import Busy
from qmailldap.tls.certificates import BadCertificate, CertificateFiles, Certificates
from qmailldap.tls.watch import INTERVAL, CertificateWatch, reading
from tests.loglevels import log_at, logged_lines
from tests.tls.support import DAY, NOW, Identity, identity, shown_to

KEPT = "certificate not loaded, that from before stays: "


class WatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        log_at(self)
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.path = folder / "cert.pem"
        self.first = identity("pop.example.org")
        self.new = identity("pop.example.org", number=1)
        self.path.write_bytes(self.first.both)
        self.now = NOW
        self.server = Certificates([CertificateFiles(self.path)], lambda: self.now)
        self.clock = Clock()
        # What the next look finds, and how often somebody has looked.
        self.content: Deferred[list[bytes]] | Exception | bytes = self.first.both
        self.looks = 0
        self.watch = CertificateWatch(self.server, self.read, self.clock)
        self.lines = logged_lines(self)
        self.watch.start()

    def read(self) -> Deferred[list[bytes]]:
        self.looks += 1
        if isinstance(self.content, Deferred):
            return self.content
        if isinstance(self.content, Exception):
            return fail(self.content)
        return succeed([self.content])

    def assert_shown(self, shown: Identity) -> None:
        self.assertEqual(shown_to(self.server)[0], shown.certificate)

    def test_a_file_that_has_changed_is_loaded_and_told_once(self) -> None:
        log_at(self, LOGLEVEL=15)
        self.content = self.new.both
        for _ in range(3):
            self.clock.advance(INTERVAL)
        self.assert_shown(self.new)
        self.assertEqual(
            self.lines,
            [f"certificate loaded file={self.path} names=pop.example.org until=2030-05-31"],
        )

    def test_looks_go_on_at_their_interval(self) -> None:
        self.clock.advance(INTERVAL - 1)
        self.assertEqual(self.looks, 1)
        self.clock.pump([1, INTERVAL - 1, 1])
        self.assertEqual(self.looks, 3)
        self.assertEqual(self.lines, [])

    def start_again(self) -> None:
        """With what was read before."""
        self.watch.stop()
        self.watch.start()
        self.addCleanup(self.watch.stop)

    def test_what_was_read_before_the_start_is_not_shown_any_longer_for_it(self) -> None:
        self.content = self.new.both
        self.start_again()
        self.assert_shown(self.new)
        (line,) = self.lines
        self.assertTrue(line.startswith("certificate loaded "), line)

    def test_a_file_that_was_being_written_at_the_start_is_not_told(self) -> None:
        self.content = self.new.both[:-50]
        self.start_again()
        self.assert_shown(self.first)
        self.assertEqual(self.lines, [])
        self.content = self.new.both
        self.clock.advance(INTERVAL)
        self.assert_shown(self.new)
        (line,) = self.lines
        self.assertTrue(line.startswith("certificate loaded "), line)

    def renew(self, content: bytes) -> None:
        """As whoever has read all files, having been asked to."""
        self.watch.renewed(self.server.replace([content]))

    def test_who_asks_for_it_need_not_wait_and_is_answered(self) -> None:
        log_at(self, LOGLEVEL=15)
        self.renew(self.first.both)
        self.assertEqual(self.lines, ["certificate unchanged"])
        self.renew(self.new.both)
        self.assert_shown(self.new)
        self.assertEqual(len(self.lines), 2)

    def test_a_bad_one_is_told_when_it_stays_and_the_old_one_too(self) -> None:
        self.content = b"nothing"
        self.clock.advance(INTERVAL)
        # It may be half-written.
        self.assertEqual(self.lines, [])
        for _ in range(3):
            self.clock.advance(INTERVAL)
        self.assertEqual(self.lines, [f"{KEPT}{self.path}: it holds no certificate in PEM format"])
        self.assert_shown(self.first)

    def test_one_that_was_being_written_is_not_told(self) -> None:
        self.content = self.new.both[:-50]
        self.clock.advance(INTERVAL)
        self.content = self.new.both
        self.clock.advance(INTERVAL)
        (line,) = self.lines
        self.assertTrue(line.startswith("certificate loaded "), line)
        self.assert_shown(self.new)

    def test_a_fault_that_others_have_told_is_not_told_again(self) -> None:
        self.content = b"nothing"
        self.watch.told(f"{self.path}: it holds no certificate in PEM format")
        self.clock.pump([INTERVAL] * 3)
        self.assertEqual(self.lines, [])
        self.content = self.first.both
        self.clock.advance(INTERVAL)
        self.assertEqual(self.lines, ["certificate unchanged"])

    def test_a_fault_that_comes_back_is_told_again(self) -> None:
        for _ in range(2):
            self.content = b"nothing"
            self.clock.pump([INTERVAL] * 3)
            self.content = self.first.both
            self.clock.pump([INTERVAL] * 3)
        fault = f"{KEPT}{self.path}: it holds no certificate in PEM format"
        self.assertEqual(self.lines, [fault, "certificate unchanged"] * 2)

    def test_a_file_that_cannot_be_read_is_told_and_the_old_one_stays(self) -> None:
        for fault in (BadCertificate(f"{self.path}: cannot be read: Gone"), Busy("too much")):
            self.content = fault
            self.clock.pump([INTERVAL] * 3)
            self.assertEqual(self.lines.pop(), f"{KEPT}{fault}")
            self.assert_shown(self.first)
        self.assertEqual(self.lines, [])

    def test_files_are_read_once_at_a_time(self) -> None:
        self.content = under_way = Deferred[list[bytes]]()
        self.clock.pump([INTERVAL] * 4)
        self.assertEqual(self.looks, 2)
        self.assertEqual(
            self.lines, [f"{KEPT}its files have been read for too long, without an end"]
        )
        self.content = self.new.both
        under_way.callback([self.first.both])
        self.clock.advance(INTERVAL)
        self.assert_shown(self.new)

    def test_what_was_read_before_others_have_renewed_it_is_older_and_not_taken(self) -> None:
        self.content = under_way = Deferred[list[bytes]]()
        self.clock.advance(INTERVAL)
        self.renew(self.new.both)
        under_way.callback([self.first.both])
        self.assert_shown(self.new)
        # The next look is newer again.
        self.content = self.first.both
        self.clock.advance(INTERVAL)
        self.assert_shown(self.first)

    def test_what_comes_after_the_end_changes_nothing(self) -> None:
        self.content = under_way = Deferred[list[bytes]]()
        self.clock.advance(INTERVAL)
        self.watch.stop()
        under_way.callback([self.new.both])
        self.assertEqual((self.looks, self.clock.getDelayedCalls()), (2, []))
        self.assert_shown(self.first)
        self.watch.stop()

    def test_what_clients_may_not_accept_is_told_once_when_it_comes(self) -> None:
        self.clock.advance(INTERVAL)
        self.assertEqual(self.lines, [])
        self.now = NOW + datetime.timedelta(days=40)
        self.clock.pump([INTERVAL] * 3)
        self.assertEqual(self.lines, [f"certificate {self.path}: it has expired on 2030-05-31"])

    def test_and_at_the_start(self) -> None:
        self.watch.stop()
        self.now = NOW - 2 * DAY
        self.watch.start()
        self.addCleanup(self.watch.stop)
        self.assertIn("is not valid before", self.lines[0])

    def test_a_fault_of_ours_ends_no_watch(self) -> None:
        self.content = ZeroDivisionError()
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.content = self.new.both
        self.clock.advance(INTERVAL)
        self.assert_shown(self.new)


class ReadingTests(SynchronousTestCase):
    paths = (Path("/etc/chain.pem"), Path("/etc/key.pem"))

    def test_files_are_read_one_after_another_by_their_numbers(self) -> None:
        waiting: list[Deferred[bytes]] = []

        def read_one(number: int) -> Deferred[bytes]:
            self.assertEqual(number, len(waiting))
            waiting.append(Deferred())
            return waiting[-1]

        contents = reading(self.paths, read_one)()
        self.assertEqual(len(waiting), 1)
        waiting[0].callback(b"chain")
        waiting[1].callback(b"key")
        self.assertEqual(self.successResultOf(contents), [b"chain", b"key"])

    def test_one_that_cannot_be_read_is_named(self) -> None:
        def read_one(number: int) -> Deferred[bytes]:
            return (
                fail(PermissionError(errno.EACCES, "Permission denied")) if number else succeed(b"")
            )

        failure = self.failureResultOf(reading(self.paths, read_one)(), BadCertificate)
        self.assertEqual(
            failure.getErrorMessage(), "/etc/key.pem: cannot be read: Permission denied"
        )
