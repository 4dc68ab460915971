"""Under a service manager: started with its socket, watched by it, and restarted under load."""

from __future__ import annotations

import contextlib
import os
import poplib
import re
import signal
import threading
from pathlib import Path

from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread

from .clients import login
from .mailboxes import MESSAGES
from .processes import wait_until
from .service_manager import Manager
from .site import PASSWORD, SiteTestCase

_LIMIT = 40.0
"""Seconds: whoever comes beside a restart waits as long as that takes."""

_CLIENTS = 4
"""That poll one after the other, each again as soon as it is done."""

_POLLS = 3
"""Whole ones that each makes beside a restart at least."""


class Stream:
    """Clients that come in a steady stream until they are told to stop."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self.polls = [0] * _CLIENTS
        self.faults: list[str] = []
        self.done = gatherResults(
            [deferToThread(self._poll, number) for number in range(_CLIENTS)], consumeErrors=True
        )

    def stop(self) -> None:
        self._stop.set()

    def _poll(self, number: int) -> None:
        while not self._stop.is_set():
            try:
                # Each of these raises for what is no +OK.
                session = login(self._port, f"user{number}", PASSWORD, _LIMIT)
                count, _ = session.stat()
                for message in range(1, count + 1):
                    session.retr(message)
                session.uidl()
                session.quit()
            except (OSError, EOFError, poplib.error_proto) as error:
                self.faults.append(f"poll {self.polls[number]} of {number}: {error!r}")
                return
            self.polls[number] += 1

    async def goes_on(self) -> None:
        """Wait for some more polls of each client, the one that is under way included."""
        wanted = [count + _POLLS for count in self.polls]

        def all_have_polled() -> bool:
            come = all(now >= then for now, then in zip(self.polls, wanted, strict=True))
            return come or bool(self.faults)

        await wait_until(all_have_polled, _LIMIT, "polls of all clients")


class ManagedTestCase(SiteTestCase):
    timeout = 120

    async def start_managed(self, *options: str, **variables: str) -> None:
        self.manager = Manager()
        self.addCleanup(self.manager.close)
        self.slapd = self.new_slapd()
        self.server = self.new_server(
            self.slapd.address,
            options=options,
            before=self.manager.before,
            variables={**self.manager.variables, **variables},
        )
        self.manager.adopt(self.server)
        await self.together(self.slapd.start(), self.start_again())

    async def start_again(self) -> None:
        self.manager.forget()
        await self.server.start()
        await self.manager.is_told("READY=1", self.server)

    def workers(self) -> list[int]:
        return [each.pid for each in self.server.processes if each.parent == self.server.child.pid]


class ActivationTests(ManagedTestCase):
    async def restart_under_load(self, *options: str) -> None:
        for number in range(_CLIENTS):
            self.user(f"user{number}", messages=[MESSAGES["plain"]])
        await self.start_managed(*options)
        stream = Stream(self.manager.port)
        self.addCleanup(stream.stop)
        await stream.goes_on()
        # Whoever comes while there is no server waits in the socket until there is one.
        await self.server.stop()
        await self.start_again()
        await stream.goes_on()
        stream.stop()
        await stream.done
        self.assertEqual(stream.faults, [])

    async def test_a_restart_loses_no_connection(self) -> None:
        await self.restart_under_load()

    async def test_a_restart_of_workers_loses_no_connection(self) -> None:
        await self.restart_under_load("--workers", "2")


class NotificationTests(ManagedTestCase):
    async def test_a_manager_is_told_what_the_server_does(self) -> None:
        self.user("joe")
        await self.start_managed("--workers", "2", WATCHDOG_USEC="1500000")
        manager, server = self.manager, self.server
        await manager.is_told("WATCHDOG=1", server)
        await manager.is_told("STATUS=0 sessions, 2 of 2 workers", server)
        for worker in self.workers():
            variables = Path(f"/proc/{worker}/environ").read_bytes()
            self.assertIsNone(re.search(rb"NOTIFY_SOCKET|WATCHDOG|LISTEN_", variables))

        manager.forget()
        server.child.signal(signal.SIGHUP)
        await manager.is_told("RELOADING=1", server)
        await manager.is_told("READY=1", server)
        told = [each for each in manager.told if each in ("RELOADING=1", "READY=1")]
        self.assertEqual(told, ["RELOADING=1", "READY=1"])
        self.assertIn("MONOTONIC_USEC", " ".join(manager.told))

        # One that hangs: the others serve, but the manager is not told that all is well.
        stopped, _ = self.workers()
        os.kill(stopped, signal.SIGSTOP)
        self.addCleanup(_go_on, stopped)
        await wait_until(lambda: "watchdog is told nothing" in server.log, _LIMIT, "the fault")
        manager.forget()
        await self.assert_serves("joe")
        self.assertNotIn("WATCHDOG=1", manager.look())
        _go_on(stopped)
        await manager.is_told("WATCHDOG=1", server)

        manager.forget()
        await server.stop()
        manager.look()
        self.assertEqual(manager.told[0], "STOPPING=1")
        self.assertRegex(" ".join(manager.told), r"EXTEND_TIMEOUT_USEC=\d{7,8}\b")


def _go_on(pid: int) -> None:
    # Not imported by itself: trial looks for a "suppress" of its own in each module.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
