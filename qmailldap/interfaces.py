"""What one room may ask of another where neither may import the other.

The protocol (pop3/) is written against these; the realm hands out objects that provide them.
"""

from __future__ import annotations

from twisted.mail.interfaces import IMailboxPOP3
from zope.interface import Attribute, Interface

__all__ = ["IMaildrop", "IStoredMessage"]


class IStoredMessage(Interface):
    """An open message; what ``IMaildrop.getMessage`` gives."""

    size = Attribute("Octets of the file as stored, an int; what readChunk gives adds up to it.")

    def readChunk():  # type: ignore[no-untyped-def]
        """The next octets of the message as stored, ``b""`` at its end.

        Returns bytes where they are at hand, else a Deferred of bytes. Raises (or fails with)
        ``OSError`` when the file cannot be read, and when it is found to have grown or shrunk since
        it was opened: what was sent so far must then not be made to look complete.
        """

    def read(size):  # type: ignore[no-untyped-def]
        """At most ``size`` octets, read at once: the file-like side that stock Twisted uses."""

    def close():  # type: ignore[no-untyped-def]
        """Let go of the file. Harmless when done twice."""


class IMaildrop(IMailboxPOP3):
    """A mailbox as one POP3 session sees it (RFC 1939 calls it the maildrop).

    It keeps all promises of Twisted's ``IMailboxPOP3``, so that the stock protocol can serve it,
    and adds what that interface cannot say. Message indexes count from 0. ``getMessage`` gives a
    Deferred of an `IStoredMessage` and fails with ``FileNotFoundError`` when the message is gone,
    with another ``OSError`` when it cannot be opened, with `qmailldap.threads.Busy`, and with
    ``CancelledError`` when the maildrop was closed meanwhile.
    """

    def listMessages(index=None):  # type: ignore[no-untyped-def]
        """As ``IMailboxPOP3``; the answer is at hand (no Deferred). Deleted messages count 0."""

    def messageCount():  # type: ignore[no-untyped-def]
        """How many messages there are, those marked for deletion included."""

    def dropListing():  # type: ignore[no-untyped-def]
        """What STAT tells (RFC 1939, section 5): the count and octets of messages not marked.

        Asked for again and again, and so to be had without looking at every message.
        """

    def isDeleted(index):  # type: ignore[no-untyped-def]
        """Whether the message is marked for deletion. A message of no octets need not be."""

    def sync():  # type: ignore[no-untyped-def]
        """Enter the UPDATE state: remove what is marked, move the rest out of new/.

        Returns a Deferred of the int count of marked messages that could not be removed. It fails
        with ``OSError`` or `qmailldap.threads.Busy` when the mailbox cannot be used at all, and may
        then be asked for again.
        """

    def close():  # type: ignore[no-untyped-def]
        """The session has ended: open messages are let go, an update under way goes on."""
