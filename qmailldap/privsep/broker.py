"""The broker: the one process of the server that stays root. Meant to be read in one sitting.

It reads no network, no files and no mail. All it does is to fork, when the network process asks
for it over a socket pair:

    k NUMBER UID GID    a keeper, which serves the descriptor sent along, as UID and GID
    p NUMBER            a process that checks one password of a local user, as root; see `shadow`
    f NUMBER            a process that reads one file of those the broker was started with, as root;
                        see `certificate_files`
    c NUMBER            a process that reads all control files, as root, in the directory that the
                        broker was started with, and these certificates; see `control_files`
    d NUMBER            a process that reads which program makes homes, and tells the broker, too
    t NUMBER            nothing: what the process NUMBER has told is heeded from now on
    x NUMBER            nothing: the process NUMBER is to be killed
    e NUMBER            nothing: at the end, children have so many milliseconds for what they do,
                        but no more than the broker was started with

What its children are asked, and answer, never passes through here, but for that one name of a
program, which the broker believes nobody else. Numbers are given by the network
process, which is not trusted: no keeper has a user or group id below 100, whoever asks for one, and
no more children are begun than the bounds below allow. A request that is refused is answered with a
frame on the descriptor it came with.

It ends when the network process does, and takes its children with it. The standard library only;
started as ``python -I -S``, so that nothing else is loaded into a process that is root.
"""

from __future__ import annotations

import array
import gc
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

from qmailldap.privsep import certificate_files, control_files, shadow, wire
from qmailldap.privsep.control_files import ControlFiles
from qmailldap.privsep.giving_up import give_up_root
from qmailldap.privsep.keeper import Keeper

__all__ = [
    "BUSY_LIMIT",
    "CONTROL",
    "HIGHEST_ID",
    "LOWEST_ID",
    "MOST_CHECKS",
    "MOST_READS",
    "MOST_TIME",
    "REQUEST",
    "main",
]

REQUEST = struct.Struct("!cIII")
CONTROL = 3
"""The descriptor of the socket pair's end that the broker is started with."""

LOWEST_ID = 100
HIGHEST_ID = 2**32 - 2
MOST_CHECKS = 8
MOST_READS = 2
"""One file is asked for at a time; the child that read the one before may not quite have ended."""

MOST_OF_AN_OWNER = 4
"""One is in use; others may be about to end, or hang in a file system and cannot be killed."""

BUSY_LIMIT = 10.0
"""Seconds that children have to end what they do when the network process has ended, unless that
has said how many."""

MOST_TIME = 3600.0
"""Seconds that they can ever be given: as many as the server has at the most to end, --grace."""

_LONGEST_WAIT = 60.0
"""Seconds for one call of poll(2), which knows no more than 24 days."""

_LEAVING = 16
"""Keepers beyond the bound that may be there because they have not quite ended."""

_CHILDREN = {
    b"k": "a keeper of uid {uid}",
    b"p": "a password check",
    b"f": "the reading of a certificate",
    b"c": "the reading of control files",
    b"d": "the reading of dirmaker",
}


class _Refused(Exception):
    pass


