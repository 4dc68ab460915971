"""Tests for `qmailldap.maildir.maildirsize`, whoever else delivers and removes at the time."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.maildir.maildirsize import Removed, is_current, keep_current, parse
from qmailldap.quota import Quota
from tests.maildir.support import deliver, files_of, make_maildir, open_descriptors

QUOTA = Quota(1_000_000, 1000)
OTHER = Quota(2_000_000, 1000)
NONE = Quota()
NOTHING = Removed(0, 0)


class Killed(BaseException):
    """The process ends here."""


def disk_sum(maildir: Path) -> Removed:
    """What is in new/ and cur/."""
    contents = files_of(maildir).values()
    return Removed(sum(map(len, contents)), len(contents))


class QuotaFileTestCase(SynchronousTestCase):
    """Starts with an empty Maildir without a quota file, and ends with no descriptor more."""

    def setUp(self) -> None:
        self.path = make_maildir(self.mktemp())
        self.file = self.path / "maildirsize"
        before = open_descriptors()
        self.addCleanup(lambda: self.assertEqual(before, open_descriptors()))

    def write(self, content: str) -> None:
        self.file.write_text(content)

    def keep(self, removed: Removed = NOTHING, quota: Quota = QUOTA, maildir: str = "") -> str:
        return keep_current(os.fsencode(self.path / maildir), quota, lambda: removed)

    def is_current(self, quota: Quota = QUOTA) -> bool:
        return is_current(os.fsencode(self.path), quota)

    def unlink(self, *files: str) -> Callable[[], Removed]:
        """What removes the messages and tells what they were."""

        def remove() -> Removed:
            sizes = [(self.path / file).stat().st_size for file in files]
            for file in files:
                (self.path / file).unlink()
            return Removed(sum(sizes), len(sizes))

        return remove

    def assert_file(self, content: str) -> None:
        self.assertEqual(content, self.file.read_text())
        self.assert_tmp_is_empty()

    def assert_tmp_is_empty(self) -> None:
        self.assertEqual([], os.listdir(self.path / "tmp"))

    def assert_true_to_disk(self) -> None:
        self.assertEqual(disk_sum(self.path), parse(self.file.read_bytes())[1])
        self.assert_tmp_is_empty()


class ParserTests(SynchronousTestCase):
    def test_the_parts_of_a_definition_may_come_in_any_order(self) -> None:
        for text in (b"10S,20C", b"20C,10S", b"010S,0020C", b"7X,10S,new,20C", b"20C10S"):
            self.assertEqual((Quota(10, 20), NOTHING), parse(text + b"\n"), text)

    def test_a_definition_without_limits_is_one(self) -> None:
        for text in (b"", b"0S", b"NOQUOTA", b"5", b"9" * 21 + b"S"):
            self.assertEqual((NONE, NOTHING), parse(text + b"\n"), text)

    def test_blanks_around_numbers_do_no_harm(self) -> None:
        self.assertEqual(Removed(12, 1), parse(b"1S\n  10   2 \n\t2\t-1\n")[1])

    def test_what_is_not_complete_lines_of_two_integers_is_unusable(self) -> None:
        for lines in (b"1", b"1 1 1\n", b"1\n", b"\n", b"a b\n", b"1 1", b"1 1\n1 1", b"1.0 1\n"):
            self.assertEqual((Quota(1, 0), None), parse(b"1S\n" + lines), lines)

    def test_there_must_be_a_first_line(self) -> None:
        self.assertEqual((NONE, None), parse(b""))
        self.assertEqual((Quota(1, 0), None), parse(b"1S"))

    def test_a_sum_below_zero_is_unusable_and_a_line_below_zero_is_not(self) -> None:
        self.assertIsNone(parse(b"1S\n5 1\n-6 -1\n")[1])
        self.assertIsNone(parse(b"1S\n5 1\n-5 -2\n")[1])
        self.assertEqual(NOTHING, parse(b"1S\n-5 -1\n5 1\n")[1])

    def test_5120_octets_are_too_many(self) -> None:
        content = b"1S\n" + b"1 1\n" * 1279
        self.assertEqual(Removed(1279, 1279), parse(content)[1])
        self.assertIsNone(parse(content[:-2] + b" 1\n")[1])

    @given(st.binary(max_size=6000))
    @example(b"9" * 5000 + b"S\n")
    @example(b"1S\n" + b"9" * 5000 + b" 1\n")
    @example(b"0" * 5000 + b"\n")
    def test_arbitrary_octets_never_raise(self, content: bytes) -> None:
        parse(content)

    @given(
        st.integers(0, 10**12),
        st.integers(0, 10**6),
        st.lists(st.tuples(st.integers(-(10**9), 10**12), st.integers(-9, 99)), max_size=150),
    )
    def test_a_well_formed_file_sums_right(
        self, size: int, count: int, lines: list[tuple[int, int]]
    ) -> None:
        quota = Quota(size, count)
        content = f"{quota}\n" + "".join(f"{octets} {messages}\n" for octets, messages in lines)
        octets, messages = (sum(line[part] for line in lines) for part in (0, 1))
        expected = Removed(octets, messages) if octets >= 0 and messages >= 0 else None
        self.assertEqual((quota, expected), parse(content.encode()))


class CurrencyTests(QuotaFileTestCase):
    def test_a_usable_file_of_the_definition_is_current(self) -> None:
        self.write("1000C,01000000S\n5 1\n")
        self.assertTrue(self.is_current())

    def test_a_missing_file_is_current_only_without_quota(self) -> None:
        self.assertFalse(self.is_current())
        self.assertTrue(self.is_current(NONE))

    def test_without_quota_a_file_of_any_definition_is_current(self) -> None:
        self.write(f"{QUOTA}\n5 1\n")
        self.assertTrue(self.is_current(NONE))
        self.assertFalse(self.is_current(OTHER))

    def test_an_unusable_file_is_not_current(self) -> None:
        self.write(f"{QUOTA}\n5")
        self.assertFalse(self.is_current())
        self.assertFalse(self.is_current(NONE))

    def test_what_cannot_be_read_is_not_current(self) -> None:
        self.file.mkdir()
        self.assertFalse(self.is_current())
        self.assertFalse(is_current(b"/nowhere", QUOTA))

    def test_what_is_no_regular_file_is_not_waited_for(self) -> None:
        os.mkfifo(self.file)
        self.assertFalse(self.is_current())
        self.assertFalse(self.is_current(NONE))
        self.file.unlink()
        (self.path / "target").write_text(f"{QUOTA}\n5 1\n")
        self.file.symlink_to("target")
        self.assertFalse(self.is_current())

    def test_a_failing_disk_makes_it_not_current_and_raises_nothing(self) -> None:
        self.write(f"{QUOTA}\n5 1\n")
        for function in ("open", "fstat", "read"):

            def failing(*args: object, **kwargs: object) -> None:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

            patched = self.patch(os, function, failing)
            self.assertFalse(self.is_current())
            patched.restore()

    def test_no_more_is_read_than_a_file_may_have(self) -> None:
        read: list[int] = []
        real = os.read

        def counting(descriptor: int, octets: int) -> bytes:
            read.append(octets)
            return real(descriptor, octets)

        self.write(f"{QUOTA}\n" + "1 1\n" * 1_000_000)
        self.patch(os, "read", counting)
        self.patch(os, "scandir", lambda *args: self.fail("the mailbox was gone through"))
        self.assertFalse(self.is_current())
        self.assertEqual([5120, 0], read)

    def test_nothing_is_written(self) -> None:
        self.write("x")
        self.is_current()
        self.assert_file("x")


class SubtractionTests(QuotaFileTestCase):
    def test_what_was_removed_is_subtracted(self) -> None:
        self.write(f"{QUOTA}\n50 5\n")
        self.assertEqual("", self.keep(Removed(20, 2)))
        self.assert_file(f"{QUOTA}\n50 5\n-20 -2\n")

    def test_it_is_subtracted_in_one_write_to_the_file_that_was_there_before(self) -> None:
        self.write(f"{QUOTA}\n50 5\n")
        inode = self.file.stat().st_ino
        written: list[bytes] = []
        real = os.write

        def write(descriptor: int, line: bytes) -> int:
            written.append(line)
            return real(descriptor, line)

        self.patch(os, "write", write)
        self.keep(Removed(20, 2))
        self.assertEqual([b"-20 -2\n"], written)
        self.assertEqual(inode, self.file.stat().st_ino)

    def test_where_nothing_was_removed_nothing_is_written(self) -> None:
        self.write(f"{QUOTA}\n50 5\n")
        self.keep()
        self.assert_file(f"{QUOTA}\n50 5\n")

    def test_the_sum_may_become_nothing(self) -> None:
        self.write(f"{QUOTA}\n50 5\n")
        self.keep(Removed(50, 5))
        self.assert_file(f"{QUOTA}\n50 5\n-50 -5\n")

    def test_what_others_append_meanwhile_stays(self) -> None:
        self.write(f"{QUOTA}\n50 5\n")

        def remove() -> Removed:
            with self.file.open("a") as file:
                file.write("7 1\n")
            return Removed(20, 2)

        keep_current(os.fsencode(self.path), QUOTA, remove)
        self.assert_file(f"{QUOTA}\n50 5\n7 1\n-20 -2\n")

    def test_what_the_removal_raises_passes_through(self) -> None:
        self.write(f"{QUOTA}\n50 5\n")
        error = PermissionError(errno.EACCES, "no")

        def remove() -> Removed:
            raise error

        raised = self.assertRaises(
            PermissionError, keep_current, os.fsencode(self.path), QUOTA, remove
        )
        self.assertIs(error, raised)
        self.assert_file(f"{QUOTA}\n50 5\n")

    def test_a_file_replaced_meanwhile_is_replaced_again(self) -> None:
        deliver(self.path, "cur/1.a:2,", b"12345")
        deliver(self.path, "cur/2.b:2,", b"123")
        self.write(f"{QUOTA}\n8 2\n")

        def remove() -> Removed:
            # The other program counts first, so that its file still holds what goes now.
            self.file.rename(self.path / "old")
            self.write(f"{QUOTA}\n8 2\n")
            return self.unlink("cur/2.b:2,")()

        self.assertEqual("", keep_current(os.fsencode(self.path), QUOTA, remove))
        self.assert_file(f"{QUOTA}\n5 1\n")

    def test_a_short_write_leads_to_a_recalculation(self) -> None:
        deliver(self.path, "cur/1.a:2,", b"12345")
        self.write(f"{QUOTA}\n50 5\n")
        real = os.write
        self.patch(
            os, "write", lambda fd, line: real(fd, line[:2] if line.startswith(b"-") else line)
        )
        self.assertEqual("", self.keep(Removed(45, 4)))
        self.assert_file(f"{QUOTA}\n5 1\n")


class NoQuotaTests(QuotaFileTestCase):
    """An account without a quota, whose file is somebody else's."""

    def test_no_file_is_made(self) -> None:
        self.assertEqual("", self.keep(Removed(1, 1), NONE))
        self.assertFalse(self.file.exists())

    def test_a_file_of_any_definition_is_kept_up(self) -> None:
        for definition in ("", "0S", "5S", "what"):
            self.write(f"{definition}\n50 5\n")
            self.assertEqual("", self.keep(Removed(20, 2), NONE))
            self.assert_file(f"{definition}\n50 5\n-20 -2\n")

    def test_an_unusable_file_is_recalculated_under_its_own_definition(self) -> None:
        deliver(self.path, "new/1.a", b"12345")
        self.write("9C,80S\nnonsense\n")
        self.assertEqual("", self.keep(quota=NONE))
        self.assert_file("80S,9C\n5 1\n")

    def test_an_unusable_file_without_a_definition_is_removed(self) -> None:
        for content in ("", "nonsense", "0S\nnonsense\n", "1 1\n" * 2000):
            self.write(content)
            self.assertEqual("", self.keep(quota=NONE))
            self.assertFalse(self.file.exists())

    def test_a_file_that_goes_meanwhile_is_not_made_again(self) -> None:
        self.write("80S\n50 5\n")

        def remove() -> Removed:
            self.file.unlink()
            return Removed(20, 2)

        self.assertEqual("", keep_current(os.fsencode(self.path), NONE, remove))
        self.assertFalse(self.file.exists())

    def test_a_file_replaced_meanwhile_keeps_its_new_definition(self) -> None:
        self.write("80S\n50 5\n")

        def remove() -> Removed:
            (self.path / "other").write_text("90S\n50 5\n")
            (self.path / "other").rename(self.file)
            return Removed(20, 2)

        self.assertEqual("", keep_current(os.fsencode(self.path), NONE, remove))
        self.assert_file("90S\n0 0\n")


