"""Logging in on the member that keeps the mail, in the client's name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from zope.interface import implementer

from qmailldap.account import RemoteAccount
from qmailldap.client import Client
from qmailldap.cluster import Cluster, Member
from qmailldap.figures.tally import Tally
from qmailldap.forward.addresses import Addresses
from qmailldap.forward.dialing import dial
from qmailldap.forward.dialogue import Dialogue, MemberRefused, MemberTrouble
from qmailldap.forward.limits import ForwardLimits
from qmailldap.forward.machines import Greeted, Machines, Unreachable
from qmailldap.forward.relay import Relay
from qmailldap.forward.tls import ClusterTLS
from qmailldap.interfaces import IForwardedSession, Relayed
from qmailldap.ip import parse_ip
from qmailldap.loglevel import Kind, Log
from qmailldap.printable import printable
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.threads import Busy, Offload
from qmailldap.tls.verification import NameNotVerifiable
from qmailldap.turns import Turns

__all__ = ["ForwardedSession", "Forwarder"]

_XCLIENT = b"[XCLIENT]"

_log = Log(namespace="qmailldap.forward")


@implementer(IForwardedSession)
class ForwardedSession:
    """A session that has been logged in on a member; ``answer`` is what it said to PASS."""

    def __init__(
        self,
        reactor: Any,
        limits: ForwardLimits,
        mail_host: str,
        greeted: Greeted,
        answer: bytes,
    ) -> None:
        self.mail_host = mail_host
        self.member = greeted.where
        self._reactor = reactor
        self._limits = limits
        self._dialogue: Dialogue | None = greeted.dialogue
        self._answer = answer
        self._relay: Relay | None = None

    def join(self, unread: bytes, all_read: bool, ended: Callable[[Relayed], None]) -> IProtocol:
        dialogue, self._dialogue = self._dialogue, None
        assert dialogue is not None, "a session is joined once"
        self._relay = relay = Relay(
            self._reactor,
            ended,
            to_client=b"+OK " + self._answer + b"\r\n" + dialogue.take_unread(),
            to_member=unread,
            client_ended=all_read,
            idle=self._limits.idle,
            linger=self._limits.linger,
        )
        dialogue.connection.hand_over(relay.member)
        return relay.client

    @property
    def sent(self) -> int:
        return 0 if self._relay is None else self._relay.sent

    def quiet(self) -> float | None:
        return None if self._relay is None else self._relay.quiet()

    def read_no_more(self) -> None:
        if self._relay is not None:
            self._relay.read_no_more()

    def end(self, how: str, words: bytes) -> None:
        if self._relay is not None:
            self._relay.end(how, words)

    def close(self) -> None:
        """Log out, unless the session has been joined: then its two ends see to that."""
        dialogue, self._dialogue = self._dialogue, None
        if dialogue is not None:
            dialogue.hang_up()


class Forwarder:
    """The way to all other members.

    ``reactor`` connects and has a clock, ``offload`` is where names are resolved, ``tally`` counts
    what becomes of the logins.
    """

    def __init__(
        self,
        reactor: Any,
        cluster: Cluster,
        tls: ClusterTLS,
        offload: Offload,
        limits: ForwardLimits = ForwardLimits(),  # noqa: B008  # frozen
        *,
        tally: Tally | None = None,
    ) -> None:
        self._tally = tally
        self._reactor = reactor
        self._cluster = cluster
        self._tls = tls
        self._limits = limits
        self._addresses = Addresses(reactor, offload)
        self.machines = Machines(reactor, self._dial, limits)
        self._turns = Turns(reactor, limits.same_login, limits.same_login_wait)
        self._under_way: Counter[Member] = Counter()

    async def log_in(self, account: RemoteAccount, client: Client) -> ForwardedSession:
        """Log the client in on the member that keeps the account's mail.

        Raises `LoginRefused`: MEMBER_REFUSED with what the member has to say to PASS, and
        MAILHOST_UNREACHABLE for everything else that keeps the session from being forwarded.
        """
        member = self._cluster.member(account.mail_host)
        try:
            session = await self._log_in_there(member, account, client)
        except LoginRefused:
            self._count(member, failed=True)
            raise
        self._count(member, failed=False)
        return session

    def _count(self, member: Member, failed: bool) -> None:
        if self._tally is not None:
            # Both, for what compares them finds nothing of a member that has one of them only.
            self._tally.add("forward_failures_total", member.mail_host, amount=int(failed))
            self._tally.add("forwarded_total", member.mail_host, amount=int(not failed))

    async def _log_in_there(
        self, member: Member, account: RemoteAccount, client: Client
    ) -> ForwardedSession:
        if account.password is not None:
            client = attrs.evolve(client, password=account.password)
        if client.ttl <= 1:
            raise _unreachable(
                member,
                "the session was forwarded too often already, or by one who does not count it",
            )
        under_way = self._under_way[member]
        if under_way >= self._limits.logins:
            raise _unreachable(member, f"{under_way} logins are under way there already")
        if any(octet in account.login + client.password for octet in b"\0\r\n"):
            raise _unreachable(member, "name or password cannot stand on a line")
        self._under_way[member] += 1
        try:
            return await self._log_in(member, account, client)
        except (MemberTrouble, Unreachable) as trouble:
            raise _unreachable(member, str(trouble)) from None
        finally:
            self._under_way[member] -= 1
            if not self._under_way[member]:
                del self._under_way[member]

    async def _log_in(
        self, member: Member, account: RemoteAccount, client: Client
    ) -> ForwardedSession:
        greeted = await self._reach(member)
        try:
            if greeted.greeting.startswith(_XCLIENT):
                answer = await self._converse(member, greeted, account.login, client)
            else:
                answer = await self._in_turn(member, greeted, account, client)
        except MemberTrouble as trouble:
            greeted.dialogue.hang_up()
            raise MemberTrouble(f"{greeted.where} {trouble}") from None
        except BaseException:
            greeted.dialogue.hang_up()
            raise
        return ForwardedSession(self._reactor, self._limits, member.mail_host, greeted, answer)

    async def _in_turn(
        self, member: Member, greeted: Greeted, account: RemoteAccount, client: Client
    ) -> bytes:
        """`_converse` with a member that does not count how often a session is handed on."""

        # Who is let in and then leaves is hung up on, which is what ends this then.
        def converse() -> Deferred[bytes]:
            return Deferred.fromCoroutine(self._converse(member, greeted, account.login, client))

        try:
            return await self._turns.take(account.dn.lower(), converse)
        except Busy:
            raise MemberTrouble(
                f"was not spoken to: {self._limits.same_login} logins of this user are under way"
                " at members. Do they forward to each other?"
            ) from None

    async def _reach(self, member: Member) -> Greeted:
        deadline = self._reactor.seconds() + self._limits.reach
        addresses = await self._addresses.of(member.host)
        if not addresses:
            raise Unreachable(f"{_shown(member.host)} has no address")
        if _log.shows(Kind.DEBUG):
            _log.debug(
                "addresses mailhost={mailhost} host={host} port={port} addresses={addresses}",
                mailhost=_shown(member.mail_host),
                host=_shown(member.host),
                port=member.port,
                addresses=_shown(",".join(addresses)),
            )
        return await self.machines.first_to_greet(addresses, member.port, deadline)

    def _dial(self, address: str, port: int, limit: float) -> Deferred[Dialogue]:
        dialled = dial(self._reactor, self._tls.problem, address, port, limit)
        return dialled.addCallback(self._refuse_ourselves)

    def _refuse_ourselves(self, dialogue: Dialogue) -> Dialogue:
        near, far = dialogue.transport.getHost(), dialogue.transport.getPeer()
        if self._cluster.is_ourselves(near, far):
            dialogue.hang_up()
            raise Unreachable(f"is this server itself, which goes by {self._cluster.own_names}")
        return dialogue

    async def _converse(
        self, member: Member, greeted: Greeted, login: bytes, client: Client
    ) -> bytes:
        """All that is said up to PASS; gives the answer to that."""
        dialogue, limit = greeted.dialogue, self._limits.answer
        by_tls = self._tls.wanted and await self._secure(member, dialogue)
        introduces = greeted.greeting.startswith(_XCLIENT)
        if _log.shows(Kind.ACTIONS):
            _log.info(
                "forwarding user={user} session={session} mailhost={mailhost} member={member}"
                " tls={tls} xclient={xclient}",
                user=printable(login),
                session=client.session,
                mailhost=_shown(member.mail_host),
                member=greeted.where,
                tls="yes" if by_tls else "no",
                xclient="yes" if introduces else "no",
            )
        try:
            if introduces:
                await dialogue.ask(b"XCLIENT", _introduction(client), limit=limit)
            await dialogue.ask(b"USER", login, limit=limit)
        except MemberRefused as refused:
            raise MemberTrouble(f"wants no login: {refused}") from None
        try:
            return await dialogue.ask(b"PASS", client.password, limit=self._limits.password)
        except MemberRefused as refused:
            shown = "its answer holds the password" if client.password in refused.text else refused
            raise LoginRefused(
                Refusal.MEMBER_REFUSED, f"{member}, {greeted.where}: {shown}", answer=refused.text
            ) from None

    async def _secure(self, member: Member, dialogue: Dialogue) -> bool:
        """Whether TLS is spoken from now on."""
        try:
            context = self._tls.context(member.mail_host)
        except NameNotVerifiable as error:
            raise MemberTrouble(f"cannot be verified: {error}") from None
        try:
            await dialogue.ask(b"STLS", limit=self._limits.answer)
        except MemberRefused as refused:
            if self._tls.required:
                raise MemberTrouble(f"speaks no TLS: {refused}") from None
            return False
        dialogue.start_tls(context)
        return True


def _shown(text: str) -> str:
    return printable(text.encode("utf-8", "replace"))


def _unreachable(member: Member, why: str) -> LoginRefused:
    return LoginRefused(Refusal.MAILHOST_UNREACHABLE, f"{member}: {why}")


def _introduction(client: Client) -> bytes:
    """Who the client is, as the arguments of XCLIENT."""
    words = []
    address = parse_ip(client.host)
    # Those who come by a UNIX socket have none.
    if address is not None:
        words.append(f"ADDR={address}")
        if 0 < client.port < 65536:  # A proxy may say anything.
            words.append(f"PORT={client.port}")
    if client.session:
        words.append(f"SESSION={client.session}")
    words.append(f"TTL={client.ttl - 1}")
    return " ".join(words).encode("ascii")
