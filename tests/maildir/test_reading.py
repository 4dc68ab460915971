"""Tests for `qmailldap.maildir.reading`: which messages are opened together."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any, NoReturn

from twisted.trial.unittest import SynchronousTestCase

from qmailldap.maildir import reading
from qmailldap.maildir.reading import (
    CHUNK,
    MOST_AHEAD,
    MessageChanged,
    OpenMessage,
    open_message,
    open_messages,
    read_at_hand,
)
from qmailldap.maildir.storage import MailboxMissing
from tests.maildir.support import deliver, open_descriptors
from tests.maildir.test_storage import MaildirTestCase


class OpenMessagesTests(MaildirTestCase):
    def deliver(self, *sizes: int) -> None:
        """Messages of these octets, in this order; each can be told by its first."""
        for number, size in enumerate(sizes, 1):
            deliver(self.path, f"cur/{number}.a:2,", (b"%d:" % number).ljust(size, b"x")[:size])
        self.count = len(self.scan().files)

    def open(self, number: int = 0) -> list[OpenMessage]:
        return open_messages(self.maildir, number, self.count)

    def sizes(self, number: int = 0) -> list[int]:
        """The octets of the messages that are opened together, all of which are there."""
        opened = self.open(number)
        for message in opened:
            self.assertIsNone(message.file)
            self.assertEqual(message.size, len(message.first))
        return [message.size for message in opened]

    def reads(self) -> list[int]:
        """The octets that are read from now on, a number for each message."""
        octets: list[int] = []
        read = reading.read_next

        def read_next(file: io.FileIO, left: int, most: int, written_at: int) -> bytes:
            octets.append(left)
            return read(file, left, most, written_at)

        self.patch(reading, "read_next", read_next)
        return octets

    def test_small_ones_come_together_in_their_order(self) -> None:
        self.deliver(10, 20, 30)
        self.assertEqual([b"1:", b"2:", b"3:"], [message.first[:2] for message in self.open()])
        self.assertEqual([20, 30], self.sizes(1))
        self.assertEqual([30], self.sizes(2))

    def test_together_they_are_one_chunk_at_most(self) -> None:
        third = CHUNK // 3
        self.deliver(third, third, CHUNK - 2 * third, 1)
        self.assertEqual([third, third, CHUNK - 2 * third], self.sizes())
        self.deliver(third, third, CHUNK - 2 * third + 1, 1)
        self.assertEqual([third, third], self.sizes())

    def test_there_are_so_many_at_most(self) -> None:
        self.deliver(*[1] * (MOST_AHEAD + 3))
        self.assertEqual([1] * MOST_AHEAD, self.sizes())
        self.assertEqual([1] * 3, self.sizes(MOST_AHEAD))

    def test_messages_of_no_octets_count_as_well(self) -> None:
        self.deliver(*[0] * (MOST_AHEAD + 3))
        self.assertEqual([0] * MOST_AHEAD, self.sizes())

    def test_a_large_one_is_the_end_and_is_not_read(self) -> None:
        self.deliver(10, 10 * CHUNK, 10)
        reads = self.reads()
        self.assertEqual([10], self.sizes())
        self.assertEqual([10], reads)

    def test_behind_a_large_one_nothing_is_opened(self) -> None:
        self.deliver(CHUNK + 1, 10)
        (message,) = self.open()
        self.assertEqual((CHUNK + 1, CHUNK), (message.size, len(message.first)))
        assert message.file is not None
        self.assertEqual(b"x", message.file.read())
        message.file.close()

    def test_a_message_of_one_chunk_comes_whole_and_alone(self) -> None:
        self.deliver(CHUNK, 0, 10)
        self.assertEqual([CHUNK], self.sizes())
        self.deliver(CHUNK - 1, 1, 0)
        self.assertEqual([CHUNK - 1, 1], self.sizes())

    def test_one_that_is_gone_is_the_end(self) -> None:
        self.deliver(10, 10, 10)
        (self.path / "cur/2.a:2,").unlink()
        self.assertEqual([10], self.sizes())
        self.assertRaises(FileNotFoundError, self.open, 1)
        self.assertEqual([10], self.sizes(2))

    def test_one_that_was_renamed_is_found(self) -> None:
        self.deliver(10, 20, 30)
        (self.path / "cur/2.a:2,").rename(self.path / "cur/2.a:2,S")
        self.assertEqual([10, 20, 30], self.sizes())

    def test_one_that_is_no_message_any_more_is_the_end(self) -> None:
        self.deliver(10, 10, 10)
        path = self.path / "cur/2.a:2,"
        for replace in (os.mkfifo, os.mkdir, lambda place: os.symlink("1.a:2,", place)):
            path.unlink()
            replace(path)
            self.assertEqual([10], self.sizes())
            self.assertRaises(OSError, self.open, 1)
            path.rename(self.path / str(replace))
            path.touch()

    def test_one_that_cannot_be_read_is_the_end(self) -> None:
        self.deliver(10, 20, 30)
        read = reading.read_next

        def read_next(file: io.FileIO, left: int, *others: Any) -> bytes:
            if left == 20:
                file.close()
                raise MessageChanged(5, "it has grown")
            return read(file, left, *others)

        self.patch(reading, "read_next", read_next)
        self.assertEqual([10], self.sizes())
        self.assertRaises(MessageChanged, self.open, 1)

    def test_what_is_wrong_with_the_first_is_told(self) -> None:
        self.deliver(10, 10)
        (self.path / "cur/1.a:2,").unlink()
        self.assertRaises(FileNotFoundError, self.open)
        self.path.rename(self.mktemp())
        self.assertRaises(MailboxMissing, self.open, 1)

    def test_a_file_that_cannot_even_be_begun_holds_no_descriptor(self) -> None:
        self.deliver(10)
        before = open_descriptors()

        def refused(descriptor: int) -> NoReturn:
            raise OSError(116, "Stale file handle")

        self.patch(io, "FileIO", refused)
        self.assertRaises(OSError, open_message, self.maildir, 0)
        self.assertEqual(before, open_descriptors())

    def test_one_that_shrinks_while_it_is_read_ahead_is_the_end(self) -> None:
        self.deliver(5, 10, 20, 30)
        before = open_descriptors()
        open_file = self.maildir.open

        def open_and_shrink(number: int) -> tuple[int, int]:
            descriptor, size = open_file(number)
            if number == 2:
                (self.path / "cur/3.a:2,").write_bytes(b"3:half")
            return descriptor, size

        self.patch(self.maildir, "open", open_and_shrink)
        self.assertEqual([5, 10], self.sizes())
        self.assertEqual(before, open_descriptors())

    def test_no_descriptor_stays_open_but_that_of_a_large_one(self) -> None:
        self.deliver(1, CHUNK, 2 * CHUNK, 5, 6)
        before = open_descriptors()
        for number in range(self.count):
            opened = self.open(number)
            large = [message.file for message in opened if message.file is not None]
            self.assertEqual(number == 2, bool(large))
            self.assertEqual(before + len(large), open_descriptors())
            for file in large:
                file.close()


class ReadAtHandTests(SynchronousTestCase):
    def setUp(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes(b"0123456789")
        self.file = io.FileIO(path)
        self.addCleanup(self.file.close)
        self.file.read(3)

    def test_it_is_what_comes_next_or_nothing(self) -> None:
        # Where the file system cannot tell, a file is never at hand.
        chunk = read_at_hand(self.file, 4)
        self.assertIn(chunk, (b"3456", None))
        self.assertEqual(b"3456789"[len(chunk or b"") :], self.file.read())

    def test_the_end_is_not_told(self) -> None:
        self.file.read()
        self.assertIsNone(read_at_hand(self.file, 4))

    def test_whatever_cannot_be_told_is_left_to_a_thread(self) -> None:
        for number in (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO, errno.ENOSYS):

            def refuse(*arguments: object, number: int = number) -> NoReturn:
                raise OSError(number, os.strerror(number))

            patched = self.patch(os, "preadv", refuse)
            self.assertIsNone(read_at_hand(self.file, 4))
            patched.restore()
        self.assertEqual(b"3456789", self.file.read())

    def test_on_systems_that_do_not_know_it_nothing_is_tried(self) -> None:
        self.patch(reading, "_WITHOUT_WAITING", 0)
        self.patch(os, "preadv", lambda *arguments: self.fail("preadv"))
        self.assertIsNone(read_at_hand(self.file, 4))
