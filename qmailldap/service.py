"""The server as a Twisted service: the one place where its parts are wired."""

from __future__ import annotations

import os
import resource
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import attrs
from twisted.application.service import IService, MultiService, Service
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString

from qmailldap.admission import (
    Admission,
    BadCounts,
    BadScores,
    Connections,
    Guesses,
    ScoreTable,
    Sessions,
    SharedCounts,
)
from qmailldap.checker import HashProof, LDAPChecker, Proof, RebindProof
from qmailldap.cluster import Cluster
from qmailldap.control import Control, ControlError, POP3Limits, read_control
from qmailldap.directory import Directory
from qmailldap.forward import ClusterTLS, Forwarder
from qmailldap.listening import Listener, OpenEndpoint, listeners, plain_endpoints
from qmailldap.local_users import LocalUsers
from qmailldap.loglevel import Kind, Log, complaint
from qmailldap.maildir.listings import ListingCache
from qmailldap.options import DEFAULT_LISTEN, NAME, CannotStart, Options
from qmailldap.owners import Owners
from qmailldap.passwords import load_libraries
from qmailldap.pop3 import Limits, POP3Factory
from qmailldap.realm import MailRealm
from qmailldap.separation import Separation, separation_from_root, tell_own_rights
from qmailldap.threads import Offload, Workers
from qmailldap.tls.certificates import CertificateFiles, Certificates, read_certificate_file
from qmailldap.tls.pem import BadCertificate
from qmailldap.tls.watch import CertificateWatch, reading
from qmailldap.workers.inheritance import Inheritance, WorkerOptions
from qmailldap.workers.ports import InheritedPorts, SharedPorts

__all__ = [
    "DEFAULT_LISTEN",
    "NAME",
    "CannotStart",
    "Options",
    "POP3Service",
    "makeService",
    "make_worker",
]

_WAITING_FOR_A_THREAD = 10_000
_NAME_THREADS = 20

_GIVING_WAY = 10
"""The niceness of threads that compute hashes: what others wait for comes first."""

_FILES_BESIDE = 256
"""Open files besides connections: of the program, its log, the directory, keepers, messages."""

_FILES_PER_CONNECTION = 2
"""A forwarded session has another one, others a message that is being read."""

_PLENTY = 1000
"""Connections at a time, for most hosts."""

_log = Log(namespace="qmailldap.service")


class _Services(MultiService):
    """Raises `CannotStart` when an endpoint cannot be listened on."""

    def privilegedStartService(self) -> None:
        Service.privilegedStartService(self)
        for each in self:
            try:
                each.privilegedStartService()
            except Exception as error:
                # What an endpoint raises depends on its kind, and all of it is an option's fault.
                raise CannotStart(f"{each.name}: {_shown(error)}") from None


