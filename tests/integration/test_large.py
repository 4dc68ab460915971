"""A mailbox of 100,000 messages: nobody likes it, and it must do no harm."""

from __future__ import annotations

import os

from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread

from .clients import Conversation
from .mailboxes import Maildir
from .site import PASSWORD, SiteTestCase

COUNT = 100_000
CONTENT = b"Subject: one of many\n\n"


def fill(maildir: Maildir) -> None:
    """Messages that are links to a few files, as that is soon done."""
    new = maildir.path / "new"
    size = len(CONTENT)
    for number in range(COUNT):
        name = new / f"{1700000000 + number}.P1.mx1,S={size}"
        if number % 30_000 == 0:
            original = name
            name.write_bytes(CONTENT)
        else:
            os.link(original, name)


class LargeMailboxTests(SiteTestCase):
    timeout = 120

    async def test_it_is_listed_read_and_emptied_while_others_are_served(self) -> None:
        maildir = self.user("joe")
        self.user("ann", messages=[CONTENT])
        fill(maildir)
        await self.start()
        joe, ann = await self.connect(), await self.connect()
        joe.set_limit(60)

        def empty_it() -> None:
            joe.log_in("joe", PASSWORD)
            self.assertEqual(joe.ask(b"STAT"), b"+OK %d %d" % (COUNT, COUNT * len(CONTENT)))
            for command in (b"LIST", b"UIDL"):
                self.assertEqual(joe.ask(command), b"+OK ")
                self.assertEqual(len(joe.listing()), COUNT)
            self.assertEqual(joe.ask(b"RETR %d" % COUNT), b"+OK ")
            self.assertEqual(joe.listing(), [b"Subject: one of many", b""])
            for start in range(0, COUNT, 1000):
                joe.send(b"".join(b"DELE %d\r\n" % (start + n) for n in range(1, 1001)))
                self.assertEqual({joe.line() for _ in range(1000)}, {b"+OK "})
            self.assertEqual(joe.ask(b"STAT"), b"+OK 0 0")
            self.assertEqual(joe.ask(b"QUIT"), b"+OK ")

        emptied = deferToThread(empty_it)

        def read_meanwhile() -> int:
            """How many answers others got before it was empty."""
            ann.log_in("ann", PASSWORD)
            answers = 0
            while not emptied.called:
                self.assertEqual(ann.ask(b"STAT"), b"+OK 1 %d" % len(CONTENT))
                answers += 1
            return answers

        answers = await deferToThread(read_meanwhile)
        await emptied
        self.assertGreater(answers, 100)
        self.assertEqual((maildir.new(), maildir.cur()), ([], []))

    async def test_many_logins_to_it_do_not_keep_others_out(self) -> None:
        fill(self.user("joe"))
        self.user("ann", messages=[CONTENT])
        await self.start()
        crowd = [await self.connect() for _ in range(6)]

        def log_in_joe(connection: Conversation) -> None:
            connection.set_limit(60)
            connection.log_in("joe", PASSWORD)

        logins = [deferToThread(log_in_joe, connection) for connection in crowd]
        ann = await self.connect()
        await deferToThread(ann.log_in, "ann", PASSWORD)
        # She did not have to wait for all of them.
        self.assertTrue(any(not login.called for login in logins))
        await gatherResults(logins)
        for connection in (*crowd, ann):
            connection.hang_up()
