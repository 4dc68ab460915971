"""The quota file maildirsize, as sessions leave it for the programs that deliver mail."""

from __future__ import annotations

import os
import poplib
import threading
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from .clients import in_session
from .hosts import require_root
from .mailboxes import Maildir
from .site import PASSWORD, SiteTestCase
from .users import Owner

ANN: Owner = (21001, 22001)

QUOTA: dict[str, Any] = {"mailQuotaSize": 1000000, "mailQuotaCount": 1000}
DEFINITION = "1000000S,1000C\n"

SIZES = (100, 1000, 70_000)


def message(octets: int) -> bytes:
    return b"Subject: x\n\n".ljust(octets - 1, b"y") + b"\n"


def file_of(maildir: Maildir) -> Path:
    return maildir.path / "maildirsize"


def total(maildir: Maildir) -> tuple[int, int]:
    """What the lines of the file add up to."""
    lines = [line.split() for line in file_of(maildir).read_text().splitlines()[1:]]
    return sum(int(octets) for octets, _ in lines), sum(int(count) for _, count in lines)


def held(maildir: Maildir) -> tuple[int, int]:
    """What the mailbox really holds."""
    contents = maildir.read().values()
    return sum(map(len, contents)), len(contents)


def delete_first(pop: poplib.POP3) -> None:
    pop.dele(1)
    pop.quit()


class QuotaTestCase(SiteTestCase):
    def setUp(self) -> None:
        require_root()
        super().setUp()

    def with_file(self, login: str, content: str, **attributes: Any) -> Maildir:
        """A user with messages of `SIZES` and this quota file."""
        maildir = self.user(login, messages=[*map(message, SIZES)], owner=ANN, **attributes)
        file_of(maildir).write_text(content)
        maildir.own(file_of(maildir))
        return maildir


