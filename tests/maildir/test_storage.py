"""Tests for `qmailldap.maildir.storage` and `qmailldap.maildir.scanning`."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.maildir import names, scanning
from qmailldap.maildir.names import unique_name
from qmailldap.maildir.storage import (
    STALE_AFTER,
    Listing,
    MailboxCorrupted,
    MailboxMissing,
    Maildir,
)
from tests.maildir.support import deliver, files_of, make_maildir, open_descriptors

NOW = 1_700_000_000.0
message_names = (
    st.binary(min_size=1, max_size=60)
    .map(lambda name: name.translate(None, b"\0/"))
    .filter(lambda name: name and not name.startswith(b"."))
)


class MaildirTestCase(SynchronousTestCase):
    """Starts with an empty Maildir, and ends with as many descriptors as it started with."""

    def setUp(self) -> None:
        self.path = make_maildir(self.mktemp())
        self.maildir = self.maildir_at(self.path)
        before = open_descriptors()
        self.addCleanup(lambda: self.assertEqual(before, open_descriptors()))

    def maildir_at(self, path: Path) -> Maildir:
        return Maildir(os.fsencode(path), time=lambda: NOW)

    def scan(self) -> Listing:
        return self.maildir.scan()

    def read(self, index: int) -> bytes:
        descriptor, size = self.maildir.open(index)
        with open(descriptor, "rb") as file:
            content = file.read()
        self.assertEqual(size, len(content))
        return content


class ScanTests(MaildirTestCase):
    def test_an_empty_maildir_has_no_messages(self) -> None:
        listing = self.scan()
        self.assertEqual((), listing.files)
        self.assertEqual([], listing.sizes.tolist())
        self.assertFalse(listing.has_new)

    def test_new_and_cur_are_one_list_in_the_order_of_the_numbers(self) -> None:
        for name in ("new/30.a", "cur/4.b:2,S", "new/100.c", "cur/20.d:2,"):
            deliver(self.path, name)
        listing = self.scan()
        self.assertEqual((b"cur/4.b:2,S", b"cur/20.d:2,", b"new/30.a", b"new/100.c"), listing.files)
        self.assertTrue(listing.has_new)

    def test_messages_of_one_second_are_ordered_by_name(self) -> None:
        for name in ("cur/5.b:2,", "new/5.c", "new/5.a"):
            deliver(self.path, name)
        self.assertEqual((b"new/5.a", b"cur/5.b:2,", b"new/5.c"), self.scan().files)

    def test_a_name_without_number_is_ordered_by_the_time_it_was_written(self) -> None:
        for name, written in (("new/10.a", 99), ("new/zero", 5), ("new/0.b", 15), ("new/7", 12)):
            os.utime(deliver(self.path, name), (100 - written, written))
        self.assertEqual((b"new/zero", b"new/10.a", b"new/7", b"new/0.b"), self.scan().files)

    def test_the_size_comes_from_the_name_else_from_the_file(self) -> None:
        for name in ("new/1.a,S=1000", "new/2.a,S=1000,W=1025", "cur/3.a:2,,S=9", "new/4.a,S=x"):
            deliver(self.path, name, b"seven\r\n")
        self.assertEqual([1000, 1025, 7, 7], self.scan().sizes.tolist())

    def test_only_regular_files_without_a_leading_dot_are_messages(self) -> None:
        deliver(self.path, "cur/1.message:2,")
        deliver(self.path, "new/.hidden")
        (self.path / "cur/2.folder").mkdir()
        os.mkfifo(self.path / "cur/3.fifo")
        (self.path / "new/4.link").symlink_to((self.path / "cur/1.message:2,").absolute())
        (self.path / "new/5.dangling").symlink_to("nowhere")
        with socket.socket(socket.AF_UNIX) as listener:
            here = os.getcwd()
            os.chdir(self.path / "new")  # The path of a socket must be short.
            self.addCleanup(os.chdir, here)
            listener.bind("6.socket")
        os.chdir(here)
        self.assertEqual((b"cur/1.message:2,",), self.scan().files)

    def test_a_unique_name_in_both_folders_is_listed_once(self) -> None:
        deliver(self.path, "new/1.a")
        deliver(self.path, "cur/1.a:2,S")
        self.assertEqual((b"cur/1.a:2,S",), self.scan().files)

    def test_a_unique_name_twice_in_cur_is_listed_once(self) -> None:
        for flags in "TSF":
            deliver(self.path, f"cur/1.a:2,{flags}")
        self.assertEqual((b"cur/1.a:2,F",), self.scan().files)

    def test_a_message_that_vanishes_while_it_is_looked_at_is_left_out(self) -> None:
        deliver(self.path, "new/1.stays")
        deliver(self.path, "new/2.goes")
        # Both are unlisted sizes; the second goes while the name of the first is looked at.
        look = names.size_in_name

        def size_in_name(unique: bytes) -> int | None:
            if unique == b"2.goes":
                (self.path / "new/2.goes").unlink(missing_ok=True)
            return look(unique)

        self.patch(scanning, "size_in_name", size_in_name)
        self.assertEqual((b"new/1.stays",), self.scan().files)

    def test_a_folder_that_changes_during_the_scan_is_read_again(self) -> None:
        deliver(self.path, "new/1.a,S=1")
        os.utime(self.path / "new", (1, 1))
        look = names.size_in_name

        def size_in_name(unique: bytes) -> int | None:
            if unique == b"1.a,S=1":
                deliver(self.path, "cur/2.b,S=2:2,S")
                (self.path / "cur/2.b,S=2:2,S").rename(self.path / "new/2.b,S=2")
            return look(unique)

        self.patch(scanning, "size_in_name", size_in_name)
        self.assertEqual((b"new/1.a,S=1", b"new/2.b,S=2"), self.scan().files)

    def test_folders_that_never_rest_are_not_read_for_ever(self) -> None:
        deliver(self.path, "new/1.a,S=1")
        reads: list[int] = []

        def last_changes(folders: scanning.Folders) -> list[int]:
            reads.append(0)
            return list(reads)

        self.patch(scanning, "_last_changes", last_changes)
        self.assertEqual((b"new/1.a,S=1",), self.scan().files)
        self.assertEqual(3, len(reads) // 2)

    def test_a_message_moved_from_new_to_cur_between_the_two_is_not_missed(self) -> None:
        deliver(self.path, "new/1.a,S=1")
        self.patch(scanning, "_last_changes", lambda folders: [])
        listed = scanning.regular_files

        def regular_files(descriptor: int) -> Any:
            entries = list(listed(descriptor))
            if (self.path / "new/1.a,S=1").exists():
                (self.path / "new/1.a,S=1").rename(self.path / "cur/1.a,S=1:2,S")
            return entries

        self.patch(scanning, "regular_files", regular_files)
        self.assertEqual((b"cur/1.a,S=1:2,S",), self.scan().files)

    @given(st.sets(message_names, max_size=8), st.sets(message_names, max_size=8))
    @settings(deadline=None, max_examples=60)
    def test_any_names_at_all_are_listed_and_opened(
        self, in_new: set[bytes], in_cur: set[bytes]
    ) -> None:
        path = make_maildir(self.mktemp())
        for folder, delivered in (("new", in_new), ("cur", in_cur)):
            for name in delivered:
                file = f"{folder}/".encode() + name
                deliver(path, file, file)
        self.maildir = self.maildir_at(path)
        listing = self.maildir.scan()
        expected = {unique_name(name) for name in in_new | in_cur}
        self.assertEqual(sorted(expected), sorted(unique_name(file[4:]) for file in listing.files))
        self.assertEqual(
            len(expected), len({listing.unique_id(index) for index in range(len(listing.files))})
        )
        for index, file in enumerate(listing.files):
            self.assertEqual(file, self.read(index))


class FaultyMailboxTests(MaildirTestCase):
    def assert_every_step_raises(self, fault: type[OSError], path: Path) -> None:
        maildir = self.maildir_at(path)
        self.assertRaises(fault, maildir.scan)
        self.assertRaises(fault, maildir.finish, frozenset())

    def test_a_missing_maildir_or_home_is_told_apart(self) -> None:
        self.assert_every_step_raises(MailboxMissing, self.path / "none")
        self.assert_every_step_raises(MailboxMissing, self.path / "no/home/Maildir")
        self.assertRaises(MailboxMissing, self.maildir_at(self.path / "none").clean_tmp)

    def test_a_file_in_the_place_of_the_maildir_is_corruption(self) -> None:
        deliver(self.path, "file")
        self.assert_every_step_raises(MailboxCorrupted, self.path / "file")
        self.assert_every_step_raises(MailboxCorrupted, self.path / "file/Maildir")

    def test_a_file_in_the_place_of_a_folder_is_corruption(self) -> None:
        for folder in ("new", "cur"):
            path = make_maildir(self.mktemp())
            (path / folder).rmdir()
            deliver(path, folder)
            self.assert_every_step_raises(MailboxCorrupted, path)

    def test_a_symbolic_link_in_the_place_of_a_folder_is_corruption(self) -> None:
        elsewhere = make_maildir(self.mktemp())
        deliver(elsewhere, "new/1.secret")
        for folder in ("new", "cur"):
            path = make_maildir(self.mktemp())
            (path / folder).rmdir()
            (path / folder).symlink_to(elsewhere.absolute() / "new")
            self.assert_every_step_raises(MailboxCorrupted, path)

    def test_tmp_must_be_a_directory_too(self) -> None:
        (self.path / "tmp").rmdir()
        (self.path / "tmp").symlink_to(self.path.absolute() / "new")
        self.assertRaises(MailboxCorrupted, self.maildir.clean_tmp)

    def test_a_folder_that_is_missing_is_empty(self) -> None:
        deliver(self.path, "new/1.a")
        (self.path / "cur").rmdir()
        (self.path / "tmp").rmdir()
        self.assertEqual(0, self.maildir.clean_tmp().files)
        self.assertEqual((b"new/1.a",), self.scan().files)
        self.assertEqual(0, self.maildir.finish(frozenset()).not_removed.files)
        self.assertEqual({b"new/1.a"}, set(self.scan().files))

    def test_the_maildir_may_be_reached_through_symbolic_links(self) -> None:
        deliver(self.path, "new/1.a")
        link = Path(self.mktemp())
        link.symlink_to(self.path.absolute().parent)
        self.assertEqual((b"new/1.a",), self.maildir_at(link / self.path.name).scan().files)

    def test_any_other_fault_is_shown_as_it_is(self) -> None:
        def refuse(*args: object, **kwargs: object) -> int:
            raise PermissionError(13, "Permission denied")

        self.patch(os, "open", refuse)
        error = self.assertRaises(PermissionError, self.maildir.scan)
        self.assertEqual("Permission denied", error.strerror)
        failures = self.maildir.clean_tmp()
        self.assertEqual((1, "'tmp': Permission denied"), (failures.files, failures.first))


class CleanTmpTests(MaildirTestCase):
    def put(self, name: str, read_at: float) -> Path:
        path = deliver(self.path, f"tmp/{name}")
        os.utime(path, (read_at, NOW))
        return path

    def test_a_file_not_read_for_36_hours_goes(self) -> None:
        stale = self.put("stale", NOW - STALE_AFTER - 1)
        fresh = self.put("fresh", NOW - STALE_AFTER)
        self.assertEqual(36 * 60 * 60, STALE_AFTER)
        self.assertEqual(0, self.maildir.clean_tmp().files)
        self.assertFalse(stale.exists())
        self.assertTrue(fresh.exists())

    def test_only_regular_files_without_a_leading_dot_go(self) -> None:
        dot = self.put(".nfs01", 0)
        folder = self.path / "tmp/folder"
        folder.mkdir()
        link = self.path / "tmp/link"
        link.symlink_to(dot.absolute())
        os.utime(link, (0, 0), follow_symlinks=False)
        self.maildir.clean_tmp()
        self.assertTrue(dot.exists() and folder.exists() and link.is_symlink())

    def test_what_cannot_be_removed_is_counted_and_the_rest_goes_on(self) -> None:
        for number in range(3):
            self.put(f"{number}", 0)
        unlink = os.unlink

        def refuse(name: str, **kwargs: Any) -> None:
            if name != "1":
                raise PermissionError(13, "Permission denied")
            unlink(name, **kwargs)

        self.patch(os, "unlink", refuse)
        failures = self.maildir.clean_tmp()
        self.assertEqual(2, failures.files)
        self.assertIn("Permission denied", failures.first)
        self.assertFalse((self.path / "tmp/1").exists())

    def test_a_file_that_somebody_else_removed_is_no_failure(self) -> None:
        path = self.put("stale", 0)
        unlink = os.unlink

        def late(name: str, **kwargs: Any) -> None:
            unlink(path)
            unlink(name, **kwargs)

        self.patch(os, "unlink", late)
        self.assertEqual(0, self.maildir.clean_tmp().files)

    def test_the_work_of_one_login_is_bounded(self) -> None:
        for number in range(1100):
            self.put(f"{number}", 0)
        self.maildir.clean_tmp()
        self.assertEqual(100, len(os.listdir(self.path / "tmp")))
        self.maildir.clean_tmp()
        self.assertEqual([], os.listdir(self.path / "tmp"))


class OpenTests(MaildirTestCase):
    def count_rescans(self) -> list[None]:
        rescans: list[None] = []
        read = scanning._read

        def counted(folders: scanning.Folders) -> Any:
            rescans.append(None)
            return read(folders)

        self.patch(scanning, "_read", counted)
        return rescans

    def test_a_message_is_read_with_its_true_size(self) -> None:
        deliver(self.path, "new/1.a,S=99999", b"twelve chars")
        self.scan()
        self.assertEqual(b"twelve chars", self.read(0))

    def test_a_message_that_was_renamed_is_found_again(self) -> None:
        path = deliver(self.path, "new/1.a", b"one")
        self.scan()
        path = path.rename(self.path / "cur/1.a:2,")
        self.assertEqual(b"one", self.read(0))
        path.rename(self.path / "cur/1.a:2,RS")
        self.assertEqual(b"one", self.read(0))

    def test_any_number_of_renamed_messages_costs_one_rescan(self) -> None:
        for number in range(1, 51):
            deliver(self.path, f"new/{number}.a", b"%d" % number)
        self.scan()
        for number in range(1, 51):
            (self.path / f"new/{number}.a").rename(self.path / f"cur/{number}.a:2,S")
        rescans = self.count_rescans()
        self.assertEqual([b"%d" % n for n in range(1, 51)], [self.read(n) for n in range(50)])
        self.assertEqual(1, len(rescans))

    def test_any_number_of_vanished_messages_costs_one_rescan(self) -> None:
        for number in range(1, 51):
            deliver(self.path, f"new/{number}.a")
        self.scan()
        for number in range(1, 51):
            (self.path / f"new/{number}.a").unlink()
        rescans = self.count_rescans()
        for number in range(50):
            self.assertRaises(FileNotFoundError, self.maildir.open, number)
        self.assertEqual(1, len(rescans))

    def test_a_message_renamed_all_the_time_is_given_up_in_the_end(self) -> None:
        path = deliver(self.path, "new/1.a")
        self.scan()
        rescans: list[Path] = [path.rename(self.path / "cur/1.a:2,")]
        locate = self.maildir._locate

        def disturbed(folders: scanning.Folders) -> None:
            locate(folders)
            rescans.append(rescans[-1].rename(self.path / f"cur/1.a:2,{len(rescans)}"))

        self.patch(self.maildir, "_locate", disturbed)
        self.assertRaises(FileNotFoundError, self.maildir.open, 0)
        self.assertEqual(4, len(rescans))

    def test_mail_that_came_after_the_scan_does_not_change_the_numbers(self) -> None:
        path = deliver(self.path, "new/5.a", b"five")
        self.scan()
        deliver(self.path, "new/1.b", b"one")
        path.rename(self.path / "cur/5.a:2,")
        self.assertEqual(b"five", self.read(0))

    def test_the_copy_of_a_message_is_not_taken_for_it(self) -> None:
        deliver(self.path, "new/1.a", b"copy")
        listed = deliver(self.path, "cur/1.a:2,S", b"listed")
        self.scan()
        self.assertEqual(b"listed", self.read(0))
        listed.unlink()
        self.assertRaises(FileNotFoundError, self.maildir.open, 0)

    def test_a_fifo_in_the_place_of_a_message_neither_hangs_nor_opens(self) -> None:
        path = deliver(self.path, "new/1.a")
        self.scan()
        path.unlink()
        os.mkfifo(path)
        self.assertRaises(OSError, self.maildir.open, 0)

    def test_a_link_or_folder_in_the_place_of_a_message_does_not_open(self) -> None:
        path = deliver(self.path, "new/1.a")
        self.scan()
        path.unlink()
        path.symlink_to("/etc/passwd")
        self.assertRaises(OSError, self.maildir.open, 0)
        path.unlink()
        path.mkdir()
        self.assertRaises(OSError, self.maildir.open, 0)

    def test_a_folder_turned_into_a_link_does_not_open(self) -> None:
        deliver(self.path, "new/1.a")
        self.scan()
        (self.path / "new").rename(self.path / "old")
        (self.path / "new").symlink_to("old")
        self.assertRaises(MailboxCorrupted, self.maildir.open, 0)

    def test_a_folder_or_maildir_that_vanished_is_a_message_that_is_gone(self) -> None:
        deliver(self.path, "new/1.a")
        self.scan()
        (self.path / "new").rename(self.path / "old")
        self.assertRaises(FileNotFoundError, self.maildir.open, 0)
        other = make_maildir(self.mktemp())
        deliver(other, "new/1.a")
        maildir = self.maildir_at(other)
        maildir.scan()
        other.rename(self.mktemp())
        self.assertRaises(MailboxMissing, maildir.open, 0)

    def test_reading_changes_nothing(self) -> None:
        deliver(self.path, "new/1.a", b"one")
        before = files_of(self.path)
        self.scan()
        self.read(0)
        self.assertEqual(before, files_of(self.path))
