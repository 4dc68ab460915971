"""SIGTERM, whatever the sessions are doing: nobody loses mail, and the server is gone in time."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
from collections.abc import Sequence

import attrs
from twisted.internet.threads import deferToThread

from .certificates import write_certificate
from .clients import Conversation
from .cluster import ScriptedTestCase
from .hosts import require_root
from .mailboxes import MESSAGES, Maildir, stuffed
from .ports import HOST
from .process_table import Process
from .processes import wait_until
from .scripts import original
from .server import Pop3Server
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


@attrs.frozen
class Stopped:
    """A server, and two who have mail there: Joe has large messages, and Ann many."""

    test: SiteTestCase
    server: Pop3Server
    joe: str
    joes: Maildir
    ann: str
    anns: Maildir

    async def connect(self, slow: bool = False) -> Conversation:
        connection = await deferToThread(
            Conversation, self.server.port, receive_buffer=_SMALL if slow else 0
        )
        self.test.addCleanup(connection.hang_up)
        return connection

    async def logged_in(self, user: str, *commands: bytes, slow: bool = False) -> Conversation:
        """A session in which each of the commands has been answered by one line."""
        connection = await self.connect(slow)
        await deferToThread(connection.log_in, user, PASSWORD)
        for command in commands:
            answer = await deferToThread(connection.ask, command)
            assert answer.startswith(b"+OK"), (command, answer)
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
        assert code in (0, -signal.SIGTERM), code
        await wait_until(
            lambda: not self.server.child.group_is_alive(), _LIMIT, "the end of all processes"
        )
        assert "Server Shut Down." in self.server.log
        self.server.assert_no_tracebacks()


class StopTests(SiteTestCase):
    """Servers of one directory, and a session in each state."""

    def setUp(self) -> None:
        require_root()
        super().setUp()

    async def serve(self, *several: Sequence[str]) -> list[Stopped]:
        """Start servers with these options, each with mail of its own."""
        certificate = self.directory / "server-certificate.pem"
        write_certificate(certificate)
        large, many = [LARGE, MESSAGES["plain"]], [b"Subject: %d\n" % n for n in range(60)]
        users = [
            (
                *(f"joe{number}", self.user(f"joe{number}", messages=large, owner=JOE)),
                *(f"ann{number}", self.user(f"ann{number}", messages=many, owner=ANN)),
            )
            for number in range(len(several))
        ]
        self.slapd = self.new_slapd()
        stopped = []
        for options, each in zip(several, users, strict=True):
            options = ["--certificate", str(certificate), *options]
            server = self.new_server(self.slapd.address, f"server-{each[0]}", options=options)
            stopped.append(Stopped(self, server, *each))
        await self.together(self.slapd.start(), *(each.server.start() for each in stopped))
        return stopped

    async def stop_all(self, its: Stopped) -> None:
        idle = [await its.logged_in(its.joe), await its.logged_in(its.joe, b"DELE 2")]
        idle += [await its.connect(), await its.connect()]
        await deferToThread(idle[-1].ask, b"AUTH LOGIN")
        by_tls = await its.connect()
        await deferToThread(by_tls.ask, b"STLS")
        await deferToThread(by_tls.start_tls, ssl._create_unverified_context())
        idle.append(by_tls)
        slow = await its.logged_in(its.joe, b"RETR 1", slow=True)
        deaf = await its.logged_in(its.joe, b"RETR 1", slow=True)
        update = await its.logged_in(its.ann, *(b"DELE %d" % each for each in range(1, 41)))
        keeper = its.keeper_of(ANN)
        os.kill(keeper.pid, signal.SIGSTOP)
        self.addCleanup(_go_on, keeper.pid)
        await deferToThread(update.send, b"QUIT\r\n")
        # Whoever has been quiet for a second is idle, and all of them were asked before this one.
        begun = await deferToThread(slow.read_some, 100_000)

        its.stop()
        for each in idle:
            self.assertEqual(await deferToThread(each.rest), STOPPED)
        self.assertTrue(its.refuses())
        its.stop()
        received = begun + await deferToThread(slow.rest)
        self.assertTrue(received == as_sent(LARGE) + STOPPED, received[-200:])
        os.kill(keeper.pid, signal.SIGCONT)
        self.assertEqual(await deferToThread(update.line), b"+OK ")
        await its.all_gone()
        cut = await deferToThread(deaf.rest)
        self.assertTrue(as_sent(LARGE).startswith(cut))
        self.assertFalse(cut.endswith(b"\r\n.\r\n"))

        self.assertEqual([*its.anns.read().values()], [b"Subject: %d\n" % n for n in range(40, 60)])
        self.assertEqual([*its.joes.read().values()], [LARGE, MESSAGES["plain"]])
        self.assertEqual(its.server.log.count("end=stopped"), 4)
        self.assertEqual(its.server.log.count("end=quit"), 1)

    async def test_each_session_ends_as_it_should_also_with_several_workers(self) -> None:
        stopped = await self.serve(["--grace", "3"], ["--grace", "3", "--workers", "2"])
        await self.together(*map(self.stop_all, stopped))

    async def test_with_no_time_idle_ones_are_told_and_a_poll_with_time_goes_on(self) -> None:
        at_once, in_time = await self.serve(["--grace", "0"], [])
        await self.together(self.stop_at_once(at_once), self.stop_beside_a_poll(in_time))

    async def stop_at_once(self, its: Stopped) -> None:
        idle = await its.logged_in(its.joe, b"DELE 2")
        deaf = await its.logged_in(its.joe, b"RETR 1", slow=True)
        its.stop()
        self.assertEqual(await deferToThread(idle.rest), STOPPED)
        await its.all_gone()
        self.assertFalse((await deferToThread(deaf.rest)).endswith(b"\r\n.\r\n"))
        self.assertEqual([*its.joes.read().values()], [LARGE, MESSAGES["plain"]])

    async def stop_beside_a_poll(self, its: Stopped) -> None:
        """It ends as if nothing was."""
        poll = await its.logged_in(its.ann, b"STAT")
        its.stop()
        await wait_until(its.refuses, _LIMIT, "the stop")
        for command in (b"RETR 1", b"DELE 1", b"QUIT"):
            self.assertTrue((await deferToThread(poll.ask, command)).startswith(b"+OK"), command)
            if command == b"RETR 1":
                await deferToThread(poll.listing)
        await its.all_gone()
        self.assertEqual(len(its.anns.read()), 59)


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
