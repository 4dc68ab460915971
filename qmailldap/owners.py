"""With whose rights the file work of an account is done.

In this process where it runs as the account's owner already, else by a keeper of that owner; where
there can be no keepers, another's mail is not touched at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from qmailldap.account import Account
from qmailldap.maildir.hands import Hands, InThreads
from qmailldap.maildir.work import Place, Work
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.threads import Offload

__all__ = ["Keepers", "Owners"]


class Keepers(Protocol):
    """What is asked of `qmailldap.privsep.pool.Keepers`."""

    def hands(self, owner: tuple[int, int], place: Place) -> Hands: ...


class Owners:
    """Finds hands for an account.

    ``offload`` is for work in this process; ``keepers`` is None where it was not started as root;
    ``dirmaker`` is the program that makes homes. ``own_ids`` tells as whom this process runs.
    """

    def __init__(
        self,
        offload: Offload,
        keepers: Keepers | None,
        dirmaker: str | None,
        own_ids: Callable[[], tuple[int, int]] = lambda: (os.geteuid(), os.getegid()),
    ) -> None:
        self._offload = offload
        self._keepers = keepers
        self._dirmaker = None if dirmaker is None else os.fsencode(dirmaker)
        self._own_ids = own_ids

    def hands(self, account: Account) -> Hands:
        """Hands for one session. Raises `LoginRefused` where nobody may touch the mailbox."""
        uid, gid = self._own_ids()
        place = Place(
            home=os.fsencode(account.home),
            mailbox=os.fsencode(account.mailbox),
            delivery=os.fsencode(account.delivery),
            quota=account.quota,
            dirmaker=self._dirmaker,
            environment=account.environment(),
            asks_dot_qmail=account.asks_dot_qmail,
        )
        if self._keepers is not None and (account.uid, account.gid) != (uid, gid):
            return self._keepers.hands((account.uid, account.gid), place)
        # Who was not started as root has no choice of groups.
        if account.uid == uid:
            return InThreads(self._offload, Work(place))
        raise LoginRefused(
            Refusal.RECORD_INCORRECT,
            f"the mail belongs to uid {account.uid}, and this server, not started as root,"
            f" runs as uid {uid}",
        )