class _Broker:
    def __init__(
        self,
        control: socket.socket,
        most_keepers: int,
        most_time: float,
        dirmaker: bytes | None,
        files: ControlFiles,
    ) -> None:
        self._control = control
        self._most_time = min(most_time, MOST_TIME)
        self._most = {
            b"k": most_keepers + _LEAVING,
            b"p": MOST_CHECKS,
            **dict.fromkeys((b"f", b"c", b"d"), MOST_READS),
        }
        self._dirmaker = dirmaker
        # Which process has been begun last to read it anew, and the pipe by which it tells.
        self._next_dirmaker: tuple[int, int] | None = None
        self._files = files
        self._time_left: float | None = None
        # By process id: what it was begun as, its number, and whose it is.
        self._children: dict[int, tuple[bytes, int, int, int]] = {}
        # The interpreter writes to it when a child ends, which breaks off waiting for requests.
        self._woken, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Do what is asked until the network process has ended; children end then, too."""
        try:
            self._serve()
        finally:
            self._end_children()

    def _serve(self) -> None:
        events = select.poll()
        events.register(self._control, select.POLLIN)
        events.register(self._woken, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in events.poll()]
            if self._woken in ready:
                self._reap()
            if self._control.fileno() in ready and not self._next_request():
                break

    def _next_request(self) -> bool:
        """False at the end."""
        # Four: more than one is a mistake, and must not go unseen.
        message, ancillary, _, _ = self._control.recvmsg(
            REQUEST.size + 1, socket.CMSG_SPACE(4 * 4), socket.MSG_CMSG_CLOEXEC
        )
        if not message:
            return False
        descriptors = array.array("i")
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(data)
        try:
            self._do(message, descriptors)
        except (_Refused, OSError) as error:
            _complain(f"refused: {error}")
            _refuse(descriptors, str(error))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _do(self, message: bytes, descriptors: array.array[int]) -> None:
        if len(message) != REQUEST.size:
            raise _Refused("a request of the wrong length")
        kind, number, uid, gid = REQUEST.unpack(message)
        if kind == b"x":
            for pid, child in self._children.items():
                if child[1] == number:
                    os.kill(pid, signal.SIGKILL)
            return
        if kind == b"t":
            self._take_dirmaker(number)
            return
        if kind == b"e":
            self._time_left = min(number / 1000, self._most_time)
            return
        if kind not in self._most or len(descriptors) != 1:
            raise _Refused("a request of no known kind")
        if sum(child[0] == kind for child in self._children.values()) >= self._most[kind]:
            raise _Refused("too many such processes are running")
        connection = descriptors[0]
        if not _is_stream(connection):
            raise _Refused("a descriptor that is no end of a stream socket pair")
        if kind == b"p":
            self._fork((kind, number, 0, 0), lambda: shadow.serve(connection))
            return
        if kind == b"f":
            paths = self._files.certificates
            self._fork((kind, number, 0, 0), lambda: certificate_files.serve(connection, paths))
            return
        if kind == b"c":
            self._fork((kind, number, 0, 0), lambda: control_files.serve(connection, self._files))
            return
        if kind == b"d":
            self._read_dirmaker(connection, number)
            return
        if sum(child[2:] == (uid, gid) for child in self._children.values()) >= MOST_OF_AN_OWNER:
            raise _Refused(f"too many keepers of uid {uid} have not ended")
        for each in (uid, gid):
            if not LOWEST_ID <= each <= HIGHEST_ID:
                raise _Refused(f"no keeper has the ids {uid}:{gid}: {LOWEST_ID} is the lowest")
        self._fork((kind, number, uid, gid), lambda: self._keep(connection, uid, gid))

    def _keep(self, connection: int, uid: int, gid: int) -> None:
        """In the child: become the owner, for ever, and serve."""
        give_up_root(uid, gid)
        Keeper(socket.socket(fileno=connection), self._dirmaker).serve()

    def _read_dirmaker(self, connection: int, number: int) -> None:
        heard, told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._forget_dirmaker()
        self._next_dirmaker = number, heard
        try:
            self._fork(
                (b"d", number, 0, 0),
                lambda: control_files.serve_dirmaker(connection, self._files, told),
            )
        finally:
            os.close(told)

    def _take_dirmaker(self, number: int) -> None:
        """Heed what the process of that number has told: once it has answered, that is there."""
        if self._next_dirmaker is None or self._next_dirmaker[0] != number:
            raise _Refused("no such process has read dirmaker")
        said = os.read(self._next_dirmaker[1], control_files.LONGEST_DIRMAKER + 1)
        self._forget_dirmaker()
        if said[:1] != b"=":
            raise _Refused("the process that read dirmaker has told nothing")
        self._dirmaker = said[1:] or None

    def _forget_dirmaker(self) -> None:
        if self._next_dirmaker is not None:
            os.close(self._next_dirmaker[1])
            self._next_dirmaker = None

    def _fork(self, child: tuple[bytes, int, int, int], work: Callable[[], None]) -> None:
        pid = os.fork()
        if pid:
            self._children[pid] = child
            return
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._forget_dirmaker()
            for descriptor in (self._control.detach(), self._woken, self._waker):
                os.close(descriptor)
            work()
            status = 0
        except BaseException:
            _complain(traceback.format_exc())
        finally:
            # Whatever happens, the child must not go on as a second broker.
            os._exit(status)

    def _reap(self) -> None:
        os.read(self._woken, 4096)
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            kind, _, uid, _ = self._children.pop(pid)
            if status:
                what = _CHILDREN[kind].format(uid=uid)
                _complain(f"{what} ended with {os.waitstatus_to_exitcode(status)}")

    def _end_children(self) -> None:
        """Keepers end by themselves when their connections close; one that hangs is killed."""
        limit = BUSY_LIMIT if self._time_left is None else self._time_left
        deadline = time.monotonic() + limit
        try:
            events = select.poll()
            events.register(self._woken, select.POLLIN)
            while self._children and (left := deadline - time.monotonic()) > 0:
                if events.poll(min(left, _LONGEST_WAIT) * 1000):
                    self._reap()
        finally:
            for pid in self._children:
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)


def _is_stream(descriptor: int) -> bool:
    """Nothing else is written to: not the control socket itself, nor somebody's log."""
    try:
        connection = socket.socket(fileno=descriptor)
    except OSError:
        return False
    kind = connection.family, connection.type
    connection.detach()
    return kind == (socket.AF_UNIX, socket.SOCK_STREAM)


def _refuse(descriptors: array.array[int], why: str) -> None:
    for descriptor in filter(_is_stream, descriptors[:1]):
        try:
            # Closed by the caller, also when it is no socket.
            connection = socket.socket(fileno=descriptor)
            try:
                connection.send(wire.frame([b"0", b"refused", why.encode()]), socket.MSG_DONTWAIT)
            finally:
                connection.detach()
        except OSError as error:
            _complain(f"the refusal could not be sent: {error}")


def _complain(text: str) -> None:
    """A line, or a traceback, for the log of the network process; lost when that has ended."""
    with suppress(OSError):
        os.write(sys.stderr.fileno(), f"broker: {text.rstrip()}\n".encode())


def main(arguments: list[str]) -> None:
    """``MOST-KEEPERS MOST-TIME DIRMAKER DIRECTORY NAMES [FILE...]`` are the arguments.

    MOST-TIME is in seconds, DIRMAKER is empty where none is, NAMES are separated by commas.
    """
    most_keepers, most_time, dirmaker, directory, names, *files = arguments
    # A signal that is sent to all processes of the server is the network process's business.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    os.chdir("/")
    # For dirmaker: what is made here has its mode whatever this says.
    os.umask(0o022)
    # What is there now is never freed: otherwise every child would copy it in the search.
    gc.freeze()
    control = socket.socket(fileno=CONTROL)
    named = os.fsencode(dirmaker) or None
    read = ControlFiles(
        os.fsencode(directory),
        [os.fsencode(each) for each in names.split(",") if each and "/" not in each],
        [os.fsencode(each) for each in files],
    )
    _Broker(control, int(most_keepers), float(most_time), named, read).serve()
