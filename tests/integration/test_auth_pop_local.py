"""auth_pop for users of the host's passwd, whom the directory does not know."""

from __future__ import annotations

from pathlib import Path

from qmailldap.crypt3 import crypt, preferred_setting

from .chain import ChainTestCase
from .hosts import Host, require_root
from .mailboxes import MESSAGES, Maildir
from .users import Owner

ANN: Owner = (21001, 22001)

LOCAL_PASSWORD = "a-password-of-the-hosts-own"
REPORT = ("sh", "-c", 'echo "$HOME ${MAILDIR-unset} $(id -u):$(id -g)"', "sh", "./Maildir/")

WRONG = 3


class PasswdTests(ChainTestCase):
    def setUp(self) -> None:
        require_root()
        super().setUp()
        self.host = Host(self.directory / "etc")
        value = crypt(LOCAL_PASSWORD.encode(), preferred_setting())
        assert value is not None
        self.value = value.decode("ascii")
        self.secrets.update([LOCAL_PASSWORD, self.value])

    def local(self, name: str, dot_qmail: str | None = None, value: str | None = None) -> Path:
        """A user of the host; gives the home."""
        home = self.directory / name
        maildir = Maildir(home / "Maildir", ANN)
        maildir.deliver(MESSAGES["plain"])
        if dot_qmail is not None:
            (home / ".qmail").write_text(dot_qmail)
            (home / ".qmail").chmod(0o600)
            maildir.own(home / ".qmail")
        self.host.user(name, ANN, home, self.value if value is None else value)
        return home

    async def test_dot_qmail_names_the_mailbox_and_only_the_host_proves_the_password(self) -> None:
        homes = {
            "plain": self.local("plain"),
            "dotted": self.local("dotted", "# a comment\n|vacation\n./Mail-of-mine/\n./Other/\n"),
            "mbox": self.local("mbox", "&ann@example.com\n./mbox\n"),
        }
        box = Maildir(self.directory / "box" / "elsewhere", ANN).path
        homes["absolute"] = self.local("absolute", f"{box}/\n")
        self.local("locked", value=f"!{self.value}")
        self.user("both")
        self.local("both")
        await self.start_directory()
        control = {"ldaplocaldelivery": "1"}
        popup = self.new_chain(control=control, subprogram=REPORT, before=self.host.before)
        tries = [self.outcome(popup, user, LOCAL_PASSWORD) for user in homes]
        found = dict(zip(homes, await self.together(*tries), strict=True))
        maildirs = {"dotted": homes["dotted"] / "Mail-of-mine", "absolute": box}
        for user, outcome in found.items():
            home, maildir, owner = outcome.answer.split()
            self.assertEqual((outcome.code, home), (0, str(homes[user])), outcome.errors)
            if user in maildirs:
                self.assertEqual(homes[user] / maildir, maildirs[user])
            else:
                self.assertEqual(maildir, "unset")
            self.assertEqual(owner, f"{ANN[0]}:{ANN[1]}")
        self.assertEqual(len([*(homes["dotted"] / "Mail-of-mine").iterdir()]), 3)
        # Root has a shell here, and others have no password; both has that of the directory.
        logins = ("locked", "root", "both", "unheard-of")
        await self.assert_refused(popup, dict.fromkeys(logins, WRONG), LOCAL_PASSWORD)
        await self.assert_refused(popup, {"plain": WRONG})
        off = self.new_chain("off", before=self.host.before)
        await self.assert_refused(off, {"plain": WRONG}, LOCAL_PASSWORD)
