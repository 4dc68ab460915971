"""The server as a Twisted service: the one place where its parts are wired."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

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
from qmailldap.certificates import CertificateReader, certificate_paths, named_certificates
from qmailldap.control import Control, ControlError, ControlSnapshot, POP3Limits, read_control
from qmailldap.figures import Tally
from qmailldap.generation import Generation, Lasting
from qmailldap.generations import Generations
from qmailldap.listening import Listener, OpenEndpoint, listeners
from qmailldap.log_output import take_over
from qmailldap.loglevel import Log, complaint
from qmailldap.maildir.listings import ListingCache
from qmailldap.notify import Notifications, Subject
from qmailldap.options import DEFAULT_LISTEN, MOST_GRACE, NAME, CannotStart, Options
from qmailldap.passwords import load_libraries
from qmailldap.pop3 import Limits, POP3Factory
from qmailldap.present import Present
from qmailldap.reloading import (
    READ_LIMIT,
    Reload,
    changes,
    read_by_broker,
    read_by_ourselves,
    read_snapshot,
)
from qmailldap.separation import Separation, separation_from_root, tell_own_rights
from qmailldap.status.gauges import FRESH, LOOK, Gauges
from qmailldap.stop_signals import Hangups, StopSignals
from qmailldap.threads import Busy, Offload, Workers
from qmailldap.tls.certificates import read_certificate_file
from qmailldap.tls.pem import BadCertificate
from qmailldap.turns import Turns
from qmailldap.workers.crew import Alone, Crew, NotDone
from qmailldap.workers.frames import LARGEST
from qmailldap.workers.inheritance import Inheritance, WorkerOptions
from qmailldap.workers.ports import InheritedPorts, SharedPorts
from qmailldap.workers.reload import InForce, ReloadOfAll
from qmailldap.workers.sealed import read_sealed

if TYPE_CHECKING:
    from qmailldap.status.gathering import Gathering

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

_KEPT_FOR_THE_REST = 1.0
"""Seconds, of those in which the server has to end, that sessions do not get: threads, the broker
and keepers end then. Half of them, where there are not even two."""

_EXIT = 0.2
"""Seconds that a process takes to end when all it did has ended."""

_log = Log(namespace="qmailldap.service")


class _Services(MultiService):
    """Raises `CannotStart` when an endpoint cannot be listened on."""

    log_options: Options | None = None
    """what says how an application that this becomes the service of is to log"""

    def setServiceParent(self, parent: Any) -> None:
        super().setServiceParent(parent)
        if self.log_options is not None:
            take_over(parent, self.log_options)

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
    services that listen. It has ended within ``grace`` seconds: first the listeners are closed,
    then those who are ``present`` are told, and what was begun is ended in what time is left.

    The log is told first at the start; at the end the listeners are closed first, as they come
    last.
    """

    def __init__(
        self,
        control: Control,
        listening: Sequence[Service],
        warnings: Sequence[str] = (),
        *,
        reactor: Any,
        present: Present,
        grace: float,
    ) -> None:
        super().__init__()
        self.listening = listening
        self._reactor = reactor
        self._stop_signals = StopSignals(reactor)
        self._present = present
        self._grace = grace
        self._ends_at = 0.0
        self._control_warnings = control.warnings
        self._warnings = warnings
        self._log = Log(namespace="qmailldap.service")

    def startService(self) -> None:
        _allow_many_connections()
        for warning in self._control_warnings:
            self._log.warn("control {doubt}", doubt=warning)
        for warning in self._warnings:
            self._log.warn("limits {doubt}", doubt=warning)
        problem = complaint()
        if problem is not None:
            self._log.unmasked("environment {problem}", problem=problem)
        super().startService()
        self._stop_signals.startService()

    def stopService(self) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._stop_in_order())

    async def _stop_in_order(self) -> None:
        self._stop_signals.heed_no_more()
        self._ends_at = self._reactor.seconds() + self._grace
        closed = [maybeDeferred(each.stopService) for each in self.listening]
        await self._present.drain(self._grace - min(_KEPT_FOR_THE_REST, self._grace / 2))
        await DeferredList(closed)
        await super().stopService()

    def time_left(self) -> float:
        """Seconds until all has to have ended but the process itself, once it is being stopped."""
        return max(0.0, self._ends_at - _EXIT - float(self._reactor.seconds()))


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
        f"connections={room}, not {wanted}: this process may have {most_files} open files"
    )


