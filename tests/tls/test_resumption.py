"""Sessions of TLS that clients go on with in their next connections, by tickets."""

from __future__ import annotations

import contextlib
import datetime
import ssl
from pathlib import Path

import attrs
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.tls.certificates import TICKET_KEYS_LAST, CertificateFiles, Certificates
from tests.tls.support import NOW, Identity, accepting, identity

FIRST, SECOND = "pop.example.org", "pop.example.net"
_FLIGHTS = 4
_GREETING = b"+OK\r\n"


@attrs.frozen
class Visit:
    """What a client saw of a connection: its session, for the next, and whether it was resumed."""

    session: ssl.SSLSession
    resumed: bool
    shown: bytes


class Visitor:
    """A client that speaks one version of TLS, and keeps nothing but what its visits give."""

    def __init__(self, version: ssl.TLSVersion) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        self._context.minimum_version = self._context.maximum_version = version

    def visit(self, server: Certificates, host: str = FIRST, before: Visit | None = None) -> Visit:
        """Shake hands and be greeted. Raises ``SSLError`` or ``SSL.Error`` where that fails."""
        received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self._context.wrap_bio(
            received, sent, server_hostname=host, session=before.session if before else None
        )
        connection = accepting(server)
        for _ in range(_FLIGHTS):
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
            if sent.pending:
                connection.bio_write(sent.read())
            with contextlib.suppress(SSL.WantReadError):
                connection.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                received.write(connection.bio_read(65536))
        connection.send(_GREETING)
        received.write(connection.bio_read(65536))
        # With TLS 1.3, tickets come behind the handshake.
        assert client.read(100) == _GREETING
        assert client.session is not None
        return Visit(
            client.session, bool(client.session_reused), client.getpeercert(binary_form=True) or b""
        )


VISITORS = tuple(map(Visitor, (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)))


class ResumptionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.now = NOW
        self.first = identity(FIRST, kind="rsa")
        self.second = identity(SECOND, number=1)
        self.server = self.new_server()

    def new_server(self) -> Certificates:
        files = []
        for number, each in enumerate((self.first, self.second)):
            path = self.folder / f"{number}.pem"
            path.write_bytes(each.both)
            files.append(CertificateFiles(path))
        return Certificates(files, lambda: self.now)

    def replace(self, *identities: Identity) -> int:
        return len(self.server.replace([each.both for each in identities]))

    def test_a_session_is_resumed_again_and_again(self) -> None:
        for visitor in VISITORS:
            for host in (FIRST, SECOND, "nobody.example.org"):
                visit = visitor.visit(self.server, host)
                self.assertFalse(visit.resumed)
                for _ in range(3):
                    visit = visitor.visit(self.server, host, visit)
                    self.assertTrue(visit.resumed, host)

    def test_one_ticket_serves_several_connections(self) -> None:
        for visitor in VISITORS:
            before = visitor.visit(self.server)
            resumed = [visitor.visit(self.server, before=before).resumed for _ in range(3)]
            self.assertEqual(resumed, [True] * 3)

    def test_under_another_name_of_the_server_a_client_is_served_too(self) -> None:
        # Whether it is resumed is for OpenSSL to say. All names lead to the same mail.
        for visitor in VISITORS:
            for one, other in ((FIRST, SECOND), (SECOND, FIRST), (SECOND, "nobody.example.org")):
                visitor.visit(self.server, other, visitor.visit(self.server, one))

    def test_with_a_new_first_certificate_it_takes_a_whole_handshake(self) -> None:
        new = identity(FIRST, number=2)
        for visitor in VISITORS:
            for host in (FIRST, SECOND):
                self.replace(self.first, self.second)
                before = visitor.visit(self.server, host)
                self.replace(new, self.second)
                visit = visitor.visit(self.server, host, before)
                self.assertFalse(visit.resumed)
                self.assertNotEqual(visit.shown == before.shown, host == FIRST)
                self.assertTrue(visitor.visit(self.server, host, visit).resumed)

    def test_with_another_new_one_sessions_go_on(self) -> None:
        for number, visitor in enumerate(VISITORS, 3):
            before = visitor.visit(self.server, SECOND)
            self.assertEqual(self.replace(self.first, identity(SECOND, number=number)), 1)
            visitor.visit(self.server, SECOND, before)

    def test_another_process_does_not_know_them_and_shakes_hands(self) -> None:
        other = self.new_server()
        for visitor in VISITORS:
            visit = visitor.visit(other, before=visitor.visit(self.server))
            self.assertFalse(visit.resumed)

    def test_a_ticket_is_of_no_use_when_its_key_has_had_its_time(self) -> None:
        for visitor in VISITORS:
            self.now += TICKET_KEYS_LAST
            self.replace(self.first, self.second)
            self.now += TICKET_KEYS_LAST - datetime.timedelta(seconds=1)
            before = visitor.visit(self.server)
            self.assertEqual(self.replace(self.first, self.second), 0)
            self.assertTrue(visitor.visit(self.server, before=before).resumed)
            self.now += datetime.timedelta(seconds=1)
            # It is the same certificate: nobody needs to be told.
            self.assertEqual(self.replace(self.first, self.second), 0)
            visit = visitor.visit(self.server, before=before)
            self.assertEqual((visit.resumed, visit.shown), (False, before.shown))

    def test_nor_does_it_stay_of_use_when_the_clock_is_set_back(self) -> None:
        for visitor in VISITORS:
            before = visitor.visit(self.server)
            self.now -= TICKET_KEYS_LAST
            self.replace(self.first, self.second)
            self.assertFalse(visitor.visit(self.server, before=before).resumed)
