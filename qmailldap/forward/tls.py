"""TLS between the members of the cluster: when it is spoken, and whether it is verified."""

from __future__ import annotations

from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.python.failure import Failure

from qmailldap.control import Control
from qmailldap.tls.verification import BadAuthorities, Unverified, Verified, problem

__all__ = ["ClusterTLS"]


class ClusterTLS:
    """The TLS of connections to other members, as pop3clustertls and pop3clusterca want it.

    ``wanted`` says to use it where a member offers it, ``required`` to do nothing without. Files
    that were not read with all others are read here and never again, for this may be the only
    moment with the right to.

    Raises `ControlError` when pop3clusterca cannot be used.
    """

    def __init__(self, control: Control) -> None:
        self.wanted = control.pop3clustertls > 0
        self.required = control.pop3clustertls == 2
        try:
            self._members = (
                Verified(control.pop3clusterca, control.held.get("pop3clusterca"))
                if self.required
                else Unverified()
            )
        except BadAuthorities as error:
            raise control.error("pop3clusterca", str(error)) from None

    def context(self, mail_host: str) -> IOpenSSLClientConnectionCreator:
        """What ``startTLS`` takes for a connection to the member of that name in the directory.

        Where TLS is required, raises `NameNotVerifiable` for a name that no certificate can bear.
        """
        return self._members.connections_to(mail_host)

    def problem(self, reason: Failure) -> str:
        """Why a connection to a member ended, as a line for the log: what is wrong with its
        certificate, too."""
        return problem(reason)
