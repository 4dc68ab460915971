"""A server that is watched: with a socket for the administrator and a status page."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from .ports import HOST, unused_port
from .processes import Finished, run
from .server import PROJECT, environment
from .site import SiteTestCase

__all__ = ["QMAILLDAP", "WatchedTestCase"]

QMAILLDAP = [
    sys.executable,
    "-c",
    "from qmailldap.commands import main; raise SystemExit(main())",
]
"""The console script of this interpreter, installed or not."""

_LIMIT = 20.0


class WatchedTestCase(SiteTestCase):
    def setUp(self) -> None:
        super().setUp()
        # A socket's path has to be short.
        sockets = Path(tempfile.mkdtemp(prefix="qmailldap-admin-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, sockets)
        self.admin = sockets / "admin"
        self.status_port = unused_port()
        self.watched = (
            *("--admin", str(self.admin)),
            *("--status", f"tcp:{self.status_port}:interface={HOST}"),
        )

    async def ask(self, command: str, *arguments: str, path: Path | None = None) -> Finished:
        """Run ``qmailldap COMMAND`` on the socket of the server."""
        return await run(
            [*QMAILLDAP, command, *arguments],
            _LIMIT,
            environment=environment(QMAILLDAP_ADMIN=str(path or self.admin)),
            directory=PROJECT,
        )

    async def sessions(self, *arguments: str) -> list[dict[str, Any]]:
        finished = await self.ask("sessions", "--json", *arguments)
        self.assertEqual(finished.code, 0, finished.text)
        told = json.loads(finished.output)
        self.assertEqual(told["more"], 0)
        sessions: list[dict[str, Any]] = told["sessions"]
        return sessions
