"""Who is on, and who is to go: qmailldap sessions, kick and status on a running server."""

from __future__ import annotations

import errno
import json
import os
import poplib
import re
import signal
import socket
import stat
import time
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from .clients import Conversation, curl
from .hosts import NOBODY, require_root
from .mailboxes import MESSAGES, everything_below
from .members import ScriptedMember
from .processes import wait_until
from .scripts import original
from .site import PASSWORD
from .users import Owner
from .watching import WatchedTestCase

_LIMIT = 20.0
_STRANGE = 255
_KICKED = b"-ERR [SYS/TEMP] "


class WorkersTests(WatchedTestCase):
    """Two workers, and a member that keeps jane's mail."""

    async def start_site(self) -> None:
        member = ScriptedMember(original("jane", PASSWORD, [MESSAGES["plain"]]))
        self.addCleanup(member.close)
        self.member = member.address
        self.maildir = self.user("joe", messages=[MESSAGES["plain"], MESSAGES["dots"]])
        self.user("jane", mailHost="mail2.example.org")
        self.user("ann", messages=[MESSAGES["plain"]])
        await self.start(
            *("--workers", "2", *self.watched),
            me="mail1.example.org",
            ldapcluster="1",
            pop3routes=f"mail2.example.org:{member.address}",
        )

    async def logged_in(self, user: str) -> Conversation:
        connection = await self.connect()
        await deferToThread(connection.log_in, user, PASSWORD)
        return connection

    async def test_who_is_on_is_shown_and_who_is_kicked_is_gone(self) -> None:
        await self.start_site()
        self.assertEqual(stat.S_IMODE(self.admin.stat().st_mode), 0o600)
        self.assertEqual(self.admin.stat().st_uid, os.geteuid())
        waiting = await self.connect()
        joes = [await self.logged_in("joe") for _ in range(4)]
        ann, jane = await self.logged_in("ann"), await self.logged_in("jane")
        await deferToThread(ann.ask, b"STAT")
        self.assertEqual((await curl(self.server.port, "ann", PASSWORD, "1")).code, 0)

        sessions = await self.sessions()
        self.assertEqual(len(sessions), 7, sessions)
        by_user: dict[str, list[dict[str, Any]]] = {}
        for each in sessions:
            by_user.setdefault(each["user"], []).append(each)
            self.assertEqual(each["host"], "127.0.0.1")
        self.assertEqual(
            {user: (len(each), each[0]["kind"]) for user, each in by_user.items()},
            {
                "": (1, "waiting"),
                "joe": (4, "local"),
                "ann": (1, "local"),
                "jane": (1, "forwarded"),
            },
        )
        self.assertEqual(by_user["jane"][0]["member"], self.member)
        # Each worker has some of them, and either has told of all.
        pids = {each.pid for each in self.server.processes} - {self.server.child.pid}
        self.assertGreaterEqual(len(pids), 2)
        since = [each["since"] for each in sessions]
        self.assertEqual(since, sorted(since))

        text = (await self.ask("sessions", "--kind", "forwarded")).output.decode()
        header, line = text.splitlines()
        self.assertEqual(header.split()[:2], ["SESSION", "USER"])
        self.assertRegex(line, rf"^{re.escape(by_user['jane'][0]['id'])} +jane +127\.0\.0\.1 ")

        # One of joe's, by its id: nothing is deleted, and the others go on.
        before = everything_below(self.maildir.path)
        deleted = await deferToThread(joes[0].ask, b"DELE 1")
        self.assertEqual(deleted[:3], b"+OK")
        ids = {each["id"] for each in by_user["joe"]}
        (first,) = [
            each["id"] for each in await self.sessions("--user", "joe") if each["doing"] == ""
        ][:1]
        self.assertIn(first, ids)
        self.assert_ended(await self.ask("kick", first), 1)
        left = await self.sessions("--user", "joe")
        self.assertEqual({each["id"] for each in left}, ids - {first})

        # And all that he has, by his name.
        self.assert_ended(await self.ask("kick", "joe"), 3)
        for joe in joes:
            self.assertEqual((await deferToThread(joe.rest))[: len(_KICKED)], _KICKED)
        await wait_until(lambda: self.server.log.count("end=kicked") == 4, _LIMIT, "four logouts")
        self.assertEqual(everything_below(self.maildir.path), before)
        self.assertEqual(await deferToThread(ann.ask, b"NOOP"), b"+OK ")
        self.assertEqual((await deferToThread(jane.ask, b"STAT"))[:6], b"+OK 1 ")

        # Those that another member serves, and those who have not logged in.
        self.assert_ended(await self.ask("kick", "jane"), 1)
        await deferToThread(jane.rest)
        (there,) = await self.sessions("--kind", "waiting")
        self.assert_ended(await self.ask("kick", there["id"]), 1)
        await deferToThread(waiting.rest)
        nobody = await self.ask("kick", "jane")
        self.assertEqual((nobody.code, nobody.text), (1, "0 sessions ended\n"))
        self.assertRegex(
            self.server.log, rf"kicked who=joe sessions=3 by-uid={os.geteuid()} by-pid=\d+"
        )

        # Who was kicked may come again.
        count, _ = await self.in_session("joe", poplib.POP3.stat)
        self.assertEqual(count, 2)
        await self.assert_status_is_that_of_all()
        await self.server.stop()
        self.assertFalse(self.admin.exists())

    def assert_ended(self, finished: Any, number: int) -> None:
        word = "session" if number == 1 else "sessions"
        self.assertEqual((finished.code, finished.text), (0, f"{number} {word} ended\n"))

    async def assert_status_is_that_of_all(self) -> None:
        await self.refusal_of("ann", "wrong-one")
        status = await self.status()
        self.assertEqual((status["workers"], status["silent"]), (2, []))
        self.assertEqual(status["name"], "mail1.example.org")
        self.assertEqual(status["sessions"], {"local": 1, "forwarded": 0, "waiting": 0})
        self.assertEqual(status["logins"], 8)
        self.assertGreaterEqual(status["messages"], 1)
        (server,) = status["servers"]
        self.assertEqual((server["name"], server["up"], server["of"]), (self.slapd.address, 2, 2))
        (member,) = status["members"]
        self.assertEqual((member["name"], member["sessions"]), (self.member, 0))
        (refused,) = status["refusals"]
        self.assertEqual((refused["reason"], refused["user"]), ("wrong-credentials", ""))
        self.assertEqual(sum(each["logins"] for each in status["minutes"]), 8)
        text = (await self.ask("status")).output.decode()
        self.assertIn("All is well.", text)
        self.assertNotIn("ann", text)

        # A worker that does not answer is named, and the others are shown.
        workers = [each for each in self.server.processes if each.parent == self.server.child.pid]
        # The socket is that of both, and the other takes the question.
        os.kill(workers[0].pid, signal.SIGSTOP)
        try:
            # What it has found out a moment ago it tells again.
            deadline = time.monotonic() + _LIMIT
            while not (status := await self.status())["silent"]:
                self.assertLess(time.monotonic(), deadline)
        finally:
            os.kill(workers[0].pid, signal.SIGCONT)
        self.assertEqual(len(status["silent"]), 1)
        self.assertIn("does not answer", status["troubles"][0])

    async def status(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((await self.ask("status", "--json")).output)
        return told


class SocketTests(WatchedTestCase):
    async def test_a_stale_socket_is_replaced_and_a_living_one_is_its_owner_s(self) -> None:
        require_root()
        self.user("joe")
        await self.start(*self.watched)
        first = self.admin.stat().st_ino
        other = self.new_server(self.slapd.address, "other", options=["--admin", str(self.admin)])
        refused = await other.refuse_to_start()
        self.assertEqual(refused.code, 1)
        self.assertIn(
            f"qmailldap-pop3: --admin {self.admin}: a server that is running listens there\n",
            refused.text,
        )
        self.assertEqual(self.admin.stat().st_ino, first)
        await self.assert_other_users_cannot_connect()

        self.server.child.signal(signal.SIGKILL)
        await self.server.child.ended(_LIMIT)
        self.assertTrue(self.admin.exists())
        gone = await self.ask("status")
        self.assertEqual(gone.code, 111)
        self.assertIn(f"qmailldap status: {self.admin}: Connection refused", gone.text)
        again = self.new_server(self.slapd.address, "again", options=["--admin", str(self.admin)])
        await again.start()
        self.assertEqual((await self.ask("sessions")).code, 0)
        # Who has become another user may not remove it.
        await again.stop()
        self.assertEqual((await self.ask("kick", "joe")).code, 111)

    async def assert_other_users_cannot_connect(self) -> None:
        self.admin.parent.chmod(0o755)
        # Whoever serves it is nobody, too.
        error = await deferToThread(_connect_as, NOBODY, self.admin)
        self.assertEqual(error, errno.EACCES)
        self.assertEqual((await self.ask("sessions")).code, 0)


def _connect_as(owner: Owner, path: Path) -> int:
    """The error with which a process of ``owner`` alone fails to connect; 0 if it does not."""
    pid = os.fork()
    if not pid:
        code = _STRANGE
        try:
            uid, gid = owner
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            with socket.socket(socket.AF_UNIX) as connection:
                code = connection.connect_ex(str(path))
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
