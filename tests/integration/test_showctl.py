"""`qmailldap showctl --check` against real directory servers, as root and as somebody else."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Sequence

from ..root import require_root
from .ports import HOST, unused_port
from .processes import Finished, run
from .server import environment, write_control
from .site import SiteTestCase
from .slapd import SERVICE_DN, SERVICE_PASSWORD
from .users import SUFFIX

QMAILLDAP = [sys.executable, "-c", "from qmailldap.commands import main; raise SystemExit(main())"]
# Loaded first, as others may not be able to read the installation.
LOAD_AND_BECOME_NOBODY = """
import encodings.idna, os
from twisted.internet import reactor
import qmailldap.commands.showctl
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
raise SystemExit(qmailldap.commands.main())
"""
AS_NOBODY = [sys.executable, "-c", LOAD_AND_BECOME_NOBODY]
LIMIT = 30.0


class ShowctlTestCase(SiteTestCase):
    async def showctl(
        self, *options: str, run_by: Sequence[str] = QMAILLDAP, **control: str | None
    ) -> Finished:
        """Run it on a control directory with these files besides the usual; None leaves one out."""
        files = {
            "ldapbasedn": SUFFIX,
            "ldaplogin": SERVICE_DN,
            "ldappassword": SERVICE_PASSWORD,
            **control,
        }
        place = self.directory / "control"
        write_control(place, {name: text for name, text in files.items() if text is not None})
        arguments = [*run_by, "showctl", "--control", str(place), *options]
        finished = await run(arguments, LIMIT, environment=environment())
        self.assertNotIn("Traceback", finished.text)
        for secret in self.secrets:
            self.assertNotIn(secret, finished.text)
        return finished

    def servers(self, finished: Finished) -> list[str]:
        """What is said of the directory servers, without how long they took."""
        lines = finished.output.decode().partition("\ncert.pem")[2].splitlines()
        return [re.sub(" +", " ", re.sub(r"\d+ ms$", "", line)).strip() for line in lines[2:-2]]


class CheckTests(ShowctlTestCase):
    async def test_a_server_that_can_be_used(self) -> None:
        slapd = self.new_slapd()
        await slapd.start()
        finished = await self.showctl("--check", ldapserver=slapd.address)
        self.assertEqual(self.servers(finished), [f"{slapd.address} answers"])
        self.assertIn(b"Directory servers that can be used: 1 of 1.\n", finished.output)
        self.assertEqual((finished.code, finished.errors), (0, b""))
        self.assertEqual(slapd.count(f'BIND dn="{SERVICE_DN}" mech'), 1)
        self.assertEqual(slapd.count(f'SRCH base="{SUFFIX}" scope=0'), 1)
        self.assertEqual(slapd.count(f'SRCH base="{SUFFIX}" scope=2'), 1)

    async def test_an_object_class_of_many_entries(self) -> None:
        for login in ("joe", "ann"):
            self.user(login)
        slapd = self.new_slapd()
        await slapd.start()
        finished = await self.showctl("--check", ldapserver=slapd.address, ldapobjectclass="*")
        self.assertEqual(self.servers(finished), [f"{slapd.address} answers"])
        self.assertEqual((finished.code, finished.errors), (0, b""))
        self.assertEqual(slapd.count("SEARCH RESULT tag=101 err=4"), 1)  # sizeLimitExceeded

    async def test_an_object_class_that_no_entry_has(self) -> None:
        slapd = self.new_slapd()
        await slapd.start()
        finished = await self.showctl(
            "--check", ldapserver=slapd.address, ldapobjectclass="qmailUsr"
        )
        warning = (
            "warning no entry matches ldapobjectclass 'qmailUsr': a wrong name, or access rules"
            " of the directory hide them"
        )
        self.assertEqual(self.servers(finished), [f"{slapd.address} answers", warning])
        self.assertIn(b"\nThe server would start: no errors, 1 warning. ", finished.output)
        self.assertEqual((finished.code, finished.errors), (0, b""))

    async def test_nothing_is_asked_without_the_option(self) -> None:
        slapd = self.new_slapd()
        await slapd.start()
        finished = await self.showctl(ldapserver=slapd.address)
        self.assertEqual(finished.code, 0)
        self.assertIn(b"\nThe server would start: no errors, no warnings.\n", finished.output)
        self.assertEqual(slapd.count("BIND"), 0)

    async def test_a_wrong_password(self) -> None:
        slapd = self.new_slapd()
        await slapd.start()
        self.secrets.add("not-the-password")
        finished = await self.showctl(
            "--check", ldapserver=slapd.address, ldappassword="not-the-password"
        )
        refused = "it refuses the bind of ldaplogin with ldappassword"
        files = "(control files ldaplogin, ldappassword)"
        self.assertEqual(
            self.servers(finished),
            [f"{slapd.address} fails {refused} {files}: invalidCredentials"],
        )
        self.assertIn(b"The server would start: no errors, no warnings.", finished.output)
        self.assertEqual(finished.code, 1)

    async def test_a_base_that_the_server_does_not_have(self) -> None:
        slapd = self.new_slapd()
        await slapd.start()
        finished = await self.showctl(
            "--check", ldapserver=slapd.address, ldapbasedn=f"ou=none,{SUFFIX}"
        )
        self.assertEqual(
            self.servers(finished),
            [f"{slapd.address} fails it has no entry ldapbasedn: noSuchObject"],
        )
        self.assertEqual(finished.code, 1)

    async def test_no_base_with_a_server_that_wants_one(self) -> None:
        slapd = self.new_slapd()
        await slapd.start()
        finished = await self.showctl("--check", ldapserver=slapd.address, ldapbasedn=None)
        self.assertEqual(
            self.servers(finished),
            [f"{slapd.address} fails it has no entry ldapbasedn: noSuchObject"],
        )
        self.assertEqual(finished.code, 1)

    async def test_a_server_that_is_down(self) -> None:
        address = f"{HOST}:{unused_port()}"
        finished = await self.showctl("--check", ldapserver=address)
        (line,) = self.servers(finished)
        self.assertTrue(line.startswith(f"{address} fails Connection was refused"), line)
        self.assertEqual(finished.code, 1)

    async def test_a_server_that_hangs_takes_no_more_than_its_time(self) -> None:
        slapd = self.new_slapd()
        await slapd.start()
        slapd.pause()
        finished = await self.showctl("--check", ldapserver=slapd.address, ldaptimeout="1")
        (line,) = self.servers(finished)
        self.assertTrue(line.startswith(f"{slapd.address} fails"), line)
        self.assertEqual(finished.code, 1)

    async def test_one_of_two_servers_that_is_down_is_told_though_logins_go_on(self) -> None:
        slapd = self.new_slapd()
        await slapd.start()
        down = f"{HOST}:{unused_port()}"
        finished = await self.showctl("--check", "--json", ldapserver=f"{down}\n{slapd.address}\n")
        told = json.loads(finished.output)
        self.assertTrue(told["starts"])
        self.assertEqual(
            [(server["server"], server["answers"]) for server in told["servers"]],
            [(down, False), (slapd.address, True)],
        )
        self.assertIsNone(told["servers"][1]["problem"])
        self.assertEqual((finished.code, finished.errors), (1, b""))


class RightsTests(ShowctlTestCase):
    async def test_somebody_who_may_not_read_the_password_is_told_who_may(self) -> None:
        require_root("becomes another user")
        finished = await self.showctl("--check", run_by=AS_NOBODY, ldapserver=f"{HOST}:1")
        lines = finished.output.decode().splitlines()
        self.assertIn(
            "ldappassword        error    cannot be read: Permission denied;"
            " the server is started as root, so look at it as root",
            lines,
        )
        self.assertEqual(
            lines[-2:],
            [
                "The server would not start: 1 error, no warnings.",
                "The directory servers were not checked.",
            ],
        )
        self.assertEqual(finished.code, 1)

    async def test_somebody_who_may_read_everything_can_check_too(self) -> None:
        require_root("becomes another user")
        slapd = self.new_slapd()
        await slapd.start()
        finished = await self.showctl(
            "--check",
            run_by=AS_NOBODY,
            ldapserver=slapd.address,
            ldaplogin=None,
            ldappassword=None,
        )
        self.assertEqual(self.servers(finished), [f"{slapd.address} answers"])
        self.assertEqual(finished.code, 0)


class AgreementTests(ShowctlTestCase):
    """What keeps a server from starting is what is told here, and nothing else is."""

    async def test_the_server_refuses_what_is_an_error_here(self) -> None:
        for number, (name, content) in enumerate(
            (
                ("ldapserver", "# none"),
                ("ldaptimeout", "0"),
                ("ldapbasedn", "example.org"),
                ("ldapobjectclass", "qmailUser)("),
                ("ldapcluster", "1"),
                ("pop3clusterca", "no certificate"),
            )
        ):
            files = {"ldapserver": f"{HOST}:1", "pop3clustertls": "2", name: content}
            server = self.new_server("", f"server{number}", control=files)
            refused = await server.refuse_to_start()
            self.assertNotEqual(refused.code, 0)
            shutil.rmtree(self.directory / "control", ignore_errors=True)
            told = await self.showctl("--json", **files)
            self.assertEqual(told.code, 1)
            (error,) = [
                f"{report['path'].rpartition('/')[2]}: {error}"
                for report in json.loads(told.output)["files"]
                for error in report["errors"]
            ]
            self.assertIn(error, refused.text)
