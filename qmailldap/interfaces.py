"""What one room may ask of another where neither may import the other.

The protocol (pop3/) is written against these; the realm hands out objects that provide them.
"""

from __future__ import annotations

import attrs
from twisted.mail.interfaces import IMailboxPOP3
from zope.interface import Attribute, Interface

__all__ = ["IForwardedSession", "IMaildrop", "IStoredMessage", "Relayed"]


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

    def sizes(start, stop):  # type: ignore[no-untyped-def]
        """The octets of the messages from the index ``start`` on and before ``stop``, as a
        sequence; of those marked for deletion as well.
        """

    def uniqueIds(start, stop):  # type: ignore[no-untyped-def]
        """Their unique-ids, likewise."""

    def takeAtHand(index):  # type: ignore[no-untyped-def]
        """The whole of a message as stored where nothing has to be waited for, None elsewhere.

        It is not kept, and may have to be waited for when it is asked for again.
        """

    def shared(make):  # type: ignore[no-untyped-def]
        """What ``make``, called with anything, gives for the messages of the maildrop.

        Sessions that find the same messages in the same order are given the same; None where there
        can be no such others. It is remembered by ``make`` itself, which has to be one of few
        functions.
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


@attrs.frozen
class Relayed:
    """How a forwarded session went.

    ``end`` says what ended it: ``client-closed`` and ``member-closed`` in order, ``client-lost``
    and ``member-lost`` not so, ``idle``, or what `IForwardedSession.end` was told. ``seconds`` are
    from the join on; ``sent`` are octets towards the client, ``received`` those that came from it.
    """

    end: str
    seconds: float
    sent: int
    received: int


class IForwardedSession(Interface):
    """A session that is logged in on the member of the cluster that keeps the mail.

    Its client waits for the answer to PASS.
    """

    mail_host = Attribute("The member by its name in the directory, a str.")
    member = Attribute("Its address and port, a str.")
    sent = Attribute("Octets towards the client since it was joined, an int.")

    def join(unread, all_read, ended):  # type: ignore[no-untyped-def]
        """Join the client to the member; to be called once.

        ``unread`` are octets that the client sent behind PASS, ``all_read`` says that it will send
        no more. Returns the protocol that takes over the client's transport; it is told there the
        member's answer to PASS. ``ended`` is called with a `Relayed` when both connections are
        gone.
        """

    def quiet():  # type: ignore[no-untyped-def]
        """The seconds for which nothing has been under way, a float; None while something may be.

        Under way is what the member has not begun to answer, and what the client has not taken.
        """

    def read_no_more():  # type: ignore[no-untyped-def]
        """Pass on no more of what the client says: what the member was told is its last."""

    def end(how, words):  # type: ignore[no-untyped-def]
        """End the session, which has been joined; ``how`` becomes the ``end`` of its `Relayed`.

        The client is told the ``words``, as octets, behind all before; without any it is cut off.
        """
