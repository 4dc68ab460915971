"""What systemd does for a service: holds its socket, starts it with that, and is told of it."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile

from .ports import HOST
from .processes import wait_until
from .server import Pop3Server

__all__ = ["ENDPOINT", "Manager"]

ENDPOINT = "systemd:domain=INET:name=pop3"
"""By which a server listens on the socket of its manager."""

_LIMIT = 40.0
"""Seconds: a start with workers is that of two programs, one after the other."""

# A variable names the process that the server will be; the first descriptor is always 3.
_START = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
pid = str(os.getpid())
os.environ.update(LISTEN_PID=pid, LISTEN_FDS="1", LISTEN_FDNAMES="pop3", WATCHDOG_PID=pid)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Manager:
    """Has a socket that clients connect to, on `port`, whether the server runs or not."""

    def __init__(self) -> None:
        self._directory = tempfile.mkdtemp(prefix="qm", dir="/tmp")
        path = os.path.join(self._directory, "notify")
        self.variables = {"NOTIFY_SOCKET": path}
        """Those of the server."""
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.bind(path)
        # The server may be another user by then.
        os.chmod(self._directory, 0o755)
        os.chmod(path, 0o666)
        self._notified.setblocking(False)
        self._listening = socket.create_server((HOST, 0), backlog=128)
        self.port: int = self._listening.getsockname()[1]
        self.told: list[str] = []
        """All that was told so far, a variable each."""

    def close(self) -> None:
        self._notified.close()
        self._listening.close()
        shutil.rmtree(self._directory)

    @property
    def before(self) -> list[str]:
        """What the command of the server comes after."""
        return [sys.executable, "-c", _START, str(self._listening.fileno())]

    def adopt(self, server: Pop3Server) -> None:
        """Have that one started with the socket, and with nothing else to listen on."""
        server.port = self.port
        server.descriptors = (self._listening.fileno(),)
        server._listen = [ENDPOINT]

    def look(self) -> list[str]:
        """All that was told so far."""
        while True:
            try:
                self.told += self._notified.recv(4096).decode("ascii").split("\n")
            except BlockingIOError:
                return self.told

    async def is_told(self, variable: str, server: Pop3Server) -> None:
        """Wait until that is among what was told since `forget`."""
        await wait_until(lambda: variable in self.look(), _LIMIT, variable, server.child)

    def forget(self) -> None:
        self.look()
        self.told.clear()
