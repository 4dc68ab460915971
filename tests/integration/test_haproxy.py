"""Behind a real HAProxy, and behind whatever else connects to a port that is for it."""

from __future__ import annotations

import poplib
import re
import socket
import ssl
import time

from twisted.internet.threads import deferToThread

from .certificates import write_certificate
from .clients import Conversation, converse, login, refuse_or_accept
from .haproxy import HAProxy, Way
from .mailboxes import BIG_MESSAGE, MESSAGES
from .ports import HOST, unused_port
from .processes import wait_until
from .site import PASSWORD, SiteTestCase

CLIENT = "192.0.2.7"


class ProxiedTestCase(SiteTestCase):
    """A server that listens behind a proxy at `plain`, and with TLS at `by_tls`."""

    async def start_behind(
        self, *, tls: bool = False, later: bool = False, **control: str | None
    ) -> None:
        """With ``later``, all but the server itself."""
        self.plain, self.by_tls = unused_port(), unused_port()
        options = []
        if tls:
            self.certificate = self.directory / "cert.pem"
            write_certificate(self.certificate)
            options = ["--certificate", str(self.certificate)]
            options += ["--pop3s", f"haproxy:tcp:{self.by_tls}:interface={HOST}"]
        self.slapd = self.new_slapd()
        self.server = self.new_server(
            self.slapd.address,
            control=control,
            listen=[f"haproxy:tcp:{self.plain}:interface={HOST}"],
            options=options,
        )
        await self.slapd.start()
        if not later:
            await self.server.start()

    async def start_proxy(self, *ways: Way) -> HAProxy:
        proxy = HAProxy(self.directory, ways)
        self.addCleanup(proxy.kill)
        await proxy.start()
        return proxy

    async def in_log(self, pattern: str) -> None:
        await wait_until(lambda: re.search(pattern, self.server.log), 10, pattern)


class HAProxyTests(ProxiedTestCase):
    async def test_either_version_tells_of_the_client(self) -> None:
        self.user("joe", messages=[MESSAGES["plain"], BIG_MESSAGE])
        await self.start_behind()
        clients = {"send-proxy": "192.0.2.1", "send-proxy-v2": "192.0.2.2"}
        ways = [Way(self.plain, server, client=clients[server]) for server in clients]
        await self.start_proxy(*ways, Way(self.plain, "send-proxy-v2", client="2001:db8::7"))

        def session(port: int) -> list[int]:
            pop = login(port, "joe", PASSWORD)
            sizes = [pop.retr(number)[2] for number in (1, 2)]
            pop.quit()
            return sizes

        direct = await deferToThread(session, self.server.port)
        for way in ways:
            self.assertEqual(await deferToThread(session, way.port), direct)
            await self.in_log(rf" login user=joe peer={way.client} ")
            await self.in_log(rf" logout user=joe peer={way.client} .*end=quit retrieved=2 ")

    async def test_tls_ends_at_the_proxy_or_passes_through_it(self) -> None:
        self.user("joe")
        await self.start_behind(tls=True, requiretls="1")
        crt = f"ssl crt {self.certificate}"
        tells = Way(self.plain, "send-proxy-v2-ssl", crt, CLIENT)
        tells_not = Way(self.plain, "send-proxy-v2", crt, CLIENT)
        passes = Way(self.by_tls, "send-proxy-v2", client=CLIENT)
        starts = Way(self.plain, "send-proxy", client=CLIENT)
        await self.start_proxy(tells, tells_not, passes, starts)
        context = ssl.create_default_context(cafile=str(self.certificate))

        def by_tls(way: Way) -> bytes:
            pop = poplib.POP3_SSL("localhost", way.port, timeout=10, context=context)
            try:
                pop.user("joe")
                pop.pass_(PASSWORD)
                return pop.quit()
            finally:
                pop.close()

        def by_stls() -> bytes:
            pop = poplib.POP3("localhost", starts.port, timeout=10)
            pop.stls(context)
            pop.user("joe")
            pop.pass_(PASSWORD)
            return pop.quit()

        for way, tls in ((tells, "proxy"), (passes, r"TLSv1\.3")):
            self.assertEqual(await deferToThread(by_tls, way), b"+OK ")
            await self.in_log(rf" login user=joe peer={CLIENT} .* tls={tls}\b")
        self.assertEqual(await deferToThread(by_stls), b"+OK ")
        with self.assertRaises(poplib.error_proto) as caught:
            await deferToThread(by_tls, tells_not)
        self.assertIn(b"must issue a STLS command first", caught.exception.args[0])
        await self.in_log(rf" refused user=joe peer={CLIENT} .*reason=tls-required")

    async def test_health_checks_leave_no_line(self) -> None:
        self.user("joe")
        await self.start_behind(later=True)
        check = "check inter 50ms fall 1 rise 3"
        greeting = "option tcp-check\n  tcp-check expect string +OK"
        ways = [
            Way(self.plain, f"send-proxy {check} check-send-proxy\n  {greeting}"),
            Way(self.plain, f"send-proxy-v2 {check} check-send-proxy\n  {greeting}"),
            # Without a header; it does not say anything at all.
            Way(self.plain, f"send-proxy {check}"),
        ]
        proxy = await self.start_proxy(*ways)

        def all_are(state: str) -> bool:
            return all(f"way{way.port}/pop3 is {state}" in proxy.log for way in ways)

        await wait_until(lambda: all_are("DOWN"), 10, "checks to fail")
        await self.server.start()
        await wait_until(lambda: all_are("UP"), 10, "checks to succeed")
        for way in ways:
            answer = await deferToThread(refuse_or_accept, way.port, "joe", PASSWORD)
            self.assertEqual(answer, "accepted")
        for line in self.server.log.splitlines():
            self.assertNotRegex(line, "refused|abandoned|failed")


