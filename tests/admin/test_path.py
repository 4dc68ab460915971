"""The file of the administrator's socket."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.admin import path as path_module
from qmailldap.admin.path import LONGEST_PATH, PathTaken, PrivateSocket, bind_private, check_path
from qmailldap.options import Options


class PathTests(SynchronousTestCase):
    def setUp(self) -> None:
        # A socket's path has to be short.
        self.directory = tempfile.mkdtemp(prefix="qmailldap-admin-", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = os.path.join(self.directory, "admin")

    def bind(self) -> PrivateSocket:
        bound = bind_private(self.path)
        self.addCleanup(bound.socket.close)
        return bound

    def test_it_is_its_owners_alone_whatever_the_umask(self) -> None:
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.bind()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        self.assertEqual(os.umask(0), 0)

    def test_it_was_never_wider_for_a_moment(self) -> None:
        modes = []
        listen = socket.socket.listen

        class Watched(socket.socket):
            def bind(self, address: object) -> None:
                super().bind(address)  # type: ignore[arg-type]
                modes.append(stat.S_IMODE(os.stat(str(address)).st_mode))

        self.patch(socket, "socket", Watched)
        bound = bind_private(self.path)
        bound.socket.close()
        self.assertIsNotNone(listen)
        self.assertEqual(modes, [0o600])

    def test_one_that_a_killed_server_has_left_is_replaced(self) -> None:
        bind_private(self.path).socket.close()
        self.assertTrue(os.path.exists(self.path))
        self.bind()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.path)

    def test_one_that_a_server_listens_on_is_left_alone(self) -> None:
        bound = self.bind()
        with self.assertRaises(PathTaken) as caught:
            bind_private(self.path)
        self.assertIn("running", str(caught.exception))
        self.assertEqual(os.lstat(self.path).st_ino, bound.inode)

    def test_so_is_one_whose_server_is_too_busy_to_take_anybody(self) -> None:
        self.patch(path_module, "_BACKLOG", 0)
        self.bind()
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for each in waiting:
            self.addCleanup(each.close)
            each.setblocking(False)
            each.connect_ex(self.path)
        with self.assertRaises(PathTaken):
            bind_private(self.path)

    def test_what_is_no_socket_is_left_alone(self) -> None:
        for make in (
            lambda: open(self.path, "w").close(),
            lambda: os.mkdir(self.path),
            lambda: os.symlink("/nowhere", self.path),
        ):
            make()
            with self.assertRaises(PathTaken):
                bind_private(self.path)
            self.assertTrue(os.path.lexists(self.path))
            (os.rmdir if os.path.isdir(self.path) else os.unlink)(self.path)

    def test_the_end_removes_the_file(self) -> None:
        self.bind().remove()
        self.assertFalse(os.path.lexists(self.path))

    def test_the_end_leaves_the_file_of_another(self) -> None:
        bound = self.bind()
        os.rename(self.path, f"{self.path}.old")
        other = self.bind()
        bound.remove()
        self.assertEqual(os.lstat(self.path).st_ino, other.inode)

    def test_the_end_does_not_fail_where_the_file_is_gone(self) -> None:
        bound = self.bind()
        os.unlink(self.path)
        bound.remove()

    def test_a_directory_that_is_not_there_is_said(self) -> None:
        with self.assertRaises(FileNotFoundError):
            bind_private(os.path.join(self.directory, "missing", "admin"))

    def test_paths_that_no_socket_can_have_are_told_at_once(self) -> None:
        check_path("/" + "a" * (LONGEST_PATH - 1))
        for bad in ("", "/a\0b", "/" + "a" * LONGEST_PATH, "/" + "é" * 54):
            with self.assertRaises(ValueError):
                check_path(bad)
        # The longest that passes is one that the kernel takes.
        longest = os.path.join(self.directory, "a" * (LONGEST_PATH - len(self.directory) - 1))
        bound = bind_private(longest)
        bound.socket.close()

    def test_one_that_is_too_long_is_said_before_anything_starts(self) -> None:
        with self.assertRaises(UsageError) as caught:
            Options().parseOptions(["--admin", "/tmp/" + "a" * (LONGEST_PATH - 4)])
        self.assertRegex(str(caught.exception), "--admin /tmp/a+: .*107 octets at most")
