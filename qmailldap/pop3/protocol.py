"""The server side of POP3 (RFC 1939, 2449, 3206) in the manner of qmail-popup and qmail-pop3d.

A subclass of Twisted's protocol that answers one command at a time, in order, however the client
sends them, and reads no faster than it answers and no more than the client takes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any, cast

from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.mail import pop3
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

import qmailldap
from qmailldap.interfaces import IForwardedSession, IMaildrop
from qmailldap.pop3.content import DotStuffer, TopOfMessage, in_chunks
from qmailldap.pop3.flow import Flow
from qmailldap.pop3.limits import Limits
from qmailldap.pop3.lines import LineBuffer, LineTooLong
from qmailldap.pop3.syntax import COMMANDS, CommandRefused, number
from qmailldap.pop3.xclient import parse_xclient
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.session import Session
from qmailldap.threads import Busy

__all__ = ["POP3"]

_Login = tuple[type[Interface], Any, Callable[[], None]]
"""What a portal gives: an interface, what provides it, and how to log out."""


@implementer(IHalfCloseableProtocol)
class POP3(pop3.POP3):
    """One POP3 session.

    Asks ``portal`` for an `IMaildrop`, or for an `IForwardedSession`, to which it leaves the
    connection by ``hand_over``. ``trusts`` tells of an address whether it may speak for others.
    What stock Twisted gets wrong and this class puts right is listed in docs/internals.md.
    """

    # The stock class declares these by their first values, most of them None.
    callLater: Any
    factory: Any
    mbox: Any
    portal: Any
    timeOut: Any
    transport: Any

    hand_over: Callable[[IProtocol], None]

    def __init__(
        self,
        portal: Portal,
        hostname: str,
        limits: Limits,
        clock: IReactorTime,
        trusts: Callable[[str], bool],
    ) -> None:
        self.portal = portal
        self.callLater = clock.callLater
        self.timeOut = limits.idle
        self._hostname = hostname
        self._limits = limits
        self._clock = clock
        self._trusts = trusts
        self._lines = LineBuffer(limits.command)
        self._session: Session
        self._flow: Flow
        self._working = False
        self._answering = False
        self._reading = True
        self._login: Deferred[_Login] | None = None
        # The client has closed its side: what it sent before is still answered.
        self._all_read = False
        # Why no further command is answered; empty while they are.
        self._ended = ""

    def connectionMade(self) -> None:
        set_no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            set_no_delay(True)
        self._flow = Flow(self.transport, self._client_has_read)
        self._session = Session(self.factory.log, self.transport.getPeer)
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended = self._ended or "disconnected"
        if self.mbox is not None and self._ended != "quit":
            self._log_out(deleted=0)
        self._flow.lost()
        if self._login is not None:
            self._login.cancel()
        super().connectionLost(reason)

    def readConnectionLost(self) -> None:
        """The client will send no more; it may still be waiting for answers."""
        self._all_read = True
        self._work()

    def writeConnectionLost(self) -> None:
        """Never of itself: only we close our side, and then both."""

    def timeoutConnection(self) -> None:
        """The client has been silent for too long: close without a word, as RFC 1939 wants it."""
        self._ended = self._ended or "idle"
        # Not loseConnection: it would wait for a client that does not read.
        self.transport.abortConnection()

    def generateMagic(self) -> bytes:
        """What qmail-popup greets with, but for the angle brackets.

        They would promise APOP (RFC 1939, section 7), and clients such as curl then insist on it.
        Who may speak for others is told so, as by Dovecot.
        """
        return b"%b%d.%d@%b" % (
            b"[XCLIENT] " if self._trusts(self._session.neighbour) else b"",
            os.getpid(),
            int(self._clock.seconds()),
            self._hostname.encode("ascii", "replace"),
        )

    def dataReceived(self, data: bytes) -> None:
        if not self._ended:
            self._lines.append(data)
            self._work()

    def _client_has_read(self) -> None:
        self.resetTimeout()
        self._work()

    def _work(self) -> None:
        """Answer the commands that are there, as far as that can be done now.

        Not while one is being answered, not while the client leaves answers unread, and not so many
        in one go that other sessions would wait.
        """
        if self._working:
            return
        self._working = True
        for _ in range(self._limits.turn):
            if not self._may_answer():
                break
            try:
                line = self._lines.next_line()
            except LineTooLong:
                self.failResponse(b"line too long")
                continue
            if line is None:
                if self._all_read:
                    self._ended = "disconnected"
                    self._hang_up()
                break
            self.lineReceived(line)
        else:
            if self._may_answer():
                self._answering = True
                self._clock.callLater(0, self._next_turn)
        self._working = False
        self._read_or_not()

    def _may_answer(self) -> bool:
        return self._flow.open and not self._answering and not self._ended

    def _next_turn(self) -> None:
        self._answering = False
        self._work()

    def _read_or_not(self) -> None:
        """Stop reading from a client that is far ahead of its answers, and go on when it is not."""
        reading = len(self._lines) <= self._limits.input
        if reading != self._reading and not self._ended and not self._all_read:
            self._reading = reading
            if reading:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def lineReceived(self, line: bytes) -> None:
        self.resetTimeout()
        try:
            self.processCommand(*line.split(b" "))
        except CommandRefused as refused:
            self.failResponse(refused.args[0])
        except Exception:
            self._failed(Failure())

    def processCommand(self, command: bytes, *args: bytes) -> None:
        """Check a command against the state and the syntax, and carry it out."""
        command = command.upper()
        syntax = COMMANDS.get(command)
        if self.mbox is None and not (syntax and syntax.before_login):
            raise CommandRefused(b"authorization first")
        if syntax is None or (self.mbox is not None and not syntax.after_login):
            raise CommandRefused(b"unimplemented")
        if command not in (b"USER", b"PASS"):  # whose blanks are part of the argument
            args = tuple(word for word in args if word)
        if not syntax.least <= len(args) <= syntax.most:
            raise CommandRefused(b"syntax error")
        getattr(self, "do_" + command.decode("ascii"))(*args)

    def _answer(self, answer: Coroutine[Deferred[Any], Any, None]) -> None:
        """Carry out a command that takes its time; those behind it wait."""
        self._answering = True
        Deferred.fromCoroutine(answer).addErrback(self._failed).addCallback(self._answered)

    def _answered(self, _: object) -> None:
        self._answering = False
        self._work()

    def _failed(self, failure: Failure) -> None:
        """A fault of ours: say so in the log, and end the session rather than guess on."""
        if failure.check(CancelledError) and self._ended:
            return
        self._session.failed("command", failure)
        self._ended = self._ended or "failed"
        self.transport.abortConnection()

    def _hang_up(self) -> None:
        """Close once everything written has been sent."""
        self._flow.finish()
        self.transport.loseConnection()

    def listCapabilities(self) -> list[bytes]:
        """Before the login, what every kind of member keeps: one may go on with the session."""
        of_all = [b"TOP", b"USER", b"UIDL", b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING"]
        if self.mbox is None:
            return of_all
        version = qmailldap.__version__.encode("ascii")
        return [*of_all, b"EXPIRE NEVER", b"IMPLEMENTATION qmailldap-" + version]

    def do_CAPA(self) -> None:
        lines = [b"+OK ", *self.listCapabilities(), b".", b""]
        self.transport.write(b"\r\n".join(lines))

    def do_XCLIENT(self, *words: bytes) -> None:
        # Asked at each one, as the neighbour behind a proxy is known only by then.
        if not self._trusts(self._session.neighbour):
            raise CommandRefused(b"authorization first")
        self._session.introduced(parse_xclient(words))
        self.successResponse(b"")

    def do_USER(self, user: bytes, *words: bytes) -> None:
        name = b" ".join((user, *words)).lstrip(b" ")
        if not name:
            raise CommandRefused(b"syntax error")
        self._userIs = name
        self.successResponse(b"")

    def do_PASS(self, password: bytes, *words: bytes) -> None:
        if self._userIs is None:
            raise CommandRefused(b"USER first")
        user, self._userIs = self._userIs, None
        self._answer(self._log_in(user, b" ".join((password, *words))))

    async def _log_in(self, user: bytes, password: bytes) -> None:
        self._login = self.authenticateUserPASS(user, password)
        try:
            interface, avatar, logout = await self._login
        except CancelledError:
            if not self._ended:
                raise
            # The client has gone, and connectionLost has cancelled its login.
            self._session.abandoned(user)
        except LoginRefused as refused:
            self._login_refused(user, refused)
        except UnauthorizedLogin as error:
            self._login_refused(user, LoginRefused(Refusal.WRONG_CREDENTIALS, str(error)))
        except Exception:
            self._session.failed("login", user=user)
            self._login_refused(user, LoginRefused(Refusal.TEMPORARY, "see the failure before"))
        else:
            if self._ended:
                logout()
                return
            try:
                if interface is IMaildrop:
                    self._open(user, avatar, logout)
                else:
                    self._forward(user, avatar)
            except BaseException:
                logout()
                raise
        finally:
            self._login = None

    def _open(self, user: bytes, maildrop: Any, logout: Callable[[], None]) -> None:
        self.mbox, self._onLogout = maildrop, logout
        self._session.logged_in(user, *maildrop.dropListing())
        self.successResponse(b"")

    def _forward(self, user: bytes, session: IForwardedSession) -> None:
        """Leave client and connection, with all that was not answered yet, to the session."""
        self._session.forwarded(user, session)
        self._ended = "forwarded"
        self.setTimeout(None)
        self._flow.leave()
        ended = partial(self._session.relayed, session.mail_host)
        self.hand_over(session.join(self._lines.take_all(), self._all_read, ended))

    def _login_refused(self, user: bytes, refused: LoginRefused) -> None:
        self._session.refused(user, refused)
        if self._ended:
            return
        self.failResponse(refused.answer)
        if self._session.failed_logins >= self._limits.failed_logins:
            self._ended = "failed-logins"
            self._hang_up()

    def authenticateUserPASS(self, user: bytes, password: bytes) -> Deferred[_Login]:
        credentials = UsernamePassword(user, password)
        client = self._session.client(password)
        login = self.portal.login(credentials, client, IMaildrop, IForwardedSession)
        return cast("Deferred[_Login]", login)

    def do_STAT(self) -> None:
        self.successResponse(b"%d %d" % self.mbox.dropListing())

    def do_LIST(self, i: bytes | None = None) -> None:
        self._list(i, lambda index: b"%d" % self.mbox.listMessages(index))

    def do_UIDL(self, i: bytes | None = None) -> None:
        self._list(i, self.mbox.getUidl)

    def _list(self, word: bytes | None, fact: Callable[[int], bytes]) -> None:
        """Answer with one fact of each message that is not deleted, or of the one asked for."""
        if word is not None:
            index = self._index(word)
            self.successResponse(b"%d %b" % (index + 1, fact(index)))
        else:
            lines = (
                b"%d %b\r\n" % (index + 1, fact(index))
                for index in range(self.mbox.messageCount())
                if not self.mbox.isDeleted(index)
            )
            self._answer(self._send(in_chunks(b"+OK \r\n", lines, b".\r\n", self._limits.chunk)))

    async def _send(self, chunks: Iterator[bytes]) -> None:
        for chunk in chunks:
            await self._flow.opened()
            self.transport.write(chunk)

    def do_RETR(self, i: bytes) -> None:
        self._answer(self._send_message(self._index(i), None))

    def do_TOP(self, i: bytes, size: bytes) -> None:
        self._answer(self._send_message(self._index(i), TopOfMessage(number(size))))

    async def _send_message(self, index: int, top: TopOfMessage | None) -> None:
        """RETR and TOP.

        The first write takes the +OK along, and the last octets are held until the end of the
        message was found to be its end: so a message in trouble is refused while nothing of it is
        out, and later ends the connection rather than the message.
        """
        message = None
        begun = False
        try:
            message = await self.mbox.getMessage(index)
            stuffer = DotStuffer()
            data, unsent = b"+OK \r\n", 0
            complete = False
            while not complete:
                chunk = message.readChunk()
                if isinstance(chunk, Deferred):
                    chunk = await chunk
                if self._ended:
                    return
                complete = not chunk
                if top is not None:
                    chunk = top.take(chunk)
                    complete = complete or top.complete
                content = stuffer.encode(chunk)
                unsent += len(content)
                data += content
                if complete:
                    data += stuffer.finish()
                if complete or len(data) >= self._limits.chunk:
                    await self._flow.opened()
                    self.transport.write(data)
                    self._session.octets += unsent
                    begun, data, unsent = True, b"", 0
        except (Busy, OSError) as error:
            self._session.message_failed(self.mbox.getUidl(index), str(error))
            if begun:
                self._ended = self._ended or "message-failed"
                self.transport.abortConnection()
            elif not self._ended:
                self.failResponse(b"unable to open that message")
            return
        finally:
            if message is not None:
                message.close()
        self._highest = max(self._highest, index + 1)
        self._session.retrieved += top is None

    def do_DELE(self, i: bytes) -> None:
        index = self._index(i)
        self.mbox.deleteMessage(index)
        self._highest = max(self._highest, index + 1)
        self.successResponse(b"")

    def do_NOOP(self) -> None:
        self.successResponse(b"")

    def do_RSET(self) -> None:
        self.mbox.undeleteMessages()
        self._highest = 0
        self.successResponse(b"")

    def do_QUIT(self) -> None:
        # Whatever follows is not read any more, and what was marked is removed even if the client
        # does not wait for the answer.
        self._ended = "quit"
        if self.mbox is None:
            self.successResponse(b"")
            self._hang_up()
        else:
            self._answer(self._update())

    async def _update(self) -> None:
        """The UPDATE state: only here a mailbox is changed."""
        marked = self.mbox.messageCount() - self.mbox.dropListing()[0]
        try:
            kept = await self.mbox.sync()
        except Exception as error:
            if isinstance(error, (Busy, OSError)):
                self._session.not_updated(str(error))
            else:
                self._session.failed("update")
            kept = marked
            self.failResponse(b"[SYS/TEMP] unable to update the mailbox")
        else:
            if kept:
                self.failResponse(b"unable to unlink all deleted messages")
            else:
                self.successResponse(b"")
        self._log_out(deleted=marked - kept)
        self._hang_up()

    def _log_out(self, deleted: int) -> None:
        self._session.logged_out(self._ended, deleted, self.mbox.messageCount() - deleted)

    def _index(self, word: bytes) -> int:
        """The index of the message that a client calls by this number."""
        counted = number(word)
        if counted == 0:
            raise CommandRefused(b"messages are counted from 1")
        if counted > self.mbox.messageCount():
            raise CommandRefused(b"not that many messages")
        if self.mbox.isDeleted(counted - 1):
            raise CommandRefused(b"already deleted")
        return counted - 1
