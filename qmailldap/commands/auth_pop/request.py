"""What auth_pop is asked to do: its arguments, and the login on descriptor 3.

Source: reference.md, "auth_pop". Nothing but the standard library: it comes before all that takes
time to load.
"""

from __future__ import annotations

import errno
import getopt
import os
import select
import time
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["LOGIN_LIMIT", "MOST_OCTETS", "USAGE", "Arguments", "BadRequest", "Login", "Usage"]

MOST_OCTETS = 512
"""Octets of the login on descriptor 3, the NULs in it included."""

LOGIN_LIMIT = 60.0
"""Seconds in which the login must be there to its end."""

USAGE = """\
usage: auth_pop [-d PBSTOOL] [--control DIR] SUBPROGRAM [ARGUMENT...]

Checks the login on descriptor 3 against the qmail-ldap directory and runs SUBPROGRAM as the owner
of the mail, or forwards the session to the host that holds it. To be run by qmail-popup or whatever
else speaks to checkpassword programs:

  tcpserver -v -R -H 0 110 qmail-popup HOST auth_pop qmail-pop3d ./Maildir/

  -d PBSTOOL      run it before the session begins, for POP before SMTP, unless the environment
                  has NOPBS
  --control DIR   the control directory; else QMAILLDAP_CONTROL, else /var/qmail/control
  --help          print this and end
  --version       print the version and end

The last ARGUMENT is the mailbox, relative to home, of records that name none. See auth_pop(8).
"""


class Usage(Exception):
    """The arguments make no sense; the text says why."""


class BadRequest(Exception):
    """There is no login on descriptor 3; the text says what is wrong.

    ``malformed``: what is there is not of the form that it should be.
    """

    def __init__(self, text: str, *, malformed: bool = False) -> None:
        super().__init__(text)
        self.malformed = malformed


class Arguments(NamedTuple):
    """``control`` and ``pbstool`` are empty where none is given; ``show`` is empty, ``help`` or
    ``version``.
    """

    subprogram: tuple[str, ...]
    control: str = ""
    pbstool: str = ""
    show: str = ""

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Arguments:
        """Raises `Usage`."""
        control = pbstool = ""
        try:
            options, rest = getopt.getopt(list(arguments), "d:", ["control=", "help", "version"])
        except getopt.GetoptError as error:
            raise Usage(str(error)) from None
        for name, value in options:
            if name in ("--help", "--version"):
                return cls((), show=name[2:])
            if name == "-d":
                pbstool = value
            else:
                control = value
        if not rest:
            raise Usage("no subprogram is given")
        return cls(tuple(rest), control, pbstool)

    @property
    def delivery(self) -> str | None:
        """The mailbox of records that name none: the last argument of the subprogram, if any."""
        return self.subprogram[-1] if len(self.subprogram) > 1 else None


class Login(NamedTuple):
    """A login name and its password, neither of which holds a NUL."""

    name: bytes
    password: bytes

    def __repr__(self) -> str:
        return f"Login({self.name!r})"

    @classmethod
    def parse(cls, octets: bytes) -> Login:
        """``login NUL password NUL timestamp NUL``; what follows the password is not looked at.

        Raises `BadRequest`.
        """
        if len(octets) > MOST_OCTETS:
            raise BadRequest(f"more than {MOST_OCTETS} octets came on descriptor 3")
        fields = octets.split(b"\0")
        if len(fields) < 3:
            raise BadRequest(
                "what came on descriptor 3 is not login, password and timestamp, each ended by NUL",
                malformed=True,
            )
        return cls(fields[0], fields[1])

    @classmethod
    def read(cls, descriptor: int = 3, limit: float = LOGIN_LIMIT) -> Login:
        """Read the login to its end, and close the descriptor. Raises `BadRequest`."""
        give_up_at = time.monotonic() + limit
        octets = b""
        try:
            while len(octets) <= MOST_OCTETS:
                poller = select.poll()
                poller.register(descriptor, select.POLLIN)
                ready = poller.poll(1000 * max(0.0, give_up_at - time.monotonic()))
                if not ready:
                    raise BadRequest(f"descriptor 3 was not at its end within {limit:g} s")
                if ready[0][1] & select.POLLNVAL:
                    raise OSError(errno.EBADF, os.strerror(errno.EBADF))
                more = os.read(descriptor, MOST_OCTETS + 1 - len(octets))
                if not more:
                    break
                octets += more
            os.close(descriptor)
        except OSError as error:
            raise BadRequest(
                f"descriptor 3 cannot be read: {error.strerror};"
                " auth_pop is run by qmail-popup or the like"
            ) from None
        return cls.parse(octets)
