"""The relay on real connections, with far ends that do what a test says."""

from __future__ import annotations

import gc
import random
import socket
import ssl
import weakref
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as installed_reactor
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from qmailldap.forward.relay import Relay
from qmailldap.interfaces import Relayed
from tests.forward.loopback import Loopback
from tests.integration.certificates import write_certificate

MANY = 20_000_000
BOTH = ("client", "member")
# What a transport of Twisted and one read of it hold.
BOUND = 128 * 1024
TLS_BOUND = 200 * 1024


reactor: Any = installed_reactor


def octets(count: int, seed: int = 1) -> bytes:
    """That many octets, of which none stands where another could."""
    return random.Random(seed).randbytes(count)


@implementer(ITCPTransport)
class Narrow(StringTransport):  # type: ignore[misc]  # of the interface it has what is asked for
    """A TCP transport whose kernel takes that many octets; ``buffer`` has those that wait."""

    producer: Any

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.buffer = b""

    def writeSomeData(self, data: bytes) -> int:
        taken = data[: self.room]
        self.room -= len(taken)
        self.io.write(taken)
        return len(taken)

    def write(self, data: bytes) -> None:
        self.buffer += data

    def flush(self) -> None:
        """The kernel takes all; whoever produces is asked for more."""
        self.io.write(self.buffer)
        self.buffer = b""
        self.producer.resumeProducing()


class LoopbackTestCase(SynchronousTestCase):
    def between(self, **options: Any) -> Loopback:
        loopback = Loopback(**options)
        self.addCleanup(loopback.close)
        return loopback

    def joined(self, **options: Any) -> Loopback:
        return self.between(**options).join()

    def ended(self, loopback: Loopback, end: str) -> None:
        """All is over, and it was so begun."""
        loopback.until(lambda: loopback.ends)
        loopback.turn(3)
        self.assertEqual([each.end for each in loopback.ends], [end])
        self.assertEqual(loopback.clock.getDelayedCalls(), [])


