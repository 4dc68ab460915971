"""Which directory servers are spoken to by TLS only, and whom we take for them."""

from __future__ import annotations

from twisted.internet.interfaces import IOpenSSLClientConnectionCreator

from qmailldap.control import Control, ServerAddress
from qmailldap.tls.verification import BadAuthorities, NameNotVerifiable, Verified

__all__ = ["tls_by_server"]


def tls_by_server(control: Control) -> dict[ServerAddress, IOpenSSLClientConnectionCreator]:
    """What ``startTLS`` takes for connections to each of the servers that must speak it.

    A certificate must be for the host as ldapserver names it, whatever addresses that has.
    ldapcacert is read here and never again, for this may be the only moment with the right to;
    unless it was read with all others.

    Raises `ControlError` when ldapcacert cannot be used, or ldapserver names a host that no
    certificate can bear.
    """
    servers = [server for server in control.ldapserver if server.tls or control.ldaptls]
    if not servers:
        return {}
    try:
        verified = Verified(control.ldapcacert, control.held.get("ldapcacert"))
        return {server: verified.connections_to(server.host) for server in servers}
    except BadAuthorities as error:
        raise control.error("ldapcacert", str(error)) from None
    except NameNotVerifiable as error:
        raise control.error("ldapserver", str(error)) from None
