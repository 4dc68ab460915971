"""From an account to what its owner may use: here, the maildrop."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import Interface, implementer

from qmailldap.account import Account
from qmailldap.cluster import Cluster
from qmailldap.interfaces import IMaildrop
from qmailldap.maildir.creation import MailboxNotCreated
from qmailldap.maildir.hands import Hands, InTurn
from qmailldap.maildir.mailbox import open_mailbox
from qmailldap.maildir.storage import MailboxCorrupted, MailboxMissing
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.threads import Busy, Offload
from qmailldap.turns import Turns

__all__ = ["MailRealm", "Owners"]


class Owners(Protocol):
    """What is asked of `qmailldap.owners.Owners`."""

    def hands(self, account: Account) -> Hands: ...


@implementer(IRealm)
class MailRealm:
    """Opens the mailbox of an account.

    ``owners`` finds who may work on it, ``offload`` is where this process reads large messages.
    """

    def __init__(
        self, cluster: Cluster, owners: Owners, offload: Offload, clock: IReactorTime
    ) -> None:
        self._cluster = cluster
        self._owners = owners
        self._offload = offload
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
        hands = InTurn(self._owners.hands(account), self._turns, account.mailbox)
        try:
            mailbox = await open_mailbox(hands, self._offload)
        except MailboxMissing as error:
            raise LoginRefused(Refusal.MAILBOX_MISSING, _told(error, account)) from None
        except MailboxCorrupted as error:
            raise LoginRefused(Refusal.MAILBOX_CORRUPTED, _told(error, account)) from None
        except MailboxNotCreated as error:
            raise LoginRefused(Refusal.MAILBOX_NOT_CREATED, _told(error, account)) from None
        except OSError as error:
            raise LoginRefused(Refusal.TEMPORARY, _told(error, account)) from None
        except Busy as error:
            raise LoginRefused(Refusal.TEMPORARY, f"{account.mailbox}: {error}") from None
        except MemoryError:
            raise LoginRefused(Refusal.OUT_OF_MEMORY, account.mailbox) from None
        return interface, mailbox, mailbox.close


def _told(error: OSError, account: Account) -> str:
    """What is wrong with which file, and for whom."""
    file = error.filename
    path = os.fsdecode(file) if isinstance(file, str | bytes) else account.mailbox
    return f"{path}: {error.strerror or error} (for uid {account.uid}, gid {account.gid})"
