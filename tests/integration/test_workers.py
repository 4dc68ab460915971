"""Several processes that serve the same ports: --workers."""

from __future__ import annotations

import os
import poplib
import re
import signal
import socket
import ssl
import stat
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from twisted.internet.threads import deferToThread

from .certificates import write_certificate
from .clients import Conversation
from .hosts import NOBODY, require_root
from .mailboxes import MESSAGES
from .ports import HOST, unused_port
from .process_table import Process, living_processes
from .processes import run, wait_until
from .server import PROJECT, TAC, TWISTD, environment
from .site import PASSWORD, SiteTestCase

_LIMIT = 20.0

FIRST, SECOND = "127.0.1.1", "127.0.2.1"


class WorkersTestCase(SiteTestCase):
    async def start_workers(
        self, *options: str, listen: Sequence[str] = (), **control: str | None
    ) -> None:
        self.slapd = self.new_slapd()
        self.server = self.new_server(
            self.slapd.address,
            options=["--workers", "2", *options],
            listen=listen,
            control=control,
        )
        await self.together(self.slapd.start(), self.server.start())
        # Whoever sees a port open may send one.
        self.server.child.signal(signal.SIGHUP)
        # The ports are open a moment sooner.
        await wait_until(lambda: len(self.workers()) == 2, _LIMIT, "two workers")
        for each in self.pids():
            (await self.at(worker=each)).hang_up()
        self.assertNotIn("has ended", self.server.log)

    def workers(self) -> list[Process]:
        """The children of the process that was started."""
        return [each for each in self.server.processes if each.parent == self.server.child.pid]

    def pids(self) -> set[int]:
        return {each.pid for each in self.workers()}

    async def at(self, source: str = HOST, worker: int = 0) -> Conversation:
        """A connection from that address, to that worker if one is named."""
        deadline = time.monotonic() + _LIMIT
        while time.monotonic() < deadline:
            connection = await deferToThread(Conversation, self.server.port, source=source)
            if not worker or _worker_of(connection) == worker:
                self.addCleanup(connection.hang_up)
                return connection
            connection.hang_up()
        raise AssertionError(f"worker {worker} took no connection in {_LIMIT} s")

    async def wait_for_log(self, *patterns: str) -> None:
        for each in patterns:
            await wait_until(partial(self.has_logged, each), _LIMIT, each)

    def has_logged(self, pattern: str) -> bool:
        return re.search(pattern, self.server.log) is not None

    def assert_refused(self, port: int) -> None:
        with socket.socket() as probe:
            self.assertNotEqual(probe.connect_ex((HOST, port)), 0)


def _worker_of(connection: Conversation) -> int:
    """The process that greets with its number; 0 where none does."""
    greeted = re.match(rb"\+OK <?(\d+)\.", connection.greeting)
    return int(greeted[1]) if greeted else 0


class LifeTests(WorkersTestCase):
    async def test_all_serve_and_one_that_ends_is_replaced(self) -> None:
        self.user("joe", messages=[MESSAGES["plain"]])
        certificate = self.directory / "server-certificate.pem"
        write_certificate(certificate)
        await self.start_workers("--certificate", str(certificate))
        first, second = sorted(self.pids())
        left = await self.at(worker=first)
        await deferToThread(left.log_in, "joe", PASSWORD)
        staying = await self.at(worker=second)
        await deferToThread(staying.log_in, "joe", PASSWORD)
        await self.wait_for_log("login user=joe .* worker=1\n", "login user=joe .* worker=2\n")

        # What is wrong is said, and keeps no worker from going on, or from starting.
        ldapserver = self.server.control / "ldapserver"
        right = ldapserver.read_text()
        ldapserver.write_text("a:b:c\n")
        self.server.child.signal(signal.SIGHUP)
        await self.wait_for_log(r"#error\] control was not loaded, .*/ldapserver.*a:b:c")
        os.kill(first, signal.SIGKILL)
        await self.assert_serves("joe")
        self.assertEqual(await deferToThread(staying.ask, b"NOOP"), b"+OK ")
        await self.wait_for_log(r"#error\] workers worker=\d has ended with signal 9")
        deadline = time.monotonic() + _LIMIT
        while _worker_of(connection := await self.at()) == second:
            # Not for ever; and meanwhile the other serves.
            self.assertLess(time.monotonic(), deadline)
            connection.hang_up()
        third = _worker_of(connection)
        await deferToThread(connection.log_in, "joe", PASSWORD)

        # A signal to the one process reaches all.
        ldapserver.write_text(right)
        (self.server.control / "me").write_text("pop.example.net\n")
        write_certificate(certificate)
        self.server.child.signal(signal.SIGHUP)
        await self.wait_for_log(rf"control loaded changed=me,{certificate}\n")
        for worker in (second, third):
            greeted = await self.at(worker=worker)
            self.assertIn(b"@pop.example.net", greeted.greeting)
        for number in (1, 2):
            await self.wait_for_log(rf"certificate loaded .* worker={number}\n")
        self.assertEqual(self.pids(), {second, third})

        child = self.server.child
        await self.server.stop()
        self.assertFalse(child.group_is_alive())
        self.assert_refused(self.server.port)

    async def test_what_is_asked_for_before_a_worker_serves_keeps_none_from_starting(self) -> None:
        self.user("joe")
        certificate = self.directory / "server-certificate.pem"
        write_certificate(certificate)
        self.slapd = self.new_slapd()
        options = ["--workers", "2", "--certificate", str(certificate)]
        self.server = self.new_server(self.slapd.address, options=options)
        await self.together(self.slapd.start(), self.server.start())
        # The supervisor cannot know what is wrong with it.
        certificate.write_text("no certificate\n")
        self.server.child.signal(signal.SIGHUP)
        await self.wait_for_log(rf"#error\] control was not loaded, .*{certificate}")
        await self.assert_serves("joe")
        self.assertNotIn("has ended", self.server.log)
        self.assertNotIn("is ended", self.server.log)

    async def test_a_fault_is_found_before_anything_listens(self) -> None:
        server = self.new_server(
            "a:b:c", options=["--workers", "2"], listen=[f"tcp:{unused_port()}:interface={HOST}"]
        )
        finished = await server.refuse_to_start()
        self.assertEqual(finished.code, 1, finished.text)
        last = finished.text.rstrip("\n").splitlines()[-1]
        self.assertRegex(last, "^qmailldap-pop3: .*/ldapserver.*a:b:c")
        self.assertNotIn("starting on", finished.text)


