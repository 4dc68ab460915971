"""A keeper: does the file work of the sessions of one owner, as that owner and nobody else.

It is forked by the broker, which has given up all other rights by then, and ends when the network
process closes the connection. Requests are answered by a few threads, so that one that takes long,
or a dirmaker, does not keep the owner's other sessions waiting. Each of them waits on the
connection itself: to hand requests over would cost as much as most of them take.

A request is its number, an operation, the session and what that takes:

    begin   session, place, [token]             -> begun, [snapshot], or unchanged
    fetch   session, message, [state]           -> messages, and the file of one that is large
    finish  session, messages, [state]          -> finished
    forget  session                             (not answered)

``token`` is that of the snapshot of a listing that is known already, empty for none; with it, the
snapshot of the new one is told. A keeper that says "unchanged" keeps nothing of the session.

``state``, a place and what begin gave, goes with the first request of a session that was begun by
another keeper. The answer is the number, ``ok``, how many files come along, and what `encoding`
writes; or the number, ``error`` and an error; or ``no-memory``; or ``fault``. Messages are meant by
their place in the listing: what is opened is a regular file of new/ or cur/, whatever the request
says.
"""

from __future__ import annotations

import _thread
import errno
import os
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress

from qmailldap.maildir import programs
from qmailldap.maildir.work import Place, Unchanged, Work
from qmailldap.privsep import encoding, wire

__all__ = ["MOST_THREADS", "PLACE_FIELDS", "Keeper"]

MOST_THREADS = 10
_PAUSE = 0.05
"""Seconds between two looks at what is still under way at the end."""

_LARGEST_LISTING = wire.MOST_OCTETS - 1024 * 1024
"""Octets: it must fit a frame, also when it is sent back with a place before it."""

PLACE_FIELDS = 7
"""Fields that a place takes in a request; what begin gave follows them."""


class Keeper:
    """Serves ``connection``; ``dirmaker`` is the program that makes homes, if there is one."""

    def __init__(self, connection: socket.socket, dirmaker: bytes | None) -> None:
        self._connection = connection
        self._dirmaker = dirmaker
        self._works: dict[bytes, Work] = {}
        # From the module below `threading`, whose own would cost every fork a hundred pages.
        self._reading = _thread.allocate_lock()
        self._writing = _thread.allocate_lock()
        self._counting = _thread.allocate_lock()
        self._threads = 1
        self._free = 0
        self._ended = False
        self._all_ended = _thread.allocate_lock()

    def serve(self) -> None:
        """Answer requests until the network process closes the connection, and end the last."""
        self._all_ended.acquire()
        self._answer_all()
        self._all_ended.acquire()

    def _answer_all(self) -> None:
        try:
            while (request := self._next()) is not None:
                self._answer(request)
        finally:
            with self._counting:
                self._threads -= 1
                if not self._threads:
                    self._all_ended.release()
            while self._ended and self._threads:
                # Nobody waits for a home any more; one may be about to be made.
                programs.kill_all()
                time.sleep(_PAUSE)

    def _next(self) -> list[bytes] | None:
        with self._counting:
            self._free += 1
        with self._reading:
            try:
                request = None if self._ended else wire.receive(self._connection)
            except (OSError, MemoryError, wire.FrameError) as error:
                _complain(f"the connection broke: {error or type(error).__name__}")
                request = None
            # No other thread reads on behind what was no frame.
            self._ended = request is None
        with self._counting:
            self._free -= 1
            # While this thread is at work, another one reads.
            if request is not None and not self._free and self._threads < MOST_THREADS:
                # The owner may have no more: then the requests wait.
                with suppress(RuntimeError):
                    _thread.start_new_thread(self._answer_all, ())
                    self._threads += 1
        return request

    def _answer(self, request: list[bytes]) -> None:
        number, question = b"".join(request[:1]), request[1:]
        files: list[int] = []
        try:
            try:
                answer = self._do(question, files)
                data = wire.frame([number, b"ok", encoding.number_field(len(files)), *answer])
            except OSError as error:
                data = wire.frame([number, b"error", *encoding.error_fields(error)])
            except MemoryError:
                data = wire.frame([number, b"no-memory"])
            except Exception:
                # A fault of ours, or a request that is none: the log has it, the session fails.
                _complain(traceback.format_exc())
                data = wire.frame([number, b"fault"])
            if question[:1] != [b"forget"]:
                with self._writing:
                    wire.send_data(self._connection, data, files)
        except OSError:
            # The network process is gone, and what was removed or moved stays so.
            return
        finally:
            for file in files:
                os.close(file)

    def _do(self, question: Sequence[bytes], files: list[int]) -> list[bytes]:
        """Do what is asked for, and give the answer; files to go with it are added to ``files``."""
        operation, session, *arguments = question
        if operation == b"begin":
            place, known = arguments[:PLACE_FIELDS], arguments[PLACE_FIELDS:]
            work = Work(self._place(place))
            begun = work.begin_again(known[0]) if any(known) else work.begin()
            if isinstance(begun, Unchanged):
                return encoding.write_unchanged(begun)
            fields = encoding.write_begun(begun)
            if known:
                fields += encoding.write_snapshot(begun.snapshot)
            if sum(map(len, fields)) > _LARGEST_LISTING:
                raise OSError(errno.EMSGSIZE, "too many messages to be listed", begun.path)
            self._works[session] = work
            return fields
        if operation == b"forget":
            self._works.pop(session, None)
            return []
        about, *state = arguments
        if state:
            begun = encoding.read_begun(state[PLACE_FIELDS:])
            self._works[session] = Work(self._place(state[:PLACE_FIELDS]), begun)
        work = self._works[session]
        if operation == b"fetch":
            return encoding.write_opened(self._fetch(work, encoding.number(about), files))
        if operation == b"finish":
            return encoding.write_finished(work.finish(encoding.read_numbers(about)))
        raise wire.FrameError(f"no operation is called {operation!r}")

    def _fetch(self, work: Work, number: int, files: list[int]) -> list[encoding.Opened]:
        opened = []
        for message in work.fetch(number):
            one = encoding.Opened(message.size, message.first, False, message.written_at)
            if message.file is not None:
                # Closed with the others once it has been sent.
                files.append(os.dup(message.file.fileno()))
                message.file.close()
                status = os.fstat(files[-1])
                one = one._replace(has_file=True, device=status.st_dev, inode=status.st_ino)
            opened.append(one)
        return opened

    def _place(self, fields: Sequence[bytes]) -> Place:
        return encoding.read_place(fields, self._dirmaker)


def _complain(text: str) -> None:
    """A line, or a traceback, for the log of the network process; lost when that has ended."""
    with suppress(OSError):
        os.write(sys.stderr.fileno(), f"keeper of uid {os.getuid()}: {text.rstrip()}\n".encode())
