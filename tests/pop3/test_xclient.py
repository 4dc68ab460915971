"""What other members say of their clients, and who is believed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.client import FIRST_TTL, Client, Introduction
from qmailldap.pop3.syntax import CommandRefused
from qmailldap.pop3.xclient import parse_xclient
from tests.pop3.maildrop import PASSWORD, Server, Transport

PEER = "192.168.1.1"
"""The address at the other end of a string transport."""

LOGIN = b"USER joe\r\nPASS " + PASSWORD + b"\r\n"


class ParserTests(SynchronousTestCase):
    def test_what_dovecot_says_is_understood(self) -> None:
        said = b"ADDR=192.0.2.7 PORT=1234 SESSION=Mg6+9X0oAAB/AAAB TTL=4 FORWARD=YQ=="
        self.assertEqual(
            parse_xclient(tuple(said.split())),
            Introduction("192.0.2.7", 1234, "Mg6+9X0oAAB/AAAB", 4),
        )

    def test_keys_are_taken_in_any_case_and_order(self) -> None:
        self.assertEqual(
            parse_xclient((b"ttl=2", b"Addr=2001:DB8::1")), Introduction("2001:db8::1", ttl=2)
        )

    def test_what_is_not_known_is_passed_over(self) -> None:
        self.assertEqual(parse_xclient((b"X=1", b"NOTHING", b"=", b"")), Introduction())

    def test_a_name_that_could_not_stand_in_a_log_is_passed_over(self) -> None:
        for name in (b"", b"x" * 65, b'a"b', b"a\x1bb", b"\xff"):
            self.assertIsNone(parse_xclient((b"SESSION=" + name,)).session)

    def test_malformed_values_are_refused(self) -> None:
        for word in (
            b"ADDR=",
            b"ADDR=example.org",
            b"ADDR=1.2.3",
            b"ADDR=\xff",
            b"PORT=",
            b"PORT=65536",
            b"PORT=-1",
            b"PORT=1x",
            b"PORT=\xb2",
            b"TTL=",
            b"TTL=256",
            b"TTL=" + b"9" * 400,
        ):
            with self.assertRaises(CommandRefused):
                parse_xclient((word, b"SESSION=x"))

    @given(st.lists(st.binary(max_size=20) | st.sampled_from([b"ADDR=::1", b"TTL=1", b"PORT=1"])))
    def test_anything_is_an_introduction_or_refused(self, words: list[bytes]) -> None:
        try:
            introduction = parse_xclient(tuple(words))
        except CommandRefused:
            return
        self.assertIsInstance(introduction, Introduction)


class TrustTests(SynchronousTestCase):
    def client(self, server: Server) -> Client:
        """Who the server says has logged in."""
        server.say(LOGIN)
        client = server.realm.mind
        assert isinstance(client, Client)
        return client

    def test_who_is_trusted_is_told_so(self) -> None:
        greeting = Server(trusted=[PEER]).greeting
        self.assertRegex(greeting, rb"\A\+OK \[XCLIENT\] \d+\.\d+@mail\.example\.org\r\n\Z")
        self.assertNotIn(b"XCLIENT", Server(trusted=["192.0.2.1"]).greeting)

    def test_from_others_it_is_no_command_at_all(self) -> None:
        for command in (b"XCLIENT", b"XCLIENT ADDR=192.0.2.7", b"xclient a b c d e"):
            server, stranger = Server(), Server()
            self.assertEqual(
                server.say(command + b"\r\n"), stranger.say(b"XYZZY" + command[7:] + b"\r\n")
            )
            self.assertEqual(self.client(server).host, PEER)

    def test_who_is_trusted_is_believed(self) -> None:
        server = Server(trusted=[PEER])
        answer = server.say(b"XCLIENT ADDR=192.0.2.7 PORT=99 SESSION=there TTL=3\r\n")
        self.assertEqual(answer, b"+OK \r\n")
        self.assertEqual(
            self.client(server),
            Client(password=PASSWORD, host="192.0.2.7", port=99, session="there", ttl=3),
        )
        self.assertEqual(server.protocol._session.peer, "192.0.2.7")

    def test_malformed_words_change_nothing(self) -> None:
        server = Server(trusted=[PEER])
        answer = server.say(b"XCLIENT ADDR=192.0.2.7 TTL=x\r\n")
        self.assertEqual(answer, b"-ERR syntax error\r\n")
        client = self.client(server)
        self.assertEqual((client.host, client.ttl), (PEER, FIRST_TTL))

    def test_a_session_whose_hops_nobody_counts_is_not_handed_on(self) -> None:
        server = Server(trusted=[PEER])
        server.say(b"XCLIENT ADDR=192.0.2.7\r\n")
        self.assertEqual(self.client(server).ttl, 1)

    def test_after_the_login_nobody_speaks_for_others(self) -> None:
        server = Server(trusted=[PEER]).log_in()
        self.assertEqual(server.say(b"XCLIENT TTL=9\r\n"), b"-ERR unimplemented\r\n")

    def test_a_client_without_xclient_is_who_is_connected(self) -> None:
        client = self.client(Server())
        self.assertEqual((client.host, client.port, client.ttl), (PEER, 54321, FIRST_TTL))
        self.assertRegex(client.session, r"\A[A-Za-z0-9_-]{12}\Z")
        self.assertNotEqual(client.session, self.client(Server()).session)

    def test_a_client_of_a_unix_socket_has_no_address(self) -> None:
        transport = Transport()
        transport.peerAddr = UNIXAddress(b"")
        server = Server(transport=transport)
        client = self.client(server)
        self.assertEqual((client.host, client.port), ("", 0))
        self.assertEqual(server.protocol._session.peer, "local")

    def test_a_client_shows_no_password(self) -> None:
        self.assertNotIn("pass word", repr(self.client(Server())))
