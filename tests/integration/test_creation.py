"""Homes and mailboxes that are missing at a login: what is made, by whom, and what is said if not.

The directory in which homes are to be made stands open to everybody, as that of a site may not.
"""

from __future__ import annotations

import os
import poplib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from .clients import refusal_of
from .hosts import Host, require_root
from .mailboxes import MESSAGES, Maildir, everything_below
from .processes import wait_until
from .site import PASSWORD, SiteTestCase
from .users import Owner

ANN: Owner = (21001, 22001)
BOB: Owner = (21002, 22002)
VMAIL: Owner = (20501, 20502)

CORRUPTED = "-ERR [SYS/PERM] mailbox is corrupted"
MISSING = "-ERR [SYS/PERM] the users mailbox does not exist"
NOT_CREATED = "-ERR [SYS/TEMP] mailbox could not be created"

DIRMAKER_LIMIT = 30
"""Seconds that a dirmaker may take."""

DIRMAKER = """\
#!/bin/sh
case "$USER" in
  hangs) echo $$ >> "$0.pids"; sleep 1000 & wait;;
  fails) echo "no room on the disk"; exit 1;;
  fails-for-good) exit 100;;
  does-nothing) exit 0;;
  makes-and-fails) mkdir "$1"; exit 1;;
esac
umask 077
mkdir "$1"
cd "$1"
id > id
for each; do echo "$each"; done > arguments
env | grep -v -e ^PWD= -e ^OLDPWD= -e ^SHLVL= -e ^_= | sort > environment
cat > input
ls /proc/self/fd > descriptors
"""


class CreationTestCase(SiteTestCase):
    timeout = 90

    def setUp(self) -> None:
        require_root()
        super().setUp()
        self.homes = self.directory / "made"
        self.homes.mkdir()
        self.homes.chmod(0o1777)
        self.dirmaker = self.directory / "dirmaker"
        self.dirmaker.write_text(DIRMAKER)
        self.dirmaker.chmod(0o755)
        self.host = Host(self.directory / "etc")
        self.host.user("vmail", VMAIL, "/nonexistent")

    def homeless(self, login: str, owner: Owner, **attributes: Any) -> Path:
        """A user whose home is not there; gives its path."""
        home = self.homes / login
        self.user(login, owner=owner, homeDirectory=str(home), **attributes)
        return home

    def assert_mailbox(self, path: Path, owner: Owner) -> None:
        for each in (path, path / "tmp", path / "new", path / "cur"):
            status = each.stat()
            self.assertEqual(
                (oct(status.st_mode), status.st_uid, status.st_gid), (oct(0o040700), *owner), each
            )


