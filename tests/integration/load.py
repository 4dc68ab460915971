"""Clients that fetch and delete without pause, and what they were told: it has to be true."""

from __future__ import annotations

import itertools
import threading
import traceback
import zlib
from collections.abc import Mapping

from .clients import Conversation
from .mailboxes import Maildir, as_lines
from .processes import wait_until

__all__ = ["Load"]

_LIMIT = 15.0
"""Seconds that a client waits for an answer."""

_A_SESSION = 3
"""Messages that one session fetches; all but the last it deletes."""

_PAUSE = 0.02
"""Seconds before a client tries again that could not connect."""


_AT_FIRST = 40
"""Messages in each mailbox when it begins; as many as are deleted are delivered anew."""


class _Told(Exception):
    """The server has refused something or hung up; the text says what."""


class Load:
    """Sessions of many users at the server on ``port``, ``sessions`` at a time for each of them.

    ``mailboxes`` are empty as yet; what is in them is delivered from here. ``failures`` is what
    each user was refused, or how often the connection ended: none of it is to happen to whom
    nothing was done.
    """

    def __init__(
        self, port: int, mailboxes: Mapping[str, Maildir], password: str, sessions: int = 2
    ) -> None:
        self._port = port
        self._password = password
        self._mailboxes = mailboxes
        self._sessions = sessions
        self._stopping = threading.Event()
        self._delivering = threading.Lock()
        self._delivered: dict[str, dict[str, bytes]] = {user: {} for user in mailboxes}
        self._asked: dict[str, set[str]] = {user: set() for user in mailboxes}
        self._confirmed: dict[str, set[str]] = {user: set() for user in mailboxes}
        self.failures: dict[str, list[str]] = {user: [] for user in mailboxes}
        self._polls = {user: itertools.count() for user in mailboxes}
        self._done = dict.fromkeys(mailboxes, 0)
        self._subjects = itertools.count()
        # What must not be, whatever happens to the server.
        self._faults: list[str] = []
        self._threads = [
            threading.Thread(target=self._poll_all, args=(user, share), daemon=True)
            for user in mailboxes
            for share in range(sessions)
        ]
        for user in mailboxes:
            for _ in range(_AT_FIRST):
                self._deliver(user)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def polls(self, user: str) -> int:
        """How many sessions of the user went well so far."""
        return self._done[user]

    async def going(self, more: int = 5, *users: str) -> None:
        """Wait until so many more sessions went well, of each of these users or of all."""
        goals = {user: self.polls(user) + more for user in users or self._mailboxes}
        await wait_until(
            lambda: all(self.polls(user) >= goal for user, goal in goals.items()),
            _LIMIT,
            f"sessions of {[*goals]}",
        )

    async def stop(self) -> None:
        """End all sessions, and assert that nothing came that was not mail, as it was delivered."""
        self._stopping.set()
        await wait_until(
            lambda: not any(thread.is_alive() for thread in self._threads),
            2 * _LIMIT,
            "the end of all clients",
        )
        assert not self._faults, "\n".join(self._faults[:3])

    def assert_no_mail_lost(self) -> None:
        """Every message is there, once and whole, or was to be deleted; none is that was deleted.

        Of a session that was told nothing at its QUIT, either may be true.
        """
        for user, maildir in self._mailboxes.items():
            left = maildir.read()
            unique = [_unique(name) for name in left]
            assert len(unique) == len({*unique}), f"{user} has messages twice: {sorted(left)}"
            for name, content in left.items():
                assert content == self._delivered[user][_unique(name)], f"{user}: {name} changed"
            lost = {*self._delivered[user]} - {*unique} - self._asked[user]
            assert not lost, f"{user} has lost {sorted(lost)}"
            back = {*unique} & self._confirmed[user]
            assert not back, f"{user} was told that these are deleted: {sorted(back)}"

    def _poll_all(self, user: str, share: int) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._poll(user, share)
                    self._done[user] = next(self._polls[user]) + 1
                except (_Told, OSError) as told:
                    self.failures[user].append(f"{type(told).__name__}: {told}")
                    self._stopping.wait(_PAUSE)
        except Exception:
            self._faults.append(traceback.format_exc())

    def _poll(self, user: str, share: int) -> None:
        connection = Conversation(self._port, _LIMIT)
        try:
            self._session(connection, user, share)
        finally:
            connection.hang_up()

    def _session(self, connection: Conversation, user: str, share: int) -> None:
        for command in (f"USER {user}", f"PASS {self._password}", "UIDL"):
            _ask(connection, command)
        # A share for each session of the user: none finds gone what another was to fetch.
        rows = [line.decode().split() for line in _lines(connection)]
        mine = [row for row in rows if zlib.crc32(row[1].encode()) % self._sessions == share]
        mine = mine[:_A_SESSION]
        for number, name in mine:
            _ask(connection, f"RETR {number}")
            # Whoever finds a message in the mailbox may not know of its delivery yet.
            with self._delivering:
                content = self._delivered[user][name]
            if _lines(connection) != as_lines(content):
                self._faults.append(f"{user} was served something else for {name}")
        marked = mine[:-1]
        for number, _ in marked:
            _ask(connection, f"DELE {number}")
        self._asked[user].update(name for _, name in marked)
        _ask(connection, "QUIT")
        self._confirmed[user].update(name for _, name in marked)
        for _ in marked:
            self._deliver(user)

    def _deliver(self, user: str) -> None:
        """A message like no other, and sometimes one that is too large for one chunk."""
        number = next(self._subjects)
        content = f"Subject: {number}\n\n".encode()
        content += b"a line of mail\n" * (8_000 if number % 8 == 0 else 20)
        with self._delivering:
            self._delivered[user][self._mailboxes[user].deliver(content)] = content


def _unique(name: str) -> str:
    """The part of a path below the Maildir that stays."""
    return name.split("/")[1].split(":")[0]


def _ask(connection: Conversation, command: str) -> None:
    answer = connection.ask(command.encode())
    if not answer.startswith(b"+OK"):
        raise _Told(f"{command.split()[0]}: {answer.decode() or 'the connection ended'}")


def _lines(connection: Conversation) -> list[bytes]:
    """The lines up to the dot; none of the mail here begins with one."""
    lines = []
    while (line := connection.full_line()) != b".\r\n":
        if not line.endswith(b"\r\n"):
            raise _Told("the connection ended within an answer of many lines")
        lines.append(line[:-2])
    return lines
