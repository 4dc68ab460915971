"""Whole small files, and what is read of anything else: nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from qmailldap.regular_files import read_regular


class ReadRegularTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.write_bytes(b"0123456789")

    def assert_fails(self, code: int, path: Path, most: int = 10) -> None:
        before = os.listdir("/proc/self/fd")
        with self.assertRaises(OSError) as caught:
            read_regular(path, most)
        self.assertEqual(caught.exception.errno, code)
        self.assertEqual(len(os.listdir("/proc/self/fd")), len(before))

    def test_a_file_is_read_up_to_its_bound(self) -> None:
        self.assertEqual(read_regular(self.path, 10), b"0123456789")
        self.assertEqual(read_regular(os.fsencode(self.path), 1000), b"0123456789")
        self.assert_fails(errno.EFBIG, self.path, 9)

    def test_a_file_may_be_empty(self) -> None:
        self.path.write_bytes(b"")
        self.assertEqual(read_regular(self.path, 0), b"")

    def test_symbolic_links_are_followed(self) -> None:
        link = Path(self.mktemp())
        link.symlink_to(self.path.absolute())
        self.assertEqual(read_regular(link, 10), b"0123456789")

    def test_what_is_no_file_is_not_waited_for(self) -> None:
        fifo = Path(self.mktemp())
        os.mkfifo(fifo)
        self.assert_fails(errno.EINVAL, fifo)
        self.assert_fails(errno.EINVAL, Path("/dev/zero"))
        self.assert_fails(errno.EINVAL, self.path.parent)
        self.assert_fails(errno.ENOENT, Path(self.mktemp()))
