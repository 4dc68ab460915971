"""What `qmailldap showctl` writes, to the last character, and how it ends."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from qmailldap.commands import main
from qmailldap.commands.showctl import ServerCheck, as_json, as_text, check_servers
from qmailldap.control import Control, ServerAddress
from qmailldap.control.files import FILES
from qmailldap.control.inspection import inspect_control
from qmailldap.directory import Directory, DirectoryUnavailable
from qmailldap.directory.embedded import EmbeddedDirectory
from tests.integration.certificates import write_certificate

GOLDEN = Path(__file__).with_name("showctl")
"""Whole outputs; the control directory is DIR in them."""

LDIF = """\
dn: dc=example,dc=org
objectClass: domain
dc: example
"""


class ShowctlTestCase(SynchronousTestCase):
    maxDiff = None

    def setUp(self) -> None:
        # What is shown is not to depend on how long the path is, nor on who else may be there.
        place = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, place)
        self.directory = Path(place, "control")
        self.directory.mkdir(mode=0o755)

    def write(self, **files: bytes | str) -> None:
        for name, content in files.items():
            raw = content.encode() if isinstance(content, str) else content
            (self.directory / name).write_bytes(raw)
            (self.directory / name).chmod(0o600)

    def showctl(self, *options: str) -> tuple[int | None, str]:
        """The exit code and the output of a whole run."""
        output = io.StringIO()
        with redirect_stdout(output):
            code = main(["showctl", "--control", str(self.directory), *options])
        return code, output.getvalue()

    def assert_golden(self, name: str, output: str) -> None:
        shown = output.replace(str(self.directory), "DIR")
        self.assertEqual(shown, (GOLDEN / name).read_text("utf-8"))

    def write_whole_site(self) -> None:
        self.write(
            me="mail1.example.org",
            ldapserver="# two of them\nldap1.example.org\n[2001:db8::1]:3890\n",
            ldapbasedn="ou=B\xfccher und mehr,dc=example,dc=org",
            ldapobjectclass="qmailUser",
            ldaplogin="cn=pop3,dc=example,dc=org",
            ldappassword="unguessable",
            ldapuid="20125",
            ldapcluster="1",
            ldapclusterhosts="pop.example.org\npop3.example.org\n",
            pop3routes="mail2.example.org::2110\n",
            defaultdelivery="./Mail/",
            aliasempty="./Alias/",
            rcpthosts="example.org",
        )

    def write_faults(self) -> None:
        self.write(
            me=b"mail1\r\n",
            ldapserver="ldap1 ldap2:x\nhttp://ldap3/",
            ldapbasedn="example.org",
            ldappassword=b"unguessable\r\n",
            ldaptimeout="soon",
            ldaprebind="2",
            ldapclusterhosts=b"\xef\xbb\xbfmail1",
            ldapmessagestore=b"store\x1b[2J\xc2\x9b",
            pop3clustertls="2",
            pop3clusterca="none",
            pop3trusted="0.0.0.0/0",
            dirmaker="/nowhere/dirmaker",
            ldapbasdn="dc=example,dc=org",
            ldapdefaultquota="1000000S",
            **{"ldappassword.bak": "unguessable", "cert.pem": "x", "me\x1b[2J": ""},
        )
        for name in ("ldappassword", "ldappassword.bak", "cert.pem"):
            (self.directory / name).chmod(0o644)
        (self.directory / "ldaptimeout").chmod(0o666)
        self.directory.chmod(0o757)


class OutputTests(ShowctlTestCase):
    def test_a_site_without_a_fault(self) -> None:
        self.write_whole_site()
        code, output = self.showctl()
        self.assert_golden("whole.txt", output)
        self.assertEqual(code, 0)

    def test_a_site_full_of_faults(self) -> None:
        self.write_faults()
        code, output = self.showctl()
        self.assert_golden("faults.txt", output)
        self.assertEqual(code, 1)

    def test_a_site_for_scripts(self) -> None:
        self.write_whole_site()
        code, output = self.showctl("--json")
        self.assert_golden("whole.json", output)
        self.assertEqual(code, 0)

    def test_faults_for_scripts(self) -> None:
        self.write_faults()
        code, output = self.showctl("--json")
        self.assert_golden("faults.json", output)
        self.assertEqual(code, 1)

    def test_what_only_the_directory_client_can_judge_is_an_error_too(self) -> None:
        self.write(ldapserver="a", ldapobjectclass="qmailUser)(", ldapbasedn="example.org")
        code, output = self.showctl()
        self.assertIn("ldapobjectclass     error    'qmailUser)(' does not make a filter", output)
        self.assertIn("ldapbasedn          error    'example.org' is not a dist", output)
        self.assertIn("The server would not start: 2 errors", output)
        self.assertEqual(code, 1)

    def test_a_certificate_that_clients_may_not_take_is_warned_of(self) -> None:
        self.write(ldapserver="a", ldapbasedn="dc=a", requiretls="1")
        code, output = self.showctl()
        self.assertIn("warning  without a cert.pem, the server starts with a --cert", output)
        write_certificate(self.directory / "cert.pem", "pop.example.org", days=-1)
        (self.directory / "cert.pem").chmod(0o600)
        code, output = self.showctl()
        self.assertRegex(output, r"\ncert\.pem +set +\S+/cert\.pem\n +warning +it has expired on ")
        self.assertNotIn("without a cert.pem", output)
        self.assertEqual(code, 0)

    def test_an_empty_directory(self) -> None:
        code, output = self.showctl()
        self.assert_golden("empty.txt", output)
        self.assertEqual(code, 1)

    def test_no_directory(self) -> None:
        self.directory.rmdir()
        code, output = self.showctl("--check")
        self.assert_golden("missing.txt", output)
        self.assertEqual(code, 1)
        code, output = self.showctl("--check", "--json")
        self.assertEqual(
            json.loads(output),
            {
                "directory": str(self.directory),
                "starts": False,
                "errors": ["cannot be used: No such file or directory"],
                "warnings": [],
                "files": [],
                "strangers": [],
            },
        )

    def test_servers_that_were_asked(self) -> None:
        self.write(ldapserver="ldap1.example.org ldap2")
        checks = (
            ServerCheck(
                ServerAddress("ldap1.example.org", 3890), 0.0123, warning="it is empty\x1b"
            ),
            ServerCheck(ServerAddress("ldap2"), 5.0, "it answers busy (b'\\x1b')\x1b[2J"),
        )
        inspection = inspect_control(self.directory)
        self.assert_golden("servers.txt", as_text(inspection, checks))
        self.assertEqual(
            json.loads(as_json(inspection, checks))["servers"],
            [
                {
                    "server": "ldap1.example.org:3890",
                    "answers": True,
                    "milliseconds": 12,
                    "problem": None,
                    "warning": "it is empty\x1b",
                },
                {
                    "server": "ldap2:389",
                    "answers": False,
                    "milliseconds": 5000,
                    "problem": "it answers busy (b'\\x1b')\x1b[2J",
                    "warning": None,
                },
            ],
        )

    def test_warnings_keep_no_server_from_starting(self) -> None:
        self.write(ldapserver="a", ldapbasedn="dc=a", ldaplogin="cn=a", ldapbasdn="")
        code, output = self.showctl()
        self.assertIn("The server would start: no errors, 2 warnings.", output)
        self.assertEqual(code, 0)

    def test_servers_are_not_asked_by_one_that_would_not_start(self) -> None:
        self.write(ldapserver="a", ldaptimeout="0")
        code, output = self.showctl("--check")
        self.assertTrue(output.endswith("\nThe directory servers were not checked.\n"))
        self.assertEqual(code, 1)

    def test_the_directory_is_shown_as_an_absolute_path(self) -> None:
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.directory)
        output = io.StringIO()
        with redirect_stdout(output):
            main(["showctl", "--control", "."])
        self.assertEqual(output.getvalue().splitlines()[0], f"Control files in {self.directory}")

    def test_the_directory_may_be_named_by_the_environment(self) -> None:
        self.write(ldapserver="ldap1.example.org")
        self.patch(os, "environ", {**os.environ, "QMAILLDAP_CONTROL": str(self.directory)})
        output = io.StringIO()
        with redirect_stdout(output):
            self.assertEqual(main(["showctl"]), 0)
        self.assertIn("ldap1.example.org:389", output.getvalue())

    def test_help_says_what_the_exit_code_means(self) -> None:
        output = io.StringIO()
        with redirect_stdout(output), self.assertRaises(SystemExit):
            main(["showctl", "--help"])
        for text in ("--check", "--json", "--control", "Exit code 0"):
            self.assertIn(text, " ".join(output.getvalue().split()))

    def test_an_option_that_is_none_is_wrong_usage(self) -> None:
        with redirect_stderr(io.StringIO()), self.assertRaises(SystemExit) as caught:
            main(["showctl", "--password"])
        self.assertEqual(caught.exception.code, 2)

    def test_an_output_that_cannot_show_a_character_is_written_all_the_same(self) -> None:
        self.write(ldapserver="a", ldapbasedn="ou=B\xfccher")
        output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        with redirect_stdout(output):
            self.assertEqual(main(["showctl", "--control", str(self.directory)]), 0)
        self.assertIn(rb"ou=B\xfccher", output.buffer.getvalue())

    def test_a_value_of_any_length_is_a_line_that_can_be_read(self) -> None:
        self.write(ldapserver="a", ldapbasedn="ou=" + "a" * 100_000, dirmaker=b"\xff" * 100_000)
        _, output = self.showctl()
        self.assertLess(max(map(len, output.splitlines())), 500)

    @settings(deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from([file.name for file in FILES]), st.binary(max_size=40), max_size=5
        ),
        st.binary(max_size=20),
    )
    def test_any_files_are_shown_in_printable_lines_without_the_password(
        self, files: dict[str, bytes], more: bytes
    ) -> None:
        secret = b"d2f7c0ffee"
        self.write(**{"ldapserver": b"a", **files, "ldappassword": secret + more})
        code, output = self.showctl()
        self.assertTrue(output.replace("\n", "").isprintable())
        self.assertNotIn(secret.decode(), output)
        json_code, as_json = self.showctl("--json")
        self.assertNotIn(secret.decode(), as_json)
        self.assertEqual(json.loads(as_json)["starts"], code == 0)
        self.assertEqual(code, json_code)
        for name in {*files, "ldappassword", "ldapserver"}:
            (self.directory / name).unlink()


class CheckTests(TestCase):
    timeout = 30

    async def start(self) -> int:
        path = self.mktemp()
        Path(path).write_text(LDIF)
        embedded = EmbeddedDirectory()
        port: int = await embedded.start(reactor, path)
        self.addCleanup(embedded.stop)
        return port

    async def check(self, *ports: int, **facts: Any) -> tuple[ServerCheck, ...]:
        control = Control(
            ldapserver=tuple(ServerAddress("127.0.0.1", port) for port in ports),
            **{"ldapbasedn": "dc=example,dc=org", **facts},
        )
        return await check_servers(reactor, control)

    async def test_each_server_is_asked_by_itself(self) -> None:
        good, bad = await self.start(), 1
        checks = await self.check(good, bad, good)
        self.assertEqual([check.server.port for check in checks], [good, bad, good])
        self.assertEqual([check.problem is None for check in checks], [True, False, True])
        problem = checks[1].problem or ""
        self.assertIn("refused", problem)
        self.assertNotIn("127.0.0.1", problem)

    async def test_a_base_that_is_not_there_is_told(self) -> None:
        (check,) = await self.check(await self.start(), ldapbasedn="dc=other,dc=org")
        self.assertIn("no entry ldapbasedn", check.problem or "")

    async def test_an_object_class_that_no_entry_has_is_a_warning(self) -> None:
        port = await self.start()
        for name, fits in (("domain", True), ("domain)(dc=example", True), ("qmailUser", False)):
            (check,) = await self.check(port, ldapobjectclass=name)
            self.assertIsNone(check.problem)
            if fits:
                self.assertIsNone(check.warning, name)
            else:
                self.assertEqual(
                    check.warning,
                    "no entry matches ldapobjectclass 'qmailUser': a wrong name, or access rules"
                    " of the directory hide them",
                )

    async def test_a_server_that_cannot_tell_of_the_object_class_can_be_used(self) -> None:
        async def refuse(directory: Directory) -> Any:
            raise DirectoryUnavailable(f"127.0.0.1:{port}: it answers adminLimitExceeded")

        self.patch(Directory, "sample", refuse)
        port = await self.start()
        (check,) = await self.check(port, ldapobjectclass="domain")
        self.assertIsNone(check.problem)
        self.assertEqual(
            check.warning,
            "whether any entry matches ldapobjectclass is not known: it answers adminLimitExceeded",
        )

    async def test_nothing_is_said_of_object_classes_where_none_is_asked_for(self) -> None:
        (check,) = await self.check(await self.start())
        self.assertIsNone(check.warning)
