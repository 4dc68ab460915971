"""Tests for the UPDATE state: `Maildir.finish`, whoever else is at work in the mailbox."""

from __future__ import annotations

import errno
import os
from typing import Any

from qmailldap.maildir.scanning import Folders
from qmailldap.maildir.storage import MailboxMissing
from tests.maildir.support import deliver, files_of, make_maildir
from tests.maildir.test_storage import MaildirTestCase


class Killed(BaseException):
    """The process ends here."""


class FinishTests(MaildirTestCase):
    def finish(self, *deleted: int) -> int:
        return self.maildir.finish(frozenset(deleted)).not_removed.files

    def assert_files(self, *names: str) -> None:
        self.assertEqual(sorted(names), sorted(files_of(self.path)))

    def refuse(self, function: str, error: int, *names: bytes) -> None:
        """Have the function of ``os`` fail for the names."""
        real = getattr(os, function)

        def refusing(name: bytes, *args: Any, **kwargs: Any) -> Any:
            if name in names:
                raise OSError(error, os.strerror(error))
            return real(name, *args, **kwargs)

        self.patch(os, function, refusing)

    def test_deleted_messages_go_and_the_others_move_out_of_new(self) -> None:
        for name in ("new/1.a", "new/2.b", "cur/3.c:2,S", "cur/4.d:2,F"):
            deliver(self.path, name, name.encode())
        self.scan()
        self.assertEqual(0, self.finish(0, 2))
        self.assertEqual(
            {"cur/2.b:2,": b"new/2.b", "cur/4.d:2,F": b"cur/4.d:2,F"}, files_of(self.path)
        )

    def test_nothing_happens_before(self) -> None:
        deliver(self.path, "new/1.a")
        self.scan()
        self.assert_files("new/1.a")

    def test_an_info_part_in_new_is_kept(self) -> None:
        for name in ("new/1.a:2,FS", "new/2.b:1,x"):
            deliver(self.path, name)
        self.scan()
        self.finish()
        self.assert_files("cur/1.a:2,FS", "cur/2.b:1,x:2,")

    def test_mail_that_came_after_the_scan_is_not_touched(self) -> None:
        deliver(self.path, "new/1.a")
        self.scan()
        deliver(self.path, "new/2.b")
        self.finish(0)
        self.assert_files("new/2.b")

    def test_it_may_be_done_twice(self) -> None:
        for name in ("new/1.a", "new/2.b"):
            deliver(self.path, name)
        self.scan()
        self.assertEqual(0, self.finish(0))
        deliver(self.path, "new/3.c")
        self.assertEqual(0, self.finish(0))
        self.assert_files("cur/2.b:2,", "new/3.c")

    def test_a_deleted_message_that_was_renamed_is_found_and_removed(self) -> None:
        for name in ("new/1.a", "cur/2.b:2,", "new/3.c"):
            deliver(self.path, name)
        self.scan()
        (self.path / "new/1.a").rename(self.path / "cur/1.a:2,S")
        (self.path / "cur/2.b:2,").rename(self.path / "cur/2.b:2,T")
        self.assertEqual(0, self.finish(0, 1))
        self.assert_files("cur/3.c:2,")

    def test_a_message_renamed_all_the_time_counts_as_not_removed(self) -> None:
        path = deliver(self.path, "new/1.a")
        self.scan()
        renamed = [path.rename(self.path / "cur/1.a:2,")]
        locate = self.maildir._locate

        def disturbed(folders: Folders) -> None:
            locate(folders)
            renamed.append(renamed[-1].rename(self.path / f"cur/1.a:2,{len(renamed)}"))

        self.patch(self.maildir, "_locate", disturbed)
        self.assertEqual(1, self.finish(0))
        self.assert_files("cur/1.a:2,3")

    def test_a_message_that_somebody_else_removed_counts_as_removed(self) -> None:
        deliver(self.path, "cur/1.a:2,")
        deliver(self.path, "cur/2.b:2,")
        self.scan()
        (self.path / "cur/1.a:2,").unlink()
        self.assertEqual(0, self.finish(0, 1))
        self.assert_files()

    def test_only_the_listed_file_of_a_message_is_removed(self) -> None:
        deliver(self.path, "new/1.a", b"other")
        deliver(self.path, "cur/1.a:2,S", b"listed")
        self.scan()
        self.assertEqual(0, self.finish(0))
        self.assertEqual({"new/1.a": b"other"}, files_of(self.path))

    def test_the_file_left_out_stays_where_it_is(self) -> None:
        deliver(self.path, "new/1.a", b"other")
        deliver(self.path, "cur/1.a:2,S", b"listed")
        self.scan()
        self.finish()
        self.assert_files("new/1.a", "cur/1.a:2,S")

    def test_a_copy_is_not_removed_in_the_place_of_a_message_that_is_gone(self) -> None:
        deliver(self.path, "new/1.a", b"other")
        listed = deliver(self.path, "cur/1.a:2,S", b"listed")
        self.scan()
        listed.unlink()
        self.assertEqual(1, self.finish(0))
        self.assertEqual({"new/1.a": b"other"}, files_of(self.path))

    def test_of_two_copies_that_came_after_the_scan_none_is_removed(self) -> None:
        listed = deliver(self.path, "new/1.a", b"listed")
        self.scan()
        listed.rename(self.path / "cur/1.a:2,S")
        deliver(self.path, "cur/1.a:2,F", b"other")
        self.assertEqual(1, self.finish(0))
        self.assert_files("cur/1.a:2,S", "cur/1.a:2,F")

    def test_what_cannot_be_removed_is_counted_and_the_rest_goes_on(self) -> None:
        for name in ("cur/1.a:2,", "cur/2.b:2,", "cur/3.c:2,", "new/4.d"):
            deliver(self.path, name)
        self.scan()
        self.refuse("unlink", errno.EACCES, b"1.a:2,", b"3.c:2,")
        failures = self.maildir.finish(frozenset({0, 1, 2})).not_removed
        self.assertEqual(2, failures.files)
        self.assertIn("Permission denied", failures.first)
        self.assert_files("cur/1.a:2,", "cur/3.c:2,", "cur/4.d:2,")

    def test_a_directory_in_the_place_of_a_message_counts_as_not_removed(self) -> None:
        path = deliver(self.path, "cur/1.a:2,")
        self.scan()
        path.unlink()
        path.mkdir()
        self.assertEqual(1, self.finish(0))
        self.assertTrue(path.is_dir())

    def test_a_deleted_message_that_cannot_be_removed_is_not_moved_either(self) -> None:
        deliver(self.path, "new/1.a")
        self.scan()
        self.refuse("unlink", errno.EACCES, b"1.a")
        self.assertEqual(1, self.finish(0))
        self.assert_files("new/1.a")

    def test_another_file_under_the_same_unique_name_is_not_taken_for_the_message(self) -> None:
        path = deliver(self.path, "cur/1.a:2,", b"message")
        self.scan()
        deliver(self.path, "cur/1.a:2,S", b"other")
        path.unlink()
        self.assertEqual(1, self.finish(0))
        self.assertEqual({"cur/1.a:2,S": b"other"}, files_of(self.path))

    def test_a_failed_move_is_no_failure_but_is_told(self) -> None:
        for name in ("new/1.a", "new/2.b"):
            deliver(self.path, name)
        self.scan()
        self.refuse("rename", errno.EACCES, b"1.a")
        _, _, not_removed, not_moved = self.maildir.finish(frozenset())
        self.assertEqual((0, 1), (not_removed.files, not_moved.files))
        self.assertIn("1.a", not_moved.first)
        self.assert_files("new/1.a", "cur/2.b:2,")

    def test_a_name_too_long_for_cur_stays_in_new(self) -> None:
        name = f"new/1.{'x' * 252}"
        deliver(self.path, name)
        self.scan()
        self.assertEqual(0, self.finish())
        self.assert_files(name)

    def test_a_move_never_replaces_a_file(self) -> None:
        deliver(self.path, "new/1.a", b"message")
        self.scan()
        deliver(self.path, "cur/1.a:2,", b"other")
        self.finish()
        self.assertEqual({"new/1.a": b"message", "cur/1.a:2,": b"other"}, files_of(self.path))

    def test_a_dangling_link_is_not_replaced_either(self) -> None:
        deliver(self.path, "new/1.a")
        self.scan()
        link = self.path / "cur/1.a:2,"
        link.symlink_to("nowhere")
        self.finish()
        self.assertTrue(link.is_symlink())
        self.assertTrue((self.path / "new/1.a").exists())

    def test_a_mailbox_that_vanished_is_not_taken_for_success(self) -> None:
        deliver(self.path, "new/1.a")
        self.scan()
        self.path.rename(self.mktemp())
        self.assertRaises(MailboxMissing, self.finish, 0)

    def test_a_folder_that_vanished_took_its_messages_along(self) -> None:
        deliver(self.path, "cur/1.a:2,")
        self.scan()
        (self.path / "cur").rename(self.path / "old")
        self.assertEqual(0, self.finish(0))
        self.assertFalse((self.path / "cur").exists())

    def test_no_directory_is_ever_removed(self) -> None:
        deliver(self.path, "cur/1.a:2,")
        self.patch(os, "rmdir", lambda *args, **kwargs: self.fail("rmdir"))
        self.scan()
        self.finish(0)
        self.assertEqual({"tmp", "new", "cur"}, set(os.listdir(self.path)))