class JoiningTests(LoopbackTestCase):
    def test_what_is_to_come_first_comes_first_to_both(self) -> None:
        relay = self.joined(to_client=b"+OK welcome\r\n", to_member=b"STAT\r\n")
        relay.client.send(b"LIST\r\n")
        relay.member.send(b"+OK 1 2\r\n")
        relay.until(lambda: relay.client.got.endswith(b"2\r\n"))
        relay.until(lambda: relay.member.got.endswith(b"LIST\r\n"))
        self.assertEqual(relay.client.got, b"+OK welcome\r\n+OK 1 2\r\n")
        self.assertEqual(relay.member.got, b"STAT\r\nLIST\r\n")

    def test_small_octets_are_not_held_back_by_the_kernel(self) -> None:
        relay = self.joined()
        for host in (relay.client_host, relay.member_host):
            transport: Any = host.transport
            self.assertTrue(transport.getTcpNoDelay())

    def test_a_connection_that_was_paused_is_read_again(self) -> None:
        relay = self.between()
        for host in (relay.client_host, relay.member_host):
            transport: Any = host.transport
            transport.pauseProducing()
        relay.join()
        relay.client.send(b"NOOP\r\n")
        relay.member.send(b"+OK\r\n")
        relay.until(lambda: relay.client.got and relay.member.got)

    def test_nothing_is_read_of_one_side_before_the_other_is_there(self) -> None:
        relay = self.between(to_member=b"USER x\r\n")
        relay.client_host.hand_over(relay.relay.client)
        relay.client.send(octets(MANY))
        relay.client.half_close()
        relay.turn(5)
        self.assertNotIn(relay.client_host.transport, reactor.getReaders())
        relay.member_host.hand_over(relay.relay.member)
        relay.until(lambda: relay.member.ended)
        self.assertTrue(relay.member.got == b"USER x\r\n" + octets(MANY))
        self.assertFalse(relay.client.ended)

    def test_what_a_layer_delivers_all_the_same_is_kept(self) -> None:
        ends: list[Relayed] = []
        relay = Relay(Clock(), ends.append, to_member=b"one ")
        relay.client.makeConnection(StringTransport())
        relay.client.dataReceived(b"two ")
        member = StringTransport()
        relay.member.makeConnection(member)
        relay.client.dataReceived(b"three")
        self.assertEqual(member.value(), b"one two three")

    def test_a_half_close_before_is_passed_on(self) -> None:
        relay = self.between(to_member=b"QUIT\r\n", client_ended=True)
        relay.client.half_close()
        relay.turn(3)
        relay.join()
        relay.until(lambda: relay.member.ended)
        self.assertEqual(relay.member.got, b"QUIT\r\n")
        relay.member.send(b"+OK bye\r\n")
        relay.member.half_close()
        relay.until(lambda: relay.client.ended)
        self.assertEqual(relay.client.got, b"+OK bye\r\n")
        self.ended(relay, "client-closed")

    def test_a_half_close_in_between_is_passed_on(self) -> None:
        relay = self.between()
        relay.member_host.hand_over(relay.relay.member)
        relay.relay.member.readConnectionLost()
        relay.client_host.hand_over(relay.relay.client)
        relay.until(lambda: relay.client.ended)
        self.assertEqual(relay.ends, [])

    def test_a_client_gets_what_it_was_to_get_when_the_member_is_lost_before(self) -> None:
        relay = self.between(to_client=b"+OK welcome\r\n", to_member=b"STAT\r\n")
        relay.member.abort()
        relay.turn(3)
        relay.join()
        relay.until(lambda: relay.client.ended)
        self.assertEqual(relay.client.got, b"+OK welcome\r\n")
        relay.client.half_close()
        self.ended(relay, "member-lost")
        self.assertEqual((relay.ends[0].sent, relay.ends[0].received), (13, 0))

    def test_a_member_gets_what_it_was_to_get_when_the_client_is_lost_before(self) -> None:
        relay = self.between(to_client=b"+OK welcome\r\n", to_member=b"DELE 1\r\nQUIT\r\n")
        relay.client.abort()
        relay.turn(3)
        relay.join()
        relay.until(lambda: relay.member.ended)
        self.assertEqual(relay.member.got, b"DELE 1\r\nQUIT\r\n")
        relay.member.close()
        self.ended(relay, "client-lost")

    def test_a_side_may_be_lost_while_it_waits_for_the_other(self) -> None:
        relay = self.between(to_client=b"+OK welcome\r\n")
        relay.member_host.hand_over(relay.relay.member)
        transport: Any = relay.member_host.transport
        transport.abortConnection()
        relay.turn(3)
        relay.client_host.hand_over(relay.relay.client)
        relay.until(lambda: relay.client.ended)
        self.assertEqual(relay.client.got, b"+OK welcome\r\n")

    def test_both_may_be_lost_before(self) -> None:
        for first in ("client", "member"):
            ends: list[Relayed] = []
            clock = Clock()
            relay = Relay(clock, ends.append, to_client=b"x", to_member=b"y")
            sides = [relay.client, relay.member]
            for side in sides if first == "client" else reversed(sides):
                side.connectionLost(Failure(ConnectionLost()))
            self.assertEqual(ends, [Relayed(f"{first}-lost", 0.0, 0, 0)])
            self.assertEqual(clock.getDelayedCalls(), [])


