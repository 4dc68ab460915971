"""A session that another member serves: the connection is left to it in one step."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from qmailldap.interfaces import IForwardedSession, Relayed
from qmailldap.loglevel import Log
from qmailldap.pop3 import Limits
from qmailldap.refusal import LoginRefused, Refusal
from tests.pop3.maildrop import PASSWORD, Admissions, Server

LOGIN = b"USER joe\r\nPASS " + PASSWORD + b"\r\n"

WAY = "method=pass tls=no"


@implementer(IHalfCloseableProtocol)
class Successor(Protocol):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.received: list[bytes | str] = []

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"+OK from afar\r\n")

    def dataReceived(self, data: bytes) -> None:
        self.received.append(data)

    def readConnectionLost(self) -> None:
        self.received.append("half-closed")

    def writeConnectionLost(self) -> None:
        raise AssertionError

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.received.append("lost")


@implementer(IForwardedSession)
class Session:
    """A session on a member that is not there."""

    mail_host = "mail2.example.org"
    member = "10.0.0.2:110"
    joined: tuple[bytes, bool] | None = None
    sent = 0
    closed = 0
    silence: float | None = 0.0
    deaf = False
    told: tuple[str, bytes] | None = None
    ended: Callable[[Relayed], None]

    def __init__(self) -> None:
        self.successor = Successor()

    def join(self, unread: bytes, all_read: bool, ended: Callable[[Relayed], None]) -> IProtocol:
        assert self.joined is None
        self.joined, self.ended = (unread, all_read), ended
        return self.successor

    def quiet(self) -> float | None:
        return self.silence

    def read_no_more(self) -> None:
        self.deaf = True

    def end(self, how: str, words: bytes) -> None:
        self.told = how, words

    def close(self) -> None:
        self.closed += 1


class HandingOnTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server(limits=Limits(idle=60))
        self.session = self.server.realm.session = Session()
        self.events: list[str] = []
        self.server.protocol._session.id = "S1"
        self.server.protocol._session.log = Log(
            namespace="test",
            observer=lambda event: self.events.append(formatEvent(event)),  # type: ignore[arg-type]
        )

    def test_the_session_of_these_tests_keeps_the_contract(self) -> None:
        verifyObject(IForwardedSession, self.session)

    def test_the_client_reads_what_the_member_has_said(self) -> None:
        self.assertEqual(self.server.say(LOGIN), b"+OK \r\n+OK from afar\r\n")
        self.assertEqual(self.session.joined, (b"", False))

    def test_what_comes_later_is_not_looked_at(self) -> None:
        self.server.say(LOGIN)
        for octets in (b"STAT\r\n", b"\xff\n", b"x" * 100_000):
            self.assertEqual(self.server.say(octets), b"")
        self.server.connection.readConnectionLost()
        self.server.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(
            self.session.successor.received,
            [b"STAT\r\n", b"\xff\n", b"x" * 100_000, "half-closed", "lost"],
        )

    def test_what_was_pipelined_behind_pass_is_handed_on_octet_by_octet(self) -> None:
        pipelined = b"STAT\r\nRETR 1\nxyzzy \xff\r\n" + b"z" * 2000 + b"\r\nQUIT\r\nhalf a li"
        self.server.realm.held = Deferred()
        self.server.say(LOGIN + pipelined[:40])
        self.server.say(pipelined[40:])
        self.server.connection.readConnectionLost()
        self.server.realm.held.callback(None)
        self.assertEqual(self.session.joined, (pipelined, True))

    def test_a_client_that_was_too_far_ahead_is_handed_on_with_all_of_it(self) -> None:
        pipelined = b"NOOP\r\n" * 20_000
        self.server.realm.held = Deferred()
        self.server.say(LOGIN + pipelined)
        self.assertEqual(self.server.transport.producerState, "paused")
        self.server.realm.held.callback(None)
        self.assertEqual(self.session.joined, (pipelined, False))

    def test_nothing_of_ours_is_left_on_the_transport(self) -> None:
        self.server.say(LOGIN)
        self.assertIsNone(self.server.transport.producer)
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_the_protocol_is_freed_at_once(self) -> None:
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        protocol = weakref.ref(self.server.protocol)
        del self.server.protocol
        self.server.say(LOGIN)
        self.assertIsNone(protocol())

    def test_a_client_that_left_meanwhile_leaves_no_session(self) -> None:
        self.server.realm.held = Deferred(lambda deferred: deferred.callback(None))
        self.server.say(LOGIN)
        self.server.connection.connectionLost(Failure(ConnectionDone()))
        self.assertIsNone(self.session.joined)
        self.assertEqual(self.session.closed, 1)

    def test_the_session_is_logged_out_once_and_only_when_it_is_over(self) -> None:
        self.server.say(LOGIN)
        self.server.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.session.closed, 0)
        self.session.ended(Relayed("client-closed", 1.0, 2, 3))
        self.assertEqual(self.session.closed, 1)

    def test_a_session_that_cannot_be_joined_is_logged_out_once(self) -> None:
        def join(*_: object) -> IProtocol:
            raise ZeroDivisionError("a fault")

        self.session.join = join  # type: ignore[assignment,method-assign]
        self.server.say(LOGIN)
        self.server.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.session.closed, 1)
        self.assertIn("failed what=command ", self.events[-1])

    def test_the_place_is_left_with_the_clients_connection(self) -> None:
        admission = Admissions()
        server = Server(admission=admission)
        server.realm.session = Session()
        (place,) = admission.places
        server.say(LOGIN)
        self.assertEqual((place.is_logged_in, place.left), (True, 0))
        server.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(place.left, 1)

    def test_a_refusal_in_the_words_of_the_member_reaches_the_client(self) -> None:
        for said in (b"[IN-USE] mailbox is locked", b"no", b"", b"\xfcbel"):
            server = Server()
            refused = LoginRefused(Refusal.MEMBER_REFUSED, "mail2.example.org", answer=said)
            server.realm.held = fail(refused)
            self.assertEqual(server.say(LOGIN), b"+OK \r\n-ERR " + said + b"\r\n")

    def test_a_forwarded_session_is_a_line_at_its_login_and_at_its_end(self) -> None:
        self.server.say(LOGIN)
        self.session.ended(Relayed("member-lost", 12.345, 100, 20))
        login, logout = self.events
        client = "user=joe peer=192.168.1.1 session=S1"
        member = "mailhost=mail2.example.org"
        self.assertEqual(login, f"login {client} {member} member=10.0.0.2:110 {WAY}")
        how = "seconds=12.3 sent=100 received=20"
        self.assertEqual(logout, f"logout {client} end=member-lost {member} {how}")

    def test_nobody_forges_a_line_by_the_name_of_a_host(self) -> None:
        self.session.mail_host = "a\nlogin user=b"
        self.server.say(LOGIN)
        self.assertIn('mailhost="a\\x0alogin user=b"', self.events[0])
