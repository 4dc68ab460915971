"""Tests for `qmailldap.maildir.work`: all file work of a session, and what it takes to load it."""

from __future__ import annotations

import array
import errno
import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from qmailldap.maildir.creation import MailboxNotCreated
from qmailldap.maildir.storage import MailboxCorrupted, MailboxMissing, Maildir
from qmailldap.maildir.work import Begun, Place, Unchanged, Work
from qmailldap.quota import Quota
from tests.maildir.support import (
    deliver,
    files_of,
    let_rest,
    make_maildir,
    open_descriptors,
)

ROOT = Path(__file__).parent.parent.parent
NOW = 1_700_000_000.0
QUOTA = Quota(1_000_000, 1000)

HEAVY = {
    "asyncio",
    "attr",
    "concurrent",
    "ctypes",
    "dataclasses",
    "hashlib",
    "hmac",
    "inspect",
    "json",
    "logging",
    "multiprocessing",
    "pathlib",
    "random",
    "shutil",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "twisted",
    "zope",
}
"""What a process of root's is to do without: it takes time and memory at every fork, or trust."""


class WeightTests(SynchronousTestCase):
    """A broker loads this as root, and every keeper is a fork of it."""

    def loaded(self) -> set[str]:
        program = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); import qmailldap.maildir.work;"
            " print(*sys.modules)"
        )
        command = [sys.executable, "-I", "-S", "-c", program]
        return set(subprocess.run(command, check=True, capture_output=True).stdout.decode().split())

    def test_it_loads_the_standard_library_and_itself(self) -> None:
        rooms = {name.partition(".")[0] for name in self.loaded()}
        self.assertIn("qmailldap", rooms)
        self.assertEqual(set(), rooms - sys.stdlib_module_names - {"qmailldap", "__main__"})

    def test_it_loads_little_of_that(self) -> None:
        self.assertEqual(set(), self.loaded() & HEAVY)

    def test_of_our_own_it_loads_only_what_works_on_files(self) -> None:
        ours = {name for name in self.loaded() if name.startswith("qmailldap.")}
        others = {name for name in ours if not name.startswith("qmailldap.maildir")}
        self.assertEqual({"qmailldap.quota"}, others)
        front = {f"qmailldap.maildir.{name}" for name in ("hands", "mailbox", "message")}
        self.assertEqual(set(), ours & front)


class WorkTestCase(SynchronousTestCase):
    """Starts with an empty home; ends with the descriptors that it started with."""

    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.home.mkdir()
        self.path = self.home / "Maildir"
        self.place = Place(os.fsencode(self.home), os.fsencode(self.path), b"./Maildir/")
        before = open_descriptors()
        self.addCleanup(lambda: self.assertEqual(before, open_descriptors()))

    def work(self, begun: Begun | None = None) -> Work:
        return Work(self.place, begun, time=lambda: NOW)

    def have(self, *files: str) -> None:
        """A whole Maildir of these messages, the contents their names."""
        if not self.path.exists():
            make_maildir(self.path)
        for file in files:
            deliver(self.path, file, file.encode())


