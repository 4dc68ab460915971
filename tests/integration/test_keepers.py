"""Keepers and the broker that end when nobody expects it, that hang, and that are too few."""

from __future__ import annotations

import os
import signal

from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread

from .clients import Conversation
from .hosts import require_root
from .load import Load
from .mailboxes import MESSAGES, as_lines
from .processes import wait_until
from .site import PASSWORD, SiteTestCase
from .users import Owner

OWNERS: dict[str, Owner] = {
    "ann": (21001, 22001),
    "bob": (21002, 22002),
    "cat": (21003, 22003),
}

CLEAN_FAILURE = (
    r"^_Told: (PASS: -ERR \[SYS/TEMP\] temporary error"
    r"|RETR: -ERR unable to open that message"
    r"|QUIT: -ERR \[SYS/TEMP\] unable to update the mailbox"
    r"|.*the connection ended.*)$"
)

END_LIMIT = 10.0
"""Seconds in which all processes are to end where one of them was killed."""


class LoadTestCase(SiteTestCase):
    """A server whose users are served all the while, and must lose nothing by what is done."""

    def setUp(self) -> None:
        require_root()
        super().setUp()
        self.mailboxes = {user: self.user(user, owner=owner) for user, owner in OWNERS.items()}

    async def start_load(self) -> Load:
        await self.start()
        load = Load(self.server.port, self.mailboxes, PASSWORD)
        load.start()
        await load.going()
        return load

    async def assert_nothing_is_left(self) -> None:
        await wait_until(
            lambda: not self.server.child.group_is_alive(), END_LIMIT, "the end of all processes"
        )

    async def assert_goes_on(self, load: Load) -> None:
        """The server starts again and serves everybody, and all mail is there."""
        await self.server.start()
        for user in OWNERS:
            await self.assert_serves(user)
        load.assert_no_mail_lost()


class DeathTests(LoadTestCase):
    async def test_that_of_a_keeper_costs_sessions_of_its_owner_only(self) -> None:
        load = await self.start_load()
        killed = set()
        for _ in range(5):
            keeper = self.server.keeper_of(OWNERS["ann"])
            os.kill(keeper.pid, signal.SIGKILL)
            killed.add(keeper.pid)
            await load.going(5)
        self.assertEqual(len(killed), 5)
        await load.stop()
        load.assert_no_mail_lost()
        self.assertEqual((load.failures["bob"], load.failures["cat"]), ([], []))
        for failure in load.failures["ann"]:
            self.assertRegex(failure, CLEAN_FAILURE)
        await self.assert_serves("ann")

    async def test_that_of_the_broker_ends_the_server_for_its_supervisor(self) -> None:
        load = await self.start_load()
        os.kill(self.server.broker.pid, signal.SIGKILL)
        self.assertEqual(await self.server.child.ended(END_LIMIT), 1)
        await self.assert_nothing_is_left()
        await load.stop()
        self.assertIn("broker has ended with signal 9: the server cannot go on", self.server.log)
        await self.assert_goes_on(load)

    async def test_that_of_the_network_process_ends_all_others(self) -> None:
        load = await self.start_load()
        os.kill(self.server.network.pid, signal.SIGKILL)
        await self.server.child.ended(END_LIMIT)
        await self.assert_nothing_is_left()
        await load.stop()
        await self.assert_goes_on(load)


class SignalTests(LoadTestCase):
    async def test_a_sigterm_that_all_processes_get_ends_them_in_order(self) -> None:
        load = await self.start_load()
        os.killpg(self.server.child.pid, signal.SIGTERM)
        self.assertIn(await self.server.child.ended(END_LIMIT), (0, -signal.SIGTERM))
        await self.assert_nothing_is_left()
        await load.stop()
        self.assertIn("Server Shut Down.", self.server.log)
        self.assertNotRegex(self.server.log, "broker:|keeper of|problem=lost|did not end")
        await self.assert_goes_on(load)

    async def test_a_keeper_that_hangs_keeps_nobody_else_waiting(self) -> None:
        load = await self.start_load()
        hanging = self.server.keeper_of(OWNERS["ann"])
        os.kill(hanging.pid, signal.SIGSTOP)
        await load.going(3, "bob", "cat")
        before = load.polls("ann")
        await load.going(20, "bob", "cat")
        self.assertEqual(load.polls("ann"), before)
        os.kill(hanging.pid, signal.SIGCONT)
        await load.going()
        await load.stop()
        load.assert_no_mail_lost()
        self.assertEqual(load.failures, {"ann": [], "bob": [], "cat": []})


class ManyOwnersTests(SiteTestCase):
    """More owners at once than there may be keepers: sessions go on in the next ones."""

    timeout = 90

    def setUp(self) -> None:
        require_root()
        super().setUp()
        self.connections: list[Conversation] = []
        self.most_keepers = 0
        self.seen_keepers: set[int] = set()

    async def serve(self, owners: int, *options: str) -> None:
        """Sessions of so many owners, all open at once, each of which fetches and deletes."""
        mailboxes = [
            self.user(
                f"user{number}",
                messages=[f"Subject: {number}\n".encode(), MESSAGES["plain"]],
                owner=(23000 + number, 24000 + number),
            )
            for number in range(owners)
        ]
        await self.start(*options)
        counting = LoopingCall(self.count_keepers)
        ended = counting.start(0.005)
        try:
            await deferToThread(self.all_sessions, owners)
            # Those that are left are idle, and stay for a while.
            self.count_keepers()
            self.count_keepers()
        finally:
            counting.stop()
            await ended
            for connection in self.connections:
                connection.hang_up()
        self.assertEqual(
            [[*maildir.contents().values()] for maildir in mailboxes],
            [[MESSAGES["plain"]]] * owners,
        )

    def count_keepers(self) -> None:
        # To look at all takes a while. Who is seen twice was there in between, with the others.
        seen = {each.pid for each in self.server.keepers}
        self.most_keepers = max(self.most_keepers, len(seen & self.seen_keepers))
        self.seen_keepers = seen

    def all_sessions(self, count: int) -> None:
        self.connections = [Conversation(self.server.port, 30) for _ in range(count)]
        self.tell_all(*(f"USER user{number}\r\nPASS {PASSWORD}" for number in range(count)))
        self.tell_all(*["NOOP"] * count)
        # Most have lost the keeper by now that they have begun with.
        self.send_all(*["RETR 1"] * count)
        for number, connection in enumerate(self.connections):
            self.assertEqual(connection.line(), b"+OK ", number)
            self.assertEqual(connection.listing(), [b"Subject: %d" % number])
        self.send_all(*["RETR 2"] * count)
        for number, connection in enumerate(self.connections):
            self.assertEqual(connection.line(), b"+OK ", number)
            self.assertEqual(connection.listing(), as_lines(MESSAGES["plain"]))
        self.tell_all(*["DELE 1\r\nQUIT"] * count)

    def send_all(self, *commands: str) -> None:
        for connection, command in zip(self.connections, commands, strict=True):
            connection.send(command.encode() + b"\r\n")

    def tell_all(self, *commands: str) -> None:
        """Send each connection its commands; all of them are to be answered well."""
        self.send_all(*commands)
        for connection, command in zip(self.connections, commands, strict=True):
            for line in command.splitlines():
                self.assertTrue(connection.line().startswith(b"+OK"), line)

    async def test_two_hundred_owners_share_64_keepers(self) -> None:
        await self.serve(200)
        self.assertEqual(self.most_keepers, 64)

    async def test_thirty_owners_share_two(self) -> None:
        await self.serve(30, "--keepers", "2")
        self.assertEqual(self.most_keepers, 2)
