"""The units for systemd, as they are installed: systemd understands them, and calls them closed."""

from __future__ import annotations

import re
import shlex
import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from qmailldap.options import Options

from .processes import Finished, run
from .server import PROJECT

CONTRIB = PROJECT / "contrib" / "systemd"
_LIMIT = 30.0

MOST_EXPOSED = 30
"""Tenths; what systemd itself calls OK ends at 50. docs/packages.md has the number and the rest."""


class UnitTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        assert shutil.which("systemd-analyze"), "not found; apt-get install systemd"
        self.directory = Path(tempfile.mkdtemp(prefix="qmailldap-test-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        for unit in CONTRIB.glob("qmailldap-pop3*"):
            # Where pip has put the program is not to be looked for here.
            text = unit.read_text().replace("/opt/qmailldap/bin/twistd", "/bin/true")
            (self.directory / unit.name).write_text(text)
        self.units = [
            str(unit) for unit in sorted(self.directory.iterdir()) if unit.suffix != ".default"
        ]

    async def analyze(self, *arguments: str) -> Finished:
        return await run(["systemd-analyze", "--no-pager", *arguments], _LIMIT)

    async def test_systemd_finds_nothing_to_complain_of(self) -> None:
        self.assertEqual(len(self.units), 3)
        finished = await self.analyze("--man=no", "verify", *self.units)
        self.assertEqual((finished.code, finished.text), (0, ""))

    async def test_a_mistake_in_a_unit_would_be_found(self) -> None:
        service = self.directory / "qmailldap-pop3.service"
        service.write_text(service.read_text().replace("ProtectClock=", "ProtectTime="))
        finished = await self.analyze("--man=no", "verify", str(service))
        self.assertIn("ProtectTime", finished.text)

    async def test_the_service_is_as_little_exposed_as_is_said(self) -> None:
        service = self.directory / "qmailldap-pop3.service"
        finished = await self.analyze(
            "security", "--offline=true", f"--threshold={MOST_EXPOSED}", str(service)
        )
        self.assertEqual(finished.code, 0, finished.text)

    async def test_where_one_user_owns_all_mail_it_is_still_less_exposed(self) -> None:
        service = self.directory / "qmailldap-pop3.service"
        more = (CONTRIB / "one-owner.conf").read_text().partition("[Service]")[2]
        service.write_text(service.read_text().replace("[Install]", f"{more}\n[Install]"))
        finished = await self.analyze("security", "--offline=true", "--threshold=20", str(service))
        self.assertEqual(finished.code, 0, finished.text)


class EnvironmentFileTests(TestCase):
    """The file of options, read as systemd reads it."""

    def options(self, name: str) -> list[list[str]]:
        """The values of a variable, those too that are commented out."""
        text = (CONTRIB / "qmailldap-pop3.default").read_text()
        values = re.findall(rf"^#?{name}='(.*)'$", text, re.MULTILINE)
        return [shlex.split(value) for value in values]

    def test_all_that_it_shows_is_taken_by_the_server(self) -> None:
        shown = self.options("QMAILLDAP_PORTS") + self.options("QMAILLDAP_OPTIONS")
        self.assertEqual(len(shown), 4)
        for arguments in shown:
            Options().parseOptions(arguments)

    def test_sockets_have_the_names_that_their_units_give_them(self) -> None:
        named = re.findall(r"systemd:domain=INET6:name=(\w+)", str(self.options("QMAILLDAP_PORTS")))
        units = [unit.read_text() for unit in sorted(CONTRIB.glob("*.socket"))]
        given = [re.findall(r"^FileDescriptorName=(\w+)$", unit, re.MULTILINE) for unit in units]
        self.assertEqual(given, [["pop3"], ["pop3s"]])
        self.assertEqual(named, ["pop3", "pop3s"])

    def test_what_it_names_is_where_the_service_may_write(self) -> None:
        service = (CONTRIB / "qmailldap-pop3.service").read_text()
        (arguments,) = self.options("QMAILLDAP_OPTIONS")
        self.assertIn("/run/qmailldap/admin", arguments)
        self.assertIn("\nRuntimeDirectory=qmailldap\n", service)
        self.assertIn("/var/lib/qmailldap/guesses", arguments)
        self.assertIn("\nStateDirectory=qmailldap\n", service)
