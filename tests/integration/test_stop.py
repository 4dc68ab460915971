"""SIGTERM, whatever the sessions are doing: nobody loses mail, and the server is gone in time."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl

from twisted.internet.threads import deferToThread

from .certificates import write_certificate
from .clients import Conversation
from .cluster import ScriptedTestCase
from .hosts import require_root
from .mailboxes import MESSAGES, stuffed
from .ports import HOST
from .process_table import Process
from .processes import wait_until
from .scripts import original
from .site import PASSWORD, SiteTestCase
from .users import Owner

STOPPED = b"-ERR [SYS/TEMP] the server is being stopped, try again\r\n"
LARGE = (b"All work and no play makes a dull boy. " * 25 + b"\n") * 8_000
"""More than the kernel keeps for a client that does not read."""

JOE: Owner = (21001, 22001)
ANN: Owner = (21002, 22002)
_LIMIT = 20.0
_SMALL = 4096


def as_sent(content: bytes) -> bytes:
    """A message as it comes behind +OK, with its end."""
    return b"".join(line + b"\r\n" for line in [*stuffed(content), b"."])


class StopTestCase(SiteTestCase):
    def setUp(self) -> None:
        require_root()
        super().setUp()

    async def logged_in(self, user: str, *commands: bytes, slow: bool = False) -> Conversation:
        """A session in which each of the commands has been answered by one line."""
        connection = await self.connect(receive_buffer=_SMALL if slow else 0)
        await deferToThread(connection.log_in, user, PASSWORD)
        for command in commands:
            answer = await deferToThread(connection.ask, command)
            self.assertTrue(answer.startswith(b"+OK"), (command, answer))
        return connection

    def stop(self) -> None:
        self.server.child.signal(signal.SIGTERM)

    def keeper_of(self, owner: Owner) -> Process:
        (keeper,) = [each for each in self.server.processes if set(each.uids) == {owner[0]}]
        return keeper

    def refuses(self) -> bool:
        """Whether the port is closed."""
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.server.port)) != 0

    async def all_gone(self) -> None:
        code = await self.server.child.ended(_LIMIT)
        self.assertIn(code, (0, -signal.SIGTERM))
        await wait_until(
            lambda: not self.server.child.group_is_alive(), _LIMIT, "the end of all processes"
        )
        self.assertIn("Server Shut Down.", self.server.log)
        self.server.assert_no_tracebacks()


class StopTests(StopTestCase):
    """One server, and a session in each state. Joe has large messages, and Ann many."""

    async def serve(self, *options: str) -> None:
        self.joe = self.user("joe", messages=[LARGE, MESSAGES["plain"]], owner=JOE)
        self.ann = self.user("ann", messages=[b"Subject: %d\n" % n for n in range(60)], owner=ANN)
        certificate = self.directory / "server-certificate.pem"
        write_certificate(certificate)
        await self.start("--certificate", str(certificate), *options)

    async def stop_all(self) -> None:
        idle = [await self.logged_in("joe"), await self.logged_in("joe", b"DELE 2")]
        idle += [await self.connect(), await self.connect()]
        await deferToThread(idle[-1].ask, b"AUTH LOGIN")
        by_tls = await self.connect()
        await deferToThread(by_tls.ask, b"STLS")
        await deferToThread(by_tls.start_tls, ssl._create_unverified_context())
        idle.append(by_tls)
        slow = await self.logged_in("joe", b"RETR 1", slow=True)
        deaf = await self.logged_in("joe", b"RETR 1", slow=True)
        update = await self.logged_in("ann", *(b"DELE %d" % each for each in range(1, 41)))
        keeper = self.keeper_of(ANN)
        os.kill(keeper.pid, signal.SIGSTOP)
        self.addCleanup(_go_on, keeper.pid)
        await deferToThread(update.send, b"QUIT\r\n")
        # Whoever has been quiet for a second is idle, and all of them were asked before this one.
        begun = await deferToThread(slow.read_some, 100_000)

        self.stop()
        for each in idle:
            self.assertEqual(await deferToThread(each.rest), STOPPED)
        self.assertTrue(self.refuses())
        self.stop()
        received = begun + await deferToThread(slow.rest)
        self.assertTrue(received == as_sent(LARGE) + STOPPED, received[-200:])
        os.kill(keeper.pid, signal.SIGCONT)
        self.assertEqual(await deferToThread(update.line), b"+OK ")
        await self.all_gone()
        cut = await deferToThread(deaf.rest)
        self.assertTrue(as_sent(LARGE).startswith(cut))
        self.assertFalse(cut.endswith(b"\r\n.\r\n"))

        self.assertEqual([*self.ann.read().values()], [b"Subject: %d\n" % n for n in range(40, 60)])
        self.assertEqual([*self.joe.read().values()], [LARGE, MESSAGES["plain"]])
        self.assertEqual(self.server.log.count("end=stopped"), 4)
        self.assertEqual(self.server.log.count("end=quit"), 1)

    async def test_each_session_ends_as_it_should(self) -> None:
        await self.serve("--grace", "3")
        await self.stop_all()

    async def test_so_it_is_with_several_workers(self) -> None:
        await self.serve("--grace", "3", "--workers", "2")
        await self.stop_all()

    async def test_with_no_time_idle_ones_are_told_and_all_is_over_at_once(self) -> None:
        await self.serve("--grace", "0")
        idle = await self.logged_in("joe", b"DELE 2")
        deaf = await self.logged_in("joe", b"RETR 1", slow=True)
        self.stop()
        self.assertEqual(await deferToThread(idle.rest), STOPPED)
        await self.all_gone()
        self.assertFalse((await deferToThread(deaf.rest)).endswith(b"\r\n.\r\n"))
        self.assertEqual([*self.joe.read().values()], [LARGE, MESSAGES["plain"]])

    async def test_a_poll_that_is_under_way_ends_as_if_nothing_was(self) -> None:
        await self.serve()
        poll = await self.logged_in("ann", b"STAT")
        self.stop()
        await wait_until(self.refuses, _LIMIT, "the stop")
        for command in (b"RETR 1", b"DELE 1", b"QUIT"):
            self.assertTrue((await deferToThread(poll.ask, command)).startswith(b"+OK"), command)
            if command == b"RETR 1":
                await deferToThread(poll.listing)
        await self.all_gone()
        self.assertEqual(len(self.ann.read()), 59)


def _go_on(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


class ForwardedTests(ScriptedTestCase):
    async def test_those_that_another_member_serves_end_likewise(self) -> None:
        self.keep("mail2", original("user0", PASSWORD, [LARGE, MESSAGES["plain"]]))
        await self.start_fronts({})
        idle = await self.joined()
        slow = await self.joined(_SMALL)
        self.assertEqual(await deferToThread(slow.ask, b"RETR 1"), b"+OK ")
        begun = await deferToThread(slow.read_some, 100_000)
        self.server.child.signal(signal.SIGTERM)
        self.assertEqual(await deferToThread(idle.rest), STOPPED)
        received = begun + await deferToThread(slow.rest)
        # The original adds an empty line.
        whole = as_sent(LARGE).removesuffix(b".\r\n") + b"\r\n.\r\n"
        self.assertTrue(received == whole + STOPPED, received[-200:])
        await self.server.child.ended(_LIMIT)
        await self.assert_all_ended()
        self.assertEqual(self.server.log.count("end=stopped"), 2)

    async def joined(self, receive_buffer: int = 0) -> Conversation:
        connection = await self.connect_to(1, receive_buffer=receive_buffer)
        await deferToThread(connection.log_in, self.logins["mail2"], PASSWORD)
        return connection
