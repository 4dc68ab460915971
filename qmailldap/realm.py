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
from qmailldap.forward import ForwardedSession
from qmailldap.interfaces import IForwardedSession, IMaildrop
from qmailldap.maildir.hands import Hands, InTurn
from qmailldap.maildir.mailbox import open_mailbox
from qmailldap.owners import mailbox_refused
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.threads import Busy, Offload
from qmailldap.turns import Turns

__all__ = ["Forwarder", "MailRealm", "Owners"]

_Avatar = tuple[type[Interface], object, Callable[[], None]]


class Owners(Protocol):
    """What is asked of `qmailldap.owners.Owners`."""

    def hands(self, account: Account) -> Hands: ...


class Forwarder(Protocol):
    """What is asked of `qmailldap.forward.Forwarder`."""

    async def log_in(self, account: RemoteAccount, client: Client) -> ForwardedSession: ...


@implementer(IRealm)
class MailRealm:
    """Opens the mailbox of an account, or a session with the member that keeps its mail.

    ``owners`` finds who may work on a mailbox, ``offload`` is where this process reads large
    messages, and ``forwarder`` is the way to other members.
    """

    def __init__(
        self,
        owners: Owners,
        forwarder: Forwarder,
        offload: Offload,
        clock: IReactorTime,
    ) -> None:
        self._owners = owners
        self._forwarder = forwarder
        self._offload = offload
        self._turns = Turns(clock)

    def requestAvatar(
        self, avatarId: Any, mind: object, *interfaces: type[Interface]
    ) -> Deferred[_Avatar]:
        """Open the mailbox of ``avatarId``, an `Account` or a `RemoteAccount`.

        Gives the first of the interfaces that is `IMaildrop`, or the ``IMailbox`` of stock Twisted
        which that extends; for a `RemoteAccount` `IForwardedSession`, if that is among them and
        ``mind`` is a `Client`. Fails with `LoginRefused` when it cannot be had.
        """
        for interface in interfaces:
            if IMaildrop.isOrExtends(interface):
                if isinstance(avatarId, RemoteAccount):
                    return Deferred.fromCoroutine(self._forward(avatarId, mind, interfaces))
                return Deferred.fromCoroutine(self._open(avatarId, interface))
        raise NotImplementedError(f"none of {interfaces!r} is given to an account")

    async def _forward(
        self, account: RemoteAccount, mind: object, interfaces: Sequence[type[Interface]]
    ) -> _Avatar:
        if not isinstance(mind, Client) or IForwardedSession not in interfaces:
            raise LoginRefused(
                Refusal.MAILHOST_UNREACHABLE,
                f"the mail is kept by {account.mail_host}, and the session cannot be handed on",
            )
        session = await self._forwarder.log_in(account, mind)
        return IForwardedSession, session, session.close

    async def _open(self, account: Account, interface: type[Interface]) -> _Avatar:
        hands = InTurn(self._owners.hands(account), self._turns, account.mailbox)
        try:
            mailbox = await open_mailbox(hands, self._offload)
        except (OSError, Busy, MemoryError) as error:
            raise mailbox_refused(error, account) from None
        return interface, mailbox, mailbox.close
