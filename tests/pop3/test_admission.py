"""Who is let in, how soon a refusal is told, and how long a client may take for its login."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.task import Clock
from twisted.logger import formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.loglevel import Log
from qmailldap.pop3 import Limits, POP3Factory
from qmailldap.pop3.admission import Everyone
from qmailldap.refusal import LoginRefused, Refusal
from tests.pop3.maildrop import (
    PASSWORD,
    Admissions,
    Maildrop,
    Realm,
    SecureTransport,
    Server,
    Transport,
)

LOGIN = b"USER joe\r\nPASS " + PASSWORD + b"\r\n"
GUESS = b"USER joe\r\nPASS x\r\n"
WRONG = b"-ERR [AUTH] authorization failed\r\n"
PEER = "192.168.1.1"
LOST = Failure(ConnectionDone())


def refused(events: list[Any]) -> list[str]:
    return [line for line in events if line.startswith("refused ")]


class EnterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.admission = Admissions()
        checker = InMemoryUsernamePasswordDatabaseDontUse(joe=PASSWORD)
        self.factory = POP3Factory(
            Portal(Realm(Maildrop()), [checker]), "me", Clock(), admission=self.admission
        )
        self.events: list[str] = []
        log = Log(
            namespace="test",
            observer=lambda event: self.events.append(formatEvent(event)),  # type: ignore[arg-type]
        )
        self.clock = Clock()
        self.factory.settings = attrs.evolve(self.factory.settings, log=log, clock=self.clock)

    def connect(self, transport: Transport, host: str = "192.0.2.7") -> Any:
        protocol = self.factory.buildProtocol(IPv4Address("TCP", host, 1))
        protocol.makeConnection(transport)
        return protocol

    def test_a_connection_is_asked_for_by_its_address(self) -> None:
        self.connect(Transport(), "192.0.2.7")
        self.factory.buildProtocol(UNIXAddress(b""))
        self.assertEqual(self.admission.asked, [("enter", "192.0.2.7"), ("enter", "")])

    def test_who_is_refused_is_told_so_and_closed(self) -> None:
        self.admission.refused = LoginRefused(Refusal.TOO_MANY_CONNECTIONS, "200 from 192.0.2.7")
        transport = Transport()
        protocol = self.connect(transport)
        self.assertEqual(transport.value(), b"-ERR [SYS/TEMP] too many connections\r\n")
        self.assertTrue(transport.disconnecting)
        self.assertTrue(IHalfCloseableProtocol.providedBy(protocol))
        protocol.dataReceived(LOGIN)
        protocol.readConnectionLost()
        protocol.connectionLost(LOST)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        (line,) = refused(self.events)
        self.assertRegex(
            line,
            r'\Arefused user="" peer=192\.0\.2\.7 session=\S+ reason=too-many-connections'
            r' detail="200 from 192\.0\.2\.7"\Z',
        )

    def test_no_handshake_is_made_for_who_is_refused(self) -> None:
        self.admission.refused = LoginRefused(Refusal.TOO_MANY_CONNECTIONS)
        transport = SecureTransport()
        self.connect(transport)
        self.assertTrue(transport.aborted)
        self.assertEqual(transport.value(), b"")
        self.assertEqual(len(refused(self.events)), 1)

    def test_a_place_is_left_with_the_connection(self) -> None:
        protocol = self.connect(Transport())
        (place,) = self.admission.places
        self.assertEqual((place.is_logged_in, place.left), (False, 0))
        protocol.connectionLost(LOST)
        self.assertEqual(place.left, 1)

    def test_a_login_makes_the_place_ones_own(self) -> None:
        protocol = self.connect(Transport())
        protocol.dataReceived(GUESS)
        (place,) = self.admission.places
        self.assertFalse(place.is_logged_in)
        protocol.dataReceived(LOGIN)
        self.assertTrue(place.is_logged_in)

    def test_who_has_to_make_room_goes_at_once_with_one_line(self) -> None:
        transport = Transport()
        protocol = self.connect(transport)
        protocol.dataReceived(b"USER joe\r\n")
        self.admission.places[0].make_room()
        self.assertTrue(transport.aborted)
        protocol.connectionLost(LOST)
        (line,) = refused(self.events)
        self.assertIn("user=joe", line)
        self.assertIn(" reason=too-many-connections ", line)

    def test_without_an_admission_everyone_is_let_in(self) -> None:
        everyone = Everyone()
        everyone.enter("192.0.2.7", lambda: None).leave()
        everyone.check("192.0.2.7", b"joe")
        self.assertEqual(everyone.wrong("192.0.2.7", b"joe"), 0)


class GuessTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.admission = Admissions(delay=5)
        self.server = Server(admission=self.admission)
        self.lines = self.server.lines_of_log()
        self.admission.asked.clear()

    def test_who_guesses_too_often_is_refused_before_anybody_is_asked(self) -> None:
        self.admission.refused = LoginRefused(Refusal.TOO_MANY_GUESSES, "50.0 wrong passwords")
        answer = self.server.say(LOGIN)
        self.assertEqual(
            answer, b"+OK \r\n-ERR [SYS/TEMP] too many failed logins, try again later\r\n"
        )
        self.assertIsNone(self.server.realm.mind)
        self.assertEqual(self.admission.asked, [("check", PEER, b"joe")])
        self.assertIn(" reason=too-many-guesses ", self.lines[0])

    def test_a_wrong_password_is_counted_and_logged_at_once_and_told_later(self) -> None:
        self.assertEqual(self.server.say(GUESS + b"NOOP\r\n"), b"+OK \r\n")
        self.assertEqual(self.admission.asked[1:], [("wrong", PEER, b"joe")])
        self.assertIn(" reason=wrong-credentials ", self.lines[0])
        self.server.clock.advance(4.9)
        self.assertEqual(self.server.answers(), b"")
        self.server.clock.advance(0.1)
        self.assertEqual(self.server.answers(), WRONG + b"+OK \r\n")

    def test_a_right_one_is_not_held_back(self) -> None:
        self.assertEqual(self.server.say(LOGIN), b"+OK \r\n+OK \r\n")
        self.assertEqual(self.admission.asked, [("check", PEER, b"joe")])

    def test_what_only_reads_like_a_wrong_password_takes_as_long(self) -> None:
        self.server.realm.held = fail(
            LoginRefused(Refusal.RECORD_INCORRECT, shown=Refusal.WRONG_CREDENTIALS)
        )
        self.assertEqual(self.server.say(LOGIN), b"+OK \r\n")
        self.server.clock.advance(5)
        self.assertEqual(self.server.answers(), WRONG)

    def test_what_was_not_even_judged_is_no_guess(self) -> None:
        self.server.realm.held = fail(
            LoginRefused(Refusal.TEMPORARY, shown=Refusal.WRONG_CREDENTIALS, judged=False)
        )
        self.assertEqual(self.server.say(LOGIN), b"+OK \r\n" + WRONG)
        self.assertEqual(self.admission.asked, [("check", PEER, b"joe")])

    def test_other_refusals_are_nobodys_guess(self) -> None:
        for refusal in set(Refusal) - {Refusal.WRONG_CREDENTIALS}:
            server = Server(admission=self.admission)
            self.admission.asked.clear()
            server.realm.held = fail(LoginRefused(refusal))
            self.assertIn(b"-ERR", server.say(LOGIN))
            self.assertEqual(self.admission.asked, [("check", PEER, b"joe")])

    def test_who_leaves_meanwhile_leaves_nothing(self) -> None:
        self.server.say(GUESS)
        self.server.connection.connectionLost(LOST)
        self.assertEqual(self.server.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.lines), 1)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_guess_counts_for_whom_the_client_speaks(self) -> None:
        server = Server(admission=self.admission, trusted=[PEER])
        self.admission.asked.clear()
        server.say(b"XCLIENT ADDR=192.0.2.7\r\n" + GUESS)
        self.assertEqual({asked[1] for asked in self.admission.asked}, {"192.0.2.7"})

    def test_a_third_one_ends_the_connection_when_it_was_told(self) -> None:
        for _ in range(3):
            self.assertFalse(self.server.transport.disconnecting)
            self.server.say(GUESS)
            self.server.clock.advance(5)
        self.assertTrue(self.server.transport.disconnecting)
        self.assertEqual(self.server.answers(), WRONG)


class TimeTests(SynchronousTestCase):
    def test_a_client_has_a_minute_for_its_login_whatever_it_says(self) -> None:
        server = Server()
        lines = server.lines_of_log()
        for _ in range(59):
            server.clock.advance(1)
            server.say(b"NOOP\r\n")
        self.assertFalse(server.transport.aborted)
        server.clock.advance(1)
        self.assertTrue(server.transport.aborted)
        self.assertEqual(server.answers(), b"")
        server.connection.connectionLost(LOST)
        self.assertEqual(
            lines, [f'refused user="" peer={PEER} session=S1 reason=login-time detail="60 s"']
        )

    def test_how_long_is_said_by_the_site(self) -> None:
        server = Server(limits=Limits(login_time=300))
        server.clock.advance(299)
        self.assertFalse(server.transport.aborted)
        server.clock.advance(1)
        self.assertTrue(server.transport.aborted)

    def test_a_login_that_is_being_judged_may_end(self) -> None:
        server = Server()
        held: Deferred[None] = Deferred()
        server.realm.held = held
        server.say(LOGIN)
        server.clock.advance(90)
        self.assertFalse(server.transport.aborted)
        held.callback(None)
        self.assertEqual(server.say(b"STAT\r\n"), b"+OK \r\n+OK 0 0\r\n")
        server.clock.advance(599)
        self.assertFalse(server.transport.aborted)
        server.clock.advance(601)
        self.assertTrue(server.transport.aborted)

    def test_but_it_is_the_last_one(self) -> None:
        server = Server(admission=Admissions(delay=5))
        server.clock.advance(58)
        server.say(GUESS)
        server.clock.advance(4)
        self.assertEqual(server.answers(), b"")
        server.clock.advance(1)
        self.assertEqual(server.answers(), WRONG)
        self.assertTrue(server.transport.disconnecting)

    def test_after_the_login_the_time_for_it_is_of_no_concern(self) -> None:
        server = Server(limits=Limits(login_time=10)).log_in()
        server.clock.advance(500)
        self.assertFalse(server.transport.aborted)

    def test_a_client_that_does_not_take_the_last_answer_is_cut_off(self) -> None:
        for server in (Server(), Server().log_in()):
            server.say(b"QUIT\r\n")
            self.assertTrue(server.transport.disconnecting)
            server.clock.advance(59)
            self.assertFalse(server.transport.aborted)
            server.clock.advance(1)
            self.assertTrue(server.transport.aborted)

    def test_all_read_ahead_beyond_a_number_of_commands_is_not_read(self) -> None:
        server = Server(limits=Limits(pipelined=3))
        server.realm.held = Deferred()
        server.say(LOGIN)
        server.say(b"NOOP\r\n" * 3 + b"NOO")
        self.assertEqual(server.transport.producerState, "producing")
        server.say(b"P\r\n")
        self.assertEqual(server.transport.producerState, "paused")
        server.realm.held.callback(None)
        self.assertEqual(server.transport.producerState, "producing")
        self.assertEqual(server.answers(), b"+OK \r\n" * 5)

    def test_a_command_has_255_octets_with_its_end(self) -> None:
        for octets, answer in ((253, b"+OK \r\n"), (254, b"-ERR line too long\r\n")):
            self.assertEqual(Server().say(b"USER " + b"x" * (octets - 5) + b"\r\n"), answer)

    def test_who_speaks_for_others_may_say_more(self) -> None:
        said = b"XCLIENT ADDR=192.0.2.7 FORWARD=" + b"x" * 1000 + b"\r\n"
        self.assertEqual(Server(trusted=[PEER]).say(said), b"+OK \r\n")
        self.assertEqual(Server().say(said), b"-ERR line too long\r\n")
