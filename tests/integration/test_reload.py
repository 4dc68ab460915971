"""Control files and certificates that change while the server runs, and clients are on."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.threads import deferToThread

from .certificates import write_certificate
from .hosts import require_root
from .load import Load
from .members import ScriptedMember
from .ports import HOST
from .processes import wait_until
from .scripts import original
from .site import PASSWORD, SiteTestCase
from .slapd import SERVICE_PASSWORD
from .users import Owner

VMAIL: Owner = (20501, 20502)
USERS = ("ann", "bob", "cleo")
ELSEWHERE = "mail2.example.org"
LIMIT = 20.0

MAKES_HOMES = """\
#!/bin/sh
umask 077
mkdir "$1" && echo "$0" > "$1/made-by"
"""


class ReloadTestCase(SiteTestCase):
    timeout = 90

    def setUp(self) -> None:
        require_root()
        super().setUp()

    def write(self, mode: int = 0o644, **files: str) -> None:
        """Put files into the control directory as an administrator does: each at once."""
        for name, text in files.items():
            new = self.server.control / f".{name}.new"
            new.write_text(text + "\n")
            new.chmod(mode)
            new.rename(self.server.control / name)

    async def reload(self, pattern: str = r"control loaded changed=\S+") -> str:
        """Gives what it says to SIGHUP."""
        before = len(self.server.log)
        self.server.child.signal(signal.SIGHUP)

        def answer() -> re.Match[str] | None:
            return re.search(pattern, self.server.log[before:])

        await wait_until(lambda: answer() is not None, LIMIT, pattern, self.server.child)
        found = answer()
        assert found is not None
        return found[0]

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.server.child.pid}/fd"))

    async def shown(self) -> bytes:
        """The certificate that a client is shown by STLS."""

        def ask() -> bytes:
            with socket.create_connection((HOST, self.server.port), LIMIT) as connection:
                received = connection.makefile("rb")
                received.readline()
                connection.sendall(b"STLS\r\n")
                if not received.readline().startswith(b"+OK"):
                    return b""
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                with context.wrap_socket(connection) as secured:
                    return secured.getpeercert(binary_form=True) or b""

        return await deferToThread(ask)

    def certificate(self, path: Path) -> bytes:
        """A new one there, which only root may read."""
        write_certificate(path)
        path.chmod(0o600)
        content = x509.load_pem_x509_certificate(path.read_bytes())
        return content.public_bytes(Encoding.DER)


class UnderLoadTests(ReloadTestCase):
    async def test_nobody_is_refused_while_servers_limits_and_routes_change(self) -> None:
        mailboxes = {user: self.user(user) for user in USERS}
        self.user("far", mailHost=ELSEWHERE)
        members = [ScriptedMember(original("far", PASSWORD)) for _ in range(2)]
        for member in members:
            self.addCleanup(member.close)
        first, second = self.new_slapd("first"), self.new_slapd("second")
        cluster = {"ldapcluster": "1", "me": "mail1.example.org"}
        self.server = self.new_server(first.address, control=cluster)
        await self.together(first.start(), second.start(), self.server.start())
        load = Load(self.server.port, mailboxes, PASSWORD)
        load.start()
        self.addCleanup(load.stop)
        await load.going()
        open_before = self.open_files()
        for turn in range(6):
            self.write(
                ldapserver=(first, second)[turn % 2 == 0].address,
                pop3limits=f"sessions:{50 + turn}\nguesses:0\nguesses-per-login:0",
                pop3trusted=f"192.0.2.{turn + 1}",
                pop3routes=f"{ELSEWHERE}:{members[turn % 2].address}",
            )
            said = await self.reload()
            self.assertEqual(
                said, "control loaded changed=ldapserver,pop3routes,pop3trusted,pop3limits"
            )
            self.assertEqual(await self.refusal_of("far"), "accepted")
            served = [len(member.callers) for member in members]
            self.assertEqual(served, [turn // 2 + 1, (turn + 1) // 2])
            await load.going(2)
        # Nobody asks the second one any more; it need not even be there.
        await wait_until(lambda: not _open_at(second.log), LIMIT, "the second server is left")
        second.kill()
        await load.going()
        # Several at once, and unchanged.
        for _ in range(20):
            self.server.child.signal(signal.SIGHUP)
        await self.reload("control loaded changed=none")
        await load.going()
        await load.stop()
        self.assertEqual(load.failures, {user: [] for user in USERS})
        load.assert_no_mail_lost()
        await wait_until(
            lambda: self.open_files() <= open_before, LIMIT, f"{open_before} open files"
        )


def _open_at(log: str) -> int:
    return len(re.findall(r"conn=\d+ fd=\d+ ACCEPT", log)) - len(
        re.findall(r"conn=\d+ fd=\d+ closed", log)
    )


class RootOnlyTests(ReloadTestCase):
    async def test_what_only_root_may_read_is_read_and_all_of_it_takes_effect(self) -> None:
        homes = self.directory / "made"
        homes.mkdir()
        homes.chmod(0o1777)
        self.user("joe", owner=VMAIL)
        for name in ("old", "new"):
            self.user(name, owner=VMAIL, homeDirectory=str(homes / name))
            maker = self.directory / f"makes-{name}"
            maker.write_text(MAKES_HOMES)
            maker.chmod(0o755)
        self.secrets.add("another-password")
        await self.start(
            ldappassword="another-password", dirmaker=str(self.directory / "makes-old")
        )
        self.assertIn("[SYS/TEMP]", await self.refusal_of("joe"))
        self.assertEqual(await self.shown(), b"")
        self.assertNotIn(0, self.server.network.uids)

        self.write(0o600, ldappassword=SERVICE_PASSWORD)
        certificate = self.certificate(self.server.control / "cert.pem")
        said = await self.reload()
        self.assertEqual(said, "control loaded changed=ldappassword,cert.pem")
        self.assertEqual(await self.shown(), certificate)
        session = await self.connect()
        await deferToThread(session.log_in, "joe", PASSWORD)
        await self.assert_serves("old")

        # A keeper of the same owner has a session; another is begun for who comes now.
        self.write(dirmaker=str(self.directory / "makes-new"))
        renewed = self.certificate(self.server.control / "cert.pem")
        self.assertEqual(await self.reload(), "control loaded changed=dirmaker,cert.pem")
        self.assertEqual(await self.shown(), renewed)
        await self.assert_serves("new")
        for name in ("old", "new"):
            made_by = (homes / name / "made-by").read_text()
            self.assertEqual(made_by, f"{self.directory}/makes-{name}\n")
        self.assertEqual(await deferToThread(session.ask, b"QUIT"), b"+OK ")


class BadFileTests(ReloadTestCase):
    async def test_a_bad_file_leaves_everything_as_it_was(self) -> None:
        self.user("joe")
        self.slapd = self.new_slapd()
        self.server = self.new_server(self.slapd.address)
        old = self.certificate(self.server.control / "cert.pem")
        await self.together(self.slapd.start(), self.server.start())
        # What is read after this is told: no look at the certificate is under way from the start.
        self.assertEqual(await self.reload(), "control loaded changed=none")
        stays = "control was not loaded, what was in force stays so: "
        self.certificate(self.server.control / "cert.pem")
        self.write(ldaptimeout="99999", me="other.example.org", ldapserver="ldap.invalid")
        path = re.escape(str(self.server.control / "ldaptimeout"))
        await self.reload(f"{stays}{path}: 99999 is out of range")
        self.assertEqual(await self.shown(), old)
        await self.assert_serves("joe")
        self.assertNotIn("certificate loaded", self.server.log)

        # The files are right, and the certificate is not.
        self.write(ldaptimeout="10", ldapserver=self.slapd.address)
        (self.server.control / "cert.pem").write_text("nothing")
        await self.reload(f"{stays}.*/cert.pem: it holds no certificate")
        self.assertEqual(await self.shown(), old)
        connection = await self.connect()
        self.assertNotIn(b"other.example.org", connection.greeting)

        # All is right; and who was connected before logs in by what is in force now.
        new = self.certificate(self.server.control / "cert.pem")
        said = await self.reload()
        self.assertEqual(said, "control loaded changed=me,ldaptimeout,cert.pem")
        self.assertEqual(await self.shown(), new)
        await deferToThread(connection.log_in, "joe", PASSWORD)
        self.assertIn(b"other.example.org", (await self.connect()).greeting)
