"""A cluster in one directory: members on loopback addresses of their own, and one LDAP server."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from twisted.internet.threads import deferToThread

from . import clients
from .members import Script, ScriptedMember
from .ports import unused_port
from .processes import wait_until
from .server import Pop3Server
from .site import PASSWORD, SiteTestCase

__all__ = ["CLIENT", "UNREACHABLE", "ClusterTestCase", "ScriptedTestCase", "mail_host"]

CLIENT = "127.0.0.77"
"""The address of a client that members must be able to tell from another member."""

UNREACHABLE = "-ERR [SYS/TEMP] mailhost is unreachable"


def mail_host(number: int) -> str:
    """The name of a member, as it is in the directory."""
    return f"mail{number}.example.org"


class ClusterTestCase(SiteTestCase):
    """Tests of members that forward to each other.

    Each listens on an address of its own, and all of them on the same port, as on a real site.
    """

    def setUp(self) -> None:
        super().setUp()
        self.port = unused_port()
        self.members: dict[int, Pop3Server] = {}

    def address(self, number: int) -> str:
        """Where a member listens, as in a line of pop3routes."""
        return f"127.0.0.{number}:{self.port}"

    def new_member(
        self,
        number: int,
        routes: Mapping[str, str],
        control: Mapping[str, str] | None = None,
        *,
        listen: Sequence[str] = (),
        before: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """A member that has ``routes`` to others, by mailHost; `start_members` is to start it.

        The directory is `slapd`, which has to be there.
        """
        files = {
            "me": mail_host(number),
            "ldapcluster": "1",
            "pop3routes": "\n".join(f"{name}:{where}" for name, where in routes.items()),
            **(control or {}),
        }
        self.members[number] = self.new_server(
            self.slapd.address,
            f"member-{number}",
            control=files,
            host=f"127.0.0.{number}",
            port=self.port,
            listen=listen,
            before=before,
            variables=variables,
        )

    def routes(self, count: int) -> dict[str, str]:
        """Routes to so many members by their own names."""
        return {mail_host(number): self.address(number) for number in range(1, count + 1)}

    async def start_cluster(self, count: int, control: Mapping[str, str] | None = None) -> None:
        """Start so many members that have routes to each other."""
        self.slapd = self.new_slapd()
        for number in range(1, count + 1):
            self.new_member(number, self.routes(count), control)
        await self.start_members()

    async def start_members(self) -> None:
        """Start the directory and all members that there are; the first is `server`, too."""
        self.server = self.members[min(self.members)]
        members = (member.start() for member in self.members.values())
        await self.together(self.slapd.start(), *members)

    async def connect_to(
        self, number: int, *, receive_buffer: int = 0, source: str = ""
    ) -> clients.Conversation:
        """A connection to a member, closed when the test ends. Its methods belong in threads."""
        member = self.members[number]
        connection = await deferToThread(
            clients.Conversation,
            member.port,
            receive_buffer=receive_buffer,
            host=member.host,
            source=source,
        )
        self.addCleanup(connection.hang_up)
        return connection

    async def session_at(self, number: int, octets: bytes, *, source: str = "") -> bytes:
        """Send a member all of a session at once; gives all that it sends behind its greeting."""

        def session(connection: clients.Conversation) -> bytes:
            connection.send(octets)
            return connection.rest()

        member = self.members[number]
        return await clients.converse(member.port, session, host=member.host, source=source)

    async def refusal_at(self, number: int, user: str, password: str = PASSWORD) -> str:
        """As `refusal_of`, of that member."""
        member = self.members[number]
        return await clients.refusal_of(member.port, user, password, member.host)

    async def in_log(self, number: int, pattern: str, limit: float = 5) -> re.Match[str]:
        """Wait until a member's log has that."""
        member = self.members[number]
        await wait_until(
            lambda: re.search(pattern, member.log), limit, f"{pattern!r} in the log", member.child
        )
        match = re.search(pattern, member.log)
        assert match is not None
        return match


class ScriptedTestCase(ClusterTestCase):
    """Members that follow a script, each of which keeps the mail of one user."""

    def setUp(self) -> None:
        super().setUp()
        self.scripted: dict[str, ScriptedMember] = {}
        self.logins: dict[str, str] = {}
        self.scripted_routes: dict[str, str] = {}

    def keep(self, name: str, script: Script) -> None:
        """Have a member follow the script, and a user who has mail there; both are called so."""
        number = len(self.scripted)
        self.logins[name] = f"user{number}"
        self.user(self.logins[name], mailHost=f"scripted{number}.example.org")
        member = self.scripted[name] = ScriptedMember(script)
        self.addCleanup(member.close)
        self.scripted_routes[f"scripted{number}.example.org"] = member.address

    async def start_fronts(self, *controls: Mapping[str, str]) -> None:
        """One front for each of these further control files."""
        self.slapd = self.new_slapd()
        for number, control in enumerate(controls, 1):
            self.new_member(number, self.scripted_routes, control)
        await self.start_members()

    def login(self, name: str) -> bytes:
        return f"USER {self.logins[name]}\r\nPASS {PASSWORD}\r\n".encode()

    async def answer(self, name: str, front: int = 1) -> str:
        """What the user is answered to PASS."""
        return await self.refusal_at(front, self.logins[name])

    async def assert_all_ended(self) -> None:
        """No connection to any member is left, and all have done as they were told."""
        await wait_until(
            lambda: not any(member.is_busy for member in self.scripted.values()),
            5,
            "the front to close all its connections",
        )
        for name, member in self.scripted.items():
            self.assertEqual(member.faults, [], name)
