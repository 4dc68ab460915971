"""Members of a cluster that follow a script, and remember all that they are told."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import traceback
from collections.abc import Callable

from .ports import HOST

__all__ = ["Caller", "Script", "ScriptedMember"]

_LIMIT = 25.0
"""Seconds that a script waits for whoever has called."""


class Caller:
    """Whoever has connected to a scripted member. All calls block.

    ``packets`` is all that came, as it was read; ``ended`` whether the script has come to its end.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.packets: list[bytes] = []
        self.ended = False
        self._connection = connection
        self._unread = b""
        connection.settimeout(_LIMIT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def received(self) -> bytes:
        """Every octet that came."""
        return b"".join(self.packets)

    def say(self, octets: bytes) -> None:
        self._connection.sendall(octets)

    def say_slowly(self, octets: bytes) -> None:
        """One octet a packet."""
        for octet in octets:
            self.say(bytes([octet]))

    def say_without_end(self, octets: bytes) -> None:
        """Until the other side has had enough of it."""
        with contextlib.suppress(OSError):
            while True:
                self.say(octets)

    def hear(self) -> bytes:
        """The next line without its end; ``b""`` when there is none."""
        while b"\n" not in self._unread:
            packet = self._receive()
            if not packet:
                return b""
            self._unread += packet
        line, _, self._unread = self._unread.partition(b"\n")
        return line.removesuffix(b"\r")

    def forget(self) -> None:
        """Lose what was read and not looked at, as a program does that ends."""
        self._unread = b""

    def hear_all(self) -> None:
        """Read until the other side ends."""
        with contextlib.suppress(OSError):
            while self._receive():
                pass

    def half_close(self) -> None:
        """Say no more, but listen."""
        self._connection.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End the connection as a host does that has crashed and is up again."""
        linger = struct.pack("ii", 1, 0)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._connection.close()

    def close(self) -> None:
        self._connection.close()

    def wake(self) -> None:
        """Let whatever waits on the connection wait no more; for other threads."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _receive(self) -> bytes:
        packet = self._connection.recv(65536)
        if packet:
            self.packets.append(packet)
        return packet


Script = Callable[[Caller], None]
"""What a member does on one connection, which is closed afterwards."""


class ScriptedMember:
    """Listens on a loopback address until it is closed.

    ``callers`` are all who have ever connected, in order. ``faults`` are what went wrong in the
    scripts themselves: a connection that ends is none.
    """

    def __init__(self, script: Script, host: str = HOST) -> None:
        self.callers: list[Caller] = []
        self.faults: list[str] = []
        self._script = script
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listening = socket.create_server((host, 0), family=family, backlog=600)
        self.port: int = self._listening.getsockname()[1]
        # As in a line of pop3routes.
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def is_busy(self) -> bool:
        """Whether any connection is still open."""
        return any(not caller.ended for caller in self.callers)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for caller in self.callers:
            caller.wake()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            caller = Caller(connection)
            self.callers.append(caller)
            threading.Thread(target=self._serve, args=(caller,), daemon=True).start()

    def _serve(self, caller: Caller) -> None:
        try:
            self._script(caller)
        except OSError:
            pass  # the other side has left, or we were closed
        except Exception:
            self.faults.append(traceback.format_exc())
        finally:
            caller.close()
            caller.ended = True
