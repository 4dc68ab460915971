"""The limits of pop3limits as real clients meet them, and who is exempt."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Sequence

from twisted.internet.threads import deferToThread

from .clients import Conversation, converse
from .ports import HOST, unused_port
from .processes import wait_until
from .server import Pop3Server
from .site import PASSWORD, SiteTestCase

TRUSTED, OFFICE, HOME = "127.0.0.9", "127.0.1.1", "127.0.2.1"
TOO_MANY = b"-ERR [SYS/TEMP] too many connections"
GUESSED = b"-ERR [SYS/TEMP] too many failed logins, try again later"
WRONG = b"-ERR [AUTH] authorization failed"


class LimitsTestCase(SiteTestCase):
    async def start_with(self, *limits: str, options: Sequence[str] = ()) -> None:
        """A server at which `TRUSTED` is trusted."""
        await self.start(*options, pop3limits="\n".join(limits), pop3trusted=TRUSTED)

    async def at(
        self, source: str, port: int | None = None, greeted: bytes = b"+OK "
    ) -> Conversation:
        """A connection from that address, which is greeted like this."""
        connection = await deferToThread(Conversation, port or self.server.port, source=source)
        self.addCleanup(connection.hang_up)
        self.assertTrue(connection.greeting.startswith(greeted), connection.greeting)
        return connection

    async def log_in(self, source: str, user: str = "joe") -> Conversation:
        connection = await self.at(source)
        await deferToThread(connection.log_in, user, PASSWORD)
        return connection

    async def ask(self, connection: Conversation, *commands: bytes) -> list[bytes]:
        """Send the commands one by one; the answer to each is one line."""
        return await deferToThread(lambda: [connection.ask(each) for each in commands])

    async def in_log(self, pattern: str, server: Pop3Server | None = None) -> None:
        where = server or self.server
        await wait_until(lambda: re.search(pattern, where.log), 10, pattern)


class ConnectionsTests(LimitsTestCase):
    async def test_when_all_places_are_taken_the_oldest_who_has_not_logged_in_goes(self) -> None:
        self.user("joe")
        await self.start_with("connections:3")
        oldest = await self.log_in(OFFICE)
        for _ in range(2):
            await self.at(OFFICE)
        third = await self.at(HOME)
        await self.in_log(rf'refused user="" peer={OFFICE} \S+ reason=too-many-connections')
        self.assertEqual(await self.ask(oldest, b"NOOP"), [b"+OK "])
        self.assertEqual(await self.ask(third, b"USER joe"), [b"+OK "])
        for _ in range(2):
            await self.log_in(HOME)
        connection = await self.at(HOME, greeted=TOO_MANY)
        self.assertEqual(await deferToThread(connection.rest), b"")
        await self.in_log(rf'refused user="" peer={HOME} \S+ reason=too-many-connections')
        # Those who are trusted are let in all the same, and whoever leaves makes room.
        await self.log_in(TRUSTED)
        await self.ask(oldest, b"QUIT")

    async def test_one_address_has_so_many_places(self) -> None:
        self.user("joe")
        proxied = unused_port()
        options = ["--listen", f"haproxy:tcp:{proxied}:interface={HOST}"]
        await self.start_with("connections-per-address:2", options=options)
        connections = [await self.at(OFFICE) for _ in range(2)]
        await self.at(OFFICE, greeted=TOO_MANY)
        await self.log_in(HOME)
        for _ in range(4):
            await self.at(TRUSTED)
        await self.ask(connections[0], b"QUIT")
        await self.log_in(OFFICE)

        def greeting(client: str) -> bytes:
            connection = socket.create_connection((HOST, proxied), 10)
            self.addCleanup(connection.close)
            connection.sendall(f"PROXY TCP6 {client} 2001:db8::110 4711 110\r\n".encode())
            with connection.makefile("rb") as received:
                return received.readline()

        for client, begin in (
            ("2001:db8:1:1::1", b"+OK "),
            ("2001:db8:1:1:ffff::2", b"+OK "),
            ("2001:db8:1:1::3", TOO_MANY),
            ("2001:db8:1:2::3", b"+OK "),
            # Here, too, and as many as came without a proxy.
            (f"::ffff:{OFFICE}", TOO_MANY),
        ):
            answer = await deferToThread(greeting, client)
            self.assertTrue(answer.startswith(begin), (client, answer))
        await self.in_log(r"peer=2001:db8:1:1::3 \S+ reason=too-many-connections.*::/64")


class SessionTests(LimitsTestCase):
    async def test_a_user_has_so_many_sessions(self) -> None:
        self.user("joe")
        self.user("jane")
        await self.start_with("sessions:2")
        sessions = [await self.log_in(source) for source in (OFFICE, HOME)]
        other = await self.at(HOME)
        answers = await self.ask(other, b"USER JOE", b"PASS " + PASSWORD.encode())
        self.assertEqual(answers[1], b"-ERR [IN-USE] too many sessions")
        await self.in_log(rf"refused user=JOE peer={HOME} \S+ reason=too-many-sessions")
        await self.log_in(OFFICE, "jane")
        for _ in range(3):
            await self.log_in(TRUSTED)
        await self.ask(sessions[0], b"QUIT")
        await self.log_in(HOME)
        await deferToThread(sessions[1].abort)
        await self.in_log(rf"logout user=joe peer={HOME} .* end=disconnected")
        await self.log_in(OFFICE)

    async def test_time_and_what_is_sent_have_their_limits(self) -> None:
        self.user("joe")
        await self.start_with("command:300", "logins:1", "pipelined:10", "login-time:10")
        silent, slow = await self.at(OFFICE), await self.at(HOME)
        connection = await self.at(OFFICE)
        long_name = b"USER ".ljust(298, b"x")
        answers = await self.ask(connection, long_name, long_name + b"x", b"AUTH PLAIN")
        self.assertEqual(answers[:2], [b"+OK ", b"-ERR line too long"])
        self.assertEqual(await self.ask(connection, b"A" * 13_000), [b"-ERR line too long"])

        def pipelined() -> list[bytes]:
            connection.send(f"USER joe\r\nPASS {PASSWORD}\r\n".encode() + b"NOOP\r\n" * 1000)
            return [connection.line() for _ in range(1002)]

        self.assertEqual(await deferToThread(pipelined), [b"+OK "] * 1002)

        def refused(connection: Conversation) -> bytes:
            connection.send(b"USER joe\r\nPASS wrong\r\nUSER joe\r\n")
            return connection.rest()

        answers_of_one = await converse(self.server.port, refused, source=TRUSTED)
        self.assertEqual(answers_of_one, b"+OK \r\n" + WRONG + b"\r\n")

        # Nobody gains time by what is said before the login, and nobody loses any after it.
        def dawdle() -> bytes:
            with contextlib.suppress(OSError):
                slow.send_slowly(b"NOOP\r\n" * 20, 0.1)
            return silent.rest()

        self.assertEqual(await deferToThread(dawdle), b"")
        for source in (OFFICE, HOME):
            await self.in_log(rf'refused user="" peer={source} \S+ reason=login-time')
        self.assertEqual(await self.ask(connection, b"NOOP"), [b"+OK "])


class GuessesTests(LimitsTestCase):
    async def guess(
        self, source: str, user: str, times: int, server: Pop3Server | None = None
    ) -> None:
        """Give wrong passwords, and do not wait for the answers."""
        where = server or self.server
        line = rf"refused user={user} peer={source} \S+ reason=wrong-credentials"
        for _ in range(times):
            before = where.log.count("reason=wrong-credentials")
            connection = await self.at(source, where.port)
            await deferToThread(connection.send, f"USER {user}\r\nPASS wrong\r\n".encode())
            await self.in_log(rf"(?s)(reason=wrong-credentials.*){{{before}}}{line}", where)
            await deferToThread(connection.hang_up)

    async def answer_to(
        self, source: str, user: str, password: str = PASSWORD, server: Pop3Server | None = None
    ) -> bytes:
        connection = await self.at(source, (server or self.server).port)
        return (await self.ask(connection, f"USER {user}".encode(), f"PASS {password}".encode()))[1]

    async def test_who_guesses_is_not_listened_to(self) -> None:
        self.user("joe")
        self.user("jane")
        await self.start_with("guesses:6", "guesses-per-login:3")
        # A telephone with an old password: its office and its owner at home get their mail.
        await self.guess(OFFICE, "joe", 3)
        self.assertEqual(await self.answer_to(OFFICE, "JOE"), GUESSED)
        self.assertEqual(await self.answer_to(OFFICE, "jane"), b"+OK ")
        self.assertEqual(await self.answer_to(HOME, "joe"), b"+OK ")
        # One who tries whomever there may be.
        for number in range(3):
            await self.guess(OFFICE, f"user{number}", 1)
        # Nobody is asked about the password any more.
        self.slapd.kill()
        self.assertEqual(await self.answer_to(OFFICE, "jane"), GUESSED)
        await self.in_log(
            rf"refused user=jane peer={OFFICE} \S+ reason=too-many-guesses"
            rf' detail="score [56]\.\d, by wrong passwords from {OFFICE}"'
        )
        self.assertNotEqual(await self.answer_to(HOME, "jane"), GUESSED)

    async def test_the_trusted_may_be_wrong(self) -> None:
        self.user("joe")
        await self.start_with("guesses:1", "guesses-per-login:1", "logins:50")

        def many(connection: Conversation) -> list[bytes]:
            return [
                connection.ask(command)
                for _ in range(6)
                for command in (b"USER joe", b"PASS wrong")
            ]

        # Six of them would take others 42 seconds.
        answers = await converse(self.server.port, many, source=TRUSTED)
        self.assertEqual(answers, [b"+OK ", WRONG] * 6)
        self.assertEqual(await self.answer_to(TRUSTED, "joe"), b"+OK ")

    async def test_servers_share_what_they_know_of_guessers(self) -> None:
        self.user("joe")
        file = self.directory / "scores"
        self.slapd = self.new_slapd()
        servers = [
            self.new_server(
                self.slapd.address,
                name,
                control={"pop3limits": "guesses-per-login:2"},
                options=["--guesses", str(file)],
            )
            for name in ("first", "second")
        ]
        first, second = servers
        await self.together(self.slapd.start(), first.start(), second.start())
        await self.guess(OFFICE, "joe", 1, first)
        await self.guess(OFFICE, "joe", 1, second)
        for server in servers:
            self.assertEqual(await self.answer_to(OFFICE, "joe", server=server), GUESSED)
            self.assertEqual(await self.answer_to(HOME, "joe", server=server), b"+OK ")
        # And what one has known, it knows when it comes back.
        await first.stop()
        await first.start()
        self.assertEqual(await self.answer_to(OFFICE, "joe", server=first), GUESSED)

    async def test_a_file_of_something_else_is_left_alone(self) -> None:
        file = self.directory / "scores"
        file.write_text("mail of joe\n")
        server = self.new_server("ldap.invalid", options=["--guesses", str(file)])
        finished = await server.refuse_to_start()
        self.assertEqual(finished.code, 1)
        self.assertIn(f"--guesses {file}: holds something else than scores", finished.text)
        self.assertNotIn("Traceback", finished.text)
        self.assertEqual(file.read_text(), "mail of joe\n")