class BeginTests(WorkTestCase):
    def test_it_lists_what_is_there(self) -> None:
        self.have("new/2.b", "cur/1.a:2,S")
        begun = self.work().begin()
        self.assertEqual(os.fsencode(self.path), begun.path)
        self.assertEqual((b"cur/1.a:2,S", b"new/2.b"), begun.listing.files)
        self.assertEqual((0, True), (begun.not_cleaned.files, begun.quota_is_current))

    def test_what_is_missing_of_the_maildir_is_made(self) -> None:
        self.assertEqual((), self.work().begin().listing.files)
        self.assertEqual({"tmp", "cur", "new"}, set(os.listdir(self.path)))

    def test_a_folder_that_is_missing_is_made_beside_the_mail(self) -> None:
        self.have("new/1.a")
        (self.path / "tmp").rmdir()
        self.assertEqual((b"new/1.a",), self.work().begin().listing.files)
        self.assertTrue((self.path / "tmp").is_dir())

    def test_where_all_is_there_nothing_is_made(self) -> None:
        self.have()
        self.patch(os, "mkdir", lambda *args, **kwargs: self.fail("mkdir"))
        self.work().begin()

    def test_a_whole_maildir_elsewhere_needs_no_home(self) -> None:
        self.have("new/1.a")
        self.place = self.place._replace(home=os.fsencode(self.home / "none"))
        self.assertEqual((b"new/1.a",), self.work().begin().listing.files)

    def test_its_faults_are_told_apart(self) -> None:
        self.place = self.place._replace(home=os.fsencode(self.home / "none"))
        self.assertRaises(MailboxMissing, self.work().begin)
        self.place = self.place._replace(dirmaker=b"/nowhere/dirmaker")
        self.assertRaises(MailboxNotCreated, self.work().begin)
        self.place = self.place._replace(home=os.fsencode(self.home))
        self.path.touch()
        self.assertRaises(MailboxCorrupted, self.work().begin)

    def test_a_name_too_long_is_none_of_them(self) -> None:
        long = os.fsencode(self.home / ("x" * 300))
        for place in (
            self.place._replace(mailbox=long),
            self.place._replace(home=long, mailbox=long + b"/Maildir"),
        ):
            error = self.assertRaises(OSError, Work(place).begin)
            self.assertIs(OSError, type(error))
            self.assertEqual(errno.ENAMETOOLONG, error.errno)

    def test_a_symbolic_link_in_place_of_a_folder_is_not_followed(self) -> None:
        other = make_maildir(self.home / "other")
        deliver(other, "new/1.secret")
        for folder in ("tmp", "new", "cur"):
            self.have()
            (self.path / folder).rmdir()
            (self.path / folder).symlink_to(other / "new")
            self.assertRaises(MailboxCorrupted, self.work().begin)
            (self.path / folder).unlink()
            (self.path / folder).mkdir()

    def test_a_maildir_that_goes_at_the_worst_time_is_missing(self) -> None:
        self.have("new/1.a")
        real = Maildir.is_complete

        def looked(maildir: Maildir) -> bool:
            complete = real(maildir)
            self.path.rename(self.home / "gone")
            return complete

        self.patch(Maildir, "is_complete", looked)
        self.assertRaises(MailboxMissing, self.work().begin)
        self.assertFalse(self.path.exists())

    def test_tmp_is_tidied_and_what_cannot_be_is_told(self) -> None:
        self.have()
        for number in range(2):
            os.utime(deliver(self.path, f"tmp/{number}"), (0, NOW))
        unlink = os.unlink

        def refuse(name: str, **kwargs: int) -> None:
            if name == "1":
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            unlink(name, **kwargs)

        self.patch(os, "unlink", refuse)
        self.assertEqual(1, self.work().begin().not_cleaned.files)
        self.assertEqual(["1"], os.listdir(self.path / "tmp"))

    def test_it_tells_whether_the_quota_file_needs_attention(self) -> None:
        self.have()
        self.assertTrue(self.work().begin().quota_is_current)
        self.place = self.place._replace(quota=QUOTA)
        self.assertFalse(self.work().begin().quota_is_current)
        (self.path / "maildirsize").write_text(f"{QUOTA}\n0 0\n")
        self.assertTrue(self.work().begin().quota_is_current)