class EndpointTests(WorkersTestCase):
    async def test_each_kind_is_listened_on_by_all(self) -> None:
        self.user("joe")
        certificate = self.directory / "server-certificate.pem"
        write_certificate(certificate)
        path = self.directory / "socket"
        tls, pop3s, proxied = unused_port(), unused_port(), unused_port()
        files = f"privateKey={certificate}:certKey={certificate}"
        await self.start_workers(
            *("--certificate", str(certificate), "--pop3s", f"tcp:{pop3s}:interface={HOST}"),
            listen=[
                f"unix:{path}:mode=600",
                f"haproxy:tcp:{proxied}:interface={HOST}",
                f"ssl:{tls}:interface={HOST}:{files}",
            ],
        )
        context = ssl.create_default_context(cafile=certificate)

        def greeting(connection: socket.socket) -> int:
            with connection, connection.makefile("rb") as received:
                greeted = re.match(rb"\+OK <?(\d+)\.", received.readline())
                assert greeted
                return int(greeted[1])

        def by_unix() -> int:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(_LIMIT)
            connection.connect(str(path))
            return greeting(connection)

        def by_proxy() -> int:
            connection = socket.create_connection((HOST, proxied), _LIMIT)
            connection.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 5600 110\r\n")
            return greeting(connection)

        def by_tls(port: int) -> int:
            connection = socket.create_connection((HOST, port), _LIMIT)
            return greeting(context.wrap_socket(connection, server_hostname="localhost"))

        both = self.pids()
        for each in (by_unix, by_proxy, lambda: by_tls(tls), lambda: by_tls(pop3s)):
            seen: set[int] = set()
            deadline = time.monotonic() + _LIMIT
            while seen != both and time.monotonic() < deadline:
                seen.add(await deferToThread(each))
            self.assertEqual(seen, both)
        # The file belongs to the process that has made it, and stays when a worker ends.
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        os.kill(min(both), signal.SIGTERM)
        await wait_until(lambda: min(both) not in self.pids(), _LIMIT, "the end of a worker")
        await deferToThread(by_unix)
        # As systemd ends a service: every process is sent the signal.
        for worker in self.workers():
            os.kill(worker.pid, signal.SIGTERM)
        await self.server.stop()
        self.assertEqual(living_processes(self.server.child.pid), [])
        self.assertFalse(path.exists())


