"""TLS as the protocol sees it: STLS, requiretls, the limit of a handshake."""

from __future__ import annotations

import base64
from typing import Any

from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.pop3 import Limits
from tests.loglevels import log_at
from tests.pop3.maildrop import PASSWORD, SecureTransport, Server, TLSTransport, Transport

CERTIFICATES: Any = object()
"""Only handed on by the protocol."""

BEGIN = b"+OK Begin TLS negotiation\r\n"
TLS_REQUIRED = b"-ERR [SYS/PERM] must issue a STLS command first\r\n"
LOGIN = b"USER joe\r\nPASS " + PASSWORD + b"\r\n"
PLAIN = b"AUTH PLAIN " + base64.b64encode(b"\0joe\0" + PASSWORD) + b"\r\n"
PEER = "192.168.1.1"


def server(transport: Transport | None = None, **settings: Any) -> Server:
    settings.setdefault("tls", CERTIFICATES)
    return Server(b"one\n", transport=transport or TLSTransport(), **settings)


class StlsTests(SynchronousTestCase):
    def capabilities(self, server: Server) -> list[bytes]:
        return server.say(b"CAPA\r\n").split(b"\r\n")

    def test_it_is_offered_where_there_is_a_certificate_and_no_tls_yet(self) -> None:
        self.assertIn(b"STLS", self.capabilities(server()))
        for other in (server(tls=None), server(Transport()), server(SecureTransport())):
            self.assertNotIn(b"STLS", self.capabilities(other))

    def test_where_it_is_not_offered_there_is_no_such_command(self) -> None:
        for other in (server(tls=None), server(Transport())):
            for arguments in (b"", b" x"):
                answer = other.say(b"STLS" + arguments + b"\r\n")
                self.assertEqual(answer, b"-ERR authorization first\r\n")

    def test_it_begins_tls_behind_its_answer(self) -> None:
        client = server()
        self.assertEqual(client.say(b"STLS\r\n"), BEGIN)
        self.assertIs(client.transport.started, CERTIFICATES)  # type: ignore[attr-defined]
        client.protocol.handshakeCompleted()
        self.assertNotIn(b"STLS", self.capabilities(client))
        client.log_in()

    def test_a_second_time_it_is_refused(self) -> None:
        for client in (server(SecureTransport()), server()):
            client.say(b"STLS\r\n")
            client.protocol.handshakeCompleted()
            answer = client.say(b"STLS\r\n")
            self.assertEqual(answer, b"-ERR Command not permitted when TLS active\r\n")

    def test_after_the_login_it_is_too_late(self) -> None:
        client = server().log_in()
        self.assertEqual(client.say(b"STLS\r\n"), b"-ERR unimplemented\r\n")
        self.assertNotIn(b"STLS", self.capabilities(client))

    def test_what_stands_behind_it_in_plain_text_is_thrown_away(self) -> None:
        for behind in (b"USER joe\r\n", LOGIN + b"QUIT\r\n", b"half a li", b"x" * 10_000):
            client = server()
            self.assertEqual(client.say(b"NOOP\r\nSTLS\r\n" + behind), b"+OK \r\n" + BEGIN)
            client.protocol.handshakeCompleted()
            self.assertEqual(client.say(b"NOOP\r\n"), b"+OK \r\n")
            self.assertFalse(client.transport.disconnecting)

    def test_a_client_far_ahead_of_it_is_read_again(self) -> None:
        client = server()
        client.realm.held = Deferred()
        client.say(b"USER joe\r\nPASS x\r\nSTLS\r\n" + b"NOOP\r\n" * 100)
        client.turn()
        self.assertEqual(client.transport.producerState, "producing")

    def test_the_user_said_before_is_forgotten(self) -> None:
        client = server()
        client.say(b"USER joe\r\nSTLS\r\n")
        client.protocol.handshakeCompleted()
        self.assertEqual(client.say(b"PASS x\r\n"), b"-ERR USER first\r\n")

    def test_whom_the_client_spoke_for_is_forgotten(self) -> None:
        client = server(trusted=[PEER])
        own = client.protocol._session.id
        client.say(b"XCLIENT ADDR=192.0.2.7 PORT=99 SESSION=there TTL=3\r\nSTLS\r\n")
        client.protocol.handshakeCompleted()
        client.say(LOGIN)
        mind = client.realm.mind
        self.assertEqual((mind.host, mind.port, mind.session, mind.ttl), (PEER, 54321, own, 5))
        self.assertEqual(client.protocol._session.peer, PEER)

    def test_the_log_has_the_version(self) -> None:
        spoken: Any = TLSTransport()
        spoken.client_spoke_tls = True
        for transport, first, shown in (
            (TLSTransport(), b"STLS\r\n", "TLSv1.3"),
            (SecureTransport(), b"", "TLSv1.3"),
            (TLSTransport(), b"", "no"),
            (spoken, b"", "proxy"),
        ):
            client = server(transport)
            lines = client.lines_of_log()
            client.say(first)
            client.say(LOGIN)
            self.assertTrue(lines[0].endswith(f" method=pass tls={shown}"), lines)


