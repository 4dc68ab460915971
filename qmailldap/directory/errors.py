"""What can go wrong between us and the directory.

Only `DirectoryUnavailable` and `EntryTooLarge` leave this room.
"""

from __future__ import annotations

__all__ = [
    "BindRefused",
    "ConnectionDropped",
    "DirectoryUnavailable",
    "EntryTooLarge",
    "Misconfigured",
    "NotLDAP",
    "OutOfTime",
    "ServerTrouble",
    "TLSRefused",
]


class DirectoryUnavailable(Exception):
    """No server answered in time. ``reason`` is a line for the log, and holds no secret."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class EntryTooLarge(Exception):
    """The directory works; the entry of this login is larger than what is decoded."""


class ServerTrouble(Exception):
    """This server cannot answer this operation; the next one may."""


class ConnectionDropped(ServerTrouble):
    """The connection was lost while the operation was under way; it may be tried once more."""


class OutOfTime(ServerTrouble):
    """It has not answered in the time that it was given."""


class Misconfigured(ServerTrouble):
    """The server answers, and will never do as it and the site are set up."""


class BindRefused(Misconfigured):
    """The server does not accept ldaplogin with ldappassword."""


class TLSRefused(Misconfigured):
    """The server will not speak TLS, or is not who it should be."""


class NotLDAP(Exception):
    """Octets came that are not an LDAP message, or not one that can come here."""
