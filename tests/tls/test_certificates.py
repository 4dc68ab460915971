"""Which certificate a client is shown, and when another takes its place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateNumbers
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from qmailldap.tls.certificates import MOST_OCTETS, BadCertificate, CertificateFiles, Certificates
from tests.tls.support import (
    DAY,
    NOW,
    Identity,
    accepting,
    client,
    identity,
    patiently,
    shake_hands,
    shown_to,
)


class CertificatesTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def certificates(self, *identities: Identity) -> Certificates:
        """Each in a file of its own, from 0.pem on."""
        return Certificates(
            [
                CertificateFiles(self.write(f"{number}.pem", each.both))
                for number, each in enumerate(identities)
            ],
            lambda: NOW,
        )

    def assert_shown(self, server: Certificates, shown: Identity, host: str = "") -> None:
        self.assertEqual(shown_to(server, host)[0], shown.certificate, host)


class FilesTests(CertificatesTestCase):
    def test_one_path_is_of_chain_and_key(self) -> None:
        self.assertEqual(CertificateFiles.parse("/etc/a.pem").paths, (Path("/etc/a.pem"),))

    def test_two_paths_are_of_the_chain_and_the_key(self) -> None:
        files = CertificateFiles.parse("/etc/a.pem:/etc/key.pem")
        self.assertEqual(files.paths, (Path("/etc/a.pem"), Path("/etc/key.pem")))
        self.assertEqual(str(files), "/etc/a.pem:/etc/key.pem")

    def test_they_stay_the_same_in_another_working_directory(self) -> None:
        files = CertificateFiles.parse("a.pem:b.pem")
        self.assertEqual(files.paths, (Path.cwd() / "a.pem", Path.cwd() / "b.pem"))

    def test_anything_else_is_none(self) -> None:
        for text in ("", ":", ":key", "chain:", "a:b:c"):
            with self.assertRaises(ValueError):
                CertificateFiles.parse(text)

    def test_the_key_may_have_a_file_of_its_own(self) -> None:
        host = identity("pop.example.org")
        chain, key = self.write("chain.pem", host.pem), self.write("key.pem", host.key)
        server = Certificates([CertificateFiles(chain, key)])
        self.assertEqual(server.paths, (chain, key))
        self.assert_shown(server, host)

    def test_a_file_that_is_of_no_use_is_named(self) -> None:
        fifo = self.folder / "fifo.pem"
        os.mkfifo(fifo)
        for path, problem in (
            (self.folder / "missing.pem", "cannot be read: No such file"),
            (self.folder, "cannot be read: it is no regular file"),
            (fifo, "cannot be read: it is no regular file"),
            (self.write("large.pem", b"\n" * (MOST_OCTETS + 1)), "cannot be read: it has more"),
            (self.write("empty.pem", b""), "no certificate in PEM"),
            (self.write("small.pem", identity("a", kind="small").both), "OpenSSL does not take it"),
        ):
            with self.assertRaisesRegex(BadCertificate, problem) as caught:
                Certificates([CertificateFiles(path)])
            self.assertIn(str(path), str(caught.exception))

    def test_it_is_named_whole_however_long_its_path_is(self) -> None:
        deep = self.folder.joinpath(*["a-folder-of-usual-length"] * 10)
        for files in (
            CertificateFiles(deep / "missing.pem"),
            CertificateFiles(deep / "missing.pem", deep / "key.pem"),
        ):
            with self.assertRaisesRegex(BadCertificate, f"^{deep}/missing.pem: cannot be read"):
                Certificates([files])
            self.assertEqual(str(files), ":".join(map(str, files.paths)))

    def test_a_key_that_does_not_sign_is_found_before_a_client_does(self) -> None:
        host = identity("pop.example.org", kind="rsa")
        numbers = host.private.private_numbers()
        # As of a bit that was lost: still the key of the certificate, to look at.
        damaged = _damaged(numbers)
        path = self.write("cert.pem", host.pem + damaged)
        with self.assertRaisesRegex(BadCertificate, "no client could use it|OpenSSL does not take"):
            Certificates([CertificateFiles(path)])

    def test_there_is_one_at_least(self) -> None:
        self.assertRaises(BadCertificate, Certificates, [])


class ChoiceTests(CertificatesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.first = identity("pop.example.org")
        self.second = identity("POP.example.net", "*.example.com", number=1)
        self.third = identity("special.example.com", "pop.example.org", kind="rsa")
        self.server = self.certificates(self.first, self.second, self.third)

    def test_the_name_that_is_asked_for_decides(self) -> None:
        for host, shown in (
            ("pop.example.org", self.first),
            ("POP.Example.ORG", self.first),
            ("pop.example.net", self.second),
            ("anything.example.com", self.second),
            ("special.example.com", self.third),
        ):
            self.assert_shown(self.server, shown, host)

    def test_who_names_no_host_or_a_strange_one_is_shown_the_first(self) -> None:
        for host in ("", "example.com", "a.b.example.com", "x.pop.example.org", "*", "org"):
            self.assert_shown(self.server, self.first, host)

    def test_where_there_is_but_one_it_is_shown_to_all(self) -> None:
        server = self.certificates(self.second)
        for host in ("", "pop.example.net", "anything.example.com", "pop.example.org"):
            self.assert_shown(server, self.second, host)

    def test_a_name_of_any_octets_is_a_strange_one(self) -> None:
        for octets in (b"\xff\xfe", b"." * 40, b"a" * 255, b"\x1b[2J", b"*.example.com "):
            connection = accepting(self.server)
            asking = client()
            asking.set_tlsext_host_name(octets)
            shake_hands(asking, connection)
            shown = asking.get_peer_certificate()
            assert shown is not None
            self.assertEqual(shown.to_cryptography(), self.first.certificate)

    def test_the_whole_chain_is_shown(self) -> None:
        root = identity(number=9, common_name="root")
        middle = identity(number=8, issuer=root, common_name="between")
        for number, kind in enumerate(("ec", "rsa", "ed25519")):
            host = identity("mail.example.org", kind=kind, issuer=middle)
            path = self.write(f"chain{number}.pem", host.both + middle.pem)
            server = Certificates(
                [CertificateFiles(self.write("0.pem", self.first.both)), CertificateFiles(path)]
            )
            self.assertEqual(
                list(shown_to(server, "mail.example.org")), [host.certificate, middle.certificate]
            )

    def test_older_versions_than_tls_1_2_are_refused(self) -> None:
        for newest in (SSL.TLS1_VERSION, SSL.TLS1_1_VERSION):
            connection = accepting(self.server)
            with self.assertRaisesRegex(SSL.Error, "protocol"):
                shake_hands(client(oldest=SSL.TLS1_VERSION, newest=newest), connection)
        for newest in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            connection = accepting(self.server)
            asking = client("special.example.com", newest=newest)
            shake_hands(asking, connection)
            self.assertEqual(asking.get_protocol_version(), newest)

    def test_nobody_negotiates_again(self) -> None:
        connection = accepting(self.server)
        asking = client("special.example.com", newest=SSL.TLS1_2_VERSION)
        shake_hands(asking, connection)
        self.assertTrue(asking.renegotiate())
        patiently(asking.do_handshake)
        connection.bio_write(asking.bio_read(65536))
        patiently(lambda: connection.recv(1))
        asking.bio_write(connection.bio_read(65536))
        with self.assertRaisesRegex(SSL.Error, "no renegotiation"):
            asking.do_handshake()

    def test_listeners_of_twisted_take_it(self) -> None:
        verifyObject(IOpenSSLServerConnectionCreator, self.server)
        received: list[bytes] = []

        class Receiver(Protocol):
            def dataReceived(self, data: bytes) -> None:
                received.append(data)

        inner = Factory.forProtocol(Receiver)
        factory: Any = TLSMemoryBIOFactory(self.server, False, inner, Clock())
        protocol = factory.buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        asking = client("pop.example.net")
        for _ in range(4):
            patiently(asking.do_handshake)
            patiently(lambda: protocol.dataReceived(asking.bio_read(65536)))
            if transport.value():
                asking.bio_write(transport.value())
                transport.clear()
        asking.send(b"QUIT\r\n")
        protocol.dataReceived(asking.bio_read(65536))
        self.assertEqual(received, [b"QUIT\r\n"])
        shown = asking.get_peer_certificate()
        assert shown is not None
        self.assertEqual(shown.to_cryptography(), self.second.certificate)


class ReplacingTests(CertificatesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.first = identity("pop.example.org")
        self.second = identity("pop.example.net", number=1)
        self.server = self.certificates(self.first, self.second)

    def test_new_connections_are_shown_the_new_one(self) -> None:
        new = identity("pop.example.net", number=2)
        changed = self.server.replace([self.first.both, new.both])
        self.assertEqual([each.chain.certificates for each in changed], [(new.certificate,)])
        self.assert_shown(self.server, self.first)
        self.assert_shown(self.server, new, "pop.example.net")

    def test_what_is_the_same_is_no_change(self) -> None:
        self.assertEqual(self.server.replace([self.first.both, self.second.both]), [])

    def test_one_that_is_bad_leaves_all_as_they_were(self) -> None:
        new = identity("pop.example.org", number=3)
        with self.assertRaisesRegex(BadCertificate, "1.pem: it holds no certificate"):
            self.server.replace([new.both, b""])
        self.assert_shown(self.server, self.first)
        self.assert_shown(self.server, self.second, "pop.example.net")

    def test_a_session_goes_on_as_it_was(self) -> None:
        for host in ("", "pop.example.net"):
            connection = accepting(self.server)
            asking = client(host)
            shake_hands(asking, connection)
            self.server.replace(
                [identity("a", number=4).both, identity("pop.example.net", number=5).both]
            )
            asking.send(b"NOOP\r\n")
            connection.bio_write(asking.bio_read(65536))
            self.assertEqual(connection.recv(100), b"NOOP\r\n")

    def test_a_connection_that_had_not_said_hello_is_served(self) -> None:
        connection = accepting(self.server)
        new = identity("pop.example.net", number=6)
        self.server.replace([identity("a", number=4).both, new.both])
        asking = client("pop.example.net")
        shake_hands(asking, connection)
        shown = asking.get_peer_certificate()
        assert shown is not None
        self.assertEqual(shown.to_cryptography(), new.certificate)

    def test_names_that_are_gone_are_not_answered_to(self) -> None:
        self.server.replace([self.first.both, identity("other.example.net", number=7).both])
        self.assert_shown(self.server, self.first, "pop.example.net")

    def test_contents_of_another_number_are_a_mistake(self) -> None:
        self.assertRaises(ValueError, self.server.replace, [self.first.both])


class WordsTests(CertificatesTestCase):
    def test_warnings_name_the_file(self) -> None:
        server = self.certificates(
            identity("pop.example.org"),
            identity("pop.example.net", end=NOW - DAY / 2),
            identity(number=1),
        )
        expired, nameless = server.warnings
        self.assertEqual(expired, f"certificate {self.folder}/1.pem: it has expired on 2030-04-30")
        self.assertIn("2.pem: it is for no host", nameless)

    def test_a_line_of_the_log_has_the_file_its_names_and_its_end(self) -> None:
        server = self.certificates(identity("pop.example.org", "pop3.example.org"))
        self.assertEqual(
            str(server.shown[0]),
            f"file={self.folder}/0.pem names=pop.example.org,pop3.example.org until=2030-05-31",
        )

    def test_names_and_paths_of_others_cannot_break_a_line(self) -> None:
        names = [f"a{number}.example.org" for number in range(9)]
        host = identity("x\n\x1b[2J.example.org", *names)
        server = Certificates([CertificateFiles(self.write("a\nb c.pem", host.both))])
        line = str(server.shown[0])
        self.assertTrue(line.isprintable(), line)
        self.assertNotIn("a8.example.org", line)

    def test_a_key_is_in_no_repr(self) -> None:
        server = self.certificates(identity("pop.example.org"))
        self.assertNotIn("rivate", repr(server.shown) + repr(server))


def _damaged(numbers: Any) -> bytes:
    """The PEM text of an RSA key with another private exponent."""
    key = RSAPrivateNumbers(
        numbers.p,
        numbers.q,
        numbers.d ^ 4,
        numbers.dmp1 ^ 4,
        numbers.dmq1 ^ 4,
        numbers.iqmp,
        numbers.public_numbers,
    ).private_key(unsafe_skip_rsa_key_validation=True)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
