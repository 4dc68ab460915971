"""POP3 as a client sees it, on a string transport."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.logger import formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.loglevel import Log
from qmailldap.pop3 import Limits
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.threads import Busy
from tests.pop3.maildrop import PASSWORD, Maildrop, Server


class BeforeLoginTests(SynchronousTestCase):
    def test_the_greeting_is_that_of_qmail_popup_but_promises_no_apop(self) -> None:
        self.assertRegex(Server().greeting, rb"\A\+OK \d+\.\d+@mail\.example\.org\r\n\Z")

    def test_small_answers_are_not_held_back_by_the_kernel(self) -> None:
        self.assertTrue(Server().transport.no_delay)

    def test_capa_tells_what_is_there(self) -> None:
        answer = Server().say(b"CAPA\r\n")
        self.assertTrue(answer.startswith(b"+OK "))
        self.assertTrue(answer.endswith(b"\r\n.\r\n"))
        capabilities = answer.split(b"\r\n")[1:-2]
        self.assertEqual(
            [each.split()[0] for each in capabilities],
            [
                b"TOP",
                b"USER",
                b"SASL",
                b"UIDL",
                b"RESP-CODES",
                b"AUTH-RESP-CODE",
                b"PIPELINING",
            ],
        )

    def test_capa_tells_more_once_it_is_known_who_serves(self) -> None:
        answer = Server().log_in().say(b"CAPA\r\n")
        self.assertIn(b"\r\nPIPELINING\r\nEXPIRE NEVER\r\nIMPLEMENTATION qmailldap-", answer)

    def test_commands_of_a_session_want_a_login_first(self) -> None:
        for command in (
            b"STAT",
            b"LIST",
            b"RETR 1",
            b"DELE 1",
            b"UIDL",
            b"TOP 1 1",
            b"RSET",
            b"XX",
        ):
            self.assertEqual(Server(b"one").say(command + b"\r\n"), b"-ERR authorization first\r\n")

    def test_noop_and_quit_are_answered(self) -> None:
        server = Server()
        self.assertEqual(server.say(b"NOOP\r\nQUIT\r\nNOOP\r\n"), b"+OK \r\n+OK \r\n")
        self.assertTrue(server.transport.disconnecting)
        self.assertEqual(server.maildrop.synced, 0)

    def test_pass_wants_user_before(self) -> None:
        self.assertEqual(Server().say(b"PASS x\r\n"), b"-ERR USER first\r\n")

    def test_user_and_pass_want_an_argument(self) -> None:
        self.assertEqual(Server().say(b"USER\r\nUSER \r\n"), b"-ERR syntax error\r\n" * 2)
        self.assertEqual(Server().say(b"USER joe\r\nPASS\r\n"), b"+OK \r\n-ERR syntax error\r\n")

    def test_a_password_may_hold_blanks(self) -> None:
        Server().log_in()

    def test_blanks_around_a_password_are_part_of_it(self) -> None:
        answer = Server().say(b"USER joe\r\nPASS  " + PASSWORD + b"\r\n")
        self.assertEqual(answer, b"+OK \r\n-ERR [AUTH] authorization failed\r\n")

    def test_commands_are_understood_in_any_case(self) -> None:
        self.assertEqual(
            Server().say(b"user joe\r\npAsS " + PASSWORD + b"\r\nstat\r\n"),
            b"+OK \r\n+OK \r\n+OK 0 0\r\n",
        )

    def test_wrong_password_unknown_user_and_empty_password_read_the_same(self) -> None:
        answers = {
            Server().say(b"USER " + user + b"\r\nPASS " + password + b"\r\n")
            for user, password in ((b"joe", b"x"), (b"nobody", b"x"), (b"joe", b""))
        }
        self.assertEqual(answers, {b"+OK \r\n-ERR [AUTH] authorization failed\r\n"})

    def test_after_a_refusal_user_is_wanted_again(self) -> None:
        server = Server()
        server.say(b"USER joe\r\nPASS x\r\n")
        self.assertEqual(server.say(b"PASS " + PASSWORD + b"\r\n"), b"-ERR USER first\r\n")

    def test_the_connection_is_closed_after_three_refused_logins(self) -> None:
        server = Server()
        for expected in (False, False, True):
            server.say(b"USER joe\r\nPASS x\r\n")
            self.assertEqual(server.transport.disconnecting, expected)
        self.assertEqual(server.say(b"NOOP\r\n"), b"")

    def test_each_refusal_reads_as_its_row_in_the_table(self) -> None:
        for refusal in Refusal:
            server = Server()
            server.realm.held = fail(LoginRefused(refusal))
            answer = server.say(b"USER joe\r\nPASS " + PASSWORD + b"\r\n")
            row = refusal.outcome
            self.assertEqual(answer, f"+OK \r\n-ERR [{row.code}] {row.text}\r\n".encode())

    def test_a_refusal_shows_only_what_may_be_told(self) -> None:
        server = Server()
        server.realm.held = fail(
            LoginRefused(Refusal.RECORD_INCORRECT, shown=Refusal.WRONG_CREDENTIALS)
        )
        answer = server.say(b"USER joe\r\nPASS " + PASSWORD + b"\r\n")
        self.assertEqual(answer, b"+OK \r\n-ERR [AUTH] authorization failed\r\n")

    def test_a_fault_of_ours_is_a_temporary_error_and_is_logged(self) -> None:
        server = Server()
        server.realm.held = fail(ZeroDivisionError("a fault"))
        answer = server.say(b"USER joe\r\nPASS " + PASSWORD + b"\r\n")
        self.assertEqual(answer, b"+OK \r\n-ERR [SYS/TEMP] temporary error\r\n")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_the_login_of_a_client_that_leaves_is_given_up(self) -> None:
        server = Server(b"one")
        held: Deferred[None] = Deferred()
        server.realm.held = held
        server.say(b"USER joe\r\nPASS " + PASSWORD + b"\r\n")
        server.connection.connectionLost(Failure(ConnectionDone()))
        self.assertTrue(held.called)
        self.assertIsNone(server.protocol.mbox)
        self.assertEqual(server.clock.getDelayedCalls(), [])

    def test_a_login_that_cannot_be_given_up_leaves_no_open_mailbox(self) -> None:
        server = Server(b"one")
        held: Deferred[None] = Deferred(lambda deferred: deferred.callback(None))
        server.realm.held = held
        server.say(b"USER joe\r\nPASS " + PASSWORD + b"\r\n")
        server.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(server.maildrop.closed, 1)
        self.assertEqual(server.clock.getDelayedCalls(), [])


class SessionTests(SynchronousTestCase):
    def server(self, *messages: object) -> Server:
        return Server(*(messages or (b"one\n", b"three\n"))).log_in()

    def test_stat_counts_messages_and_octets(self) -> None:
        self.assertEqual(self.server().say(b"STAT\r\n"), b"+OK 2 10\r\n")

    def test_deleted_messages_do_not_count(self) -> None:
        answer = self.server().say(b"DELE 1\r\nSTAT\r\nLIST\r\nUIDL\r\n")
        self.assertEqual(answer, b"+OK \r\n+OK 1 6\r\n+OK \r\n2 6\r\n.\r\n+OK \r\n2 uid-1\r\n.\r\n")

    def test_list_and_uidl_of_one_message(self) -> None:
        answer = self.server().say(b"LIST 2\r\nUIDL 2\r\nlist  2 \r\n")
        self.assertEqual(answer, b"+OK 2 6\r\n+OK 2 uid-1\r\n+OK 2 6\r\n")

    def test_message_numbers_are_checked(self) -> None:
        server = self.server()
        server.say(b"DELE 2\r\n")
        for argument, text in (
            (b"0", b"messages are counted from 1"),
            (b"00", b"messages are counted from 1"),
            (b"3", b"not that many messages"),
            (b"9" * 240, b"not that many messages"),
            (b"2", b"already deleted"),
            (b"x", b"syntax error"),
            (b"-1", b"syntax error"),
            (b"+1", b"syntax error"),
            (b"1x", b"syntax error"),
            (b"\xb2", b"syntax error"),
            (b"1 1 1", b"syntax error"),
        ):
            for command in (b"LIST %b", b"UIDL %b", b"RETR %b", b"DELE %b", b"TOP %b 0"):
                self.assertEqual(
                    server.say(command % argument + b"\r\n"), b"-ERR " + text + b"\r\n", command
                )

    def test_commands_without_their_arguments_are_syntax_errors(self) -> None:
        for command in (b"RETR", b"DELE", b"TOP", b"TOP 1", b"TOP 1 x", b"STAT 1", b"RSET x"):
            self.assertEqual(self.server().say(command + b"\r\n"), b"-ERR syntax error\r\n")

    def test_what_is_no_command_is_unimplemented(self) -> None:
        for command in (
            b"XYZZY",
            b"",
            b" ",
            b"\xff\xfe",
            b"__init__",
            b"USER joe",
            b"AUTH",
            b"RPOP",
        ):
            self.assertEqual(self.server().say(command + b"\r\n"), b"-ERR unimplemented\r\n")

    def test_retr_sends_the_message(self) -> None:
        self.assertEqual(self.server().say(b"RETR 2\r\n"), b"+OK \r\nthree\r\n.\r\n")

    def test_a_small_message_leaves_in_one_write(self) -> None:
        server = self.server()
        server.connection.dataReceived(b"RETR 1\r\n")
        self.assertEqual(server.transport.writes, [b"+OK \r\none\r\n.\r\n"])

    def test_the_first_chunk_of_a_big_message_leaves_with_the_response(self) -> None:
        server = self.server([b"a" * 65536, b"b" * 10])
        server.connection.dataReceived(b"RETR 1\r\n")
        self.assertTrue(server.transport.writes[0].startswith(b"+OK \r\naaaa"))
        self.assertEqual(server.transport.writes[1], b"b" * 10 + b"\r\n.\r\n")

    def test_top_sends_the_header_and_so_many_lines(self) -> None:
        server = self.server(b"A: b\n\n1\n.2\n3\n")
        self.assertEqual(server.say(b"TOP 1 2\r\n"), b"+OK \r\nA: b\r\n\r\n1\r\n..2\r\n.\r\n")
        self.assertEqual(server.say(b"TOP 1 0\r\n"), b"+OK \r\nA: b\r\n\r\n.\r\n")
        self.assertTrue(server.say(b"TOP 1 " + b"9" * 99 + b"\r\n").endswith(b"3\r\n.\r\n"))

    def test_messages_are_let_go_when_sent(self) -> None:
        server = self.server()
        server.say(b"RETR 1\r\nTOP 2 0\r\n")
        self.assertEqual([message.closed for message in server.maildrop.opened], [True, True])

    def test_a_message_that_is_gone_is_refused(self) -> None:
        server = self.server()
        server.maildrop.gone.add(0)
        self.assertEqual(
            server.say(b"RETR 1\r\nNOOP\r\n"), b"-ERR unable to open that message\r\n+OK \r\n"
        )

    def test_a_message_that_fails_before_anything_is_out_is_refused(self) -> None:
        server = self.server([b"half of", OSError("the disk")])
        self.assertEqual(server.say(b"RETR 1\r\n"), b"-ERR unable to open that message\r\n")
        self.assertFalse(server.transport.disconnecting)

    def test_a_message_for_which_there_is_no_thread_is_refused(self) -> None:
        server = self.server()
        server.maildrop.getMessage = lambda index: fail(Busy("full"))  # type: ignore[method-assign]
        self.assertEqual(server.say(b"RETR 1\r\n"), b"-ERR unable to open that message\r\n")

    def test_a_message_that_fails_half_way_ends_the_connection(self) -> None:
        server = self.server([b"a" * 70_000, OSError("the disk")])
        answer = server.say(b"RETR 1\r\nNOOP\r\n")
        self.assertTrue(answer.startswith(b"+OK \r\naaa"))
        self.assertNotIn(b"\n.\r\n", answer)
        self.assertTrue(server.transport.aborted)
        self.assertTrue(server.maildrop.opened[0].closed)

    def test_last_is_the_highest_message_touched(self) -> None:
        server = self.server()
        self.assertEqual(server.say(b"LAST\r\n"), b"+OK 0\r\n")
        server.say(b"RETR 2\r\nDELE 1\r\n")
        self.assertEqual(server.say(b"LAST\r\nRSET\r\nLAST\r\n"), b"+OK 2\r\n+OK \r\n+OK 0\r\n")

    def test_rset_undoes_deletions(self) -> None:
        self.assertEqual(
            self.server().say(b"DELE 1\r\nRSET\r\nSTAT\r\n"), b"+OK \r\n+OK \r\n+OK 2 10\r\n"
        )

    def test_a_deleted_message_cannot_be_deleted_again(self) -> None:
        self.assertEqual(
            self.server().say(b"DELE 1\r\nDELE 1\r\n"), b"+OK \r\n-ERR already deleted\r\n"
        )

    def test_quit_updates_then_answers_then_closes(self) -> None:
        server = self.server()
        updated: Deferred[int] = Deferred()
        server.maildrop.sync_result = lambda: updated
        self.assertEqual(server.say(b"DELE 1\r\nQUIT\r\nNOOP\r\n"), b"+OK \r\n")
        updated.callback(0)
        self.assertEqual(server.answers(), b"+OK \r\n")
        self.assertTrue(server.transport.disconnecting)
        # With a producer registered, a real transport would wait for it before it closes.
        self.assertIsNone(server.transport.producer)

    def test_quit_says_so_when_messages_were_not_removed(self) -> None:
        server = self.server()
        server.maildrop.sync_result = lambda: 1
        self.assertEqual(
            server.say(b"DELE 1\r\nQUIT\r\n"),
            b"+OK \r\n-ERR unable to unlink all deleted messages\r\n",
        )

    def test_an_update_that_fails_is_not_reported_as_success(self) -> None:
        for fault, logged in ((OSError("the disk"), 0), (Busy("full"), 0), (ValueError(), 1)):
            server = self.server()
            server.maildrop.sync_result = partial(fail, fault)
            self.assertEqual(
                server.say(b"QUIT\r\n"), b"-ERR [SYS/TEMP] unable to update the mailbox\r\n"
            )
            # Only what is a fault of ours leaves a traceback.
            self.assertEqual(len(self.flushLoggedErrors()), logged)

    def test_only_quit_updates(self) -> None:
        server = self.server()
        server.say(b"DELE 1\r\n")
        server.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((server.maildrop.synced, server.maildrop.closed), (0, 1))

    def test_a_client_that_leaves_after_quit_gets_its_update(self) -> None:
        server = self.server()
        updated: Deferred[int] = Deferred()
        server.maildrop.sync_result = lambda: updated
        server.say(b"DELE 1\r\nQUIT\r\n")
        server.connection.connectionLost(Failure(ConnectionDone()))
        updated.callback(0)
        self.assertEqual(server.maildrop.synced, 1)
        self.assertEqual(server.clock.getDelayedCalls(), [])

    def test_the_original_wording_of_success_is_kept(self) -> None:
        self.assertEqual(self.server().say(b"NOOP\r\nRSET\r\nDELE 1\r\n"), b"+OK \r\n" * 3)


class FlowTests(SynchronousTestCase):
    def test_commands_in_pieces_of_one_octet_are_answered(self) -> None:
        server = Server(b"one\n")
        for octet in b"USER joe\r\nPASS " + PASSWORD + b"\r\nRETR 1\r\nQUIT\r\n":
            server.connection.dataReceived(bytes([octet]))
        self.assertEqual(server.answers(), b"+OK \r\n+OK \r\n+OK \r\none\r\n.\r\n+OK \r\n")

    def test_a_bare_lf_ends_a_command(self) -> None:
        self.assertEqual(Server().say(b"NOOP\nNOOP\r\n"), b"+OK \r\n+OK \r\n")

    def test_a_line_that_is_too_long_is_refused_and_the_next_one_answered(self) -> None:
        server = Server()
        for _ in range(16):
            self.assertEqual(server.say(b"x" * 65536), b"")
        self.assertEqual(server.say(b"\r\nNOOP\r\n"), b"-ERR line too long\r\n+OK \r\n")

    def test_a_thousand_pipelined_commands_are_answered_in_order(self) -> None:
        server = Server(*[b"x" * n for n in range(1000)]).log_in()
        answer = server.say(b"".join(b"LIST %d\r\n" % n for n in range(1, 1001)))
        self.assertEqual(answer, b"".join(b"+OK %d %d\r\n" % (n + 1, n) for n in range(1000)))

    def test_other_sessions_have_their_turn_between_many_commands(self) -> None:
        server = Server(limits=Limits(turn=10))
        server.connection.dataReceived(b"NOOP\r\n" * 25)
        self.assertEqual(server.answers(), b"+OK \r\n" * 10)
        server.clock.advance(0)
        self.assertEqual(server.answers(), b"+OK \r\n" * 15)

    def test_a_client_far_ahead_is_read_again_once_it_is_answered(self) -> None:
        server = Server()
        held: Deferred[None] = Deferred()
        server.realm.held = held
        server.say(b"USER joe\r\nPASS " + PASSWORD + b"\r\n")
        server.say(b"NOOP\r\n" * 20_000)
        self.assertEqual(server.transport.producerState, "paused")
        held.callback(None)
        server.turn()
        self.assertEqual(server.transport.producerState, "producing")
        self.assertEqual(server.answers(), b"+OK \r\n" * 20_001)

    def test_a_client_that_does_not_read_is_not_written_to(self) -> None:
        server = Server([b"a" * 65536] * 100).log_in()
        server.transport.producer.pauseProducing()
        self.assertEqual(server.say(b"RETR 1\r\nNOOP\r\n"), b"")
        server.transport.producer.resumeProducing()
        server.turn()
        self.assertTrue(server.answers().endswith(b"a\r\n.\r\n+OK \r\n"))

    def test_sending_stops_while_the_client_does_not_read(self) -> None:
        server = Server([b"a" * 65536, b"b" * 65536, b"c" * 65536]).log_in()
        server.transport.clear()
        writes = server.transport.writes
        write = server.transport.write

        def write_and_fill_up(data: bytes) -> None:
            write(data)
            server.transport.producer.pauseProducing()

        server.transport.write = write_and_fill_up  # type: ignore[method-assign]
        server.connection.dataReceived(b"RETR 1\r\n")
        for expected in (1, 2, 3, 4):
            self.assertEqual(len(writes), expected)
            server.transport.producer.resumeProducing()
        self.assertTrue(writes[-1].endswith(b"\r\n.\r\n"))

    def test_a_long_listing_is_sent_in_pieces_as_the_client_reads(self) -> None:
        server = Server(*[b"x"] * 1000, limits=Limits(chunk=1000)).log_in()
        server.connection.dataReceived(b"UIDL\r\n")
        writes = server.transport.writes
        self.assertGreater(len(writes), 5)
        self.assertLess(max(map(len, writes)), 1100)
        listing = server.answers()
        self.assertEqual(listing.count(b"\r\n"), 1002)

    def test_a_message_at_hand_is_answered_with_one_write(self) -> None:
        server = Server(b"one\n", b".two\nthree").log_in()
        expected = [server.say(b"RETR %d\r\n" % number) for number in (1, 2)]
        server.maildrop.at_hand = {0: b"one\n", 1: b".two\nthree"}
        server.maildrop.gone = {0, 1}
        for number, answer in enumerate(expected, 1):
            server.connection.dataReceived(b"RETR %d\r\n" % number)
            self.assertEqual(server.transport.writes, [answer])
            server.transport.clear()
        self.assertEqual((server.protocol._session.retrieved, server.protocol._highest), (4, 2))
        self.assertEqual(server.protocol._session.octets, 2 * (5 + 12))

    def test_a_listing_is_made_once_for_all_who_find_the_same_messages(self) -> None:
        server = Server(*[b"x"] * 10, limits=Limits(chunk=3 * 64)).log_in()
        server.maildrop.remembered = {}
        first = [server.say(command) for command in (b"LIST\r\n", b"UIDL\r\n")]
        asked: list[tuple[int, int]] = []
        for name in ("sizes", "uniqueIds"):
            setattr(server.maildrop, name, lambda *span: asked.append(span))
        again = [server.say(command) for command in (b"LIST\r\n", b"UIDL\r\n")]
        self.assertEqual((again, asked), (first, []))
        self.assertEqual(first[0].count(b"\r\n"), 12)

    def test_what_is_deleted_is_in_nobodys_listing_but_ones_own(self) -> None:
        server = Server(*[b"x"] * 5).log_in()
        server.maildrop.remembered = {}
        server.say(b"DELE 2\r\n")
        self.assertEqual(server.say(b"LIST\r\n"), b"+OK \r\n1 1\r\n3 1\r\n4 1\r\n5 1\r\n.\r\n")
        server.say(b"RSET\r\n")
        self.assertIn(b"\r\n2 uid-1\r\n", server.say(b"UIDL\r\n"))
        self.assertIn(b"\r\n2 1\r\n", server.say(b"LIST\r\n"))

    def test_a_client_that_leaves_in_the_middle_of_a_message_lets_it_go(self) -> None:
        for state in ("paused", "reading"):
            chunk: Deferred[bytes] = Deferred()
            server = Server([b"a" * 65536, chunk]).log_in()
            server.say(b"RETR 1\r\n")
            if state == "paused":
                server.transport.producer.pauseProducing()
                chunk.callback(b"b" * 65536)
                chunk = succeed(b"")
            server.connection.connectionLost(Failure(ConnectionDone()))
            if not chunk.called:
                chunk.callback(b"b")
            self.assertTrue(server.maildrop.opened[0].closed)
            self.assertEqual(server.clock.getDelayedCalls(), [])

    def test_a_message_that_fails_when_the_client_has_left_is_all_that_does(self) -> None:
        chunk: Deferred[bytes] = Deferred()
        server = Server([b"a" * 65536, chunk]).log_in()
        server.say(b"RETR 1\r\n")
        server.connection.connectionLost(Failure(ConnectionDone()))
        chunk.errback(OSError("the keeper was lost"))
        self.assertFalse(server.transport.aborted)
        self.assertTrue(server.maildrop.opened[0].closed)

    def test_a_silent_client_is_let_go_without_a_word(self) -> None:
        server = Server(b"one\n").log_in()
        server.clock.advance(599)
        self.assertFalse(server.transport.aborted)
        server.say(b"NOOP\r\n")
        server.clock.advance(599)
        self.assertFalse(server.transport.aborted)
        server.clock.advance(1)
        self.assertTrue(server.transport.aborted)
        self.assertEqual((server.answers(), server.maildrop.synced), (b"", 0))

    def test_octets_that_make_no_command_do_not_count_as_life(self) -> None:
        server = Server().log_in()
        for _ in range(6):
            server.clock.advance(100)
            server.connection.dataReceived(b"x")
        self.assertTrue(server.transport.aborted)

    def test_a_client_that_stops_reading_is_let_go(self) -> None:
        server = Server([b"a" * 65536] * 3).log_in()
        server.transport.producer.pauseProducing()
        server.say(b"RETR 1\r\n")
        server.clock.advance(600)
        self.assertTrue(server.transport.aborted)

    def test_a_slow_reader_is_not(self) -> None:
        server = Server([b"a" * 65536] * 3).log_in()
        for _ in range(5):
            server.transport.producer.pauseProducing()
            server.clock.advance(590)
            server.transport.producer.resumeProducing()
        self.assertFalse(server.transport.aborted)

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=30),
                st.sampled_from(
                    [
                        b"USER joe\r\n",
                        b"PASS " + PASSWORD + b"\r\n",
                        b"RETR 1\r\n",
                        b"TOP 2 1\r\n",
                        b"DELE 1\r\n",
                        b"RSET\r\n",
                        b"LIST\r\n",
                        b"UIDL 2\r\n",
                        b"QUIT\r\n",
                        b"CAPA\r\n",
                        b"\r\n",
                        b" ",
                    ]
                ),
            ),
            max_size=30,
        )
    )
    def test_no_input_fails_or_updates_without_quit(self, pieces: list[bytes]) -> None:
        server = Server(b"one\n", [b".\r", b"\n."], b"")
        for piece in pieces:
            server.say(piece)
        server.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(server.clock.getDelayedCalls(), [])
        self.assertTrue(all(message.closed for message in server.maildrop.opened))
        said_quit = re.search(rb"(?i)QUIT *\r?\n", b"".join(pieces)) is not None
        self.assertLessEqual(server.maildrop.synced, int(said_quit))


class HalfCloseTests(SynchronousTestCase):
    """A client may close its side and wait for the answers: printf ... | nc -N."""

    def test_it_is_told_to_the_protocol(self) -> None:
        self.assertTrue(IHalfCloseableProtocol.providedBy(Server().protocol))

    def test_what_was_asked_before_is_answered_and_then_the_connection_closed(self) -> None:
        server = Server(b"one\n")
        held: Deferred[None] = Deferred()
        server.realm.held = held
        server.say(b"USER joe\r\nPASS " + PASSWORD + b"\r\nSTAT\r\nRETR 1\r\nST")
        server.connection.readConnectionLost()
        self.assertFalse(server.transport.disconnecting)
        held.callback(None)
        server.turn()
        self.assertEqual(server.answers(), b"+OK \r\n+OK 1 4\r\n+OK \r\none\r\n.\r\n")
        self.assertTrue(server.transport.disconnecting)
        self.assertEqual(server.maildrop.synced, 0)

    def test_a_quit_before_it_updates(self) -> None:
        server = Server(b"one\n").log_in()
        server.connection.dataReceived(b"DELE 1\r\nQUIT\r\n")
        server.connection.readConnectionLost()
        self.assertEqual(server.answers(), b"+OK \r\n+OK \r\n")
        self.assertEqual(server.maildrop.synced, 1)

    def test_with_nothing_asked_the_connection_is_closed_at_once(self) -> None:
        server = Server(b"one\n").log_in()
        server.connection.readConnectionLost()
        self.assertTrue(server.transport.disconnecting)
        self.assertEqual(server.maildrop.synced, 0)


class LargeMailboxTests(SynchronousTestCase):
    def test_no_command_on_one_message_looks_at_all_of_them(self) -> None:
        server = Server(*[b"x\n"] * 10).log_in()
        one = server.maildrop.listMessages

        def only_one(index: int | None = None) -> object:
            assert index is not None, "the whole mailbox was looked at"
            return one(index)

        server.maildrop.listMessages = only_one  # type: ignore[method-assign]
        self.patch(server.maildrop, "isDeleted", Counted(server.maildrop.isDeleted))
        answer = server.say(b"STAT\r\nLIST 3\r\nUIDL 3\r\nRETR 3\r\nTOP 3 0\r\nDELE 3\r\nSTAT\r\n")
        self.assertNotIn(b"-ERR", answer)
        self.assertLess(server.maildrop.isDeleted.calls, 10)  # type: ignore[attr-defined]

    def test_a_session_that_has_ended_is_freed_at_once(self) -> None:
        # A listing is large, and the garbage collector may take its time.
        for farewell in (b"", b"RETR 1\r\n", b"USER x\r\n", b"DELE 1\r\nQUIT\r\n"):
            server = Server(b"one\n").log_in()
            server.say(farewell)
            gc.collect()
            gc.disable()
            try:
                session = weakref.ref(server.protocol)
                server.connection.connectionLost(Failure(ConnectionDone()))
                del server.protocol, server.connection, server.transport.producer
                self.assertIsNone(session(), farewell)
            finally:
                gc.enable()


class Counted:
    """A function that knows how often it was called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.calls = 0
        self._function = function

    def __call__(self, *args: object) -> Any:
        self.calls += 1
        return self._function(*args)


