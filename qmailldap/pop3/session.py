"""What is remembered of one session for the lines it leaves in the log."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python.failure import Failure

from qmailldap.printable import printable
from qmailldap.refusal import LoginRefused

__all__ = ["Session"]

_LONGEST_DETAIL = 1000


@attrs.define
class Session:
    """One connection: who is at its other end, and what has been done for them.

    ``find_peer`` tells the client's address, and is asked when a line is first to be logged: behind
    a proxy it is not known before the client has spoken. Octets are those of messages as they are
    sent, without the lines around them.
    """

    log: Logger
    find_peer: Callable[[], IAddress]
    user: bytes = b""
    retrieved: int = 0
    octets: int = 0
    failed_logins: int = 0
    _peer: str | None = None

    @property
    def peer(self) -> str:
        """The client's address without its port; UNIX sockets and the like have none."""
        if self._peer is None:
            host = str(getattr(self.find_peer(), "host", None) or "local")
            # A proxy may say anything here.
            self._peer = printable(host.encode("utf-8", "backslashreplace"))
        return self._peer

    def logged_in(self, user: bytes, messages: int, octets: int) -> None:
        self.user = user
        self.log.info(
            "login user={user} peer={peer} messages={messages} octets={octets}",
            user=printable(user),
            peer=self.peer,
            messages=messages,
            octets=octets,
        )

    def refused(self, user: bytes, refused: LoginRefused) -> None:
        self.failed_logins += 1
        self.log.emit(
            refused.refusal.outcome.severity,
            "refused user={user} peer={peer} reason={reason} detail={detail}",
            user=printable(user),
            peer=self.peer,
            reason=refused.refusal.name.lower().replace("_", "-"),
            # It may quote what a program had to say.
            detail=printable(refused.detail.encode("utf-8", "replace"), _LONGEST_DETAIL),
        )

    def abandoned(self, user: bytes) -> None:
        """The client left before its login was judged."""
        self.log.info("abandoned user={user} peer={peer}", user=printable(user), peer=self.peer)

    def logged_out(self, how: str, deleted: int, left: int) -> None:
        """``how`` is quit, or what ended the session instead: nothing is deleted then."""
        self.log.info(
            "logout user={user} peer={peer} end={end} retrieved={retrieved} octets={octets}"
            " deleted={deleted} left={left}",
            user=printable(self.user),
            peer=self.peer,
            end=how,
            retrieved=self.retrieved,
            octets=self.octets,
            deleted=deleted,
            left=left,
        )

    def failed(
        self, what: str, failure: Failure | None = None, *, user: bytes | None = None
    ) -> None:
        """A fault of this program, with its traceback: by default of the exception at hand."""
        self.log.failure(
            "failed what={what} user={user} peer={peer}",
            failure,
            what=what,
            user=printable(self.user if user is None else user),
            peer=self.peer,
        )

    def not_updated(self, problem: str) -> None:
        """QUIT could not do its work; nothing was lost, and the client was told."""
        self.log.warn(
            "update user={user} peer={peer} problem={problem}",
            user=printable(self.user),
            peer=self.peer,
            problem=printable(problem.encode("utf-8", "replace")),
        )

    def message_failed(self, uid: bytes, problem: str) -> None:
        """A message could not be opened, or not be sent to its end."""
        self.log.warn(
            "message user={user} peer={peer} uid={uid} problem={problem}",
            user=printable(self.user),
            peer=self.peer,
            uid=printable(uid),
            problem=printable(problem.encode("utf-8", "replace")),
        )
