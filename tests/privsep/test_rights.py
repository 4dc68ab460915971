"""As whom the network process runs, and that it is nobody else."""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import sys
from dataclasses import dataclass

from twisted.trial.unittest import SynchronousTestCase

from qmailldap.privsep import rights
from qmailldap.privsep.rights import Identity, UnknownIdentity, find_identity
from tests.root import require_root


@dataclass
class User:
    pw_name: str
    pw_uid: int
    pw_gid: int


@dataclass
class Group:
    gr_name: str
    gr_gid: int


USERS = [
    User("root", 0, 0),
    User("qmaild", 7791, 2108),
    User("nobody", 65534, 65534),
    User("ann", 1000, 1000),
    User("toor", 0, 100),
    User("operator", 37, 0),
    User("1000", 4711, 4711),
    User("odd", 1001, 2**32 - 1),
]
GROUPS = [Group("root", 0), Group("nofiles", 2108), Group("ann", 1000), Group("42", 4242)]


class FindTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.users = list(USERS)
        by = {"pw_name": self.users, "pw_uid": self.users, "gr_name": GROUPS, "gr_gid": GROUPS}
        for module, function, field in (
            (pwd, "getpwnam", "pw_name"),
            (pwd, "getpwuid", "pw_uid"),
            (grp, "getgrnam", "gr_name"),
            (grp, "getgrgid", "gr_gid"),
        ):

            def find(value: object, field: str = field) -> object:
                for each in by[field]:  # type: ignore[attr-defined]
                    if getattr(each, field) == value:
                        return each
                raise KeyError(value)

            self.patch(module, function, find)

    def refused(self, user: str = "", group: str = "") -> str:
        with self.assertRaises(UnknownIdentity) as caught:
            find_identity(user, group)
        return str(caught.exception)

    def test_a_user_is_found_by_name_or_number(self) -> None:
        ann = Identity("ann", "ann", 1000, 1000)
        self.assertEqual(find_identity("ann"), ann)
        self.assertEqual(str(ann), "ann:ann")
        self.assertEqual(find_identity("65534"), Identity("nobody", "65534", 65534, 65534))

    def test_a_name_of_digits_is_a_name_first(self) -> None:
        self.assertEqual(find_identity("1000").uid, 4711)
        self.assertEqual(find_identity("ann", "42").gid, 4242)

    def test_a_group_takes_the_place_of_the_user_s(self) -> None:
        self.assertEqual(find_identity("ann", "nofiles"), Identity("ann", "nofiles", 1000, 2108))
        self.assertEqual(find_identity("ann", "77"), Identity("ann", "77", 1000, 77))
        self.assertEqual(find_identity("operator", "nofiles").gid, 2108)

    def test_by_default_it_is_the_first_that_there_is_of_two(self) -> None:
        self.assertEqual(find_identity(), Identity("qmaild", "nofiles", 7791, 2108))
        self.users.pop(1)
        self.assertEqual(find_identity().user, "nobody")
        self.users.pop(1)
        self.assertEqual(
            self.refused(), "--user: name one, as this host has neither qmaild nor nobody"
        )

    def test_who_is_unknown_is_named(self) -> None:
        self.assertEqual(self.refused("eve"), "--user eve: no user is called that")
        self.assertEqual(self.refused("12345"), "--user 12345: no user has that id")
        self.assertEqual(self.refused("-1"), "--user -1: no user is called that")
        self.assertIn("no user is called that", self.refused("9" * 11))
        self.assertEqual(self.refused("ann", "wheel"), "--group wheel: no group is called that")

    def test_root_is_refused_whatever_it_is_called(self) -> None:
        for user in ("root", "0", "toor"):
            self.assertIn("without root's rights", self.refused(user))
            self.assertIn("without root's rights", self.refused(user, "ann"))

    def test_root_s_group_is_refused(self) -> None:
        for user, group in (("operator", ""), ("ann", "root"), ("ann", "0"), ("ann", "000")):
            self.assertIn("root's", self.refused(user, group))

    def test_a_group_that_setresgid_takes_for_the_present_one_is_refused(self) -> None:
        for user, group in (("ann", "4294967295"), ("ann", "9999999999"), ("odd", "")):
            self.assertIn("no group has such an id", self.refused(user, group))


BECOME = """
import json, os, sys, threading
from qmailldap.privsep.rights import Identity, become
tried, gone = threading.Event(), []
started = threading.Event()

def other():
    started.set()
    tried.wait(30)
    gone.append([os.getresuid(), os.getresgid(), os.getgroups()])

thread = threading.Thread(target=other)
thread.start()
started.wait(30)
os.setgroups([0, 4, 27])
error = ""
try:
    become(Identity("x", "x", int(sys.argv[1]), int(sys.argv[2])))
except OSError as raised:
    error = type(raised).__name__
tried.set()
thread.join()
gone.append([os.getresuid(), os.getresgid(), os.getgroups()])
back = []
for name, ids in (("setuid", [0]), ("setresuid", [0, 0, 0]), ("setgid", [0]), ("setgroups", [[0]])):
    try:
        getattr(os, name)(*ids)
        back.append(name)
    except PermissionError:
        pass
print(json.dumps([error, gone, back]))
"""


class BecomeTests(SynchronousTestCase):
    def setUp(self) -> None:
        require_root("becomes another user")

    def become(self, uid: int, gid: int) -> tuple[str, list[object], list[str]]:
        """In a child: what `become` raises, the ids of two threads, and ways back to root."""
        folder = os.path.dirname(os.path.dirname(os.path.dirname(rights.__file__)))
        printed = subprocess.check_output(
            [sys.executable, "-c", BECOME, str(uid), str(gid)],
            env={**os.environ, "PYTHONPATH": folder},
        )
        error, ids, back = json.loads(printed)
        return error, ids, back

    def test_all_rights_of_root_are_given_up_in_every_thread_and_for_ever(self) -> None:
        ids = [[20125] * 3, [20126] * 3, []]
        self.assertEqual(self.become(20125, 20126), ("", [ids, ids], []))

    def test_rights_that_were_not_given_up_are_an_error(self) -> None:
        self.assertEqual(self.become(20125, 2**32 - 1)[0], "PermissionError")
        self.assertEqual(self.become(2**32 - 1, 20126)[0], "PermissionError")
