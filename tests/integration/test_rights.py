"""With whose rights each process of the server runs, and that they reach no further than that."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

from twisted.internet.threads import deferToThread

from .clients import Conversation
from .hosts import NOBODY, Host, as_user, python_as_user, require_root
from .mailboxes import BIG_MESSAGE, MESSAGES, everything_below
from .process_table import Process
from .server import Pop3Server
from .site import PASSWORD, SiteTestCase
from .slapd import SERVICE_PASSWORD
from .users import Owner

ANN: Owner = (21001, 22001)
BOB: Owner = (21002, 22002)
# Of ann's user, and yet of another group.
CAT: Owner = (21001, 22003)

RECORD = "-ERR [SYS/PERM] user record incorrect"


def default_user() -> Owner:
    """Whom the server becomes where nothing else is said."""
    for name in ("qmaild", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return user.pw_uid, user.pw_gid
    raise AssertionError("this host has neither qmaild nor nobody")


class RightsTestCase(SiteTestCase):
    def setUp(self) -> None:
        require_root()
        super().setUp()

    async def logged_in(self, *users: str) -> list[Conversation]:
        """Sessions that stay open and have fetched their first message."""
        connections = []
        for user in users:
            connection = await self.connect()
            await deferToThread(connection.log_in, user, PASSWORD)
            await deferToThread(connection.ask, b"RETR 1")
            await deferToThread(connection.listing)
            connections.append(connection)
        return connections

    def assert_only(self, owner: Owner, process: Process, groups: tuple[int, ...] = ()) -> None:
        """It is nobody else, and can become nobody else."""
        self.assertEqual((process.uids, process.gids), ((owner[0],) * 4, (owner[1],) * 4))
        self.assertEqual((process.groups, process.capabilities), (groups, 0))

    def assert_separated(
        self, network: Owner, *keepers: Owner, groups: tuple[int, ...] = ()
    ) -> None:
        """There is the network process, which has these ``groups`` beside its own, the broker, and
        these keepers; and nothing else.
        """
        server = self.server
        self.assert_only(network, server.network, groups)
        self.assertEqual(
            [each.pid for each in server.processes if 0 in each.uids + each.gids],
            [server.broker.pid],
        )
        self.assertEqual(sorted(each.owner for each in server.keepers), sorted(keepers))
        for each in server.keepers:
            self.assert_only(each.owner, each)
        self.assertEqual(len(server.processes), 2 + len(keepers))


class ProcessTests(RightsTestCase):
    def setUp(self) -> None:
        super().setUp()
        for user, owner in (("ann", ANN), ("bob", BOB), ("cat", CAT)):
            # The large one is held open while it is fetched.
            maildir = self.user(user, messages=[BIG_MESSAGE], owner=owner)
        self.maildir = maildir

    async def test_each_is_who_it_has_to_be_and_nobody_else(self) -> None:
        await self.start()
        # It listens before it gives up its rights, and greets nobody before it has.
        await self.converse(lambda connection: connection.greeting)
        self.assert_separated(default_user())
        await self.logged_in("ann", "bob", "cat", "ann")
        self.assert_separated(default_user(), ANN, BOB, CAT)

    async def test_none_has_open_what_is_another_ones(self) -> None:
        await self.start()
        await self.logged_in("ann", "bob", "cat")
        network, broker = self.server.network, self.server.broker
        listening = _listening(self.server.port)
        self.assertIn(listening, network.sockets)
        # One socket each: the other ends are of other numbers, and the network process has them.
        self.assertEqual(len(broker.sockets), 1)
        seen = {*network.sockets, *broker.sockets}
        for keeper in self.server.keepers:
            (own,) = keeper.sockets
            self.assertNotIn(own, seen)
            seen.add(own)
            descriptors = keeper.descriptors
            self.assertEqual([descriptors[0], len(descriptors)], ["/dev/null", 4])
            self.assertEqual(
                [descriptors[1], descriptors[2]], [broker.descriptors[1], broker.descriptors[2]]
            )
        for process in (broker, *self.server.keepers):
            files = [each for each in process.descriptors.values() if each.startswith("/")]
            self.assertEqual(files, ["/dev/null"])

    async def test_who_is_the_network_process_reaches_neither_mail_nor_root(self) -> None:
        await self.start()
        await self.logged_in("ann")
        broker, keeper = self.server.broker.pid, self.server.keeper_of(ANN).pid
        mailbox = self.maildir.path
        attempts = [
            ["ls", f"{mailbox}/new"],
            ["cat", f"{mailbox}/new/{self.maildir.new()[0]}"],
            ["touch", f"{mailbox}/new/another"],
            ["cat", "/etc/shadow"],
            *(
                ["cat", f"/proc/{pid}/{file}"]
                for pid in (broker, keeper)
                for file in ("mem", "environ", "maps")
            ),
            *(["ls", f"/proc/{pid}/fd/"] for pid in (broker, keeper)),
            *(["kill", "-KILL", str(pid)] for pid in (broker, keeper)),
            # Nor may another process of the same user look at the passwords that it holds.
            ["cat", f"/proc/{self.server.network.pid}/mem"],
        ]
        for command in attempts:
            finished = subprocess.run(
                [*as_user(default_user()), *command],
                capture_output=True,
                env={**os.environ, "LC_ALL": "C"},
            )
            self.assertNotEqual(finished.returncode, 0, command)
            self.assertRegex(finished.stderr, rb"(Permission denied|not permitted)\n$", command)
        self.assertEqual({broker, keeper} - {each.pid for each in self.server.processes}, set())
        await self.assert_serves("ann")


class UserTests(RightsTestCase):
    """Options that say as whom the network process runs."""

    VMAIL: Owner = (20501, 20502)

    def setUp(self) -> None:
        super().setUp()
        self.host = Host(self.directory / "etc")
        self.host.user("vmail", self.VMAIL, "/nonexistent")
        self.maildirs = {
            "ann": self.user("ann", messages=[MESSAGES["plain"]], owner=ANN),
            "joe": self.user("joe", messages=[MESSAGES["plain"], BIG_MESSAGE], owner=self.VMAIL),
        }

    async def delete(self, user: str) -> None:
        (connection,) = await self.logged_in(user)
        await deferToThread(connection.ask, b"DELE 1")
        self.assertEqual(await deferToThread(connection.ask, b"QUIT"), b"+OK ")

    async def test_who_owns_the_mail_works_on_it_without_a_keeper(self) -> None:
        await self.start("--user", "vmail", before=self.host.before)
        await self.logged_in("joe")
        self.assert_separated(self.VMAIL)
        await self.delete("joe")
        self.assertEqual([*self.maildirs["joe"].contents()], [f"cur/{self.kept('joe')}:2,"])
        self.assert_separated(self.VMAIL)
        # Others are served as ever.
        await self.delete("ann")
        self.assertEqual(self.maildirs["ann"].contents(), {})
        self.assert_separated(self.VMAIL, ANN)

    def kept(self, user: str) -> str:
        return self.maildirs[user].cur()[0].split(":")[0]

    async def test_a_group_may_be_named_beside_the_user(self) -> None:
        await self.start("--user", "nobody", "--group", "vmail", before=self.host.before)
        await self.logged_in("ann")
        self.assert_separated((NOBODY[0], self.VMAIL[1]), ANN)

    async def test_twistds_own_options_do_the_same(self) -> None:
        await self.start(
            twistd=["--uid", str(NOBODY[0]), "--gid", str(NOBODY[1])], before=self.host.before
        )
        await self.delete("ann")
        self.assertEqual(self.maildirs["ann"].contents(), {})
        # twistd adds those that /etc/group has of the user, its own at least.
        self.assert_separated(NOBODY, ANN, groups=(NOBODY[1],))

    async def test_not_root_it_serves_its_own_mail_and_nobody_elses(self) -> None:
        self.slapd = self.new_slapd()
        self.server = self.new_server(self.slapd.address, before=python_as_user(self.VMAIL))
        os.chown(self.server.control / "ldappassword", *self.VMAIL)
        await self.together(self.slapd.start(), self.server.start())
        await self.delete("joe")
        self.assertEqual(len(self.maildirs["joe"].contents()), 1)
        before = everything_below(self.maildirs["ann"].path)
        self.assertEqual(await self.refusal_of("ann"), RECORD)
        self.assertEqual(everything_below(self.maildirs["ann"].path), before)
        refusals = [line for line in self.server.log.splitlines() if "refused user=ann" in line]
        self.assertRegex(refusals[0], rf"uid {ANN[0]}\b.* uid {self.VMAIL[0]}\b")
        (process,) = self.server.processes
        self.assertEqual(process.owner, self.VMAIL)

    async def test_a_user_that_cannot_be_is_told_of_before_anything_is_served(self) -> None:
        host, someone = self.host.before, python_as_user(ANN)
        nobody = ["--uid", str(NOBODY[0]), "--gid", str(NOBODY[1])]
        await self.together(
            self.assert_refused(["--user", "root"], "--user root", before=host),
            self.assert_refused(["--user", "0"], "--user 0", before=host),
            self.assert_refused(["--user", "nosuchuser"], "--user nosuchuser", before=host),
            self.assert_refused(
                ["--user", "vmail", "--group", "none"], "--group none", before=host
            ),
            self.assert_refused(
                ["--user", "vmail", "--group", "root"], "--group root", before=host
            ),
            self.assert_refused(["--user", "vmail"], "--user vmail", before=host, twistd=nobody),
            self.assert_refused(["--user", "nobody"], "--user nobody", before=someone),
        )

    async def assert_refused(
        self, options: list[str], named: str, *, before: list[str], twistd: list[str] | None = None
    ) -> None:
        server: Pop3Server = self.new_server(
            "ldap.invalid",
            f"server-{len(os.listdir(self.directory))}",
            options=options,
            twistd=twistd or [],
            before=before,
        )
        finished = await server.refuse_to_start()
        self.assertGreater(finished.code, 0, finished.text)
        self.assertNotIn("Traceback", finished.text)
        self.assertNotIn(SERVICE_PASSWORD, finished.text)
        last = finished.text.rstrip("\n").splitlines()[-1]
        self.assertIn("qmailldap-pop3: ", last)
        self.assertIn(named, last)


def _listening(port: int) -> str:
    """The socket that listens on a port, as it is shown among descriptors."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].split(":")[1], 16) == port and fields[3] == "0A":
            return f"socket:[{fields[9]}]"
    raise AssertionError(f"nobody listens on {port}")