def _scores(options: Options) -> ScoreTable:
    """Raises `CannotStart`."""
    if not options["guesses"]:
        return ScoreTable.in_memory()
    try:
        return ScoreTable.in_file(options["guesses"])
    except BadScores as error:
        raise CannotStart(f"--guesses {options['guesses']}: {error}") from None


@attrs.frozen(kw_only=True)
class _Shared:
    """What the workers of one server have in common, and the ``number`` of one of them, from 1 on.

    A server by itself has none of it.
    """

    scores: ScoreTable | None = None
    counts: SharedCounts | None = None
    crew: Crew | None = None
    number: int = 0
    snapshot: ControlSnapshot | None = None
    endpoint: OpenEndpoint = serverFromString


def makeService(options: Options, reactor: Any = None) -> IService:
    """The server that the options ask for.

    Raises `CannotStart` with a line that names the file or the option at fault.
    """
    if reactor is None:
        from twisted.internet import reactor  # twistd has chosen one by now
    workers = _how_many(options)
    service: _Services = (
        _server(options, reactor, _Shared())
        if workers == 1
        else _supervisor(options, reactor, workers)
    )
    service.log_options = options
    return service


def _how_many(options: Options) -> int:
    """The processes that serve."""
    workers: int = options["workers"] or len(os.sched_getaffinity(0))
    return workers


def _supervisor(options: Options, reactor: Any, workers: int) -> _Services:
    """What starts the workers, and binds their ports. Raises `CannotStart`."""
    # Not before it is needed: Twisted's monitor chooses a reactor where none is chosen.
    from qmailldap.workers.supervisor import Supervisor

    try:
        counts = SharedCounts.create(workers)
    except OSError as error:
        raise CannotStart(f"--workers {workers}: {error.strerror}") from None
    scores, ports = _scores(options), SharedPorts()
    try:
        snapshot = read_snapshot(options)
        in_force = InForce(_octets(snapshot))
    except (ControlError, OSError) as error:
        raise CannotStart(_shown(error)) from None
    shared = _Shared(scores=scores, counts=counts, snapshot=snapshot, endpoint=ports)
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
            snapshot=in_force.descriptor,
        )

    def rehearse() -> None:
        # As whom this process is by then: SIGHUP will have the files read again.
        again = attrs.evolve(shared, snapshot=None, endpoint=serverFromString)
        _server(options, reactor, again)

    server = _Services()
    supervisor = Supervisor(
        reactor, workers, options.arguments(), inheritance, counts, rehearse, options["grace"]
    )

    def status() -> str:
        serving = len(supervisor.links.serving())
        return f"{counts.total_elsewhere()} sessions, {serving} of {workers} workers"

    notifications = Notifications(
        reactor,
        Subject(
            ready=lambda: supervisor.all_serve,
            alive=supervisor.look_for_the_dead,
            status=status,
            grace=options["grace"],
        ),
    )
    files = Workers(reactor, "control", 1, 1, stop_limit=1)
    read_again = read_by_ourselves(options, files)
    supervisor.serial = lambda: in_force.serial
    supervisor.reload = ReloadOfAll(
        supervisor.links,
        in_force,
        lambda: read_again().addTimeout(READ_LIMIT, reactor).addCallback(_octets),
        supervisor.end,
        _changes,
        notifications.reloading,
        notifications.reloaded,
    )
    for each in rehearsed.listening:
        each.disownServiceParent()
    for service in (
        notifications,
        _Running(files.start, files.stop),
        Hangups(reactor, supervisor.hang_up),
        *rehearsed.listening,
        supervisor,
        # Stopped before those that listen.
        _Running(lambda: None, ports.end),
        StopSignals(reactor),
    ):
        service.setServiceParent(server)
    return server


def _octets(snapshot: ControlSnapshot) -> bytes:
    """For workers. Raises `ControlError` for what none of them need be asked about."""
    read_control(snapshot)
    return snapshot.to_json().encode("ascii")


def _changes(before: bytes, now: bytes) -> str:
    """What is not as it was in what workers are given."""
    return changes(*(ControlSnapshot.from_json(each.decode("ascii")) for each in (before, now)))