class DirmakerTests(CreationTestCase):
    """The control file dirmaker; ``VMAIL`` stands for who is served without a keeper."""

    async def test_it_runs_as_the_owner_and_is_told_what_to_make(self) -> None:
        await self.assert_all_outcomes(ANN)

    async def test_so_it_does_where_the_server_is_the_owner(self) -> None:
        await self.assert_all_outcomes(VMAIL, "--user", "vmail")

    async def assert_all_outcomes(self, owner: Owner, *options: str) -> None:
        for login in ("fails", "fails-for-good", "does-nothing", "makes-and-fails", "plain"):
            self.homeless(login, owner)
        home = self.homeless(
            "both",
            owner,
            mailMessageStore="mail.store/",
            mailQuotaSize=1000000,
            mailQuotaCount=1000,
            mailSizeMax=5000,
        )
        await self.start(*options, before=self.host.before, dirmaker=str(self.dirmaker))
        for login in ("fails", "fails-for-good", "does-nothing"):
            self.assertEqual(await self.refusal_of(login), NOT_CREATED, login)
            self.assertFalse((self.homes / login).exists())
        self.assertIn("no room on the disk", self.server.log)
        self.assertRegex(self.server.log, r"refused user=fails-for-good .*100")
        # What counts is what is there.
        for login in ("makes-and-fails", "plain", "both"):
            self.assertEqual(await self.refusal_of(login), "accepted", login)
        self.assert_mailbox(self.homes / "makes-and-fails" / "Maildir", owner)
        self.assert_mailbox(home / "mail.store", owner)
        self.assert_made(
            home,
            owner,
            "mail.store/",
            USER="both",
            AUTHENTICATED="both",
            MAILDIR="mail.store/",
            MAILDIRQUOTA="1000000S,1000C",
            DATASIZE="5000",
        )
        plain = self.homes / "plain"
        self.assert_mailbox(plain / "Maildir", owner)
        self.assert_made(plain, owner, "./Maildir/", USER="plain", AUTHENTICATED="plain")
        self.assertEqual(len(self.server.keepers), 0 if options else 1)

    def assert_made(self, home: Path, owner: Owner, mailbox: str, **environment: str) -> None:
        """By the program, as the owner, called as it should be."""
        uid, gid = owner
        status = home.stat()
        self.assertEqual((status.st_uid, status.st_gid), owner)
        made = (home / "id").read_text()
        self.assertRegex(made, rf"^uid={uid}\b\S* gid={gid}\b\S* groups={gid}\b[^,]*$")
        self.assertEqual((home / "arguments").read_text(), f"{home}\n{mailbox}\n")
        lines = (home / "environment").read_text().splitlines()
        variables = dict(line.split("=", 1) for line in lines)
        self.assertTrue(variables.pop("PATH"))
        self.assertEqual(variables, {"HOME": str(home), **environment})
        self.assertEqual((home / "input").read_text(), "")
        # The last is what ls looks at them by.
        self.assertEqual((home / "descriptors").read_text().split(), ["0", "1", "2", "3"])

    async def test_one_that_hangs_is_ended_and_keeps_nobody_waiting_meanwhile(self) -> None:
        self.homeless("hangs", ANN)
        self.user("ann", messages=[MESSAGES["plain"]], owner=ANN)
        self.user("bob", messages=[MESSAGES["plain"]], owner=BOB)
        started = self.directory / "dirmaker.pids"
        started.touch()
        started.chmod(0o666)
        await self.start(dirmaker=str(self.dirmaker))
        hanging = await self.connect()
        hanging.set_limit(DIRMAKER_LIMIT + 15)
        await deferToThread(hanging.send, f"USER hangs\r\nPASS {PASSWORD}\r\n".encode())
        await wait_until(lambda: started.read_text().endswith("\n"), 10, "the dirmaker")
        # Sessions of the same owner, and of another one, and more of them than there is one of.
        for user in ("ann", "bob") * 5:
            await self.in_session(user, _whole_session)
        dirmaker = int(started.read_text())
        self.assertTrue(_group_is_alive(dirmaker))
        answers = await deferToThread(lambda: [hanging.line(), hanging.line()])
        self.assertEqual(answers, [b"+OK ", NOT_CREATED.encode()])
        self.assertFalse((self.homes / "hangs").exists())
        await wait_until(lambda: not _group_is_alive(dirmaker), 5, "the end of the dirmaker")
        self.assertRegex(self.server.log, rf"refused user=hangs .*more than {DIRMAKER_LIMIT} sec")

    async def test_one_that_cannot_be_run_or_is_not_there_at_all(self) -> None:
        self.homeless("ann", ANN)
        self.dirmaker.chmod(0o644)
        await self.start(dirmaker=str(self.dirmaker))
        without = self.new_server(self.slapd.address, "without")
        await without.start()
        self.assertEqual(await self.refusal_of("ann"), NOT_CREATED)
        self.assertRegex(self.server.log, "refused user=ann .*could not be started: Permission")
        self.assertEqual(await refusal_of(without.port, "ann", PASSWORD), MISSING)
        self.assertEqual([*self.homes.iterdir()], [])
        # The next login finds it in order again.
        self.dirmaker.chmod(0o755)
        self.assertEqual(await self.refusal_of("ann"), "accepted")
        self.assertEqual(await refusal_of(without.port, "ann", PASSWORD), "accepted")


class FolderTests(CreationTestCase):
    """Homes are there, and Maildirs are not, or not as they should be."""

    async def test_what_is_missing_is_made_and_what_is_in_its_way_is_left(self) -> None:
        logins = [f"{case}-{who}" for case in CASES for who in ("kept", "own")]
        maildirs = {}
        for login in logins:
            case, who = login.split("-")
            maildir = self.user(login, owner=ANN if who == "kept" else VMAIL)
            maildirs[login] = maildir
            CASES[case](maildir)
        await self.start("--user", "vmail", before=self.host.before)
        for login, maildir in maildirs.items():
            before = everything_below(maildir.path.parent)
            answer = await self.refusal_of(login)
            if login.startswith("missing"):
                self.assertEqual(answer, "accepted", login)
                self.assert_mailbox(maildir.path, maildir.owner)
            else:
                self.assertEqual(answer, CORRUPTED, login)
                self.assertEqual(everything_below(maildir.path.parent), before)
        self.assertEqual([each.owner for each in self.server.keepers], [ANN])


def _no_maildir(maildir: Maildir) -> None:
    shutil.rmtree(maildir.path)


def _no_folders(maildir: Maildir) -> None:
    (maildir.path / "tmp").rmdir()
    (maildir.path / "cur").rmdir()


def _home_is_a_file(maildir: Maildir) -> None:
    home = maildir.path.parent
    shutil.rmtree(home)
    home.touch()
    maildir.own(home)


def _maildir_is_a_file(maildir: Maildir) -> None:
    shutil.rmtree(maildir.path)
    maildir.path.touch()
    maildir.own(maildir.path)


def _folder_is_a_file(maildir: Maildir) -> None:
    (maildir.path / "cur").rmdir()
    (maildir.path / "cur").touch()
    maildir.own(maildir.path / "cur")


CASES: dict[str, Callable[[Maildir], None]] = {
    "missing maildir": _no_maildir,
    "missing folders": _no_folders,
    "home": _home_is_a_file,
    "maildir": _maildir_is_a_file,
    "folder": _folder_is_a_file,
}


def _whole_session(pop: poplib.POP3) -> None:
    pop.retr(1)
    pop.quit()


def _group_is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
