"""The site of --status: who may ask what, for how long."""

from __future__ import annotations

from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.status.http import ASKING, LONGEST, MOST_CONNECTIONS, Page, PlainText, make_site


class Waited(Page):
    """A page that comes when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Deferred[bytes]] = []

    def content(self, request: Any) -> Deferred[bytes]:
        self.asked.append(Deferred())
        return self.asked[-1]


class SiteTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.host = "192.0.2.1"
        self.waited = Waited()
        pages = {"": PlainText(200, "front"), "line": PlainText(200, "good"), "wait": self.waited}
        self.site = make_site(self.reactor, pages)

    def connect(self) -> tuple[Any, StringTransport]:
        channel: Any = self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        transport = StringTransport(hostAddress=IPv4Address("TCP", self.host, 8110))
        transport.abortConnection = transport.abort = self.aborted  # type: ignore
        self.is_aborted = False
        if channel is not None:
            channel.makeConnection(transport)
        return channel, transport

    def aborted(self) -> None:
        self.is_aborted = True

    def lose(self, channel: Any) -> None:
        channel.connectionLost(Failure(ConnectionError()))

    def answer(self, octets: bytes) -> tuple[int, dict[str, str], bytes]:
        """The status, the headers and the body of what these octets are answered with."""
        channel, transport = self.connect()
        channel.dataReceived(octets)
        head, _, body = transport.value().partition(b"\r\n\r\n")
        status, *lines = head.decode("ascii").split("\r\n")
        self.assertTrue(transport.disconnecting, "one request a connection")
        self.lose(channel)
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return int(status.split()[1]), headers, body

    def get(self, path: str, method: str = "GET", more: str = "") -> Any:
        return self.answer(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode())

    def test_pages_are_found_by_their_paths(self) -> None:
        self.assertEqual(self.get("/")[::2], (200, b"front\n"))
        self.assertEqual(self.get("/line")[::2], (200, b"good\n"))
        self.assertEqual(self.get("/line?a=b")[::2], (200, b"good\n"))

    def test_other_paths_are_not_there(self) -> None:
        for path in ("/no", "/../line", "//line", "/%00", "/%ff", "/Line", "/line/", "/line/x"):
            code, headers, body = self.get(path)
            self.assertEqual((code, body), (404, b"no such page\n"), path)
            self.assertEqual(headers["content-type"], "text/plain; charset=utf-8")
        self.assertEqual(self.get("*")[0], 400)
        self.assertEqual(self.get("http://elsewhere/")[0], 400)

    def test_head_is_the_answer_without_its_body(self) -> None:
        code, headers, body = self.get("/line", "HEAD")
        self.assertEqual((code, headers["content-length"], body), (200, "5", b""))
        channel, transport = self.connect()
        channel.dataReceived(b"HEAD /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        self.waited.asked.pop().callback(b"text")
        self.assertTrue(transport.value().endswith(b"\r\n\r\n"))
        self.assertIn(b"Content-Length: 4\r\n", transport.value())

    def test_nothing_else_may_be_asked(self) -> None:
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "GETS"):
            for path in ("/", "*", "/line"):
                code, headers, body = self.get(path, method)
                self.assertEqual((code, body), (405, b"GET and HEAD only\n"))
                self.assertEqual(headers["allow"], "get, head")

    def test_every_answer_says_how_it_may_be_used(self) -> None:
        for _, headers, _ in (self.get("/"), self.get("/no"), self.get("/", "POST")):
            self.assertEqual(headers["server"], "qmailldap")
            self.assertEqual(headers["cache-control"], "no-store")
            self.assertEqual(headers["x-content-type-options"], "nosniff")
            self.assertTrue(headers["content-security-policy"].startswith("default-src 'none';"))
            self.assertEqual(headers["connection"], "close")

    def test_a_request_with_a_body_is_not_read_to_its_end(self) -> None:
        for more in ("Content-Length: 4000000000\r\n", "Transfer-Encoding: chunked\r\n"):
            for method in ("GET", "POST"):
                for expect in ("", "Expect: 100-continue\r\n"):
                    code, _, _ = self.get("/line", method, more + expect)
                    self.assertEqual(code, 413)
        channel, transport = self.connect()
        channel.dataReceived(b"GET /line HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc")
        before = transport.value()
        channel.dataReceived(b"deGET /line HTTP/1.1\r\n\r\n")
        self.assertEqual(transport.value(), before)

    def test_headers_without_an_end_are_not_read_to_their_end(self) -> None:
        for more in ("X: y\r\n" * 200, ("X: " + "y" * 1000 + "\r\n") * 20):
            self.assertEqual(self.get("/line", more=more)[0], 400)
        channel, transport = self.connect()
        channel.dataReceived(b"X" * 20_000)
        self.assertTrue(transport.disconnecting)

    def test_a_second_request_on_a_connection_is_not_answered(self) -> None:
        octets = b"GET /line HTTP/1.1\r\nHost: x\r\n\r\n"
        channel, transport = self.connect()
        channel.dataReceived(octets * 3)
        self.assertEqual(transport.value().count(b"HTTP/1.1 200"), 1)

    def test_so_many_connections_and_no_more(self) -> None:
        channels = []
        for _ in range(MOST_CONNECTIONS):
            channels.append(self.connect()[0])
            channels[-1].dataReceived(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertIsNone(self.connect()[0])
        self.lose(channels.pop())
        self.assertIsNotNone(self.connect()[0])

    def test_who_has_not_asked_makes_room_for_others_the_oldest_first(self) -> None:
        silent = [self.connect()[1] for _ in range(MOST_CONNECTIONS)]
        gone: list[int] = []
        for number, transport in enumerate(silent):
            transport.abortConnection = partial(gone.append, number)  # type: ignore
        for _ in range(3):
            self.assertEqual(self.get("/line")[0], 200)
        self.assertEqual(gone, [0, 1, 2])

    def test_who_has_not_asked_for_so_long_has_to_go(self) -> None:
        channel, _ = self.connect()
        for octet in b"GET /line HTTP/1.1":
            channel.dataReceived(bytes([octet]))
            self.reactor.advance(ASKING / 20)
            self.assertFalse(self.is_aborted)
        self.reactor.advance(ASKING / 5)
        self.assertTrue(self.is_aborted)

    def test_on_loopback_no_name_of_others_is_answered(self) -> None:
        def code(host: str) -> int:
            return self.answer(f"GET /line HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())[0]

        self.host = "127.0.0.1"
        for host in ("localhost", "localhost:8110", "127.0.0.1:8110", "[::1]:8110", "LOCALHOST"):
            self.assertEqual(code(host), 200, host)
        for host in ("rebound.example.net", "rebound.example.net:8110", "localhost.example.net"):
            self.assertEqual(code(host), 421, host)
        self.assertEqual(self.answer(b"GET /line HTTP/1.0\r\n\r\n")[0], 200)
        self.host = "192.0.2.1"
        self.assertEqual(code("mail1.example.org:8110"), 200)

    def test_a_page_that_does_not_come_is_given_up(self) -> None:
        channel, _ = self.connect()
        channel.dataReceived(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        self.reactor.advance(LONGEST)
        self.assertTrue(self.is_aborted)
        self.lose(channel)
        # Too late; nobody is told.
        self.waited.asked.pop().callback(b"text")
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_page_that_fails_is_logged_and_says_nothing_of_why(self) -> None:
        channel, transport = self.connect()
        channel.dataReceived(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        self.waited.asked.pop().errback(RuntimeError("a secret"))
        self.assertIn(b"HTTP/1.1 500", transport.value())
        self.assertNotIn(b"secret", transport.value())
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.binary(max_size=40)
            | st.sampled_from(
                [b"GET /", b" HTTP/1.1\r\n", b"\r\n", b"Host: x", b"\r\n\r\n", b": "]
            ),
            max_size=12,
        )
    )
    def test_whatever_comes_ends_in_an_answer_or_in_silence(self, pieces: list[bytes]) -> None:
        channel, transport = self.connect()
        for piece in pieces:
            if not transport.disconnecting:
                channel.dataReceived(piece)
        self.assertRegex(transport.value(), rb"\A(HTTP/1\.1 (200|400|404|405|413) |\Z)")
        self.lose(channel)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
