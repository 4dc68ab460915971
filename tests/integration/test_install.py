"""Installed from a wheel and editable, the package is known to Twisted and leaves it whole.

The wheel has the manual pages, too.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

from twisted.trial.unittest import TestCase

import qmailldap

from .processes import Finished, run
from .server import PROJECT

_LIMIT = 120.0


class InstallTests(TestCase):
    """Each in a virtual environment of its own that takes the dependencies from this one."""

    timeout = 300

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="qmailldap-test-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.checkout = self.directory / "checkout"
        # A copy: building leaves files behind.
        shutil.copytree(
            PROJECT,
            self.checkout,
            ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "_trial_temp*", "demo"),
        )

    async def succeeds(self, *arguments: str | Path, **more: str) -> str:
        """The output of a program; ``more`` are variables of its environment."""
        # Not the PYTHONPATH that trial gives its workers: the checkout is in it.
        ours = ("PYTHONPATH", "MANPATH")
        variables = {name: value for name, value in os.environ.items() if name not in ours} | more
        finished: Finished = await run(
            [str(argument) for argument in arguments],
            _LIMIT,
            environment=variables,
            directory=self.directory,
        )
        self.assertEqual(finished.code, 0, finished.text)
        return finished.output.decode()

    async def install(self, *what: str) -> Path:
        environment = self.directory / "environment"
        await self.succeeds(sys.executable, "-m", "venv", environment)
        python = environment / "bin" / "python"
        (packages,) = (environment / "lib").glob("python*/site-packages")
        # Only its packages, not the .pth files in it: an editable install there has no say here.
        (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        await self.succeeds(
            python, "-m", "pip", "install", "--quiet", "--no-deps", *what, self.checkout
        )
        return python

    async def assert_installed(self, python: Path, place: Path) -> None:
        where = await self.succeeds(python, "-c", "import qmailldap; print(qmailldap.__file__)")
        self.assertTrue(where.startswith(str(place)), where)
        twisted = await self.succeeds(
            python, "-c", "import twisted.mail.pop3; print(twisted.__version__)"
        )
        self.assertRegex(twisted, r"\A\d+\.\d+")
        twistd = "from twisted.scripts.twistd import run; run()"
        self.assertIn("qmailldap-pop3", await self.succeeds(python, "-c", twistd, "--help"))
        self.assertIn(
            "--control", await self.succeeds(python, "-c", twistd, "qmailldap-pop3", "--help")
        )
        for script, word in (("qmailldap", "demo"), ("auth_pop", "SUBPROGRAM")):
            self.assertIn(word, await self.succeeds(python.with_name(script), "--help"))
        data = (
            "from importlib.resources import files as f;"
            "print(f('qmailldap').joinpath('py.typed').is_file(),"
            "f('qmailldap.commands').joinpath('demo.ldif').is_file())"
        )
        self.assertEqual(await self.succeeds(python, "-c", data), "True True\n")

    async def assert_manual_pages(self, environment: Path) -> None:
        manual = environment / "share" / "man" / "man8"
        sources = {source.stem for source in (PROJECT / "docs").glob("*.8.rst")}
        self.assertLessEqual({"auth_pop.8"}, sources)
        self.assertEqual({page.name for page in manual.iterdir()}, sources)
        for page in manual.iterdir():
            shown, warnings = await self.rendered(page)
            self.assertEqual(warnings, "")
            self.assertIn(f"qmailldap {qmailldap.__version__}", shown)
            self.assertRegex(shown, rf"NAME\n +{page.stem} - [A-Za-z]")
        path = f"{environment / 'bin'}:{os.environ['PATH']}"
        found = await self.succeeds("man", "--where", "auth_pop", PATH=path)
        self.assertEqual(Path(found.strip()), manual / "auth_pop.8")

    async def rendered(self, page: Path) -> tuple[str, str]:
        """A manual page as a terminal shows it, and what groff has to complain of."""
        # -c: no colours, by the means of old terminals, which are taken out here.
        finished = await run(["groff", "-man", "-t", "-Tutf8", "-ww", "-P-cbou", str(page)], _LIMIT)
        self.assertEqual(finished.code, 0, finished.text)
        return finished.output.decode(), finished.errors.decode()

    def assert_shared(self, share: Path) -> None:
        """What of contrib/ is to be copied or to be found is there, programs as such."""
        for folder, place in (
            ("fail2ban", "qmailldap/fail2ban"),
            ("run", "qmailldap/run"),
            ("systemd", "qmailldap/systemd"),
            ("completion/bash", "bash-completion/completions"),
            ("completion/zsh", "zsh/site-functions"),
        ):
            for shipped in filter(Path.is_file, (PROJECT / "contrib" / folder).rglob("*")):
                installed = share / place / shipped.relative_to(PROJECT / "contrib" / folder)
                self.assertEqual(installed.read_bytes(), shipped.read_bytes())
                self.assertEqual(os.access(installed, os.X_OK), os.access(shipped, os.X_OK))

    async def test_it_works_from_a_wheel(self) -> None:
        python = await self.install()
        await self.assert_installed(python, self.directory / "environment")
        await self.assert_manual_pages(self.directory / "environment")
        self.assert_shared(self.directory / "environment" / "share")

    async def test_it_works_from_an_editable_install(self) -> None:
        python = await self.install("--editable")
        await self.assert_installed(python, self.checkout)
