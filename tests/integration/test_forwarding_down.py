"""Members that die, are down and come back, and those that have several addresses."""

from __future__ import annotations

import time
from unittest import SkipTest

from twisted.internet.threads import deferToThread

from .cluster import UNREACHABLE, ClusterTestCase, mail_host
from .hosts import Host, require_root
from .mailboxes import BIG_MESSAGE, MESSAGES
from .members import ScriptedMember
from .ports import unused_port
from .scripts import original
from .site import PASSWORD

BACK = 10.0
"""Seconds after which a member that is up again is to be in use; it is tried every 5 seconds."""


class DeathTests(ClusterTestCase):
    async def test_a_member_that_dies_in_a_message_is_missed_until_it_is_back(self) -> None:
        maildir = self.user("joe", messages=[BIG_MESSAGE * 16], mailHost=mail_host(2))
        before = maildir.contents()
        self.user("ann", mailHost=mail_host(1))
        await self.start_cluster(2)
        front, member = self.members[1], self.members[2]
        connection = await self.connect_to(1, receive_buffer=4096)
        other = await self.connect_to(1)
        for each in (connection, other):
            await deferToThread(each.log_in, "joe", PASSWORD)
        await deferToThread(connection.send, b"RETR 1\r\n")
        received = await deferToThread(connection.read_some, 10_000)
        member.kill()
        received += await deferToThread(connection.rest)
        self.assertTrue(received.startswith(b"+OK \r\nFrom: "))
        self.assertLess(len(received), 16 * len(BIG_MESSAGE))
        self.assertFalse(received.endswith(b"\r\n.\r\n"))
        self.assertEqual(await deferToThread(other.rest), b"")
        # It is down; who comes now does not wait, and the log says so once.
        for _ in range(10):
            begun = time.monotonic()
            self.assertEqual(await self.refusal_at(1, "joe"), UNREACHABLE)
            self.assertLess(time.monotonic() - begun, 1)
        await self.assert_serves("ann")
        await member.start()
        begun = time.monotonic()
        while (outcome := await self.refusal_at(1, "joe")) != "accepted":
            self.assertEqual(outcome, UNREACHABLE)
            self.assertLess(time.monotonic() - begun, BACK)
            await deferToThread(time.sleep, 0.1)
        self.assertEqual(front.log.count(f"member {self.address(2)} is down: "), 1)
        self.assertEqual(front.log.count(f"member {self.address(2)} is up again"), 1)
        self.assertEqual(maildir.contents(), before)


class AddressTests(ClusterTestCase):
    """Where a member is found."""

    async def assert_reached(self, number: int, member: ScriptedMember, user: str) -> None:
        session = f"USER {user}\r\nPASS {PASSWORD}\r\nRETR 1\r\nQUIT\r\n".encode()
        answers = await self.session_at(number, session)
        self.assertEqual(answers.count(b"+OK "), 4, answers)
        await self.in_log(number, f"login user={user} .*member={member.address} ".replace("[", "."))

    async def test_the_next_of_several_addresses_is_tried_when_one_does_not_greet(self) -> None:
        require_root()
        member = self.scripted("127.0.0.3", "joe")
        host = Host(self.directory / "etc")
        host.host(mail_host(9), "127.0.0.2", "::1", "127.0.0.3", "127.0.0.4")
        host.host("elsewhere.example.com", "127.0.0.3")
        self.user("joe", mailHost=mail_host(9))
        self.slapd = self.new_slapd()
        # Routes for the port alone, for all names, and to a host by its name.
        port = member.port
        for number, routes in enumerate(
            (
                {mail_host(9): f":{port}"},
                {"": f":{port}"},
                {".org": f":{unused_port()}", ".example.org": f"elsewhere.example.com:{port}"},
            ),
            1,
        ):
            self.new_member(number, routes, before=host.before)
        await self.start_members()
        for number in self.members:
            for _ in range(2):
                begun = time.monotonic()
                await self.assert_reached(number, member, "joe")
                self.assertLess(time.monotonic() - begun, 2)
        # Those that refuse are known to be down.
        for number in (1, 2):
            self.assertEqual(self.members[number].log.count(f"127.0.0.2:{port} is down"), 1)
        self.assertEqual(len(member.callers), 6)

    async def test_a_route_may_lead_to_an_ipv6_address(self) -> None:
        try:
            member = self.scripted("::1", "joe")
        except OSError:
            raise SkipTest("this host has no ::1") from None
        self.user("joe", mailHost=mail_host(9))
        self.slapd = self.new_slapd()
        self.new_member(1, {mail_host(9): member.address})
        await self.start_members()
        await self.assert_reached(1, member, "joe")

    def scripted(self, address: str, user: str) -> ScriptedMember:
        member = ScriptedMember(original(user, PASSWORD, [MESSAGES["plain"]]), address)
        self.addCleanup(member.close)
        return member
