"""A connection whose speaker changes, on string transports and below other layers."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from qmailldap.handover import Connection, close
from qmailldap.tls.certificates import CertificateFiles, Certificates
from qmailldap.tls.factory import TLSFactory
from tests.tls.support import client, identity, patiently


@implementer(IHalfCloseableProtocol)
class Speaker(Protocol):
    """Keeps what it is told."""

    def __init__(self, name: str = "speaker") -> None:
        self.name = name
        self.told: list[object] = []

    def logPrefix(self) -> str:
        return self.name

    def connectionMade(self) -> None:
        self.told.append(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self.told.append(data)

    def readConnectionLost(self) -> None:
        self.told.append("all read")

    def writeConnectionLost(self) -> None:
        self.told.append("all written")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.told.append(reason)


class ConnectionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.first, self.second = Speaker("first"), Speaker("second")
        self.connection = Connection(self.first)
        self.transport = StringTransport()
        self.connection.makeConnection(self.transport)

    def test_the_first_speaker_has_the_connection_and_is_told_everything(self) -> None:
        reason = Failure(ConnectionDone())
        self.connection.dataReceived(b"one")
        self.connection.readConnectionLost()
        self.connection.writeConnectionLost()
        self.connection.connectionLost(reason)
        self.assertEqual(
            self.first.told, [self.transport, b"one", "all read", "all written", reason]
        )

    def test_it_provides_half_close_as_its_speakers_do(self) -> None:
        verifyObject(IHalfCloseableProtocol, self.connection)

    def test_after_the_handover_only_the_new_one_is_told(self) -> None:
        self.connection.dataReceived(b"one")
        self.connection.hand_over(self.second)
        self.connection.dataReceived(b"two")
        self.connection.readConnectionLost()
        self.assertEqual(self.first.told, [self.transport, b"one"])
        self.assertEqual(self.second.told, [self.transport, b"two", "all read"])

    def test_a_speaker_may_hand_over_in_the_midst_of_what_it_is_told(self) -> None:
        def hand_over(data: bytes) -> None:
            self.connection.hand_over(self.second)

        self.first.dataReceived = hand_over  # type: ignore[method-assign]
        connection = self.connection = Connection(self.first)
        connection.makeConnection(self.transport)
        connection.dataReceived(b"one")
        connection.dataReceived(b"two")
        self.assertEqual(self.second.told, [self.transport, b"two"])

    def test_handing_over_what_is_lost_tells_just_that(self) -> None:
        reason = Failure(ConnectionDone())
        self.connection.connectionLost(reason)
        self.connection.hand_over(self.second)
        self.assertEqual(self.second.told, [reason])
        self.assertEqual(self.first.told, [self.transport, reason])

    def test_a_speaker_may_hand_over_when_the_connection_is_lost(self) -> None:
        reason = Failure(ConnectionDone())

        def hand_over(reason: Failure = connectionDone) -> None:
            self.connection.hand_over(self.second)

        self.first.connectionLost = hand_over  # type: ignore[method-assign]
        self.connection.connectionLost(reason)
        self.assertEqual(self.second.told, [reason])

    def test_no_speaker_is_kept_after_the_end(self) -> None:
        kept = [weakref.ref(self.first), weakref.ref(self.second)]
        self.connection.hand_over(self.second)
        del self.first, self.second
        self.connection.connectionLost()
        gc.disable()
        self.addCleanup(gc.enable)
        self.assertEqual([ref() for ref in kept], [None, None])
        self.connection.dataReceived(b"too late")

    def test_a_handshake_is_told_to_those_who_want_to_hear_of_it(self) -> None:
        @implementer(IHandshakeListener)
        class Listener(Speaker):
            def handshakeCompleted(self) -> None:
                self.told.append("handshake")

        verifyObject(IHandshakeListener, self.connection)
        self.connection.handshakeCompleted()
        listener = Listener()
        self.connection.hand_over(listener)
        self.connection.handshakeCompleted()
        self.assertEqual(self.first.told, [self.transport])
        self.assertEqual(listener.told, [self.transport, "handshake"])
        self.connection.connectionLost()
        self.connection.handshakeCompleted()

    def test_the_end_of_the_connection_is_told_whoever_speaks_then(self) -> None:
        lost: list[None] = []
        connection = Connection(self.first, lambda: lost.append(None))
        connection.makeConnection(self.transport)
        connection.hand_over(self.second)
        self.assertEqual(lost, [])
        connection.connectionLost()
        self.assertEqual(lost, [None])

    def test_the_log_has_the_name_of_the_speaker(self) -> None:
        self.assertEqual(self.connection.logPrefix(), "first")
        self.connection.hand_over(self.second)
        self.assertEqual(self.connection.logPrefix(), "second")
        self.connection.connectionLost()
        self.assertEqual(self.connection.logPrefix(), "Connection")

    def test_it_may_be_wrapped_by_another_layer(self) -> None:
        connection = Connection(self.first)
        self.first.told.clear()
        factory = WrappingFactory(Factory.forProtocol(lambda: connection))
        wrapper = factory.buildProtocol(None)
        wrapper.makeConnection(StringTransport())
        wrapper.dataReceived(b"one")
        connection.hand_over(self.second)
        wrapper.dataReceived(b"two")
        self.assertEqual(self.first.told, [wrapper, b"one"])
        self.assertEqual(self.second.told, [wrapper, b"two"])


class CloseTests(SynchronousTestCase):
    def test_a_plain_transport_is_closed_behind_all_that_was_written(self) -> None:
        transport = StringTransport()
        close(transport)
        self.assertTrue(transport.disconnecting)

    def test_with_tls_from_the_start_the_other_side_need_not_end_it_as_well(self) -> None:
        path = Path(self.mktemp()).absolute()
        path.write_bytes(identity("pop.example.org").both)
        certificates = Certificates([CertificateFiles(path)])
        speaker = Protocol()
        factory = TLSFactory(certificates, Factory.forProtocol(lambda: speaker), Clock())
        layer: Any = factory.buildProtocol(IPv4Address("TCP", "192.0.2.7", 1234))
        below = StringTransport()
        layer.makeConnection(below)
        far = client("pop.example.org")

        def exchange() -> None:
            patiently(far.do_handshake)
            patiently(lambda: layer.dataReceived(far.bio_read(65536)))
            if below.value():
                far.bio_write(below.value())
                below.clear()

        for _ in range(4):
            exchange()
        transport: Any = speaker.transport
        transport.write(b"bye\r\n")
        close(transport)
        self.assertTrue(below.disconnecting)
        exchange()
        self.assertEqual(far.recv(100), b"bye\r\n")
        with self.assertRaises(SSL.ZeroReturnError):
            far.recv(100)
