"""Sessions that we end, in each state: what the client hears, and what becomes of the mail."""

from __future__ import annotations

import base64
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from qmailldap.interfaces import IForwardedSession, Relayed
from qmailldap.pop3 import Limits
from qmailldap.present import QUIET, Entry, Kicked, Presence, Present
from qmailldap.refusal import LoginRefused, Refusal
from tests.pop3.maildrop import PASSWORD, Admissions, SecureTransport, Server, TLSTransport
from tests.pop3.test_handing_on import Session

LOGIN = b"USER joe\r\nPASS " + PASSWORD + b"\r\n"
STOPPED = b"-ERR [SYS/TEMP] the server is being stopped, try again\r\n"
KICKED = b"-ERR [SYS/TEMP] the session was ended by the administrator\r\n"
LOST = Failure(ConnectionDone())
TLS: Any = object()


class EndingTestCase(SynchronousTestCase):
    def serve(self, *messages: Any, **settings: Any) -> Server:
        self.server = Server(*(messages or (b"one\n", b"two\n")), **settings)
        return self.server

    @property
    def present(self) -> Present:
        return self.server.protocol._settings.present

    @property
    def entry(self) -> Entry:
        (entry,) = self.present
        return entry

    def presence(self) -> Presence:
        return self.entry.presence()

    def wait(self, seconds: float = QUIET) -> None:
        self.server.clock.advance(seconds)

    def stop(self, quiet: float = QUIET) -> bytes:
        """What is said to a session that is to stop."""
        self.entry.stop(quiet)
        self.server.turn()
        return self.server.answers()

    def disconnect(self) -> None:
        self.server.connection.connectionLost(LOST)
        self.assertEqual([*self.present], [])

    def assert_closing(self) -> None:
        self.assertTrue(self.server.transport.disconnecting)
        self.assertFalse(self.server.transport.aborted)

    def assert_open(self) -> None:
        self.assertFalse(self.server.transport.disconnecting)


class PresenceTests(EndingTestCase):
    def test_a_connection_is_there_from_its_first_moment_to_its_last(self) -> None:
        self.serve()
        self.assertEqual([*self.present], [self.server.protocol])
        self.disconnect()

    def test_it_tells_what_is_known(self) -> None:
        self.serve()
        self.wait(30)
        before = self.presence()
        self.assertEqual((before.kind, before.user, before.doing), ("waiting", "", ""))
        self.assertEqual((before.host, before.since, before.tls), ("192.168.1.1", 0, "no"))
        self.assertEqual(before.id, self.server.protocol._session.id)
        self.server.log_in().say(b"RETR 1\r\n")
        after = self.presence()
        self.assertEqual((after.kind, after.user, after.octets), ("local", "joe", 5))
        self.assertEqual((after.id, after.doing, after.member), (before.id, "", ""))

    def test_it_tells_the_command_under_way_without_its_arguments(self) -> None:
        chunk: Deferred[bytes] = Deferred()
        self.serve([b"a", chunk]).log_in()
        self.server.say(b"retr 1\r\n")
        self.assertEqual(self.presence().doing, "RETR")
        chunk.callback(b"b")
        self.assertEqual(self.presence().doing, "")

    def test_it_tells_nothing_of_a_login_but_that_it_is_one(self) -> None:
        self.serve()
        self.server.realm.held = Deferred()
        self.server.say(LOGIN)
        self.assertEqual((self.presence().doing, self.presence().user), ("PASS", ""))
        self.assertNotIn(PASSWORD.decode(), repr(self.presence()))
        self.disconnect()
        self.serve().say(b"AUTH LOGIN\r\nam9l\r\n")
        self.assertEqual(self.presence().doing, "AUTH")

    def test_what_is_no_command_is_not_told(self) -> None:
        self.serve().say(b"STAT\r\nXYZZY-secret\r\n")
        self.assertEqual(self.presence().doing, "")
        self.server.transport.producer.pauseProducing()
        self.assertNotIn("XYZZY", self.presence().doing)

    def test_tls_is_told(self) -> None:
        self.serve(transport=SecureTransport(), tls=TLS)
        self.assertEqual(self.presence().tls, "TLSv1.3")

    def test_who_is_turned_away_was_never_there(self) -> None:
        self.serve()
        factory = self.server.protocol.factory
        admissions = Admissions()
        factory.settings = Server(admission=admissions).protocol._settings
        admissions.refused = LoginRefused(Refusal.TOO_MANY_CONNECTIONS, "")
        before = [*factory.settings.present]
        factory.buildProtocol(None)
        self.assertEqual([*factory.settings.present], before)


