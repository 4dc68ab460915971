"""Servers that are spoken to by TLS: nothing is said to them without, whatever they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ldaptor.protocols import pureldap
from OpenSSL import SSL
from twisted.internet.error import ConnectionLost
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from qmailldap.control import Control, ControlError, ServerAddress
from qmailldap.directory import Directory, tls_by_server
from qmailldap.directory._frames import MESSAGE_LIMIT
from qmailldap.directory.directory import ATTEMPT_LIMIT
from tests.directory.fake import (
    BASE,
    Behaviour,
    FakeServer,
    Peer,
    agrees_to_tls,
    closes,
    extends_with,
    finds,
    notice_of_disconnection,
    says_nothing,
    sends,
    sends_half,
    shakes_hands,
    shows_a_certificate,
)
from tests.directory.test_directory import JOE, DirectoryTestCase

EXPIRED = "its certificate has expired"


def and_then(octets: bytes) -> Behaviour:
    """Agree to StartTLS, and send more in the same packet."""

    def answer(peer: Peer, message: Any) -> None:
        agreed = pureldap.LDAPMessage(pureldap.LDAPExtendedResponse(resultCode=0), id=message.id)
        peer.deliver(agreed.toWire() + octets)

    return answer


def never(peer: Peer) -> None:
    """Never end a handshake."""


class TLSTestCase(DirectoryTestCase):
    def secured(self, *servers: FakeServer, **facts: Any) -> Directory:
        return self.start_directory(*servers, **{"ldaptls": True, **facts})

    def kinds(self, server: FakeServer) -> list[str]:
        return [type(message.value).__name__ for message in server.requests]

    def assert_knows_nothing(self, server: FakeServer) -> None:
        """The server was asked for TLS, if for anything."""
        self.assertLessEqual({*self.kinds(server)}, {"LDAPExtendedRequest", "LDAPUnbindRequest"})

    def assert_of_no_use(self, server: FakeServer, reason: str) -> None:
        (event,) = [event for event in self.events if event["log_level"] is LogLevel.error]
        self.assertEqual((event["server"], event["reason"]), (str(server.address), reason))


class StartTLSTests(TLSTestCase):
    def test_tls_is_begun_before_anything_else_is_said(self) -> None:
        self.one.passwords[b"cn=us"] = b"ours"
        self.one.handshake = never
        directory = self.secured(self.one, ldaplogin="cn=us", ldappassword=b"ours")
        found = self.begin(directory.find(b"joe"))
        self.network.settle()
        (request,) = self.one.requests
        self.assertEqual(request.value.requestName, b"1.3.6.1.4.1.1466.20037")
        (peer,) = self.one.peers
        self.assertTrue(peer.tls)
        shakes_hands(peer)
        self.network.settle()
        self.assertEqual(self.names(self.successResultOf(found)), [JOE])
        self.assertEqual(self.kinds(self.one)[1:], ["LDAPBindRequest", "LDAPSearchRequest"])
        self.assertEqual(self.log_lines(), [])

    def test_every_connection_has_tls(self) -> None:
        directory = self.secured(self.one)
        self.result(directory.find(b"joe"))
        self.assertTrue(self.result(directory.prove(JOE, b"secret")))
        self.assertEqual([peer.tls for peer in self.one.peers], [True, True])

    def test_the_name_of_the_operation_may_be_in_its_answer(self) -> None:
        self.one.extended = extends_with(0, responseName="1.3.6.1.4.1.1466.20037")
        self.assertEqual(self.names(self.result(self.secured(self.one).find(b"joe"))), [JOE])

    def test_where_it_is_refused_the_next_server_is_asked(self) -> None:
        for code, said in (
            (2, "protocolError (b'unsupported')"),
            (52, "unavailable (b'unsupported')"),
            (1, "operationsError (b'unsupported')"),
        ):
            self.events.clear()
            self.one.requests.clear()
            self.one.extended = extends_with(code, "unsupported")
            directory = self.secured(self.one, self.two)
            self.assertEqual(self.names(self.result(directory.find(b"joe"))), [JOE])
            self.assert_of_no_use(self.one, f"it refuses StartTLS (control file ldaptls): {said}")
            self.assert_knows_nothing(self.one)

    def test_a_server_that_refuses_it_is_never_spoken_to_without(self) -> None:
        self.one.extended = extends_with(2)
        directory = self.secured(self.one)
        self.assertIn("refuses StartTLS", self.fails(directory.find(b"joe")))
        for _ in range(20):
            self.fails(directory.find(b"joe"))
            self.fails(directory.prove(JOE, b"secret"))
            self.network.settle(1.5)
        self.assertGreater(len(self.one.requests), 5)
        self.assert_knows_nothing(self.one)
        self.assertEqual(len(self.log_lines()), 1)

    def test_what_is_no_answer_to_it_begins_no_tls(self) -> None:
        large = pureldap.LDAPExtendedResponse(resultCode=0, errorMessage="x" * MESSAGE_LIMIT)
        for behaviour in (
            closes,
            sends_half,
            checks_password_of_anyone,
            sends(b"HTTP/1.1 400 Bad Request\r\n"),
            sends(notice_of_disconnection()),
            extends_with(0, responseName="1.3.6.1.4.1.4203.1.11.3"),
            lambda peer, message: peer.answer(message, large),
        ):
            self.one.extended = behaviour
            directory = self.secured(self.one, self.two)
            self.assertEqual(self.names(self.result(directory.find(b"joe"))), [JOE])
            self.assertFalse(any(peer.tls for peer in self.one.peers))
            self.assert_knows_nothing(self.one)
            self.assertEqual(self.one.open_peers, [])

    def test_plain_text_behind_the_answer_is_never_taken_for_the_servers(self) -> None:
        bound = pureldap.LDAPMessage(pureldap.LDAPBindResponse(resultCode=0), id=2).toWire()
        for octets in (bound, bound[:5], b"0", b"\x16\x03\x03"):
            self.one.extended = and_then(octets)
            directory = self.secured(self.one)
            self.assertIn("plain text where TLS begins", self.fails(directory.find(b"joe")))
            self.assertFalse(any(peer.tls for peer in self.one.peers))
            self.assert_knows_nothing(self.one)
            self.network.settle(2)

    def test_a_server_that_does_not_answer_it_is_waited_for_no_longer_than_for_a_bind(
        self,
    ) -> None:
        self.one.extended = says_nothing
        directory = self.secured(self.one, self.two)
        found = self.begin(directory.find(b"joe"))
        self.network.settle(ATTEMPT_LIMIT - 0.1)
        self.assertNoResult(found)
        self.network.settle(0.2)
        self.assertEqual(self.names(self.successResultOf(found)), [JOE])
        self.assertEqual(self.one.open_peers, [])
        self.assertIn("no TLS within 5.0 s", self.log_lines()[0])

    def test_a_directory_can_be_stopped_while_it_waits(self) -> None:
        for extended, handshake in ((says_nothing, never), (agrees_to_tls, never)):
            self.one.extended, self.one.handshake = extended, handshake
            directory = self.secured(self.one)
            found = self.begin(directory.find(b"joe"))
            self.network.settle()
            stopped = directory.stop()
            self.network.settle()
            self.successResultOf(stopped)
            self.assertIn("stopped", self.failureResultOf(found).value.reason)
            self.assertEqual(self.one.open_peers, [])


def checks_password_of_anyone(peer: Peer, message: Any) -> None:
    """Answer as if it had been a bind."""
    peer.answer(message, pureldap.LDAPBindResponse(resultCode=0))


class HandshakeTests(TLSTestCase):
    def test_a_server_of_ldaps_is_not_asked_for_tls(self) -> None:
        server = self.network.server("three", tls=True)
        for ldaptls in (False, True):
            directory = self.secured(server, ldaptls=ldaptls)
            self.assertEqual(self.names(self.result(directory.find(b"joe"))), [JOE])
            self.assertTrue(server.peers[-1].tls)
            self.assertNotIn("LDAPExtendedRequest", self.kinds(server))

    def test_a_server_without_tls_is_asked_for_none(self) -> None:
        directory = self.secured(self.one, ldaptls=False)
        self.assertEqual(self.names(self.result(directory.find(b"joe"))), [JOE])
        self.assertFalse(self.one.peers[0].tls)
        self.assertNotIn("LDAPExtendedRequest", self.kinds(self.one))

    def test_a_certificate_that_is_not_accepted_is_told_once_until_it_is(self) -> None:
        three = self.network.server("three", tls=True)
        for server in (self.one, three):
            self.events.clear()
            server.handshake = shows_a_certificate(EXPIRED)
            directory = self.secured(server, self.two)
            for _ in range(5):
                self.assertEqual(self.names(self.result(directory.find(b"joe"))), [JOE])
                self.network.settle(2)
            self.assert_of_no_use(server, EXPIRED)
            self.assert_knows_nothing(server)
            self.assertEqual(len(self.log_lines()), 1)
            server.handshake = shakes_hands
            self.network.settle(20)
            self.assertIn("is up again", self.log_lines()[-1])
            self.result(directory.find(b"joe"))
            self.assertEqual(server.logins, [b"joe"])

    def test_a_login_is_told_of_no_directory_where_there_is_no_other_server(self) -> None:
        self.one.handshake = shows_a_certificate(EXPIRED)
        directory = self.secured(self.one)
        self.assertEqual(self.fails(directory.find(b"joe")), f"one:389: {EXPIRED}")
        self.network.settle(2)
        self.assertIn(EXPIRED, self.fails(directory.prove(JOE, b"secret")))
        self.assert_knows_nothing(self.one)

    def test_a_server_that_does_not_end_the_handshake_is_left(self) -> None:
        self.one.handshake = never
        directory = self.secured(self.one, self.two)
        self.assertEqual(self.names(self.result(directory.find(b"joe"), seconds=6)), [JOE])
        self.assertEqual(self.one.open_peers, [])
        self.assert_knows_nothing(self.one)
        self.assertIn("no TLS within 5.0 s", self.log_lines()[0])

    def test_an_end_within_the_handshake_is_told_as_what_it_is(self) -> None:
        for reason, said in (
            (SSL.Error([("SSL routines", "", "wrong version number")]), "wrong version number"),
            (ConnectionLost("reset"), "reset"),
        ):
            self.events.clear()
            self.one.handshake = lambda peer, reason=reason: peer.close(Failure(reason))  # type: ignore[misc]
            directory = self.secured(self.one, self.two)
            self.assertEqual(self.names(self.result(directory.find(b"joe"))), [JOE])
            (line,) = self.log_lines()
            self.assertIn("directory server one:389 is down: TLS cannot be begun: ", line)
            self.assertIn(said, line)

    def test_an_alert_behind_the_handshake_is_told_as_what_it_is(self) -> None:
        alert = Failure(SSL.Error([("SSL routines", "", "tlsv13 alert certificate required")]))
        self.one.bind = lambda peer, message: peer.close(alert)
        directory = self.secured(self.one)
        self.assertIn("alert certificate required", self.fails(directory.find(b"joe")))

    def test_a_connection_by_tls_that_closes_on_every_search_takes_the_server_down(self) -> None:
        # As without TLS: what was answered to StartTLS is no sign of life.
        self.one.search = closes
        directory = self.secured(self.one, self.two)
        for _ in range(4):
            self.assertEqual(self.names(self.result(directory.find(b"joe"))), [JOE])
        self.assertTrue(any("one:389 is down" in line for line in self.log_lines()))
        self.one.search = finds


class ControlTests(DirectoryTestCase):
    def control(self, *servers: ServerAddress, **facts: Any) -> Control:
        return Control(ldapserver=servers, ldapbasedn=BASE, directory="/control", **facts)

    def test_a_file_of_authorities_that_cannot_be_used_is_a_fault_of_the_control_files(
        self,
    ) -> None:
        missing = Path(self.mktemp())
        for facts, server in (
            ({"ldaptls": True}, ServerAddress("one")),
            ({}, ServerAddress("one", 636, tls=True)),
        ):
            control = self.control(server, ldapcacert=missing, **facts)
            with self.assertRaises(ControlError) as caught:
                Directory(self.clock, control)
            self.assertEqual(caught.exception.file, "/control/ldapcacert")
            self.assertIn("cannot be read", caught.exception.problem)

    def test_the_file_is_not_read_where_no_server_speaks_tls(self) -> None:
        control = self.control(ServerAddress("one"), ldapcacert=Path(self.mktemp()))
        self.assertEqual(tls_by_server(control), {})

    def test_a_host_that_no_certificate_can_bear_is_a_fault_of_the_control_files(self) -> None:
        for host in ("m\xfcnchen.example.org", "a..b", "x" * 254):
            control = self.control(ServerAddress("one"), ServerAddress(host, tls=True))
            with self.assertRaises(ControlError) as caught:
                tls_by_server(control)
            self.assertEqual(caught.exception.file, "/control/ldapserver")
            self.assertIn("no name that a certificate can bear", caught.exception.problem)

    def test_only_servers_that_are_to_speak_tls_do(self) -> None:
        plain, secure = ServerAddress("one"), ServerAddress("::1", 636, tls=True)
        self.assertEqual([*tls_by_server(self.control(plain, secure))], [secure])
        both = self.control(plain, secure, ldaptls=True)
        self.assertEqual([*tls_by_server(both)], [plain, secure])
