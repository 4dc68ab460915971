"""The server as a Twisted service: its options, and the one place where its parts are wired."""

from __future__ import annotations

import atexit
import os
import resource
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.application.strports import service as listener
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.python import usage
from zope.interface import implementer

import qmailldap
from qmailldap.checker import HashProof, LDAPChecker, Proof, RebindProof
from qmailldap.cluster import Cluster
from qmailldap.control import (
    DEFAULT_CONTROL,
    Control,
    ControlError,
    default_control,
    read_control,
)
from qmailldap.directory import Directory
from qmailldap.forward import ClusterTLS, Forwarder
from qmailldap.local_users import LocalUsers
from qmailldap.loglevel import Log, complaint
from qmailldap.owners import Owners
from qmailldap.passwords import load_libraries
from qmailldap.pop3 import POP3Factory
from qmailldap.privsep.broker_process import BrokerProcess
from qmailldap.privsep.pool import MOST_KEEPERS, Keepers
from qmailldap.privsep.rights import Identity, UnknownIdentity, become, find_identity
from qmailldap.realm import MailRealm
from qmailldap.threads import Offload, Workers

__all__ = [
    "DEFAULT_LISTEN",
    "NAME",
    "CannotStart",
    "Options",
    "POP3Service",
    "makeService",
]

NAME = "qmailldap-pop3"
DEFAULT_LISTEN = "tcp:110"

_WAITING_FOR_A_THREAD = 10_000
_NAME_THREADS = 20

_log = Log(namespace="qmailldap.service")


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

    synopsis = "[--control DIR] [--listen ENDPOINT]... [--user USER]"
    longdesc = (
        "A POP3 server for the mailboxes of a qmail-ldap directory. Facts of the site are read from"
        " the control directory, as by the qmail-ldap programs. Started as root, it gives up all"
        " rights but those of --user, and has each mailbox worked on by a process of its owner."
    )
    optParameters = [
        [
            "control",
            "c",
            DEFAULT_CONTROL,
            "The directory with the control files, unless QMAILLDAP_CONTROL names another",
        ],
        ["user", "u", None, "As whom to speak to the network: qmaild, else nobody, by default"],
        ["group", "g", None, "The group of --user's process: the user's own by default"],
        _count("keepers", MOST_KEEPERS, "Owners whose mailboxes are worked on at a time, at most"),
        _count("ldap-connections", 4, "Connections that searches share, for each server"),
        _count("mail-threads", 10, "Threads that work on Maildirs"),
        _count("hash-threads", 4, "Threads that compute password hashes"),
    ]
    compData = usage.Completions(
        optActions={"control": usage.CompleteDirs(), "listen": usage.Completer()}
    )

    def __init__(self) -> None:
        super().__init__()
        self["control"] = default_control()
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
        self._log = Log(namespace="qmailldap.service")

    def privilegedStartService(self) -> None:
        Service.privilegedStartService(self)
        for each in self:
            try:
                each.privilegedStartService()
            except Exception as error:
                # What an endpoint raises depends on its kind, and all of it is an option's fault.
                raise CannotStart(f"{each.name}: {_shown(error)}") from None

    def startService(self) -> None:
        _allow_many_connections()
        for warning in self._control.warnings:
            self._log.warn("control {warning}", warning=warning)
        problem = complaint()
        if problem is not None:
            self._log.unmasked("environment {problem}", problem=problem)
        super().startService()


def _shown(error: Exception) -> str:
    """An exception for people; some have no text of their own."""
    return str(error) or type(error).__name__


class _Separation(Service):
    """The rights of root: kept by the broker, given up by this process before it reads anything.

    ``named`` says that somebody asked for just this identity.
    """

    name = "privilege separation"

    def __init__(
        self, reactor: Any, identity: Identity, named: bool, keepers: int, dirmaker: str | None
    ) -> None:
        self._reactor = reactor
        self._identity = identity
        self._named = named
        self._log = Log(namespace="qmailldap.service")
        self.broker = BrokerProcess(reactor, keepers, dirmaker, self._broker_ended)
        self.keepers = Keepers(self.broker, reactor, keepers)

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        self.broker.start()

    def startService(self) -> None:
        super().startService()
        ids = self._identity.uid, self._identity.gid
        if os.geteuid() == 0:
            become(self._identity)
        elif self._named and (os.geteuid(), os.getegid()) != ids:
            raise CannotStart(f"--user {self._identity}: twistd was told to become another user")
        self._log.info(
            "rights network={uid}:{gid} mailboxes=their-owners", uid=os.geteuid(), gid=os.getegid()
        )
        more = sorted({*os.getgroups()} - {os.getegid()})
        if more:
            # twistd's own --uid takes them over, and whoever is not root cannot give them up.
            self._log.warn(
                "rights groups={groups} are kept as well: --user would give them up", groups=more
            )
        for file in (qmailldap.__file__, usage.__file__, os.__file__):
            if not os.access(file, os.R_OK):
                self._log.warn(
                    "rights {user} cannot read {file}: what Python has not loaded by now cannot be;"
                    " better install where everyone may read, as below /opt",
                    user=self._identity.user,
                    file=file,
                )

    def stopService(self) -> Deferred[None]:
        super().stopService()
        self.keepers.stop()
        return self.broker.stop()

    def _broker_ended(self, how: str) -> None:
        """Nobody's mailbox can be opened any more: a supervisor is to start the server again."""
        self._log.critical("rights {how}: the server cannot go on", how=how)
        atexit.register(_exit_with_an_error)
        if self.running:
            self._reactor.stop()


