"""auth_pop driven as qmail-popup does: a child with a pipe on descriptor 3, a client on 0 and 1.

Source: qmail-popup.c, and tcpserver's documentation for the variables. One thing is done better:
not an octet is read beyond the line of PASS, so that a test can tell whether auth_pop does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .ports import HOST
from .process_table import living_processes
from .processes import WITH_US

__all__ = ["ANSWERS", "AUTH_POP", "Login", "Popup", "handed_over", "said_by_popup"]

AUTH_POP = [sys.executable, "-c", "from qmailldap.commands.auth_pop import main; exit(main())"]
"""The auth_pop of this interpreter, installed as a script or not."""

GREETING = b"+OK <4711.1700000000@mail.example.org>"

ANSWERS = {
    1: "error in server configuration",
    2: "unable to contact authorization server",
    25: "user record incorrect",
    3: "authorization failed",
    4: "account disabled",
    5: "mailhost is unreachable",
    6: "mailbox is corrupted",
    61: "mailbox could not be created",
    62: "the users mailbox does not exist",
    7: "unable to start subprogram",
    8: "out of memory",
}

_LIMIT = 45.0
"""Seconds that an auth_pop and its subprogram may take, and a client between two octets."""

_POLL_INTERVAL = 0.005


def said_by_popup(code: int) -> bytes:
    """What qmail-popup says to the client when its child has ended; nothing after success."""
    if code == 0:
        return b""
    if code < 0:
        return b"-ERR aack, child crashed\r\n"
    return b"-ERR %b\r\n" % ANSWERS.get(code, "temporary error").encode()


def handed_over(user: str | bytes, password: str | bytes) -> bytes:
    """What qmail-popup writes to descriptor 3."""
    fields = [each if isinstance(each, bytes) else each.encode() for each in (user, password)]
    return b"".join(each + b"\0" for each in (*fields, GREETING.split()[1]))


class Login:
    """One auth_pop, from its start to its end; the subprogram that takes its place is the same.

    ``handed`` is what it finds on descriptor 3, which is closed if that is None. ``descriptors``
    are those that it has, by number, each a copy of one of this process; its standard error goes to
    the file ``errors``. It leads a process group of its own, and ends with this process.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        handed: bytes | None,
        descriptors: Mapping[int, int],
        errors: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.user = (handed or b"").partition(b"\0")[0].decode("utf-8", "replace")
        self.code: int | None = None
        self._errors = errors
        self._lock = threading.Lock()
        written = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        reader, writer = os.pipe()
        # Numbers above all that they are copied to; the copies alone outlive the start.
        wanted = {**descriptors, 2: written, **({} if handed is None else {3: reader})}
        sources = {
            number: fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 50)
            for number, descriptor in wanted.items()
        }
        command = [*WITH_US, *arguments]
        try:
            self.pid = os.posix_spawnp(
                command[0],
                command,
                environment,
                file_actions=[
                    *((os.POSIX_SPAWN_CLOSE, each) for each in _inheritable()),
                    *((os.POSIX_SPAWN_DUP2, sources[each], each) for each in sources),
                ],
                setpgroup=0,
                # What Python ignores, and whoever it starts would then.
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
        finally:
            for descriptor in (*sources.values(), written, reader):
                os.close(descriptor)
        with open(writer, "wb", buffering=0) as pipe, contextlib.suppress(BrokenPipeError):
            pipe.write(handed or b"")

    @property
    def errors(self) -> str:
        """All that it, and what it has run, has written to standard error."""
        return self._errors.read_text("utf-8", "replace")

    @property
    def name(self) -> str:
        """What the program is called that now runs."""
        return Path(f"/proc/{self.pid}/comm").read_text().rstrip("\n")

    def has_ended(self) -> bool:
        with self._lock:
            if self.code is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.code = os.waitstatus_to_exitcode(status)
            return self.code is not None

    def wait(self, limit: float = _LIMIT) -> int:
        """Wait for its end, blocking; gives the exit code. Kills it when that takes too long."""
        deadline = time.monotonic() + limit
        while not self.has_ended():
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"auth_pop for {self.user} took {limit} s\n{self.errors}")
            time.sleep(_POLL_INTERVAL)
        assert self.code is not None
        return self.code

    def kill(self) -> None:
        """End all of its group, at once. Harmless when nothing is left."""
        if not self.has_ended() or self.is_left_over():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        while not self.has_ended():
            time.sleep(_POLL_INTERVAL)

    def is_left_over(self) -> bool:
        """Whether any process of its group is alive."""
        return bool(living_processes(self.pid))


