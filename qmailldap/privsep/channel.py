"""The network process's end of a connection to a keeper: questions out, answers and files in."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import Any, cast

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IFileDescriptorReceiver, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from qmailldap.privsep import encoding, wire

__all__ = ["ANSWER_LIMIT", "Answer", "Channel", "KeeperLost"]

ANSWER_LIMIT = 300.0
"""Seconds that a keeper may take to answer; one that takes longer hangs."""

_MOST_FILES = 64
"""Files that may be on their way; a keeper sends one with an answer."""

_LENGTH = 4


class KeeperLost(OSError):
    """The process that worked as the mailbox's owner has ended, or does not answer."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EIO, f"the keeper of the mailbox was lost: {why}")


class _FileLost(OSError):
    """A file that was announced did not arrive."""


@attrs.frozen
class Answer:
    """The fields of an answer, and the files that came with it, the receiver's from now on."""

    fields: list[bytes]
    files: list[io.FileIO]


@implementer(IFileDescriptorReceiver)
class Channel(Protocol):
    """Asks one keeper.

    ``lost`` is called once, when the keeper has ended (then with False) or is taken for
    dead, though it may hang (True).
    """

    transport: Any

    def __init__(self, clock: IReactorTime, lost: Callable[[Channel, bool], None]) -> None:
        self._clock = clock
        self._lost = lost
        self._asked: dict[int, Deferred[Answer]] = {}
        self._next_number = 1
        self._received: list[bytes] = []
        self._octets = 0
        self._wanted = _LENGTH
        self._in_body = False
        self._files: deque[int] = deque()
        # What is told is sent along with the next question: a keeper is not woken for it.
        self._untold: list[bytes] = []
        # Why nothing more is asked.
        self._ended = ""
        self._is_lost = False

    @property
    def under_way(self) -> int:
        """How many answers are awaited."""
        return len(self._asked)

    def ask(self, *fields: bytes) -> Deferred[Answer]:
        """Send a question.

        The Deferred fails with the ``OSError`` that the keeper answers with, with `KeeperLost`, and
        with ``MemoryError``. It is not to be cancelled: what has begun goes on.
        """
        answer: Deferred[Answer] = Deferred()
        if self._ended:
            answer.errback(KeeperLost(self._ended))
            return answer
        number, self._next_number = self._next_number, self._next_number + 1
        self._asked[number] = answer
        self._untold.append(wire.frame((b"%d" % number, *fields)))
        self.transport.writeSequence(self._untold)
        self._untold.clear()
        patience = self._clock.callLater(
            ANSWER_LIMIT, self.give_up, f"no answer in {ANSWER_LIMIT:.0f} s"
        )

        def answered(result: Answer | Failure) -> Answer | Failure:
            if patience.active():
                patience.cancel()
            return result

        return cast("Deferred[Answer]", answer.addBoth(answered))

    def tell(self, *fields: bytes) -> None:
        """Send what is not answered, with the next question."""
        if not self._ended:
            self._untold.append(wire.frame((b"0", *fields)))

    def close(self) -> None:
        """Let the keeper end, as it does when it hears nothing more; it may still answer."""
        self._ended = self._ended or "it was told to end"
        if not self._is_lost:
            self.transport.loseWriteConnection()

    def give_up(self, why: str) -> None:
        """Take the keeper for dead: whatever it was asked fails."""
        self._ended = self._ended or why
        self.transport.abortConnection()
        self._lose(why, hangs=True)

    def fileDescriptorReceived(self, descriptor: int) -> None:
        if self._is_lost:
            # Many may come at once, and all of them are handed over whatever becomes of the first.
            os.close(descriptor)
            return
        os.set_inheritable(descriptor, False)
        self._files.append(descriptor)
        if len(self._files) > _MOST_FILES:
            self.give_up("it sent files that nobody asked for")

    def dataReceived(self, data: bytes) -> None:
        self._received.append(data)
        self._octets += len(data)
        while self._octets >= self._wanted and not self._is_lost:
            # Joined when it is all there: a listing may come in many pieces.
            joined = b"".join(self._received)
            piece, rest = joined[: self._wanted], joined[self._wanted :]
            self._received, self._octets = [rest], len(rest)
            try:
                self._piece_received(piece)
            except wire.FrameError as error:
                self.give_up(f"it sent what is no answer: {error}")

    def _piece_received(self, piece: bytes) -> None:
        """A length, or the body that it announced."""
        if not self._in_body:
            self._wanted = int.from_bytes(piece, "big")
            if self._wanted > wire.MOST_OCTETS:
                raise wire.FrameError(f"{self._wanted} octets")
        else:
            self._wanted = _LENGTH
            self._answered(wire.fields_of(piece))
        self._in_body = not self._in_body

    def _answered(self, fields: list[bytes]) -> None:
        if len(fields) < 2:
            raise wire.FrameError("an answer of too few fields")
        asked_number, outcome, *rest = fields
        if outcome == b"refused":
            self.transport.abortConnection()
            self._lose(b" ".join(rest).decode("utf-8", "replace"), hangs=False)
            return
        number = encoding.number(asked_number)
        if number not in self._asked:
            raise wire.FrameError("an answer to no question")
        # Read before the question is done with: it fails with the others when this is no answer.
        result: Answer | Exception
        if outcome == b"ok":
            result = self._success(rest)
        elif outcome == b"error":
            result = encoding.read_error(rest)
        elif outcome == b"no-memory":
            result = MemoryError()
        else:
            result = KeeperLost("it failed; see its line in the log")
        asked = self._asked.pop(number)
        if isinstance(result, _FileLost):
            self.give_up("a file that it opened did not arrive")
        if isinstance(result, Exception):
            asked.errback(result)
        else:
            asked.callback(result)

    def _success(self, fields: list[bytes]) -> Answer | _FileLost:
        """The first field is how many files come along."""
        count = encoding.number(fields[0]) if fields else 0
        if count > len(self._files):
            # They are lost when this process may open no more; which ones are, nothing tells.
            return _FileLost(errno.EMFILE, "no more files may be open")
        for descriptor in islice(self._files, count):
            # To read from anything else could take for ever.
            try:
                is_regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            except OSError as error:
                raise wire.FrameError(f"a file that cannot be looked at: {error}") from None
            if not is_regular:
                raise wire.FrameError("a file that is no regular one")
        files = [io.FileIO(self._files.popleft()) for _ in range(count)]
        return Answer(fields[1:], files)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lose("it has ended", hangs=False)

    def _lose(self, why: str, *, hangs: bool) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        self._ended = self._ended or why
        while self._files:
            # Some file systems tell only now that they are in trouble.
            with suppress(OSError):
                os.close(self._files.popleft())
        asked, self._asked = self._asked, {}
        # First, so that whoever asks again when a question fails is given another keeper.
        self._lost(self, hangs)
        for each in asked.values():
            each.errback(KeeperLost(why))