def make_worker(options: WorkerOptions, reactor: Any, crew: Crew) -> POP3Service:
    """The server of a worker, with what it has inherited. Raises `CannotStart`."""
    inherited = options.inheritance()
    try:
        scores = ScoreTable(inherited.scores)
        counts = SharedCounts.join(inherited.counts, inherited.number - 1)
    except (BadScores, BadCounts) as error:
        raise CannotStart(f"what worker {inherited.number} was given {error}") from None
    shared = _Shared(
        scores=scores,
        counts=counts,
        crew=crew,
        number=inherited.number,
        snapshot=_inherited_snapshot(inherited),
        endpoint=InheritedPorts(inherited.ports),
    )
    return _server(options, reactor, shared)


def _inherited_snapshot(inherited: Inheritance) -> ControlSnapshot | None:
    """Raises `CannotStart`."""
    if inherited.snapshot is None:
        return None
    try:
        octets = read_sealed(inherited.snapshot, LARGEST)
        os.close(inherited.snapshot)
        return ControlSnapshot.from_json(octets.decode("ascii"))
    except (ValueError, OSError) as error:
        problem = f"what worker {inherited.number} was given is no control files"
        raise CannotStart(f"{problem}: {_shown(error)}") from None


@attrs.frozen(kw_only=True)
class Parts:
    """What one server is made of: for the services beside it, which look at it or tell of it."""

    options: Options
    reactor: Any
    number: int
    crew: Crew
    tally: Tally
    generations: Generations
    sessions: Sessions
    connections: Connections
    guesses: Guesses
    factories: tuple[POP3Factory, ...]
    separation: Separation | None
    listings: ListingCache | None
    threads: tuple[Workers, ...]
    present: Present


def _server(options: Options, reactor: Any, shared: _Shared) -> POP3Service:
    """Raises `CannotStart`."""
    tally = Tally()
    try:
        snapshot = shared.snapshot or read_snapshot(options)
        control = read_control(snapshot)
        load_libraries()
        mail_threads, hash_threads, name_threads = threads = _threads(options, reactor)
        separation = separation_from_root(options, control, certificate_paths(options), reactor)
        limits = control.pop3limits
        sessions = Sessions(limits.sessions, lambda host: generations.trusts(host), shared.counts)
        lasting = Lasting(
            reactor=reactor,
            options=options,
            certificates=named_certificates(options),
            read_certificate=_certificate_reader(options, separation, name_threads),
            mail_threads=mail_threads,
            hash_threads=hash_threads,
            name_threads=name_threads,
            sessions=sessions,
            mailboxes=Turns(reactor),
            broker=None if separation is None else separation.broker,
            keepers=None if separation is None else separation.keepers,
            listings=(
                ListingCache(options["listings"] * 1024 * 1024) if options["listings"] else None
            ),
            tally=tally,
        )
        generations = Generations(snapshot, lasting)
    except ControlError as error:
        raise CannotStart(str(error)) from None
    except BadCertificate as error:
        option = "--certificate: " if options["certificate"] else ""
        raise CannotStart(f"{option}{error}") from None
    most, warning = _most_connections(limits.connections)
    connections = Connections(most, limits.connections_per_address, shared.counts)
    guesses = Guesses(reactor, shared.scores or _scores(options), limits)
    present = Present(reactor)

    def factory(trusts: Callable[[str], bool]) -> POP3Factory:
        return POP3Factory(
            generations.portal,
            generations.in_force.hostname,
            reactor,
            trusts=trusts,
            admission=Admission(connections, guesses, trusts),
            present=present,
            tally=tally,
        )

    # Whoever reaches a port behind a proxy can say to be anybody, so nobody is trusted there.
    plain, proxied = factory(generations.trusts), factory(lambda host: False)
    listener = Listener(
        reactor=reactor,
        factory=plain,
        proxied=proxied,
        proxy_time=limits.proxy_time,
        certificates=generations.in_force.certificates,
        listens_on=generations.in_force.cluster.listens_on,
        admission=proxied.settings.admission,
        tally=tally,
        endpoint=shared.endpoint,
        present=present,
    )
    parts = Parts(
        options=options,
        reactor=reactor,
        number=shared.number,
        crew=shared.crew or Alone(reactor),
        tally=tally,
        generations=generations,
        sessions=sessions,
        connections=connections,
        guesses=guesses,
        factories=(plain, proxied),
        separation=separation,
        listings=lasting.listings,
        threads=threads,
        present=present,
    )
    entrance = _Entrance(parts, listener)
    entrance.follow(generations.in_force)
    generations.followers.append(entrance.follow)
    _answer_for_figures(parts)
    # Whoever sees a port of POP3 open finds the others, too.
    listening = [*_watched(parts, listener), *listeners(options, listener)]

    server = POP3Service(
        control,
        listening,
        [warning] if warning else [],
        reactor=reactor,
        present=present,
        grace=options["grace"],
    )
    if separation is not None:
        separation.time_left = server.time_left
    # Stopped in the opposite order: nobody new is let in, then nothing more is begun. Started in
    # this one: rights are given up first.
    for each in (
        separation or _Running(tell_own_rights, lambda: None),
        *(_Running(each.start, partial(_stop_threads, each, server.time_left)) for each in threads),
        generations,
        *_reloading(parts, name_threads, _notifications(parts) if shared.counts is None else None),
        *listening,
    ):
        each.setServiceParent(server)
    return server


