"""The AUTHORIZATION state (RFC 1939, section 4): who is at the other end, and by what is it proved.

XCLIENT, STLS (RFC 2595), USER and PASS, APOP, AUTH (RFC 5034), and what CAPA (RFC 2449) says of
them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, cast

from OpenSSL import SSL
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IProtocol
from twisted.internet.protocol import connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

import qmailldap
from qmailldap.interfaces import IForwardedSession, IMaildrop, Relayed
from qmailldap.pop3.admission import Place
from qmailldap.pop3.conversation import Conversation
from qmailldap.pop3.encryption import Encryption
from qmailldap.pop3.farewell import STOPPED, Farewell
from qmailldap.pop3.forwarded import Forwarded
from qmailldap.pop3.sasl import (
    CramMD5,
    Login,
    MalformedResponse,
    Mechanism,
    Plain,
    PlainLogin,
    apop_login,
    decode,
    encode,
    initial,
    plain_login,
)
from qmailldap.pop3.settings import Settings
from qmailldap.pop3.syntax import CommandRefused
from qmailldap.pop3.xclient import parse_xclient
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.tls.verification import problem

__all__ = ["Authorization"]

_Avatar = tuple[type[Interface], Any, Callable[[], None]]
"""What a portal gives: an interface, what provides it, and how to log out."""

_BY_PASSWORD = (b"PLAIN", b"LOGIN")
"""Mechanisms that let whoever listens read the password."""


@implementer(IHandshakeListener)
class Authorization(Conversation):
    """A session up to its login.

    Asks the portal for an `IMaildrop`, or for an `IForwardedSession`, to which it leaves the
    connection by ``hand_over``. ``place`` is that of the connection.
    """

    hand_over: Callable[[IProtocol], None]
    place: Place

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._encryption: Encryption
        self._begun = int(settings.clock.seconds())
        self._handshake_limit: IDelayedCall | None = None
        self._exchange: Mechanism | None = None
        # A login that is being judged, or whose refusal is held back.
        self._login: Deferred[Any] | None = None
        self._holding_back = False
        self._out_of_time = False

    def connectionMade(self) -> None:
        self._encryption = Encryption(self.transport, self._settings)
        super().connectionMade()
        if self._encryption.active:
            self._await_handshake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._handshake_limit is not None and reason.check(SSL.Error):
            self._session.handshake_failed(problem(reason))
        self.handshakeCompleted()
        self._ended = self._ended or "disconnected"
        if self._login is not None:
            self._login.cancel()
        super().connectionLost(reason)

    def generateMagic(self) -> bytes:
        """What qmail-popup greets with, but for the angle brackets where there is no APOP.

        They would promise it (RFC 1939, section 7), and clients such as curl then insist on it. Who
        may speak for others is told so, as by Dovecot.
        """
        first = b"[XCLIENT] " if self._trusts_neighbour() else b""
        if self._knows(b"APOP"):
            return first + self._challenge
        return first + b"%d.%d@%b" % (os.getpid(), self._begun, self._hostname)

    @cached_property
    def _challenge(self) -> bytes:
        """What CRAM-MD5 and APOP digest; one a connection, and never the same again."""
        unique = os.urandom(8).hex().encode("ascii")
        return b"<%d.%d.%b@%b>" % (os.getpid(), self._begun, unique, self._hostname)

    @property
    def _hostname(self) -> bytes:
        return self._settings.hostname.encode("ascii", "replace")

    def _trusts_neighbour(self) -> bool:
        return self._settings.trusts(self._session.neighbour)

    def _knows(self, command: bytes) -> bool:
        if command == b"XCLIENT":
            return self._trusts_neighbour()
        if command == b"APOP":
            return self._settings.cleartext >= 2
        if command == b"STLS":
            return self._encryption.offered or self._encryption.active
        return True

    def listCapabilities(self) -> list[bytes]:
        """What there is on this connection; what is of use before the login is told behind it, too,
        as RFC 2449, section 5, wants it, but for STLS (RFC 2595, section 4).
        """
        secret = not self._lets_see_passwords()
        mechanisms = self._mechanisms()
        may_begin_tls = self._encryption.offered and self.mbox is None
        own = [
            *([b"USER"] if secret else []),
            *([b"SASL " + b" ".join(mechanisms)] if mechanisms else []),
            *([b"STLS"] if may_begin_tls else []),
        ]
        # Before the login, what every kind of member keeps: one may go on with the session.
        of_all = [b"TOP", *own, b"UIDL", b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING"]
        if self.mbox is None:
            return of_all
        version = qmailldap.__version__.encode("ascii")
        return [*of_all, b"EXPIRE NEVER", b"IMPLEMENTATION qmailldap-" + version]

    def do_CAPA(self) -> None:
        self._list_words(self.listCapabilities())

    def _list_words(self, words: list[bytes]) -> None:
        self.transport.write(b"\r\n".join([b"+OK ", *words, b".", b""]))

    def resetTimeout(self) -> None:
        """Before the login, nothing that a client says gains it time."""
        if self.mbox is not None:
            super().resetTimeout()

    def timeoutConnection(self) -> None:
        if self.mbox is not None or self._ended:
            super().timeoutConnection()
        elif self._login is not None:
            self._out_of_time = True
        else:
            self._refuse_all(Refusal.LOGIN_TIME, f"{self._limits.login_time:.0f} s")

    def make_room(self) -> None:
        """Another client is to have the place of this one, which has not logged in."""
        self._refuse_all(Refusal.TOO_MANY_CONNECTIONS, "had not logged in, made room for another")

    def _refuse_all(self, refusal: Refusal, detail: str) -> None:
        """End the session without a word, but with a line in the log."""
        if not self._ended:
            self._session.refused(self._userIs or b"", LoginRefused(refusal, detail))
        self._cut_off(refusal.name.lower().replace("_", "-"))

    def do_XCLIENT(self, *words: bytes) -> None:
        self._session.introduced(parse_xclient(words))
        self.successResponse(b"")

    def do_STLS(self) -> None:
        if self._encryption.active:
            raise CommandRefused(b"Command not permitted when TLS active")
        self.successResponse(b"Begin TLS negotiation")
        # Whatever came without TLS may be from somebody in between (RFC 2595, section 4).
        self._lines.take_all()
        self._userIs = None
        self._session.introduced_by_nobody()
        self._encryption.start()
        self._await_handshake()

    def _await_handshake(self) -> None:
        limit = self._limits.handshake_time
        no_handshake = partial(self._refuse_all, Refusal.HANDSHAKE_TIME, f"{limit:.0f} s")
        self._handshake_limit = self._settings.clock.callLater(limit, no_handshake)

    def handshakeCompleted(self) -> None:
        limit, self._handshake_limit = self._handshake_limit, None
        if limit is not None and limit.active():
            limit.cancel()

    def _lets_see_passwords(self) -> bool:
        return self._encryption.lets_see(self._session.neighbour)

    def do_USER(self, user: bytes, *words: bytes) -> None:
        name = b" ".join((user, *words)).lstrip(b" ")
        if not name:
            raise CommandRefused(b"syntax error")
        if self._lets_see_passwords():
            self._refuse(name, LoginRefused(Refusal.TLS_REQUIRED, "USER"))
            return
        self._userIs = name
        self.successResponse(b"")

    def do_PASS(self, password: bytes, *words: bytes) -> None:
        if self._lets_see_passwords():
            self._refuse(b"", LoginRefused(Refusal.TLS_REQUIRED, "PASS"))
            return
        if self._userIs is None:
            raise CommandRefused(b"USER first")
        user, self._userIs = self._userIs, None
        password = b" ".join((password, *words))
        self._answer(self._log_in(plain_login(user, password, "pass")))

    def do_APOP(self, *words: bytes) -> None:
        *name, digest = words
        user = b" ".join(name).lstrip(b" ")
        if not user:
            raise CommandRefused(b"syntax error")
        try:
            login = apop_login(self._challenge, user, digest)
        except MalformedResponse:
            raise CommandRefused(b"syntax error") from None
        self._answer(self._log_in(login))

    def do_AUTH(self, name: bytes | None = None, response: bytes | None = None) -> None:
        if name is None:
            self._list_words(self._mechanisms())
            return
        name = name.upper()
        if name in _BY_PASSWORD and self._lets_see_passwords():
            self._refuse(b"", LoginRefused(Refusal.TLS_REQUIRED, f"AUTH {name.decode('ascii')}"))
        elif name not in self._mechanisms():
            raise CommandRefused(b"unknown authentication mechanism")
        else:
            self._exchange = self._mechanism(name)
            self._respond(None if response is None else partial(initial, response))

    def _mechanisms(self) -> list[bytes]:
        """What AUTH may be said with now."""
        plain = [] if self._lets_see_passwords() else _BY_PASSWORD
        return [*plain, *([b"CRAM-MD5"] if self._settings.cleartext >= 1 else [])]

    def _mechanism(self, name: bytes) -> Mechanism:
        if name == b"CRAM-MD5":
            return CramMD5(self._challenge)
        return Plain() if name == b"PLAIN" else PlainLogin()

    def _respond(self, response: Callable[[], bytes] | None) -> None:
        """Go on with an exchange; ``response`` decodes what the client has said, if it has."""
        assert self._exchange is not None
        exchange, self._exchange = self._exchange, None
        try:
            answer = exchange.step(None if response is None else response())
        except MalformedResponse as malformed:
            raise CommandRefused(f"malformed response: {malformed}".encode("ascii")) from None
        if isinstance(answer, Login):
            self._answer(self._log_in(answer))
        else:
            self._exchange = exchange
            self.transport.write(b"+ " + encode(answer) + b"\r\n")

    def _take(self, line: bytes) -> None:
        if self._exchange is None:
            super()._take(line)
        elif line == b"*":
            self._exchange = None
            raise CommandRefused(b"authentication cancelled")
        else:
            self._respond(partial(decode, line))

    def _longest_line(self) -> int:
        if self._exchange is not None:
            return self._limits.sasl
        if self.mbox is None and self._trusts_neighbour():
            return max(self._limits.command, self._limits.trusted_command)
        return self._limits.command

    def _line_too_long(self) -> None:
        self._exchange = None
        super()._line_too_long()

    async def _log_in(self, login: Login) -> None:
        user, begun = login.user, self._settings.clock.seconds()
        self._session.method, self._session.tls = login.method, self._encryption.description
        try:
            interface, avatar, log_out = await self._judged(login)
        except CancelledError:
            if not self._ended:
                raise
            # The client has gone, and connectionLost has cancelled its login.
            self._session.abandoned(user)
        except LoginRefused as refused:
            await self._refuse_in_time(user, refused)
        except UnauthorizedLogin as error:
            wrong = LoginRefused(Refusal.WRONG_CREDENTIALS, str(error))
            await self._refuse_in_time(user, wrong)
        except Exception:
            self._session.failed("login", user=user)
            self._refuse(user, LoginRefused(Refusal.TEMPORARY, "see the failure before"))
        else:
            if self._ended:
                log_out()
                return
            self.place.logged_in()
            if self._settings.tally is not None:
                seconds = self._settings.clock.seconds() - begun
                self._settings.tally.observe("login_seconds", seconds=seconds)
            if interface is IMaildrop:
                self._open(user, avatar, log_out)
            else:
                self._forward(user, avatar, log_out)
        finally:
            self._login = None

    def _judged(self, login: Login) -> Deferred[_Avatar]:
        """Who it is. Raises `LoginRefused` where nobody need be asked."""
        self._settings.admission.check(self._session.host, login.user)
        if login.refused is not None:
            raise login.refused
        client = self._session.client(login.password)
        judged = self.portal.login(login.credentials, client, IMaildrop, IForwardedSession)
        self._login = judged
        return cast("Deferred[_Avatar]", judged)

    def _open(self, user: bytes, maildrop: Any, log_out: Callable[[], None]) -> None:
        raise NotImplementedError

    def _forward(
        self, user: bytes, session: IForwardedSession, log_out: Callable[[], None]
    ) -> None:
        """Leave client and connection, with all that was not answered yet, to the session."""
        present = self._settings.present
        entry = Forwarded(self._session, session, self._begun)

        def gone() -> None:
            log_out()
            present.leave(entry)

        try:
            self._session.forwarded(user, session)
            joined = session.join(
                self._lines.take_all(),
                self._all_read,
                partial(_relayed, self._session.relayed, session.mail_host, gone),
            )
        except BaseException:
            log_out()
            raise
        self._ended = "forwarded"
        self.setTimeout(None)
        self._flow.leave()
        present.enter(entry, session.member)
        present.leave(self)
        self.hand_over(joined)

    async def _refuse_in_time(self, user: bytes, refused: LoginRefused) -> None:
        """Refuse a login; of a wrong password the client hears the later the more it guesses.

        That it is logged and counted does not wait.
        """
        delay = 0.0
        # Not by the true reason: faults of a record that read like a wrong password also take as
        # long.
        if refused.shown is Refusal.WRONG_CREDENTIALS and refused.judged:
            delay = self._settings.admission.wrong(self._session.host, user)
        self._session.refused(user, refused)
        if delay > 0 and not self._ended:
            self._login = deferLater(self._settings.clock, delay)
            self._holding_back = True
            try:
                await self._login
            except CancelledError:
                if not self._ended:
                    raise
            finally:
                self._holding_back = False
        self._tell_refused(refused)

    def _refuse(self, user: bytes, refused: LoginRefused) -> None:
        self._session.refused(user, refused)
        self._tell_refused(refused)

    def _tell_refused(self, refused: LoginRefused) -> None:
        if self._ended:
            return
        self.failResponse(refused.answer)
        if self._session.failed_logins >= self._limits.logins:
            self._ended = "failed-logins"
            self._hang_up()
        elif self._out_of_time:
            self._ended = "login-time"
            self._hang_up()

    # The end, when it is we who want it.

    def cut_off(self) -> bool:
        if self._login is None or self._ended:
            return super().cut_off()
        # Nothing of an answer is out.
        self._say_farewell(STOPPED)
        return True

    def _is_under_way(self) -> bool:
        return super()._is_under_way() and not self._holding_back

    def _say_farewell(self, farewell: Farewell) -> None:
        if self._handshake_limit is not None:
            # There is no way to say anything yet.
            self._cut_off(farewell.end)
            return
        super()._say_farewell(farewell)
        if self._login is not None:
            self._login.cancel()


def _relayed(
    tell: Callable[[str, Relayed], None],
    mail_host: str,
    log_out: Callable[[], None],
    relayed: Relayed,
) -> None:
    """A forwarded session is over: only now is it logged out."""
    log_out()
    tell(mail_host, relayed)