class RecalculationTests(QuotaFileTestCase):
    def assert_recalculated(self, content: str | None, removed: Removed = NOTHING) -> None:
        if content is not None:
            self.write(content)
        self.assertEqual("", self.keep(removed))
        self.assert_file(f"{QUOTA}\n5 1\n")

    def test_a_file_that_cannot_be_relied_on_is_written_anew(self) -> None:
        deliver(self.path, "cur/1.a:2,", b"12345")
        for content in (
            None,
            "",
            f"{OTHER}\n5 1\n",
            "1000000S\n5 1\n",
            f"{QUOTA}\n5 1",
            f"{QUOTA}\n5 1\nnonsense\n",
            f"{QUOTA}\n-5 -1\n",
            f"{QUOTA}\n" + "1 1\n" * 1300,
        ):
            self.assert_recalculated(content)
            self.assertEqual(0o600, self.file.stat().st_mode & 0o777)

    def test_a_sum_that_would_go_below_zero_is_written_anew(self) -> None:
        deliver(self.path, "cur/1.a:2,", b"12345")
        self.assert_recalculated(f"{QUOTA}\n50 5\n", Removed(51, 1))
        self.assert_recalculated(f"{QUOTA}\n50 5\n", Removed(1, 6))

    def test_it_counts_what_is_left_after_the_removal(self) -> None:
        deliver(self.path, "cur/1.a:2,", b"12345")
        deliver(self.path, "new/2.b", b"123")
        self.assertEqual("", keep_current(os.fsencode(self.path), QUOTA, self.unlink("cur/1.a:2,")))
        self.assert_file(f"{QUOTA}\n3 1\n")

    def test_the_size_in_the_name_counts_as_delivered(self) -> None:
        for name in ("new/1.a,S=100", "cur/2.b,S=200,W=999:2,S", "cur/3.c,W=999,S=300:2,"):
            deliver(self.path, name)
        deliver(self.path, "cur/4.d,W=999:2,", b"1234")
        deliver(self.path, "cur/5.e,S=x:2,", b"12345")
        deliver(self.path, "cur/6.f:2,,S=500", b"123456")
        self.keep()
        self.assert_file(f"{QUOTA}\n615 6\n")

    def test_dotfiles_trashed_messages_and_what_is_no_file_are_left_out(self) -> None:
        for name in ("new/.1.a", "cur/2.b:2,ST", "new/3.c:2,T", "tmp/4.d"):
            deliver(self.path, name)
        (self.path / "cur/5.e").symlink_to("2.b:2,ST")
        (self.path / "cur/6.f").mkdir()
        os.mkfifo(self.path / "cur/7.g")
        for name in ("new/8.hT", "cur/9.i:1,T", "cur/10.j:2,S,T"):
            deliver(self.path, name)
        self.assertEqual("", self.keep())
        self.assertEqual(f"{QUOTA}\n6 3\n", self.file.read_text())

    def test_folders_count_but_for_the_trash_and_links(self) -> None:
        for folder in (".Sent", ".Sent.2024", "...", ".Trash", "plain"):
            deliver(make_maildir(self.path / folder), "cur/1.a:2,", b"1234567")
        (self.path / ".Link").symlink_to(".Sent")
        (self.path / ".file").write_text("x")
        (self.path / ".bare").mkdir()
        (self.path / ".linked").mkdir()
        (self.path / ".linked/cur").symlink_to("../.Sent/cur")
        self.assertEqual("", self.keep())
        self.assert_file(f"{QUOTA}\n21 3\n")

    def test_the_file_of_a_folder_is_its_mailboxs(self) -> None:
        folder = make_maildir(self.path / ".Sent")
        (folder / "maildirfolder").touch()
        deliver(folder, "cur/1.a:2,", b"123")
        deliver(self.path, "cur/1.a:2,", b"12345")
        for _ in range(2):
            self.assertEqual("", self.keep(maildir=".Sent"))
            self.assert_file(f"{QUOTA}\n8 2\n")
        self.assertTrue(is_current(os.fsencode(folder), QUOTA))
        self.assertEqual({"maildirfolder", "tmp", "new", "cur"}, set(os.listdir(folder)))

    def test_a_mailbox_that_changes_meanwhile_is_counted_again(self) -> None:
        real = os.rename

        def rename(*args: Any, **kwargs: Any) -> None:
            real(*args, **kwargs)
            deliver(self.path, "new/1.a", b"12345")

        self.patch(os, "rename", rename)
        self.assertEqual("", self.keep())
        self.assert_file(f"{QUOTA}\n5 1\n")

    def test_a_message_exchanged_for_one_of_its_size_meanwhile_is_noticed(self) -> None:
        deliver(self.path, "new/1.a")
        # Not within the same tick of the clock, where only the sums would tell.
        os.utime(self.path / "new", (0, 0))
        renamed = self.before_each_rename(
            lambda: (self.path / "new/1.a").rename(self.path / "new/2.b")
        )
        self.assertEqual("", self.keep())
        self.assertEqual(2, renamed.count("maildirsize"))

    def test_a_line_that_comes_to_the_old_file_meanwhile_is_noticed(self) -> None:
        def append() -> None:
            with self.file.open("a") as old:
                old.write("5 1\n")

        self.write("x")
        renamed = self.before_each_rename(append, append)
        self.assertEqual("", self.keep())
        self.assertEqual(3, renamed.count("maildirsize"))
        self.assert_file(f"{QUOTA}\n0 0\n")

    def before_each_rename(self, *changes: Callable[[], object]) -> list[str]:
        """Have others make one change before each rename; gives the targets of all renames."""
        real = os.rename
        left = list(changes)
        targets: list[str] = []

        def rename(source: Any, target: Any, **kwargs: Any) -> None:
            targets.append(os.fsdecode(target))
            if left and targets[-1] == "maildirsize":
                left.pop(0)()
            real(source, target, **kwargs)

        self.patch(os, "rename", rename)
        return targets

    def test_a_mailbox_that_never_rests_is_left_without_a_file(self) -> None:
        self.write("x")
        real = os.rename
        delivered: list[Path] = []

        def rename(*args: Any, **kwargs: Any) -> None:
            real(*args, **kwargs)
            delivered.append(deliver(self.path, f"new/{len(delivered)}.a"))

        self.patch(os, "rename", rename)
        self.assertEqual("", self.keep())
        self.assertEqual(3, len(delivered))
        self.assertFalse(self.file.exists())
        self.assert_tmp_is_empty()


