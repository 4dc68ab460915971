"""The options of the server: the facts of the process; those of the site are in control files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from twisted.python import usage

import qmailldap
from qmailldap.admin.path import check_path
from qmailldap.control import DEFAULT_CONTROL, default_control
from qmailldap.privsep.pool import MOST_KEEPERS

__all__ = [
    "DEFAULT_LISTEN",
    "LOGS",
    "LOG_FORMATS",
    "MOST_GRACE",
    "MOST_WORKERS",
    "NAME",
    "CannotStart",
    "Options",
]

NAME = "qmailldap-pop3"
DEFAULT_LISTEN = "tcp:110"

MOST_WORKERS = 64
"""More than most hosts have cores; each is a whole process."""

MOST_GRACE = 3600
"""Seconds; whoever waits longer for a server to end has killed it by then."""

_MOST_LISTINGS = 1_000_000

_LISTS = ("listen", "pop3s", "certificate")

_FLAGS = [
    ["status-users", None, "Show names of users on the status page and by qmailldap status, too"],
]


class CannotStart(SystemExit, Exception):
    """What ends the start, with a line for the administrator.

    An Exception, too, as twistd cleans up after no other kind: without, its parent process would
    wait for ever for a daemon that cannot listen. Neither of them prints a traceback.
    """

    def __init__(self, line: str) -> None:
        super().__init__(f"{NAME}: {line}")


_HASH_THREADS = max(2, min(4, os.cpu_count() or 1))
"""One for each processor: more make all hashes slower, and the threads hold more of them up."""


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _count(option: str, default: int, description: str) -> list[Any]:
    """The row of an option that is a number of at least one."""

    def read(text: str) -> int:
        if not _is_number(text) or int(text) < 1:
            raise ValueError(f"--{option} is a number of 1 or more, not {text!r}")
        return int(text)

    return [option, None, default, description, read]


def _workers(text: str) -> int:
    if not _is_number(text) or int(text) > MOST_WORKERS:
        raise ValueError(f"--workers is a number from 0 to {MOST_WORKERS}, not {text!r}")
    return int(text)


def _grace(text: str) -> int:
    if not _is_number(text) or int(text) > MOST_GRACE:
        raise ValueError(f"--grace is a number from 0 to {MOST_GRACE}, not {text!r}")
    return int(text)


def _listings(text: str) -> int:
    if not _is_number(text) or int(text) > _MOST_LISTINGS:
        raise ValueError(f"--listings is a number from 0 to {_MOST_LISTINGS}, not {text!r}")
    return int(text)


def _admin(text: str) -> str:
    """Where it is whatever directory the server is in by then. Raises ``ValueError``."""
    path = os.path.abspath(text) if text else ""
    try:
        check_path(path)
    except ValueError as error:
        raise ValueError(f"--admin {text}: {error}") from None
    return path


LOG_FORMATS = ("text", "json")
LOGS = ("stderr", "syslog", "journal")


def _log(text: str) -> str:
    if text not in LOGS:
        raise ValueError(f"--log is {_either(LOGS)}, not {text!r}")
    return text


def _log_format(text: str) -> str:
    if text not in LOG_FORMATS:
        raise ValueError(f"--log-format is {_either(LOG_FORMATS)}, not {text!r}")
    return text


def _either(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


_PARAMETERS: list[list[Any]] = [
    [
        "control",
        "c",
        DEFAULT_CONTROL,
        "The directory with the control files, unless QMAILLDAP_CONTROL names another",
    ],
    ["user", "u", None, "As whom to speak to the network: qmaild, else nobody, by default"],
    ["group", "g", None, "The group of --user's process: the user's own by default"],
    [
        "guesses",
        None,
        None,
        "A file for the scores of wrong passwords, shared by servers and by the next start",
    ],
    [
        "status",
        None,
        None,
        (
            "Server endpoint of HTTP for /metrics, /healthz and a status page, as"
            " tcp:8110:interface=127.0.0.1"
        ),
    ],
    [
        "admin",
        None,
        None,
        "A UNIX socket for qmailldap sessions, kick and status, of whoever starts the server",
        _admin,
    ],
    [
        "workers",
        "w",
        1,
        "Processes that serve, each with numbers of its own of what follows; 0: one a core",
        _workers,
    ],
    [
        "log",
        None,
        None,
        "stderr, syslog or journal: where to log; where twistd does by default",
        _log,
    ],
    ["log-format", None, "text", "text for people, or json: an object a line", _log_format],
    _count("keepers", MOST_KEEPERS, "Owners whose mailboxes are worked on at a time, at most"),
    [
        "listings",
        None,
        64,
        "Memory for listings of mailboxes that do not change, in MB; 0: all are read anew",
        _listings,
    ],
    _count("ldap-connections", 4, "Connections that searches share, for each server"),
    ["grace", None, 10, "Seconds in which the server has ended once it is told to", _grace],
    _count("mail-threads", 10, "Threads that work on Maildirs"),
    _count("hash-threads", _HASH_THREADS, "Threads that compute password hashes"),
]


class Options(usage.Options):
    """What `qmailldap.service.makeService` is told."""

    synopsis = "[--control DIR] [--listen ENDPOINT]... [--pop3s ENDPOINT]... [--user USER]"
    longdesc = (
        "A POP3 server for the mailboxes of a qmail-ldap directory. Facts of the site are read from"
        " the control directory, as by the qmail-ldap programs. Started as root, it gives up all"
        " rights but those of --user, and has each mailbox worked on by a process of its owner."
    )
    optFlags = _FLAGS
    optParameters = _PARAMETERS
    compData = usage.Completions(
        optActions={
            "control": usage.CompleteDirs(),
            "user": usage.CompleteUsernames(),
            "group": usage.CompleteGroups(),
            "listen": usage.Completer(),
            "pop3s": usage.Completer(),
            "certificate": usage.CompleteFiles(),
            "guesses": usage.CompleteFiles(),
            "admin": usage.CompleteFiles(),
            "log": usage.CompleteList(LOGS),
            "log-format": usage.CompleteList(LOG_FORMATS),
        }
    )

    def __init__(self) -> None:
        super().__init__()
        # Twisted would show the line breaks and the indentation of the methods' texts.
        self.docs = {name: " ".join((text or "").split()) for name, text in self.docs.items()}
        self["control"] = default_control()
        for name in _LISTS:
            self[name] = []

    def opt_listen(self, endpoint: str) -> None:
        """Server endpoint, as tcp:110:interface=192.0.2.1; may be repeated
        [default: tcp:110, unless there is --pop3s]"""
        self["listen"].append(endpoint)

    opt_l = opt_listen

    def opt_pop3s(self, endpoint: str) -> None:
        """Server endpoint to speak TLS on from the start, as tcp:995; may be repeated"""
        self["pop3s"].append(endpoint)

    def opt_certificate(self, file: str) -> None:
        """Certificate and key in one file, or as CHAIN:KEY in two, in place of the control file
        cert.pem; repeated, the one that bears the name that a client asks for is used, and else
        the first"""
        self["certificate"].append(file)

    def opt_version(self) -> None:
        """Show the version of qmailldap and exit"""
        print(f"qmailldap {qmailldap.__version__}")  # noqa: T201  # what the option is for
        raise SystemExit(0)

    def arguments(self) -> list[str]:
        """Arguments that say the same, for another process; whoever has set a value, and how."""
        names = [str(row[0]) for row in _PARAMETERS]
        values = [(name, self[name]) for name in names if self[name] is not None]
        values += [(name, value) for name in _LISTS for value in self[name]]
        flags = [f"--{row[0]}" for row in _FLAGS if self[str(row[0])]]
        return [*flags, *(f"--{name}={value}" for name, value in values)]

    def postOptions(self) -> None:
        if not self["pop3s"]:
            self["listen"] = self["listen"] or [DEFAULT_LISTEN]
