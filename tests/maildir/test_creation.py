"""Tests for `qmailldap.maildir.creation`."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

from twisted.trial.unittest import SynchronousTestCase

from qmailldap.maildir.creation import MailboxNotCreated, provide_home, provide_maildir
from qmailldap.maildir.dirmaker import Dirmaker
from qmailldap.maildir.storage import MailboxCorrupted
from tests.maildir.support import open_descriptors

ENVIRONMENT = {b"PATH": b"/usr/bin:/bin"}
FOLDERS = ("tmp", "cur", "new")


def status_of(process: int) -> list[str] | None:
    """State, parent, group and session of a process; None if it is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()[:4]
    except (FileNotFoundError, ProcessLookupError):
        return None


def children() -> set[int]:
    """The children of this process, zombies included."""
    processes = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return {
        process
        for process in processes
        if (status := status_of(process)) and status[1] == str(os.getpid())
    }


class CreationTestCase(SynchronousTestCase):
    """Starts with an empty folder; ends with the descriptors and children that it started with."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.home = self.folder / "home"
        self.mailbox = self.home / "Maildir"
        before = open_descriptors(), children()
        self.addCleanup(lambda: self.assertEqual(before, (open_descriptors(), children())))

    def provide(self, dirmaker: Dirmaker | None = None) -> None:
        provide_home(os.fsencode(self.home), dirmaker)
        provide_maildir(os.fsencode(self.mailbox))

    def refused(self, dirmaker: Dirmaker | None = None) -> MailboxNotCreated:
        with self.assertRaises(MailboxNotCreated) as caught:
            self.provide(dirmaker)
        error: MailboxNotCreated = caught.exception
        return error

    def assert_corrupted(self, path: Path) -> None:
        with self.assertRaises(MailboxCorrupted) as caught:
            self.provide()
        error = caught.exception
        self.assertEqual(
            (errno.ENOTDIR, "something other than a directory is there", os.fsencode(path)),
            (error.errno, error.strerror, error.filename),
        )

    def assert_whole(self) -> None:
        self.assertEqual(set(FOLDERS), set(os.listdir(self.mailbox)))
        for folder in FOLDERS:
            self.assertTrue(stat.S_ISDIR((self.mailbox / folder).lstat().st_mode))


class MaildirTests(CreationTestCase):
    """The home is there."""

    def setUp(self) -> None:
        super().setUp()
        self.home.mkdir()

    def test_a_missing_maildir_is_made_for_its_owner_only(self) -> None:
        self.provide()
        self.assert_whole()
        for path in (self.mailbox, *self.mailbox.iterdir()):
            self.assertEqual(0o700, stat.S_IMODE(path.stat().st_mode))

    def test_tmp_cur_and_new_are_made_in_this_order(self) -> None:
        made: list[str] = []
        mkdir = os.mkdir

        def watched(path: bytes, mode: int) -> None:
            made.append(Path(os.fsdecode(path)).name)
            mkdir(path, mode)

        self.patch(os, "mkdir", watched)
        self.provide()
        self.assertEqual(["Maildir", "tmp", "cur", "new"], made)

    def test_what_was_begun_is_completed(self) -> None:
        for present in range(len(FOLDERS) + 1):
            self.mailbox = self.home / f"Maildir-{present}"
            self.mailbox.mkdir()
            for folder in FOLDERS[:present]:
                (self.mailbox / folder).mkdir()
            self.provide()
            self.assert_whole()

    def test_what_is_there_is_not_changed(self) -> None:
        self.home.chmod(0o755)
        (self.mailbox / "cur").mkdir(parents=True)
        self.mailbox.chmod(0o750)
        (self.mailbox / "cur").chmod(0o711)
        (self.mailbox / "cur/1.a:2,").write_bytes(b"kept")
        self.provide()
        for path, mode in (
            (self.home, 0o755),
            (self.mailbox, 0o750),
            (self.mailbox / "cur", 0o711),
        ):
            self.assertEqual(mode, stat.S_IMODE(path.stat().st_mode))
        self.assertEqual(b"kept", (self.mailbox / "cur/1.a:2,").read_bytes())

    def test_a_dirmaker_is_not_run_for_a_home_that_is_there(self) -> None:
        self.provide(Dirmaker(b"/nowhere/dirmaker", b"./Maildir/", ENVIRONMENT))
        self.assert_whole()

    def test_symbolic_links_on_the_way_home_are_fine(self) -> None:
        (self.folder / "link").symlink_to(self.home)
        self.home = self.folder / "link"
        self.provide()
        self.assert_whole()

    def test_the_maildir_may_be_a_symbolic_link_to_a_directory(self) -> None:
        (self.folder / "elsewhere").mkdir()
        self.mailbox.symlink_to(self.folder / "elsewhere")
        self.provide()
        self.assertTrue(self.mailbox.is_symlink())
        self.assert_whole()

    def test_a_slash_at_the_end_does_not_matter(self) -> None:
        for _ in range(2):
            provide_home(os.fsencode(self.home) + b"/", None)
            provide_maildir(os.fsencode(self.mailbox) + b"/")
        self.assert_whole()

    def test_a_maildir_that_is_a_symbolic_link_to_nowhere_is_corrupted(self) -> None:
        self.mailbox.symlink_to(self.folder / "nowhere")
        self.assert_corrupted(self.mailbox)
        self.assertFalse((self.folder / "nowhere").exists())

    def test_a_file_in_place_of_the_home_the_maildir_or_a_folder_is_corrupted(self) -> None:
        for name in ("", "Maildir", "Maildir/tmp", "Maildir/cur", "Maildir/new"):
            self.home = self.folder / f"home-{name.replace('/', '-')}"
            self.mailbox = self.home / "Maildir"
            file = self.home / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"")
            self.assert_corrupted(file)

    def test_a_symbolic_link_in_place_of_a_folder_is_corrupted(self) -> None:
        (self.folder / "elsewhere").mkdir()
        self.mailbox.mkdir()
        for folder in FOLDERS:
            (self.mailbox / folder).symlink_to(self.folder / "elsewhere")
            self.assert_corrupted(self.mailbox / folder)
            (self.mailbox / folder).unlink()

    def test_a_file_on_the_way_to_the_home_or_the_maildir_is_corrupted(self) -> None:
        (self.home / "file").write_bytes(b"")
        self.mailbox = self.home / "file" / "Maildir"
        self.assert_corrupted(self.mailbox)
        self.home = self.home / "file" / "home"
        self.assert_corrupted(self.home)

    def test_parents_of_the_maildir_are_not_made(self) -> None:
        self.mailbox = self.home / "mail" / "Maildir"
        error = self.refused()
        self.assertEqual(
            (errno.ENOENT, os.strerror(errno.ENOENT), os.fsencode(self.mailbox)),
            (error.errno, error.strerror, error.filename),
        )
        self.assertEqual([], os.listdir(self.home))

    def test_a_folder_that_cannot_be_made_is_told_with_the_reason(self) -> None:
        def full(path: bytes, mode: int) -> None:
            if path.endswith(b"/cur"):
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), path)
            self.mkdir(path, mode)

        self.mkdir = os.mkdir
        self.patch(os, "mkdir", full)
        error = self.refused()
        self.assertEqual(
            (errno.EDQUOT, os.strerror(errno.EDQUOT), os.fsencode(self.mailbox / "cur")),
            (error.errno, error.strerror, error.filename),
        )

    def test_a_folder_that_appears_meanwhile_is_fine_if_it_is_a_directory(self) -> None:
        def late(path: bytes, mode: int) -> None:
            self.mkdir(path, mode)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)

        self.mkdir = os.mkdir
        self.patch(os, "mkdir", late)
        self.provide()
        self.assert_whole()

    def test_a_file_that_appears_meanwhile_is_corrupted(self) -> None:
        def late(path: bytes, mode: int) -> None:
            Path(os.fsdecode(path)).write_bytes(b"")
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)

        self.patch(os, "mkdir", late)
        self.assert_corrupted(self.mailbox)

    def test_other_errors_pass_as_they_are(self) -> None:
        self.home = self.folder / "loop"
        self.home.symlink_to("loop")
        with self.assertRaises(OSError) as caught:
            self.provide()
        self.assertIs(OSError, type(caught.exception))
        self.assertEqual(errno.ELOOP, caught.exception.errno)
        self.assertEqual(os.fsencode(self.home), caught.exception.filename)

    def test_a_name_too_long_is_no_missing_mailbox(self) -> None:
        for name in ("x" * 300, "/".join(["x" * 200] * 30)):
            self.mailbox = self.home / name
            with self.assertRaises(OSError) as caught:
                self.provide()
            self.assertIs(OSError, type(caught.exception))
            self.assertEqual(errno.ENAMETOOLONG, caught.exception.errno)
        self.assertEqual([], os.listdir(self.home))

    def test_what_may_not_be_looked_at_is_neither_missing_nor_made(self) -> None:
        def denied(path: Any, **_: Any) -> NoReturn:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

        for function in ("stat", "lstat"):
            patched = self.patch(os, function, denied)
            self.assertRaises(PermissionError, self.provide)
            patched.restore()
            # The second time, only the folders are hidden.
            self.mailbox.mkdir(exist_ok=True)
        self.assertEqual([], os.listdir(self.mailbox))

    def test_a_home_that_goes_while_the_maildir_is_made_is_told(self) -> None:
        provide_home(os.fsencode(self.home), None)
        self.home.rmdir()
        with self.assertRaises(MailboxNotCreated) as caught:
            provide_maildir(os.fsencode(self.mailbox))
        self.assertEqual(errno.ENOENT, caught.exception.errno)

    def test_a_maildir_that_goes_while_its_folders_are_made_is_told(self) -> None:
        def swept(path: bytes, mode: int) -> None:
            self.mkdir(path, mode)
            os.rmdir(path)

        self.mkdir = os.mkdir
        self.patch(os, "mkdir", swept)
        self.assertEqual(errno.ENOENT, self.refused().errno)
