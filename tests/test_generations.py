"""What is in force while control files change: whom a login asks, and what is let go when."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from unittest import mock

from twisted.cred.credentials import UsernamePassword
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.admission import Sessions
from qmailldap.control import Control, ControlError, ControlSnapshot
from qmailldap.directory import Directory
from qmailldap.generation import Lasting
from qmailldap.generations import LONGEST_LOGIN, MOST_LEAVING, ROOM_LIMIT, Generations
from qmailldap.interfaces import IForwardedSession, IMaildrop
from qmailldap.options import Options
from qmailldap.pop3.sasl import apop_login
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.threads import Busy
from qmailldap.tls.pem import BadCertificate
from qmailldap.turns import Turns
from qmailldap.workers.reload import PREPARE_LIMIT
from tests.loglevels import log_at, logged_lines
from tests.tls.support import Identity, identity, shown_to

TIMEOUT = 30


class FakeBroker:
    """Reads dirmaker; ``program`` is what it finds there."""

    def __init__(self) -> None:
        self.program = b""
        self.taken: list[int] = []
        self.asked: Deferred[tuple[int, bytes]] | None = None
        self._number = 0

    async def read_dirmaker(self) -> tuple[int, bytes]:
        self._number += 1
        if self.asked is not None:
            return await self.asked
        return self._number, self.program

    def take_dirmaker(self, number: int, taken: Callable[[], None]) -> None:
        self.taken.append(number)
        taken()


class FakeKeepers:
    def __init__(self) -> None:
        self.renewed = 0

    def renew(self) -> None:
        self.renewed += 1


class GenerationsTestCase(SynchronousTestCase):
    options: tuple[str, ...] = ()

    def setUp(self) -> None:
        log_at(self)
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.reactor: Any = MemoryReactorClock()
        self.stopped: list[Control] = []
        self.patch(Directory, "start", lambda _: None)
        self.broker, self.keepers = FakeBroker(), FakeKeepers()
        options = Options()
        options.parseOptions(["--control", str(self.directory), *self.options])
        self.lasting = Lasting(
            reactor=self.reactor,
            options=options,
            certificates=(),
            read_certificate=lambda number: fail(Busy("nobody reads")),
            mail_threads=cast(Any, maybeDeferred),
            hash_threads=cast(Any, maybeDeferred),
            name_threads=cast(Any, maybeDeferred),
            sessions=Sessions(0),
            mailboxes=Turns(self.reactor),
            broker=cast(Any, self.broker),
            keepers=cast(Any, self.keepers),
        )
        self.write(ldapserver="192.0.2.1", ldaplocaldelivery="0", ldaptimeout=str(TIMEOUT))
        self.generations = Generations(self.snapshot(), self.lasting)
        self.generations.startService()
        self.addCleanup(self.end)
        self.lines = logged_lines(self)

    def end(self) -> None:
        self.successResultOf(self.generations.stopService())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def write(self, **files: str | None) -> None:
        for name, text in files.items():
            path = self.directory / name.replace("_", ".")
            if text is None:
                path.unlink()
            else:
                path.write_text(text + "\n")

    def snapshot(self) -> ControlSnapshot:
        return ControlSnapshot.read(self.directory)

    def prepare(self, **files: str | None) -> Deferred[None]:
        self.write(**files)
        return self.generations.prepare(self.snapshot())

    def load(self, **files: str | None) -> None:
        self.successResultOf(self.prepare(**files))
        self.generations.commit()


class LoginsTests(GenerationsTestCase):
    def setUp(self) -> None:
        self.asked: list[tuple[Directory, Deferred[Any]]] = []
        self.gone: list[Directory] = []

        async def find(directory: Directory, login: bytes) -> Any:
            self.asked.append((directory, Deferred()))
            return await self.asked[-1][1]

        def stop(directory: Directory) -> Deferred[None]:
            self.gone.append(directory)
            return succeed(None)

        self.patch(Directory, "find", find)
        self.patch(Directory, "stop", stop)
        super().setUp()

    @property
    def in_force(self) -> Directory:
        return self.generations.in_force.directory.value

    def log_in(self) -> Deferred[Any]:
        login = self.generations.portal.login(
            UsernamePassword(b"joe", b"secret"), None, IMaildrop, IForwardedSession
        )
        return cast("Deferred[Any]", login)

    def answer(self, number: int) -> None:
        """That there is no such user; who is refused waits for a moment."""
        self.asked[number][1].callback(())
        self.reactor.advance(1)

    def test_a_login_keeps_to_what_was_in_force_when_it_began(self) -> None:
        first = self.in_force
        before = self.log_in()
        self.load(ldapserver="192.0.2.2")
        second = self.in_force
        after = self.log_in()
        self.assertEqual([directory for directory, _ in self.asked], [first, second])
        self.assertEqual(self.gone, [])
        self.answer(0)
        self.failureResultOf(before, LoginRefused)
        self.assertEqual(self.gone, [first])
        self.answer(1)
        self.failureResultOf(after, LoginRefused)
        self.assertEqual(self.gone, [first])

    def test_what_no_login_asks_is_let_go_at_once(self) -> None:
        first = self.in_force
        self.load(ldapserver="192.0.2.2")
        self.assertEqual(self.gone, [first])

    def test_a_login_that_does_not_end_is_not_waited_for_without_end(self) -> None:
        first = self.in_force
        login = self.log_in()
        self.load(ldapserver="192.0.2.2")
        self.reactor.advance(LONGEST_LOGIN + 2 * TIMEOUT - 1)
        self.assertEqual(self.gone, [])
        self.reactor.advance(1)
        self.assertEqual(self.gone, [first])
        self.answer(0)
        self.failureResultOf(login, LoginRefused)
        self.assertEqual(self.gone, [first])

    def fill(self) -> list[Deferred[Any]]:
        """A login under way for each state but the last; as many as there may be of them."""
        logins = []
        for number in range(MOST_LEAVING):
            logins.append(self.log_in())
            self.load(ldapserver=f"192.0.2.{number + 2}")
        self.assertEqual((self.gone, self.lines), ([], []))
        return logins

    def test_so_many_are_waited_for_at_a_time_and_none_goes_under_a_login(self) -> None:
        logins = self.fill()
        before = self.in_force
        prepared = self.prepare(ldapserver="192.0.2.100")
        self.reactor.advance(ROOM_LIMIT - 1)
        self.assertNoResult(prepared)
        self.assertEqual(
            self.lines, [f"control waits: logins under way ask {MOST_LEAVING} earlier states"]
        )
        self.answer(3)
        self.successResultOf(prepared)
        self.assertEqual(self.gone, [self.asked[3][0]])
        self.assertIs(self.in_force, before)
        self.generations.commit()
        for number in {*range(MOST_LEAVING)} - {3}:
            self.answer(number)
        for login in logins:
            self.failureResultOf(login, LoginRefused)
        self.assertEqual(len(self.gone), MOST_LEAVING + 1)

    def test_what_is_to_follow_does_not_wait_for_longer_than_whoever_asked(self) -> None:
        self.fill()
        prepared = self.prepare(ldapserver="192.0.2.100")
        self.reactor.advance(ROOM_LIMIT)
        failure = self.failureResultOf(prepared, Busy)
        self.assertIn(f"ask {MOST_LEAVING} earlier states", failure.getErrorMessage())
        self.assertRaises(AssertionError, self.generations.commit)
        self.assertLess(ROOM_LIMIT, PREPARE_LIMIT)

    def test_there_is_room_at_the_latest_when_the_first_may_be_asked_no_more(self) -> None:
        self.fill()
        room = self.generations.room()
        self.reactor.advance(LONGEST_LOGIN + 2 * TIMEOUT - 1)
        self.assertNoResult(room)
        self.reactor.advance(1)
        self.successResultOf(room)

    def test_the_end_of_the_server_ends_the_wait_and_nothing_is_prepared(self) -> None:
        self.fill()
        room, prepared = self.generations.room(), self.prepare(ldapserver="192.0.2.100")
        self.successResultOf(self.generations.stopService())
        self.successResultOf(room)
        self.successResultOf(prepared)
        self.assertRaises(AssertionError, self.generations.commit)
        self.generations.startService()

    def test_a_directory_whose_files_are_the_same_is_kept(self) -> None:
        first = self.in_force
        login = self.log_in()
        self.load(me="other.example.org", pop3limits="sessions:3", ldapuid="1000")
        self.assertIs(self.in_force, first)
        self.answer(0)
        self.failureResultOf(login, LoginRefused)
        self.assertEqual(self.gone, [])
        self.load(ldapbasedn="dc=example,dc=org")
        self.assertEqual(self.gone, [first])

    def test_answers_to_challenges_are_refused_once_they_are_taken_no_more(self) -> None:
        self.load(ldapcleartext="2")
        answer = apop_login(b"<1@me>", b"joe", b"0" * 32).credentials
        self.load(ldapcleartext="0")
        login = self.generations.portal.login(answer, None, IMaildrop, IForwardedSession)
        refused = self.failureResultOf(login, LoginRefused).value
        self.assertIs(refused.refusal, Refusal.WRONG_CREDENTIALS)
        self.assertIs(refused.judged, False)


class AllOrNothingTests(GenerationsTestCase):
    def test_nothing_changes_before_all_have_prepared(self) -> None:
        before = self.generations.in_force
        self.broker.program = b"/bin/true"
        self.successResultOf(self.prepare(ldapserver="192.0.2.2", dirmaker="/bin/true"))
        self.assertIs(self.generations.in_force, before)
        self.assertEqual((self.broker.taken, self.keepers.renewed), ([], 0))
        self.generations.abort()
        self.assertRaises(AssertionError, self.generations.commit)

    def test_a_file_that_is_wrong_is_named_and_nothing_is_prepared(self) -> None:
        before = self.generations.in_force
        for files, fault in (
            ({"ldaptimeout": "99999"}, "ldaptimeout: 99999 is out of range"),
            ({"ldaptimeout": None, "ldapobjectclass": ")("}, "ldapobjectclass: "),
            ({"ldapobjectclass": None, "pop3clusterca": "x", "pop3clustertls": "2"}, "clusterca: "),
        ):
            failure = self.failureResultOf(self.prepare(**cast(Any, files)), ControlError)
            self.assertIn(fault, failure.getErrorMessage())
            self.assertRaises(AssertionError, self.generations.commit)
        self.assertIs(self.generations.in_force, before)

    def test_where_a_part_cannot_begin_all_is_as_it_was(self) -> None:
        before = self.generations.in_force
        with mock.patch.object(Directory, "start", side_effect=ZeroDivisionError):
            self.successResultOf(self.prepare(ldapserver="192.0.2.2"))
            self.assertRaises(ZeroDivisionError, self.generations.commit)
        self.assertIs(self.generations.in_force, before)
        self.load(ldapserver="192.0.2.3")
        self.assertIsNot(self.generations.in_force, before)

    def test_followers_are_told_what_is_in_force_and_since_when(self) -> None:
        told: list[Control] = []
        self.generations.followers.append(lambda generation: told.append(generation.control))
        self.reactor.advance(10)
        self.load(me="mail.example.org")
        self.assertEqual([control.me for control in told], ["mail.example.org"])
        self.assertEqual(self.generations.since, self.reactor.seconds())

    def test_what_is_to_be_looked_at_is_told_when_it_is_new(self) -> None:
        self.load(ldapuid="nobody")
        self.load(me="x")
        (line,) = self.lines
        self.assertIn("ldapuid", line)

    def test_what_is_aborted_while_it_is_prepared_is_not_in_force_later(self) -> None:
        self.broker.asked = Deferred()
        prepared = self.prepare(dirmaker="/bin/true")
        self.generations.abort()
        self.broker.asked.callback((1, b"/bin/true"))
        self.successResultOf(prepared)
        self.assertRaises(AssertionError, self.generations.commit)


class DirmakerTests(GenerationsTestCase):
    def test_the_broker_takes_what_it_has_read_itself(self) -> None:
        self.broker.program = b"/bin/true"
        self.load(dirmaker="/bin/true")
        self.assertEqual((self.broker.taken, self.keepers.renewed), ([1], 1))
        self.load(me="x")
        self.assertEqual((self.broker.taken, self.keepers.renewed), ([1], 1))
        self.broker.program = b""
        self.load(dirmaker=None)
        self.assertEqual((self.broker.taken, self.keepers.renewed), ([1, 2], 2))

    def test_both_must_have_read_the_same(self) -> None:
        self.broker.program = b"/bin/false"
        failure = self.failureResultOf(self.prepare(dirmaker="/bin/true"), ControlError)
        self.assertIn("dirmaker: was changed while", failure.getErrorMessage())


class CertificatesTests(GenerationsTestCase):
    def pem(self, which: Identity) -> str:
        return which.both.decode()

    @property
    def shown(self) -> bytes:
        certificates = self.generations.in_force.certificates
        assert certificates is not None
        return cast(bytes, shown_to(certificates)[0])

    def test_they_change_with_all_others_or_not_at_all(self) -> None:
        first, second = identity("a.example.org"), identity("a.example.org", number=1)
        self.load(cert_pem=self.pem(first))
        certificates = self.generations.in_force.certificates
        self.assertEqual(self.shown, first.certificate)
        self.failureResultOf(
            self.prepare(cert_pem=self.pem(second), ldaptimeout="99999"), ControlError
        )
        self.assertEqual(self.shown, first.certificate)
        self.load(ldaptimeout="20")
        self.assertEqual(self.shown, second.certificate)
        self.failureResultOf(self.prepare(cert_pem="none", ldaptimeout="10"), BadCertificate)
        self.assertEqual(self.generations.in_force.control.ldaptimeout, 20)
        self.assertEqual(self.shown, second.certificate)
        # Listeners that speak TLS from the start were given this very object.
        self.assertIs(self.generations.in_force.certificates, certificates)

    def test_one_that_is_gone_is_told_of(self) -> None:
        self.load(cert_pem=self.pem(identity("a.example.org")))
        self.load(cert_pem=None)
        self.assertIsNone(self.generations.in_force.certificates)
        self.assertIn("certificate none is left", self.lines[-1])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_who_requires_tls_cannot_do_without_one(self) -> None:
        self.load(cert_pem=self.pem(identity("a.example.org")), requiretls="1")
        failure = self.failureResultOf(self.prepare(cert_pem=None), ControlError)
        self.assertIn("requiretls: is 1, and without a cert.pem", failure.getErrorMessage())


class Pop3sTests(GenerationsTestCase):
    options = ("--pop3s", "tcp:995")

    def test_an_endpoint_that_speaks_tls_cannot_do_without_a_certificate(self) -> None:
        self.load(cert_pem=identity("a.example.org").both.decode())
        failure = self.failureResultOf(self.prepare(cert_pem=None), ControlError)
        self.assertIn("cert.pem: is missing, and --pop3s tcp:995", failure.getErrorMessage())


class ManyTests(GenerationsTestCase):
    def test_nothing_is_left_of_a_thousand(self) -> None:
        certificates = [identity("a.example.org", number=each).both.decode() for each in (0, 1)]
        self.load(cert_pem=certificates[1])
        self.broker.program = b"/bin/true"

        def left() -> tuple[int, int, int]:
            gc.collect()
            directories = sum(isinstance(each, Directory) for each in gc.get_objects())
            return (
                directories,
                len(self.reactor.getDelayedCalls()),
                len(os.listdir("/proc/self/fd")),
            )

        def turn(number: int) -> None:
            self.load(
                ldapserver=f"192.0.2.{number % 2 + 1}",
                pop3routes=f"a.example.org:192.0.2.{number % 3 + 1}:110",
                pop3limits=f"sessions:{number % 5 + 1}",
                dirmaker="/bin/true" if number % 2 else "",
            )
            self.broker.program = b"" if number % 2 else b"/bin/true"

        self.broker.program = b""
        turn(0)
        before = left()
        for number in range(1, 1001):
            turn(number)
            if number % 100 == 0:
                self.load(cert_pem=certificates[number // 100 % 2])
        self.assertEqual(left(), before)
        # The watch on the certificate.
        self.assertEqual(before[1], 1)
