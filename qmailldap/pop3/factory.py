"""What makes a session of each connection."""

from __future__ import annotations

from collections.abc import Callable

from twisted.cred.portal import Portal
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import ServerFactory

from qmailldap.handover import Connection
from qmailldap.loglevel import Log
from qmailldap.pop3.limits import Limits
from qmailldap.pop3.protocol import POP3

__all__ = ["POP3Factory"]


class POP3Factory(ServerFactory):
    """Makes the sessions of one listening port.

    ``hostname`` is the name in the greeting (control file me); ``trusts`` tells of an address
    whether XCLIENT is believed that comes from there.
    """

    noisy = False

    def __init__(
        self,
        portal: Portal,
        hostname: str,
        clock: IReactorTime,
        limits: Limits = Limits(),  # noqa: B008  # frozen
        trusts: Callable[[str], bool] = lambda address: False,
    ) -> None:
        self.portal = portal
        self.hostname = hostname
        self.clock = clock
        self.limits = limits
        self.trusts = trusts
        self.log = Log(namespace="qmailldap.pop3")

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        protocol = POP3(self.portal, self.hostname, self.limits, self.clock, self.trusts)
        protocol.factory = self
        connection = Connection(protocol)
        protocol.hand_over = connection.hand_over
        return connection
