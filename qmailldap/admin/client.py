"""Asking a running server, from a command: one line there, one line back, both JSON."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any

from qmailldap.admin.path import check_path
from qmailldap.printable import printable

__all__ = ["ANSWER_LIMIT", "DEFAULT_PATH", "MOST_ANSWER", "NoServer", "ask", "default_path"]

DEFAULT_PATH = "/run/qmailldap/admin"

ANSWER_LIMIT = 15.0
"""Seconds until there is a whole answer; the server takes less."""

MOST_ANSWER = 64 * 1024 * 1024
"""Octets of an answer: of more sessions than any server has."""

_PIECE = 65536


class NoServer(Exception):
    """Nobody has answered; the text is a line that says why, with the path."""


def default_path() -> str:
    """QMAILLDAP_ADMIN of the environment, else `DEFAULT_PATH`."""
    return os.environ.get("QMAILLDAP_ADMIN") or DEFAULT_PATH


def ask(path: str, question: str, argument: dict[str, Any] | None = None) -> Any:
    """What the server at ``path`` answers. Raises `NoServer`."""
    request = json.dumps({"ask": question, **(argument or {})}).encode("ascii") + b"\n"
    try:
        check_path(path)
        line = _exchange(path, request, time.monotonic() + ANSWER_LIMIT)
        answer = json.loads(line)
    except TimeoutError:
        raise NoServer(f"{path}: no answer within {ANSWER_LIMIT:.0f} s") from None
    except OSError as error:
        raise NoServer(f"{path}: {_reason(error)}") from None
    except (ValueError, RecursionError) as error:
        raise NoServer(f"{path}: {error}") from None
    if not isinstance(answer, dict) or "answer" not in answer:
        problem = answer.get("error") if isinstance(answer, dict) else None
        # Whoever made the socket may say anything, and this is for a terminal.
        said = printable(problem.encode("utf-8", "replace")) if isinstance(problem, str) else ""
        raise NoServer(f"{path}: {said or 'no answer of a server'}")
    return answer["answer"]


def _exchange(path: str, request: bytes, deadline: float) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        connection.connect(path)
        connection.sendall(request)
        received = bytearray()
        while True:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            piece = connection.recv(_PIECE)
            if not piece:
                break
            received += piece
            if len(received) > MOST_ANSWER:
                raise ValueError(f"an answer of more than {MOST_ANSWER} octets")
    if not received.endswith(b"\n"):
        raise ValueError("the server has not finished its answer")
    return bytes(received)


def _reason(error: OSError) -> str:
    if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
        return f"{error.strerror}: no server listens there by its --admin"
    if isinstance(error, PermissionError):
        return f"{error.strerror}: the socket is its owner's alone, as a rule root's"
    return error.strerror or type(error).__name__
