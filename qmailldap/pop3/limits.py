"""How much one POP3 session may ask for before it is answered or cut off."""

from __future__ import annotations

import attrs

from qmailldap.control import POP3Limits

__all__ = ["Limits"]

_SITE = POP3Limits()


@attrs.frozen(kw_only=True)
class Limits:
    """The limits of one session; those that a client can meet are in the administrator's guide."""

    login_time: float = _SITE.login_time
    """seconds from the connection to the login; one that is being judged by then may end"""

    handshake_time: float = _SITE.handshake_time
    """seconds for a TLS handshake"""

    idle: float = _SITE.idle
    """seconds after the login without a command, or without the client reading on, until the
    connection is closed"""

    linger: float = 60.0
    """seconds for a client to take what it was sent when we have hung up"""

    command: int = _SITE.command
    """octets of a command line with its CRLF"""

    trusted_command: int = 2048
    """the same for those who may speak for others: their XCLIENT lines are long"""

    sasl: int = _SITE.sasl
    """octets of a line within AUTH, with its CRLF"""

    pipelined: int = _SITE.pipelined
    """commands held ahead of the one being answered; beyond, the connection is not read until some
    are done"""

    input: int = 64 * 1024
    """octets held of them, likewise"""

    turn: int = 64
    """commands answered in one go before other sessions have their turn"""

    logins: int = _SITE.logins
    """refused logins until the connection is closed"""

    chunk: int = 64 * 1024
    """octets of a listing put together at a time"""

    @classmethod
    def of(cls, site: POP3Limits) -> Limits:
        """Those that the control file pop3limits sets, the others as they are."""
        return cls(
            login_time=site.login_time,
            handshake_time=site.handshake_time,
            idle=site.idle,
            command=site.command,
            sasl=site.sasl,
            pipelined=site.pipelined,
            logins=site.logins,
        )
