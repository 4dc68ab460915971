"""Sessions that members would send round in circles, as a route or the directory is wrong."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from .cluster import UNREACHABLE, ClusterTestCase, mail_host
from .mailboxes import MESSAGES
from .ports import unused_port
from .site import PASSWORD

NOBODYS = mail_host(9)
"""A mailHost that no member goes by."""

TRIES = 3


class LoopTests(ClusterTestCase):
    """Joe's mail is kept by nobody; each member has a route for it to the next one."""

    async def start_circle(self, count: int, control: Mapping[str, str] | None = None) -> None:
        """The last member takes the first for the one that keeps the mail."""
        self.user("joe", mailHost=NOBODYS)
        members = range(1, count + 1)
        for number in members:
            self.user(f"user{number}", messages=[MESSAGES["plain"]], mailHost=mail_host(number))
        self.slapd = self.new_slapd()
        for number in members:
            following = self.address(number % count + 1)
            self.new_member(number, {**self.routes(count), NOBODYS: following}, control)
        await self.start_members()

    async def assert_ended_soon(self, reason: str) -> int:
        """Whichever member is the front; gives how many members refused each session, with those
        that hand on what another has said.
        """
        for front in self.members:
            seconds = []
            for _ in range(TRIES):
                begun = time.monotonic()
                self.assertEqual(await self.refusal_at(front, "joe"), UNREACHABLE)
                seconds.append(time.monotonic() - begun)
            # Not all of them: the machine may be busy with something else.
            self.assertLess(min(seconds), 0.7, seconds)
        logs = "".join(member.log for member in self.members.values())
        sessions = TRIES * len(self.members)
        found = len(re.findall(rf"refused user=joe .*reason=mailhost-unreachable .*{reason}", logs))
        self.assertEqual(found, sessions)
        refused = len(re.findall("refused user=joe .*reason=", logs))
        self.assertEqual(refused % sessions, 0, refused)
        # They are on good terms otherwise.
        self.assertNotIn("is down", logs)
        for front in self.members:
            for number in self.members:
                commands = f"USER user{number}\r\nPASS {PASSWORD}\r\nSTAT\r\nQUIT\r\n".encode()
                answers = await self.session_at(front, commands)
                self.assertEqual(answers.count(b"+OK 1 "), 1, answers)
        return refused // sessions

    async def test_two_members_that_trust_each_other_count_how_often_it_is_handed_on(self) -> None:
        await self.start_circle(2, {"pop3trusted": "127.0.0.1"})
        self.assertEqual(await self.assert_ended_soon("forwarded too often"), 5)

    async def test_three_members_that_trust_each_other_count_it_too(self) -> None:
        await self.start_circle(3, {"pop3trusted": "127.0.0.1"})
        self.assertEqual(await self.assert_ended_soon("forwarded too often"), 5)

    async def test_two_that_do_not_end_it_when_too_many_logins_are_under_way(self) -> None:
        await self.start_circle(2)
        self.assertEqual(await self.assert_ended_soon("forward to each other"), 2 * 5 + 1)

    async def test_three_that_do_not_end_it_so_too(self) -> None:
        await self.start_circle(3)
        self.assertEqual(await self.assert_ended_soon("forward to each other"), 3 * 5 + 1)

    async def test_a_route_to_ourselves_is_refused(self) -> None:
        everywhere = unused_port()
        routes = {
            mail_host(8): self.address(1),
            # A server that listens on all addresses is meant by any that this host has.
            mail_host(9): f"127.0.0.1:{everywhere}",
            mail_host(10): f"127.0.0.99:{everywhere}",
            mail_host(11): f"localhost:{everywhere}",
        }
        for number, name in enumerate(routes):
            self.user(f"joe{number}", mailHost=name)
        # The member itself, by its name: nothing is forwarded, whatever its route.
        self.user("ann", mailHost=mail_host(1))
        self.slapd = self.new_slapd()
        self.new_member(1, {mail_host(1): "127.0.0.1:1", **routes}, listen=[f"tcp:{everywhere}"])
        await self.start_members()
        for number in range(len(routes)):
            begun = time.monotonic()
            self.assertEqual(await self.refusal_at(1, f"joe{number}"), UNREACHABLE)
            self.assertLess(time.monotonic() - begun, 2)
            await self.in_log(1, f"refused user=joe{number} .*detail=.*itself")
        await self.assert_serves("ann")
