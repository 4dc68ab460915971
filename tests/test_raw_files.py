"""Small files as they are found by whoever may read them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.raw_files import (
    BROKEN_LINK,
    LARGER,
    MISSING,
    OTHER,
    READ,
    STATES,
    STRAY_LINK,
    UNREADABLE,
    RawFile,
    look,
    pack,
    unpack,
)

MOST = 100

FILES = st.builds(
    RawFile,
    st.sampled_from(sorted(STATES)),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**31 - 1),
    st.binary(max_size=200),
)


class LookTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()

    def look(self, *, read: bool = True) -> RawFile:
        return look(os.fsencode(self.path), MOST, read=read)

    def test_a_file_comes_with_its_content_and_mode(self) -> None:
        self.path.write_bytes(b"content\n")
        self.path.chmod(0o640)
        self.assertEqual(self.look(), RawFile(READ, stat.S_IFREG | 0o640, 0, b"content\n"))
        self.assertEqual(self.look(read=False), RawFile(READ, stat.S_IFREG | 0o640))
        self.assertTrue(self.look().is_regular)

    def test_what_is_not_there_is_missing(self) -> None:
        self.assertEqual(self.look(), RawFile(MISSING))

    def test_links_are_followed_and_those_that_lead_nowhere_say_where(self) -> None:
        target = self.path.with_name("target")
        self.path.symlink_to("target")
        self.assertEqual(self.look(), RawFile(BROKEN_LINK, content=b"target"))
        target.symlink_to("nowhere")
        self.assertEqual(self.look(), RawFile(STRAY_LINK, content=b"target"))
        target.unlink()
        target.write_bytes(b"x")
        self.assertEqual(self.look().content, b"x")
        target.unlink()

    def test_a_ring_of_links_cannot_be_read(self) -> None:
        self.path.symlink_to(self.path)
        self.assertEqual(self.look(), RawFile(UNREADABLE, 0, errno.ELOOP))

    def test_what_is_no_regular_file_is_not_waited_for(self) -> None:
        os.mkfifo(self.path)
        self.assertEqual(self.look().state, OTHER)
        self.assertFalse(self.look().is_regular)
        self.path.unlink()
        self.path.mkdir()
        self.assertEqual((self.look().state, self.look().trouble), (UNREADABLE, errno.EISDIR))

    def test_no_more_is_read_than_wanted(self) -> None:
        self.path.write_bytes(b"x" * MOST)
        self.assertEqual(len(self.look().content), MOST)
        self.path.write_bytes(b"x" * (MOST + 1))
        for read in (True, False):
            self.assertEqual((self.look(read=read).state, self.look().content), (LARGER, b""))

    def test_a_content_is_shown_nowhere(self) -> None:
        self.assertNotIn("secret", repr(RawFile(READ, 0o600, 0, b"secret")))


class PackTests(SynchronousTestCase):
    @given(FILES)
    def test_a_file_comes_back_as_it_was(self, file: RawFile) -> None:
        self.assertEqual(unpack(pack(file)), file)

    @given(st.binary(max_size=200))
    def test_any_octets_are_a_file_or_an_error(self, octets: bytes) -> None:
        try:
            file = unpack(octets)
        except ValueError:
            return
        self.assertIn(file.state, STATES)
