"""Mail programs that log in at the server: poplib, curl, fetchmail, and a bare socket."""

from __future__ import annotations

import os
import poplib
import shutil
import socket
import ssl
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import attrs
from twisted.internet.threads import deferToThread

from .ports import HOST
from .processes import Finished, run

__all__ = [
    "Conversation",
    "FetchedMail",
    "converse",
    "curl",
    "fetchmail",
    "in_session",
    "login",
    "refusal_of",
    "refuse_or_accept",
]

T = TypeVar("T")

LIMIT = 20.0
"""Seconds that a client waits for one answer, and a program may take."""

# Lines of real mail are longer than poplib wants to know of.
poplib._MAXLINE = 100_000  # type: ignore[attr-defined]


def login(
    port: int, user: str, password: str, limit: float = LIMIT, *, host: str = HOST
) -> poplib.POP3:
    """Log in, blocking. Raises ``poplib.error_proto`` with the server's answer if refused."""
    pop = poplib.POP3(host, port, timeout=limit)
    try:
        pop.encoding = "UTF-8"
        pop.user(user)
        pop.pass_(password)
    except BaseException:
        pop.close()
        raise
    return pop


async def in_session(
    port: int, user: str, password: str, function: Callable[[poplib.POP3], T], *, host: str = HOST
) -> T:
    """Log in and call ``function`` in a thread.

    The connection is closed afterwards without a QUIT, unless the function has said it.
    """

    def session() -> T:
        pop = login(port, user, password, host=host)
        try:
            return function(pop)
        finally:
            pop.close()

    return await deferToThread(session)


def refuse_or_accept(port: int, user: str, password: str, host: str = HOST) -> str:
    """Try a login, blocking: "accepted", or the text with which it is refused."""
    try:
        pop = login(port, user, password, host=host)
    except poplib.error_proto as error:
        answer: bytes = error.args[0]
        return answer.decode("utf-8", "replace")
    pop.close()
    return "accepted"


async def refusal_of(port: int, user: str, password: str, host: str = HOST) -> str:
    """As `refuse_or_accept`, in a thread."""
    return await deferToThread(refuse_or_accept, port, user, password, host)