class QuitTests(QuotaTestCase):
    async def test_the_file_is_made_and_then_kept_up(self) -> None:
        maildir = self.user("ann", messages=[*map(message, SIZES)], owner=ANN, **QUOTA)
        others = self.user("bob", messages=[message(100)], owner=ANN)
        await self.start()
        await self.in_session("ann", poplib.POP3.stat)
        self.assertFalse(file_of(maildir).exists())
        await self.in_session("ann", poplib.POP3.quit)
        self.assertEqual(file_of(maildir).read_text(), f"{DEFINITION}{sum(SIZES)} 3\n")
        status = file_of(maildir).stat()
        self.assertEqual((status.st_uid, status.st_gid), ANN)
        made = status.st_ino
        for octets in SIZES[:2]:
            await self.in_session("ann", delete_first)
            self.assertTrue(file_of(maildir).read_text().endswith(f"\n-{octets} -1\n"))
            self.assertEqual(total(maildir), held(maildir))
        self.assertEqual(file_of(maildir).stat().st_ino, made)
        # Who has no quota has no file.
        await self.in_session("bob", delete_first)
        self.assertFalse(file_of(others).exists())

    async def test_a_file_that_is_not_to_be_relied_on_is_written_anew(self) -> None:
        right = f"{DEFINITION}{sum(SIZES)} 3\n"
        line = "0 0\n"
        maildirs = {
            "other": self.with_file("other", right.replace("1000C", "999C"), **QUOTA),
            "less": self.with_file("less", "1000000S\n1 1\n", **QUOTA),
            "long": self.with_file("long", right + line * (5120 // len(line)), **QUOTA),
            "odd": self.with_file("odd", f"{right}what is this\n", **QUOTA),
            "cut": self.with_file("cut", right.rstrip(), **QUOTA),
            "negative": self.with_file("negative", f"{right}-80000 0\n", **QUOTA),
        }
        short = 5120 - len(right)
        almost = self.with_file("almost", right + line * ((short - 1) // len(line)), **QUOTA)
        await self.start()
        for login, maildir in maildirs.items():
            await self.in_session(login, delete_first)
            self.assertEqual(
                file_of(maildir).read_text(), f"{DEFINITION}{sum(SIZES[1:])} 2\n", login
            )
        before = file_of(almost).read_text()
        await self.in_session("almost", delete_first)
        self.assertEqual(file_of(almost).read_text(), f"{before}-{SIZES[0]} -1\n")

    async def test_a_file_that_cannot_be_used_never_fails_a_quit(self) -> None:
        directory = self.user("directory", messages=[message(100)], owner=ANN, **QUOTA)
        file_of(directory).mkdir()
        (file_of(directory) / "full").touch()
        link = self.user("link", messages=[message(100)], owner=ANN, **QUOTA)
        target = self.directory / "target"
        target.write_text(f"{DEFINITION}100 1\n")
        target.chmod(0o666)
        file_of(link).symlink_to(target)
        # Of another owner, and where nothing can be replaced.
        foreign = self.user("foreign", messages=[message(100)], owner=ANN, **QUOTA)
        file_of(foreign).write_text(f"{DEFINITION}100 1\n")
        file_of(foreign).chmod(0o600)
        foreign.path.chmod(0o500)
        fifo = self.user("fifo", messages=[message(100)], owner=ANN)
        os.mkfifo(file_of(fifo), 0o666)
        await self.start()
        for login, maildir in (
            ("directory", directory),
            ("link", link),
            ("foreign", foreign),
            ("fifo", fifo),
        ):
            await self.in_session(login, delete_first)
            self.assertEqual(maildir.contents(), {}, login)
            self.assertRegex(
                self.server.log, rf"mailbox path={maildir.path} problem=quota .*maildirsize"
            )
        self.assertEqual(target.read_text(), f"{DEFINITION}100 1\n")


class DeliveryTests(QuotaTestCase):
    SESSIONS = 4
    POLLS = 25
    DELIVERIES = 150

    async def test_the_sum_is_right_whoever_else_appends_meanwhile(self) -> None:
        maildir = self.user("ann", owner=ANN, **QUOTA)
        maildir.deliver_all(message(100 + number) for number in range(self.SESSIONS * self.POLLS))
        await self.start()
        await self.in_session("ann", poplib.POP3.quit)
        delivering = threading.Thread(target=self.deliver, args=(maildir,), daemon=True)
        delivering.start()
        deleted = await self.together(
            *(self.delete(share) for share in range(self.SESSIONS)),
        )
        await deferToThread(delivering.join)
        self.assertEqual(sum(deleted), self.SESSIONS * self.POLLS)
        self.assertEqual(held(maildir)[1], self.DELIVERIES)
        self.assertEqual(total(maildir), held(maildir))
        # A line each: nobody has had to count anew.
        lines = file_of(maildir).read_text().splitlines()
        self.assertEqual(len(lines), 2 + self.SESSIONS * self.POLLS + self.DELIVERIES)
        # And so it is when everything is counted.
        with file_of(maildir).open("a") as file:
            file.write("0 0\n" * 1280)
        await self.in_session("ann", delete_first)
        self.assertEqual(len(file_of(maildir).read_text().splitlines()), 2)
        self.assertEqual(total(maildir), held(maildir))

    def deliver(self, maildir: Maildir) -> None:
        """As a program that delivers mail: the file is opened, a line added, the message linked."""
        for number in range(self.DELIVERIES):
            content = message(500 + number)
            descriptor = os.open(file_of(maildir), os.O_WRONLY | os.O_APPEND)
            os.write(descriptor, b"%d 1\n" % len(content))
            os.close(descriptor)
            maildir.deliver(content)

    async def delete(self, share: int) -> int:
        """Sessions, one after the other, each of which deletes one message of its share."""

        def session(pop: poplib.POP3) -> int:
            for line in pop.uidl()[1]:
                number, name = line.decode().split()
                # The name begins with when, and which one, it was delivered.
                if int(name.split(".")[0]) % self.SESSIONS == share:
                    break
            pop.dele(int(number))
            pop.quit()
            return 1

        return sum(
            [
                await in_session(self.server.port, "ann", PASSWORD, session)
                for _ in range(self.POLLS)
            ]
        )