def _stop_threads(threads: Workers, time_left: Callable[[], float]) -> Deferred[None]:
    return threads.stop(time_left())


def _answer_for_figures(parts: Parts) -> None:
    """Have this process tell what it has counted, whoever asks."""
    Gauges(
        tally=parts.tally,
        generations=parts.generations,
        connections=parts.connections,
        separation=parts.separation,
        listings=parts.listings,
        threads=parts.threads,
    ).register()

    def figures(argument: object) -> dict[str, Any]:
        if argument == LOOK:
            parts.generations.in_force.directory.value.look(FRESH)
        return parts.tally.snapshot()

    parts.crew.answer("figures", figures)


def _watched(parts: Parts, listener: Listener) -> list[Service]:
    """The services by which the server is watched: --status and --admin. Raises `CannotStart`."""
    if not parts.options["status"] and not parts.options["admin"]:
        return []
    # Not before they are wanted, as what is imported below.
    from qmailldap.status.gathering import Gathering
    from qmailldap.status.part import Standing

    generations = parts.generations
    standing = Standing(
        worker=parts.number,
        started=parts.reactor.seconds(),
        loaded=lambda: generations.since,
        directory=lambda: generations.in_force.directory.value,
        forwarder=lambda: generations.in_force.forwarder.value,
        present=parts.present,
        latest=parts.tally.latest,
        users=bool(parts.options["status-users"]),
    )
    gathering = Gathering(
        parts.reactor,
        parts.crew,
        standing.part,
        lambda: generations.in_force.hostname,
        _how_many(parts.options),
    )
    return [*_status(parts, listener, gathering), *_admin(parts, listener, gathering)]


def _status(parts: Parts, listener: Listener, gathering: Gathering) -> list[Service]:
    """The service of --status. Raises `CannotStart`."""
    if not parts.options["status"]:
        return []
    # Not before they are wanted: of no use to other servers, and some megabytes.
    from qmailldap.status.health import Health
    from qmailldap.status.http import make_site
    from qmailldap.status.metrics import Metrics
    from qmailldap.status.page import StatusPage
    from qmailldap.status.process import register_process

    register_process(parts.tally, parts.number, parts.reactor)
    pages = {
        "": StatusPage(parts.reactor, gathering.state, bool(parts.options["status-users"])),
        "metrics": Metrics(parts.crew, parts.reactor),
        "healthz": Health(lambda: parts.generations.in_force.directory.value),
    }
    return [listener.status(parts.options["status"], make_site(parts.reactor, pages))]


def _admin(parts: Parts, listener: Listener, gathering: Gathering) -> list[Service]:
    """The service of --admin."""
    path = parts.options["admin"]
    if not path:
        return []
    from qmailldap.admin.answers import Answers
    from qmailldap.admin.protocol import AdminFactory
    from qmailldap.admin.service import AdminListener

    answers = Answers(parts.crew, parts.present, gathering.state)
    factory = AdminFactory(parts.reactor, answers.by_name())
    return [AdminListener(parts.reactor, path, factory, listener.endpoint)]


