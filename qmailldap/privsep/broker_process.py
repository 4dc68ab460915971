"""The broker as the network process sees it: a child process, and a socket pair to ask it by."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.python.failure import Failure

import qmailldap
from qmailldap.loglevel import Log
from qmailldap.printable import printable
from qmailldap.privsep.broker import BUSY_LIMIT, CONTROL, REQUEST
from qmailldap.privsep.channel import Channel, KeeperLost
from qmailldap.raw_files import RawFile, unpack
from qmailldap.threads import Busy

__all__ = ["BrokerProcess"]

_START = (
    "import sys; sys.path.append(sys.argv[1]);"
    " from qmailldap.privsep.broker import main; main(sys.argv[2:])"
)
# What a dynamic loader and programs such as dirmaker need; nothing that changes what Python loads.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ")
_LONGEST_LINE = 8192
_STOP_LIMIT = BUSY_LIMIT + 5.0
"""Seconds, where nobody says how many there are; the broker gives its children less."""

_KILLING = 0.2
"""Seconds that the broker has less than there are, to end when it has killed its children."""

_PAUSE = 0.5
"""Seconds until it is told again what it had no time for."""

_log = Log(namespace="qmailldap.privsep", of_sessions=False)


class BrokerProcess(ProcessProtocol):
    """Starts the broker and asks it for processes.

    ``ended`` is called with a line when it ends without having been asked to: nothing that needs
    its rights can be done then. ``dirmaker`` is the program that makes homes, ``control`` the
    directory and ``names`` the files in it that `read_control` reads, ``files`` are certificates,
    which `read_file` reads one by one; nothing else can be asked for later. ``most_time`` are the
    seconds that `stop` can give the broker.
    """

    def __init__(
        self,
        reactor: Any,
        most_keepers: int,
        dirmaker: str | None,
        ended: Callable[[str], None],
        files: Sequence[str | os.PathLike[str]] = (),
        control: str | os.PathLike[str] = "/",
        names: Sequence[str] = (),
        most_time: float = BUSY_LIMIT,
    ) -> None:
        self._reactor = reactor
        # It has a working directory of its own. (With "..", that of a link is another's parent.)
        directory = str(Path(control).absolute())
        self._files = [os.path.abspath(each) for each in files]
        self._count = len(names) + len(self._files)
        self._arguments = [
            *(str(most_keepers), str(most_time), dirmaker or "", directory, ",".join(names)),
            *self._files,
        ]
        self._retaking: IDelayedCall | None = None
        self._ended = ended
        self._numbers = itertools.count(1)
        self._control: socket.socket | None = None
        self._unfinished_line = b""
        self._stopping: Deferred[None] | None = None
        self._running = False

    def start(self) -> None:
        """To be called as root. Raises ``OSError`` when there can be no such process."""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        package = Path(qmailldap.__file__).resolve().parent
        command = [sys.executable, "-I", "-S", "-c", _START, str(package.parent), *self._arguments]
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        with theirs, open(os.devnull, "rb") as nothing:
            self._reactor.spawnProcess(
                self,
                sys.executable,
                command,
                environment,
                "/",
                childFDs={0: nothing.fileno(), 1: "r", 2: "r", CONTROL: theirs.fileno()},
            )
        self._running = True

    @property
    def is_running(self) -> bool:
        return self._running

    def stop(self, limit: float | None = None) -> Deferred[None]:
        """Let it end, which takes a while if its children are at work; fires when it has.

        That is after ``limit`` seconds at most.
        """
        if not self._running or self._control is None:
            return succeed(None)
        if self._retaking is not None and self._retaking.active():
            self._retaking.cancel()
        if self._stopping is None:
            if limit is not None:
                self._tell_limit(limit)
            self._stopping = Deferred()
            self._control.close()
            waited = _STOP_LIMIT if limit is None else limit
            self._stopping.addTimeout(waited, self._reactor)
            self._stopping.addErrback(self._still_there, waited)
        return self._stopping

    def open_channel(
        self, kind: bytes, uid: int, gid: int, lost: Callable[[Channel, bool], None]
    ) -> tuple[Channel, int]:
        """A channel to a new process of a kind that `broker` knows, and the process's number.

        It can be asked at once; whether there is such a process, its answers tell. Raises `Busy`
        and ``OSError``.
        """
        number = next(self._numbers)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._request(kind, number, uid, gid, [theirs.fileno()])
            ours.setblocking(False)
            channel = Channel(self._reactor, lost)
            self._reactor.adoptStreamConnection(
                ours.fileno(), socket.AF_UNIX, _ChannelFactory(channel)
            )
        return channel, number

    def kill(self, number: int) -> None:
        """End a process that hangs. Raises `Busy`."""
        self._request(b"x", number, 0, 0, [])

    async def check_password(self, login: bytes, password: bytes) -> str:
        """As `qmailldap.privsep.shadow.check`. Raises `Busy`, and ``OSError`` when it fails."""
        channel, _ = self.open_channel(b"p", 0, 0, lambda *_: None)
        try:
            answer = await channel.ask(b"check", login, password)
        finally:
            channel.close()
        word = b" ".join(answer.fields)
        if word not in (b"yes", b"no", b"unknown"):
            raise OSError(errno.EIO, "the password check gave no answer")
        return word.decode("ascii")

    async def read_file(self, number: int) -> bytes:
        """What is now in the file of that number among ``files``, from 0, read as root.

        At most `certificate_files.MOST_OCTETS`. Raises `Busy`, and ``OSError`` when it fails.
        """
        fields, _ = await self._read(b"f", b"%d" % number)
        if len(fields) != 1:
            raise OSError(errno.EIO, "what was read is no file")
        return fields[0]

    async def read_control(self) -> list[RawFile]:
        """What is now in all control files, in the order of ``names``, and then in ``files``.

        Raises `Busy`, and ``OSError`` when it fails, as where there is no such directory.
        """
        fields, _ = await self._read(b"c")
        if len(fields) != self._count:
            raise OSError(errno.EIO, "what was read are no control files")
        try:
            return [unpack(field) for field in fields]
        except ValueError:
            raise OSError(errno.EIO, "what was read are no control files") from None

    async def read_dirmaker(self) -> tuple[int, bytes]:
        """What the control file dirmaker says now, empty for nothing; and a number for it.

        The broker has read it itself, and heeds it when `take_dirmaker` is given that number, of
        the last reading only. Raises `Busy`, and ``OSError`` when it fails.
        """
        fields, number = await self._read(b"d")
        if len(fields) != 1:
            raise OSError(errno.EIO, "what was read is no name of a program")
        return number, fields[0]

    def take_dirmaker(self, number: int, taken: Callable[[], None] = lambda: None) -> None:
        """Have keepers make homes by what was read: those begun after ``taken`` was called."""
        try:
            self._request(b"t", number, 0, 0, [])
        except Busy:
            if self._running and self._stopping is None:
                # It has much to do; meanwhile keepers have the program from before.
                self._retaking = self._reactor.callLater(_PAUSE, self.take_dirmaker, number, taken)
        else:
            taken()

    async def _read(self, kind: bytes, *which: bytes) -> tuple[list[bytes], int]:
        """What a process that reads files answers, and its number."""
        channel, number = self.open_channel(kind, 0, 0, lambda *_: None)
        try:
            answer = await channel.ask(b"read", *which)
        except KeeperLost:
            raise OSError(errno.EIO, "the process that reads it was lost") from None
        finally:
            channel.close()
        return answer.fields, number

    def _request(
        self, kind: bytes, number: int, uid: int, gid: int, descriptors: list[int]
    ) -> None:
        if not self._running or self._control is None or self._stopping is not None:
            raise Busy("the server is being stopped")
        message = REQUEST.pack(kind, number % 2**32, uid, gid)
        try:
            socket.send_fds(self._control, [message], descriptors)
        except BlockingIOError:
            raise Busy("the broker has too much to do") from None

    def outReceived(self, data: bytes) -> None:
        self.errReceived(data)

    def errReceived(self, data: bytes) -> None:
        """What the broker and its children complain of, a line each."""
        *lines, self._unfinished_line = (self._unfinished_line + data).split(b"\n")
        for line in lines:
            _log.warn("broker said={line}", line=printable(line[:_LONGEST_LINE]))
        self._unfinished_line = self._unfinished_line[-_LONGEST_LINE:]

    def processExited(self, reason: Failure) -> None:
        # Told of at once: its output, which ends later, is that of the keepers, too.
        self._running = False
        if self._stopping is None:
            ended: Any = reason.value
            how = f"signal {ended.signal}" if ended.signal else f"exit code {ended.exitCode}"
            self._ended(f"the broker has ended with {how}")

    def processEnded(self, reason: Failure) -> None:
        if self._stopping is not None and not self._stopping.called:
            self._stopping.callback(None)

    def _tell_limit(self, limit: float) -> None:
        """Have it end its children in time. Where it cannot be told, it takes the time it takes."""
        with suppress(Busy, OSError):
            milliseconds = round(max(0.0, limit - _KILLING) * 1000)
            self._request(b"e", milliseconds, 0, 0, [])

    def _still_there(self, failure: Failure, limit: float) -> None:
        failure.trap(TimeoutError)
        _log.warn("broker did not end within {limit:.0f} s", limit=limit)


class _ChannelFactory(Factory):
    noisy = False

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def buildProtocol(self, addr: IAddress | None) -> Channel:
        return self._channel