class FlowTests(LoopbackTestCase):
    bound = BOUND

    def test_many_octets_go_both_ways(self) -> None:
        relay = self.joined()
        down, up = octets(MANY, 1), octets(MANY, 2)
        relay.member.send(down)
        relay.client.send(up)
        relay.until(lambda: len(relay.client.got) >= MANY and len(relay.member.got) >= MANY)
        self.assertTrue(relay.client.got == down and relay.member.got == up)
        relay.client.half_close()
        relay.member.half_close()
        relay.until(lambda: relay.ends)
        self.assertEqual((relay.ends[0].sent, relay.ends[0].received), (MANY, MANY))

    def slowly(self, relay: Loopback, to_client: bool) -> None:
        """Many octets to a slow reader, and nothing piles up."""
        reader, writer = relay.client, relay.member
        if not to_client:
            reader, writer = writer, reader
        data = octets(MANY)
        writer.send(data)
        writer.half_close()
        reader.most = 100_000
        most = 0
        # The kernel's part comes first: while nothing is read at all.
        reader.reading = False
        for _ in range(300):
            relay.turn()
            most = max(most, relay.held())
        self.assertFalse(writer.sent)
        reader.reading = True
        while not reader.ended:
            relay.turn()
            most = max(most, relay.held())
        self.assertTrue(reader.got == data)
        self.assertLessEqual(most, self.bound)

    def test_nothing_overtakes_octets_that_wait(self) -> None:
        ends: list[Relayed] = []
        relay = Relay(Clock(), ends.append, to_client=b"ab")
        client, member = Narrow(room=3), StringTransport()
        relay.member.makeConnection(member)
        relay.client.makeConnection(client)
        relay.member.dataReceived(b"cd")
        client.flush()
        relay.member.dataReceived(b"ef")
        self.assertEqual((client.value(), client.buffer), (b"abcdef", b""))
        self.assertEqual(member.producerState, "producing")
        relay.member.dataReceived(b"gh")
        client.room = 100
        self.assertEqual(member.producerState, "paused")
        relay.member.dataReceived(b"ij")
        self.assertEqual((client.value(), client.buffer), (b"abcdefg", b"hij"))
        client.flush()
        self.assertEqual(client.value(), b"abcdefghij")
        self.assertEqual(member.producerState, "producing")

    def test_a_client_that_reads_slowly_slows_down_the_member(self) -> None:
        self.slowly(self.joined(), to_client=True)

    def test_a_member_that_reads_slowly_slows_down_the_client(self) -> None:
        self.slowly(self.joined(), to_client=False)

    def test_a_side_that_does_not_read_may_still_write(self) -> None:
        relay = self.joined(small=BOTH)
        relay.client.reading = False
        relay.member.send(octets(MANY))
        relay.turn(200)
        relay.client.send(b"NOOP\r\n")
        relay.until(lambda: relay.member.got)
        self.assertEqual(relay.member.got, b"NOOP\r\n")