class ObstacleTests(QuotaFileTestCase):
    """Something else in the file's place, and a disk that refuses."""

    def setUp(self) -> None:
        super().setUp()
        deliver(self.path, "cur/1.a:2,", b"12345")
        deliver(self.path, "cur/2.b:2,", b"123")

    def keep_removing(self, quota: Quota = QUOTA) -> str:
        """Keep the file current around a removal, which must not fail."""
        text = keep_current(os.fsencode(self.path), quota, self.unlink("cur/2.b:2,"))
        self.assertEqual(["cur/1.a:2,"], list(files_of(self.path)))
        self.assertNotIn("\n", text)
        self.assert_tmp_is_empty()
        deliver(self.path, "cur/2.b:2,", b"123")
        return text

    def test_a_link_is_not_followed_and_replaced_only_for_a_quota(self) -> None:
        target = self.path / "target"
        target.write_text("50S\n50 5\n")
        self.file.symlink_to("target")
        for quota in (NONE, QUOTA):
            self.assertTrue(self.file.is_symlink())
            self.assertIn("maildirsize", self.keep_removing(quota))
        self.assertEqual("50S\n50 5\n", target.read_text())
        self.assertFalse(self.file.is_symlink())
        self.assert_file(f"{QUOTA}\n5 1\n")

    def test_a_fifo_is_not_waited_for_and_replaced_only_for_a_quota(self) -> None:
        os.mkfifo(self.file)
        for quota in (NONE, QUOTA):
            self.assertTrue(self.file.is_fifo())
            self.assertEqual("'maildirsize': not a regular file", self.keep_removing(quota))
        self.assert_file(f"{QUOTA}\n5 1\n")

    def test_a_directory_stays_and_is_told(self) -> None:
        self.file.mkdir()
        for quota in (NONE, QUOTA):
            self.assertEqual("'maildirsize': Is a directory", self.keep_removing(quota))
            self.assertTrue(self.file.is_dir())

    def test_a_missing_tmp_is_told(self) -> None:
        (self.path / "tmp").rename(self.path / "gone")
        text = keep_current(os.fsencode(self.path), QUOTA, lambda: NOTHING)
        self.assertEqual("'tmp': No such file or directory", text)

    def test_a_linked_tmp_is_refused(self) -> None:
        (self.path / "tmp").rename(self.path / "gone")
        (self.path / "tmp").symlink_to("gone")
        self.assertIn("'tmp': ", self.keep_removing())
        self.assertFalse(self.file.exists())

    def test_a_missing_maildir_is_told_and_does_not_stop_the_removal(self) -> None:
        removed: list[int] = []

        def remove() -> Removed:
            removed.append(1)
            return NOTHING

        for quota in (NONE, QUOTA):
            text = keep_current(os.fsencode(self.path / "no\nwhere"), quota, remove)
            self.assertIn("No such file", text)
            self.assertNotIn("\n", text)
        self.assertEqual([1, 1], removed)

    def test_a_full_disk_leaves_no_file_that_looks_right(self) -> None:
        for function in ("write", "fsync", "rename"):
            self.write(f"{QUOTA}\n0 0\n")
            patched = self.patch(os, function, self.refusing)
            self.assertIn(os.strerror(errno.ENOSPC), self.keep_removing())
            self.assertFalse(self.file.exists())
            patched.restore()

    def test_a_short_write_of_a_new_file_is_a_full_disk(self) -> None:
        real = os.write
        self.patch(os, "write", lambda fd, line: real(fd, line[:5]))
        self.assertIn(os.strerror(errno.ENOSPC), self.keep_removing())
        self.assertFalse(self.file.exists())

    def refusing(self, *args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class InterruptionTests(QuotaFileTestCase):
    """Wherever it ends, the file is the old or the new one, whole."""

    functions = ("open", "write", "fsync", "rename", "unlink", "scandir", "fstat", "stat", "read")
    old = f"{OTHER}\n8 2\n"
    new = f"{QUOTA}\n8 2\n"

    def setUp(self) -> None:
        super().setUp()
        deliver(self.path, "cur/1.a:2,", b"12345")
        deliver(self.path, "cur/2.b:2,", b"123")
        self.real = {function: getattr(os, function) for function in self.functions}
        self.addCleanup(self.restore)

    def restore(self) -> None:
        for name, function in self.real.items():
            setattr(os, name, function)

    def die_at(self, step: int, error: BaseException, *, for_good: bool) -> list[str]:
        """Have one call that is made of the system fail, and ``for_good`` all that follow it.

        Gives the calls, which it is filled with as they are made.
        """
        calls: list[str] = []

        def dying(name: str) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                calls.append(name)
                if len(calls) == step + 1 or (for_good and len(calls) > step):
                    raise error
                return self.real[name](*args, **kwargs)

            return call

        for name in self.functions:
            setattr(os, name, dying(name))
        return calls

    def die_everywhere(self, error: BaseException, *, for_good: bool) -> set[str | None]:
        """What is left at the path, for every step there is."""
        found: set[str | None] = set()
        for step in itertools.count():
            self.write(self.old)
            calls = self.die_at(step, error, for_good=for_good)
            with contextlib.suppress(Killed):
                self.keep()
            self.restore()
            found.add(self.file.read_text() if self.file.exists() else None)
            if for_good:
                # A dead process leaves its file to whoever clears tmp/.
                for rest in (self.path / "tmp").iterdir():
                    rest.unlink()
            self.assert_tmp_is_empty()
            if len(calls) <= step:
                break
        self.assertGreater(step, 20)
        return found

    def test_killed_anywhere_it_leaves_the_old_or_the_new_file(self) -> None:
        self.assertEqual({self.old, self.new}, self.die_everywhere(Killed(), for_good=True))

    def test_unwound_anywhere_it_leaves_nothing_in_tmp_besides(self) -> None:
        self.assertEqual({self.old, self.new}, self.die_everywhere(Killed(), for_good=False))

    def test_an_error_anywhere_leaves_no_file_or_a_whole_one(self) -> None:
        error = OSError(errno.EIO, os.strerror(errno.EIO))
        self.assertEqual({None, self.new}, self.die_everywhere(error, for_good=False) - {self.old})

    def test_one_that_was_killed_is_followed_by_one_that_counts(self) -> None:
        self.write(self.old)
        self.die_at(12, Killed(), for_good=True)
        self.assertRaises(Killed, self.keep)
        self.restore()
        self.assertEqual("", self.keep())
        self.assertEqual(self.new, self.file.read_text())


class InterleavingTests(QuotaFileTestCase):
    """Every way the steps of another program can fall between those of a recalculation."""

    functions = ("read", "scandir", "rename", "fsync")

    def setUp(self) -> None:
        super().setUp()
        self.new = (self.path / "new").stat()
        self.log: list[str] = []
        self.before_call: Callable[[], None] = lambda: None
        for name in self.functions:
            self.patch(os, name, self.observed(name, getattr(os, name)))

    def observed(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """The function, after the other program has had its turn."""

        def call(*args: Any, **kwargs: Any) -> Any:
            step, self.before_call = self.before_call, lambda: None
            step()
            self.before_call = step
            reads_new = name == "scandir" and os.path.samestat(self.new, os.stat(args[0]))
            self.log.append("read new" if reads_new else name)
            # A disk's own time is of no interest here.
            return None if name == "fsync" else real(*args, **kwargs)

        return call

    def start(self, content: str | None) -> None:
        for file in files_of(self.path):
            (self.path / file).unlink()
        self.file.unlink(missing_ok=True)
        if content is not None:
            self.write(content)
        deliver(self.path, "cur/1.a:2,", b"12345")
        deliver(self.path, "cur/2.b:2,", b"123")
        self.log.clear()
        self.before_call = lambda: None

    def calls_of_a_recalculation(self) -> int:
        self.start("x")
        self.keep()
        return len(self.log)

    def delivery(self, order: tuple[str, ...], places: tuple[int, ...]) -> None:
        """Recalculate, with the steps of a delivery before the calls of these numbers."""
        steps = list(zip(places, order, strict=True))
        calls = [0]
        opened: list[int] = []

        def take(name: str) -> None:
            if name == "link":
                deliver(self.path, "new/3.c", b"1234567")
            elif name == "open" and self.file.exists():
                opened.append(os.open(self.file, os.O_WRONLY | os.O_APPEND))
            elif name == "append" and opened:
                os.write(opened[0], b"7 1\n")
            self.log.append(name)

        def turn() -> None:
            while steps and steps[0][0] <= calls[0]:
                take(steps.pop(0)[1])
            calls[0] += 1

        self.before_call = turn
        self.assertEqual("", self.keep())
        self.before_call = lambda: None
        for _, name in steps:
            take(name)
        for descriptor in opened:
            os.close(descriptor)

    def cannot_be_right(self) -> bool:
        """Whether this is one of the two interleavings the module's docstring tells."""
        at = {name: self.log.index(name) for name in ("open", "link")}
        replaced = max(index for index, name in enumerate(self.log) if name == "rename")
        reads = [index for index, name in enumerate(self.log) if name == "read new"]
        counted = max(index for index in reads if index < replaced)
        missing = at["open"] < replaced and at["link"] > reads[-1]
        twice = at["link"] < counted and at["open"] > replaced
        return missing or twice

    def check_delivery(self, order: tuple[str, ...]) -> int:
        """Check all interleavings; how many of them there were that cannot be right."""
        wrong = 0
        calls = self.calls_of_a_recalculation()
        for content in (f"{OTHER}\n8 2\n", None):
            for places in itertools.combinations_with_replacement(range(calls + 2), 3):
                self.start(content)
                self.delivery(order, places)
                # First, for to look at the disk may be noted among the calls.
                expected = not self.cannot_be_right()
                right = disk_sum(self.path) == parse(self.file.read_bytes())[1]
                self.assertEqual(right, expected, (content, places, self.log))
                wrong += not right
                self.assert_tmp_is_empty()
        return wrong

    def test_a_delivery_as_courier_makes_it_is_counted_once_but_for_the_known_case(self) -> None:
        self.assertGreater(self.check_delivery(("open", "link", "append")), 0)

    def test_a_delivery_as_dovecot_makes_it_is_counted_once_but_for_the_known_case(self) -> None:
        self.assertGreater(self.check_delivery(("link", "open", "append")), 0)

    def test_a_delivery_as_qmail_local_makes_it_is_counted_once_but_for_the_known_case(
        self,
    ) -> None:
        self.assertGreater(self.check_delivery(("open", "append", "link")), 0)

    def test_a_session_between_any_two_steps_of_another_leaves_the_right_sum(self) -> None:
        maildir = os.fsencode(self.path)
        contents = (None, "x", f"{OTHER}\n8 2\n", f"{QUOTA}\n8 2\n", f"{QUOTA}\n0 0\n")
        for content in contents:
            for quota in (QUOTA, OTHER):
                for place in range(self.calls_of_a_recalculation() + 2):
                    self.start(content)
                    calls = [0]

                    def turn(
                        calls: list[int] = calls, place: int = place, quota: Quota = quota
                    ) -> None:
                        calls[0] += 1
                        if calls[0] == place:
                            keep_current(maildir, quota, self.unlink("cur/1.a:2,"))

                    self.before_call = turn
                    self.assertEqual("", keep_current(maildir, QUOTA, self.unlink("cur/2.b:2,")))
                    self.before_call = lambda: None
                    self.assert_true_to_disk()

    def test_a_session_whose_file_is_replaced_between_its_removals_leaves_the_right_sum(
        self,
    ) -> None:
        maildir = os.fsencode(self.path)

        def remove() -> Removed:
            one = self.unlink("cur/1.a:2,")()
            self.assertEqual("", keep_current(maildir, OTHER, lambda: NOTHING))
            other = self.unlink("cur/2.b:2,")()
            return Removed(one.octets + other.octets, 2)

        for content in (None, "x", f"{OTHER}\n8 2\n", f"{QUOTA}\n8 2\n"):
            self.start(content)
            self.assertEqual("", keep_current(maildir, QUOTA, remove))
            self.assert_true_to_disk()


DELIVER = """
import os, sys
who, count = sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    content = b"x" * (number * 7 % 50 + 1)
    with open(f"tmp/{number}.{who}", "wb") as file:
        file.write(content)
    quota = os.open("maildirsize", os.O_WRONLY | os.O_APPEND)
    os.link(f"tmp/{number}.{who}", f"new/{number}.{who}")
    os.write(quota, b"%d 1\\n" % len(content))
    os.close(quota)
    os.unlink(f"tmp/{number}.{who}")
"""


class ConcurrencyTests(QuotaFileTestCase):
    """Real programs at the same time, many rounds; at the end the file says what the disk holds."""

    def test_deliveries_and_removals_at_the_same_time_are_all_counted(self) -> None:
        for number in range(10):
            deliver(self.path, f"cur/{number}.kept:2,", b"x" * 100)
        for _ in range(6):
            self.file.unlink(missing_ok=True)
            self.keep()
            inode = self.file.stat().st_ino
            deliveries = [self.start_deliveries(who) for who in "abc"]
            for process in deliveries:
                assert process.stdin is not None
                process.stdin.write(b"go\n")
                process.stdin.flush()
            while self.remove_some() or any(process.poll() is None for process in deliveries):
                pass
            self.remove_some()
            for process in deliveries:
                process.communicate()
                self.assertEqual(0, process.returncode)
            self.assertEqual([], os.listdir(self.path / "new"))
            self.assertEqual(inode, self.file.stat().st_ino)
            self.assert_true_to_disk()

    def start_deliveries(self, who: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", DELIVER, who, "60"],
            cwd=self.path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        self.assertEqual(b"ready\n", process.stdout.readline())
        return process

    def remove_some(self) -> bool:
        """Remove what is in new/; whether there was anything."""
        files = [f"new/{name}" for name in os.listdir(self.path / "new")]
        self.assertEqual("", keep_current(os.fsencode(self.path), QUOTA, self.unlink(*files)))
        return bool(files)

    def test_sessions_that_keep_replacing_the_file_leave_the_right_sum_or_no_file(self) -> None:
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1e-5)
        self.patch(os, "fsync", lambda descriptor: None)
        for _ in range(10):
            self.write("x")
            for number in range(80):
                deliver(self.path, f"cur/{number}:2,", b"x" * (number + 1))
            troubles: list[str] = []
            sessions = [
                threading.Thread(target=self.remove_every_fourth, args=(number, troubles))
                for number in range(4)
            ]
            for session in sessions:
                session.start()
            for session in sessions:
                session.join()
            self.assertEqual([""] * 64, troubles)
            self.assertEqual(16, len(files_of(self.path)))
            if self.file.exists():
                self.assert_true_to_disk()
            self.keep()
            self.assert_true_to_disk()

    def remove_every_fourth(self, first: int, troubles: list[str]) -> None:
        # Two accounts' definitions in one mailbox: nearly every session finds the other's file.
        for number in range(first, 64, 4):
            quota = (QUOTA, OTHER)[(first + number // 4 // 3) % 2]
            remove = self.unlink(f"cur/{number}:2,")
            troubles.append(keep_current(os.fsencode(self.path), quota, remove))
