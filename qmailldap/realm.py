"""From an account to what its owner may use: the maildrop, or the session on another member."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import Interface, implementer

from qmailldap.account import Account, RemoteAccount
from qmailldap.client import Client
from qmailldap.figures.tally import Tally
from qmailldap.forward import ForwardedSession
from qmailldap.interfaces import IForwardedSession, IMaildrop
from qmailldap.loglevel import current_session
from qmailldap.maildir.hands import Hands, InTurn
from qmailldap.maildir.mailbox import open_mailbox
from qmailldap.owners import mailbox_refused
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.threads import Busy, Offload
from qmailldap.turns import Turns

__all__ = ["Forwarder", "MailRealm", "Owners", "Sessions"]

_Avatar = tuple[type[Interface], object, Callable[[], None]]


class Owners(Protocol):
    """What is asked of `qmailldap.owners.Owners`."""

    def hands(self, account: Account) -> Hands: ...


class Sessions(Protocol):
    """What is asked of `qmailldap.admission.Sessions`."""

    def enter(self, user: bytes, host: str) -> Callable[[], None]: ...


class Forwarder(Protocol):
    """What is asked of `qmailldap.forward.Forwarder`."""

    async def log_in(self, account: RemoteAccount, client: Client) -> ForwardedSession: ...


@implementer(IRealm)
class MailRealm:
    """Opens the mailbox of an account, or a session with the member that keeps its mail.

    ``owners`` finds who may work on a mailbox, ``offload`` is where this process reads large
    messages, ``forwarder`` is the way to other members, and ``sessions`` counts how many each user
    has: from before anything is opened until what ends the session is called, which is the third
    thing that a portal is given. Without it nobody counts them. ``turns`` are those at mailboxes,
    where others work on the same. ``tally`` counts how long it takes.
    """

    def __init__(
        self,
        owners: Owners,
        forwarder: Forwarder,
        offload: Offload,
        clock: IReactorTime,
        sessions: Sessions | None = None,
        turns: Turns | None = None,
        tally: Tally | None = None,
    ) -> None:
        self._owners = owners
        self._forwarder = forwarder
        self._offload = offload
        self._turns = Turns(clock) if turns is None else turns
        self._sessions = sessions
        self._clock = clock
        self._tally = tally

    def requestAvatar(
        self, avatarId: Any, mind: object, *interfaces: type[Interface]
    ) -> Deferred[_Avatar]:
        """Open the mailbox of ``avatarId``, an `Account` or a `RemoteAccount`.

        ``mind`` is the `Client`, where there is one. Gives the first of the interfaces that is
        `IMaildrop`, or the ``IMailbox`` of stock Twisted which that extends; for a `RemoteAccount`
        `IForwardedSession`, if that is among them and there is a `Client`. Fails with
        `LoginRefused` when it cannot be had.
        """
        for interface in interfaces:
            if IMaildrop.isOrExtends(interface):
                return Deferred.fromCoroutine(self._admit(avatarId, mind, interface, interfaces))
        raise NotImplementedError(f"none of {interfaces!r} is given to an account")

    async def _admit(
        self,
        account: Account | RemoteAccount,
        mind: object,
        interface: type[Interface],
        interfaces: Sequence[type[Interface]],
    ) -> _Avatar:
        host = ""
        if isinstance(mind, Client):
            host = mind.host
            # A portal calls back when it knows who it is, which is of no session.
            current_session.set(mind.session)
        # Not by its truth: one that has counted nobody yet is false.
        sessions = self._sessions
        leave = _nothing if sessions is None else sessions.enter(_user(account), host)
        try:
            if isinstance(account, RemoteAccount):
                given, avatar, close = await self._forward(account, mind, interfaces)
            else:
                given, avatar, close = await self._open(account, interface)
        except BaseException:
            leave()
            raise

        def log_out() -> None:
            try:
                close()
            finally:
                leave()

        return given, avatar, log_out

    async def _forward(
        self, account: RemoteAccount, mind: object, interfaces: Sequence[type[Interface]]
    ) -> _Avatar:
        if not isinstance(mind, Client) or IForwardedSession not in interfaces:
            raise LoginRefused(
                Refusal.MAILHOST_UNREACHABLE,
                f"the mail is kept by {account.mail_host}, and the session cannot be handed on",
            )
        begun = self._clock.seconds()
        session = await self._forwarder.log_in(account, mind)
        self._count("forward", begun)
        return IForwardedSession, session, session.close

    async def _open(self, account: Account, interface: type[Interface]) -> _Avatar:
        hands = InTurn(self._owners.hands(account), self._turns, account.mailbox)
        begun = self._clock.seconds()
        try:
            mailbox = await open_mailbox(hands, self._offload)
        except (OSError, Busy, MemoryError) as error:
            raise mailbox_refused(error, account) from None
        self._count("maildir", begun)
        return interface, mailbox, mailbox.close

    def _count(self, part: str, begun: float) -> None:
        if self._tally is not None:
            seconds = self._clock.seconds() - begun
            self._tally.observe("login_part_seconds", part, seconds=seconds)


def _nothing() -> None:
    """What is to be done at the end of a session that was not counted."""


def _user(account: Account | RemoteAccount) -> bytes:
    """What is one user, by whatever name and case they log in: those of passwd have no DN."""
    return account.dn.lower().encode("utf-8", "surrogateescape") or account.login
