"""What an owner plants in his mailbox, or a record says, opens nobody else's."""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor

from qmailldap.maildir.storage import Maildir as Storage
from qmailldap.maildir.work import Begun, Place
from qmailldap.privsep import encoding
from qmailldap.privsep.broker_process import BrokerProcess
from qmailldap.privsep.channel import KeeperLost
from qmailldap.privsep.pool import Keepers

from .clients import Conversation
from .hosts import require_root
from .mailboxes import MESSAGES, Maildir, as_lines, everything_below
from .site import PASSWORD, SiteTestCase
from .users import Owner

ANN: Owner = (21001, 22001)
BOB: Owner = (21002, 22002)

RECORD = "-ERR [SYS/PERM] user record incorrect"
CORRUPTED = "-ERR [SYS/PERM] mailbox is corrupted"
TEMPORARY = "-ERR [SYS/TEMP] temporary error"
GONE = b"-ERR unable to open that message"

SECRET = b"what bob alone may know"


class TwoOwnersTestCase(SiteTestCase):
    def setUp(self) -> None:
        require_root()
        super().setUp()
        self.ann = self.user("ann", messages=[MESSAGES["plain"]], owner=ANN)
        self.bob = self.user("bob", messages=[b"Subject: secret\n\n" + SECRET + b"\n"], owner=BOB)
        self.bobs_message = self.bob.path / "new" / self.bob.new()[0]


class PlantedTests(TwoOwnersTestCase):
    """Ann puts something other than a message among hers, with or without root's help."""

    def plant(self, folder: str, number: int, make: Callable[[Path], object]) -> Path:
        """Make something of a message's name, the later the larger its number."""
        path = self.ann.path / folder / f"{1800000000 + number}.{number}.mx1.example.org"
        make(path)
        self.ann.own(path)
        return path

    def link_to_bob(self, path: Path) -> None:
        path.symlink_to(self.bobs_message)

    def fifo(self, path: Path) -> None:
        os.mkfifo(path, 0o600)

    def device(self, path: Path) -> None:
        # /dev/zero: whoever reads it never comes to an end.
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))

    def socket(self, path: Path) -> None:
        # By a short name, as that of a socket may have about a hundred octets only.
        with socket.socket(socket.AF_UNIX) as listening:
            short = self.directory / "socket"
            listening.bind(os.fspath(short))
            short.rename(path)

    async def test_what_is_no_file_is_not_listed(self) -> None:
        makers: list[Callable[[Path], object]] = [
            self.link_to_bob,
            lambda path: path.symlink_to("/etc/shadow"),
            lambda path: path.symlink_to(self.bob.path / "new"),
            lambda path: path.symlink_to("/nowhere"),
            self.fifo,
            self.device,
            self.socket,
            Path.mkdir,
        ]
        for folder in ("new", "cur"):
            for number, make in enumerate(makers):
                self.plant(folder, number, make)
        before = everything_below(self.bob.path)
        await self.start()

        def session(connection: Conversation) -> bytes:
            connection.log_in("ann", PASSWORD)
            self.assertTrue(connection.ask(b"STAT").startswith(b"+OK 1 "))
            connection.send(b"LIST\r\nUIDL\r\nRETR 1\r\nRETR 2\r\nTOP 3 9\r\nDELE 2\r\nQUIT\r\n")
            return connection.rest()

        received = await self.converse(session)
        self.assertIn(b"\r\n".join(as_lines(MESSAGES["plain"])), received)
        self.assertEqual(received.count(b"-ERR not that many messages"), 3, received)
        self.assertNotIn(SECRET, received)
        self.assertNotIn(b"root:", received)
        self.assertEqual(everything_below(self.bob.path), before)

    async def test_a_hard_link_to_what_its_owner_may_not_read_is_not_served(self) -> None:
        self.plant("cur", 1, lambda path: path.hardlink_to(self.bobs_message))
        os.chown(self.bobs_message, *BOB)
        await self.start()

        def session(connection: Conversation) -> None:
            connection.log_in("ann", PASSWORD)
            self.assertTrue(connection.ask(b"STAT").startswith(b"+OK 2 "))
            for command in (b"RETR 2", b"TOP 2 0"):
                self.assertEqual(connection.ask(command), GONE)
            # The name is ann's to remove.
            connection.ask(b"DELE 2")
            self.assertEqual(connection.ask(b"QUIT"), b"+OK ")

        await self.converse(session)
        self.assertIn(SECRET, self.bobs_message.read_bytes())
        self.assertEqual(len(self.ann.contents()), 1)

    async def test_what_takes_a_messages_place_is_neither_served_nor_waited_for(self) -> None:
        makers: list[Callable[[Path], object]] = [
            self.fifo,
            self.device,
            self.link_to_bob,
            lambda path: path.symlink_to("/etc/shadow"),
            Path.mkdir,
        ]
        places = [self.plant("cur", number, Path.touch) for number in range(len(makers))]
        before = everything_below(self.bob.path)
        await self.start()

        def session(connection: Conversation) -> None:
            connection.log_in("ann", PASSWORD)
            self.assertTrue(connection.ask(b"STAT").startswith(b"+OK 6 "))
            for number, (place, make) in enumerate(zip(places, makers, strict=True)):
                place.unlink()
                self.plant("cur", number, make)
                for command in (b"RETR %d" % (number + 2), b"TOP %d 9" % (number + 2)):
                    self.assertEqual(connection.ask(command), GONE, place)
            self.assertTrue(connection.ask(b"RETR 1").startswith(b"+OK"))
            self.assertEqual(connection.listing(), as_lines(MESSAGES["plain"]))
            connection.ask(b"DELE 2")
            connection.ask(b"DELE 4")
            self.assertEqual(connection.ask(b"QUIT"), b"+OK ")

        await self.converse(session)
        self.assertEqual(everything_below(self.bob.path), before)
        self.assertEqual([places[0].exists(), places[2].is_symlink()], [False, False])

    async def test_a_folder_or_a_maildir_that_is_a_link_to_bobs(self) -> None:
        before = everything_below(self.bob.path.parent)
        await self.start()
        cur = self.ann.path / "cur"
        cur.rmdir()
        cur.symlink_to(self.bob.path / "cur")
        self.ann.own(cur)
        self.assertEqual(await self.refusal_of("ann"), CORRUPTED)
        aside = self.ann.path.with_name("Aside")
        self.ann.path.rename(aside)
        self.ann.path.symlink_to(self.bob.path)
        self.ann.own(self.ann.path)
        self.assertEqual(await self.refusal_of("ann"), TEMPORARY)
        self.assertEqual(everything_below(self.bob.path.parent), before)
        self.ann.path.unlink()
        aside.rename(self.ann.path)
        cur.unlink()
        # What is missing is made.
        self.assertEqual(await self.refusal_of("ann"), "accepted")


