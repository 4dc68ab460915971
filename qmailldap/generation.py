"""What follows from the control files: made as a whole, in force as a whole, and let go as a whole.

What generations have in common, because it counts or keeps what must not be forgotten, is
`Lasting`. What they make of the same facts they share as a `Part`: so a directory whose files have
not changed keeps its connections, and what it knows of servers that are down.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

import attrs
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, DeferredList, succeed

from qmailldap.admission import Sessions
from qmailldap.certificates import CertificateReader, contents_of, wanted_files, watch_on
from qmailldap.checker import HashProof, LDAPChecker, Proof, RebindProof
from qmailldap.cluster import Cluster, End
from qmailldap.control import Control, ControlSnapshot, read_control
from qmailldap.directory import Directory
from qmailldap.figures.tally import Tally
from qmailldap.forward import ClusterTLS, Forwarder
from qmailldap.listening import plain_endpoints
from qmailldap.local_users import LocalUsers
from qmailldap.loglevel import Log
from qmailldap.maildir.listings import ListingCache
from qmailldap.options import Options
from qmailldap.owners import Owners
from qmailldap.privsep.broker_process import BrokerProcess
from qmailldap.privsep.pool import Keepers
from qmailldap.realm import MailRealm
from qmailldap.threads import Offload
from qmailldap.tls.certificates import CertificateFiles, Certificates, Renewal
from qmailldap.tls.watch import CertificateWatch
from qmailldap.turns import Turns

__all__ = ["Generation", "Lasting", "Part"]

T = TypeVar("T")

_log = Log(namespace="qmailldap.service")


def _nothing() -> None:
    """What is to be done to start what needs no start."""


@attrs.frozen(kw_only=True)
class Lasting:
    """What no control file has a say in, or what outlives them: made once, with the server.

    ``sessions`` has the count of each user's, ``listings`` those of mailboxes that do not change,
    ``mailboxes`` whose turn it is at one, ``tally`` what is counted, ``listening`` where this
    server listens. ``certificates`` are those that options name, which ``read_certificate`` reads
    again, or cert.pem. ``broker`` and ``keepers`` are None where there are no rights to give up.
    """

    reactor: Any
    options: Options
    certificates: Sequence[CertificateFiles]
    read_certificate: CertificateReader
    mail_threads: Offload
    hash_threads: Offload
    name_threads: Offload
    sessions: Sessions
    mailboxes: Turns
    broker: BrokerProcess | None = None
    keepers: Keepers | None = None
    listings: ListingCache | None = None
    tally: Tally | None = None
    listening: set[End] = attrs.field(factory=set)


@attrs.define(eq=False, kw_only=True)
class Part(Generic[T]):
    """What one generation makes of some of its facts, and the next keeps where they are the same.

    ``facts`` are these. It is started for the first that uses it, and stopped after the last.
    """

    facts: Hashable = attrs.field(repr=False)
    value: T
    start: Callable[[], None] = _nothing
    stop: Callable[[], Deferred[None]] = lambda: succeed(None)
    _users: int = attrs.field(default=0, init=False)

    def begin(self) -> None:
        self._users += 1
        if self._users == 1:
            self.start()

    def end(self) -> Deferred[None]:
        """Fires when nothing is left of it, at once where others use it."""
        self._users -= 1
        return succeed(None) if self._users else self.stop()


@attrs.define(eq=False, kw_only=True)
class Generation:
    """The server as one state of the control files wants it.

    ``hostname`` greets. ``watch`` has the certificates, and is None where no client is offered TLS;
    ``renewal`` is what they are replaced by when this comes into force.
    """

    snapshot: ControlSnapshot
    control: Control
    hostname: str
    watch: Part[CertificateWatch | None]
    renewal: Renewal | None
    cluster: Cluster
    directory: Part[Directory]
    proof: Part[Proof]
    local_users: Part[LocalUsers | None]
    forwarder: Part[Forwarder]
    portal: Portal
    logins: int = 0

    @classmethod
    def of(
        cls, snapshot: ControlSnapshot, lasting: Lasting, before: Generation | None = None
    ) -> Generation:
        """What follows from the files; what is the same as ``before`` is taken from there.

        Raises `ControlError` and `BadCertificate`.
        """
        control = read_control(snapshot)
        watch, renewal = _watch(control, snapshot, lasting, before)
        _require_a_way_in(lasting.options, control, watch.value is not None, before is None)
        directory = _directory(control, lasting, before)
        proof = _proof(control, directory, lasting, before)
        local_users = _local_users(control, lasting, before)
        cluster = Cluster(control, lasting.listening)
        forwarder = _forwarder(control, cluster, lasting, before)
        checker = LDAPChecker(
            directory.value,
            proof.value,
            control.account_defaults,
            lasting.reactor,
            local_users.value,
            cluster.keeps,
            cleartext=control.ldapcleartext > 0,
            tally=lasting.tally,
        )
        owners = Owners(
            lasting.mail_threads, lasting.keepers, control.dirmaker, listings=lasting.listings
        )
        realm = MailRealm(
            owners,
            forwarder.value,
            lasting.mail_threads,
            lasting.reactor,
            lasting.sessions,
            lasting.mailboxes,
            lasting.tally,
        )
        return cls(
            snapshot=snapshot,
            control=control,
            hostname=control.me or socket.gethostname(),
            watch=watch,
            renewal=renewal,
            cluster=cluster,
            directory=directory,
            proof=proof,
            local_users=local_users,
            forwarder=forwarder,
            portal=Portal(realm, [checker]),
        )

    @property
    def certificates(self) -> Certificates | None:
        return None if self.watch.value is None else self.watch.value.certificates

    @property
    def _parts(self) -> tuple[Part[Any], ...]:
        return self.forwarder, self.local_users, self.proof, self.directory, self.watch

    def begin(self) -> None:
        """It comes into force; where a part of it cannot, nothing of it does."""
        begun: list[Part[Any]] = []
        try:
            for part in self._parts:
                part.begin()
                begun.append(part)
        except BaseException:
            _end(begun)
            raise

    def end(self) -> Deferred[None]:
        """Nobody asks it any more; fires when nothing of it is left that no other uses."""
        return _end(self._parts)


def _end(parts: Sequence[Part[Any]]) -> Deferred[None]:
    ended = DeferredList([part.end() for part in parts], consumeErrors=True)
    return ended.addCallback(_tell_failures)


def _tell_failures(results: Any) -> None:
    for succeeded, failure in results:
        if not succeeded:
            _log.failure("generation not let go", failure)


def _kept(before: Part[T] | None, facts: Hashable) -> Part[T] | None:
    return before if before is not None and before.facts == facts else None


def _require_a_way_in(options: Options, control: Control, has_tls: bool, starts: bool) -> None:
    """Raises `ControlError` where an endpoint could not be used any more, or by nobody."""
    plain = plain_endpoints(options)
    if control.requiretls and plain and not has_tls:
        raise control.error(
            "requiretls",
            f"is 1, and without a cert.pem or --certificate nobody could log in by"
            f" --listen {plain[0]}",
        )
    # At the start it is the option that is at fault.
    if options["pop3s"] and not has_tls and not starts:
        raise control.error(
            "cert.pem", f"is missing, and --pop3s {options['pop3s'][0]} needs a certificate"
        )


def _watch(
    control: Control, snapshot: ControlSnapshot, lasting: Lasting, before: Generation | None
) -> tuple[Part[CertificateWatch | None], Renewal | None]:
    """The certificates, and what they are replaced by. Raises `BadCertificate`."""
    facts = wanted_files(lasting.certificates, control)
    contents = contents_of(facts, snapshot)
    kept = _kept(None if before is None else before.watch, facts)
    if kept is not None:
        return kept, None if kept.value is None else kept.value.certificates.prepare(contents)
    if not facts:
        return Part(facts=facts, value=None), None
    certificates = Certificates(facts, contents=contents)
    watch = watch_on(certificates, lasting.read_certificate, lasting.reactor)

    def stop() -> Deferred[None]:
        watch.stop()
        return succeed(None)

    return Part(facts=facts, value=watch, start=watch.start, stop=stop), None


def _directory(control: Control, lasting: Lasting, before: Generation | None) -> Part[Directory]:
    facts = (
        control.ldapserver,
        control.ldapbasedn,
        control.ldapobjectclass,
        control.ldaplogin,
        control.ldappassword,
        control.ldaptimeout,
        control.ldaptls,
        control.ldapcacert,
        control.held.get("ldapcacert"),
    )
    kept = _kept(None if before is None else before.directory, facts)
    if kept is not None:
        return kept
    directory = Directory(
        lasting.reactor,
        control,
        connections=lasting.options["ldap-connections"],
        tally=lasting.tally,
    )
    return Part(facts=facts, value=directory, start=directory.start, stop=directory.stop)


def _proof(
    control: Control, directory: Part[Directory], lasting: Lasting, before: Generation | None
) -> Part[Proof]:
    cleartext = control.ldapcleartext > 0
    # What it has seen of hashes, and of the time that binds take, holds for this directory.
    facts = (control.ldaprebind, cleartext, directory if control.ldaprebind else None)
    kept = _kept(None if before is None else before.proof, facts)
    if kept is not None:
        return kept
    proof: Proof = (
        RebindProof(directory.value, control.ldapbasedn, lasting.reactor)
        if control.ldaprebind
        else HashProof(lasting.hash_threads, cleartext=cleartext)
    )
    return Part(facts=facts, value=proof)


def _local_users(
    control: Control, lasting: Lasting, before: Generation | None
) -> Part[LocalUsers | None]:
    facts = (control.ldaplocaldelivery, control.defaultdelivery)
    kept = _kept(None if before is None else before.local_users, facts)
    if kept is not None:
        return kept
    broker = lasting.broker
    if broker is None or not control.ldaplocaldelivery:
        return Part(facts=facts, value=None)

    def ask(login: bytes, password: bytes) -> Deferred[str]:
        return Deferred.fromCoroutine(broker.check_password(login, password))

    users = LocalUsers(ask, lasting.hash_threads, control.defaultdelivery, lasting.reactor)
    return Part(facts=facts, value=users)


def _forwarder(
    control: Control, cluster: Cluster, lasting: Lasting, before: Generation | None
) -> Part[Forwarder]:
    facts = (
        control.ldapcluster,
        control.me,
        control.ldapclusterhosts,
        control.pop3routes,
        control.pop3clustertls,
        control.pop3clusterca,
        control.held.get("pop3clusterca"),
    )
    kept = _kept(None if before is None else before.forwarder, facts)
    if kept is not None:
        return kept
    tls = ClusterTLS(control)
    forwarder = Forwarder(lasting.reactor, cluster, tls, lasting.name_threads, tally=lasting.tally)
    return Part(facts=facts, value=forwarder)