class SharedTests(WorkersTestCase):
    async def test_limits_and_the_end_are_those_of_all_together(self) -> None:
        for name in ("joe", "jane"):
            self.user(name)
        await self.start_workers(
            pop3limits="sessions:2\nconnections-per-address:3\nguesses:0\nguesses-per-login:1"
        )
        one, other = sorted(self.pids())
        for worker in (one, other):
            connection = await self.at(FIRST, worker)
            await deferToThread(connection.log_in, "joe", PASSWORD)
        third = await self.at(SECOND)
        await deferToThread(third.ask, b"USER joe")
        answer = await deferToThread(third.ask, b"PASS " + PASSWORD.encode())
        self.assertEqual(answer, b"-ERR [IN-USE] too many sessions")

        held = [await self.at(FIRST)]
        refused = await deferToThread(Conversation, self.server.port, source=FIRST)
        self.assertEqual(refused.greeting, b"-ERR [SYS/TEMP] too many connections")
        refused.hang_up()

        guessed = await self.at(SECOND, one)
        await deferToThread(guessed.ask, b"USER jane")
        await deferToThread(guessed.ask, b"PASS wrong-one")
        again = await self.at(SECOND, other)
        await deferToThread(again.ask, b"USER jane")
        answer = await deferToThread(again.ask, b"PASS " + PASSWORD.encode())
        self.assertEqual(answer, b"-ERR [SYS/TEMP] too many failed logins, try again later")

        # Who was with a worker that has ended is counted no longer.
        os.kill(one, signal.SIGKILL)
        await self.wait_for_log("has ended with signal 9")
        held.append(await self.at(FIRST))
        await deferToThread(held[-1].log_in, "joe", PASSWORD)

        # Nobody stays behind and keeps the port.
        child = self.server.child
        child.signal(signal.SIGKILL)
        await child.ended(_LIMIT)
        await wait_until(lambda: not living_processes(child.pid), _LIMIT, "the end of all")
        self.assert_refused(self.server.port)


class RightsTests(WorkersTestCase):
    async def test_only_the_supervisor_and_the_brokers_are_root(self) -> None:
        require_root()
        owner = (21001, 22001)
        self.user("ann", messages=[MESSAGES["plain"]], owner=owner)
        await self.start_workers("--user", "nobody")
        await self.assert_serves("ann")
        workers = self.workers()
        self.assertEqual({each.owner for each in workers}, {NOBODY})
        brokers = [
            each for each in self.server.processes if each.parent in {w.pid for w in workers}
        ]
        self.assertEqual(len(brokers), 2)
        root = {each.pid for each in self.server.processes if 0 in each.uids + each.gids}
        self.assertEqual(root, {self.server.child.pid, *(each.pid for each in brokers)})
        # The supervisor has nothing of anybody's.
        supervisor = self.server.network
        listening = self.listening(self.server.port)
        self.assertIn(listening, supervisor.sockets)
        for each in workers:
            self.assertEqual(each.sockets & supervisor.sockets, {listening})
        for each in brokers:
            self.assertNotIn(listening, each.sockets)

    def listening(self, port: int) -> str:
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(f":{port:04X}") and fields[3] == "0A":
                return f"socket:[{fields[9]}]"
        raise AssertionError(f"nobody listens on {port}")


class DaemonTests(WorkersTestCase):
    async def test_lines_of_workers_come_into_the_log_file_of_a_daemon(self) -> None:
        self.user("joe")
        self.slapd = self.new_slapd()
        await self.slapd.start()
        server = self.server = self.new_server(self.slapd.address)
        pidfile, log = self.directory / "pid", self.directory / "daemon.log"
        variables = {
            "QMAILLDAP_CONTROL": str(server.control),
            "QMAILLDAP_LISTEN": f"tcp:{server.port}:interface={HOST}",
            "QMAILLDAP_WORKERS": "2",
        }
        files = [f"--pidfile={pidfile}", f"--logfile={log}"]
        finished = await run(
            [*TWISTD, *files, "-y", str(TAC)],
            _LIMIT,
            environment=environment(**variables),
            directory=PROJECT,
        )
        self.assertEqual(finished.code, 0, finished.text)
        pid = int(pidfile.read_text())
        self.addCleanup(_kill_group, os.getpgid(pid))
        self.assertEqual(
            await self.refusal_of("joe", "wrong-one"), "-ERR [AUTH] authorization failed"
        )
        await self.in_session("joe", poplib.POP3.quit)
        lines = (
            rf"^\S+ \[qmailldap\.pop3#info\] refused user=joe peer={HOST} .* worker=[12]$",
            rf"^\S+ \[qmailldap\.pop3#info\] login user=joe peer={HOST} .* worker=[12]$",
        )

        def all_are_there() -> bool:
            return all(re.search(each, log.read_text(), re.MULTILINE) for each in lines)

        await wait_until(all_are_there, _LIMIT, "the lines in the log")
        group = os.getpgid(pid)
        os.kill(pid, signal.SIGTERM)
        await wait_until(lambda: not living_processes(group), _LIMIT, "the end of the daemon")
        self.assertNotIn("Traceback", log.read_text())
        self.assertFalse(pidfile.exists())


def _kill_group(group: int) -> None:
    for each in living_processes(group):
        os.kill(each.pid, signal.SIGKILL)