class BeginAgainTests(WorkTestCase):
    """A session in a mailbox whose listing is known."""

    def setUp(self) -> None:
        super().setUp()
        self.have("new/1.a", "cur/2.b:2,")
        let_rest(self.path)
        self.begun = self.work().begin()
        assert self.begun.snapshot is not None
        self.token = self.begun.snapshot.token

    def again(self) -> Begun | Unchanged:
        return self.work().begin_again(self.token)

    def listed(self) -> tuple[bytes, ...]:
        """What was read anew."""
        again = self.again()
        assert isinstance(again, Begun)
        return again.listing.files

    def test_where_nothing_changed_nothing_is_read(self) -> None:
        self.patch(os, "scandir", lambda *arguments: self.fail("scandir"))
        self.assertEqual(Unchanged(os.fsencode(self.path), True), self.again())

    def test_whatever_changes_is_seen(self) -> None:
        deliver(self.path, "new/3.c")
        self.assertEqual((b"new/1.a", b"cur/2.b:2,", b"new/3.c"), self.listed())
        (self.path / "cur/2.b:2,").rename(self.path / "cur/2.b:2,S")
        self.assertEqual((b"new/1.a", b"cur/2.b:2,S", b"new/3.c"), self.listed())
        (self.path / "new/1.a").unlink()
        self.assertEqual((b"cur/2.b:2,S", b"new/3.c"), self.listed())

    def test_other_directories_of_the_same_content_are_a_change(self) -> None:
        (self.path / "cur").rename(self.home / "old")
        (self.path / "cur").mkdir()
        (self.home / "old/2.b:2,").rename(self.path / "cur/2.b:2,")
        self.assertEqual(self.begun.listing.files, self.listed())

    def test_what_is_missing_is_made(self) -> None:
        for folder in ("tmp", "cur", "new"):
            for file in (self.path / folder).iterdir():
                file.unlink()
            (self.path / folder).rmdir()
            again = self.again()
            assert isinstance(again, Begun)
            self.assertTrue(again.was_made)
            self.assertTrue((self.path / folder).is_dir())

    def test_a_symbolic_link_in_place_of_a_folder_is_not_followed(self) -> None:
        for folder in ("tmp", "new", "cur"):
            (self.path / folder).rename(self.home / "elsewhere")
            (self.path / folder).symlink_to(self.home / "elsewhere")
            self.assertRaises(MailboxCorrupted, self.again)
            (self.path / folder).unlink()
            (self.home / "elsewhere").rename(self.path / folder)

    def test_a_mailbox_that_is_gone_is_missing(self) -> None:
        self.path.rename(self.home / "gone")
        self.place = self.place._replace(home=os.fsencode(self.home / "none"))
        self.assertRaises(MailboxMissing, self.again)

    def test_the_quota_file_is_looked_at_all_the_same(self) -> None:
        self.place = self.place._replace(quota=QUOTA)
        self.assertEqual(Unchanged(os.fsencode(self.path), False), self.again())
        (self.path / "maildirsize").write_text(f"{QUOTA}\n0 0\n")
        self.assertEqual(Unchanged(os.fsencode(self.path), True), self.again())

    def test_so_is_dot_qmail(self) -> None:
        self.place = self.place._replace(asks_dot_qmail=True)
        self.assertIsInstance(self.again(), Unchanged)
        (self.home / ".qmail").write_text("./other/\n")
        make_maildir(self.home / "other")
        self.assertEqual((), self.listed())

    def test_it_goes_on_with_the_listing_that_was_known(self) -> None:
        work = self.work()
        unchanged = work.begin_again(self.token)
        assert isinstance(unchanged, Unchanged)
        work.resume(unchanged.with_listing(self.begun.listing))
        self.assertEqual(b"cur/2.b:2,", work.fetch(1)[0].first)
        self.assertEqual(0, work.finish({0}).not_removed.files)
        self.assertEqual({"cur/2.b:2,"}, set(files_of(self.path)))
        self.assertEqual((b"cur/2.b:2,",), self.listed())


