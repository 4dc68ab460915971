"""Relays that we end: when nothing is under way, and what both sides see of it."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import Clock

from qmailldap.forward.relay import Relay
from tests.forward.loopback import Loopback
from tests.forward.test_relay import LoopbackTestCase, octets
from tests.integration.certificates import write_certificate

WORDS = b"-ERR [SYS/TEMP] going\r\n"
MANY = 5_000_000


class QuietTests(LoopbackTestCase):
    def answered(self, **options: Any) -> Loopback:
        """One whose client has had an answer 5 seconds ago."""
        relay = self.joined(**options)
        relay.client.send(b"NOOP\r\n")
        relay.until(lambda: relay.member.got)
        relay.member.send(b"+OK\r\n")
        relay.until(lambda: relay.client.got.endswith(b"+OK\r\n"))
        relay.clock.advance(5)
        return relay

    def test_it_is_quiet_since_the_last_octet_of_the_member(self) -> None:
        relay = self.answered()
        self.assertEqual(relay.relay.quiet(), 5)
        relay.member.send(b"more\r\n")
        relay.until(lambda: relay.client.got.endswith(b"more\r\n"))
        self.assertEqual(relay.relay.quiet(), 0)

    def test_while_an_answer_is_awaited_it_is_not(self) -> None:
        relay = self.answered()
        relay.client.send(b"QUIT\r\n")
        relay.until(lambda: relay.member.got.endswith(b"QUIT\r\n"))
        relay.clock.advance(60)
        self.assertIsNone(relay.relay.quiet())

    def test_what_the_member_is_told_first_has_to_be_answered(self) -> None:
        relay = self.joined(to_member=b"STAT\r\n")
        relay.clock.advance(5)
        self.assertIsNone(relay.relay.quiet())

    def test_while_the_client_does_not_take_what_it_was_sent_it_is_not(self) -> None:
        relay = self.answered(small=("client",))
        relay.client.reading = False
        relay.member.send(octets(MANY))
        relay.until(lambda: relay.relay.member.paused)
        relay.clock.advance(60)
        self.assertIsNone(relay.relay.quiet())
        relay.client.reading = True
        relay.until(lambda: len(relay.client.got) == MANY + len(b"+OK\r\n"))
        relay.turn(3)
        relay.clock.advance(2)
        self.assertEqual(relay.relay.quiet(), 2)

    def test_before_it_has_begun_and_after_its_end_it_is_not(self) -> None:
        relay = Relay(Clock(), lambda relayed: None)
        self.assertEqual((relay.quiet(), relay.sent), (None, 0))
        relay.end("stopped", WORDS)
        relay.read_no_more()
        over = self.joined()
        over.client.abort()
        over.member.abort()
        over.until(lambda: over.ends)
        self.assertEqual((over.relay.quiet(), over.relay.sent), (None, 0))
        over.relay.end("stopped", WORDS)
        over.relay.read_no_more()

    def test_what_was_sent_is_counted_meanwhile(self) -> None:
        relay = self.answered(to_client=b"welcome\r\n")
        self.assertEqual(relay.relay.sent, len(b"welcome\r\n+OK\r\n"))


class WantedEndTests(LoopbackTestCase):
    def test_the_client_is_told_and_both_are_closed(self) -> None:
        relay = self.joined(to_client=b"+OK\r\n")
        relay.relay.end("stopped", WORDS)
        self.ended(relay, "stopped")
        relay.until(lambda: relay.client.ended)
        self.assertEqual(relay.client.got, b"+OK\r\n" + WORDS)
        self.assertFalse(relay.client.reset)
        relay.until(lambda: relay.member.ended or relay.member.reset)

    def test_it_comes_behind_all_that_was_sent_before(self) -> None:
        relay = self.joined(small=("client",))
        relay.client.reading = False
        relay.member.send(octets(MANY))
        relay.until(lambda: relay.relay.member.paused)
        relay.relay.end("stopped", WORDS)
        relay.turn(5)
        relay.client.reading = True
        relay.until(lambda: relay.client.ended)
        self.assertFalse(relay.client.reset)
        self.assertTrue(octets(MANY).startswith(relay.client.got.removesuffix(WORDS)))
        self.assertTrue(relay.client.got.endswith(WORDS))
        self.ended(relay, "stopped")

    def test_a_client_that_does_not_take_it_is_cut_off_after_a_while(self) -> None:
        relay = self.joined(small=("client",), linger=60)
        relay.client.reading = False
        relay.member.send(octets(MANY))
        relay.until(lambda: relay.relay.member.paused)
        relay.relay.end("kicked", WORDS)
        relay.turn(5)
        self.assertEqual(relay.ends, [])
        relay.clock.advance(60)
        self.ended(relay, "kicked")

    def test_without_words_both_are_cut_off(self) -> None:
        relay = self.joined(small=("client",))
        relay.client.reading = False
        relay.member.send(octets(MANY))
        relay.until(lambda: relay.relay.member.paused)
        relay.relay.end("kicked", b"")
        self.ended(relay, "kicked")
        relay.client.reading = True
        relay.until(lambda: relay.client.ended or relay.client.reset)
        self.assertLess(len(relay.client.got), MANY)

    def test_it_is_ended_but_once(self) -> None:
        relay = self.joined()
        relay.relay.end("kicked", WORDS)
        relay.relay.end("stopped", WORDS)
        self.ended(relay, "kicked")
        relay.until(lambda: relay.client.ended)
        self.assertEqual(relay.client.got, WORDS)

    def test_a_client_with_tls_need_not_end_it_as_well(self) -> None:
        path = Path(self.mktemp())
        write_certificate(path)
        own = PrivateCertificate.loadPEM(path.read_bytes())
        trusting = ssl.create_default_context(cafile=path)
        relay = self.joined(client_tls=(own.options(), trusting))
        relay.member.send(b"+OK\r\n")
        relay.until(lambda: relay.client.got)
        relay.client.reading = False
        relay.relay.end("stopped", WORDS)
        self.ended(relay, "stopped")
        relay.client.reading = True
        relay.until(lambda: relay.client.ended)
        self.assertEqual(relay.client.got, b"+OK\r\n" + WORDS)

    def test_what_the_client_says_is_passed_on_no_more_but_answers_are(self) -> None:
        relay = self.joined()
        relay.client.send(b"RETR 1\r\n")
        relay.until(lambda: relay.member.got)
        relay.relay.read_no_more()
        relay.relay.read_no_more()
        relay.client.send(b"DELE 1\r\nQUIT\r\n")
        relay.member.send(octets(MANY))
        relay.until(lambda: len(relay.client.got) == MANY)
        relay.turn(5)
        self.assertEqual(relay.member.got, b"RETR 1\r\n")
        relay.clock.advance(1)
        self.assertEqual(relay.relay.quiet(), 1)