class OtherClientsTests(ProxiedTestCase):
    """They connect to the port themselves."""

    def begin(self, header: bytes) -> socket.socket:
        connection = socket.create_connection((HOST, self.plain), 10)
        self.addCleanup(connection.close)
        connection.sendall(header)
        return connection

    def closed(self, header: bytes) -> bytes:
        """All that comes until the server closes."""
        received = b""
        connection = self.begin(header)
        try:
            while chunk := connection.recv(4096):
                received += chunk
        except ConnectionResetError:
            pass
        return received

    async def test_a_connection_without_a_valid_header_is_closed(self) -> None:
        self.user("joe")
        await self.start_behind()
        headers = {
            b"CAPA\r\n": "begins with something else",
            b"\x16\x03\x01\x02\x00\x01\x00": "begins with something else",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\nCAPA\r\n": "malformed line of version 1",
            b"PROXY TCP4 1.2.3.4\x1b[2J": "107 octets",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff": "65551 octets",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x01x": "1 octets where addresses",
        }
        for header, problem in headers.items():
            self.assertEqual(await deferToThread(self.closed, header.ljust(107, b"x")), b"")
            await self.in_log(
                r' refused user="" peer=127\.0\.0\.1 session=\S+ reason=proxy-header'
                rf" detail=.*{problem}"
            )
        self.assertNotIn("\x1b", self.server.log)
        await self.assert_serves("joe")

    async def test_a_slow_header_is_not_waited_for(self) -> None:
        self.user("joe")
        await self.start_behind(pop3limits="proxy-time:1")

        def trickle() -> bool:
            connection = self.begin(b"PROXY TCP4 ")
            connection.settimeout(0.05)
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                try:
                    connection.sendall(b"1")
                    if connection.recv(1) == b"":
                        return True
                except TimeoutError:
                    continue
                except OSError:
                    return True
            return False

        self.assertTrue(await deferToThread(trickle))
        self.assertEqual(await deferToThread(self.closed, b""), b"")
        await self.in_log("(?s)(reason=proxy-header detail=.none within 1 s.*){2}")

    async def test_a_client_that_leaves_before_its_header_leaves_no_line(self) -> None:
        self.user("joe")
        await self.start_behind()

        def leave() -> None:
            for header in (b"", b"PROXY TCP4 192.0.2.1 "):
                self.begin(header).close()
                half = self.begin(header)
                half.shutdown(socket.SHUT_WR)
                self.assertEqual(half.recv(1), b"")

        await deferToThread(leave)
        await self.assert_serves("joe")
        self.assertNotIn("refused", self.server.log)

    async def test_what_was_asked_before_the_client_closed_its_side_is_answered(self) -> None:
        self.user("joe", messages=[MESSAGES["plain"]])
        await self.start_behind()

        def session() -> bytes:
            commands = f"USER joe\r\nPASS {PASSWORD}\r\nSTAT\r\nRETR 1\r\n".encode()
            connection = self.begin(b"PROXY TCP4 192.0.2.7 192.0.2.1 5600 110\r\n" + commands)
            connection.shutdown(socket.SHUT_WR)
            with connection.makefile("rb") as received:
                return received.read()

        answers = await deferToThread(session)
        self.assertEqual(answers.count(b"+OK"), 5, answers)
        self.assertTrue(answers.endswith(b"\r\n.\r\n"), answers)

    async def test_nobody_there_speaks_for_others_by_xclient(self) -> None:
        self.user("joe")
        await self.start_behind(pop3trusted="0.0.0.0/0")

        def session() -> bytes:
            header = b"PROXY TCP4 127.0.0.1 127.0.0.1 5600 110\r\n"
            return self.closed(header + b"XCLIENT ADDR=192.0.2.9\r\nQUIT\r\n")

        answers = await deferToThread(session)
        self.assertNotIn(b"[XCLIENT]", answers)
        self.assertIn(b"\r\n-ERR authorization first\r\n", answers)

        def direct(connection: Conversation) -> bytes:
            return connection.ask(b"XCLIENT ADDR=192.0.2.9")

        self.assertEqual(await converse(self.server.port, direct), b"+OK ")
