"""`auth_pop`: the checkpassword program of the original's chain, on the objects of the server.

One process a login: `request` is what is asked, `decision` whom the login is; then `ownership` and
the subprogram, or `forwarding`. Only what the run at hand needs is loaded, as a user waits for it.
Source: the seed, and reference.md, "auth_pop".
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from qmailldap.commands.auth_pop.request import USAGE, Arguments, BadRequest, Login, Usage

__all__ = ["main"]

_USAGE_CODE, _OUT_OF_MEMORY, _TEMPORARY = 1, 8, 111
"""Exit codes of `Refusal`, which is not loaded here. It is a fault of the configuration to call the
program wrongly."""


def main() -> None:
    """The console script; never returns."""
    try:
        code = _main(sys.argv[1:])
        if sys.stdout is not None:
            sys.stdout.flush()
    except MemoryError:
        code = _fault(_OUT_OF_MEMORY, "out of memory")
    except Exception as error:
        # While all is being loaded: a broken installation, or too few files for it.
        code = _fault(_TEMPORARY, f"cannot be run: {type(error).__name__}: {error}")
    # Nothing is to be tidied, and a lookup that hangs in a thread is not to be waited for.
    os._exit(code)


def _fault(code: int, text: str) -> int:
    with suppress(OSError):
        os.write(2, f"auth_pop: {text}\n".encode("utf-8", "backslashreplace"))
    return code


def _main(arguments: Sequence[str]) -> int:
    _undo_what_python_did()
    try:
        request = Arguments.parse(arguments)
    except Usage as error:
        print(f"auth_pop: {error}\n\n{USAGE}", end="", file=sys.stderr)
        return _USAGE_CODE
    if request.show:
        return _show(request.show)
    login: Login | BadRequest
    try:
        login = Login.read()
    except BadRequest as error:
        login = error
    # The login is read by now: what loads all else may take its time.
    from qmailldap.commands.auth_pop.run import run

    return run(request, login)


def _undo_what_python_did() -> None:
    """Programs that are run later are to find what this one was given."""
    for stream in (0, 1, 2):
        try:
            os.fstat(stream)
        except OSError:
            # Else the number would be that of a connection. Closed again for the subprogram.
            os.open(os.devnull, os.O_RDWR)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # It would make a traceback of Ctrl-C; and where the signal was ignored, it is not in place.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # PEP 538: without a locale, Python sets this variable for itself.
    with suppress(OSError), open("/proc/self/environ", "rb") as given:
        if not any(line.startswith(b"LC_CTYPE=") for line in given.read().split(b"\0")):
            os.environb.pop(b"LC_CTYPE", None)


def _show(what: str) -> int:
    if what == "help":
        print(USAGE, end="")
    else:
        import qmailldap

        print(f"auth_pop (qmailldap) {qmailldap.__version__}")
    return 0
