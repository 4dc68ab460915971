"""Tests for `qmailldap.maildir.message`."""

from __future__ import annotations

import io
import os
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.testing import StringTransport
from twisted.protocols.basic import FileSender
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from qmailldap.interfaces import IStoredMessage
from qmailldap.maildir import message as message_module
from qmailldap.maildir.message import StoredMessage
from qmailldap.maildir.reading import CHUNK, MessageChanged, open_message
from qmailldap.threads import Busy, Offload
from tests.maildir.support import (
    HeldBack,
    deliver,
    have_disks_read,
    here,
    open_descriptors,
)
from tests.maildir.test_storage import MaildirTestCase


class MessageTestCase(MaildirTestCase):
    def message(self, content: bytes, offload: Offload = here) -> StoredMessage:
        self.file = deliver(self.path, "new/1.a", content)
        self.scan()
        message = StoredMessage(offload, open_message(self.maildir, 0))
        self.addCleanup(message.close)
        return message

    def chunk(self, message: StoredMessage) -> bytes:
        chunk = message.readChunk()
        return chunk if isinstance(chunk, bytes) else self.successResultOf(chunk)

    def chunks(self, message: StoredMessage) -> list[bytes]:
        """All chunks up to the end."""
        chunks = []
        while chunk := self.chunk(message):
            chunks.append(chunk)
        return chunks

    def failed(self, deferred: bytes | Deferred[bytes], *types: type[BaseException]) -> None:
        assert isinstance(deferred, Deferred)
        self.failureResultOf(deferred, *types)


class ReadTests(MessageTestCase):
    def test_it_provides_its_interface(self) -> None:
        self.assertTrue(verifyObject(IStoredMessage, self.message(b"x")))

    def test_what_is_read_is_the_file_whatever_its_size(self) -> None:
        for size in (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1, 5 * CHUNK - 1):
            content = os.urandom(size)
            message = self.message(content)
            self.assertEqual(size, message.size)
            chunks = self.chunks(message)
            self.assertEqual(content, b"".join(chunks))
            self.assertTrue(all(len(chunk) <= CHUNK for chunk in chunks))
            self.assertFalse(message.holds_file)
            self.assertEqual(b"", message.readChunk())

    def test_a_small_message_holds_no_descriptor_and_needs_no_further_work(self) -> None:
        before = open_descriptors()
        message = self.message(b"x" * CHUNK, HeldBack())
        self.assertEqual(before, open_descriptors())
        self.assertEqual(b"x" * CHUNK, message.readChunk())
        self.assertEqual(b"", message.readChunk())

    def test_the_descriptor_is_closed_with_the_last_chunk(self) -> None:
        before = open_descriptors()
        message = self.message(b"x" * (CHUNK + 1))
        self.chunk(message)
        self.assertEqual(before + 1, open_descriptors())
        self.assertEqual(b"x", self.chunk(message))
        self.assertEqual(before, open_descriptors())

    def test_it_is_a_file_for_those_who_want_one(self) -> None:
        content = os.urandom(3 * CHUNK + 7)
        message = self.message(content)
        self.assertEqual(content[:10], message.read(10))
        self.assertEqual(content[10:], b"".join(iter(lambda: message.read(10_000), b"")))
        self.assertFalse(message.holds_file)
        self.assertEqual(content, self.message(content).read())

    def test_both_ways_of_reading_go_on_where_the_other_stopped(self) -> None:
        content = os.urandom(2 * CHUNK)
        message = self.message(content)
        parts = [message.read(5), self.chunk(message), message.read(6), self.chunk(message)]
        self.assertEqual(content, b"".join(parts))

    def test_stock_twisted_sends_it(self) -> None:
        content = os.urandom(3 * CHUNK + 7)
        transport = StringTransport()
        sent = FileSender().beginFileTransfer(self.message(content), transport)
        while transport.producer is not None:
            transport.producer.resumeProducing()
        self.successResultOf(sent)
        self.assertEqual(content, transport.value())

    def test_a_message_goes_on_when_its_file_is_renamed_or_removed(self) -> None:
        message = self.message(b"x" * (2 * CHUNK))
        self.file.unlink()
        self.assertEqual(b"x" * (2 * CHUNK), b"".join(self.chunks(message)))


class FromDiskTests(ReadTests):
    """The same where nothing is in memory, or the file system cannot tell."""

    def setUp(self) -> None:
        super().setUp()
        have_disks_read(self)


class AtHandTests(MessageTestCase):
    """What is in memory is read without a thread."""

    def at_hand(self, *counts: int) -> None:
        """So many octets are, at each look."""
        left = list(counts)

        def read(file: io.FileIO, most: int) -> bytes | None:
            return file.read(left.pop(0)) if left else None

        self.patch(message_module, "read_at_hand", read)

    def test_all_of_it_but_the_last_chunk(self) -> None:
        self.at_hand(CHUNK, 100)
        thread = HeldBack()
        content = os.urandom(3 * CHUNK + 100)
        message = self.message(content, thread)
        chunks = [self.chunk(message) for _ in range(3)]
        self.assertEqual([CHUNK, CHUNK, 100], [len(chunk) for chunk in chunks])
        self.assertEqual([], thread.waiting)
        reading = message.readChunk()
        assert isinstance(reading, Deferred)
        thread.run()
        chunks.append(self.successResultOf(reading))
        self.assertEqual(content, b"".join(chunks))

    def test_what_is_not_is_read_by_a_thread_and_then_it_is_asked_for_again(self) -> None:
        content = os.urandom(5 * CHUNK)
        message = self.message(content)
        asked: list[int] = []

        def read(file: io.FileIO, most: int) -> bytes | None:
            asked.append(most)
            return file.read(most) if len(asked) % 2 else None

        self.patch(message_module, "read_at_hand", read)
        self.assertEqual(content, b"".join(self.chunks(message)))
        self.assertEqual([CHUNK] * 3, asked)

    def test_a_file_that_was_written_to_is_an_error_all_the_same(self) -> None:
        for offset, size in ((0, None), (0, 2 * CHUNK), (5 * CHUNK, 5 * CHUNK + 1)):
            message = self.message(b"x" * (5 * CHUNK))
            self.chunk(message)
            self.at_hand(CHUNK, CHUNK, CHUNK)
            if size is None:
                os.utime(self.file, (offset, offset))
            else:
                os.truncate(self.file, size)
            with self.assertRaises(MessageChanged):
                self.chunks_or_failure(message)
            self.assertFalse(message.holds_file)

    def chunks_or_failure(self, message: StoredMessage) -> None:
        while chunk := message.readChunk():
            if isinstance(chunk, Deferred):
                failed: list[Failure] = []
                chunk.addErrback(failed.append)
                for failure in failed:
                    failure.raiseException()


