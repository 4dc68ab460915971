"""Connections behind a proxy: what those who speak on them see, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IHandshakeListener,
    ISSLTransport,
)
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides, implementer

from qmailldap.admission import Connections
from qmailldap.haproxy import ProxyFactory
from qmailldap.present import Present

from ..loglevels import logged_lines
from .support import tlv, v2, v2_tcp4

PROXY = IPv4Address("TCP", "198.51.100.1", 50_000)
HERE = IPv4Address("TCP", "198.51.100.2", 110)
CLIENT = IPv4Address("TCP", "192.0.2.1", 4711)
V1 = b"PROXY TCP4 192.0.2.1 192.0.2.110 4711 110\r\n"
SPOKE_TLS = tlv(0x20, b"\1\0\0\0\0")


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class Speaker(Protocol):
    """Remembers what it is told."""

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.told: list[str] = []

    def connectionMade(self) -> None:
        self.told.append("made")
        self.transport.write(b"+OK ready\r\n")

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def readConnectionLost(self) -> None:
        self.told.append("read lost")

    def writeConnectionLost(self) -> None:
        self.told.append("write lost")

    def handshakeCompleted(self) -> None:
        self.told.append("handshake")

    def connectionLost(self, reason: Any = None) -> None:
        self.told.append("lost")


class Speakers(ServerFactory):
    def __init__(self, make: Callable[[], Protocol | None] = Speaker) -> None:
        self.make = make
        self.built: list[IAddress | None] = []
        self.speakers: list[Any] = []

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        self.built.append(addr)
        self.speakers.append(self.make())
        speaker: Protocol | None = self.speakers[-1]
        return speaker


class Transport(StringTransport):
    """Has what a TCP transport has besides."""

    bufferSize = 65536
    aborted = False
    context: object = None

    def __init__(self) -> None:
        super().__init__(HERE, PROXY)

    def abortConnection(self) -> None:
        self.aborted = True

    def startTLS(self, context: object, normal: bool = True) -> None:
        self.context = context
        directlyProvides(self, ISSLTransport)


class WrapperTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.speakers = Speakers()
        self.lines = logged_lines(self, "qmailldap.haproxy")
        self.connect(ProxyFactory(self.speakers, self.clock, 10))

    def connect(self, factory: ProxyFactory) -> None:
        self.transport = Transport()
        self.protocol: Any = factory.buildProtocol(PROXY)
        self.protocol.makeConnection(self.transport)

    def send(self, *octets: bytes) -> None:
        for each in octets:
            self.protocol.dataReceived(each)

    def lose(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def speaker(self) -> Speaker:
        (speaker,) = self.speakers.speakers
        assert isinstance(speaker, Speaker)
        return speaker

    def assert_refused(self, reason: str, detail: str) -> None:
        (line,) = self.lines
        self.assertRegex(
            line,
            f'^refused user="" peer=198.51.100.1 session=[^ ]+ reason={reason} detail=.*{detail}',
        )
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.speakers.built, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class HeaderTests(WrapperTestCase):
    def test_nobody_speaks_before_the_header_is_there(self) -> None:
        self.send(V1[:-1])
        self.assertEqual(self.speakers.built, [])
        self.assertEqual(self.transport.value(), b"")
        self.send(V1[-1:])
        self.assertEqual(self.speakers.built, [CLIENT])
        self.assertEqual(self.transport.value(), b"+OK ready\r\n")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_both_ends_are_those_of_the_header(self) -> None:
        self.send(V1)
        self.assertEqual(self.speaker.transport.getPeer(), CLIENT)
        self.assertEqual(self.speaker.transport.getHost(), IPv4Address("TCP", "192.0.2.110", 110))

    def test_where_nothing_is_said_the_ends_are_those_of_the_connection(self) -> None:
        for header in (b"PROXY UNKNOWN\r\n", v2(0x20, 0, b"")):
            self.speakers = Speakers()
            self.connect(ProxyFactory(self.speakers, self.clock, 10))
            self.send(header)
            self.assertEqual(self.speakers.built, [PROXY])
            self.assertEqual(self.speaker.transport.getPeer(), PROXY)
            self.assertEqual(self.speaker.transport.getHost(), HERE)

    def test_what_comes_with_the_header_and_after_goes_on(self) -> None:
        self.send(V1 + b"CA", b"PA\r\n")
        self.assertEqual(self.speaker.received, b"CAPA\r\n")

    def test_it_is_told_whether_the_client_spoke_tls(self) -> None:
        for tlvs in (b"", SPOKE_TLS):
            self.speakers = Speakers()
            self.connect(ProxyFactory(self.speakers, self.clock, 10))
            self.send(v2_tcp4("192.0.2.1", tlvs=tlvs))
            self.assertIs(self.speaker.transport.client_spoke_tls, bool(tlvs))

    @given(
        st.sampled_from([V1, b"PROXY UNKNOWN\r\n", v2_tcp4("192.0.2.1", tlvs=SPOKE_TLS)]),
        st.binary(max_size=30),
        st.lists(st.integers(1, 20)),
    )
    def test_it_makes_no_difference_in_which_pieces_all_comes(
        self, header: bytes, rest: bytes, pieces: list[int]
    ) -> None:
        self.clock, self.speakers = Clock(), Speakers()
        self.connect(ProxyFactory(self.speakers, self.clock, 10))
        left = header + rest
        for size in pieces:
            self.send(left[:size])
            left = left[size:]
        self.send(left)
        self.assertEqual(self.speaker.received, rest)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_bad_header_is_refused(self) -> None:
        self.send(b"PROXY TCP4 1 2 3\r\nCAPA\r\n")
        self.assert_refused("proxy-header", "malformed line of version 1")
        self.send(V1)
        self.assertEqual((len(self.lines), self.speakers.built), (1, []))
        self.lose()
        self.assertEqual(len(self.lines), 1)

    def test_a_client_that_comes_without_a_proxy_is_refused(self) -> None:
        self.send(b"CAPA\r\n")
        self.assert_refused("proxy-header", "the connection begins with something else")

    def test_a_header_that_does_not_come_in_time_is_refused(self) -> None:
        for octet in V1[:9]:
            self.clock.advance(1)
            self.send(bytes([octet]))
        self.assertEqual(self.lines, [])
        self.clock.advance(1)
        self.assert_refused("proxy-header", "none within 10 s")

    def test_a_connection_that_is_lost_before_leaves_no_line(self) -> None:
        self.send(V1[:-1])
        self.lose()
        self.assertEqual((self.lines, self.speakers.built), ([], []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_without_a_protocol_it_is_closed(self) -> None:
        self.speakers.make = lambda: None
        self.send(V1 + b"CAPA\r\n")
        self.assertTrue(self.transport.aborted)
        self.lose()

    def test_who_closes_at_once_is_told_nothing_more(self) -> None:
        class Refuses(Speaker):
            def connectionMade(self) -> None:
                self.transport.write(b"-ERR too many connections\r\n")
                self.transport.loseConnection()

        self.speakers.make = Refuses
        self.send(V1 + b"CAPA\r\n")
        self.assertEqual(self.speaker.received, b"")
        self.assertTrue(self.transport.disconnecting)


class TransportTests(WrapperTestCase):
    """What lies between is seen from neither side."""

    def setUp(self) -> None:
        super().setUp()
        self.send(V1)

    def test_the_end_of_either_direction_is_told(self) -> None:
        self.assertTrue(IHalfCloseableProtocol.providedBy(self.protocol))
        self.protocol.readConnectionLost()
        self.protocol.writeConnectionLost()
        self.lose()
        self.assertEqual(self.speaker.told, ["made", "read lost", "write lost", "lost"])

    def test_one_that_knows_no_half_close_is_not_told_of_it(self) -> None:
        self.speakers.make = Protocol
        self.connect(ProxyFactory(self.speakers, self.clock, 10))
        self.assertFalse(IHalfCloseableProtocol.providedBy(self.protocol))
        self.send(V1)
        self.assertFalse(IHalfCloseableProtocol.providedBy(self.protocol))
        self.assertFalse(IHandshakeListener.providedBy(self.protocol))

    def test_tls_is_begun_on_the_connection_itself(self) -> None:
        self.assertFalse(ISSLTransport.providedBy(self.speaker.transport))
        context = object()
        self.speaker.transport.startTLS(context)
        self.assertIs(self.transport.context, context)
        self.assertTrue(ISSLTransport.providedBy(self.speaker.transport))
        self.assertTrue(IHandshakeListener.providedBy(self.protocol))
        self.protocol.handshakeCompleted()
        self.assertIn("handshake", self.speaker.told)

    def test_producers_are_registered_with_the_connection_itself(self) -> None:
        producer = object()
        self.speaker.transport.registerProducer(producer, True)
        self.assertIs(self.transport.producer, producer)
        self.speaker.transport.unregisterProducer()
        self.assertIsNone(self.transport.producer)
        self.speaker.transport.pauseProducing()
        self.assertEqual(self.transport.producerState, "paused")
        self.speaker.transport.resumeProducing()
        self.assertEqual(self.transport.producerState, "producing")

    def test_how_much_is_read_at_once_is_set_on_the_connection_itself(self) -> None:
        self.speaker.transport.bufferSize = 4096
        self.assertEqual(self.transport.bufferSize, 4096)
        self.assertEqual(self.speaker.transport.bufferSize, 4096)

    def test_what_the_connection_has_not_the_transport_has_not(self) -> None:
        self.assertFalse(hasattr(self.speaker.transport, "setTcpNoDelay"))

    def test_an_abort_is_one(self) -> None:
        self.speaker.transport.abortConnection()
        self.assertTrue(self.transport.aborted)


class AdmissionTests(WrapperTestCase):
    """Connections without a header are counted, too; afterwards somebody else does so."""

    def setUp(self) -> None:
        super().setUp()
        self.connections = Connections(1, 1)
        self.factory = ProxyFactory(self.speakers, self.clock, 10, admission=self.connections)
        self.connect(self.factory)

    def test_they_count_until_the_header_is_there(self) -> None:
        self.assertEqual(len(self.connections), 1)
        self.send(V1)
        self.assertEqual(len(self.connections), 0)
        self.lose()
        self.assertEqual(len(self.connections), 0)

    def test_they_count_until_they_are_lost_or_refused(self) -> None:
        self.lose()
        self.assertEqual(len(self.connections), 0)
        self.connect(self.factory)
        self.send(b"CAPA\r\n")
        self.assertEqual(len(self.connections), 0)

    def test_the_oldest_goes_for_a_new_one(self) -> None:
        first = self.transport
        self.connect(self.factory)
        self.assertTrue(first.aborted)
        self.assertFalse(self.transport.aborted)
        (line,) = self.lines
        self.assertIn("reason=too-many-connections", line)
        self.send(V1)
        self.assertEqual(self.speakers.built, [CLIENT])

    def test_when_there_is_no_room_they_are_refused(self) -> None:
        self.lose()
        self.connections.enter("", lambda: None).logged_in()
        self.clock = Clock()
        self.connect(ProxyFactory(self.speakers, self.clock, 10, admission=self.connections))
        self.assert_refused("too-many-connections", "1 in all")
        self.send(V1)
        self.lose()
        self.assertEqual(self.speakers.built, [])


class PresentTests(WrapperTestCase):
    """Who is on, of those whose header is not there yet."""

    def setUp(self) -> None:
        super().setUp()
        self.present = Present(self.clock)
        self.lose()
        self.connect(ProxyFactory(self.speakers, self.clock, 10, present=self.present))

    def test_a_connection_without_a_header_waits(self) -> None:
        (entry,) = self.present
        presence = entry.presence()
        self.assertEqual((presence.kind, presence.host), ("waiting", "198.51.100.1"))

    def test_one_with_a_header_is_the_session_s_business(self) -> None:
        self.send(V1)
        self.assertEqual([*self.present], [])

    def test_one_that_is_lost_is_there_no_more(self) -> None:
        self.lose()
        self.assertEqual([*self.present], [])

    def test_one_that_has_just_come_may_tell_whom_it_is_for(self) -> None:
        (entry,) = self.present
        entry.stop(1.0)
        self.assertFalse(self.transport.aborted)
        self.clock.advance(1)
        entry.stop(1.0)
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.transport.value(), b"")
        self.assertEqual([*self.present], [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_kick_or_the_end_of_all_time_closes_it(self) -> None:
        (entry,) = self.present
        entry.kick()
        self.assertTrue(self.transport.aborted)
        self.connect(ProxyFactory(self.speakers, self.clock, 10, present=self.present))
        self.assertFalse([*self.present][-1].cut_off())
        self.assertTrue(self.transport.aborted)
