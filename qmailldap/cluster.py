"""Which mail is kept here, and which by another member of the cluster."""

from __future__ import annotations

from qmailldap.account import Account
from qmailldap.control import Control

__all__ = ["Cluster"]


class Cluster:
    """The cluster as the control files ldapcluster, me and ldapclusterhosts describe it."""

    def __init__(self, control: Control) -> None:
        self._forwards = control.ldapcluster
        names = (control.me, *control.ldapclusterhosts)
        self._own_names = frozenset(name.lower() for name in names if name is not None)

    def keeps(self, account: Account) -> bool:
        """Whether this host keeps the account's mail: reference.md, "The decision", step 4."""
        if not self._forwards or account.mail_host is None:
            return True
        return account.mail_host.lower() in self._own_names
