"""The console script `qmailldap` as a whole: what is common to its commands."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from qmailldap.commands import COMMANDS

PROGRAM = "from qmailldap.commands import main; raise SystemExit(main())"


class OutputTests(SynchronousTestCase):
    def run_with(self, redirection: str, *arguments: str) -> tuple[int, str]:
        command = f'exec "$0" -c "$@" {redirection}'
        done = subprocess.run(
            ["sh", "-c", command, sys.executable, PROGRAM, *arguments],
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stderr

    def test_what_cannot_be_written_is_no_success(self) -> None:
        for redirection, expected in (
            (">/dev/full", "qmailldap: standard output: No space left on device\n"),
            (">&-", "qmailldap: standard output is closed\n"),
        ):
            found = self.run_with(redirection, "digest", "-t", "sha", "secret")
            self.assertEqual(found, (1, expected))

    def test_help_names_every_command(self) -> None:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, "--help"], capture_output=True, text=True, check=True
        )
        for command in COMMANDS:
            self.assertIn(f"\n    {command} ", done.stdout)
