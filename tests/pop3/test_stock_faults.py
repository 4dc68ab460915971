"""What stock Twisted's POP3 does wrong (peers.md) and ours does not: each check is run on both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock, Cooperator
from twisted.mail import pop3
from twisted.trial.unittest import SynchronousTestCase

from tests.pop3.maildrop import PASSWORD, Server


class StockServer(Server):
    """The same maildrop behind the protocol that Twisted ships."""

    def __init__(self, *messages: Any) -> None:
        super().__init__(*messages)
        clock = self.clock = Clock()

        class Stock(pop3.POP3):
            callLater: Any = staticmethod(clock.callLater)
            schedule = staticmethod(
                Cooperator(scheduler=lambda call: clock.callLater(0, call)).coiterate
            )

        self.transport = type(self.transport)()
        protocol: Any = Stock()
        self.connection = self.protocol = protocol
        protocol.portal = self.portal
        protocol.factory = type("Factory", (), {"noisy": False})()
        protocol.makeConnection(self.transport)
        self.answers()

    def turn(self) -> None:
        """Time does not pass here but for what is due, and the producer is asked for all it has."""
        due = True
        while due:
            super().turn()
            due = self.transport.producer is not None and not self.transport.streaming
            if due:
                self.transport.producer.resumeProducing()

    def log_in(self) -> StockServer:
        self.say(b"USER joe\r\nPASS " + PASSWORD + b"\r\n")
        return self


Check = Callable[[Server], object]


class StockFaultTests(SynchronousTestCase):
    def assert_only_ours(self, check: Check, *messages: Any) -> None:
        """``check`` is true of our server and false of the stock one."""
        self.assertTrue(check(Server(*messages)))
        self.assertEqual(self.flushLoggedErrors(), [])
        try:
            stock_is_right = check(StockServer(*messages))
        except Exception:  # which a client would see as a connection that breaks
            stock_is_right = False
        self.assertFalse(stock_is_right)
        self.flushLoggedErrors()

    def test_list_and_uidl_leave_out_deleted_messages(self) -> None:
        for command in (b"LIST", b"UIDL"):

            def check(server: Server, command: bytes = command) -> bool:
                listing = server.log_in().say(b"DELE 1\r\n" + command + b"\r\n")
                return b"\r\n1 " not in listing and b"\r\n2 " in listing

            self.assert_only_ours(check, b"one\n", b"two\n")

    def test_a_message_of_no_octets_is_a_message(self) -> None:
        self.assert_only_ours(
            lambda server: server.log_in().say(b"RETR 1\r\n") == b"+OK \r\n.\r\n", b""
        )

    def test_commands_pipelined_behind_pass_wait_for_the_login(self) -> None:
        def check(server: Server) -> bool:
            held: Deferred[None] = Deferred()
            server.realm.held = held
            server.say(b"USER joe\r\nPASS " + PASSWORD + b"\r\nSTAT\r\nDELE 1\r\n")
            held.callback(None)
            server.turn()
            return b"-ERR" not in server.answers() and server.maildrop.deleted == {0}

        self.assert_only_ours(check, b"one\n")

    def test_a_line_that_is_not_utf_8_is_answered_without_a_traceback(self) -> None:
        def check(server: Server) -> bool:
            answer = server.log_in().say(b"\xff\xfe\x80 \xc3\r\n")
            return answer == b"-ERR unimplemented\r\n" and not self.flushLoggedErrors()

        self.assert_only_ours(check, b"one\n")

    def test_a_dot_at_the_start_of_the_message_is_doubled(self) -> None:
        self.assert_only_ours(
            lambda server: server.log_in().say(b"RETR 1\r\n").endswith(b"\r\n..a\r\n.\r\n"),
            b".a\n",
        )

    def test_a_dot_at_the_start_of_a_chunk_is_doubled(self) -> None:
        # 16 KiB is what Twisted's FileSender reads at a time.
        message = b"a" * (2**14 - 1) + b"\n" + b".b\n"
        self.assert_only_ours(
            lambda server: server.log_in().say(b"RETR 1\r\n").endswith(b"a\r\n..b\r\n.\r\n"),
            message,
        )

    def test_a_message_stored_with_crlf_is_sent_with_crlf(self) -> None:
        self.assert_only_ours(
            lambda server: b"\r\r\n" not in server.log_in().say(b"RETR 1\r\n"), b"a\r\nb\r\n"
        )

    def test_dele_of_a_bad_number_says_what_is_wrong(self) -> None:
        def check(server: Server) -> bool:
            answer = server.log_in().say(b"DELE x\r\n")
            self.flushLoggedErrors()
            return answer == b"-ERR syntax error\r\n"

        self.assert_only_ours(check, b"one\n")

    def test_quit_does_not_report_success_when_the_update_fails(self) -> None:
        def check(server: Server) -> bool:
            server.maildrop.sync_result = lambda: fail(OSError("the disk is gone"))
            answer = server.log_in().say(b"DELE 1\r\nQUIT\r\n")
            self.flushLoggedErrors()
            return b"-ERR" in answer

        self.assert_only_ours(check, b"one\n")

    def test_the_queue_of_pipelined_commands_has_a_bound(self) -> None:
        def check(server: Server) -> bool:
            server.realm.held = Deferred()
            server.say(b"USER joe\r\nPASS " + PASSWORD + b"\r\n")
            for _ in range(3):
                server.say(b"NOOP\r\n" * 8192)
            return bool(server.transport.producerState == "paused")

        self.assert_only_ours(check, b"one\n")
