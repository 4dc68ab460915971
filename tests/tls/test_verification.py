"""Whom we take for the server that is meant, in real handshakes on loopback."""

from __future__ import annotations

import gc
import ipaddress
import os
import weakref
from pathlib import Path
from string import ascii_letters, digits
from types import SimpleNamespace
from typing import Any
from unittest import mock

from hypothesis import example, given
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLContextFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from qmailldap.tls import verification
from qmailldap.tls.verification import (
    BadAuthorities,
    CertificateRefused,
    NameNotVerifiable,
    Unverified,
    Verified,
)
from tests.integration.certificates import write_authority, write_certificate

HOST = "127.0.0.1"
NAME = "mail2.example.org"
PASSWORD = b"PASS secret\r\n"
ANSWER = b"+OK\r\n"
HANDSHAKE_LIMIT = 20.0
NOT_TRUSTED = "its certificate is of no authority that is trusted here"

net: Any = reactor


@implementer(IOpenSSLContextFactory)
class Versions:
    """TLS of some versions only, even if OpenSSL does not speak them by default."""

    def __init__(self, least: int, most: int, certificate: Path | None = None) -> None:
        self._context = SSL.Context(SSL.TLS_METHOD)
        self._context.set_options(0)
        self._context.set_min_proto_version(least)
        self._context.set_max_proto_version(most)
        self._context.set_cipher_list(b"ALL:@SECLEVEL=0")
        if certificate is not None:
            self._context.use_certificate_file(str(certificate))
            self._context.use_privatekey_file(str(certificate))

    def getContext(self) -> SSL.Context:
        return self._context


@implementer(IOpenSSLClientConnectionCreator)
class Watched:
    """Tells what has become of the connections of another creator."""

    def __init__(self, creator: Any) -> None:
        self._creator = creator
        self.made: list[weakref.ref[SSL.Connection]] = []

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        connection: SSL.Connection = self._creator.clientConnectionForTLS(tlsProtocol)
        self.made.append(weakref.ref(connection))
        return connection


class Speaker(Protocol):
    """One end of a connection, which speaks TLS from the first octet on if it has ``options``."""

    transport: Any
    server_name: bytes | None = None

    def __init__(self, options: object | None) -> None:
        self._options = options
        self.received = b""
        self.lost: Deferred[Any] = Deferred()

    def connectionMade(self) -> None:
        if self._options is not None:
            self.transport.startTLS(self._options)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # Not the failure itself, which the Deferred would take for one of its own.
        self.lost.callback(reason.value)


class Server(Speaker):
    """Answers whatever it is told."""

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self._options is not None:
            self.server_name = self.transport.getHandle().get_servername()
        self.transport.write(ANSWER)


class Client(Speaker):
    """Says the password without waiting for the end of the handshake, and closes when answered."""

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.write(PASSWORD)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.transport.loseConnection()


