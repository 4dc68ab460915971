"""The process that looks at a mailbox: what it is asked and what it answers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import qmailldap
from qmailldap.maildir.inspection import encode, inspect
from qmailldap.maildir.storage import MailboxMissing
from qmailldap.maildir.work import Place
from qmailldap.privsep import wire
from qmailldap.privsep.inspector import START, read_answer, write_request

from ..root import require_root

ANN = (21001, 22001)


def ask(
    request: bytes, limit: int = 20, program: str = START
) -> subprocess.CompletedProcess[bytes]:
    """Start it as `qmailldap lookup` does, and give it a request."""
    package = Path(qmailldap.__file__).resolve().parent.parent
    command = [sys.executable, "-I", "-S", "-B", "-c", program, str(package), str(limit)]
    return subprocess.run(command, input=request, capture_output=True, timeout=60)


class InspectorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        (self.home / "Maildir" / "new").mkdir(parents=True)
        self.place = Place(os.fsencode(self.home), os.fsencode(self.home / "Maildir"))

    def test_it_answers_what_a_look_finds(self) -> None:
        found, error = read_answer(ask(write_request(self.place, 0, 0)).stdout)
        self.assertIsNone(error)
        self.assertEqual((found, None), inspect(self.place))

    def test_an_error_keeps_its_kind_and_text(self) -> None:
        place = self.place._replace(home=b"/nonexistent", mailbox=b"/nonexistent/Maildir")
        _, error = read_answer(ask(write_request(place, 0, 0)).stdout)
        self.assertIsInstance(error, MailboxMissing)
        self.assertEqual(error and error.filename, b"/nonexistent")

    def test_a_dirmaker_is_looked_at_where_the_home_is_missing(self) -> None:
        place = self.place._replace(home=b"/nonexistent", mailbox=b"/nonexistent/Maildir")
        request = write_request(place._replace(dirmaker=b"/bin/no-such-program"), 0, 0)
        found, _ = read_answer(ask(request).stdout)
        self.assertTrue(found.makes_home)
        self.assertIn("/bin/no-such-program", found.hindrances[0])

    def test_it_is_its_owner_and_nobody_else_when_it_looks(self) -> None:
        require_root("becomes another user")
        program = START.replace(
            "from qmailldap.privsep.inspector import main;",
            "import os; from qmailldap.privsep import inspector; main = inspector.main;"
            " inspector.inspect = lambda place: sys.exit("
            "repr((os.getresuid(), os.getresgid(), os.getgroups())));",
        )
        ended = ask(write_request(self.place, *ANN), program=program)
        uid, gid = ANN
        self.assertEqual(ended.stderr.decode().strip(), repr(((uid,) * 3, (gid,) * 3, [])))

    def test_only_what_it_takes_is_loaded(self) -> None:
        program = START.replace(
            "main(int(sys.argv[2]))", "print(*sorted(name.split('.')[0] for name in sys.modules))"
        )
        loaded = set(ask(b"", program=program).stdout.decode().split())
        self.assertIn("qmailldap", loaded)
        self.assertLessEqual(
            loaded - {"qmailldap", "sitecustomize"}, sys.stdlib_module_names | {"__main__"}
        )

    def test_one_that_takes_too_long_ends_by_itself(self) -> None:
        program = START.replace(
            "from qmailldap.privsep.inspector import main;",
            "import time; from qmailldap.privsep import inspector; main = inspector.main;"
            " inspector.inspect = lambda place: time.sleep(100);",
        )
        ended = ask(write_request(self.place, 0, 0), limit=1, program=program)
        self.assertLess(ended.returncode, 0)
        self.assertEqual(ended.stdout, b"")

    def test_a_request_that_is_none_is_not_answered(self) -> None:
        for request in (b"", b"nonsense", wire.frame([b"a", b"b", b"c"])):
            ended = ask(request)
            self.assertNotEqual(ended.returncode, 0)
            self.assertEqual(ended.stdout, b"")

    @given(st.binary() | st.lists(st.binary()).map(wire.frame))
    def test_what_is_no_answer_is_a_value_error(self, octets: bytes) -> None:
        self.assertRaises(ValueError, read_answer, octets)

    def test_what_follows_an_answer_must_be_an_error(self) -> None:
        found, _ = inspect(self.place)
        self.assertEqual(read_answer(wire.frame([b"ok", encode(found)])), (found, None))
        for wrong in ([b"OSError"], [b"KeyError", b"1", b"x", b""], [b"OSError", b"x", b"", b""]):
            answer = wire.frame([b"ok", encode(found), *wrong])
            self.assertRaises(ValueError, read_answer, answer)
