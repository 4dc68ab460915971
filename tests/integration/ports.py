"""Loopback ports that nobody else uses."""

from __future__ import annotations

import random
import socket

__all__ = ["HOST", "unused_port"]

HOST = "127.0.0.1"

# Below the ports that Linux gives to outgoing connections: the port of a server that is down must
# not become the near end of a connection, least of all of one to itself.
_CANDIDATES = range(20000, 32000)
_given: set[int] = set()


def unused_port() -> int:
    """A TCP port that nobody listens on; never the same twice in one run."""
    for port in random.sample(_CANDIDATES, 200):
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise AssertionError(f"no unused port on {HOST} in {_CANDIDATES}")
