"""The server as a Twisted service: its options, and the one place where its parts are wired."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.application.strports import service as listener
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python import usage

import qmailldap
from qmailldap.checker import HashProof, LDAPChecker, Proof, RebindProof
from qmailldap.cluster import Cluster
from qmailldap.control import Control, ControlError, read_control
from qmailldap.directory import Directory
from qmailldap.pop3 import POP3Factory
from qmailldap.realm import MailRealm
from qmailldap.threads import Workers

__all__ = [
    "DEFAULT_CONTROL",
    "DEFAULT_LISTEN",
    "NAME",
    "CannotStart",
    "Options",
    "POP3Service",
    "makeService",
]

NAME = "qmailldap-pop3"
DEFAULT_CONTROL = "/var/qmail/control"
DEFAULT_LISTEN = "tcp:110"

_WAITING_FOR_A_THREAD = 10_000


class CannotStart(SystemExit, Exception):
    """What ends the start, with a line for the administrator.

    An Exception, too, as twistd cleans up after no other kind: without, its parent process would
    wait for ever for a daemon that cannot listen. Neither of them prints a traceback.
    """

    def __init__(self, line: str) -> None:
        super().__init__(f"{NAME}: {line}")


def _count(option: str, default: int, description: str) -> list[Any]:
    """The row of an option that is a number of at least one."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < 1:
            raise ValueError(f"--{option} is a number of 1 or more, not {text!r}")
        return int(text)

    return [option, None, default, description, read]


class Options(usage.Options):
    """The facts of the process; those of the site are in control files."""

    synopsis = "[--control DIR] [--listen ENDPOINT]..."
    longdesc = (
        "A POP3 server for the mailboxes of a qmail-ldap directory. Facts of the site are read from"
        " the control directory, as by the qmail-ldap programs."
    )
    optParameters = [
        ["control", "c", DEFAULT_CONTROL, "The directory with the control files"],
        _count("ldap-connections", 4, "Connections that searches share, for each server"),
        _count("mail-threads", 10, "Threads that work on Maildirs"),
        _count("hash-threads", 4, "Threads that compute password hashes"),
    ]
    compData = usage.Completions(
        optActions={"control": usage.CompleteDirs(), "listen": usage.Completer()}
    )

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []

    def opt_listen(self, endpoint: str) -> None:
        """Server endpoint, as tcp:110:interface=192.0.2.1; may be repeated [default: tcp:110]"""
        self["listen"].append(endpoint)

    opt_l = opt_listen

    def opt_version(self) -> None:
        """Show the version of qmailldap and exit"""
        print(f"qmailldap {qmailldap.__version__}")  # noqa: T201  # what the option is for
        raise SystemExit(0)

    def postOptions(self) -> None:
        self["listen"] = self["listen"] or [DEFAULT_LISTEN]


class POP3Service(MultiService):
    """All the services of one server.

    Raises `CannotStart` when an endpoint cannot be listened on.
    """

    def __init__(self, control: Control) -> None:
        super().__init__()
        self._control = control
        self._log = Logger(namespace="qmailldap.service")

    def privilegedStartService(self) -> None:
        Service.privilegedStartService(self)
        for each in self:
            try:
                each.privilegedStartService()
            except Exception as error:
                # What an endpoint raises depends on its kind, and all of it is an option's fault.
                raise CannotStart(f"--listen {each.name}: {_shown(error)}") from None

    def startService(self) -> None:
        for warning in (*self._control.warnings, *_not_yet_supported(self._control)):
            self._log.warn("control {warning}", warning=warning)
        super().startService()


def _shown(error: Exception) -> str:
    """An exception for people; some have no text of their own."""
    return str(error) or type(error).__name__


class _Running(Service):
    """Something that is started and stopped with the server."""

    def __init__(
        self, start: Callable[[], None], stop: Callable[[], Deferred[None] | None]
    ) -> None:
        self._start = start
        self._stop = stop

    def startService(self) -> None:
        super().startService()
        self._start()

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        return self._stop()


def _not_yet_supported(control: Control) -> Iterator[str]:
    if control.ldapcluster:
        yield "ldapcluster: sessions are not forwarded yet; mail kept by other hosts is refused"
    if control.dirmaker is not None:
        yield "dirmaker: missing homes are not created yet"


def makeService(options: Options, reactor: Any = None) -> IService:
    """The server that the options ask for.

    Raises `CannotStart` with a line that names the file or the option at fault.
    """
    if reactor is None:
        from twisted.internet import reactor  # twistd has chosen one by now
    try:
        control = read_control(options["control"])
        directory = Directory(reactor, control, connections=options["ldap-connections"])
    except ControlError as error:
        raise CannotStart(str(error)) from None
    if not options["listen"]:
        raise CannotStart("--listen: no endpoint is given")
    mail_threads = Workers(reactor, "mail", options["mail-threads"], _WAITING_FOR_A_THREAD)
    hash_threads = Workers(reactor, "hash", options["hash-threads"], _WAITING_FOR_A_THREAD)
    proof: Proof = (
        RebindProof(directory, control.ldapbasedn, reactor)
        if control.ldaprebind
        else HashProof(hash_threads)
    )
    checker = LDAPChecker(directory, proof, control.account_defaults, reactor)
    realm = MailRealm(Cluster(control), mail_threads, reactor)
    factory = POP3Factory(Portal(realm, [checker]), control.me or socket.gethostname(), reactor)

    server = POP3Service(control)
    # Stopped in the opposite order: nobody new is let in, then nothing more is begun.
    _Running(mail_threads.start, mail_threads.stop).setServiceParent(server)
    _Running(hash_threads.start, hash_threads.stop).setServiceParent(server)
    _Running(directory.start, directory.stop).setServiceParent(server)
    for endpoint in options["listen"]:
        try:
            listening = listener(endpoint, factory, reactor=reactor)
            listening.setName(endpoint)
            listening.setServiceParent(server)
        except Exception as error:
            # What an endpoint's parser raises depends on its kind: bad files, bad numbers, …
            hint = " (a colon within a value is written \\:)" if "::" in endpoint else ""
            raise CannotStart(f"--listen {endpoint}: {_shown(error)}{hint}") from None
    return server