class HandshakeTests(TestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.ca = self.authority("ca")

    def authority(self, name: str, *, days: float = 1, authority: Path | None = None) -> Path:
        path = self.directory / name
        write_authority(path, f"the authority {name}", days=days, authority=authority)
        return path

    def certificate(self, *names: str, days: float = 1, authority: Path | None = None) -> Path:
        path = self.directory / "cert.pem"
        write_certificate(path, *(names or (NAME,)), days=days, authority=authority)
        return path

    async def connect(self, server: Server, client: Client) -> BaseException:
        """Let them speak to the end. Gives what the client is told of that."""
        port = net.listenTCP(0, Factory.forProtocol(lambda: server), interface=HOST)
        self.addCleanup(port.stopListening)
        await connectProtocol(TCP4ClientEndpoint(net, HOST, port.getHost().port), client)
        both = gatherResults([client.lost, server.lost])
        told: BaseException
        told, _ = await both.addTimeout(HANDSHAKE_LIMIT, net)
        return told

    async def accepted(
        self, options: object, tls: Verified | Unverified, name: str = NAME
    ) -> Server:
        server, client = Server(options), Client(tls.connections_to(name))
        told = await self.connect(server, client)
        self.assertEqual((client.received, server.received), (ANSWER, PASSWORD), told)
        return server

    async def refused(self, options: object, tls: Verified | Unverified, name: str = NAME) -> str:
        """What the log is told. A server that is refused learns no password."""
        server, client = Server(options), Client(tls.connections_to(name))
        told = await self.connect(server, client)
        self.assertEqual(client.received, b"")
        self.assertNotIn(PASSWORD, server.received)
        return verification.problem(Failure(told))

    async def test_the_server_is_known_by_its_name(self) -> None:
        server = await self.accepted(
            options(self.certificate("other.example.org", NAME, authority=self.ca)),
            Verified(self.ca),
        )
        self.assertEqual(server.server_name, NAME.encode())

    async def test_case_and_a_dot_at_the_end_are_no_part_of_a_name(self) -> None:
        server = await self.accepted(
            options(self.certificate(authority=self.ca)),
            Verified(self.ca),
            "Mail2.Example.ORG.",
        )
        self.assertEqual(server.server_name, NAME.encode())

    async def test_a_server_may_be_named_by_an_address(self) -> None:
        for address in ("192.0.2.7", "2001:db8::7"):
            own = options(self.certificate(address, authority=self.ca))
            server = await self.accepted(own, Verified(self.ca), address)
            self.assertIsNone(server.server_name)
            self.assertEqual(
                await self.refused(own, Verified(self.ca), "192.0.2.8"),
                f"its certificate is for {address}",
            )

    async def test_a_certificate_of_other_hosts_is_refused(self) -> None:
        names = [f"mail{number}.example.org" for number in range(3, 10)]
        problem = await self.refused(
            options(self.certificate(*names, authority=self.ca)), Verified(self.ca)
        )
        self.assertEqual(problem, f"its certificate is for {', '.join(names[:5])}, ...")

    async def test_a_certificate_of_no_host_is_refused(self) -> None:
        problem = await self.refused(
            options(self.authority("server", authority=self.ca)), Verified(self.ca)
        )
        self.assertEqual(problem, "its certificate is for no host")

    async def test_names_that_cannot_be_used_are_refused(self) -> None:
        own = options(self.certificate(NAME, "*.*.example.org", authority=self.ca))
        problem = await self.refused(own, Verified(self.ca))
        self.assertIn("names in its certificate cannot be used", problem)

    async def test_names_that_are_malformed_are_refused_and_no_fault_of_ours(self) -> None:
        def malformed(certificate: object) -> list[object]:
            raise ValueError("b'\\x7f' does not appear to be an IPv4 or IPv6 address")

        self.patch(verification, "extract_patterns", malformed)
        problem = await self.refused(
            options(self.certificate(authority=self.ca)), Verified(self.ca)
        )
        self.assertEqual(problem, "the names in its certificate cannot be read")

    async def test_an_unknown_authority_is_refused(self) -> None:
        other = self.authority("other")
        own = self.certificate(authority=other)
        for shown in (options(own), options(own, other)):
            self.assertEqual(await self.refused(shown, Verified(self.ca)), NOT_TRUSTED)

    async def test_a_certificate_that_vouches_for_itself_is_refused(self) -> None:
        own = options(self.certificate())
        self.assertEqual(await self.refused(own, Verified(self.ca)), NOT_TRUSTED)

    async def test_an_expired_certificate_is_refused(self) -> None:
        own = options(self.certificate(days=-1, authority=self.ca))
        self.assertEqual(await self.refused(own, Verified(self.ca)), "its certificate has expired")

    async def test_an_expired_authority_is_refused(self) -> None:
        ca = self.authority("old", days=-1)
        own = options(self.certificate(authority=ca))
        self.assertEqual(
            await self.refused(own, Verified(ca)),
            "a certificate above its own has expired",
        )

    async def test_all_certificates_of_the_file_count(self) -> None:
        authorities = [self.ca, self.authority("second"), self.authority("third")]
        file = self.directory / "authorities"
        file.write_bytes(b"# ours\n" + b"\n".join(each.read_bytes() for each in authorities))
        for authority in authorities:
            own = options(self.certificate(authority=authority))
            await self.accepted(own, Verified(file))

    async def test_the_file_may_hold_the_certificate_of_the_server_itself(self) -> None:
        for authority in (None, self.ca):
            own = self.certificate(authority=authority)
            await self.accepted(options(own), Verified(own))
            problem = await self.refused(options(own), Verified(own), "mail3.example.org")
            self.assertEqual(problem, f"its certificate is for {NAME}")

    async def test_an_authority_may_have_been_vouched_for_by_another(self) -> None:
        between = self.authority("between", authority=self.ca)
        own = self.certificate(authority=between)
        await self.accepted(options(own, between), Verified(self.ca))
        await self.accepted(options(own), Verified(between))
        self.assertEqual(await self.refused(options(own), Verified(self.ca)), NOT_TRUSTED)

    async def test_without_a_file_the_authorities_of_the_system_count(self) -> None:
        own = options(self.certificate(authority=self.ca))
        self.assertEqual(await self.refused(own, Verified()), NOT_TRUSTED)
        with mock.patch.dict(os.environ, {"SSL_CERT_FILE": str(self.ca)}):
            tls = Verified()
        await self.accepted(own, tls)

    async def test_the_file_is_read_once(self) -> None:
        own = options(self.certificate(authority=self.ca))
        tls = Verified(self.ca)
        self.ca.unlink()
        await self.accepted(own, tls)
        await self.accepted(own, tls, NAME.upper())

    async def test_a_refusal_is_no_matter_of_the_next_connection(self) -> None:
        tls = Verified(self.ca)
        own = options(self.certificate(authority=self.ca))
        await self.refused(own, tls, "mail3.example.org")
        await self.accepted(own, tls)

    async def test_without_verification_any_certificate_is_taken(self) -> None:
        tls = Unverified()
        await self.accepted(options(self.certificate()), tls)
        await self.accepted(options(self.certificate("other.example.org", days=-1)), tls)
        server = await self.accepted(options(self.authority("server")), tls)
        self.assertEqual(server.server_name, NAME.encode())

    async def test_without_verification_any_name_is_taken(self) -> None:
        own = options(self.certificate())
        for name in ("", "under_score", "a b", "m\xfcnchen", "x" * 300, "a..b", "192.0.2.1"):
            await self.accepted(own, Unverified(), name)

    async def test_tls_before_1_2_is_refused(self) -> None:
        own = self.certificate(authority=self.ca)
        for tls in (Unverified(), Verified(self.ca)):
            for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
                await self.accepted(Versions(version, version, own), tls)
            old = Versions(SSL.TLS1_VERSION, SSL.TLS1_1_VERSION, own)
            problem = await self.refused(old, tls)
            self.assertRegex(problem, "protocol")
        # It is not the server that would not speak it.
        server, client = Server(old), Client(Versions(SSL.TLS1_VERSION, SSL.TLS1_1_VERSION))
        await self.connect(server, client)
        self.assertEqual((client.received, server.received), (ANSWER, PASSWORD))

    async def test_a_server_that_speaks_no_tls_is_named_as_such(self) -> None:
        problem = await self.refused(None, Unverified())
        self.assertRegex(problem, "wrong version number|packet length")

    async def test_a_connection_leaves_nothing_behind(self) -> None:
        tls = Verified(self.ca)
        own = options(self.certificate(authority=self.ca))
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for name in (NAME, "mail3.example.org"):
            watched = Watched(tls.connections_to(name))
            await self.connect(Server(own), Client(watched))
            # The ends of both connections are still being told.
            await deferLater(net, 0)
            self.assertEqual([made() for made in watched.made], [None])


class ContextTests(SynchronousTestCase):
    def test_a_file_without_a_usable_certificate_is_named(self) -> None:
        file = Path(self.mktemp())
        write_certificate(file)
        good = file.read_bytes()
        begin = b"-----BEGIN CERTIFICATE-----\n"
        for content, said in (
            (b"", "holds no certificate"),
            (b"mail2.example.org\n", "holds no certificate"),
            (good[good.index(b"-----BEGIN PRIVATE") :], "holds no certificate"),
            (begin + b"garbage\n-----END CERTIFICATE-----\n", "certificate number 1"),
            (good + begin + b"AAAA\n-----END CERTIFICATE-----\n", "certificate number 2"),
            (good + good[:200], "certificate number 2"),
            (good[:200] + good, "certificate number 1"),
        ):
            file.write_bytes(content)
            with self.assertRaises(BadAuthorities) as caught:
                Verified(file)
            self.assertIn(said, str(caught.exception))
        file.unlink()
        with self.assertRaises(BadAuthorities) as caught:
            Verified(file)
        self.assertIn("cannot be read", str(caught.exception))

    @given(st.binary(max_size=200), st.integers(0, 3))
    def test_any_file_is_read_or_named_as_the_fault(self, content: bytes, begins: int) -> None:
        file = Path(self.mktemp())
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"-----BEGIN CERTIFICATE-----\n" * begins + content)
        with self.assertRaises(BadAuthorities):
            Verified(file)

    def test_a_name_that_no_certificate_can_bear_is_told_at_once(self) -> None:
        tls = Verified()
        for name in ("", ".", "a b", "m\xfcnchen.example.org", "a..b", "1234", "x" * 254, "a\nb"):
            with self.assertRaises(NameNotVerifiable) as caught:
                tls.connections_to(name)
            self.assertNotIn("\n", str(caught.exception))
            self.assertTrue(str(caught.exception).isascii())

    @given(st.text(max_size=300) | st.from_regex(r"[a-z0-9._:%-]{1,20}", fullmatch=True))
    @example("\udcff")
    @example("mail2.example.org")
    def test_any_name_has_connections_or_is_told_to_be_none(self, name: str) -> None:
        host = name.removesuffix(".")
        labels = host.split(".")
        is_ascii = {*"".join(labels)} <= {*ascii_letters, *digits, *"-_"}
        is_name = is_ascii and all(labels) and len(host) < 254 and not is_number(host)
        if is_name or is_address(host):
            self.assertIsInstance(connection_of(VERIFIED.connections_to(name)), SSL.Connection)
        else:
            with self.assertRaises(NameNotVerifiable):
                VERIFIED.connections_to(name)
        self.assertIsInstance(connection_of(UNVERIFIED.connections_to(name)), SSL.Connection)

    def test_all_servers_share_one_context(self) -> None:
        contexts = {
            connection_of(VERIFIED.connections_to(name)).get_context()
            for name in ("a.example.org", "b.example.org", "192.0.2.1")
        }
        self.assertEqual(len(contexts), 1)

    def test_every_end_of_a_connection_has_a_line(self) -> None:
        for error, line in (
            (CertificateRefused("its certificate has expired"), "its certificate has expired"),
            (SSL.Error([("SSL routines", "", "no shared cipher")]), "no shared cipher"),
            (SSL.Error([("", "", "one"), ("", "", "two")]), "one; two"),
            (SSL.Error([]), "TLS failed without a reason"),
            (SSL.Error(), "TLS failed without a reason"),
            (SSL.SysCallError(-1, "Unexpected EOF"), "TLS failed without a reason"),
            (ConnectionDone(), "Connection was closed cleanly."),
        ):
            self.assertEqual(verification.problem(Failure(error)), line)


def is_address(text: str) -> bool:
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def is_number(text: str) -> bool:
    try:
        return int(text) is not None
    except ValueError:
        return False


def connection_of(creator: IOpenSSLClientConnectionCreator) -> SSL.Connection:
    """A connection that shakes nobody's hand."""
    protocol: Any = SimpleNamespace(failVerification=None)
    return creator.clientConnectionForTLS(protocol)


UNVERIFIED, VERIFIED = Unverified(), Verified()


def options(certificate: Path, above: Path | None = None) -> CertificateOptions:
    """What a server shows: its certificate, and that of the authority ``above``."""
    own = PrivateCertificate.loadPEM(certificate.read_text())
    chain = [] if above is None else [PrivateCertificate.loadPEM(above.read_text()).original]
    return CertificateOptions(own.privateKey.original, own.original, extraCertChain=chain)