class EndTests(LoopbackTestCase):
    def test_a_client_that_closes_its_side_gets_all_answers(self) -> None:
        relay = self.joined()
        relay.client.send(b"QUIT\r\n")
        relay.client.half_close()
        relay.until(lambda: relay.member.ended)
        self.assertEqual(relay.member.got, b"QUIT\r\n")
        relay.member.send(octets(1_000_000))
        relay.turn(10)
        relay.member.half_close()
        relay.until(lambda: relay.client.ended)
        self.assertTrue(relay.client.got == octets(1_000_000))
        self.ended(relay, "client-closed")

    def test_a_member_that_closes_its_side_is_still_written_to(self) -> None:
        relay = self.joined()
        relay.member.send(b"+OK\r\n")
        relay.member.half_close()
        relay.until(lambda: relay.client.ended)
        relay.client.send(octets(1_000_000))
        relay.client.half_close()
        relay.until(lambda: relay.member.ended)
        self.assertTrue(relay.member.got == octets(1_000_000))
        self.ended(relay, "member-closed")

    def test_octets_before_the_end_come_before_it_however_slowly_they_are_read(self) -> None:
        relay = self.joined(small=BOTH)
        relay.client.reading = False
        relay.member.send(octets(300_000))
        relay.member.half_close()
        relay.turn(100)
        relay.client.reading = True
        relay.client.most = 5_000
        relay.until(lambda: relay.client.ended)
        self.assertTrue(relay.client.got == octets(300_000))

    def reset(self, loser: str) -> None:
        """A reset in the midst of a stream; what came before it is delivered, then the end."""
        relay = self.joined()
        lost, other = relay.client, relay.member
        if loser == "member":
            lost, other = other, lost
        other.reading = False
        lost.send(octets(60_000))
        relay.until(lambda: lost.sent)
        relay.turn(5)
        lost.abort()
        relay.turn(5)
        other.reading = True
        relay.until(lambda: other.ended)
        self.assertTrue(other.got == octets(60_000))
        other.half_close()
        self.ended(relay, f"{loser}-lost")

    def test_a_reset_by_the_member_ends_the_stream_behind_all_before(self) -> None:
        self.reset("member")

    def test_a_reset_by_the_client_ends_the_stream_behind_all_before(self) -> None:
        self.reset("client")

    def test_a_reset_while_the_other_side_is_behind_destroys_nothing(self) -> None:
        relay = self.joined(small=BOTH)
        relay.client.reading = False
        data = octets(100_000)
        relay.member.send(data)
        relay.turn(50)
        relay.member.abort()
        relay.turn(10)
        relay.client.reading = True
        relay.until(lambda: relay.client.ended)
        # The member's own kernel threw away what it had not sent; that is a true beginning.
        self.assertTrue(data.startswith(relay.client.got))
        self.assertFalse(relay.client.reset)

    def test_octets_nobody_will_read_destroy_none_that_are_under_way(self) -> None:
        relay = self.joined()
        relay.client.reading = False
        relay.member.send(octets(1_000_000))
        relay.until(lambda: relay.member.sent)
        relay.member.close()
        relay.client.send(octets(1_000_000, 2))
        relay.turn(50)
        relay.client.reading = True
        relay.client.most = 10_000
        relay.until(lambda: relay.client.ended or relay.client.reset)
        self.assertFalse(relay.client.reset)
        self.assertTrue(relay.client.got == octets(1_000_000))
        relay.client.half_close()
        relay.until(lambda: relay.ends)

    def test_what_was_sent_to_a_member_reaches_it_though_the_client_is_gone(self) -> None:
        relay = self.joined()
        relay.member.reading = False
        relay.member.send(octets(1_000_000))
        relay.client.send(b"DELE 1\r\nQUIT\r\n")
        relay.turn(5)
        relay.client.abort()
        relay.turn(5)
        relay.member.reading = True
        relay.until(lambda: relay.member.ended and relay.member.sent)
        self.assertEqual(relay.member.got, b"DELE 1\r\nQUIT\r\n")
        self.assertFalse(relay.member.reset)
        relay.member.close()
        self.ended(relay, "client-lost")

    def test_a_member_is_not_kept_busy_for_nobody(self) -> None:
        relay = self.joined()
        relay.client.send(b"RETR 1\r\n" * 1000)
        relay.until(lambda: len(relay.member.got) == 8000)
        relay.client.abort()
        relay.member.send(octets(20_000_000))
        relay.until(lambda: relay.member.reset)
        self.ended(relay, "client-lost")

    def test_a_client_that_breaks_after_it_closed_its_side_is_noticed(self) -> None:
        relay = self.joined()
        relay.client.half_close()
        relay.until(lambda: relay.member.ended)
        relay.client.abort()
        for _ in range(5):
            relay.member.send(b"+OK\r\n")
            relay.turn(5)
        self.assertTrue(relay.relay.client.lost)
        relay.member.half_close()
        self.ended(relay, "client-closed")

    def test_writing_to_a_member_that_has_closed_loses_nothing_of_what_it_sent(self) -> None:
        relay = self.joined(small=("client",))
        relay.client.reading = False
        data = octets(100_000)
        # The first half waits in the relay, the second in the kernel before it.
        for half in (data[:50_000], data[50_000:]):
            relay.member.send(half)
            relay.turn(20)
        self.assertTrue(relay.member.sent)
        relay.member.close()
        for _ in range(5):
            relay.client.send(b"NOOP\r\n")
            relay.turn(5)
        relay.client.half_close()
        relay.turn(5)
        relay.client.reading = True
        relay.until(lambda: relay.client.ended)
        self.assertTrue(relay.client.got == data)
        self.ended(relay, "member-lost")

    def test_both_are_lost_in_every_order_and_way_and_it_ends_once(self) -> None:
        ways = ("close", "abort", "half_close")
        for first in ("client", "member"):
            for way in ways:
                for other_way in ways:
                    for turns in (0, 1, 5):
                        relay = Loopback().join()
                        relay.client.send(b"NOOP\r\n")
                        sides = [relay.client, relay.member]
                        if first == "member":
                            sides.reverse()
                        getattr(sides[0], way)()
                        relay.turn(turns)
                        getattr(sides[1], other_way)()
                        relay.until(lambda relay=relay: relay.ends)  # type: ignore[misc]
                        relay.turn(3)
                        self.assertEqual(len(relay.ends), 1)
                        if turns == 5:
                            self.assertTrue(relay.ends[0].end.startswith(first))
                        self.assertEqual(relay.clock.getDelayedCalls(), [])
                        relay.close()

    def test_a_session_that_is_over_leaves_nothing_behind(self) -> None:
        relay = self.joined()
        kept: list[weakref.ref[Any]] = [weakref.ref(relay.relay.client), weakref.ref(relay.relay)]
        relay.client.close()
        relay.member.close()
        relay.until(lambda: relay.ends)
        gc.disable()
        self.addCleanup(gc.enable)
        del relay.relay
        self.assertEqual([ref() for ref in kept], [None, None])


