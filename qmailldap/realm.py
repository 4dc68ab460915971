"""From an account to what its owner may use: here, the maildrop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar

from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import Interface, implementer

from qmailldap.account import Account
from qmailldap.cluster import Cluster
from qmailldap.interfaces import IMaildrop
from qmailldap.maildir import MailboxCorrupted, MailboxMissing, open_mailbox
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.threads import Busy, Offload
from qmailldap.turns import Turns

__all__ = ["MailRealm"]

P = ParamSpec("P")
T = TypeVar("T")


@implementer(IRealm)
class MailRealm:
    """Opens the mailbox of an account; ``offload`` is where its file work is done."""

    def __init__(self, cluster: Cluster, offload: Offload, clock: IReactorTime) -> None:
        self._cluster = cluster
        self._offload = offload
        # To list or update a large mailbox takes a while, and many sessions of one user would take
        # all threads for it.
        self._turns = Turns(clock)

    def requestAvatar(
        self, avatarId: Any, mind: object, *interfaces: type[Interface]
    ) -> Deferred[tuple[type[Interface], object, Callable[[], None]]]:
        """Open the mailbox of ``avatarId``, an `Account`.

        Answers for `IMaildrop` and for the ``IMailbox`` of stock Twisted, which that extends. Fails
        with `LoginRefused` when the mailbox cannot be opened.
        """
        for interface in interfaces:
            if IMaildrop.isOrExtends(interface):
                return Deferred.fromCoroutine(self._open(avatarId, interface))
        raise NotImplementedError(f"none of {interfaces!r} is given to an account")

    async def _open(
        self, account: Account, interface: type[Interface]
    ) -> tuple[type[Interface], object, Callable[[], None]]:
        if not self._cluster.keeps(account):
            raise LoginRefused(
                Refusal.MAILHOST_UNREACHABLE,
                f"the mail is kept by {account.mail_host}, and sessions are not forwarded yet",
            )
        try:
            mailbox = await open_mailbox(
                self._offload, account.mailbox, exclusively=self._in_turn(account.mailbox)
            )
        except MailboxMissing as error:
            raise LoginRefused(Refusal.MAILBOX_MISSING, str(error)) from None
        except MailboxCorrupted as error:
            raise LoginRefused(Refusal.MAILBOX_CORRUPTED, str(error)) from None
        except (OSError, Busy) as error:
            raise LoginRefused(Refusal.TEMPORARY, f"{account.mailbox}: {error}") from None
        except MemoryError:
            raise LoginRefused(Refusal.OUT_OF_MEMORY, account.mailbox) from None
        return interface, mailbox, mailbox.close

    def _in_turn(self, mailbox: str) -> Offload:
        """The offload, for one session of a mailbox at a time."""

        def offload(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
            work = partial(self._offload, function, *args, **kwargs)
            return Deferred.fromCoroutine(self._turns.take(mailbox, work))

        return offload
