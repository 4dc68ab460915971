"""Clients that are broken or mean no good: others are served on, and no mail is harmed."""

from __future__ import annotations

import contextlib
import re

from twisted.internet.threads import deferToThread

from .clients import Conversation, converse
from .mailboxes import BIG_MESSAGE, MESSAGES, as_lines, stuffed
from .process_table import resident
from .processes import wait_until
from .site import PASSWORD, SiteTestCase

LOGIN = f"USER joe\r\nPASS {PASSWORD}\r\n".encode()


class HalfCloseTests(SiteTestCase):
    async def test_what_was_asked_before_the_client_closed_its_side_is_answered(self) -> None:
        self.user("joe", messages=[MESSAGES["plain"]])
        await self.start()

        def session(connection: Conversation) -> bytes:
            connection.send(f"USER joe\r\nPASS {PASSWORD}\r\nSTAT\r\nRETR 1\r\n".encode())
            connection.half_close()
            return connection.rest()

        for _ in range(5):
            answers = await converse(self.server.port, session)
            self.assertEqual(answers.count(b"+OK"), 4)
            self.assertTrue(answers.endswith(b"how are you?\r\n.\r\n"), answers)


class HostileTests(SiteTestCase):
    """Joe's client is the hostile one. Jane is served, and Joe's mail is as it was."""

    async def start_with_mail(self, *contents: bytes) -> None:
        self.maildir = self.user("joe", messages=contents or [MESSAGES["plain"], MESSAGES["dots"]])
        self.before = self.maildir.contents()
        self.user("jane", messages=[MESSAGES["plain"]])
        await self.start()

    async def assert_unharmed(self) -> None:
        self.assertTrue(self.server.is_running)
        await self.assert_serves("jane")
        self.assertEqual(self.maildir.contents(), self.before)

    async def test_commands_that_do_not_exist(self) -> None:
        await self.start_with_mail()

        def session(connection: Conversation) -> None:
            for command in (
                b"HELO",
                b"",
                b" ",
                b"GET / HTTP/1.0",
                b"RETR 1",
                b"__init__",
                b"XYZZY",
            ):
                self.assertEqual(connection.ask(command), b"-ERR authorization first", command)
            connection.log_in("joe", PASSWORD)
            for command in (b"HELO", b"", b" ", b"GET / HTTP/1.0", b"__init__", b"XYZZY"):
                self.assertEqual(connection.ask(command), b"-ERR unimplemented", command)
            self.assertEqual(connection.ask(b"noop"), b"+OK ")

        await self.converse(session)
        await self.assert_unharmed()

    async def test_arguments_that_are_missing_or_make_no_sense(self) -> None:
        await self.start_with_mail()
        answers = {
            b"RETR": b"syntax error",
            b"RETR one": b"syntax error",
            b"RETR 1 2": b"syntax error",
            b"RETR -1": b"syntax error",
            b"RETR +1": b"syntax error",
            b"RETR 1.0": b"syntax error",
            b"RETR 0x1": b"syntax error",
            b"RETR \xd9\xa1": b"syntax error",
            b"RETR \xc2\xb2": b"syntax error",
            b"RETR 0": b"messages are counted from 1",
            b"RETR 3": b"not that many messages",
            b"RETR 4294967297": b"not that many messages",
            b"RETR 18446744073709551617": b"not that many messages",
            b"DELE": b"syntax error",
            b"DELE 0": b"messages are counted from 1",
            b"DELE 3": b"not that many messages",
            b"TOP 1": b"syntax error",
            b"TOP 1 x": b"syntax error",
            b"TOP 3 1": b"not that many messages",
            b"LIST 1 2": b"syntax error",
            b"LIST 0": b"messages are counted from 1",
            b"UIDL 3": b"not that many messages",
            b"UIDL x": b"syntax error",
            b"STAT 1": b"syntax error",
        }

        def session(connection: Conversation) -> None:
            self.assertEqual(connection.ask(b"PASS x"), b"-ERR USER first")
            self.assertEqual(connection.ask(b"USER"), b"-ERR syntax error")
            connection.log_in("joe", PASSWORD)
            for command, text in answers.items():
                self.assertEqual(connection.ask(command), b"-ERR " + text, command)
            self.assertEqual(connection.ask(b"NOOP"), b"+OK ")

        await self.converse(session)
        await self.assert_unharmed()

    async def test_numbers_of_thousands_of_digits(self) -> None:
        await self.start_with_mail()

        def session(connection: Conversation) -> None:
            connection.log_in("joe", PASSWORD)
            for digits in (19, 100, 400, 5_000, 100_000):
                for command in (b"RETR %b", b"DELE %b", b"LIST %b", b"UIDL %b", b"TOP %b 1"):
                    answer = connection.ask(command % (b"9" * digits))
                    self.assertTrue(answer.startswith(b"-ERR "), answer)
            # A number may have leading zeros, and ask for more lines than there are.
            self.assertEqual(connection.ask(b"LIST 0001").split()[:2], [b"+OK", b"1"])
            self.assertEqual(connection.ask(b"TOP 1 " + b"9" * 240), b"+OK ")
            self.assertEqual(connection.listing(), as_lines(MESSAGES["plain"]))

        await self.converse(session)
        await self.assert_unharmed()

    async def test_octets_that_are_no_text(self) -> None:
        await self.start_with_mail()
        # But for letters: a line has 255 octets at most.
        every_octet = bytes(each for each in range(256) if each not in b"\r\nabcdefghij")

        def session(connection: Conversation) -> None:
            for octets in (every_octet, b"\0" * 100, b"\xff\xfe\xfd", b"\x16\x03\x01\x02\0\x01\0"):
                self.assertTrue(connection.ask(octets).startswith(b"-ERR "), octets)
                self.assertEqual(connection.ask(b"USER " + octets), b"+OK ")
                self.assertTrue(connection.ask(b"PASS " + octets).startswith(b"-ERR [AUTH]"))
                if octets == b"\xff\xfe\xfd":  # the third try
                    break
            self.assertEqual(connection.rest(), b"")

        await self.converse(session)
        await self.assert_unharmed()

    async def test_a_line_of_a_megabyte(self) -> None:
        await self.start_with_mail()

        def session(connection: Conversation) -> None:
            self.assertTrue(connection.ask(b"USER " + b"x" * 2**20).startswith(b"-ERR "))
            connection.log_in("joe", PASSWORD)
            self.assertTrue(connection.ask(b"y" * 2**20).startswith(b"-ERR "))
            self.assertEqual(connection.ask(b"NOOP"), b"+OK ")

        await self.converse(session)
        await self.assert_unharmed()

    async def test_a_line_that_never_ends_does_not_fill_the_memory(self) -> None:
        await self.start_with_mail()
        before = self._resident()

        def session(connection: Conversation) -> None:
            for _ in range(64):
                connection.send(b"x" * 2**20)

        with contextlib.suppress(OSError):  # the server may have had enough of it
            await self.converse(session)
        self.assertLess(self._resident() - before, 16 * 2**20)
        await self.assert_unharmed()

    async def test_one_octet_at_a_time(self) -> None:
        await self.start_with_mail()

        def session(connection: Conversation) -> list[bytes]:
            connection.send_slowly(LOGIN + b"NOOP\r\nSTAT\r\nRETR 2\r\n", 0.001)
            answers = [connection.line() for _ in range(5)]
            return [*answers, *connection.listing()]

        answers = await self.converse(session)
        self.assertEqual(answers[:5], [b"+OK "] * 3 + [b"+OK 2 " + self._size(), b"+OK "])
        self.assertEqual(answers[5:], stuffed(MESSAGES["dots"]))
        await self.assert_unharmed()

    async def test_a_thousand_commands_in_one_packet(self) -> None:
        await self.start_with_mail()

        def session(connection: Conversation) -> None:
            connection.send(LOGIN + b"NOOP\r\nSTAT\r\nXYZZY\r\nRETR 2\r\n" * 250)
            self.assertEqual([connection.line() for _ in range(2)], [b"+OK ", b"+OK "])
            for _ in range(250):
                self.assertEqual(connection.line(), b"+OK ")
                self.assertEqual(connection.line(), b"+OK 2 " + self._size())
                self.assertEqual(connection.line(), b"-ERR unimplemented")
                self.assertEqual(connection.line(), b"+OK ")
                self.assertEqual(connection.listing(), stuffed(MESSAGES["dots"]))

        await self.converse(session)
        await self.assert_unharmed()

    async def test_commands_without_end_from_a_client_that_reads_no_answer(self) -> None:
        await self.start_with_mail(BIG_MESSAGE)
        before = self._resident()
        connection = await self.connect(receive_buffer=4096)

        def session() -> None:
            connection.log_in("joe", PASSWORD)
            connection.set_limit(1)
            with contextlib.suppress(TimeoutError):
                while True:
                    connection.send(b"RETR 1\r\n" * 1000)

        await deferToThread(session)
        self.assertLess(self._resident() - before, 32 * 2**20)
        await self.assert_serves("jane")
        connection.abort()
        await self.assert_unharmed()

    async def test_connections_that_end_at_every_point_of_a_session(self) -> None:
        await self.start_with_mail()
        session = LOGIN + b"STAT\r\nRETR 1\r\nDELE 1\r\nTOP 2 1\r\nDELE 2\r\n"
        ends = [match.end() for match in re.finditer(rb"\r\n", session)]
        # Behind each line, within each line, before its LF, and before anything at all.
        points = sorted({0, *ends, *(end - 1 for end in ends), *(end - 4 for end in ends)})
        for way_out in (Conversation.hang_up, Conversation.abort):
            for point in points:
                connection = await self.connect()
                await deferToThread(connection.send, session[:point])
                way_out(connection)
        await self.assert_unharmed()
        # Those that got as far as a login are all seen to end.
        logins = len(re.findall(r"login user=joe ", self.server.log))
        await wait_until(
            lambda: len(re.findall(r"logout user=joe ", self.server.log)) >= logins,
            5,
            "the sessions to end",
        )

    async def test_a_client_that_leaves_in_the_middle_of_a_big_message(self) -> None:
        await self.start_with_mail(BIG_MESSAGE * 8)
        for way_out in (Conversation.hang_up, Conversation.abort):
            connection = await self.connect(receive_buffer=4096)
            await deferToThread(connection.log_in, "joe", PASSWORD)
            await deferToThread(connection.send, b"RETR 1\r\nDELE 1\r\nQUIT\r\n")
            await deferToThread(connection.read_some, 10_000)
            way_out(connection)
        await wait_until(
            lambda: self.server.log.count("logout user=joe ") == 2, 10, "both sessions to end"
        )
        await self.assert_unharmed()

    async def test_a_client_that_leaves_between_dele_and_quit(self) -> None:
        await self.start_with_mail()
        connection = await self.connect()
        await deferToThread(connection.log_in, "joe", PASSWORD)
        await deferToThread(connection.ask, b"DELE 1")
        await deferToThread(connection.send, b"QUI")
        connection.hang_up()
        await wait_until(lambda: "logout user=joe " in self.server.log, 5, "the session to end")
        await self.assert_unharmed()

    async def test_a_client_that_leaves_while_its_password_is_checked(self) -> None:
        await self.start_with_mail()
        self.slapd.pause()
        connections = [await self.connect() for _ in range(10)]
        for connection in connections:
            await deferToThread(connection.send, LOGIN + b"DELE 1\r\nQUIT\r\n")
            connection.abort()
        self.slapd.resume()
        await self.assert_unharmed()

    async def test_many_connections_that_say_nothing(self) -> None:
        await self.start_with_mail()
        # The most from one address, but for the one that is served.
        for _ in range(199):
            await self.connect()
        await self.assert_unharmed()

    def _size(self) -> bytes:
        return b"%d" % sum(map(len, self.before.values()))

    def _resident(self) -> int:
        """Octets of memory that the server has in use."""
        return resident(self.server.child.pid)
