"""Under a service manager: started with its socket, watched by it, and restarted under load."""

from __future__ import annotations

import contextlib
import os
import poplib
import re
import signal
import threading
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread

from .clients import login
from .mailboxes import MESSAGES
from .processes import wait_until
from .server import Pop3Server
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

    def __init__(self, port: int, users: Sequence[str]) -> None:
        self._port = port
        self._users = users
        self._stop = threading.Event()
        self.polls = [0] * len(users)
        self.faults: list[str] = []
        self.done = gatherResults(
            [deferToThread(self._poll, number) for number in range(len(users))], consumeErrors=True
        )

    def stop(self) -> None:
        self._stop.set()

    def _poll(self, number: int) -> None:
        while not self._stop.is_set():
            try:
                # Each of these raises for what is no +OK.
                session = login(self._port, self._users[number], PASSWORD, _LIMIT)
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

    def new_managed(self, name: str, *options: str, **variables: str) -> tuple[Manager, Pop3Server]:
        """A server, and what holds its socket; neither it nor `slapd` is started."""
        manager = Manager()
        self.addCleanup(manager.close)
        server = self.new_server(
            self.slapd.address,
            name,
            options=options,
            before=manager.before,
            variables={**manager.variables, **variables},
        )
        manager.adopt(server)
        return manager, server

    async def start_managed(self, *options: str, **variables: str) -> None:
        self.slapd = self.new_slapd()
        self.manager, self.server = self.new_managed("server", *options, **variables)
        await self.together(self.slapd.start(), self.begin(self.manager, self.server))

    async def begin(self, manager: Manager, server: Pop3Server) -> None:
        manager.forget()
        await server.start()
        await manager.is_told("READY=1", server)

    def workers(self) -> list[int]:
        return [each.pid for each in self.server.processes if each.parent == self.server.child.pid]


class ActivationTests(ManagedTestCase):
    async def test_a_restart_loses_no_connection_also_of_workers(self) -> None:
        several: dict[str, list[str]] = {"one": [], "workers": ["--workers", "2"]}
        users = {name: [f"{name}{number}" for number in range(_CLIENTS)] for name in several}
        for user in chain.from_iterable(users.values()):
            self.user(user, messages=[MESSAGES["plain"]])
        self.slapd = self.new_slapd()
        await self.slapd.start()
        restarts = (
            self.restart_under_load(*self.new_managed(name, *options), users[name])
            for name, options in several.items()
        )
        await self.together(*restarts)

    async def restart_under_load(
        self, manager: Manager, server: Pop3Server, users: Sequence[str]
    ) -> None:
        await self.begin(manager, server)
        stream = Stream(manager.port, users)
        self.addCleanup(stream.stop)
        await stream.goes_on()
        # Whoever comes while there is no server waits in the socket until there is one.
        await server.stop()
        await self.begin(manager, server)
        await stream.goes_on()
        stream.stop()
        await stream.done
        self.assertEqual(stream.faults, [])


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
