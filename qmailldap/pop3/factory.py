"""What makes a session of each connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.cred.portal import Portal
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IOpenSSLServerConnectionCreator,
    IReactorTime,
    ISSLTransport,
)
from twisted.internet.protocol import Protocol, ServerFactory
from zope.interface import implementer

from qmailldap.figures.tally import Tally
from qmailldap.handover import Connection
from qmailldap.loglevel import Log
from qmailldap.pop3.admission import Admission, Everyone
from qmailldap.pop3.limits import Limits
from qmailldap.pop3.protocol import POP3
from qmailldap.pop3.settings import Settings
from qmailldap.present import Present
from qmailldap.refusal import LoginRefused
from qmailldap.session import Session

__all__ = ["POP3Factory"]


class POP3Factory(ServerFactory):
    """Makes the sessions of one listening port.

    ``hostname`` is the name in the greeting (control file me); ``trusts`` tells of an address
    whether XCLIENT is believed that comes from there. The rest as in `Settings`; without
    ``admission`` everyone is let in, without ``present`` nobody else knows who is on.
    """

    noisy = False

    def __init__(
        self,
        portal: Portal,
        hostname: str,
        clock: IReactorTime,
        limits: Limits = Limits(),  # noqa: B008  # frozen
        *,
        trusts: Callable[[str], bool] = lambda address: False,
        tls: IOpenSSLServerConnectionCreator | None = None,
        requires_tls: bool = False,
        cleartext: int = 0,
        admission: Admission | None = None,
        present: Present | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.settings = Settings(
            portal=portal,
            hostname=hostname,
            clock=clock,
            limits=limits,
            trusts=trusts,
            tls=tls,
            requires_tls=requires_tls,
            cleartext=cleartext,
            admission=Everyone() if admission is None else admission,
            present=Present(clock) if present is None else present,
            log=Log(namespace="qmailldap.pop3"),
            tally=tally,
        )

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        protocol = POP3(self.settings)
        protocol.factory = self
        host = str(getattr(addr, "host", None) or "")
        try:
            place = self.settings.admission.enter(host, protocol.make_room)
        except LoginRefused as refused:
            turned_away = Session(self.settings.log, lambda: addr, tally=self.settings.tally)
            turned_away.refused(b"", refused)
            return Connection(_TurnedAway(refused.answer))
        protocol.place = place
        connection = Connection(protocol, place.leave)
        protocol.hand_over = connection.hand_over
        return connection


@implementer(IHalfCloseableProtocol)
class _TurnedAway(Protocol):
    """Says why there is no session, and closes."""

    transport: Any

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def connectionMade(self) -> None:
        if ISSLTransport.providedBy(self.transport):
            # A handshake costs more than all that the client was turned away from.
            self.transport.abortConnection()
            return
        self.transport.write(b"-ERR " + self._answer + b"\r\n")
        # Behind so short an answer nothing need be waited for: the kernel takes it at once.
        self.transport.loseConnection()

    def readConnectionLost(self) -> None:
        """It is being closed anyway."""

    def writeConnectionLost(self) -> None:
        """It is being closed anyway."""
