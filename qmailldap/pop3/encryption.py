"""The TLS of one connection: is there any, may there be, must there be."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import ISSLTransport, ITLSTransport

from qmailldap.ip import parse_ip
from qmailldap.pop3.settings import Settings

__all__ = ["Encryption"]


class Encryption:
    """What the transport of a session has, and what it may come to have by STLS (RFC 2595)."""

    def __init__(self, transport: Any, settings: Settings) -> None:
        self._transport = transport
        self._settings = settings
        self.active = ISSLTransport.providedBy(transport)
        """TLS is spoken on this connection, if only its handshake"""

    @property
    def offered(self) -> bool:
        """Whether STLS may be said."""
        return (
            not self.active
            and self._settings.tls is not None
            and ITLSTransport.providedBy(self._transport)
        )

    def start(self) -> None:
        """Speak TLS from now on, behind all that was written so far."""
        self.active = True
        self._transport.startTLS(self._settings.tls)

    def lets_see(self, neighbour: str) -> bool:
        """Whether others might read a password here although the site wants none to.

        ``neighbour`` is the address at the other end, empty for a UNIX socket.
        """
        if not self._settings.requires_tls or self.active or self._by_proxy or not neighbour:
            return False
        address = parse_ip(neighbour)
        return address is None or not address.is_loopback

    @property
    def description(self) -> str:
        """The version of TLS; ``proxy`` where one before us has it, ``no`` where nobody has."""
        if not self.active:
            return "proxy" if self._by_proxy else "no"
        return str(self._transport.getHandle().get_protocol_version_name())

    @property
    def _by_proxy(self) -> bool:
        return bool(getattr(self._transport, "client_spoke_tls", False))