class IdleTests(EndingTestCase):
    def test_one_that_is_idle_is_told_and_closed(self) -> None:
        self.serve().log_in()
        log = self.server.lines_of_log()
        self.wait()
        self.assertEqual(self.stop(), STOPPED)
        self.assert_closing()
        self.disconnect()
        (line,) = log
        self.assertIn("logout user=joe", line)
        self.assertIn("end=stopped", line)
        self.assertIn("deleted=0", line)

    def test_one_that_has_just_spoken_may_speak_on(self) -> None:
        self.serve().log_in()
        self.assertEqual(self.stop(), b"")
        self.wait(0.9)
        self.assertEqual(self.server.say(b"STAT\r\n"), b"+OK 2 8\r\n")
        self.wait(0.9)
        self.assertEqual(self.stop(), b"")
        self.assertEqual(self.server.say(b"DELE 1\r\nQUIT\r\n"), b"+OK \r\n+OK \r\n")
        self.assertEqual(self.server.maildrop.synced, 1)
        self.assertEqual(self.stop(), b"")

    def test_where_there_is_no_time_it_is_told_at_once(self) -> None:
        self.serve().log_in()
        self.assertEqual(self.stop(0), STOPPED)
        self.assert_closing()

    def test_what_it_says_afterwards_is_not_carried_out(self) -> None:
        self.serve().log_in().say(b"DELE 1\r\n")
        self.assertEqual(self.stop(0), STOPPED)
        self.assertEqual(self.server.say(b"QUIT\r\n"), b"")
        self.disconnect()
        self.assertEqual(self.server.maildrop.synced, 0)
        self.assertEqual(self.server.maildrop.closed, 1)

    def test_before_the_login_it_is_told_as_well(self) -> None:
        self.serve().say(b"USER joe\r\n")
        self.assertEqual(self.stop(0), STOPPED)
        self.assert_closing()

    def test_within_an_exchange_it_is_told_in_place_of_the_next_challenge(self) -> None:
        self.serve().say(b"AUTH LOGIN\r\n")
        self.assertEqual(self.stop(0), STOPPED)
        self.assertEqual(self.server.say(base64.b64encode(b"joe") + b"\r\n"), b"")

    def test_it_is_told_but_once(self) -> None:
        self.serve().log_in()
        self.assertEqual(self.stop(0), STOPPED)
        self.assertEqual(self.stop(0), b"")
        self.assertFalse(self.entry.cut_off())
        self.assert_closing()

    def test_one_that_does_not_take_it_is_cut_off_after_a_while(self) -> None:
        self.serve(limits=Limits(linger=60)).log_in()
        self.stop(0)
        self.wait(60)
        self.assertTrue(self.server.transport.aborted)

    def test_a_client_that_has_closed_its_side_hears_what_it_has_asked_for(self) -> None:
        chunk: Deferred[bytes] = Deferred()
        self.serve([chunk]).log_in().say(b"RETR 1\r\n")
        self.server.connection.readConnectionLost()
        self.assertEqual(self.stop(), b"")
        chunk.callback(b"mail\n")
        self.assertEqual(self.server.answers(), b"+OK \r\nmail\r\n.\r\n")
        self.assertEqual(self.stop(0), b"")
        self.assert_closing()


class HandshakeTests(EndingTestCase):
    def test_within_one_nothing_can_be_said(self) -> None:
        self.serve(transport=TLSTransport(), tls=TLS).say(b"STLS\r\n")
        self.wait()
        self.assertEqual(self.stop(), b"")
        self.assertTrue(self.server.transport.aborted)
        self.disconnect()
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_one_that_has_just_begun_may_end(self) -> None:
        self.serve(transport=TLSTransport(), tls=TLS).say(b"STLS\r\n")
        self.assertEqual(self.stop(), b"")
        self.assert_open()
        self.server.protocol.handshakeCompleted()
        self.server.log_in()
        self.assertEqual(self.stop(0), STOPPED)
        self.assert_closing()


class LoginTests(EndingTestCase):
    def test_one_that_is_being_judged_is_answered_before_the_session_is_told(self) -> None:
        self.serve()
        held = self.server.realm.held = Deferred()
        self.assertEqual(self.server.say(LOGIN), b"+OK \r\n")
        self.wait(5)
        self.assertEqual(self.stop(), b"")
        self.assertEqual(self.stop(0), b"")
        held.callback(None)
        self.assertEqual(self.server.answers(), b"+OK \r\n")
        self.assertEqual(self.stop(0), STOPPED)
        self.assert_closing()

    def test_one_that_takes_too_long_is_told_in_place_of_its_answer(self) -> None:
        self.serve()
        log = self.server.lines_of_log()
        held = self.server.realm.held = Deferred()
        self.server.say(LOGIN)
        self.stop(0)
        self.assertTrue(self.entry.cut_off())
        self.server.turn()
        self.assertEqual(self.server.answers(), STOPPED)
        self.assert_closing()
        self.assertTrue(held.called)
        self.disconnect()
        self.assertFalse(any("logout" in line for line in log), log)
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_a_refusal_that_is_held_back_is_not_waited_for(self) -> None:
        self.serve(admission=Admissions(delay=30.0))
        self.assertEqual(self.server.say(b"USER joe\r\nPASS x\r\n"), b"+OK \r\n")
        self.assertEqual(self.presence().doing, "PASS")
        self.wait()
        self.assertEqual(self.stop(), STOPPED)
        self.assert_closing()
        self.disconnect()
        self.assertEqual(self.server.clock.getDelayedCalls(), [])