class DotQmailTests(WorkTestCase):
    """A local user, whose ~/.qmail may name another mailbox."""

    def setUp(self) -> None:
        super().setUp()
        self.place = self.place._replace(asks_dot_qmail=True)

    def names(self, mailbox: str) -> None:
        (self.home / ".qmail").write_text(f"{mailbox}\n")

    def test_the_mailbox_it_names_is_opened(self) -> None:
        self.names("./mail/")
        deliver(make_maildir(self.home / "mail"), "new/1.a")
        begun = self.work().begin()
        self.assertEqual(os.fsencode(f"{self.home}/./mail"), begun.path)
        self.assertEqual((b"new/1.a",), begun.listing.files)
        self.assertFalse(self.path.exists())

    def test_the_mailbox_it_names_is_made(self) -> None:
        self.names("./mail/")
        self.work().begin()
        self.assertTrue((self.home / "mail/cur").is_dir())
        self.assertFalse(self.path.exists())

    def test_where_it_names_none_the_default_is_opened(self) -> None:
        self.names("|program")
        self.have("new/1.a")
        self.assertEqual((b"new/1.a",), self.work().begin().listing.files)

    def test_it_is_not_asked_where_the_directory_names_the_mailbox(self) -> None:
        self.names("./mail/")
        self.place = self.place._replace(asks_dot_qmail=False)
        self.assertEqual(os.fsencode(self.path), self.work().begin().path)

    def test_one_that_a_new_home_came_with_is_heeded(self) -> None:
        program = self.home / "dirmaker"
        program.write_text('#!/bin/sh\nmkdir "$1" && echo ./mail/ > "$1/.qmail"\n')
        program.chmod(0o755)
        home = self.home / "new-home"
        self.place = self.place._replace(
            home=os.fsencode(home),
            mailbox=os.fsencode(home / "Maildir"),
            dirmaker=os.fsencode(program),
            environment={b"PATH": os.environb[b"PATH"]},
        )
        self.work().begin()
        self.assertEqual({".qmail", "mail"}, set(os.listdir(home)))

    def test_a_file_for_a_home_is_corruption(self) -> None:
        file = self.home / "file"
        file.touch()
        self.place = self.place._replace(
            home=os.fsencode(file), mailbox=os.fsencode(file / "Maildir")
        )
        self.assertRaises(MailboxCorrupted, self.work().begin)


class SessionTests(WorkTestCase):
    """From the listing to QUIT, in one object and in two."""

    def setUp(self) -> None:
        super().setUp()
        self.have("new/1.a", "cur/2.b:2,", "cur/3.c:2,S")
        self.begun = self.work().begin()

    def test_messages_are_fetched_by_their_numbers(self) -> None:
        work = self.work()
        work.begin()
        opened = [message.first for message in work.fetch(1)]
        self.assertEqual([b"cur/2.b:2,", b"cur/3.c:2,S"], opened)

    def test_another_object_goes_on_where_one_began(self) -> None:
        opened = [message.first for message in self.work(self.begun).fetch(0)]
        self.assertEqual([b"new/1.a", b"cur/2.b:2,", b"cur/3.c:2,S"], opened)
        self.work(self.begun).finish({0})
        self.assertEqual({"cur/2.b:2,", "cur/3.c:2,S"}, set(files_of(self.path)))

    def test_it_finds_what_was_renamed_meanwhile(self) -> None:
        (self.path / "new/1.a").rename(self.path / "cur/1.a:2,S")
        (self.path / "cur/2.b:2,").rename(self.path / "cur/2.b:2,R")
        work = self.work(self.begun)
        self.assertEqual(b"new/1.a", work.fetch(0)[0].first)
        self.assertEqual(0, self.work(self.begun).finish({1}).not_removed.files)
        self.assertEqual({"cur/1.a:2,S", "cur/3.c:2,S"}, set(files_of(self.path)))

    def test_it_does_not_take_another_message_for_one_that_is_gone(self) -> None:
        (self.path / "new/1.a").unlink()
        deliver(self.path, "new/0.z")
        work = self.work(self.begun)
        self.assertRaises(FileNotFoundError, work.fetch, 0)
        self.assertEqual(b"cur/2.b:2,", work.fetch(1)[0].first)
        self.assertEqual(0, self.work(self.begun).finish({0}).not_removed.files)
        self.assertIn("new/0.z", files_of(self.path))

    def test_it_does_not_take_a_copy_for_a_message(self) -> None:
        deliver(self.path, "cur/4.d:2,", b"listed")
        deliver(self.path, "new/4.d", b"copy")
        begun = self.work().begin()
        (self.path / "cur/4.d:2,").unlink()
        work = self.work(begun)
        self.assertRaises(FileNotFoundError, work.fetch, 3)
        self.assertEqual(1, work.finish({3}).not_removed.files)
        self.assertEqual(b"copy", files_of(self.path)["new/4.d"])

    def test_it_stays_in_the_mailbox_that_was_begun(self) -> None:
        self.place = self.place._replace(asks_dot_qmail=True)
        (self.home / ".qmail").write_text("./other/\n")
        make_maildir(self.home / "other")
        self.assertEqual(b"new/1.a", self.work(self.begun).fetch(0)[0].first)

    def test_of_a_mailbox_that_vanished_nothing_was_removed(self) -> None:
        self.path.rename(self.home / "gone")
        self.assertRaises(MailboxMissing, self.work(self.begun).finish, {0})
        self.assertEqual(3, len(files_of(self.home / "gone")))