class Conversation:
    """A bare, blocking connection: what is sent and what comes back, octet by octet.

    With a small ``receive_buffer``, in octets, the server soon notices that nothing is read.
    ``source`` is the address that the client has, by default the one that the system gives it.
    ``first`` is sent before all else, as a proxy does.
    """

    def __init__(
        self,
        port: int,
        limit: float = LIMIT,
        receive_buffer: int = 0,
        *,
        host: str = HOST,
        source: str = "",
        first: bytes = b"",
    ) -> None:
        self._socket = socket.socket()
        self._socket.settimeout(limit)
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            self._socket.bind((source, 0))
        self._socket.connect((host, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = self._socket.makefile("rb")
        self._socket.sendall(first)
        self.greeting = self.line()

    def set_limit(self, limit: float) -> None:
        """Seconds that sending and receiving may take from now on."""
        self._socket.settimeout(limit)

    def send(self, octets: bytes) -> None:
        self._socket.sendall(octets)

    def send_slowly(self, octets: bytes, pause: float) -> None:
        """One octet a packet."""
        for octet in octets:
            self.send(bytes([octet]))
            time.sleep(pause)

    def line(self) -> bytes:
        """The next line without its end; ``b""`` when the server has closed."""
        return self.full_line().rstrip(b"\r\n")

    def full_line(self) -> bytes:
        """The next line with its end, which is missing where the server closed within it."""
        return self._received.readline()

    def ask(self, command: bytes) -> bytes:
        """Send a command; gives the one line of the answer."""
        self.send(command + b"\r\n")
        return self.line()

    def listing(self) -> list[bytes]:
        """The lines up to the dot, with the dots that were added."""
        lines: list[bytes] = []
        while (line := self.line()) != b".":
            if not line and not self._received.peek(1):
                raise AssertionError(f"the connection ended within a listing, after {lines[-3:]}")
            lines.append(line)
        return lines

    def log_in(self, user: str, password: str) -> None:
        for command in (f"USER {user}", f"PASS {password}"):
            answer = self.ask(command.encode())
            assert answer.startswith(b"+OK"), (command.split()[0], answer)

    def read_some(self, count: int) -> bytes:
        """Exactly ``count`` octets, fewer at the end of the connection."""
        return self._received.read(count)

    def rest(self) -> bytes:
        """Everything up to the end of the connection, however the server ends it."""
        received = bytearray()
        try:
            while chunk := self._received.read1():
                received += chunk
        except ConnectionResetError:
            pass
        return bytes(received)

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on."""
        self._socket = context.wrap_socket(self._socket, server_hostname=HOST)
        self._received = self._socket.makefile("rb")

    def half_close(self) -> None:
        """Send no more, but go on listening."""
        self._socket.shutdown(socket.SHUT_WR)

    def hang_up(self) -> None:
        """Close in order; the server finds the end of the stream."""
        self._received.close()
        self._socket.close()

    def abort(self) -> None:
        """Close with a reset, as a crashed or rebooted client does."""
        linger = struct.pack("ii", 1, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.hang_up()


async def converse(
    port: int, function: Callable[[Conversation], T], *, host: str = HOST, source: str = ""
) -> T:
    """Connect and call ``function`` in a thread; the connection is closed afterwards."""

    def conversation() -> T:
        connection = Conversation(port, host=host, source=source)
        try:
            return function(connection)
        finally:
            connection.hang_up()

    return await deferToThread(conversation)


async def curl(
    port: int, user: str, password: str, path: str = "", *options: str, scheme: str = "pop3"
) -> Finished:
    """Run curl on ``pop3://…/path``."""
    url = f"{scheme}://{HOST}:{port}/{path}"
    credentials = ("--user", f"{user}:{password}")
    return await run(
        [_program("curl"), "--disable", "--silent", "--show-error", *credentials, *options, url],
        LIMIT,
    )


@attrs.frozen
class FetchedMail:
    """How fetchmail ended, and the messages that it delivered, in order."""

    finished: Finished
    messages: list[bytes]


async def fetchmail(
    directory: Path,
    port: int,
    user: str,
    password: str,
    *keywords: str,
    security: str = "sslproto ''",
) -> FetchedMail:
    """Run fetchmail once; ``keywords`` are options of a user, such as ``keep`` or ``fetchall``.
    ``security`` are those about TLS; by default there is none.

    Called again with the same directory it remembers which messages it has seen.
    """
    directory.mkdir(exist_ok=True)
    delivered = directory / "delivered"
    shutil.rmtree(delivered, ignore_errors=True)
    delivered.mkdir()
    agent = directory / "deliver"
    agent.write_text(f'#!/bin/sh\nexec cat > "$(mktemp {delivered}/$(date +%s.%N).XXXXXX)"\n')
    agent.chmod(0o700)
    settings = directory / "fetchmailrc"
    settings.write_text(
        # Not a header of its own.
        "set invisible\nset no bouncemail\n"
        f"poll {HOST} protocol POP3 service {port} uidl auth password\n"
        f'  user "{user}" password "{password}" mda "{agent}" no rewrite no dropstatus\n'
        f"  {security} {' '.join(keywords)}\n"
    )
    settings.chmod(0o600)
    finished = await run(
        [
            _program("fetchmail"),
            *("--fetchmailrc", str(settings)),
            *("--idfile", str(directory / "seen")),
            *("--pidfile", str(directory / "pid")),
            *("--nodetach", "--nosyslog", "--verbose"),
        ],
        LIMIT,
        environment={**os.environ, "HOME": str(directory), "LC_ALL": "C"},
    )
    messages = [path.read_bytes() for path in sorted(delivered.iterdir())]
    return FetchedMail(finished, messages)


def _program(name: str) -> str:
    """The path of a mail program. Without it these tests fail: they prove nothing then."""
    path = shutil.which(name)
    if path is None:
        raise AssertionError(f"{name} not found; install it with: apt-get install {name}")
    return path
