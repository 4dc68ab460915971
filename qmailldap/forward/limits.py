"""How long a member may take, and how much may be under way at members."""

from __future__ import annotations

import attrs

__all__ = ["ForwardLimits"]


@attrs.frozen(kw_only=True)
class ForwardLimits:
    """The limits of forwarded sessions, in seconds unless they are counts.

    Those that somebody can meet are in the administrator's guide.
    """

    reach: float = 30.0
    """until a machine of the member has greeted, whatever is tried meanwhile; as the original's"""

    stagger: float = 0.25
    """until the next address is tried beside one that does not answer (RFC 8305, section 5)"""

    answer: float = 10.0
    """for each answer before PASS, as in the original"""

    password: float = 120.0
    """for the answer to PASS: the member asks its directory, and may have to make a home"""

    down: float = 5.0
    """for which a machine that does not greet is left alone"""

    same_login: int = 5
    """logins of one user under way at members that do not count the hops of a session; more of them
    are taken for members that forward to each other"""

    same_login_wait: float = 0.3
    """for one of these to end: mail programs may come in numbers, members in a circle wait for each
    other"""

    logins: int = 500
    """logins under way at one member, which may greet and then say no more"""

    idle: float = 31 * 60.0
    """without an octet either way until a joined session is ended (reference.md, "auth_pop")"""

    linger: float = 60.0
    """for the other side to end once one has ended"""