def _threads(options: Options, reactor: Any) -> tuple[Workers, Workers, Workers]:
    """Those that work on Maildirs, those that compute hashes, and those that look up names."""
    return (
        Workers(
            reactor,
            "mail",
            options["mail-threads"],
            _WAITING_FOR_A_THREAD,
            # An update may take all the time that there is.
            stop_limit=MOST_GRACE,
        ),
        Workers(reactor, "hash", options["hash-threads"], _WAITING_FOR_A_THREAD, nice=_GIVING_WAY),
        # Nothing is lost when a lookup is broken off, or the reading of a certificate.
        Workers(reactor, "names", _NAME_THREADS, _WAITING_FOR_A_THREAD, stop_limit=1),
    )


def _certificate_reader(
    options: Options, separation: Separation | None, offload: Offload
) -> CertificateReader:
    """By the broker, where there is one: the files may be readable for root alone."""
    paths = certificate_paths(options)

    def read_one(number: int) -> Deferred[bytes]:
        if separation is not None:
            return Deferred.fromCoroutine(separation.broker.read_file(number))
        return offload(read_certificate_file, paths[number])

    return read_one


@attrs.frozen
class _Entrance:
    """What those meet who come: how they are greeted, and what they may ask for."""

    _parts: Parts
    _listener: Listener

    def follow(self, generation: Generation) -> None:
        """Be as it wants it: for new connections, and for all counts at once."""
        parts, control = self._parts, generation.control
        limits = control.pop3limits
        most, warning = _most_connections(limits.connections)
        if warning and parts.generations.running:
            _log.warn("limits {doubt}", doubt=warning)
        parts.connections.limit_to(most, limits.connections_per_address)
        parts.guesses.limit_to(limits)
        parts.sessions.limit_to(limits.sessions)
        self._listener.limit_proxies(limits.proxy_time)
        for factory in parts.factories:
            factory.settings = attrs.evolve(
                factory.settings,
                hostname=generation.hostname,
                limits=Limits.of(limits),
                tls=generation.certificates,
                requires_tls=control.requiretls,
                cleartext=control.ldapcleartext,
            )


def _notifications(parts: Parts) -> Notifications:
    """What tells of a server of one process."""

    async def alive(limit: float) -> str:
        # Or nobody would ask.
        return ""

    subject = Subject(
        ready=lambda: deferLater(parts.reactor, 0),
        alive=alive,
        status=lambda: f"{len(parts.connections)} sessions",
        grace=parts.options["grace"],
    )
    return Notifications(parts.reactor, subject)


def _reloading(
    parts: Parts, name_threads: Offload, notifications: Notifications | None
) -> list[Service]:
    """What has control files and certificates read again at SIGHUP."""
    generations = parts.generations
    if parts.number:
        # Of several workers, by their supervisor, which tells them what it has read.
        _answer_for_reload(parts)
        return [Hangups(parts.reactor, lambda: None)]
    read = (
        read_by_ourselves(parts.options, name_threads)
        if parts.separation is None
        else read_by_broker(parts.options, parts.separation.broker)
    )
    if notifications is None:
        # That of a supervisor, which is never started.
        return []
    reload = Reload(
        read,
        generations,
        parts.reactor,
        notifications.reloading,
        notifications.reloaded,
        lambda result: parts.tally.add("reloads_total", result),
    )
    return [notifications, reload, Hangups(parts.reactor, reload)]


def _answer_for_reload(parts: Parts) -> None:
    """Have this process follow what its supervisor has read: all do, or none."""
    generations = parts.generations

    def prepare(argument: Any) -> Deferred[None]:
        prepared = generations.prepare(ControlSnapshot.from_object(argument))
        return prepared.addErrback(_not_prepared)

    parts.crew.answer("prepare", prepare)

    def commit(_: object) -> None:
        generations.commit()
        parts.tally.add("reloads_total", "ok")

    def abort(_: object) -> None:
        generations.abort()
        parts.tally.add("reloads_total", "failed")

    parts.crew.answer("commit", commit)
    parts.crew.answer("abort", abort)


def _not_prepared(failure: Failure) -> None:
    """What is wrong with a file is a line for the supervisor to tell; so is a fault of ours."""
    if failure.check(ControlError, BadCertificate, Busy, OSError) is None:
        _log.failure("control was not loaded", failure)
        raise NotDone(f"a fault of this program: {type(failure.value).__name__}")
    raise NotDone(str(failure.value))
