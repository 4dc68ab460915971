"""kill -9 in the middle of QUIT, at many different moments: no mail is lost, halved or doubled."""

from __future__ import annotations

import os
import poplib
import random
import signal
import time
from pathlib import Path

import attrs
from twisted.internet.threads import deferToThread

from .clients import Conversation
from .hosts import require_root
from .mailboxes import Maildir
from .site import PASSWORD, SiteTestCase
from .users import Owner

MESSAGES = 200
ROUNDS = 14
OF_ALL = 2
"""So many of the rounds are about all processes at once, and the others about the keeper."""

SHORTER = 0.75
"""Of the span from which moments are chosen, what is left of it where one came too late."""

QUOTA = 10_000_000


def content(number: int) -> bytes:
    return b"Subject: %d\n\n" % number + b"x" * (number % 97) + b"\n"


@attrs.define
class Round:
    """A user, the mailbox, and the numbers of the messages that are marked, from 0."""

    user: str
    owner: Owner
    maildir: Maildir
    marked: set[int]


class KillTests(SiteTestCase):
    def setUp(self) -> None:
        require_root()
        super().setUp()
        self.random = random.Random(20261123)
        self.rounds = [self.new_round(number) for number in range(ROUNDS + 1)]

    def new_round(self, number: int) -> Round:
        user, owner = f"user{number}", (23000 + number, 24000 + number)
        maildir = self.user(user, owner=owner, mailQuotaSize=QUOTA)
        for each in range(MESSAGES):
            # Half of them are moved by QUIT, where they are not removed.
            folder, flags = ("new", "") if each % 2 else ("cur", ":2,S")
            self.write(
                maildir.path / folder / f"{1700000000 + each}.1.mx1{flags}", content(each), owner
            )
        octets = sum(len(content(each)) for each in range(MESSAGES))
        size = f"{QUOTA}S\n{octets} {MESSAGES}\n".encode()
        self.write(maildir.path / "maildirsize", size, owner)
        chance = self.random.choice([0.1, 0.5, 0.9])
        marked = {each for each in range(MESSAGES) if self.random.random() < chance}
        return Round(user, owner, maildir, marked)

    def write(self, path: Path, octets: bytes, owner: Owner) -> None:
        with open(path, "wb") as file:
            file.write(octets)
            os.fchown(file.fileno(), *owner)

    async def test_every_message_is_there_or_was_marked(self) -> None:
        await self.start()
        unhindered, *rounds = self.rounds
        # How long it takes, and so from when to when there is something to hinder.
        seconds = await self.quit_and_kill(unhindered, None, False)
        self.assertEqual(self.left(unhindered), {*range(MESSAGES)} - unhindered.marked)
        hindered = 0
        for number, each in enumerate(rounds):
            if not self.server.is_running:
                await self.server.start()
            moment = self.random.uniform(0, seconds)
            await self.quit_and_kill(each, moment, number < OF_ALL)
            left = self.left(each)
            self.assertLessEqual({*range(MESSAGES)} - each.marked, left, each.user)
            if left & each.marked or each.maildir.new():
                hindered += 1
            else:
                # It was not as slow as the one that was measured.
                seconds *= SHORTER
        self.assertGreater(hindered, 0, "no QUIT was under way any more")
        await self.assert_go_on(rounds)

    async def quit_and_kill(self, each: Round, moment: float | None, everything: bool) -> float:
        """QUIT, and SIGKILL so many seconds later; gives how long there was no answer."""
        connection = await self.connect()
        return await deferToThread(self._quit_and_kill, connection, each, moment, everything)

    def _quit_and_kill(
        self, connection: Conversation, each: Round, moment: float | None, everything: bool
    ) -> float:
        connection.log_in(each.user, PASSWORD)
        connection.send(b"".join(b"DELE %d\r\n" % (one + 1) for one in sorted(each.marked)))
        for _ in each.marked:
            self.assertEqual(connection.line(), b"+OK ")
        keeper = self.server.keeper_of(each.owner)
        begun = time.monotonic()
        connection.send(b"QUIT\r\n")
        if moment is not None:
            time.sleep(moment)
            if everything:
                self.server.kill()
            else:
                os.kill(keeper.pid, signal.SIGKILL)
        connection.rest()
        connection.hang_up()
        return time.monotonic() - begun

    def left(self, each: Round) -> set[int]:
        """The numbers of the messages that are there, each of which has to be whole, and once."""
        numbers = []
        for file, octets in each.maildir.read().items():
            number = int(octets.split(b"\n")[0].removeprefix(b"Subject: "))
            self.assertEqual(octets, content(number), file)
            numbers.append(number)
        self.assertEqual(len(numbers), len({*numbers}), each.user)
        return {*numbers}

    async def assert_go_on(self, rounds: list[Round]) -> None:
        """The next session of each finds what is left, and removes of it what it is told to."""

        def remove_first(pop: poplib.POP3) -> int:
            count, _ = pop.stat()
            pop.dele(1)
            pop.quit()
            return count

        for each in rounds:
            self.assert_quota_is_usable(each)
            left = len(self.left(each))
            count = await self.in_session(each.user, remove_first)
            self.assertEqual((count, len(self.left(each))), (left, left - 1), each.user)
            self.assertEqual(each.maildir.new(), [])
            self.assert_quota_is_usable(each)

    def assert_quota_is_usable(self, each: Round) -> None:
        """It is what deliveries can read, and tells of no less than there is."""
        limit, *changes = (each.maildir.path / "maildirsize").read_text().splitlines()
        self.assertEqual(limit, f"{QUOTA}S")
        sizes, counts = zip(*(map(int, line.split()) for line in changes), strict=True)
        there = each.maildir.read().values()
        self.assertGreaterEqual(sum(sizes), sum(map(len, there)), each.user)
        self.assertGreaterEqual(sum(counts), len(there), each.user)
