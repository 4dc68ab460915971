"""A child of the broker that lives for one question. The standard library only."""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Callable, Sequence

from qmailldap.privsep import wire

__all__ = ["failure", "serve"]


def serve(
    descriptor: int,
    answer: Callable[[Sequence[bytes]], Sequence[bytes]],
    *,
    limit: int,
    largest: int,
    failed: Callable[[Exception], Sequence[bytes]],
) -> None:
    """Answer the one question that comes by the socket ``descriptor``, and close it.

    The question is a number and what ``answer`` is given, in a frame of at most ``largest`` octets;
    the answer is the number and what that gives. An exception, also of a question that is none, is
    answered with what ``failed`` makes of it. Nothing that a question can cause is raised. After
    ``limit`` seconds the process is ended by SIGALRM: whoever asks finds the socket closed.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    signal.alarm(limit)
    try:
        with socket.socket(fileno=descriptor) as connection:
            number = b"0"
            try:
                question = wire.receive(connection, most=largest)
                if question is None:
                    return
                asked, *rest = question
                # It is said again, by root: so it must be one.
                number = b"%d" % int(asked) if asked.isdigit() and len(asked) <= 20 else number
                said = answer(rest)
            except Exception as error:
                said = failed(error)
            wire.send(connection, [number, *said])
    except OSError:
        # Nobody waits for the answer any more.
        return
    finally:
        signal.alarm(0)


def failure(error: Exception) -> list[bytes]:
    """An answer that says which ``OSError`` there was; of others only their kind."""
    code, text = errno.EIO, type(error).__name__
    if isinstance(error, OSError) and error.errno and error.strerror:
        code, text = error.errno, error.strerror
    return [b"error", b"OSError", b"%d" % code, text.encode("utf-8", "backslashreplace"), b""]