class CommandTests(EndingTestCase):
    """RETR that is under way: its message comes in two chunks, the second one when it is let."""

    def setUp(self) -> None:
        self.chunk: Deferred[bytes] = Deferred()
        self.serve([b"one\n" * 20_000, self.chunk], b"two\n").log_in()

    def retrieve(self, behind: bytes = b"") -> None:
        self.server.say(b"RETR 1\r\n" + behind)

    def test_it_goes_on_to_its_end(self) -> None:
        self.retrieve()
        self.wait(3)
        for quiet in (QUIET, 0.0, 0.0):
            self.assertEqual(self.stop(quiet), b"")
        self.chunk.callback(b"the end\n")
        self.assertEqual(self.server.answers()[-14:], b"the end\r\n.\r\n"[-14:])
        self.assertEqual(self.stop(0), STOPPED)
        self.assert_closing()

    def test_behind_it_there_is_a_moment_for_the_next_one(self) -> None:
        self.retrieve()
        self.wait(3)
        self.chunk.callback(b"")
        self.server.answers()
        self.assertEqual(self.stop(), b"")
        self.wait()
        self.assertEqual(self.stop(), STOPPED)

    def test_in_the_first_half_of_the_time_what_was_sent_ahead_is_carried_out(self) -> None:
        self.retrieve(b"DELE 1\r\nQUIT\r\n")
        self.assertEqual(self.stop(), b"")
        self.chunk.callback(b"")
        self.assertEqual(self.server.answers()[-12:], b"+OK \r\n+OK \r\n")
        self.assertEqual(self.server.maildrop.synced, 1)

    def test_then_what_was_sent_ahead_is_not_carried_out(self) -> None:
        self.retrieve(b"DELE 1\r\nQUIT\r\n")
        self.stop(0)
        self.chunk.callback(b"")
        self.server.turn()
        self.assertTrue(self.server.answers().endswith(b".\r\n"))
        self.assertEqual(self.stop(0), STOPPED)
        self.disconnect()
        self.assertEqual(self.server.maildrop.deleted, set())
        self.assertEqual(self.server.maildrop.synced, 0)

    def test_who_has_not_read_it_by_then_never_gets_its_end(self) -> None:
        self.retrieve()
        sent = self.server.answers()
        self.server.transport.producer.pauseProducing()
        self.chunk.callback(b"the end\n")
        self.stop(0)
        self.assertTrue(self.entry.cut_off())
        self.assertTrue(self.server.transport.aborted)
        self.disconnect()
        self.assertNotIn(b"\r\n.\r\n", sent + self.server.answers())

    def test_who_does_not_read_counts_as_at_work(self) -> None:
        self.server.say(b"RETR 2\r\n")
        self.server.transport.producer.pauseProducing()
        self.wait(3)
        self.assertEqual(self.stop(0), b"")
        self.assertEqual(self.presence().doing, "RETR")
        self.server.transport.producer.resumeProducing()
        self.assertEqual(self.stop(0), STOPPED)


class UpdateTests(EndingTestCase):
    def setUp(self) -> None:
        self.synced: Deferred[int] = Deferred()
        self.serve().log_in()
        self.log = self.server.lines_of_log()
        self.server.maildrop.sync_result = lambda: self.synced
        self.server.say(b"DELE 1\r\nQUIT\r\n")

    def test_it_goes_on_and_is_answered(self) -> None:
        for _ in range(3):
            self.wait()
            self.assertEqual(self.stop(0), b"")
        self.assertFalse(self.entry.cut_off())
        self.assertFalse(self.entry.kick())
        self.assert_open()
        self.assertEqual(self.presence().doing, "QUIT")
        self.synced.callback(0)
        self.assertEqual(self.server.answers(), b"+OK \r\n")
        self.assert_closing()
        self.disconnect()
        self.assertIn("end=quit", self.log[0])
        self.assertIn("deleted=1", self.log[0])