class LimitTests(LoopbackTestCase):
    def test_a_session_without_an_octet_is_given_up(self) -> None:
        relay = self.joined(idle=100)
        relay.clock.advance(99)
        relay.turn(3)
        self.assertEqual(relay.ends, [])
        relay.clock.advance(1)
        self.ended(relay, "idle")
        relay.until(lambda: relay.client.reset or relay.client.ended)
        self.assertEqual(relay.ends[0].seconds, 100)

    def test_octets_either_way_keep_a_session(self) -> None:
        relay = self.joined(idle=100)
        for far, other in ((relay.client, relay.member), (relay.member, relay.client)):
            relay.clock.advance(99)
            far.send(b"x")
            relay.until(lambda other=other: other.got)  # type: ignore[misc]
        relay.clock.advance(99)
        relay.turn(3)
        self.assertEqual(relay.ends, [])
        relay.clock.advance(1)
        self.ended(relay, "idle")

    def test_a_member_may_take_its_time_after_the_client_has_closed_its_side(self) -> None:
        relay = self.joined(idle=100, linger=10)
        relay.client.half_close()
        relay.until(lambda: relay.member.ended)
        relay.clock.advance(99)
        relay.member.send(b"+OK bye\r\n")
        relay.member.half_close()
        relay.until(lambda: relay.client.ended)
        self.assertEqual(relay.client.got, b"+OK bye\r\n")

    def test_a_client_that_does_not_close_is_left_in_order(self) -> None:
        relay = self.joined(small=("client",), linger=10)
        # What the client does not take waits in the relay's kernel, and only there.
        transport: Any = relay.client_host.transport
        transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200_000)
        relay.client.reading = False
        relay.member.send(octets(50_000))
        relay.until(lambda: relay.member.sent)
        relay.member.close()
        relay.turn(5)
        relay.clock.advance(9)
        relay.turn(3)
        self.assertEqual(relay.ends, [])
        relay.clock.advance(1)
        self.ended(relay, "member-closed")
        relay.client.reading = True
        relay.until(lambda: relay.client.ended or relay.client.reset)
        self.assertFalse(relay.client.reset)
        self.assertTrue(relay.client.got == octets(50_000))

    def test_a_member_that_was_told_the_end_before_the_client_was_lost_may_not_stay(self) -> None:
        relay = self.joined(idle=100, linger=10)
        relay.client.half_close()
        relay.until(lambda: relay.member.ended)
        relay.clock.advance(50)
        relay.client.abort()
        relay.member.send(b"+OK\r\n")
        relay.turn(5)
        self.assertEqual(relay.ends, [])
        relay.clock.advance(10)
        self.ended(relay, "client-closed")

    def test_what_is_thrown_away_keeps_no_session(self) -> None:
        relay = self.joined(linger=10)
        relay.client.abort()
        relay.until(lambda: relay.member.ended)
        for _ in range(9):
            relay.clock.advance(1)
            relay.member.send(b"x" * 100)
            relay.turn(3)
        self.assertEqual(relay.ends, [])
        relay.clock.advance(1)
        self.ended(relay, "client-lost")
        self.assertEqual(relay.ends[0].sent, 0)

    def test_a_client_that_takes_nothing_is_given_up_in_the_end(self) -> None:
        relay = self.joined(small=BOTH, idle=100, linger=10)
        relay.client.reading = False
        relay.member.send(octets(1_000_000))
        relay.turn(50)
        relay.member.abort()
        relay.turn(50)
        relay.clock.advance(99)
        relay.turn(3)
        self.assertEqual(relay.ends, [])
        relay.clock.advance(1)
        relay.until(lambda: relay.ends)


