"""What the result codes of RFC 4511, section 4.1.9, mean to a login.

A code that is in none of the sets is the server's trouble with this one operation: the next server
is asked, and this one stays in use, because a record or a login must not be able to take a server
away from everyone else. So are, for a search:

- noSuchObject: the server has no entry ldapbasedn; it is an empty replica, or the control file is
  wrong. Taken for "no entries", it would make a wrong password of every right one.
- referral: the server does not hold the tree. Referrals are not followed; the servers to ask are
  those of the control file ldapserver.
- timeLimitExceeded, adminLimitExceeded: another server may be faster or have other limits.
- sizeLimitExceeded with fewer than the two entries asked for: the server has a limit of its own and
  what came need not be everything, so that one entry does not say there is only one.
"""

from __future__ import annotations

import attrs
from ldaptor.protocols.ldap import ldaperrors

__all__ = [
    "INVALID_CREDENTIALS",
    "NO_SUCH_OBJECT",
    "SERVER_IS_DOWN",
    "SIZE_LIMIT_EXCEEDED",
    "SUCCESS",
    "WRONG_PASSWORD",
    "Result",
]

SUCCESS = 0
SIZE_LIMIT_EXCEEDED = 4
NO_SUCH_OBJECT = 32
INVALID_CREDENTIALS = 49

WRONG_PASSWORD = frozenset(
    {
        19,  # constraintViolation: 389 Directory Server for an account locked by wrong passwords
        NO_SUCH_OBJECT,  # the entry has gone since it was found
        34,  # invalidDNSyntax
        48,  # inappropriateAuthentication: the entry has no password
        INVALID_CREDENTIALS,
        50,  # insufficientAccessRights: this entry may not bind
        53,  # unwillingToPerform: an entry that is switched off; empty passwords are never sent
    }
)
"""A bind with one of these was judged: it is not the password of an entry that may log in."""

SERVER_IS_DOWN = frozenset({51, 52})
"""busy, unavailable: what a server says of itself, not of the operation.

Taken at its word where it answers us. Where it answers a user's bind, the probe decides: a backend
that holds this one entry may be meant.
"""

_LONGEST_DIAGNOSTIC = 120


@attrs.frozen
class Result:
    """How an operation ended: the code, and the text that a server may add for people."""

    code: int
    diagnostic: bytes = b""

    @property
    def name(self) -> str:
        """The code as RFC 4511 calls it."""
        known = ldaperrors.reverse.get(self.code)
        return known.name.decode("ascii") if known else "an unknown result code"

    def __str__(self) -> str:
        if not self.diagnostic:
            return self.name
        return f"{self.name} ({self.diagnostic[:_LONGEST_DIAGNOSTIC]!r})"
