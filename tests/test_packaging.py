"""The package for Debian beside setup.cfg: one version, the same needs."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import qmailldap

PROJECT = Path(__file__).parent.parent
DEBIAN = PROJECT / "debian"

_NAMES = {
    "pyopenssl": "openssl",
    "argon2-cffi": "argon2",
    "attrs": "attr",
}
"""What Debian calls a distribution, behind "python3-", where it is another name."""


def setup() -> ConfigParser:
    configuration = ConfigParser()
    configuration.read(PROJECT / "setup.cfg")
    return configuration


class DebianTests(SynchronousTestCase):
    def test_its_version_is_that_of_the_program(self) -> None:
        changelog = (DEBIAN / "changelog").read_text()
        (version,) = re.findall(r"\Aqmailldap \((\S+)-\d+\)", changelog)
        self.assertEqual(version, qmailldap.__version__.replace(".dev", "~dev"))

    def test_versions_that_it_needs_are_those_of_pip(self) -> None:
        control = (DEBIAN / "control").read_text()
        floors = dict(re.findall(r"^ python3-(\S+) \(>= (\S+)\),$", control, re.MULTILINE))
        self.assertIn("twisted", floors)
        wanted = re.findall(
            r"^([A-Za-z][\w.-]*)(?:\[\w+\])?>=(\S+)$",
            setup()["options"]["install_requires"],
            re.MULTILINE,
        )
        named = {_NAMES.get(name.lower(), name.lower()): least for name, least in wanted}
        for name, least in floors.items():
            self.assertEqual(least, named[name], name)

    def test_ldaptor_is_of_a_release_that_will_do(self) -> None:
        (release,) = re.findall(r"\Aldaptor==(\S+) ", (DEBIAN / "ldaptor.txt").read_text())
        self.assertIn(f"\nLDAPTOR_VERSION = {release}-", (DEBIAN / "rules").read_text())
        self.assertIn(
            f"ldaptor>={'.'.join(release.split('.')[:2])}\n", (PROJECT / "setup.cfg").read_text()
        )

    def test_the_unit_is_that_of_contrib_but_for_the_program(self) -> None:
        self.assertIn(
            "s,/opt/qmailldap/bin/twistd,/usr/bin/twistd3,", (DEBIAN / "rules").read_text()
        )
        service = (PROJECT / "contrib" / "systemd" / "qmailldap-pop3.service").read_text()
        self.assertEqual(service.count("/opt/qmailldap/bin/twistd "), 1)


class DataFileTests(SynchronousTestCase):
    def test_all_of_contrib_that_is_to_be_copied_is_installed(self) -> None:
        installed = {
            name for names in setup()["options.data_files"].values() for name in names.split()
        }
        shipped = {
            str(path.relative_to(PROJECT))
            for folder in ("completion", "fail2ban", "run", "systemd")
            for path in (PROJECT / "contrib" / folder).rglob("*")
            if path.is_file() and path.suffix not in (".py", ".pyc")
        }
        self.assertLessEqual(shipped, installed)