class TLSTests(LoopbackTestCase):
    """As above with TLS on either side, which has no half-close."""

    def setUp(self) -> None:
        path = Path(self.mktemp())
        write_certificate(path)
        own = PrivateCertificate.loadPEM(path.read_bytes())
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        serving.load_cert_chain(path)
        trusting = ssl.create_default_context(cafile=path)
        self.client_tls = (own.options(), trusting)
        self.member_tls = (CertificateOptions(), serving)

    def test_many_octets_to_a_slow_client(self) -> None:
        self.many("client", client_tls=self.client_tls)

    def test_many_octets_from_a_member(self) -> None:
        self.many("client", member_tls=self.member_tls)

    def test_many_octets_to_a_slow_member(self) -> None:
        self.many("member", member_tls=self.member_tls)

    def test_many_octets_with_tls_on_both_sides(self) -> None:
        self.many("client", client_tls=self.client_tls, member_tls=self.member_tls)

    def many(self, reader_name: str, **tls: Any) -> None:
        relay = self.joined(**tls)
        reader, writer = relay.client, relay.member
        if reader_name == "member":
            reader, writer = writer, reader
        data = octets(MANY // 4)
        writer.send(data)
        reader.most = 50_000
        reader.reading = False
        most = 0
        for _ in range(200):
            relay.turn()
            most = max(most, relay.held())
        reader.reading = True
        relay.until(lambda: len(reader.got) > 2_000_000)
        while len(reader.got) < len(data):
            relay.turn()
            most = max(most, relay.held())
        self.assertTrue(reader.got == data)
        self.assertLessEqual(most, TLS_BOUND)
        writer.abort()
        relay.until(lambda: reader.ended)
        self.assertFalse(reader.reset)

    def test_the_end_of_the_member_comes_behind_all_before(self) -> None:
        relay = self.joined(client_tls=self.client_tls)
        relay.turn(10)
        relay.client.reading = False
        relay.member.send(octets(150_000))
        relay.until(lambda: relay.member.sent)
        relay.member.close()
        relay.turn(20)
        relay.client.reading = True
        relay.until(lambda: relay.client.ended or relay.client.reset)
        self.assertFalse(relay.client.reset)
        self.assertTrue(relay.client.got == octets(150_000))
        relay.client.close()
        self.ended(relay, "member-closed")

    def test_the_end_of_the_client_comes_behind_all_before(self) -> None:
        relay = self.joined(member_tls=self.member_tls)
        relay.client.send(b"DELE 1\r\nQUIT\r\n")
        relay.turn(10)
        relay.client.abort()
        relay.until(lambda: relay.member.ended or relay.member.reset)
        self.assertFalse(relay.member.reset)
        self.assertEqual(relay.member.got, b"DELE 1\r\nQUIT\r\n")
        relay.member.close()
        self.ended(relay, "client-lost")

    def test_a_client_that_closes_its_side_gets_all_answers_of_a_member_with_tls(self) -> None:
        relay = self.joined(member_tls=self.member_tls, linger=10)
        relay.client.send(b"QUIT\r\n")
        relay.client.half_close()
        relay.until(lambda: relay.member.got)
        for _ in range(3):
            relay.clock.advance(9)
            relay.member.send(octets(50_000))
            relay.until(lambda: relay.member.sent)
            relay.turn(5)
        self.assertFalse(relay.member.ended)
        relay.member.close()
        relay.until(lambda: relay.client.ended)
        self.assertTrue(relay.client.got == 3 * octets(50_000))
        self.ended(relay, "client-closed")

    def test_nor_does_it_wait_long_for_them(self) -> None:
        relay = self.joined(member_tls=self.member_tls, linger=10)
        relay.client.half_close()
        relay.turn(10)
        relay.clock.advance(9)
        relay.turn(3)
        self.assertEqual(relay.ends, [])
        relay.clock.advance(1)
        self.ended(relay, "client-closed")

    def test_a_reset_below_tls_ends_the_other_side(self) -> None:
        relay = self.joined(member_tls=self.member_tls)
        relay.member.send(octets(10_000))
        relay.until(lambda: len(relay.client.got) == 10_000)
        relay.member.abort()
        relay.until(lambda: relay.client.ended)
        relay.client.close()
        self.ended(relay, "member-lost")

    def test_a_client_that_closes_tls_while_it_is_behind_is_let_go(self) -> None:
        relay = self.joined(client_tls=self.client_tls)
        relay.client.send(b"RETR 1\r\n")
        relay.until(lambda: relay.member.got)
        relay.client.reading = False
        relay.member.send(octets(MANY))
        relay.turn(100)
        sock: Any = relay.client.sock
        with self.assertRaises(ssl.SSLError):
            sock.unwrap()
        relay.turn(20)
        # It reads what is left without listening to TLS.
        raw = socket.socket(fileno=sock.detach())
        raw.setblocking(False)
        self.addCleanup(raw.close)

        def over() -> bool:
            try:
                return not raw.recv(1 << 20)
            except BlockingIOError:
                return False

        relay.until(over)
        relay.until(lambda: relay.member.ended)
        relay.member.close()
        relay.until(lambda: relay.ends)

    def test_a_client_that_does_not_close_is_given_up(self) -> None:
        relay = self.joined(client_tls=self.client_tls, idle=100, linger=10)
        relay.turn(10)
        relay.member.close()
        relay.until(lambda: relay.client.ended)
        relay.clock.advance(100)
        self.ended(relay, "member-closed")

    def test_a_client_may_take_long_for_what_the_member_has_left(self) -> None:
        relay = self.joined(client_tls=self.client_tls, small=BOTH, idle=100, linger=10)
        relay.turn(10)
        relay.client.reading = False
        relay.member.send(octets(50_000))
        relay.member.half_close()
        relay.turn(50)
        relay.clock.advance(50)
        relay.client.reading = True
        relay.until(lambda: relay.client.ended)
        self.assertTrue(relay.client.got == octets(50_000))


class LayerTests(LoopbackTestCase):
    def test_a_plain_layer_between_changes_nothing(self) -> None:
        relay = self.joined(wrapped=WrappingFactory)
        relay.member.send(octets(1_000_000))
        relay.client.send(octets(1_000_000, 2))
        relay.member.half_close()
        relay.until(lambda: relay.client.ended and len(relay.member.got) == 1_000_000)
        self.assertTrue(relay.client.got == octets(1_000_000))
        self.assertTrue(relay.member.got == octets(1_000_000, 2))

    def test_tls_from_the_first_octet_is_as_good(self) -> None:
        path = Path(self.mktemp())
        write_certificate(path)
        own = PrivateCertificate.loadPEM(path.read_bytes())
        trusting = ssl.create_default_context(cafile=path)
        relay = self.joined(
            client_tls=(None, trusting),
            wrapped=lambda factory: TLSMemoryBIOFactory(own.options(), False, factory),
        )
        relay.member.send(octets(1_000_000))
        relay.member.half_close()
        relay.until(lambda: relay.client.ended)
        self.assertTrue(relay.client.got == octets(1_000_000))


far = st.sampled_from(["client", "member"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), far, st.integers(1, 60_000)),
        st.tuples(st.just("reading"), far, st.booleans()),
        st.tuples(st.just("half_close"), far, st.just(0)),
        st.tuples(st.just("turn"), far, st.integers(1, 5)),
    ),
    max_size=25,
)