class Popup:
    """tcpserver and qmail-popup: listens on a loopback port until it is closed.

    Each client that logs in gets an auth_pop of its own, run with ``arguments``. ``logins`` are all
    of these, those of `start` too, in order; ``faults`` are what has gone wrong here.
    """

    def __init__(
        self, directory: Path, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        self.logins: list[Login] = []
        self.faults: list[str] = []
        self._directory = directory
        self._arguments = arguments
        self._environment = environment
        self._threads: list[threading.Thread] = []
        self._listening = socket.create_server((HOST, 0), backlog=50)
        self.port: int = self._listening.getsockname()[1]
        self._begin(self._accept)

    def start(
        self,
        handed: bytes | None,
        descriptors: Mapping[int, int],
        variables: Mapping[str, str] | None = None,
    ) -> Login:
        """Run auth_pop with these descriptors, which stay open here too."""
        login = Login(
            self._arguments,
            handed,
            descriptors,
            self._directory / f"errors-{len(self.logins)}",
            {**self._environment, **(variables or {})},
        )
        self.logins.append(login)
        return login

    def login_of(self, user: str) -> Login:
        """The last one of that user."""
        return [login for login in self.logins if login.user == user][-1]

    def close(self) -> None:
        """End everything at once; blocks until that is done."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for login in self.logins:
            login.kill()
        for thread in self._threads:
            thread.join(_LIMIT)

    def _begin(self, function: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, (host, port) = self._listening.accept()
            except OSError:
                return
            near = connection.getsockname()
            variables = {
                "PROTO": "TCP",
                "TCPLOCALIP": near[0],
                "TCPLOCALPORT": str(near[1]),
                "TCPREMOTEIP": host,
                "TCPREMOTEPORT": str(port),
            }
            self._begin(self._serve, connection, variables)

    def _serve(self, connection: socket.socket, variables: Mapping[str, str]) -> None:
        connection.settimeout(_LIMIT)
        try:
            self._converse(connection, variables)
        except OSError:
            pass  # the client has left
        except Exception:
            self.faults.append(traceback.format_exc())
        finally:
            connection.close()

    def _converse(self, connection: socket.socket, variables: Mapping[str, str]) -> None:
        connection.sendall(GREETING + b"\r\n")
        user = b""
        while line := _line(connection):
            verb, _, argument = line.partition(b" ")
            if verb.upper() == b"USER" and argument:
                user = argument
                connection.sendall(b"+OK \r\n")
            elif verb.upper() == b"PASS" and user and argument:
                self._log_in(handed_over(user, argument), connection, variables)
                return
            else:
                connection.sendall(b"-ERR authorization first\r\n")

    def _log_in(
        self, handed: bytes, connection: socket.socket, variables: Mapping[str, str]
    ) -> None:
        # The child's, too: what is set on a socket is set for all who have it.
        connection.settimeout(None)
        descriptor = connection.fileno()
        login = self.start(handed, {0: descriptor, 1: descriptor}, variables)
        answer = said_by_popup(login.wait())
        connection.settimeout(_LIMIT)
        connection.sendall(answer)
        # With octets unread, which qmail-popup would have in its buffer, closing would be a reset
        # that may overtake the answer.
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


def _inheritable() -> list[int]:
    """Descriptors that a child would have, from whoever runs the tests."""
    found = []
    for each in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # it is closed by now
            if os.get_inheritable(each):
                found.append(each)
    return found


def _line(connection: socket.socket) -> bytes:
    """The next line without its end, and nothing of what follows; ``b""`` when there is none."""
    line = b""
    while not line.endswith(b"\n"):
        octet = connection.recv(1)
        if not octet:
            return b""
        line += octet
    return line.rstrip(b"\r\n")