class POP3Service(_Services):
    """All the services of one server.

    ``warnings`` are logged at the start, beside those of the control files; ``listening`` are the
    services that listen.
    """

    def __init__(
        self, control: Control, listening: Sequence[Service], warnings: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.listening = listening
        self._warnings = [*(f"control {warning}" for warning in control.warnings), *warnings]
        self._log = Log(namespace="qmailldap.service")

    def startService(self) -> None:
        _allow_many_connections()
        for warning in self._warnings:
            self._log.warn("{line}", line=warning)
        problem = complaint()
        if problem is not None:
            self._log.unmasked("environment {problem}", problem=problem)
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


def _allow_many_connections() -> None:
    """Raise the limit of open files to what the host lets us have; few systems start with that.

    A forwarded session takes two of them.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # where it is infinite, or more than the kernel's own
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _most_connections(wanted: int) -> tuple[int, str]:
    """How many the limit of open files has room for, at most those wanted; and a warning.

    Nobody need be told who has not asked for so many, as long as there are plenty.
    """
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most_files == resource.RLIM_INFINITY:
        return wanted, ""
    room = max(1, (most_files - _FILES_BESIDE) // _FILES_PER_CONNECTION)
    if room >= wanted:
        return wanted, ""
    if wanted == POP3Limits().connections and room >= _PLENTY:
        return room, ""
    return room, (
        f"limits connections={room}, not {wanted}: this process may have {most_files} open files"
    )


def _certificates(options: Options, control: Control) -> Certificates | None:
    """Those that the options name, else cert.pem. Raises `CannotStart` and `ControlError`."""
    files = []
    for each in options["certificate"]:
        try:
            files.append(CertificateFiles.parse(each))
        except ValueError as error:
            raise CannotStart(f"--certificate {each}: {error}") from None
    try:
        if files:
            return Certificates(files)
        if control.certificate is not None:
            return Certificates([CertificateFiles(control.certificate.absolute())])
    except BadCertificate as error:
        option = "--certificate: " if files else ""
        raise CannotStart(f"{option}{error}") from None
    return None


def _watch(
    certificates: Certificates,
    separation: Separation | None,
    offload: Offload,
    reactor: Any,
) -> CertificateWatch:
    """Reads them by the broker, where there is one: the files may be readable for root alone."""

    def read_one(number: int) -> Deferred[bytes]:
        if separation is not None:
            return Deferred.fromCoroutine(separation.broker.read_file(number))
        return offload(read_certificate_file, certificates.paths[number])

    return CertificateWatch(certificates, reading(certificates.paths, read_one), reactor)


class _Hangup(Service):
    """SIGHUP, which would end a process that does not care for it."""

    def __init__(self, reactor: Any, reload: Callable[[], None]) -> None:
        self._reactor = reactor
        self._reload = reload
        self._before: Any = None

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        # Before a port is open: who sees one takes the server for started.
        self._before = signal.signal(signal.SIGHUP, self._received)

    def stopService(self) -> None:
        super().stopService()
        if self._before is not None:
            signal.signal(signal.SIGHUP, self._before)
            self._before = None

    def _received(self, *_: object) -> None:
        self._reactor.callFromThread(self._reload)


def _scores(options: Options) -> ScoreTable:
    """Raises `CannotStart`."""
    if not options["guesses"]:
        return ScoreTable.in_memory()
    try:
        return ScoreTable.in_file(options["guesses"])
    except BadScores as error:
        raise CannotStart(f"--guesses {options['guesses']}: {error}") from None


def _require_a_way_to_tls(
    options: Options, control: Control, certificates: Certificates | None
) -> None:
    """Raises `ControlError` where requiretls would let nobody in."""
    plain = plain_endpoints(options)
    if control.requiretls and plain and certificates is None:
        raise control.error(
            "requiretls",
            f"is 1, and without a cert.pem or --certificate nobody could log in by"
            f" --listen {plain[0]}",
        )


def _local_users(
    control: Control, separation: Separation | None, offload: Offload, reactor: Any
) -> LocalUsers | None:
    if separation is None or not control.ldaplocaldelivery:
        return None
    broker = separation.broker

    def ask(login: bytes, password: bytes) -> Deferred[str]:
        return Deferred.fromCoroutine(broker.check_password(login, password))

    return LocalUsers(ask, offload, control.defaultdelivery, reactor)


@attrs.frozen(kw_only=True)
class _Shared:
    """What the workers of one server have in common. A server by itself has none of it."""

    scores: ScoreTable | None = None
    counts: SharedCounts | None = None
    endpoint: OpenEndpoint = serverFromString


def makeService(options: Options, reactor: Any = None) -> IService:
    """The server that the options ask for.

    Raises `CannotStart` with a line that names the file or the option at fault.
    """
    if reactor is None:
        from twisted.internet import reactor  # twistd has chosen one by now
    workers = options["workers"] or len(os.sched_getaffinity(0))
    if workers == 1:
        return _server(options, reactor, _Shared())
    return _supervisor(options, reactor, workers)


def _supervisor(options: Options, reactor: Any, workers: int) -> IService:
    """What starts the workers, and binds their ports. Raises `CannotStart`."""
    # Not before it is needed: Twisted's monitor chooses a reactor where none is chosen.
    from qmailldap.workers.supervisor import Supervisor

    try:
        counts = SharedCounts.create(workers)
    except OSError as error:
        raise CannotStart(f"--workers {workers}: {error.strerror}") from None
    scores, ports = _scores(options), SharedPorts()
    shared = _Shared(scores=scores, counts=counts, endpoint=ports)
    # Each worker will make the same server, or fail where this does.
    rehearsed = _server(options, reactor, shared)
    start = os.getcwd()

    def inheritance(number: int, relayed: bool) -> Inheritance:
        return Inheritance(
            number=number,
            scores=scores.fileno(),
            counts=counts.fileno(),
            ports=ports.descriptors(),
            relayed=relayed,
            start=start,
            reactor=type(reactor).__module__,
        )

    def rehearse() -> None:
        _server(options, reactor, attrs.evolve(shared, endpoint=serverFromString))

    server = _Services()
    supervisor = Supervisor(reactor, workers, options.arguments(), inheritance, counts, rehearse)
    _Hangup(reactor, supervisor.hang_up).setServiceParent(server)
    for each in rehearsed.listening:
        each.disownServiceParent()
        each.setServiceParent(server)
    supervisor.setServiceParent(server)
    return server


def make_worker(options: WorkerOptions, reactor: Any) -> POP3Service:
    """The server of a worker, with what it has inherited. Raises `CannotStart`."""
    inherited = options.inheritance()
    try:
        scores = ScoreTable(inherited.scores)
        counts = SharedCounts.join(inherited.counts, inherited.number - 1)
    except (BadScores, BadCounts) as error:
        raise CannotStart(f"what worker {inherited.number} was given {error}") from None
    ports = InheritedPorts(inherited.ports)
    return _server(options, reactor, _Shared(scores=scores, counts=counts, endpoint=ports))


def _server(options: Options, reactor: Any, shared: _Shared) -> POP3Service:
    """Raises `CannotStart`."""
    try:
        control = read_control(options["control"])
        directory = Directory(reactor, control, connections=options["ldap-connections"])
        forwarder_tls = ClusterTLS(control)
        certificates = _certificates(options, control)
        _require_a_way_to_tls(options, control, certificates)
    except ControlError as error:
        raise CannotStart(str(error)) from None
    load_libraries()
    mail_threads = Workers(reactor, "mail", options["mail-threads"], _WAITING_FOR_A_THREAD)
    hash_threads = Workers(
        reactor, "hash", options["hash-threads"], _WAITING_FOR_A_THREAD, nice=_GIVING_WAY
    )
    # Nothing is lost when a lookup is broken off, or the reading of a certificate.
    name_threads = Workers(reactor, "names", _NAME_THREADS, _WAITING_FOR_A_THREAD, stop_limit=1)
    separation = separation_from_root(
        options, control, () if certificates is None else certificates.paths, reactor
    )
    proof: Proof = (
        RebindProof(directory, control.ldapbasedn, reactor)
        if control.ldaprebind
        else HashProof(hash_threads, cleartext=control.ldapcleartext > 0)
    )
    local = _local_users(control, separation, hash_threads, reactor)
    cluster = Cluster(control)
    checker = LDAPChecker(
        directory,
        proof,
        control.account_defaults,
        reactor,
        local,
        cluster.keeps,
        cleartext=control.ldapcleartext > 0,
    )
    keepers = None if separation is None else separation.keepers
    listings = ListingCache(options["listings"] * 1024 * 1024) if options["listings"] else None
    owners = Owners(mail_threads, keepers, control.dirmaker, listings=listings)
    forwarder = Forwarder(reactor, cluster, forwarder_tls, name_threads)
    limits = control.pop3limits
    sessions = Sessions(limits.sessions, cluster.trusts, shared.counts)
    realm = MailRealm(owners, forwarder, mail_threads, reactor, sessions)
    portal, hostname = Portal(realm, [checker]), control.me or socket.gethostname()
    most, warning = _most_connections(limits.connections)
    connections = Connections(most, limits.connections_per_address, shared.counts)
    guesses = Guesses(reactor, shared.scores or _scores(options), limits)

    def factory(trusts: Callable[[str], bool]) -> POP3Factory:
        return POP3Factory(
            portal,
            hostname,
            reactor,
            Limits.of(limits),
            trusts=trusts,
            tls=certificates,
            requires_tls=control.requiretls,
            cleartext=control.ldapcleartext,
            admission=Admission(connections, guesses, trusts),
        )

    # Whoever reaches a port behind a proxy can say to be anybody, so nobody is trusted there.
    proxied = factory(lambda host: False)
    listener = Listener(
        reactor=reactor,
        factory=factory(cluster.trusts),
        proxied=proxied,
        proxy_time=limits.proxy_time,
        certificates=certificates,
        listens_on=cluster.listens_on,
        admission=proxied.settings.admission,
        endpoint=shared.endpoint,
    )
    listening = listeners(options, listener)

    server = POP3Service(control, listening, [warning] if warning else [])
    # Stopped in the opposite order: nobody new is let in, then nothing more is begun. Started in
    # this one: rights are given up first.
    if separation is not None:
        separation.setServiceParent(server)
    else:
        _Running(tell_own_rights, lambda: None).setServiceParent(server)
    for workers in (mail_threads, hash_threads, name_threads):
        _Running(workers.start, workers.stop).setServiceParent(server)
    _Running(directory.start, directory.stop).setServiceParent(server)
    reload: Callable[[], None] = _tell_nothing_to_reload
    if certificates is not None:
        watch = _watch(certificates, separation, name_threads, reactor)
        reload = watch.reload
        _Running(watch.start, watch.stop).setServiceParent(server)
    _Hangup(reactor, reload).setServiceParent(server)
    for each in listening:
        each.setServiceParent(server)
    return server


def _tell_nothing_to_reload() -> None:
    _log.info("certificate none is there to be loaded again", kind=Kind.WARNINGS)
