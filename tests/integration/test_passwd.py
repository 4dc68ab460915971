"""Users of the host's passwd, whom the directory does not know."""

from __future__ import annotations

import poplib
from pathlib import Path

from qmailldap.crypt3 import crypt, preferred_setting

from .clients import refusal_of
from .hosts import Host, require_root
from .mailboxes import MESSAGES, Maildir, as_lines
from .site import PASSWORD, SiteTestCase
from .users import Owner

WRONG = "-ERR [AUTH] authorization failed"
UNREACHABLE = "-ERR [SYS/TEMP] unable to contact authorization server"

LOCAL_PASSWORD = "a-password-of-the-hosts-own"

ANN: Owner = (21001, 22001)
BOB: Owner = (21002, 22002)
WEB: Owner = (33, 33)


class PasswdTests(SiteTestCase):
    def setUp(self) -> None:
        require_root()
        super().setUp()
        self.host = Host(self.directory / "etc")
        value = crypt(LOCAL_PASSWORD.encode(), preferred_setting())
        assert value is not None
        self.value = value.decode("ascii")
        self.secrets.update([LOCAL_PASSWORD, self.value])
        # In the directory as well, with the usual password.
        self.both = self.user("both", owner=BOB)
        self.host.user("both", BOB, self.both.path.parent, self.value)

    def local(
        self, name: str, owner: Owner, mailbox: str = "Maildir", value: str | None = None
    ) -> Maildir:
        """A user of the host with one message."""
        home = self.directory / name
        maildir = Maildir(home / mailbox, owner)
        maildir.deliver(MESSAGES["plain"])
        maildir.own(home)
        self.host.user(name, owner, home, self.value if value is None else value)
        return maildir

    def dot_qmail(self, maildir: Maildir, text: str) -> Path:
        """A .qmail in the home, which its owner alone may read."""
        path = maildir.path.parent / ".qmail"
        path.write_text(text)
        path.chmod(0o600)
        maildir.own(path)
        return path

    async def start_on_host(self) -> None:
        await self.start(before=self.host.before, ldaplocaldelivery="1")

    async def refused(self, user: str, password: str = LOCAL_PASSWORD) -> str:
        return await self.refusal_of(user, password)

    async def test_mail_is_where_dot_qmail_or_the_default_says(self) -> None:
        ann = self.local("ann", ANN, "Mail-of-ann")
        self.dot_qmail(ann, "# a comment\n|vacation\n&ann@example.com\n./Mail-of-ann/ \n./Other/\n")
        bob = self.local("bob", BOB)
        carol = self.local("carol", ANN)
        self.dot_qmail(carol, "|a program\n./mbox\n")
        await self.start_on_host()

        def session(pop: poplib.POP3) -> None:
            self.assertEqual(pop.retr(1)[1], as_lines(MESSAGES["plain"]))
            pop.dele(1)
            pop.quit()

        for user, maildir in (("ann", ann), ("bob", bob), ("carol", carol)):
            await self.in_session(user, session, LOCAL_PASSWORD)
            self.assertEqual(maildir.contents(), {})
        self.assertEqual({each.owner for each in self.server.keepers}, {ANN, BOB})
        self.assertEqual([each.owner for each in self.server.processes].count((0, 0)), 1)

    async def test_all_who_may_not_log_in_are_told_the_same(self) -> None:
        self.local("ann", ANN)
        self.local("locked", ANN, value=f"!{self.value}")
        self.local("open", ANN, value="")
        self.local("web", WEB)
        self.local("daemon-group", (20601, 12))
        await self.start_on_host()
        for user, password in (
            ("ann", "wrong"),
            ("ann", self.value),
            ("ann", "x"),
            ("locked", LOCAL_PASSWORD),
            ("locked", "!"),
            ("open", "anything"),
            ("web", LOCAL_PASSWORD),
            ("daemon-group", LOCAL_PASSWORD),
            ("root", LOCAL_PASSWORD),
            ("nobody", "*"),
            ("unheard-of", LOCAL_PASSWORD),
        ):
            self.assertEqual(await self.refused(user, password), WRONG, user)
        self.assertEqual(self.server.keepers, [])
        self.assertEqual(await self.refused("ann"), "accepted")

    async def test_whom_the_directory_knows_is_its_own(self) -> None:
        self.local("ann", ANN)
        await self.start_on_host()
        off = self.new_server(
            self.slapd.address, "off", control={"ldaplocaldelivery": "0"}, before=self.host.before
        )
        await off.start()
        self.assertEqual(await self.refused("both"), WRONG)
        self.assertEqual(await self.refusal_of("both"), "accepted")
        self.assertEqual(await refusal_of(off.port, "ann", LOCAL_PASSWORD), WRONG)
        self.assertEqual(await refusal_of(off.port, "both", PASSWORD), "accepted")
        self.assertEqual(await self.refused("ann"), "accepted")
        # Nobody can say that it does not know her.
        self.slapd.kill()
        for user in ("ann", "both"):
            self.assertEqual(await self.refused(user), UNREACHABLE)
