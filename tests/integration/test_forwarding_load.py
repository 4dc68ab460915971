"""Many forwarded sessions at once, and a large message to a client that is slow to read it."""

from __future__ import annotations

import hashlib
import statistics
import threading
import time
from collections.abc import Iterable

from twisted.internet.threads import deferToThread

from .clients import Conversation
from .cluster import ClusterTestCase, mail_host
from .mailboxes import MESSAGES, stuffed
from .process_table import resident
from .site import PASSWORD

USERS = 50
SESSIONS = 10
"""Of each user, all open at the same time."""

MEGABYTE = 2**20
LARGE = 100
"""Megabytes of the large message, about."""

RATE = MEGABYTE
"""Octets a second at which its client reads."""

MEMORY = 40 * MEGABYTE
"""Octets by which the front may grow, whatever is asked of it."""

LINE = b"Fifty-nine characters and a newline are a line of this mail.\n"


class SlowReader:
    """A client that fetches one message, slowly until it is told to `hurry`."""

    def __init__(self, connection: Conversation) -> None:
        self.octets = 0
        self.digest = hashlib.sha256()
        self._connection = connection
        self._hurrying = threading.Event()

    def hurry(self) -> None:
        self._hurrying.set()

    def read(self, size: int) -> None:
        """Read the message, which has so many octets."""
        while self.octets < size:
            chunk = self._connection.read_some(min(RATE // 20, size - self.octets))
            if not chunk:
                return
            self.octets += len(chunk)
            self.digest.update(chunk)
            self._hurrying.wait(1 / 20)


class LoadTests(ClusterTestCase):
    timeout = 120

    async def test_five_hundred_sessions_stay_quick_while_one_client_reads_slowly(self) -> None:
        content = b"Subject: large\n\n" + LINE * (LARGE * MEGABYTE // len(LINE))
        self.user("joe", messages=[content], mailHost=mail_host(2))
        expected = b"+OK \r\n" + content.replace(b"\n", b"\r\n") + b".\r\n"
        size, digest = len(expected), hashlib.sha256(expected).hexdigest()
        del content, expected
        small = MESSAGES["dots"]
        users = [f"user{number}" for number in range(USERS)]
        for user in users:
            self.user(user, messages=[small], mailHost=mail_host(2))
        # All of them come from here.
        await self.start_cluster(2, {"pop3limits": "connections-per-address:0"})
        front = self.members[1].network.pid
        self.assertEqual(await self.refusal_of("user0"), "accepted")
        before = resident(front)

        sessions = await deferToThread(self.log_in_all, users)
        large = await self.connect_to(1)
        await deferToThread(large.log_in, "joe", PASSWORD)
        reader = SlowReader(large)
        await deferToThread(large.send, b"RETR 1\r\n")
        read = deferToThread(reader.read, size)

        stat = b"+OK 1 %d\r\n" % len(small)
        message = b"+OK \r\n" + b"\r\n".join([*stuffed(small), b".", b""])
        most = 0
        for command, answer in ((b"STAT\r\n", stat), (b"RETR 1\r\n", message)):
            waited = await deferToThread(self.ask_each, sessions, command, answer)
            self.assertLess(statistics.median(waited), 0.05)
            self.assertLess(max(waited), 1)
            begun = time.monotonic()
            await deferToThread(self.ask_all, sessions, command * 10, answer * 10)
            self.assertLess(time.monotonic() - begun, 10)
            most = max(most, resident(front))
        self.assertLess(reader.octets, size // 2, "the slow client was not slow")
        self.assertFalse(read.called)
        reader.hurry()
        await read
        most = max(most, resident(front))
        self.assertEqual((reader.octets, reader.digest.hexdigest()), (size, digest))
        self.assertLess(most - before, MEMORY)
        await deferToThread(self.ask_all, sessions, b"QUIT\r\n", b"+OK \r\n")

    def log_in_all(self, users: Iterable[str]) -> list[Conversation]:
        """Sessions of all users, those of different ones at the same time."""
        sessions: list[Conversation] = []
        for _ in range(SESSIONS):
            logins = [(user, Conversation(self.port)) for user in users]
            for user, connection in logins:
                self.addCleanup(connection.hang_up)
                connection.send(f"USER {user}\r\nPASS {PASSWORD}\r\n".encode())
            for user, connection in logins:
                self.assertEqual([connection.line() for _ in range(2)], [b"+OK "] * 2, user)
                sessions.append(connection)
        return sessions

    def ask_each(self, sessions: list[Conversation], command: bytes, answer: bytes) -> list[float]:
        """One after the other; gives the seconds that each has waited."""
        waited = []
        for connection in sessions:
            begun = time.monotonic()
            connection.send(command)
            self.assertEqual(connection.read_some(len(answer)), answer)
            waited.append(time.monotonic() - begun)
        return waited

    def ask_all(self, sessions: list[Conversation], command: bytes, answer: bytes) -> None:
        """All at the same time."""
        for connection in sessions:
            connection.send(command)
        for connection in sessions:
            self.assertEqual(connection.read_some(len(answer)), answer)
