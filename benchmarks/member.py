"""A member that costs next to nothing: POP3 of mail that is ready to be sent, in memory.

Behind it, what is measured is the front. It knows the users and passwords of `benchmarks.mail`, so
a front that logs in as somebody else, or with another password, does not get the answers that the
load generator wants. One thread, one epoll; whoever does not read is not written to.

Run as ``python -m benchmarks.member PORT``.
"""

from __future__ import annotations

import functools
import select
import socket
import sys

import attrs

from benchmarks.mail import PASSWORD, mailbox, number_of, on_the_wire

__all__: list[str] = []

_HOST = "127.0.0.1"
_BACKLOG = 1024
_LONGEST_LINE = 512
_GREETING = b"+OK <1.2@member>\r\n"
_DONE = b"+OK\r\n"
_NO = b"-ERR no\r\n"


@attrs.frozen
class _Mailbox:
    """The answers to STAT and to RETR of each message."""

    status: bytes
    messages: tuple[bytes, ...]


@functools.cache
def _mailbox(user: str) -> _Mailbox:
    """Raises ValueError for what is no login of this measurement."""
    messages = [on_the_wire(text) for text in mailbox(*number_of(user))]
    return _Mailbox(
        b"+OK %d %d\r\n" % (len(messages), sum(map(len, messages))),
        tuple(b"+OK %d octets\r\n%b.\r\n" % (len(text), text) for text in messages),
    )


class _Session:
    """One connection; ``events`` of epoll are what it waits for, 0 when it is over."""

    __slots__ = ("_ending", "_mailbox", "_received", "_unsent", "_user", "connection", "events")

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.events = select.EPOLLIN
        self._received = b""
        self._user = ""
        self._mailbox: _Mailbox | None = None
        self._ending = False
        self._unsent = memoryview(b"")
        connection.send(_GREETING)

    def go_on(self) -> int:
        """Read or write; gives the events to wait for next."""
        if not self._unsent:
            data = self.connection.recv(4096)
            if not data:
                return 0
            data = self._received + data
            *lines, self._received = data.split(b"\r\n")
            if len(self._received) > _LONGEST_LINE:
                return 0
            # One write for all commands that came at once.
            answers = [self._answer(line) for line in lines]
            self._unsent = memoryview(answers[0] if len(answers) == 1 else b"".join(answers))
        try:
            self._unsent = self._unsent[self.connection.send(self._unsent) :]
        except BlockingIOError:
            return select.EPOLLOUT
        if self._unsent:
            return select.EPOLLOUT
        return 0 if self._ending else select.EPOLLIN

    def _answer(self, line: bytes) -> bytes:
        command, _, argument = line.partition(b" ")
        if command == b"RETR" and self._mailbox:
            return self._mailbox.messages[int(argument) - 1]
        if command == b"STAT" and self._mailbox:
            return self._mailbox.status
        if command == b"USER":
            self._user = argument.decode()
            return _DONE
        if command == b"PASS" and argument.decode() == PASSWORD:
            self._mailbox = _mailbox(self._user)
            return _DONE
        self._ending = command in (b"QUIT", b"PASS")
        return _DONE if command == b"QUIT" else _NO


def serve(port: int) -> None:
    """Serve until the process is ended."""
    sessions: dict[int, _Session] = {}
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Accepted connections inherit it: no answer waits for the acknowledgement of another.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening.bind((_HOST, port))
    listening.listen(_BACKLOG)
    listening.setblocking(False)
    with select.epoll() as epoll:
        epoll.register(listening, select.EPOLLIN)
        while True:
            for number, _ in epoll.poll():
                session = sessions.get(number)
                if session is None:
                    try:
                        connection, _ = listening.accept()
                    except OSError:
                        continue
                    connection.setblocking(False)
                    try:
                        sessions[connection.fileno()] = _Session(connection)
                    except OSError:
                        continue
                    epoll.register(connection, sessions[connection.fileno()].events)
                    continue
                try:
                    events = session.go_on()
                except (OSError, ValueError, IndexError):
                    events = 0
                if not events:
                    sessions.pop(number).connection.close()
                elif events != session.events:
                    session.events = events
                    epoll.modify(number, events)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
