"""The tutorial, run as it is written: docs/tutorial.md.

What the page has between "Install" and "A place, and ports" is left out: `test_install` does that.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.root import require_root

from .ports import unused_port
from .processes import run
from .server import PROJECT, TWISTD, environment

_PAGE = PROJECT / "docs" / "tutorial.md"
_QMAILLDAP = "from qmailldap.commands import main; raise SystemExit(main())"
_LIMIT = 150

_PLACES = re.compile(
    r"SITE=(\S+)\nLDAP_PORT=(\d+) POP3_PORT=(\d+) POP3S_PORT=(\d+) STATUS_PORT=(\d+)"
)

_BEFORE = """\
trap 'echo "failed: $BASH_COMMAND" >&3' ERR
set -u
"""

# What twistd ends with when it is told to, which `wait` says again.
_MAY_FAIL = 'failed: wait "$SERVER"'


def steps(page: str) -> Iterator[tuple[str, str | None]]:
    """The commands of each block of the shell, and what is shown to be printed, if anything is."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    for at, (kind, text) in enumerate(found):
        if kind == "sh":
            shown = found[at + 1] if at + 1 < len(found) else ("", "")
            yield text, shown[1] if shown[0] == "text" else None


def pattern(shown: str) -> str:
    """What matches an output that is shown: ``...`` as a line is any number of them."""
    lines = [
        r"(?:[^\n]*\n)*?" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*?") + r"\n"
        for line in shown.splitlines()
    ]
    return "".join(lines)


class TutorialTests(TestCase):
    timeout = 200

    def setUp(self) -> None:
        require_root("makes Maildirs of others")
        # Not trial's own directory: the owner of the mail must be able to reach it.
        self.directory = Path(tempfile.mkdtemp(prefix="qmailldap-test-"))
        self.directory.chmod(0o755)
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)

    def programs(self) -> str:
        """A folder with the commands that the page has installed in /opt, of this checkout."""
        folder = self.directory / "bin"
        folder.mkdir()
        qmailldap = [sys.executable, "-c", _QMAILLDAP]
        for name, command in (("twistd", TWISTD), ("qmailldap", qmailldap)):
            program = folder / name
            program.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
            program.chmod(0o755)
        return str(folder)

    def stop_slapd(self, pidfile: Path) -> None:
        """What a page that failed halfway has left running."""
        if pidfile.exists():
            os.kill(int(pidfile.read_text()), signal.SIGKILL)

    async def test_every_command_prints_what_the_page_shows(self) -> None:
        page = _PAGE.read_text().split("## A place, and ports")[1]
        places = _PLACES.search(page)
        assert places is not None
        ours = [str(self.directory / "site"), *(str(unused_port()) for _ in range(4))]
        self.addCleanup(self.stop_slapd, Path(ours[0], "slapd.pid"))
        own = dict(zip(places.groups(), ours, strict=True))
        blocks = list(steps(page.replace(places[0], _with(own, places[0]))))

        outputs = [self.directory / f"output-{number}" for number in range(len(blocks))]
        failures = self.directory / "failures"
        script = "".join(
            f"exec > {output} 2>&1\n{commands}"
            for (commands, _), output in zip(blocks, outputs, strict=True)
        )
        path = os.pathsep.join([self.programs(), os.environ["PATH"], "/usr/sbin", "/sbin"])
        await run(
            ["bash", "-c", f"exec 3> {failures}\n{_BEFORE}{script}"],
            _LIMIT,
            environment=environment(PATH=path),
            directory=PROJECT,
        )

        printed = "".join(output.read_text() for output in outputs if output.exists())
        failed = set(failures.read_text().splitlines()) - {_MAY_FAIL}
        self.assertEqual(failed, set(), printed)
        for (commands, shown), output in zip(blocks, outputs, strict=True):
            if shown is not None:
                text = _with({mine: theirs for theirs, mine in own.items()}, output.read_text())
                self.assertRegex(text, rf"\A{pattern(shown)}\Z", commands)
        self.assertFalse(Path(ours[0]).exists())


def _with(values: dict[str, str], text: str) -> str:
    """The text with other places."""
    for old, new in values.items():
        text = re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", new, text)
    return text
