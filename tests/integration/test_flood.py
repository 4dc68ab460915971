"""Thousands of connections that only take up room, and a user who wants to read mail meanwhile."""

from __future__ import annotations

import os
import poplib

from .certificates import write_certificate
from .flood import Flood
from .ports import HOST, unused_port
from .process_table import resident
from .processes import wait_until
from .site import SiteTestCase

SILENT = 5_000
SLOW = 1_000
FILES = 16_384
"""Descriptors that the server may have: more than there are connections, on any host."""

OTHERS = 16
"""Descriptors that the server may have opened meanwhile for itself, as to its directory."""

MEGABYTE = 2**20
GROWTH = 8 * MEGABYTE
"""Octets of memory that one more flood may take for good; its connections have some thirty."""


class FloodTests(SiteTestCase):
    timeout = 240

    async def test_a_user_logs_in_and_nothing_is_left_of_the_flood(self) -> None:
        self.user("joe")
        tls_port = unused_port()
        self.slapd = self.new_slapd()
        # Those who are silent are to stay for as long as this takes on a busy host.
        self.server = self.new_server(
            self.slapd.address,
            control={"pop3limits": "handshake-time:120\nlogin-time:120"},
            options=[f"--pop3s=tcp:{tls_port}:interface={HOST}"],
            before=["prlimit", f"--nofile={FILES}"],
        )
        write_certificate(self.server.control / "cert.pem", HOST)
        await self.together(self.slapd.start(), self.server.start())
        await self.assert_serves("joe")
        network = self.server.network.pid
        open_before = _descriptors(network)
        after = []
        for share in (1, 2):
            flood = Flood(
                self.directory, self.server.port, tls_port, SILENT // share, SLOW // share
            )
            self.addCleanup(flood.stop)
            await flood.start()
            for _ in range(5):
                await self.in_session("joe", poplib.POP3.stat)
            self.assertTrue(await flood.all_held())
            await self.in_session("joe", poplib.POP3.stat)
            flood.stop()
            # All at once: a host that has other things to do takes its time.
            await wait_until(
                lambda: _descriptors(network) <= open_before + OTHERS, 60, "the connections to end"
            )
            after.append(resident(network))
        # What the first took of the system may be kept for the next, which is smaller.
        self.assertLess(after[1] - after[0], GROWTH)
        self.assertNotIn("refused", self.server.log)


def _descriptors(pid: int) -> int:
    """How many it has open; they come and go while they are counted."""
    return len(os.listdir(f"/proc/{pid}/fd"))
