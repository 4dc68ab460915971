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

_USAGE_CODE = 1
"""As of a fault in the configuration: the program is called wrongly there."""


def main() -> None:
    """The console script; never returns."""
    code = _main(sys.argv[1:])
    sys.stdout.flush()
    # Nothing is to be tidied, and a lookup that hangs in a thread is not to be waited for.
    os._exit(code)


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
