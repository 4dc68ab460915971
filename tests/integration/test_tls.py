"""TLS as mail programs use it: STLS, pop3s, and the control file requiretls."""

from __future__ import annotations

import poplib
import re
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

from twisted.internet.threads import deferToThread

from . import clients
from .certificates import write_authority, write_certificate
from .clients import LIMIT, Conversation, curl, fetchmail
from .mailboxes import BIG_MESSAGE, MESSAGES, as_lines, brief
from .ports import HOST, unused_port
from .processes import run, wait_until
from .site import PASSWORD, SiteTestCase

T = TypeVar("T")

TLS_REQUIRED = b"-ERR [SYS/PERM] must issue a STLS command first"
BEGIN = b"+OK Begin TLS negotiation"
ELSEWHERE = "192.0.2.7"
"""An address that is not loopback; a proxy says that a client has it."""


class TLSTestCase(SiteTestCase):
    """A server with a certificate, and a port for pop3s beside its own."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = self.directory / "authority.pem"
        certificate = self.directory / "certificate.pem"
        write_authority(self.authority, "authority")
        write_certificate(certificate, HOST, authority=self.authority)
        self.pop3s, self.proxied = unused_port(), unused_port()
        self.context = ssl.create_default_context(cafile=str(self.authority))
        self.options = [
            *("--certificate", str(certificate)),
            *("--pop3s", f"tcp:{self.pop3s}:interface={HOST}"),
            *("--listen", f"haproxy:tcp:{self.proxied}:interface={HOST}"),
        ]

    async def serve(self, **control: str) -> None:
        self.slapd = self.new_slapd()
        self.server = self.new_server(self.slapd.address, control=control, options=self.options)
        await self.together(self.slapd.start(), self.server.start())
        for port in (self.pop3s, self.proxied):
            await wait_until(lambda port=port: _is_open(port), LIMIT, f"{port}", self.server.child)  # type: ignore[misc]

    async def by_stls(self, function: Callable[[poplib.POP3], T]) -> T:
        def session() -> T:
            pop = poplib.POP3(HOST, self.server.port, timeout=LIMIT)
            try:
                pop.stls(self.context)
                return function(_logged_in(pop))
            finally:
                pop.close()

        return await deferToThread(session)

    async def by_pop3s(self, function: Callable[[poplib.POP3], T]) -> T:
        def session() -> T:
            pop = poplib.POP3_SSL(HOST, self.pop3s, timeout=LIMIT, context=self.context)
            try:
                return function(_logged_in(pop))
            finally:
                pop.close()

        return await deferToThread(session)

    async def in_log(self, pattern: str) -> None:
        await wait_until(
            lambda: re.search(pattern, self.server.log), LIMIT, pattern, self.server.child
        )

    async def from_elsewhere(self, function: Callable[[Conversation], T]) -> T:
        """Converse as a client whose address is not loopback."""
        header = f"PROXY TCP4 {ELSEWHERE} {HOST} 1234 110\r\n".encode()

        def conversation() -> T:
            connection = Conversation(self.proxied, first=header)
            try:
                return function(connection)
            finally:
                connection.hang_up()

        return await deferToThread(conversation)


class ClientTests(TLSTestCase):
    async def test_openssl_speaks_stls(self) -> None:
        await self.serve()
        command = ["openssl", "s_client", "-connect", f"{HOST}:{self.server.port}"]
        verified = ["-starttls", "pop3", "-CAfile", str(self.authority), "-verify_return_error"]
        finished = await run([*command, *verified], LIMIT)
        self.assertEqual(finished.code, 0, finished.text)
        self.assertIn("Verify return code: 0 (ok)", finished.text)

    async def test_curl_insists_on_tls_and_gets_it(self) -> None:
        self.user("joe", messages=[MESSAGES["dots"], BIG_MESSAGE])
        await self.serve()
        trust = ("--cacert", str(self.authority))
        for scheme, port, options in (
            ("pop3", self.server.port, ("--ssl-reqd", *trust)),
            ("pop3s", self.pop3s, trust),
        ):
            finished = await curl(port, "joe", PASSWORD, "2", *options, scheme=scheme)
            self.assertEqual(finished.code, 0, finished.text)
            got = b"\n".join(as_lines(finished.output))
            self.assertEqual(brief(got), brief(b"\n".join(as_lines(BIG_MESSAGE))))
        self.assertEqual(
            len(re.findall(r"login user=joe .* tls=TLSv1\.[23]\n", self.server.log)), 2
        )

    async def test_fetchmail_fetches_by_both_ways(self) -> None:
        self.user("joe", messages=[MESSAGES["plain"], MESSAGES["dots"]])
        await self.serve()
        trust = f"sslcertck sslcertfile {self.authority}"
        for name, port, security in (
            ("stls", self.server.port, f"sslproto 'TLS1.2+' {trust}"),
            ("pop3s", self.pop3s, f"ssl {trust}"),
        ):
            fetched = await fetchmail(
                self.directory / name, port, "joe", PASSWORD, "keep", security=security
            )
            self.assertEqual(fetched.finished.code, 0, fetched.finished.text)
            self.assertEqual(fetched.messages, [MESSAGES["plain"], MESSAGES["dots"]])
        self.assertEqual(
            len(re.findall(r"login user=joe .* tls=TLSv1\.[23]\n", self.server.log)), 2
        )

    async def test_a_session_behind_tls_is_like_any_other(self) -> None:
        maildir = self.user("joe", messages=[MESSAGES["dots"], MESSAGES["plain"], BIG_MESSAGE])
        await self.serve()

        def read(pop: poplib.POP3) -> list[bytes]:
            return pop.retr(pop.stat()[0])[1]

        def delete(pop: poplib.POP3) -> bytes:
            pop.dele(1)
            return pop.quit()

        for way in (self.by_stls, self.by_pop3s):
            self.assertEqual(brief(b"\n".join(await way(read))), brief(_whole(BIG_MESSAGE)))
            await way(delete)
        self.assertEqual([*maildir.contents().values()], [brief(BIG_MESSAGE)])
        await self.in_log(r"logout user=joe .* end=quit .* deleted=1 left=1\n")

    async def test_stls_is_offered_until_there_is_tls(self) -> None:
        self.user("joe")
        await self.serve()

        def capabilities(pop: poplib.POP3) -> dict[str, list[str]]:
            return pop.capa()

        def before(connection: Conversation) -> list[bytes]:
            connection.send(b"CAPA\r\n")
            return connection.listing()

        self.assertIn(b"STLS", await self.converse(before))
        for way in (self.by_stls, self.by_pop3s):
            self.assertNotIn("STLS", await way(capabilities))


class InjectionTests(TLSTestCase):
    async def test_what_somebody_in_between_sends_behind_stls_is_never_answered(self) -> None:
        self.user("joe", messages=[MESSAGES["plain"]])
        await self.serve()
        login = f"USER joe\r\nPASS {PASSWORD}\r\n".encode()

        def converse() -> list[bytes]:
            answers = []
            for injected in (login + b"DELE 1\r\nQUIT\r\n", b"USER joe\r\n", b"CAPA\r\nNO"):
                with socket.create_connection((HOST, self.server.port), LIMIT) as plain:
                    received = plain.makefile("rb")
                    received.readline()
                    # In one packet, as it is read in one go.
                    plain.sendall(b"STLS\r\n" + injected)
                    answers.append(received.readline())
                    with self.context.wrap_socket(plain, server_hostname=HOST) as secure:
                        secure.sendall(b"PASS x\r\nNOOP\r\nQUIT\r\n")
                        answers.append(secure.makefile("rb").read())
            return answers

        answers = await deferToThread(converse)
        self.assertEqual(answers, [BEGIN + b"\r\n", b"-ERR USER first\r\n+OK \r\n+OK \r\n"] * 3)
        self.assertNotIn("login user", self.server.log)

    async def test_plain_text_in_place_of_a_handshake_ends_the_connection(self) -> None:
        await self.serve()

        def converse(connection: Conversation) -> bytes:
            self.assertEqual(connection.ask(b"STLS"), BEGIN)
            connection.send(b"USER joe\r\nPASS x\r\n")
            return connection.rest()

        self.assertNotIn(b"+OK", await self.converse(converse))


class HandshakeTests(TLSTestCase):
    async def test_one_that_does_not_come_has_a_limit(self) -> None:
        await self.serve(pop3limits="handshake-time:1")

        def wait() -> None:
            with socket.create_connection((HOST, self.pop3s), LIMIT) as silent:
                self.assertEqual(_rest(silent), b"")

        def converse(connection: Conversation) -> None:
            self.assertEqual(connection.ask(b"STLS"), BEGIN)
            self.assertEqual(connection.rest(), b"")

        await deferToThread(wait)
        await self.converse(converse)
        await self.in_log(r'(refused user="" peer=127\.0\.0\.1 .* reason=handshake-time [^$]*){2}')


class ResumptionTests(TLSTestCase):
    async def test_a_client_goes_on_with_its_session_whichever_way_it_comes(self) -> None:
        self.user("joe", messages=[MESSAGES["plain"]])
        await self.serve()

        def secured(by_stls: bool, session: ssl.SSLSession | None) -> ssl.SSLSocket:
            port = self.server.port if by_stls else self.pop3s
            plain = socket.create_connection((HOST, port), LIMIT)
            try:
                if by_stls:
                    received = plain.makefile("rb")
                    received.readline()
                    plain.sendall(b"STLS\r\n")
                    self.assertEqual(received.readline().rstrip(), BEGIN)
                return self.context.wrap_socket(plain, server_hostname=HOST, session=session)
            except BaseException:
                plain.close()
                raise

        def converse(version: ssl.TLSVersion) -> list[bool]:
            self.context.minimum_version, self.context.maximum_version = (
                ssl.TLSVersion.TLSv1_2,
                version,
            )
            resumed = []
            session = None
            for by_stls in (False, True, True, False):
                with secured(by_stls, session) as secure:
                    commands = f"USER joe\r\nPASS {PASSWORD}\r\nRETR 1\r\nQUIT\r\n"
                    secure.sendall(commands.encode())
                    answers = secure.makefile("rb").read()
                    self.assertIn(MESSAGES["plain"].splitlines()[-1], answers)
                    resumed.append(bool(secure.session_reused))
                    session = secure.session
            return resumed

        for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
            self.assertEqual(await deferToThread(converse, version), [False, True, True, True])
        for name in ("TLSv1.2", "TLSv1.3"):
            logins = re.findall(rf"login user=joe .* tls={re.escape(name)}\n", self.server.log)
            self.assertEqual(len(logins), 4)


class RequiredTests(TLSTestCase):
    async def test_no_password_is_taken_without_tls_but_on_loopback(self) -> None:
        self.user("joe")
        await self.serve(requiretls="1")

        def refused(connection: Conversation) -> list[bytes]:
            connection.send(b"CAPA\r\n")
            self.assertNotIn(b"USER", connection.listing())
            return [connection.ask(b"USER joe"), connection.ask(b"AUTH PLAIN")]

        self.assertEqual(await self.from_elsewhere(refused), [TLS_REQUIRED] * 2)
        await self.in_log(
            rf"refused user=joe peer={ELSEWHERE} session=\S+ reason=tls-required detail=USER\n"
        )
        self.assertEqual(await clients.refusal_of(self.server.port, "joe", PASSWORD), "accepted")

    async def test_with_tls_it_is(self) -> None:
        self.user("joe")
        await self.serve(requiretls="1")

        def log_in(connection: Conversation) -> bytes:
            self.assertEqual(connection.ask(b"STLS"), BEGIN)
            connection.start_tls(self.context)
            connection.log_in("joe", PASSWORD)
            return connection.ask(b"STAT")

        self.assertEqual(await self.from_elsewhere(log_in), b"+OK 0 0")
        await self.in_log(rf"login user=joe peer={ELSEWHERE} .* method=pass tls=TLSv1\.3\n")


def _logged_in(pop: poplib.POP3) -> poplib.POP3:
    pop.user("joe")
    pop.pass_(PASSWORD)
    return pop


def _whole(message: bytes) -> bytes:
    return b"\n".join(as_lines(message))


def _rest(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1000)
    except ConnectionResetError:
        return b""


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
