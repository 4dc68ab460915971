"""What makes a session of each connection."""

from __future__ import annotations

from typing import Any

from twisted.cred.portal import Portal
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger

from qmailldap.pop3.limits import Limits
from qmailldap.pop3.protocol import POP3

__all__ = ["POP3Factory"]


class POP3Factory(ServerFactory):
    """Makes the sessions of one listening port.

    ``hostname`` is the name in the greeting (control file me).
    """

    noisy = False

    def __init__(
        self,
        portal: Portal,
        hostname: str,
        clock: IReactorTime,
        limits: Limits = Limits(),  # noqa: B008  # frozen
    ) -> None:
        self.portal = portal
        self.hostname = hostname
        self.clock = clock
        self.limits = limits
        # Not a class attribute: as such it would log under the name of the class.
        self.log = Logger(namespace="qmailldap.pop3")

    def buildProtocol(self, addr: IAddress | None) -> Any:
        protocol = POP3(self.portal, self.hostname, self.limits, self.clock)
        protocol.factory = self
        return protocol
