"""The completion of bash: what is in the files is what the programs take, and bash completes so."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.commands import COMMANDS
from qmailldap.options import LOG_FORMATS, Options
from qmailldap.passwords.making import TYPES

CONTRIB = Path(__file__).parent.parent / "contrib" / "completion"
_LIMIT = 20


def generator() -> ModuleType:
    specification = spec_from_file_location("completion_generator", CONTRIB / "generate.py")
    assert specification is not None and specification.loader is not None
    module = module_from_spec(specification)
    # Its dataclasses look for it there.
    sys.modules[module.__name__] = module
    specification.loader.exec_module(module)
    return module


def completed(program: str, *words: str, directory: Path = CONTRIB) -> list[str]:
    """What real bash offers for the last of the words, broken as bash breaks them."""
    script = f"""
        source {CONTRIB}/bash/{program}
        cd {directory}
        COMP_WORDS=({program} "$@") COMP_CWORD=$#
        _{program}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    finished = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", *words],
        capture_output=True,
        text=True,
        timeout=_LIMIT,
        check=True,
    )
    assert not finished.stderr, finished.stderr
    return finished.stdout.split()


class FileTests(SynchronousTestCase):
    def test_they_are_as_the_programs_are(self) -> None:
        for name, text in generator().completions().items():
            self.assertEqual(
                (CONTRIB / name).read_text(), text, f"{name}: make completion writes it anew"
            )

    def test_zsh_can_read_what_it_is_given(self) -> None:
        text = (CONTRIB / "zsh" / "_qmailldap").read_text()
        self.assertTrue(text.startswith("#compdef qmailldap\n"))
        # An option is [text]: what would end it early is escaped.
        for line in text.splitlines():
            if line.strip().startswith("'") and "[" in line:
                plain = line.replace("\\[", "").replace("\\]", "")
                self.assertEqual((plain.count("["), plain.count("]")), (1, 1), line)


class QmailldapTests(SynchronousTestCase):
    def test_commands_come_first(self) -> None:
        self.assertLessEqual({*COMMANDS, "--version"}, {*completed("qmailldap", "")})

    def test_a_command_is_completed_by_its_beginning(self) -> None:
        self.assertEqual(completed("qmailldap", "loo"), ["lookup"])

    def test_a_command_has_its_own_options(self) -> None:
        self.assertEqual(completed("qmailldap", "showctl", "--ch"), ["--check"])
        self.assertEqual(completed("qmailldap", "lookup", "--ch"), [])

    def test_values_are_completed(self) -> None:
        self.assertEqual({*completed("qmailldap", "digest", "-t", "")}, {*TYPES, "all"})
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / "control").mkdir()
            (Path(directory) / "control.old").touch()
            offered = completed(
                "qmailldap", "showctl", "--control", "con", directory=Path(directory)
            )
        self.assertEqual(offered, ["control"])


class TwistdTests(SynchronousTestCase):
    def test_the_server_is_offered_beside_the_options_of_twistd(self) -> None:
        offered = completed("twistd", "-n", "")
        self.assertLessEqual({"qmailldap-pop3", "--pidfile", "--nodaemon"}, {*offered})

    def test_all_options_of_the_server_are_offered_behind_its_name(self) -> None:
        offered = completed("twistd", "-n", "--pidfile", "=", "qmailldap-pop3", "--")
        self.assertEqual({*offered}, {f"--{name.rstrip('=')}" for name in Options().longOpt})

    def test_values_are_completed_however_they_are_written(self) -> None:
        for words in (["--log-format", ""], ["--log-format", "="], ["--log-format", "=", ""]):
            offered = completed("twistd", "qmailldap-pop3", *words)
            self.assertEqual({*offered}, {*LOG_FORMATS})

    def test_users_are_completed(self) -> None:
        self.assertIn("root", completed("twistd", "qmailldap-pop3", "-u", "roo"))

    def test_zsh_is_answered_by_twisted_itself(self) -> None:
        directory = Path(tempfile.mkdtemp())
        shown = directory / "shown"
        with open(shown, "w") as file:
            options = Options()
            options._shellCompFile = file
            with self.assertRaises((SystemExit, UsageError)):
                options.parseOptions(["", "--_shell-completion", "zsh:2"])
        text = shown.read_text()
        for word in ("--listen", "--log-format", "(text json)", "_users"):
            self.assertIn(word, text)