class KickTests(EndingTestCase):
    def kick(self, who: str) -> Kicked:
        return self.successResultOf(Deferred.fromCoroutine(self.present.kick(who)))

    def test_one_that_is_idle_is_told(self) -> None:
        self.serve().log_in().say(b"DELE 1\r\n")
        log = self.server.lines_of_log()
        self.assertEqual(self.kick("joe"), Kicked(1, 0))
        self.assertEqual(self.server.answers(), KICKED)
        self.assert_closing()
        self.disconnect()
        self.assertIn("end=kicked", log[0])
        self.assertEqual(self.server.maildrop.synced, 0)

    def test_one_that_is_at_work_is_cut_off(self) -> None:
        self.serve([b"a", Deferred()]).log_in().say(b"RETR 1\r\n")
        log = self.server.lines_of_log()
        self.assertEqual(self.kick(self.presence().id), Kicked(1, 0))
        self.assertEqual(self.server.answers(), b"")
        self.assertTrue(self.server.transport.aborted)
        self.disconnect()
        self.assertIn("end=kicked", log[0])

    def test_a_login_is_cut_off_and_comes_to_nothing(self) -> None:
        self.serve()
        held = self.server.realm.held = Deferred()
        self.server.say(LOGIN)
        self.entry.kick()
        self.assertTrue(self.server.transport.aborted)
        self.disconnect()
        self.assertTrue(held.called)

    def test_one_that_does_not_take_its_last_words_is_cut_off(self) -> None:
        self.serve().log_in()
        self.entry.kick()
        self.assert_closing()
        self.entry.kick()
        self.assertTrue(self.server.transport.aborted)

    def test_who_is_gone_cannot_be_kicked(self) -> None:
        self.serve().log_in()
        entry = self.entry
        self.disconnect()
        entry.kick()
        entry.stop(0)
        entry.cut_off()
        self.assertEqual(self.server.answers(), b"")


class ForwardedTests(EndingTestCase):
    def setUp(self) -> None:
        self.serve()
        self.session = self.server.realm.session = Session()
        self.wait(7)
        self.before = self.presence()
        self.server.say(LOGIN)

    def test_the_session_of_these_tests_keeps_the_contract(self) -> None:
        verifyObject(IForwardedSession, self.session)

    def test_it_is_there_as_the_members(self) -> None:
        self.session.sent = 4711
        presence = self.presence()
        self.assertEqual((presence.kind, presence.member), ("forwarded", "10.0.0.2:110"))
        self.assertEqual((presence.user, presence.octets, presence.tls), ("joe", 4711, "no"))
        self.assertEqual((presence.id, presence.since), (self.before.id, self.before.since))
        self.assertEqual(presence.host, self.before.host)

    def test_it_is_there_until_both_ends_are_gone(self) -> None:
        self.server.connection.connectionLost(LOST)
        self.assertEqual(len([*self.present]), 1)
        self.assertEqual(self.present.by_member, {"10.0.0.2:110": 1})
        self.session.ended(Relayed("client-closed", 1.0, 2, 3))
        self.assertEqual([*self.present], [])
        self.assertEqual(self.present.by_member, {})

    def test_it_is_told_when_nothing_has_been_passed_on_for_a_moment(self) -> None:
        self.session.silence = 0.9
        self.entry.stop(QUIET)
        self.entry.stop(0)
        self.assertIsNone(self.session.told)
        self.assertEqual(self.presence().doing, "relaying")
        self.session.silence = QUIET
        self.assertEqual(self.presence().doing, "")
        self.entry.stop(QUIET)
        self.assertEqual(self.session.told, ("stopped", STOPPED))

    def test_in_the_second_half_of_the_time_the_client_is_not_heard_any_more(self) -> None:
        self.entry.stop(QUIET)
        self.assertFalse(self.session.deaf)
        self.entry.stop(0)
        self.assertTrue(self.session.deaf)

    def test_at_the_end_it_is_cut_off_while_something_is_under_way(self) -> None:
        self.session.silence = None
        self.entry.stop(0)
        self.assertTrue(self.entry.cut_off())
        self.assertEqual(self.session.told, ("stopped", b""))

    def test_at_the_end_it_is_told_where_all_may_have_been_said(self) -> None:
        self.session.silence = 0.1
        self.entry.stop(0)
        self.assertIsNone(self.session.told)
        self.assertTrue(self.entry.cut_off())
        self.assertEqual(self.session.told, ("stopped", STOPPED))

    def test_it_is_kicked_with_a_word_only_where_nothing_is_under_way(self) -> None:
        self.entry.kick()
        self.assertEqual(self.session.told, ("kicked", b""))
        self.session.silence = 5.0
        self.entry.kick()
        self.assertEqual(self.session.told, ("kicked", KICKED))
