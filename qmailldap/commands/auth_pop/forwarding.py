"""The session of an account whose mail another member keeps, on standard input and output.

By the server's own forwarder and relay, with no rights but those of who speaks to the network.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from qmailldap.account import RemoteAccount
from qmailldap.client import Client
from qmailldap.cluster import Cluster
from qmailldap.commands.auth_pop.standard_streams import connect
from qmailldap.control import POP3_PORT, Control, ControlError
from qmailldap.forward import ClusterTLS, ForwardedSession, Forwarder
from qmailldap.interfaces import Relayed
from qmailldap.privsep.rights import UnknownIdentity, become, find_identity
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.threads import in_a_thread

__all__ = ["Forwarding", "answer"]


class Forwarding:
    """The way to other members; made while there is the right to read what it takes.

    ``environment`` tells where the client's connection came in, as tcp-environ(5) has it. Raises
    `LoginRefused`.
    """

    def __init__(self, reactor: Any, control: Control, environment: Mapping[str, str]) -> None:
        self._reactor = reactor
        cluster = Cluster(control)
        for port in {POP3_PORT, _number(environment.get("TCPLOCALPORT"), POP3_PORT)}:
            # Not told to listen there, but whoever connects there comes back here.
            cluster.listens_on(IPv4Address("TCP", "0.0.0.0", port))
            cluster.listens_on(IPv6Address("TCP", "::", port))
        try:
            tls = ClusterTLS(control)
        except ControlError as error:
            raise LoginRefused(Refusal.CONFIGURATION, str(error)) from None
        self._forwarder = Forwarder(reactor, cluster, tls, in_a_thread(reactor))

    @staticmethod
    def give_up_rights() -> None:
        """Become the user who speaks to the network, where this is root. Raises `LoginRefused`."""
        if os.geteuid() != 0:
            return
        try:
            become(find_identity())
        except UnknownIdentity:
            raise LoginRefused(
                Refusal.CONFIGURATION,
                "there is neither a user qmaild nor nobody to forward the session as",
            ) from None
        except OSError as error:
            raise LoginRefused(Refusal.TEMPORARY, f"setuid: {error.strerror}") from None

    async def log_in(self, account: RemoteAccount, client: Client) -> ForwardedSession:
        """A session on the member that keeps the mail. Raises `LoginRefused`."""
        return await self._forwarder.log_in(account, client)

    async def relay(self, session: ForwardedSession) -> Relayed:
        """Join the session to standard input and output until both sides have ended."""
        ended: Deferred[Relayed] = Deferred()
        client = session.join(b"", False, ended.callback)
        try:
            connect(self._reactor, client)
        except OSError as error:
            # The client has left meanwhile: of a connection that was reset there is no peer.
            client.connectionLost(Failure(ConnectionLost(str(error))))
        return await ended


def answer(refused: LoginRefused) -> None:
    """Tell the client what a member has answered to PASS; nobody else will."""
    # In one piece, as it is no more than a line; and a client that has left need not hear it.
    with suppress(OSError):
        os.write(1, b"-ERR " + refused.answer + b"\r\n")


def _number(text: str | None, default: int) -> int:
    return int(text) if text and text.isdecimal() and len(text) <= 5 else default