def _exit_with_an_error() -> None:
    # twistd knows no other way to end in order and yet with an exit code that is not 0.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _separation(options: Options, control: Control, reactor: Any) -> _Separation | None:
    """None where this process was not started as root, and has no rights to give up.

    Raises `CannotStart`.
    """
    user, group = options["user"] or "", options["group"] or ""
    try:
        if started_as_root():
            identity = find_identity(user, group)
            named = bool(user or group)
            return _Separation(reactor, identity, named, options["keepers"], control.dirmaker)
        if user or group:
            identity = find_identity(user or str(os.geteuid()), group)
            if (identity.uid, identity.gid) != (os.geteuid(), os.getegid()):
                option = f"--user {user}" if user else f"--group {group}"
                raise UnknownIdentity(f"{option}: only root can become another user or group")
    except UnknownIdentity as error:
        raise CannotStart(str(error)) from None
    return None


def _tell_own_rights() -> None:
    _log.info(
        "rights network={uid}:{gid} mailboxes=own-only passwd-users=no, not started as root",
        uid=os.geteuid(),
        gid=os.getegid(),
    )


def started_as_root() -> bool:
    return os.geteuid() == 0


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


@implementer(IStreamServerEndpoint)
class _Listening:
    """An endpoint that tells where it has come to listen, once it does."""

    def __init__(self, endpoint: IStreamServerEndpoint, tell: Callable[[IAddress], None]) -> None:
        self._endpoint = endpoint
        self._tell = tell

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return self._endpoint.listen(protocolFactory).addCallback(self._listening)

    def _listening(self, port: IListeningPort) -> IListeningPort:
        self._tell(port.getHost())
        return port


def _allow_many_connections() -> None:
    """Raise the limit of open files to what the host lets us have; few systems start with that.

    A forwarded session takes two of them.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # where it is infinite, or more than the kernel's own
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _local_users(
    control: Control, separation: _Separation | None, offload: Offload, reactor: Any
) -> LocalUsers | None:
    if separation is None or not control.ldaplocaldelivery:
        return None
    broker = separation.broker

    def ask(login: bytes, password: bytes) -> Deferred[str]:
        return Deferred.fromCoroutine(broker.check_password(login, password))

    return LocalUsers(ask, offload, control.defaultdelivery, reactor)


def makeService(options: Options, reactor: Any = None) -> IService:
    """The server that the options ask for.

    Raises `CannotStart` with a line that names the file or the option at fault.
    """
    if reactor is None:
        from twisted.internet import reactor  # twistd has chosen one by now
    try:
        control = read_control(options["control"])
        directory = Directory(reactor, control, connections=options["ldap-connections"])
        forwarder_tls = ClusterTLS(control)
    except ControlError as error:
        raise CannotStart(str(error)) from None
    if not options["listen"]:
        raise CannotStart("--listen: no endpoint is given")
    load_libraries()
    mail_threads = Workers(reactor, "mail", options["mail-threads"], _WAITING_FOR_A_THREAD)
    hash_threads = Workers(reactor, "hash", options["hash-threads"], _WAITING_FOR_A_THREAD)
    proof: Proof = (
        RebindProof(directory, control.ldapbasedn, reactor)
        if control.ldaprebind
        else HashProof(hash_threads)
    )
    separation = _separation(options, control, reactor)
    local = _local_users(control, separation, hash_threads, reactor)
    cluster = Cluster(control)
    defaults = control.account_defaults
    checker = LDAPChecker(directory, proof, defaults, reactor, local, cluster.keeps)
    keepers = None if separation is None else separation.keepers
    owners = Owners(mail_threads, keepers, control.dirmaker)
    # Nothing is lost when a lookup is broken off.
    name_threads = Workers(reactor, "names", _NAME_THREADS, _WAITING_FOR_A_THREAD, stop_limit=1)
    forwarder = Forwarder(reactor, cluster, forwarder_tls, name_threads)
    realm = MailRealm(owners, forwarder, mail_threads, reactor)
    portal, hostname = Portal(realm, [checker]), control.me or socket.gethostname()
    factory = POP3Factory(portal, hostname, reactor, trusts=cluster.trusts)
    # A proxy need not say whom it speaks for, and is then the peer itself; and whom, it says only
    # when the client has been greeted.
    proxied = POP3Factory(portal, hostname, reactor)

    server = POP3Service(control)
    # Stopped in the opposite order: nobody new is let in, then nothing more is begun. Started in
    # this one: rights are given up first.
    if separation is not None:
        separation.setServiceParent(server)
    else:
        _Running(_tell_own_rights, lambda: None).setServiceParent(server)
    _Running(mail_threads.start, mail_threads.stop).setServiceParent(server)
    _Running(hash_threads.start, hash_threads.stop).setServiceParent(server)
    _Running(name_threads.start, name_threads.stop).setServiceParent(server)
    _Running(directory.start, directory.stop).setServiceParent(server)
    for endpoint in options["listen"]:
        try:
            behind_proxy = endpoint.startswith("haproxy:")
            listening = listener(endpoint, proxied if behind_proxy else factory, reactor=reactor)
            listening.endpoint = _Listening(listening.endpoint, cluster.listens_on)
            listening.setName(f"--listen {endpoint}")
            listening.setServiceParent(server)
        except Exception as error:
            # What an endpoint's parser raises depends on its kind: bad files, bad numbers, …
            hint = " (a colon within a value is written \\:)" if "::" in endpoint else ""
            raise CannotStart(f"--listen {endpoint}: {_shown(error)}{hint}") from None
    return server
