"""Running a program: what it finds, and that it is not waited for without end.

What concerns dirmakers as well is in `test_dirmaker`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from qmailldap.maildir.programs import NotStarted, run

LIMIT = 30.0


class RunTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)

    def shell(self, body: str, *arguments: bytes) -> list[bytes]:
        return [b"/bin/sh", b"-c", body.encode(), b"sh", *arguments]

    def test_its_code_and_its_output_come_back(self) -> None:
        ended = run(self.shell("echo out; echo err >&2; exit 7"), {}, LIMIT)
        self.assertEqual(ended, (7, b"out\nerr\n"))

    def test_it_gets_arguments_and_environment_and_nothing_else(self) -> None:
        seen = self.folder / "seen"
        body = 'cat /proc/$$/environ >"$1"; ls /proc/$$/fd'
        ended = run(self.shell(body, os.fsencode(seen)), {b"A": b"b"}, LIMIT)
        self.assertEqual(ended, (0, b"0\n1\n2\n"))
        self.assertEqual(seen.read_bytes(), b"A=b\0")

    def test_without_its_output_it_writes_to_nowhere_and_complains_to_the_callers_log(self) -> None:
        program = (
            "import os, sys; print('out')\n"
            "for number in (0, 1): print(os.readlink(f'/proc/self/fd/{number}'), file=sys.stderr)\n"
            "sys.exit(3)"
        )
        text = (
            "import os, sys; from qmailldap.maildir.programs import run\n"
            f"arguments = [os.fsencode(sys.executable), b'-c', {program.encode()!r}]\n"
            "print(tuple(run(arguments, {}, 30, keep_output=False)))"
        )
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
        self.assertEqual(done.stdout, "(3, b'')\n")
        self.assertEqual(done.stderr, "/dev/null\n/dev/null\n")

    def test_one_that_takes_too_long_is_killed(self) -> None:
        for keep_output in (True, False):
            ended = run(self.shell("exec sleep 1000"), {}, 0.1, keep_output=keep_output)
            self.assertIsNone(ended.code)

    def test_one_that_is_not_there_is_told(self) -> None:
        error = self.assertRaises(NotStarted, run, [b"/nonexistent"], {}, LIMIT)
        self.assertEqual(error.strerror, "No such file or directory")

    def test_no_descriptor_is_left(self) -> None:
        before = os.listdir("/proc/self/fd")
        run(self.shell("exit"), {}, LIMIT)
        run(self.shell("exit"), {}, LIMIT, keep_output=False)
        self.assertRaises(NotStarted, run, [b"/nonexistent"], {}, LIMIT, keep_output=False)
        self.assertEqual(os.listdir("/proc/self/fd"), before)