class QuotaTests(WorkTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.place = self.place._replace(quota=QUOTA)
        make_maildir(self.path)
        self.file = self.path / "maildirsize"

    def finish(self, *deleted: int) -> str:
        work = self.work()
        work.begin()
        return work.finish(set(deleted)).quota_problem

    def test_what_was_removed_is_subtracted(self) -> None:
        deliver(self.path, "cur/1.a,S=100,W=110:2,", b"not looked at")
        deliver(self.path, "cur/2.b:2,", b"12345")
        deliver(self.path, "cur/3.c:2,", b"123")
        self.file.write_text(f"{QUOTA}\n108 3\n")
        self.assertEqual("", self.finish(0, 1))
        self.assertEqual(f"{QUOTA}\n108 3\n-105 -2\n", self.file.read_text())

    def test_only_what_was_really_removed_is_subtracted(self) -> None:
        for name in ("cur/1.gone:2,", "cur/2.refused:2,", "cur/3.renamed:2,", "cur/4.kept:2,"):
            deliver(self.path, name, b"12345")
        self.file.write_text(f"{QUOTA}\n20 4\n")
        work = self.work()
        work.begin()
        (self.path / "cur/1.gone:2,").unlink()
        (self.path / "cur/3.renamed:2,").rename(self.path / "cur/3.renamed:2,S")
        unlink = os.unlink

        def refuse(name: bytes, **kwargs: int) -> None:
            if b"refused" in name:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            unlink(name, **kwargs)

        self.patch(os, "unlink", refuse)
        finished = work.finish({0, 1, 2})
        self.assertEqual((1, ""), (finished.not_removed.files, finished.quota_problem))
        self.assertEqual(f"{QUOTA}\n20 4\n-5 -1\n", self.file.read_text())

    def test_messages_flagged_for_the_trash_were_not_counted(self) -> None:
        deliver(self.path, "cur/1.a:2,T", b"12345")
        deliver(self.path, "new/2.b:2,T", b"12345")
        deliver(self.path, "cur/3.c:2,", b"123")
        self.file.write_text(f"{QUOTA}\n3 1\n")
        self.assertEqual("", self.finish(0, 1, 2))
        self.assertEqual(f"{QUOTA}\n3 1\n-3 -1\n", self.file.read_text())

    def test_one_that_was_flagged_during_the_session_was_subtracted_by_who_did_it(self) -> None:
        deliver(self.path, "cur/1.a:2,", b"12345")
        self.file.write_text(f"{QUOTA}\n5 1\n-5 -1\n")
        work = self.work()
        work.begin()
        (self.path / "cur/1.a:2,").rename(self.path / "cur/1.a:2,T")
        self.assertEqual("", work.finish({0}).quota_problem)
        self.assertEqual(f"{QUOTA}\n5 1\n-5 -1\n", self.file.read_text())

    def test_a_session_that_removes_nothing_makes_a_missing_file(self) -> None:
        deliver(self.path, "cur/1.a:2,", b"12345")
        self.assertEqual("", self.finish())
        self.assertEqual(f"{QUOTA}\n5 1\n", self.file.read_text())
        self.assertTrue(self.work().begin().quota_is_current)

    def test_a_problem_with_the_file_stops_no_removal(self) -> None:
        deliver(self.path, "cur/1.a:2,")
        self.file.mkdir()
        self.assertEqual("'maildirsize': Is a directory", self.finish(0))
        self.assertEqual({}, files_of(self.path))

    def test_a_mailbox_that_is_a_trash_folder_is_not_counted_and_not_subtracted(self) -> None:
        deliver(self.path, "cur/1.a:2,", b"12345")
        trash = make_maildir(self.path / ".Trash")
        (trash / "maildirfolder").touch()
        deliver(trash, "cur/2.b:2,", b"123")
        self.file.write_text(f"{QUOTA}\n5 1\n")
        self.place = self.place._replace(mailbox=os.fsencode(trash))
        self.assertEqual("", self.finish(0))
        self.assertEqual({}, files_of(trash))
        self.assertEqual(f"{QUOTA}\n5 1\n", self.file.read_text())

    def test_the_listing_is_of_the_size_with_crlf_and_the_quota_is_not(self) -> None:
        deliver(self.path, "cur/1.a,S=100,W=110:2,")
        work = self.work()
        self.assertEqual(array.array("q", [110]), work.begin().listing.sizes)
        work.finish({0})
        self.assertEqual(f"{QUOTA}\n0 0\n", self.file.read_text())


class EnterTests(SynchronousTestCase):
    """Home and mailbox made ready for a program that reads the mail by itself."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir(parents=True)
        self.home = self.root / "home"
        self.addCleanup(os.chdir, os.getcwd())

    def enter(self, mailbox: str = "home/Maildir", asks_dot_qmail: bool = False) -> bytes:
        place = Place(
            os.fsencode(self.home),
            os.fsencode(self.root / mailbox),
            asks_dot_qmail=asks_dot_qmail,
        )
        path, self.was_made = Work(place).enter()
        return path

    def test_the_home_is_the_working_directory_and_the_mailbox_is_complete(self) -> None:
        self.home.mkdir()
        path = self.enter()
        self.assertEqual(os.getcwd(), str(self.home))
        self.assertEqual(os.fsdecode(path), str(self.home / "Maildir"))
        for folder in ("", "tmp", "new", "cur"):
            self.assertEqual((self.home / "Maildir" / folder).stat().st_mode & 0o777, 0o700)
        self.assertTrue(self.was_made)

    def test_what_is_there_stays_as_it_is(self) -> None:
        self.home.mkdir()
        maildir = make_maildir(self.home / "Maildir")
        deliver(maildir, "new/1700000000.1.mx", b"x")
        before = files_of(maildir)
        self.enter()
        self.assertEqual(files_of(maildir), before)
        self.assertFalse(self.was_made)

    def test_a_home_is_needed_even_where_the_mailbox_is_elsewhere_and_complete(self) -> None:
        make_maildir(self.root / "mail")
        self.assertRaises(MailboxMissing, self.enter, "mail")

    def test_the_mailbox_that_dot_qmail_names_is_the_one(self) -> None:
        self.home.mkdir()
        (self.home / ".qmail").write_text("./Mail/\n")
        self.assertEqual(
            os.path.normpath(os.fsdecode(self.enter(asks_dot_qmail=True))), str(self.home / "Mail")
        )
        self.assertFalse((self.home / "Maildir").exists())

    def test_a_file_in_the_way_is_told(self) -> None:
        self.home.mkdir()
        (self.home / "Maildir").write_text("")
        self.assertRaises(MailboxCorrupted, self.enter)
