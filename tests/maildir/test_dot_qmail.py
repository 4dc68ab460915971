"""Tests for `qmailldap.maildir.dot_qmail`; the lines are those of dot-qmail(5)."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NoReturn

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.maildir.dot_qmail import mailbox_in_dot_qmail
from tests.maildir.support import open_descriptors


class DotQmailTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.home.mkdir()
        self.file = self.home / ".qmail"
        before = open_descriptors()
        self.addCleanup(lambda: self.assertEqual(before, open_descriptors()))

    def found(self, content: bytes | None = None) -> str | None:
        """What is found in a file of this content, relative to the home where it is below."""
        if content is not None:
            self.file.write_bytes(content)
        mailbox = mailbox_in_dot_qmail(os.fsencode(self.home))
        return None if mailbox is None else os.fsdecode(mailbox).removeprefix(f"{self.home}/")

    def test_the_first_line_with_a_maildir_is_taken(self) -> None:
        self.assertEqual("./Maildir", self.found(b"./Maildir/\n"))
        self.assertEqual("./one", self.found(b"./one/\n./two/\n"))

    def test_a_line_need_not_end_and_may_end_in_blanks(self) -> None:
        self.assertEqual("./Maildir", self.found(b"./Maildir/"))
        self.assertEqual("./Maildir", self.found(b"./Maildir/ \t\n"))

    def test_comments_programs_forwards_and_mbox_files_are_passed_over(self) -> None:
        lines = [
            b"# ./comment/",
            b"|/usr/bin/spamfilter ./filtered/",
            b"&joe@example.org",
            b"joe@example.org/",
            b"./Mailbox",
            b"/var/mail/joe",
            b"",
            b" ./blank-first/",
            b"Maildir/",
            b"./mail/",
        ]
        self.assertEqual("./mail", self.found(b"\n".join(lines)))
        self.assertIsNone(self.found(b"\n".join(lines[:-1])))

    def test_an_absolute_path_is_one(self) -> None:
        self.assertEqual("/srv/mail/joe", self.found(b"/srv/mail/joe/\n"))
        self.assertEqual("/", self.found(b"//\n"))

    def test_a_hidden_maildir_starts_with_a_dot_as_well(self) -> None:
        self.assertEqual(".mail", self.found(b".mail//\n"))

    def test_an_empty_file_or_none_names_nothing(self) -> None:
        self.assertIsNone(self.found())
        self.assertIsNone(self.found(b""))

    def test_without_a_home_nothing_is_named(self) -> None:
        self.assertIsNone(mailbox_in_dot_qmail(os.fsencode(self.home / "none")))
        self.file.touch()
        self.assertIsNone(mailbox_in_dot_qmail(os.fsencode(self.file)))

    def test_what_is_no_regular_file_is_not_waited_for_and_names_nothing(self) -> None:
        os.mkfifo(self.file)
        self.assertIsNone(self.found())
        self.file.unlink()
        self.file.mkdir()
        self.assertIsNone(self.found())

    def test_a_symbolic_link_is_followed_as_qmail_does(self) -> None:
        (self.home / "other").write_bytes(b"./Maildir/\n")
        self.file.symlink_to("other")
        self.assertEqual("./Maildir", self.found())
        (self.home / "other").unlink()
        self.assertIsNone(self.found())

    def test_a_file_that_cannot_be_read_is_an_error(self) -> None:
        self.file.symlink_to(".qmail")
        error = self.assertRaises(OSError, self.found)
        self.assertEqual(errno.ELOOP, error.errno)

        def denied(*_: object) -> NoReturn:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        self.patch(os, "open", denied)
        self.assertRaises(PermissionError, self.found)

    def test_octets_that_are_no_text_do_no_harm(self) -> None:
        self.assertEqual("./Maildir", self.found(bytes(range(256)) + b"\n./Maildir/\n"))
        self.assertEqual("./\udcff", self.found(b"./\xff/\n"))
        self.assertIsNone(self.found(b"./a\0b/\n"))

    def test_of_a_large_file_only_the_beginning_is_looked_at(self) -> None:
        self.assertEqual("./Maildir", self.found(b"./Maildir/\n" + b"#\n" * 500_000))
        self.assertIsNone(self.found(b"#\n" * 500_000 + b"./Maildir/\n"))

    def test_a_path_is_never_cut(self) -> None:
        for size in range(64 * 1024 - 15, 64 * 1024 + 2):
            found = self.found(b"#".ljust(size, b"x") + b"\n./Maildir/.Sent/" + b"x" * 100)
            self.assertIsNone(found, size)
        self.assertIsNone(self.found(b"./" + b"x/" * 500_000))

    @given(st.binary(max_size=300))
    @example(b"./\n/\n")
    def test_whatever_it_holds_the_mailbox_is_an_absolute_path(self, content: bytes) -> None:
        self.file.write_bytes(content)
        mailbox = mailbox_in_dot_qmail(os.fsencode(self.home))
        if mailbox is not None:
            self.assertTrue(mailbox.startswith(b"/"))
            self.assertNotIn(b"\0", mailbox)
            self.assertNotIn(b"\n", mailbox.removeprefix(os.fsencode(self.home)))