class ChangeTests(MessageTestCase):
    def test_a_file_that_shrinks_is_an_error(self) -> None:
        message = self.message(b"x" * (3 * CHUNK))
        self.chunk(message)
        os.truncate(self.file, 2 * CHUNK)
        self.chunk(message)
        self.failed(message.readChunk(), MessageChanged)
        self.assertFalse(message.holds_file)

    def test_a_file_that_grows_is_an_error_before_its_last_chunk_is_given(self) -> None:
        for size in (CHUNK + 1, 2 * CHUNK):
            message = self.message(b"x" * size)
            self.chunk(message)
            with self.file.open("ab") as file:
                file.write(b"y")
            self.failed(message.readChunk(), MessageChanged)
            self.assertFalse(message.holds_file)

    def test_a_file_that_shrinks_and_grows_again_is_an_error(self) -> None:
        message = self.message(b"x" * (2 * CHUNK))
        self.chunk(message)
        os.truncate(self.file, CHUNK)
        os.truncate(self.file, 2 * CHUNK)
        os.utime(self.file, (0, 0))
        self.failed(message.readChunk(), MessageChanged)

    def test_a_stock_reader_learns_of_it_too(self) -> None:
        message = self.message(b"x" * (2 * CHUNK))
        message.read(CHUNK)
        os.truncate(self.file, CHUNK)
        self.assertRaises(MessageChanged, message.read, 100)

    def test_a_change_between_open_and_first_read_is_an_error(self) -> None:
        self.file = deliver(self.path, "new/1.a", b"four")
        self.scan()
        real = self.maildir.open
        before = open_descriptors()
        for size in (0, 5):

            def changed(index: int, size: int = size) -> tuple[int, int]:
                opened = real(index)
                os.truncate(self.file, size)
                return opened

            self.file.write_bytes(b"four")
            self.patch(self.maildir, "open", changed)
            self.assertRaises(MessageChanged, open_message, self.maildir, 0)
        self.assertEqual(before, open_descriptors())


class CloseTests(MessageTestCase):
    def test_closing_lets_go_of_the_file_and_may_be_done_twice(self) -> None:
        before = open_descriptors()
        message = self.message(b"x" * (2 * CHUNK))
        message.close()
        self.assertEqual(before, open_descriptors())
        message.close()

    def test_a_closed_message_cannot_be_read(self) -> None:
        message = self.message(b"x" * (2 * CHUNK))
        message.close()
        self.assertRaises(ValueError, message.readChunk)
        self.assertRaises(ValueError, message.read, 1)

    def test_closing_waits_for_a_read_under_way(self) -> None:
        have_disks_read(self)
        thread = HeldBack()
        before = open_descriptors()
        message = self.message(b"x" * (3 * CHUNK), thread)
        self.chunk(message)
        reading = message.readChunk()
        assert isinstance(reading, Deferred)
        message.close()
        self.assertEqual(before + 1, open_descriptors())
        thread.run()
        self.assertEqual(CHUNK, len(self.successResultOf(reading)))
        thread.run_all()
        self.assertEqual(before, open_descriptors())

    def test_a_read_that_nobody_waits_for_is_still_waited_for(self) -> None:
        have_disks_read(self)
        thread = HeldBack()
        before = open_descriptors()
        message = self.message(b"x" * (3 * CHUNK), thread)
        self.chunk(message)
        reading = message.readChunk()
        assert isinstance(reading, Deferred)
        reading.cancel()
        self.failed(reading, CancelledError)
        message.close()
        self.assertEqual(before + 1, open_descriptors())
        thread.run()
        thread.run_all()
        self.assertEqual(before, open_descriptors())

    def test_only_one_read_at_a_time(self) -> None:
        have_disks_read(self)
        thread = HeldBack()
        message = self.message(b"x" * (3 * CHUNK), thread)
        self.chunk(message)
        message.readChunk()
        self.assertRaises(ValueError, message.readChunk)
        self.assertRaises(ValueError, message.read, 1)
        message.close()
        thread.run_all()

    def test_a_read_that_was_never_begun_may_be_asked_for_again(self) -> None:
        answers: list[Offload] = [here]

        def offload(function: Any, /, *args: Any, **kwargs: Any) -> Deferred[Any]:
            return answers[-1](function, *args, **kwargs)

        def refuse(function: Any, /, *args: Any, **kwargs: Any) -> Deferred[Any]:
            def busy() -> None:
                raise Busy("full")

            return here(busy)

        content = os.urandom(2 * CHUNK)
        message = self.message(content, offload)
        first = self.chunk(message)
        answers.append(refuse)
        self.failed(message.readChunk(), Busy)
        answers.pop()
        self.assertEqual(content, first + b"".join(self.chunks(message)))
