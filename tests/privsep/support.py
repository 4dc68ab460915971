"""Keepers and a broker for the tests: fakes of what the network process sees, and real ones."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone

import qmailldap
from qmailldap.maildir.work import Place
from qmailldap.privsep import wire
from qmailldap.privsep.broker import CONTROL, REQUEST
from qmailldap.privsep.channel import Channel
from qmailldap.privsep.keeper import Keeper
from qmailldap.privsep.kept_hands import Owner

TIME_LIMIT = 20.0
"""Seconds for what takes none."""

PACKAGE = str(Path(qmailldap.__file__).resolve().parent.parent)


def until(condition: Callable[[], Any], what: str = "") -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + TIME_LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what or condition}"
        time.sleep(0.005)


def place_of(maildir: Path) -> Place:
    """The place of a Maildir whose parent is the home."""
    path = maildir.absolute()
    return Place(os.fsencode(path.parent), os.fsencode(path), b"./" + os.fsencode(path.name))


class FakeTransport:
    """What a channel writes to; nothing is closed of itself."""

    def __init__(self) -> None:
        self.written = b""
        self.half_closed = False
        self.aborted = False

    def writeSequence(self, parts: Sequence[bytes]) -> None:
        assert not self.half_closed, "written to after it was closed"
        if not self.aborted:
            self.written += b"".join(parts)

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def abortConnection(self) -> None:
        self.aborted = True

    def frames(self) -> list[list[bytes]]:
        """All that was asked, each as the fields of its frame."""
        frames = []
        left = self.written
        while left:
            end = 4 + int.from_bytes(left[:4], "big")
            frames.append(wire.fields_of(left[4:end]))
            left = left[end:]
        return frames


class FakeKeeper:
    """The other end of a channel, run by the test."""

    def __init__(self, owner: Owner, number: int, channel: Channel) -> None:
        self.owner = owner
        self.number = number
        self.channel = channel
        self.transport = FakeTransport()
        self.runs = True
        self._answered = 0
        channel.makeConnection(self.transport)

    def heard(self) -> list[list[bytes]]:
        """All that it was asked and told, without the numbers."""
        return [fields for _, *fields in self.transport.frames()]

    def awaited(self) -> list[list[bytes]]:
        """The frames that it has not answered; what it was only told is none."""
        asked = [frame for frame in self.transport.frames() if frame[0] != b"0"]
        return asked[self._answered :]

    def answer(self, *fields: bytes, outcome: bytes = b"ok", files: bytes = b"0") -> None:
        """Answer the oldest question."""
        number = self.awaited()[0][0]
        self._answered += 1
        before = [number, outcome, files] if outcome == b"ok" else [number, outcome]
        self.channel.dataReceived(wire.frame([*before, *fields]))

    def end(self) -> None:
        self.runs = False
        self.channel.connectionLost(connectionDone)


class FakeStarter:
    """A broker whose keepers the test runs; ``fault`` is raised instead, while there is one."""

    def __init__(self, clock: IReactorTime) -> None:
        self.started: list[FakeKeeper] = []
        self.killed: list[int] = []
        self.fault: Exception | None = None
        self._clock = clock

    def open_channel(
        self, kind: bytes, uid: int, gid: int, lost: Callable[[Channel, bool], None]
    ) -> tuple[Channel, int]:
        assert kind == b"k"
        if self.fault is not None:
            raise self.fault
        number = len(self.started) + 1
        keeper = FakeKeeper((uid, gid), number, Channel(self._clock, lost))
        self.started.append(keeper)
        return keeper.channel, number

    def kill(self, number: int) -> None:
        self.killed.append(number)
        if self.fault is not None:
            raise self.fault

    def running(self) -> list[FakeKeeper]:
        """Those that have not ended, and are not to be killed."""
        return [each for each in self.started if each.runs and each.number not in self.killed]


class Served:
    """A keeper in a thread, with the rights of the tests; its requests have numbers from 1."""

    def __init__(self, dirmaker: bytes | None = None) -> None:
        self.ours, theirs = socket.socketpair()
        self.ours.settimeout(TIME_LIMIT)
        self.files: list[int] = []
        self._received = b""
        self._number = 0

        def serve() -> None:
            with theirs:
                Keeper(theirs, dirmaker).serve()

        self.thread = threading.Thread(target=serve, daemon=True)
        self.thread.start()

    def ask(self, *question: bytes) -> bytes:
        """Send a request, and tell its number."""
        self._number += 1
        number = b"%d" % self._number
        wire.send(self.ours, [number, *question])
        return number

    def answer(self) -> list[bytes] | None:
        """The next answer, None at the end; the files that came are in ``files``."""
        while not self._is_whole():
            try:
                octets, files, _, _ = socket.recv_fds(self.ours, 65536, 16)
            except ConnectionResetError:
                # The end, with something of ours unread.
                octets, files = b"", []
            self.files += files
            if not octets:
                assert not self._received, "the end within an answer"
                return None
            self._received += octets
        end = 4 + int.from_bytes(self._received[:4], "big")
        frame, self._received = self._received[:end], self._received[end:]
        return wire.fields_of(frame[4:])

    def asked(self, *question: bytes) -> list[bytes]:
        """The answer to a request, without its number, which is checked."""
        number = self.ask(*question)
        answer = self.answer()
        assert answer is not None and answer[0] == number, answer
        return answer[1:]

    def end(self) -> None:
        """Let it end, as the network process does."""
        self.ours.shutdown(socket.SHUT_WR)
        self.thread.join(TIME_LIMIT)
        assert not self.thread.is_alive(), "the keeper did not end"

    def close(self) -> None:
        self.ours.close()
        for file in self.files:
            os.close(file)
        self.files = []
        self.thread.join(TIME_LIMIT)

    def _is_whole(self) -> bool:
        end = 4 + int.from_bytes(self._received[:4], "big")
        return len(self._received) >= max(4, end)


def isolated(text: str, *arguments: str) -> list[str]:
    """The command that runs a program as the broker is run."""
    return [sys.executable, "-I", "-S", "-c", text, *arguments]


class RawBroker:
    """A broker as it is, and the control socket that the network process asks it by."""

    def __init__(
        self,
        log: Path,
        most_keepers: int = 4,
        busy_limit: float = 0.5,
        most_time: float = 0.5,
        longest_wait: float = 60.0,
        files: Sequence[Path] = (),
        control: str = "/nonexistent",
        names: Sequence[str] = (),
    ) -> None:
        self.log = log
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        text = (
            "import os, sys; sys.path.append(sys.argv[1])\n"
            "from qmailldap.privsep import broker\n"
            f"broker.BUSY_LIMIT = {busy_limit}\n"
            f"broker._LONGEST_WAIT = float('{longest_wait}')\n"
            f"os.dup2(int(sys.argv[2]), {CONTROL}); os.close(int(sys.argv[2]))\n"
            "broker.main(sys.argv[3:])\n"
        )
        # Not the one that it is to have: that may be anybody's here.
        with theirs, log.open("wb") as file:
            self.process = subprocess.Popen(
                isolated(
                    text,
                    PACKAGE,
                    str(theirs.fileno()),
                    str(most_keepers),
                    str(most_time),
                    "",
                    control,
                    ",".join(names),
                    *map(str, files),
                ),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        self._numbers = 0

    def send(self, message: bytes, *descriptors: int) -> None:
        socket.send_fds(self.control, [message], descriptors)

    def begin(self, kind: bytes, uid: int = 0, gid: int = 0) -> tuple[socket.socket, int]:
        """Our end of a connection to a new process, and its number."""
        self._numbers += 1
        ours, theirs = socket.socketpair()
        ours.settimeout(TIME_LIMIT)
        with theirs:
            self.send(REQUEST.pack(kind, self._numbers, uid, gid), theirs.fileno())
        return ours, self._numbers

    def close(self) -> None:
        self.control.close()
        try:
            self.process.wait(TIME_LIMIT)
        finally:
            self.process.kill()
            self.process.wait()


def children_of(pid: int) -> list[int]:
    """The processes that a process has begun and that have not been waited for."""
    children = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                status = (folder / "stat").read_text().rpartition(") ")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(status[1]) == pid:
                children.append(int(folder.name))
    return children


def status_of(pid: int) -> dict[str, list[str]]:
    """The words of each line of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.partition(":")[0]: line.partition(":")[2].split() for line in lines}


def descriptors_of(pid: int) -> list[int]:
    return sorted(map(int, os.listdir(f"/proc/{pid}/fd")))


def stop(pid: int) -> None:
    """Stop a process as by a debugger: it hangs, and hears no signal but the last."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: status_of(pid)["State"][0] == "T")