class InterruptionTests(MaildirTestCase):
    def test_wherever_it_is_interrupted_each_message_is_whole_or_was_deleted(self) -> None:
        messages = [f"new/{n}.n" for n in range(1, 6)] + [f"cur/{n}.c:2,S" for n in range(6, 11)]
        deleted = frozenset({0, 2, 5, 7, 8})
        for steps in range(len(deleted) + 3 + 1):
            self.path = make_maildir(self.mktemp())
            self.maildir = self.maildir_at(self.path)
            expected = {}
            for name in messages:
                deliver(self.path, name, name.encode())
                expected[name] = name.encode()
            self.scan()
            self.interrupt_after(steps)
            interrupted = False
            try:
                self.maildir.finish(deleted)
            except Killed:
                interrupted = True
            left = files_of(self.path)
            self.assertEqual(steps < len(deleted) + 3, interrupted)
            self.assertEqual(min(steps, len(deleted)), len(messages) - len(left))
            moved = {"new/" + name[4:-3] for name in left if name.endswith(":2,")}
            self.assertEqual(max(0, steps - len(deleted)), len(moved))
            for number, name in enumerate(messages):
                place = f"cur/{name[4:]}:2," if name in moved else name
                if number not in deleted or place in left:
                    self.assertEqual(expected[name], left[place])
            # The next session finds a valid Maildir and finishes the work.
            self.restore()
            again = self.maildir_at(self.path)
            files = again.scan().files
            numbers = [int(file[4:].partition(b".")[0]) - 1 for file in files]
            marked = frozenset(i for i, number in enumerate(numbers) if number in deleted)
            self.assertEqual(0, again.finish(marked).not_removed.files)
            self.assertEqual(
                ["cur/10.c:2,S", "cur/2.n:2,", "cur/4.n:2,", "cur/5.n:2,", "cur/7.c:2,S"],
                sorted(files_of(self.path)),
            )

    def interrupt_after(self, steps: int) -> None:
        """Let the process die at the change of the disk that follows so many."""
        self.real = (os.unlink, os.rename)
        done: list[str] = []

        def dying(function: Any) -> Any:
            def change(*args: Any, **kwargs: Any) -> None:
                if len(done) == steps:
                    raise Killed
                done.append(function.__name__)
                function(*args, **kwargs)

            return change

        os.unlink, os.rename = dying(os.unlink), dying(os.rename)
        self.addCleanup(self.restore)

    def restore(self) -> None:
        os.unlink, os.rename = self.real
