"""The demo as a newcomer runs it: the very lines it prints are tried."""

from __future__ import annotations

import poplib
import re
import shlex
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from qmailldap.commands.demo_messages import MAIL

from . import clients
from .ports import unused_port
from .processes import Child, run, wait_until
from .server import environment

_LIMIT = 30.0
_QMAILLDAP = [sys.executable, "-c", "from qmailldap.commands import main; raise SystemExit(main())"]


class DemoTests(TestCase):
    timeout = 120

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="qmailldap-test-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.port = unused_port()
        self.output = self.directory / "output"
        self.arguments = [
            *_QMAILLDAP,
            "demo",
            "--directory",
            str(self.directory / "demo"),
            "--port",
            str(self.port),
        ]

    async def start(self) -> Child:
        self.output.write_bytes(b"")
        demo = Child(self.arguments, self.output, environment=environment())
        self.addCleanup(demo.kill)
        await wait_until(lambda: "Ctrl-C" in self.output.read_text(), _LIMIT, "the demo", demo)
        return demo

    async def interrupt(self, demo: Child) -> None:
        demo.signal(signal.SIGINT)
        self.assertEqual(await demo.ended(_LIMIT), 0, demo.last_lines())
        self.assertNotIn("Traceback", self.output.read_text())

    async def test_the_lines_it_prints_work(self) -> None:
        demo = await self.start()
        printed = self.output.read_text()
        commands = re.findall(r"^  (curl .*)$", printed, re.MULTILINE)
        self.assertGreaterEqual(len(commands), 2)
        answers = [await run(shlex.split(command), _LIMIT) for command in commands]
        self.assertEqual([answer.code for answer in answers], [0] * len(commands))
        self.assertIn("invoice.csv", answers[1].text)
        self.assertTrue(any("--ssl-reqd" in command for command in commands))

        said = re.findall(r"^    ([A-Z].*)$", printed, re.MULTILINE)
        self.assertEqual(
            ["USER", "PASS", "UIDL", "RETR", "QUIT"], [line.split()[0] for line in said]
        )

        def type_them(connection: clients.Conversation) -> bytes:
            connection.send(b"".join(line.encode() + b"\r\n" for line in said))
            return connection.rest()

        heard = await clients.converse(self.port, type_them)
        self.assertNotIn(b"-ERR", heard)
        self.assertIn(b"\r\n..these\r\n", heard)
        await self.interrupt(demo)

    async def test_every_message_comes_through_as_it_lies_on_disk(self) -> None:
        demo = await self.start()
        for user, password in (("alice", "wonderland"), ("bob", "builder")):
            lines = await clients.in_session(
                self.port, user, password, lambda pop: [pop.retr(n)[1] for n in (1, 2)]
            )
            maildir = self.directory / "demo" / "mail" / user / "Maildir"
            stored = sorted((*maildir.glob("new/*"), *maildir.glob("cur/*")))
            self.assertEqual(len(stored), len(MAIL[user]))
            for path, received in zip(stored, lines, strict=True):
                self.assertEqual(path.read_bytes(), b"".join(line + b"\n" for line in received))
        await self.interrupt(demo)

    async def test_a_second_start_keeps_the_mailboxes(self) -> None:
        demo = await self.start()

        def delete_one(pop: poplib.POP3) -> bytes:
            pop.dele(1)
            left: bytes = pop.uidl()[1][0]
            pop.quit()
            return left

        left = await clients.in_session(self.port, "bob", "builder", delete_one)
        await self.interrupt(demo)
        demo = await self.start()
        uids = await clients.in_session(self.port, "bob", "builder", lambda pop: pop.uidl()[1])
        self.assertEqual([uid.split()[1] for uid in uids], [left.split()[1]])
        await self.interrupt(demo)

    async def test_a_port_in_use_is_said_to_be(self) -> None:
        demo = await self.start()
        second = await run(self.arguments, _LIMIT, environment=environment())
        self.assertNotEqual(second.code, 0)
        self.assertIn(f"127.0.0.1:{self.port}", second.text)
        self.assertNotIn("Traceback", second.text)
        await self.interrupt(demo)