class LogTests(SynchronousTestCase):
    """The lines of one session; what may stand in them is for tests.test_printable."""

    def setUp(self) -> None:
        self.server = Server(b"one\n", b"three\n")
        self.events: list[str] = []
        self.server.protocol._session.id = "S1"
        self.server.protocol._session.log = Log(
            namespace="test",
            observer=lambda event: self.events.append(formatEvent(event)),  # type: ignore[arg-type]
        )

    def test_a_session_leaves_a_line_at_its_login_and_at_its_end(self) -> None:
        self.server.log_in().say(b"RETR 2\r\nDELE 1\r\nQUIT\r\n")
        login, logout = self.events
        client = "user=joe peer=192.168.1.1 session=S1"
        self.assertEqual(login, f"login {client} messages=2 octets=10 method=pass tls=no")
        self.assertEqual(logout, f"logout {client} end=quit retrieved=1 octets=7 deleted=1 left=1")

    def test_a_session_that_breaks_off_has_deleted_nothing(self) -> None:
        self.server.log_in().say(b"DELE 1\r\n")
        self.server.connection.connectionLost(Failure(ConnectionDone()))
        self.assertIn("end=disconnected", self.events[-1])
        self.assertIn("deleted=0 left=2", self.events[-1])

    def test_a_refusal_is_a_line_with_its_true_reason(self) -> None:
        self.server.realm.held = fail(
            LoginRefused(Refusal.RECORD_INCORRECT, "qmailUID is x", shown=Refusal.WRONG_CREDENTIALS)
        )
        self.server.say(b"USER joe\r\nPASS " + PASSWORD + b"\r\n")
        (line,) = self.events
        client = "user=joe peer=192.168.1.1 session=S1"
        self.assertEqual(line, f'refused {client} reason=record-incorrect detail="qmailUID is x"')

    def test_a_client_that_leaves_before_it_is_judged_is_a_line(self) -> None:
        self.server.realm.held = Deferred()
        self.server.say(b"USER joe\r\nPASS " + PASSWORD + b"\r\n")
        self.server.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.events, ["abandoned user=joe peer=192.168.1.1 session=S1"])

    def test_a_message_that_cannot_be_opened_is_a_line(self) -> None:
        self.server.maildrop.gone.add(0)
        self.server.log_in().say(b"RETR 1\r\n")
        self.assertEqual(
            self.events[1], "message user=joe peer=192.168.1.1 session=S1 uid=uid-0 problem=gone"
        )

    def test_an_update_that_fails_is_a_line(self) -> None:
        self.server.maildrop.sync_result = lambda: fail(OSError("no disk"))
        self.server.log_in().say(b"QUIT\r\n")
        self.assertEqual(
            self.events[1], 'update user=joe peer=192.168.1.1 session=S1 problem="no disk"'
        )

    def test_a_proxy_cannot_forge_a_line(self) -> None:
        peer = IPv4Address("TCP", "9.9.9.9\x1b\nlogin", 1)
        self.server.protocol._session._neighbour = peer.host
        self.server.log_in()
        self.assertIn('peer="9.9.9.9\\x1b\\x0alogin"', self.events[0])

    def test_a_name_cannot_forge_a_line(self) -> None:
        self.server.say(b"USER a\x1b[2J\rlogin user=b\r\nPASS x\r\n")
        (line,) = self.events
        self.assertIn('user="a\\x1b[2J\\x0dlogin user=b"', line)


class MaildropContractTests(SynchronousTestCase):
    def test_the_maildrop_of_these_tests_keeps_the_contract(self) -> None:
        from zope.interface.verify import verifyObject

        from qmailldap.interfaces import IMaildrop

        verifyObject(IMaildrop, Maildrop())
