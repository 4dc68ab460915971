"""What is remembered of one session for the lines it leaves in the log."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure

from qmailldap.client import FIRST_TTL, Client, Introduction
from qmailldap.figures.table import NO_LOGIN, outcome
from qmailldap.figures.tally import Tally
from qmailldap.interfaces import IForwardedSession, Relayed
from qmailldap.ip import parse_ip
from qmailldap.loglevel import Kind, Log, current_session
from qmailldap.printable import printable
from qmailldap.refusal import LoginRefused, Refusal

__all__ = ["Session"]

T = TypeVar("T")

_LONGEST_DETAIL = 1000

_MAPPED = "::ffff:"
"""What stands before an address of IPv4 on a socket for both (RFC 4291, section 2.5.5.2)."""


def _new_id() -> str:
    name = base64.urlsafe_b64encode(os.urandom(9)).decode("ascii")
    # A dash would make an option of it where it is an argument, as of qmailldap kick.
    return f"0{name[1:]}" if name.startswith("-") else name


@attrs.define
class Session:
    """One connection: who is at its other end, and what has been done for them.

    ``find_peer`` tells the address at the other end, and is asked once. ``id`` names the session in
    the logs of all members that it passes through. Octets are those of messages as they are sent,
    without the lines around them. ``method`` is how the client says who it is, and ``tls`` whether
    others could read it; empty where that is not known. ``tally`` counts what comes of it.
    """

    log: Log
    find_peer: Callable[[], IAddress | None]
    id: str = attrs.field(factory=_new_id)
    user: bytes = b""
    retrieved: int = 0
    octets: int = 0
    failed_logins: int = 0
    method: str = ""
    tls: str = ""
    tally: Tally | None = None
    _kind: str = ""
    _member: str = ""
    _own_id: str = attrs.field(init=False)
    _ttl: int = FIRST_TTL
    _introduction: Introduction | None = None
    _peer: str | None = None
    _neighbour: str | None = None

    def __attrs_post_init__(self) -> None:
        self._own_id = self.id

    @property
    def neighbour(self) -> str:
        """The address at the other end of the connection; UNIX sockets and the like have none."""
        # Wanted ten times a session, and made up by the transport each time.
        if self._neighbour is None:
            self._neighbour = str(getattr(self.find_peer(), "host", None) or "")
        return self._neighbour

    @property
    def peer(self) -> str:
        """The client's address without its port, for the log."""
        if self._peer is None:
            # A proxy may say anything here.
            host = self.host or "local"
            if host.startswith(_MAPPED):
                host = str(parse_ip(host) or host)
            self._peer = printable(host.encode("utf-8", "backslashreplace"))
        return self._peer

    @property
    def host(self) -> str:
        """The client's address as it was told; empty where it has none."""
        said = self._introduction
        return self.neighbour if said is None or said.host is None else said.host

    def carry_out(self, work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        """What the work comes to; all that is logged for it has this session's id."""
        # The coroutine takes a copy of what is set here, and keeps it whoever goes on with it.
        before = current_session.set(self.id)
        try:
            return Deferred.fromCoroutine(work)
        finally:
            current_session.reset(before)

    def connected(self, find_host: Callable[[], IAddress]) -> None:
        """The client has come; ``find_host`` tells to which of the addresses listened on."""
        if self.log.shows(Kind.ACTIONS):
            self.log.info(
                "connect peer={peer} session={session} at={at}",
                peer=self.peer,
                session=self.id,
                at=_place(find_host()),
            )

    def introduced(self, introduction: Introduction) -> None:
        """Another member has said for whom it speaks, and is believed."""
        self._introduction = introduction
        self._peer = None
        before, self.id = self.id, introduction.session or self.id
        if self.log.shows(Kind.ACTIONS):
            self.log.info(
                "xclient peer={peer} session={session} before={before} by={by}",
                peer=self.peer,
                session=self.id,
                before=before,
                by=self.neighbour or "local",
            )
        # One that does not count how often a session is handed on cannot end a loop of members.
        self._ttl = introduction.ttl or 1

    def introduced_by_nobody(self) -> None:
        """What was said of the client does not count."""
        self._introduction = self._peer = None
        self.id, self._ttl = self._own_id, FIRST_TTL

    def client(self, password: bytes) -> Client:
        """Who wants to log in, for those who speak to others in the client's name."""
        said = self._introduction
        if said is None or said.host is None:
            port = int(getattr(self.find_peer(), "port", 0))
        else:
            port = said.port or 0
        return Client(password=password, host=self.host, port=port, session=self.id, ttl=self._ttl)

    def begun(self) -> None:
        """The client is greeted."""
        if self.tally is not None:
            self.tally.add("sessions_begun_total")
            self._becomes("waiting")

    def ended(self) -> None:
        """The connection is gone. Harmless when said twice."""
        if self._kind:
            self._becomes("")

    def _becomes(self, kind: str) -> None:
        """From now on it is one of this kind: waiting, local, forwarded; or gone."""
        before, self._kind = self._kind, kind
        if self.tally is not None:
            if before:
                self.tally.change("sessions", before, by=-1)
            if kind:
                self.tally.change("sessions", kind, by=1)
            if not (before and kind):
                self.tally.history.sessions(1 if kind else -1)
            if self._member:
                self.tally.change("forwarded_sessions", self._member, by=-1)
                self._member = ""

    def sent(self, octets: int, messages: int = 0) -> None:
        """So much of messages was written to the client."""
        self.octets += octets
        self.retrieved += messages
        if self.tally is not None:
            self.tally.add("octets_sent_total", amount=octets)
            if messages:
                self.tally.add("messages_sent_total", amount=messages)

    def logged_in(self, user: bytes, messages: int, octets: int) -> None:
        self.user = user
        if self.tally is not None:
            self.tally.add("logins_total", "ok-local")
            self.tally.history.login()
            self._becomes("local")
        self.log.login(
            "login user={user} peer={peer} session={session} messages={messages} octets={octets}"
            + self._way,
            user=printable(user),
            peer=self.peer,
            session=self.id,
            messages=messages,
            octets=octets,
            method=self.method,
            tls=self.tls,
        )

    def left_to(self, subprogram: bytes, user: bytes, uid: int, mailbox: bytes) -> None:
        """The session is the business of a program, which runs as the owner of the mailbox."""
        self.user = user
        self.log.login(
            "login user={user} peer={peer} session={session} uid={uid} mailbox={mailbox}"
            " subprogram={subprogram}",
            user=printable(user),
            peer=self.peer,
            session=self.id,
            uid=uid,
            mailbox=printable(mailbox),
            subprogram=printable(subprogram),
        )

    def forwarded(self, user: bytes, session: IForwardedSession) -> None:
        self.user = user
        if self.tally is not None:
            self.tally.add("logins_total", "ok-forwarded")
            self.tally.history.login()
            self._becomes("forwarded")
            self._member = session.mail_host
            self.tally.change("forwarded_sessions", self._member, by=1)
        self.log.login(
            "login user={user} peer={peer} session={session} mailhost={mailhost} member={member}"
            + self._way,
            user=printable(user),
            peer=self.peer,
            session=self.id,
            mailhost=printable(session.mail_host.encode("utf-8", "replace")),
            member=session.member,
            method=self.method,
            tls=self.tls,
        )

    def relayed(self, mail_host: str, relayed: Relayed) -> None:
        """A forwarded session has ended."""
        self.ended()
        if self.tally is not None:
            self.tally.add("forwarded_octets_total", "sent", amount=relayed.sent)
            self.tally.add("forwarded_octets_total", "received", amount=relayed.received)
        self.log.login(
            "logout user={user} peer={peer} session={session} end={end} mailhost={mailhost}"
            " seconds={seconds:.1f} sent={sent} received={received}",
            user=printable(self.user),
            peer=self.peer,
            session=self.id,
            end=relayed.end,
            mailhost=printable(mail_host.encode("utf-8", "replace")),
            seconds=relayed.seconds,
            sent=relayed.sent,
            received=relayed.received,
        )

    @property
    def _way(self) -> str:
        return " method={method} tls={tls}" if self.method else ""

    def refused(self, user: bytes, refused: LoginRefused) -> None:
        self.failed_logins += 1
        if self.tally is not None:
            self._count_refusal(refused.refusal)
            self.tally.latest.refused(outcome(refused.refusal), self.peer, user)
        self.log.login(
            "refused user={user} peer={peer} session={session} reason={reason} detail={detail}",
            level=refused.refusal.outcome.severity,
            user=printable(user),
            peer=self.peer,
            session=self.id,
            reason=refused.refusal.name.lower().replace("_", "-"),
            # It may quote what a program had to say.
            detail=printable(refused.detail.encode("utf-8", "replace"), _LONGEST_DETAIL),
        )

    def _count_refusal(self, refusal: Refusal) -> None:
        assert self.tally is not None
        if refusal.is_of_a_listener:
            self.tally.add("limit_refusals_total", outcome(refusal))
        if refusal not in NO_LOGIN:
            self.tally.add("logins_total", outcome(refusal))
            self.tally.history.refusal()

    def handshake_failed(self, problem: str) -> None:
        """The client has come for TLS, and could not agree on it."""
        if self.tally is not None:
            self.tally.add("tls_handshakes_failed_total")
        self.log.info(
            "handshake peer={peer} session={session} problem={problem}",
            peer=self.peer,
            session=self.id,
            problem=printable(problem.encode("utf-8", "replace")),
        )

    def abandoned(self, user: bytes) -> None:
        """The client left before its login was judged."""
        if self.tally is not None:
            self.tally.add("logins_total", "abandoned")
        self.log.login(
            "abandoned user={user} peer={peer} session={session}",
            user=printable(user),
            peer=self.peer,
            session=self.id,
        )

    def logged_out(self, how: str, deleted: int, left: int) -> None:
        """``how`` is quit, or what ended the session instead: nothing is deleted then."""
        if self.tally is not None and deleted:
            self.tally.add("deletions_total", amount=deleted)
        self.log.login(
            "logout user={user} peer={peer} session={session} end={end} retrieved={retrieved}"
            " octets={octets} deleted={deleted} left={left}",
            user=printable(self.user),
            peer=self.peer,
            session=self.id,
            end=how,
            retrieved=self.retrieved,
            octets=self.octets,
            deleted=deleted,
            left=left,
        )

    def failed(
        self, what: str, failure: Failure | None = None, *, user: bytes | None = None
    ) -> None:
        """A fault of this program, with its traceback: by default of the exception at hand."""
        self.log.failure(
            "failed what={what} user={user} peer={peer} session={session}",
            failure,
            what=what,
            user=printable(self.user if user is None else user),
            peer=self.peer,
            session=self.id,
        )

    def not_updated(self, problem: str) -> None:
        """QUIT could not do its work; nothing was lost, and the client was told."""
        self.log.warn(
            "update user={user} peer={peer} session={session} problem={problem}",
            user=printable(self.user),
            peer=self.peer,
            session=self.id,
            problem=printable(problem.encode("utf-8", "replace")),
        )

    def message_failed(self, uid: bytes, problem: str) -> None:
        """A message could not be opened, or not be sent to its end."""
        self.log.warn(
            "message user={user} peer={peer} session={session} uid={uid} problem={problem}",
            user=printable(self.user),
            peer=self.peer,
            session=self.id,
            uid=printable(uid),
            problem=printable(problem.encode("utf-8", "replace")),
        )


def _place(address: IAddress) -> str:
    """An address listened on, with its port; sockets of the host itself have a path."""
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if host is None:
        name = getattr(address, "name", None) or b"local"
        return printable(name if isinstance(name, bytes) else str(name).encode())
    shown = f"[{host}]" if ":" in host else host
    return printable(f"{shown}:{port}".encode("utf-8", "replace")).strip('"')
