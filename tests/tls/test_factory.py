"""TLS around the protocols of a factory, as listeners have it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.tls.certificates import CertificateFiles, Certificates
from qmailldap.tls.factory import TLSFactory
from tests.tls.support import client, identity, patiently


class Answering(Protocol):
    """Greets, and answers each chunk at once, in as many writes as it has octets."""

    def connectionMade(self) -> None:
        self.transport.write(b"+OK\r\n")  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        for octet in data:
            self.transport.write(bytes([octet]))  # type: ignore[union-attr]
        if data == b"QUIT":
            self.transport.loseConnection()  # type: ignore[union-attr]


class TLSFactoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        path = Path(self.mktemp()).absolute()
        path.write_bytes(identity("pop.example.org").both)
        self.clock = Clock()
        factory = TLSFactory(
            Certificates([CertificateFiles(path)]), Factory.forProtocol(Answering), self.clock
        )
        self.protocol: Any = factory.buildProtocol(IPv4Address("TCP", "192.0.2.7", 1234))
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)
        self.client = client("pop.example.org")

    def exchange(self) -> bytes:
        """Hand over what there is, both ways, and give what the client can read."""
        received = b""
        for _ in range(4):
            patiently(self.client.do_handshake)
            patiently(lambda: self.protocol.dataReceived(self.client.bio_read(65536)))
            if self.transport.value():
                self.client.bio_write(self.transport.value())
                self.transport.clear()
            with contextlib.suppress(SSL.WantReadError, SSL.ZeroReturnError):
                received += self.client.recv(65536)
        return received

    def test_the_greeting_comes_with_the_handshake(self) -> None:
        self.assertEqual(self.exchange(), b"+OK\r\n")

    def test_an_answer_waits_for_no_turn_of_the_reactor(self) -> None:
        self.exchange()
        self.client.send(b"x")
        self.assertEqual(self.exchange(), b"x")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_all_that_was_written_comes_before_the_end(self) -> None:
        self.exchange()
        self.client.send(b"QUIT")
        self.protocol.dataReceived(self.client.bio_read(65536))
        self.client.bio_write(self.transport.value())
        received = b""
        with contextlib.suppress(SSL.ZeroReturnError):
            while True:
                received += self.client.recv(65536)
        self.assertEqual(received, b"QUIT")