class HandshakeTests(SynchronousTestCase):
    def test_it_has_a_limit(self) -> None:
        for transport, first in ((SecureTransport(), b""), (TLSTransport(), b"STLS\r\n")):
            client = server(transport)
            lines = client.lines_of_log()
            client.say(first)
            client.clock.advance(19.9)
            self.assertFalse(client.transport.aborted)
            client.clock.advance(0.2)
            self.assertTrue(client.transport.aborted)
            client.connection.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(
                lines,
                [f'refused user="" peer={PEER} session=S1 reason=handshake-time detail="20 s"'],
            )

    def test_the_limit_is_that_of_the_site(self) -> None:
        client = server(SecureTransport(), limits=Limits(handshake_time=3))
        client.clock.advance(3)
        self.assertTrue(client.transport.aborted)

    def test_one_that_is_done_in_time_is_told_by_the_connection(self) -> None:
        client = server(SecureTransport())
        client.connection.handshakeCompleted()
        client.clock.advance(30)
        self.assertFalse(client.transport.aborted)
        client.log_in()

    def test_why_one_fails_is_logged_to_who_wants_to_know(self) -> None:
        log_at(self, LOGLEVEL=15)
        client = server()
        lines = client.lines_of_log()
        client.say(b"STLS\r\n")
        error = SSL.Error([("SSL routines", "", "unsupported\nprotocol")])
        client.connection.connectionLost(Failure(error))
        self.assertEqual(
            lines,
            [f'handshake peer={PEER} session=S1 problem="unsupported\\x0aprotocol"'],
        )

    def test_what_breaks_later_is_no_handshake(self) -> None:
        log_at(self, LOGLEVEL=15)
        client = server()
        lines = client.lines_of_log()
        client.say(b"STLS\r\n")
        client.protocol.handshakeCompleted()
        client.connection.connectionLost(Failure(SSL.Error([("", "", "bad record mac")])))
        self.assertEqual(lines, [])

    def test_one_after_the_session_was_left_to_others_is_nobodys(self) -> None:
        client = server()
        client.connection.connectionLost(Failure(ConnectionDone()))
        client.connection.handshakeCompleted()

    def test_a_client_that_leaves_in_between_leaves_nothing(self) -> None:
        for transport, first in ((SecureTransport(), b""), (TLSTransport(), b"STLS\r\n")):
            client = server(transport)
            lines = client.lines_of_log()
            client.say(first)
            client.connection.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(client.clock.getDelayedCalls(), [])
            self.assertEqual(lines, [])


class RequiredTests(SynchronousTestCase):
    """The control file requiretls."""

    def server(self, transport: Transport | None = None, **settings: Any) -> Server:
        return server(transport, requires_tls=True, **settings)

    def test_no_password_is_taken_before_tls(self) -> None:
        for command in (
            b"USER joe\r\n",
            b"PASS x\r\n",
            PLAIN,
            b"AUTH PLAIN\r\n",
            b"AUTH LOGIN\r\n",
        ):
            self.assertEqual(self.server().say(command), TLS_REQUIRED)

    def test_each_is_a_refused_login_of_the_connection(self) -> None:
        client = self.server()
        lines = client.lines_of_log()
        self.assertEqual(client.say(LOGIN), TLS_REQUIRED * 2)
        self.assertFalse(client.transport.disconnecting)
        self.assertEqual(client.say(PLAIN), TLS_REQUIRED)
        self.assertTrue(client.transport.disconnecting)
        reason = f"peer={PEER} session=S1 reason=tls-required detail="
        self.assertEqual(
            lines,
            [
                f"refused user=joe {reason}USER",
                f'refused user="" {reason}PASS',
                f'refused user="" {reason}"AUTH PLAIN"',
            ],
        )

    def test_capa_does_not_offer_what_is_refused(self) -> None:
        words = self.server().say(b"CAPA\r\n").split()
        self.assertIn(b"STLS", words)
        for word in (b"USER", b"SASL", b"PLAIN"):
            self.assertNotIn(word, words)
        self.assertEqual(self.server().say(b"AUTH\r\n"), b"+OK \r\n.\r\n")

    def test_with_tls_all_is_as_ever(self) -> None:
        for transport, first in ((SecureTransport(), b""), (TLSTransport(), b"STLS\r\n")):
            client = self.server(transport)
            client.say(first)
            client.protocol.handshakeCompleted()
            answer = client.say(b"CAPA\r\n")
            self.assertIn(b"\r\nUSER\r\nSASL PLAIN LOGIN\r\n", answer)
            client.log_in()

    def test_who_sends_no_password_needs_no_tls(self) -> None:
        client = self.server(cleartext=1)
        self.assertIn(b"\r\nSASL CRAM-MD5\r\nSTLS\r\n", client.say(b"CAPA\r\n"))
        self.assertTrue(client.say(b"AUTH CRAM-MD5\r\n").startswith(b"+ PD"))
        self.assertEqual(
            self.server(cleartext=2).say(b"APOP joe " + b"0" * 32 + b"\r\n"),
            b"-ERR [AUTH] authorization failed\r\n",
        )

    def test_whom_nobody_can_listen_to_needs_none(self) -> None:
        for address in (
            IPv4Address("TCP", "127.0.0.1", 1),
            IPv4Address("TCP", "127.8.9.1", 1),
            IPv6Address("TCP", "::1", 1),
            IPv6Address("TCP", "::ffff:127.0.0.1", 1),
            UNIXAddress(b""),
        ):
            transport = TLSTransport()
            transport.peerAddr = address
            self.server(transport).log_in()

    def test_whose_proxy_has_tls_needs_none(self) -> None:
        for spoke, answer in ((True, b"+OK \r\n"), (False, TLS_REQUIRED)):
            transport: Any = TLSTransport()
            transport.client_spoke_tls = spoke
            self.assertEqual(self.server(transport).say(b"USER joe\r\n"), answer)

    def test_who_only_speaks_for_somebody_on_loopback_needs_it(self) -> None:
        client = self.server(trusted=[PEER])
        client.say(b"XCLIENT ADDR=127.0.0.1\r\n")
        self.assertEqual(client.say(b"USER joe\r\n"), TLS_REQUIRED)