class ModelTests(LoopbackTestCase):
    @settings(max_examples=60, deadline=None)
    @given(steps=steps, first=st.integers(0, 3000))
    def test_what_is_sent_is_delivered_whatever_happens_in_which_order(
        self, steps: list[tuple[str, str, Any]], first: int
    ) -> None:
        sent = {"client": octets(first, 3), "member": octets(first, 5)}
        closed: set[str] = set()
        relay = Loopback(small=BOTH, to_member=sent["client"], to_client=sent["member"]).join()
        ends = {"client": relay.client, "member": relay.member}
        for what, name, value in steps:
            if what == "turn":
                relay.turn(value)
            elif what == "reading":
                ends[name].reading = value
            elif name not in closed:
                if what == "send":
                    data = octets(value, len(sent[name]) % 500 + 1)
                    sent[name] += data
                    ends[name].send(data)
                else:
                    closed.add(name)
                    ends[name].half_close()
            self.assertLessEqual(relay.held(), BOUND)
        for name, end in ends.items():
            end.reading = True
            if name not in closed:
                end.half_close()
        relay.until(lambda: relay.ends and relay.client.ended and relay.member.ended)
        relay.turn(2)
        self.assertTrue(relay.client.got == sent["member"])
        self.assertTrue(relay.member.got == sent["client"])
        self.assertEqual(len(relay.ends), 1)
        self.assertEqual(relay.ends[0].sent, len(sent["member"]))
        self.assertEqual(relay.ends[0].received, len(sent["client"]))
        relay.close()
