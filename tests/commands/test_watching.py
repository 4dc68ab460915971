"""qmailldap sessions, kick and status, without a server."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from qmailldap.admin import client
from qmailldap.admin.sessions import Telling
from qmailldap.commands import main
from qmailldap.commands.sessions import as_text
from qmailldap.present import Presence
from tests.status.support import refused, state

_SESSION = {
    "id": "Zm9v",
    "user": "joe",
    "host": "192.0.2.7",
    "since": 1_700_000_000.0,
    "kind": "local",
    "doing": "RETR",
    "octets": 7_340_032,
    "tls": "no",
    "member": "",
}


def _told(session: dict[str, Any]) -> Any:
    telling = Telling()
    telling.add(Presence(**session))
    return telling.to_json()


class CommandsTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.mkdtemp(prefix="qmailldap-admin-", dir="/tmp")
        self.addCleanup(shutil.rmtree, directory)
        self.path = os.path.join(directory, "admin")
        self.asked: list[dict[str, Any]] = []

    def serve(self, answer: Callable[[socket.socket], object]) -> None:
        """Answer one who asks, from a thread."""
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        listening.bind(self.path)
        listening.listen()

        def run() -> None:
            connection, _ = listening.accept()
            with connection, connection.makefile("rb") as received:
                self.asked.append(json.loads(received.readline()))
                answer(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.addCleanup(thread.join, 5)

    def run_with(self, answer: Any, *arguments: str) -> tuple[int | str | None, str, str]:
        """The exit code and both outputs where the server gives that answer."""
        octets = answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n"
        self.serve(lambda connection: connection.sendall(octets))
        return self.run_alone(*arguments)

    def run_alone(self, *arguments: str) -> tuple[int | str | None, str, str]:
        output, errors = io.StringIO(), io.StringIO()
        code: int | str | None = None
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                code = main([arguments[0], "--admin", self.path, *arguments[1:]])
            except SystemExit as end:
                code = end.code
        return code, output.getvalue(), errors.getvalue()

    def test_sessions_are_an_aligned_table(self) -> None:
        waiting = {**_SESSION, "user": "", "kind": "waiting", "doing": "", "octets": 0}
        lines = as_text([_SESSION, waiting], more=4).splitlines()
        self.assertEqual(len({line.index(" 192.0.2.7 ") for line in lines[1:3]}), 1)
        self.assertEqual(len(lines[1]), len(lines[2]))
        self.assertRegex(lines[2], r"^Zm9v +- .* waiting +idle +0$")
        self.assertEqual(lines[3], "and 4 more")

    def test_sessions_are_asked_of_the_server(self) -> None:
        answer = {"answer": [_told(_SESSION)]}
        code, output, _ = self.run_with(answer, "sessions", "--json", "--user", "joe")
        self.assertEqual((code, json.loads(output)["sessions"]), (0, [_SESSION]))
        self.assertEqual(self.asked, [{"ask": "sessions", "user": "joe"}])

    def test_only_those_of_a_kind_are_shown(self) -> None:
        answer = {"answer": [_told(_SESSION)]}
        _, output, _ = self.run_with(answer, "sessions", "--kind", "waiting")
        self.assertEqual(len(output.splitlines()), 1)

    def test_the_exit_code_tells_whether_anybody_was_kicked(self) -> None:
        one = "1 session is updating its mailbox, and ends by itself\n"
        several = "2 sessions are updating their mailboxes, and end by themselves\n"
        for ended, updating, expected in (
            (1, 0, (0, "1 session ended\n", "")),
            (0, 0, (1, "0 sessions ended\n", "")),
            (0, 1, (0, f"0 sessions ended\n{one}", "")),
            (3, 2, (0, f"3 sessions ended\n{several}", "")),
        ):
            told = {"answer": {"ended": ended, "updating": updating}}
            self.assertEqual(self.run_with(told, "kick", "joe"), expected)
            os.unlink(self.path)

    def test_an_answer_of_another_version_is_no_answer(self) -> None:
        self.assertEqual(
            self.run_with({"answer": 1}, "kick", "joe"),
            (111, "", "qmailldap kick: the answer is none of this version\n"),
        )

    def test_the_status_is_shown_as_text_and_as_json(self) -> None:
        told = {"answer": state(refusals=(refused(user="jane"),)).to_json()}
        code, output, _ = self.run_with(told, "status")
        self.assertEqual(code, 0)
        self.assertIn("All is well.", output)
        self.assertIn("jane", output)
        os.unlink(self.path)
        _, output, _ = self.run_with(told, "status", "--json")
        self.assertEqual(json.loads(output), json.loads(json.dumps(told["answer"])))

    def test_no_server_is_111_and_a_line_that_says_why(self) -> None:
        for command in (["sessions"], ["kick", "joe"], ["status"]):
            code, output, errors = self.run_alone(*command)
            self.assertEqual((code, output), (111, ""))
            self.assertEqual(
                errors,
                f"qmailldap {command[0]}: {self.path}: No such file or directory:"
                " no server listens there by its --admin\n",
            )

    def test_so_is_an_answer_that_is_none(self) -> None:
        self.patch(client, "MOST_ANSWER", 1000)
        for octets, expected in (
            (b"", "not finished"),
            (b'{"answer": 1', "not finished"),
            (b"hello\n", "Expecting value"),
            (b"[]\n", "no answer of a server"),
            (b'{"error": "too many ask at the same time"}\n', "too many ask"),
            (b" " * 2000 + b"\n", "more than 1000 octets"),
            (b"[" * 900 + b"\n", "JSON"),
        ):
            code, output, errors = self.run_with(octets, "kick", "joe")
            self.assertEqual((code, output), (111, ""), octets)
            if expected != "JSON":
                self.assertIn(expected, errors)
            self.assertEqual(errors.count("\n"), 1)
            os.unlink(self.path)

    def test_a_server_that_does_not_answer_is_not_waited_for_without_end(self) -> None:
        self.patch(client, "ANSWER_LIMIT", 0.05)
        done = threading.Event()
        self.addCleanup(done.set)
        self.serve(lambda _: done.wait(5))
        code, _, errors = self.run_alone("sessions")
        self.assertEqual(code, 111)
        self.assertIn("no answer within", errors)
        done.set()