class RecordTests(TwoOwnersTestCase):
    """The directory sends the server to a path of somebody else, with ann's ids."""

    async def test_a_path_of_somebody_else_is_refused(self) -> None:
        home = self.bob.path.parent
        records: dict[str, dict[str, Any]] = {
            "home": {"homeDirectory": str(home)},
            "store": {"mailMessageStore": str(self.bob.path)},
            "below": {"homeDirectory": str(home / "new"), "mailMessageStore": "Maildir"},
            "root": {"homeDirectory": "/root", "mailMessageStore": "Maildir/"},
        }
        for login, attributes in records.items():
            self.user(login, owner=ANN, **attributes)
        dirmaker = self.directory / "dirmaker"
        dirmaker.write_text('#!/bin/sh\nmkdir -p "$1"; touch "$1/here"\n')
        dirmaker.chmod(0o755)
        before = everything_below(home)
        await self.start(dirmaker=str(dirmaker))
        for login in records:
            answer = await self.refusal_of(login)
            self.assertRegex(
                answer, "(temporary error|mailbox could not be created)$", (login, answer)
            )
        self.assertEqual(everything_below(home), before)
        self.assertEqual({each.owner for each in self.server.keepers}, {ANN})
        await self.assert_serves("bob")

    async def test_an_id_below_100_makes_a_record_incorrect(self) -> None:
        ids = [0, 33, 99]
        for number in ids:
            self.user(f"user-{number}", qmailUID=number)
            self.user(f"group-{number}", qmailGID=number)
        await self.start()
        for number in ids:
            for what in ("user", "group"):
                self.assertEqual(await self.refusal_of(f"{what}-{number}"), RECORD)
        self.assertEqual(self.server.keepers, [])


class KeeperTests(TwoOwnersTestCase):
    """Whoever has taken over the network process asks the broker and keepers for what he likes."""

    def setUp(self) -> None:
        super().setUp()
        self.complaints: list[str] = []
        self.broker = BrokerProcess(reactor, 8, None, self.complaints.append)
        self.broker.start()
        self.keepers = Keepers(self.broker, reactor)
        self.addCleanup(self.end)
        self.before = everything_below(self.bob.path.parent)

    async def end(self) -> None:
        self.keepers.stop()
        await self.broker.stop()
        self.assertEqual(self.complaints, [])
        self.assertEqual(everything_below(self.bob.path.parent), self.before)

    def place(self, maildir: Maildir) -> Place:
        return Place(home=os.fsencode(maildir.path.parent), mailbox=os.fsencode(maildir.path))

    async def test_it_opens_its_owners_mailbox_and_no_other(self) -> None:
        hands = self.keepers.hands(ANN, self.place(self.ann))
        begun = await hands.begin()
        self.assertEqual(len(begun.listing.files), 1)
        with self.assertRaises(PermissionError):
            await self.keepers.hands(ANN, self.place(self.bob)).begin()
        # Another group makes another owner.
        with self.assertRaises(PermissionError):
            await self.keepers.hands((BOB[0] + 7, BOB[1]), self.place(self.bob)).begin()

    async def test_nor_for_a_session_that_was_begun_as_somebody_else(self) -> None:
        stored = os.fsencode(self.bob.path)
        begun = Begun(stored, Storage(stored).scan(), Storage(stored).clean_tmp(), True)
        state = [*encoding.write_place(self.place(self.bob)), *encoding.write_begun(begun)]
        channel, _ = self.broker.open_channel(b"k", *ANN, lambda *_: None)
        self.addCleanup(channel.close)
        for number, question in enumerate(
            ([b"fetch", b"%d", b"0"], [b"finish", b"%d", encoding.write_numbers(frozenset({0}))])
        ):
            question[1] %= number
            with self.assertRaises(PermissionError):
                await channel.ask(*question, *state)

    async def test_nobody_below_100_has_a_keeper(self) -> None:
        for owner in ((0, 0), (33, 33), (99, 1000), (1000, 0), (1000, 99), (2**32 - 1, 1000)):
            channel, _ = self.broker.open_channel(b"k", *owner, lambda *_: None)
            with self.assertRaisesRegex(KeeperLost, re.escape(f"{owner[0]}:{owner[1]}")):
                await channel.ask(b"begin", b"1", *encoding.write_place(self.place(self.bob)))
