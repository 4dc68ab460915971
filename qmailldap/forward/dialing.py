"""One connection to one machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from qmailldap.forward.dialogue import Dialogue
from qmailldap.handover import Connection

__all__ = ["dial"]


def dial(
    reactor: Any, explain: Callable[[Failure], str], address: str, port: int, limit: float
) -> Deferred[Dialogue]:
    """Connect to an address; ``explain`` words why a connection was lost.

    Fails with ``ConnectError``, within ``limit`` seconds. (An endpoint would stay between the
    connection and the relay, and cost something for each read.)
    """
    call = _Call(reactor, explain)
    try:
        connector: IConnector = reactor.connectTCP(address, port, call, timeout=limit)
    except (OSError, ValueError) as error:
        # The scope of an address need not be an interface of this host, or make any sense.
        return fail(ConnectError(string=str(error)))

    def give_up(_: Deferred[Dialogue]) -> None:
        # To the connector that is a failure to connect, too, but it is not the machine's.
        call.answered = None
        connector.disconnect()

    call.answered = Deferred(give_up)
    return call.answered


class _Call(ClientFactory):
    noisy = False

    def __init__(self, clock: Any, explain: Callable[[Failure], str]) -> None:
        self._clock = clock
        self._explain = explain
        self.answered: Deferred[Dialogue] | None = None

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        dialogue = Dialogue(self._clock, self._explain, self._made)
        dialogue.connection = connection = Connection(dialogue)
        return connection

    def _made(self, dialogue: Dialogue) -> None:
        answered, self.answered = self.answered, None
        if answered is None:
            dialogue.hang_up()
        else:
            answered.callback(dialogue)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        answered, self.answered = self.answered, None
        if answered is not None:
            answered.errback(reason)
