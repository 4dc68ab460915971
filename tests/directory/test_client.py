"""One connection, and all that a server may do to it."""

from __future__ import annotations

import contextlib
import io
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from ldaptor.protocols import pureber, pureldap
from ldaptor.protocols.ldap.ldapserver import BaseLDAPServer
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.directory._client import CLOSE_LIMIT, Connection, Loss, LossKind
from qmailldap.directory._frames import MESSAGE_LIMIT
from qmailldap.directory.errors import ConnectionDropped, EntryTooLarge, ServerTrouble
from qmailldap.directory.results import Result
from qmailldap.directory.search import SearchAnswer
from tests.directory.fake import done, entry, notice_of_disconnection

SILENCE = 2.5
JOE = "uid=joe,dc=org"
REQUEST = pureldap.LDAPSearchRequest(baseObject=b"dc=org")


class Transport(StringTransport):
    aborted = False
    tls = False

    def startTLS(self, creator: object) -> None:
        self.tls = True

    def abortConnection(self) -> None:
        self.aborted = True


class Peer:
    """A connection, and what is seen of it from outside."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.losses: list[Loss] = []
        self.transport = Transport()
        self.connection = Connection(
            self.clock, SILENCE, lambda connection, loss: self.losses.append(loss)
        )
        self.connection.makeConnection(self.transport)

    def search(self, limit: float = 5.0) -> Deferred[SearchAnswer]:
        return self.connection.search(REQUEST, limit)

    def sent(self) -> list[Any]:
        """The messages sent since this was last called."""
        octets, messages = self.transport.value(), []
        self.transport.clear()
        while octets:
            message, size = pureber.berDecodeObject(BaseLDAPServer.berdecoder, octets)
            messages.append(message)
            octets = octets[size:]
        return messages

    def answer(self, message_id: int, *operations: Any) -> None:
        for operation in operations:
            self.send(pureldap.LDAPMessage(operation, id=message_id).toWire())

    def send(self, octets: bytes) -> None:
        self.connection.dataReceived(octets)

    def vanish(self) -> None:
        self.connection.connectionLost(connectionDone)


class ConnectionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.peer = Peer()

    def kinds(self) -> list[LossKind]:
        return [loss.kind for loss in self.peer.losses]

    def test_a_search_gives_its_entries_and_how_it_ended(self) -> None:
        found = self.peer.search()
        self.peer.answer(1, entry(JOE, [("uid", ["joe"])]), done(4, "enough"))
        answer = self.successResultOf(found)
        self.assertEqual([one.dn for one in answer.entries], [JOE])
        self.assertEqual(answer.result, Result(4, b"enough"))
        self.assertEqual(self.peer.clock.getDelayedCalls(), [])

    def test_answers_of_searches_under_way_together_are_told_apart(self) -> None:
        first, second = self.peer.search(), self.peer.search()
        self.peer.answer(2, entry("dc=2"), done())
        self.assertNoResult(first)
        self.assertEqual(self.successResultOf(second).entries[0].dn, "dc=2")
        self.peer.answer(1, done())
        self.assertEqual(self.successResultOf(first).entries, ())

    def test_entries_beyond_the_size_limit_are_not_kept(self) -> None:
        found = self.peer.search()
        self.peer.answer(1, *[entry(f"dc={number}") for number in range(1000)], done())
        self.assertEqual(len(self.successResultOf(found).entries), 2)

    def test_references_to_other_servers_are_ignored(self) -> None:
        found = self.peer.search()
        self.peer.send(b"\x30\x12\x02\x01\x01\x73\x0d\x04\x0bldap://x/dc")
        self.peer.answer(1, entry(JOE), done())
        self.assertEqual(len(self.successResultOf(found).entries), 1)

    def test_intermediate_responses_are_ignored(self) -> None:
        found = self.peer.search()
        self.peer.send(b"\x30\x05\x02\x01\x01\x79\x00")
        self.peer.send(b"\x30\x0f\x02\x01\x01\x79\x0a\x80\x051.2.3\x81\x01\xff")
        self.peer.answer(1, entry(JOE), done())
        self.assertEqual(len(self.successResultOf(found).entries), 1)
        self.assertEqual(self.peer.losses, [])

    def test_the_text_of_an_answer_to_a_bind_is_not_kept(self) -> None:
        bound = self.peer.connection.bind_as(b"dc=org", b"secret", 5)
        self.peer.answer(1, pureldap.LDAPBindResponse(resultCode=2, errorMessage="got secret"))
        self.assertEqual(self.successResultOf(bound), Result(2))

    def test_a_bind_sends_the_octets_of_the_password(self) -> None:
        bound = self.peer.connection.bind_as(b"dc=org", b"\xff\0secret", 5)
        (message,) = self.peer.sent()
        self.assertEqual((message.value.dn, message.value.auth), (b"dc=org", b"\xff\0secret"))
        self.peer.answer(1, pureldap.LDAPBindResponse(resultCode=49))
        self.assertEqual(self.successResultOf(bound).name, "invalidCredentials")

    def test_a_referral_is_a_result_like_others(self) -> None:
        found = self.peer.search()
        octets = (
            b"\x30\x1a\x02\x01\x01\x65\x15\x0a\x01\x0a\x04\x00\x04\x00\xa3\x0c\x04\x0aldap://x/o"
        )
        self.peer.send(octets)
        self.assertEqual(self.successResultOf(found).result.name, "referral")

    def test_message_ids_are_the_connections_own_and_start_over(self) -> None:
        self.peer.search()
        self.peer.connection._last_id = 2**31 - 1
        self.peer.search()
        self.assertEqual([message.id for message in self.peer.sent()], [1, 1])

    def test_a_slow_search_among_others_is_abandoned_and_its_late_answer_ignored(self) -> None:
        slow = self.peer.search()
        self.peer.clock.advance(4)
        other = self.peer.search()
        self.peer.answer(2, done())
        self.successResultOf(other)
        self.peer.sent()
        self.peer.clock.advance(1)
        self.failureResultOf(slow, TimeoutError)
        (message,) = self.peer.sent()
        self.assertIsInstance(message.value, pureldap.LDAPAbandonRequest)
        self.assertEqual(message.value.value, 1)
        self.peer.answer(1, entry(JOE), done())
        self.assertFalse(self.peer.connection.lost)
        found = self.peer.search()
        self.peer.answer(4, done())
        self.successResultOf(found)

    def test_a_search_that_nobody_waits_for_any_more_is_abandoned(self) -> None:
        self.peer.search().addErrback(lambda _: None).cancel()
        self.assertIsInstance(self.peer.sent()[-1].value, pureldap.LDAPAbandonRequest)
        self.assertEqual(self.peer.clock.getDelayedCalls(), [])

    def test_a_connection_that_says_nothing_is_presumed_dead(self) -> None:
        first = self.peer.search()
        self.peer.clock.advance(4)
        second = self.peer.search()
        self.peer.clock.advance(1)
        self.failureResultOf(first, TimeoutError)
        self.failureResultOf(second, ConnectionDropped)
        self.assertEqual(self.kinds(), [LossKind.SILENT])
        self.assertTrue(self.peer.transport.aborted)

    def test_a_short_wait_is_no_silence(self) -> None:
        self.failureResultOf(self.given_up_after(SILENCE / 2), TimeoutError)
        self.assertEqual(self.peer.losses, [])

    def given_up_after(self, seconds: float) -> Deferred[SearchAnswer]:
        found = self.peer.search(seconds)
        self.peer.clock.advance(seconds)
        return found

    def test_a_bind_that_is_given_up_ends_the_connection(self) -> None:
        bound = self.peer.connection.bind_as(b"dc=org", b"secret", 1)
        self.peer.clock.advance(1)
        self.failureResultOf(bound, TimeoutError)
        self.assertEqual(self.kinds(), [LossKind.OURS])
        self.assertTrue(self.peer.transport.aborted)

    def test_everything_under_way_fails_when_the_connection_is_lost(self) -> None:
        searches = [self.peer.search() for _ in range(3)]
        self.peer.vanish()
        for search in searches:
            self.failureResultOf(search, ConnectionDropped)
        (loss,) = self.peer.losses
        self.assertEqual((loss.kind, loss.under_way), (LossKind.CLOSED, 3))
        self.assertEqual(self.peer.clock.getDelayedCalls(), [])
        self.failureResultOf(self.peer.search(), ConnectionDropped)

    def test_a_loss_in_the_middle_of_an_answer_says_so(self) -> None:
        for octets in (b"\x30\x50\x02\x01\x01", pureldap.LDAPMessage(entry(JOE), id=1).toWire()):
            peer = Peer()
            failed = peer.search()
            peer.send(octets)
            peer.vanish()
            self.failureResultOf(failed, ConnectionDropped)
            self.assertIn("in the middle of an answer", peer.losses[0].reason)

    def test_a_notice_of_disconnection_is_heeded(self) -> None:
        found = self.peer.search()
        self.peer.send(notice_of_disconnection())
        self.failureResultOf(found, ConnectionDropped)
        self.assertEqual(self.kinds(), [LossKind.NOTICE])
        # Not with the server's text, which may echo what was sent to it.
        self.assertEqual(self.peer.losses[0].reason, "it is disconnecting: unavailable")
        self.assertTrue(self.peer.transport.disconnecting)
        self.peer.vanish()
        self.assertEqual(self.peer.clock.getDelayedCalls(), [])

    def test_other_notices_are_ignored(self) -> None:
        notice = pureldap.LDAPExtendedResponse(resultCode=0, responseName="1.2.3")
        self.peer.send(pureldap.LDAPMessage(notice, id=0).toWire())
        self.assertEqual(self.peer.losses, [])

    def test_answers_to_nothing_asked_are_ignored(self) -> None:
        self.peer.answer(77, entry(JOE), done())
        self.peer.answer(-1, done())
        self.assertEqual(self.peer.losses, [])

    def test_an_answer_too_large_fails_its_search_only(self) -> None:
        large, other = self.peer.search(), self.peer.search()
        self.peer.answer(1, entry(JOE, [("uid", ["x" * MESSAGE_LIMIT])]), done())
        self.failureResultOf(large, EntryTooLarge)
        self.assertEqual(self.peer.connection.answers, 1)
        self.peer.answer(2, done())
        self.successResultOf(other)
        self.assertEqual(self.peer.losses, [])

    def test_an_answer_too_large_to_a_bind_is_no_entry(self) -> None:
        bound = self.peer.connection.bind_as(b"dc=org", b"secret", 5)
        response = pureldap.LDAPBindResponse(resultCode=0, errorMessage="x" * MESSAGE_LIMIT)
        self.peer.answer(1, response)
        self.failureResultOf(bound, ServerTrouble)

    def test_close_takes_leave_and_cuts_a_connection_that_does_not_end(self) -> None:
        self.peer.connection.close()
        (message,) = self.peer.sent()
        self.assertIsInstance(message.value, pureldap.LDAPUnbindRequest)
        self.assertTrue(self.peer.transport.disconnecting)
        self.peer.clock.advance(CLOSE_LIMIT)
        self.assertTrue(self.peer.transport.aborted)
        self.assertNoResult(self.peer.connection.closed)
        self.peer.vanish()
        self.successResultOf(self.peer.connection.closed)
        self.assertEqual(self.kinds(), [LossKind.OURS])


class GarbageTests(SynchronousTestCase):
    """Whatever comes, nothing is raised and nothing is logged: the connection ends, or goes on."""

    def check(self, octets: bytes) -> Peer:
        peer = Peer()
        search = peer.search()
        with capturedLogs() as events:
            peer.send(octets)
            peer.send(octets)
        self.assertEqual(list(events), [])
        if peer.connection.lost:
            self.failureResultOf(search, ConnectionDropped)
            self.assertEqual(peer.clock.getDelayedCalls()[1:], [])
        search.addErrback(lambda _: None)
        return peer

    @given(st.binary())
    def test_any_octets_are_survived(self, octets: bytes) -> None:
        self.check(octets)

    @given(st.binary(max_size=100), st.integers(0, 30), st.booleans())
    def test_any_octets_in_an_envelope_are_survived(
        self, octets: bytes, tag: int, constructed: bool
    ) -> None:
        operation = bytes([0x40 | 0x20 * constructed | tag, len(octets)]) + octets
        for message_id in (0, 1):
            contents = b"\x02\x01" + bytes([message_id]) + operation
            self.check(b"\x30" + bytes([len(contents)]) + contents)

    @given(st.integers(0), st.integers(0, 255))
    def test_an_answer_with_one_octet_changed_is_survived(self, at: int, octet: int) -> None:
        octets = bytearray(
            b"".join(
                pureldap.LDAPMessage(operation, id=1).toWire()
                for operation in (entry(JOE, [("uid", ["joe"])]), done(0, "well"))
            )
        )
        octets[at % len(octets)] = octet
        self.check(bytes(octets))

    def test_what_a_server_cannot_mean_ends_the_connection(self) -> None:
        for operation in (
            REQUEST,
            pureldap.LDAPBindResponse(resultCode=0),
            pureldap.LDAPModifyResponse(resultCode=0),
        ):
            peer = self.check(pureldap.LDAPMessage(operation, id=1).toWire())
            self.assertEqual([loss.kind for loss in peer.losses], [LossKind.GARBAGE])

    def test_elements_without_end_and_without_a_type_end_the_connection(self) -> None:
        deep = b""
        while len(deep) < 5000:
            deep = b"\x30\x82" + len(deep).to_bytes(2, "big") + deep
        for octets in (deep, b"\x7a\x00", b"\x64\x03\x04\x01x", b"\x65\x02\x04\x05"):
            contents = b"\x02\x01\x01" + octets
            peer = self.check(b"\x30\x82" + len(contents).to_bytes(2, "big") + contents)
            self.assertEqual([loss.kind for loss in peer.losses], [LossKind.GARBAGE])

    def test_nothing_is_printed(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            self.check(b"\x30\x05\x02\x01\x01\x7a\x00")
        self.assertEqual(printed.getvalue(), "")


class TLSTests(SynchronousTestCase):
    creator: Any = object()

    def setUp(self) -> None:
        self.peer = Peer()

    def test_a_connection_that_is_closed_within_the_handshake_ends_it(self) -> None:
        for end in (self.peer.connection.close, lambda: self.peer.connection.drop("no reason")):
            handshake = self.peer.connection.begin_tls(self.creator, 5)
            self.assertTrue(self.peer.transport.tls)
            end()
            self.failureResultOf(handshake, ConnectionDropped)
            self.peer.vanish()
            self.assertEqual(self.peer.clock.getDelayedCalls(), [])
            self.peer = Peer()

    def test_no_tls_is_begun_on_a_connection_that_was_lost(self) -> None:
        self.peer.vanish()
        self.failureResultOf(self.peer.connection.begin_tls(self.creator, 5), ConnectionDropped)
        self.failureResultOf(self.peer.connection.start_tls(self.creator, 5), ConnectionDropped)
        self.assertFalse(self.peer.transport.tls)

    def test_no_tls_is_begun_behind_plain_text(self) -> None:
        self.peer.send(b"0")
        self.failureResultOf(self.peer.connection.begin_tls(self.creator, 5), ConnectionDropped)
        self.assertFalse(self.peer.transport.tls)
        self.assertTrue(self.peer.transport.aborted)

    def test_what_cannot_be_abandoned_ends_the_connection_when_it_is_given_up(self) -> None:
        asked = self.peer.connection.start_tls(self.creator, 1)
        self.peer.clock.advance(1)
        self.failureResultOf(asked, TimeoutError)
        self.assertTrue(self.peer.transport.aborted)
        self.assertEqual(len(self.peer.sent()), 1)
