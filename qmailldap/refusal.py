"""Every way a login can be refused: one table, read by the protocol, the commands and the log.

Nothing may enter here that knows how a refusal comes about; the rows are facts only.
Source: reference.md, "The decision"; RFC 2449 section 8 and RFC 3206 for the response codes.
"""

from __future__ import annotations

import enum

import attrs
from twisted.cred.error import UnauthorizedLogin
from twisted.logger import LogLevel

__all__ = ["LoginRefused", "Outcome", "Refusal"]


@attrs.frozen
class Outcome:
    """What is known of one way to be refused.

    ``exit_code`` is the checkpassword exit code, ``text`` what follows -ERR, ``code`` the response
    code of RFC 2449 and RFC 3206 without its brackets, ``severity`` the level of its log line.
    """

    exit_code: int
    text: str
    code: str
    severity: LogLevel


class Refusal(enum.Enum):
    """Why a login was refused; each row is everything anyone needs to know of it."""

    CONFIGURATION = Outcome(1, "error in server configuration", "SYS/PERM", LogLevel.error)
    DIRECTORY_UNREACHABLE = Outcome(
        2, "unable to contact authorization server", "SYS/TEMP", LogLevel.warn
    )
    WRONG_CREDENTIALS = Outcome(3, "authorization failed", "AUTH", LogLevel.info)
    ACCOUNT_DISABLED = Outcome(4, "account disabled", "AUTH", LogLevel.info)
    MAILHOST_UNREACHABLE = Outcome(5, "mailhost is unreachable", "SYS/TEMP", LogLevel.warn)
    # A client reads what the member has said instead of this text.
    MEMBER_REFUSED = Outcome(5, "mailhost refused the login", "SYS/TEMP", LogLevel.warn)
    MAILBOX_CORRUPTED = Outcome(6, "mailbox is corrupted", "SYS/PERM", LogLevel.error)
    SUBPROGRAM_NOT_STARTED = Outcome(7, "unable to start subprogram", "SYS/TEMP", LogLevel.error)
    OUT_OF_MEMORY = Outcome(8, "out of memory", "SYS/TEMP", LogLevel.error)
    RECORD_INCORRECT = Outcome(25, "user record incorrect", "SYS/PERM", LogLevel.warn)
    MAILBOX_NOT_CREATED = Outcome(61, "mailbox could not be created", "SYS/TEMP", LogLevel.error)
    MAILBOX_MISSING = Outcome(62, "the users mailbox does not exist", "SYS/PERM", LogLevel.warn)
    TEMPORARY = Outcome(111, "temporary error", "SYS/TEMP", LogLevel.warn)
    # What the server keeps from going on before anybody is asked; clients may try again.
    # RFC 2595 has no words for it; these are RFC 3207's, section 4, of the same command in SMTP.
    TLS_REQUIRED = Outcome(111, "must issue a STLS command first", "SYS/PERM", LogLevel.info)
    TOO_MANY_CONNECTIONS = Outcome(111, "too many connections", "SYS/TEMP", LogLevel.info)
    TOO_MANY_SESSIONS = Outcome(111, "too many sessions", "IN-USE", LogLevel.info)
    TOO_MANY_GUESSES = Outcome(
        111, "too many failed logins, try again later", "SYS/TEMP", LogLevel.info
    )
    # Those who take too long, or come by no way that was agreed on, are told nothing.
    LOGIN_TIME = Outcome(111, "no login in time", "SYS/TEMP", LogLevel.info)
    HANDSHAKE_TIME = Outcome(111, "no TLS handshake in time", "SYS/TEMP", LogLevel.info)
    PROXY_HEADER = Outcome(111, "no valid PROXY header", "SYS/PERM", LogLevel.info)

    @property
    def outcome(self) -> Outcome:
        """The row of the table."""
        return self.value

    @property
    def is_of_a_listener(self) -> bool:
        """Whether only a server that listens can meet it: no exit code is made of it."""
        return self in _OF_A_LISTENER


_OF_A_LISTENER = frozenset(
    {
        Refusal.TLS_REQUIRED,
        Refusal.TOO_MANY_CONNECTIONS,
        Refusal.TOO_MANY_SESSIONS,
        Refusal.TOO_MANY_GUESSES,
        Refusal.LOGIN_TIME,
        Refusal.HANDSHAKE_TIME,
        Refusal.PROXY_HEADER,
    }
)


class LoginRefused(UnauthorizedLogin):
    """A login was refused.

    ``refusal`` is the true reason and ``detail`` a line about it, both for the log; ``detail``
    never carries a password or a hash. ``shown`` is the reason a client may be told: a fault of the
    record that keeps its password from being proved reads as a wrong password, for otherwise a
    stranger would learn from it that the account exists (design.md, "Contracts"). ``answer`` is
    what follows -ERR, as octets: that of ``shown``, unless somebody else has worded it. ``judged``
    is False where a refusal that reads as a wrong password came before anything was compared, of
    every login alike: it is no guess.
    """

    def __init__(
        self,
        refusal: Refusal,
        detail: str = "",
        *,
        shown: Refusal | None = None,
        answer: bytes | None = None,
        judged: bool = True,
    ) -> None:
        self.refusal = refusal
        self.detail = detail
        self.judged = judged
        self.shown = refusal if shown is None else shown
        if answer is None:
            outcome = self.shown.outcome
            answer = f"[{outcome.code}] {outcome.text}".encode("ascii")
        self.answer = answer
        # What str() shows is what stock Twisted would send to the client.
        super().__init__(self.shown.outcome.text)

    def __repr__(self) -> str:
        return f"<LoginRefused {self.refusal.name}: {self.detail}>"
