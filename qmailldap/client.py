"""Who is at the other end of a session that wants to log in.

What a protocol gives a portal as the ``mind`` of a login, for those who speak to another host in
the client's name.
"""

from __future__ import annotations

import attrs

__all__ = ["FIRST_TTL", "Client", "Introduction"]

FIRST_TTL = 5
"""How often a session may be handed on, counted as Dovecot does: at 1, never."""


@attrs.frozen(kw_only=True)
class Client:
    """A client and what it logs in with.

    ``password`` is what it has sent, empty where it has answered a challenge instead. ``host`` is
    its address, empty where it has none, ``session`` the name of the session in the logs of all
    members that it passes through, ``ttl`` how often it may still be handed on.
    """

    password: bytes = attrs.field(repr=False)
    host: str = ""
    port: int = 0
    session: str = ""
    ttl: int = FIRST_TTL


@attrs.frozen
class Introduction:
    """What XCLIENT said: the client's address and port, the session's name, how often it may be
    handed on; None where it said nothing of it.
    """

    host: str | None = None
    port: int | None = None
    session: str | None = None
    ttl: int | None = None
