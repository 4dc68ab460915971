"""Commands as they come, and their answers: one at a time, in order, however the client sends them.

Nothing is read faster than it is answered, and no more is written than the client takes. What the
commands mean is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.mail import pop3
from twisted.python.failure import Failure
from zope.interface import implementer

from qmailldap.handover import close
from qmailldap.pop3.farewell import KICKED, STOPPED, Farewell
from qmailldap.pop3.flow import Flow
from qmailldap.pop3.lines import LineBuffer, LineTooLong
from qmailldap.pop3.settings import Settings
from qmailldap.pop3.syntax import COMMANDS, CommandRefused
from qmailldap.present import Presence
from qmailldap.session import Session

__all__ = ["Conversation"]

CRLF = 2


def _lose(transport: Any) -> None:
    """Let the client end TLS, too: it is reading."""
    transport.loseConnection()


@implementer(IHalfCloseableProtocol)
class Conversation(pop3.POP3):
    """A subclass of Twisted's protocol that carries out one command after the other."""

    # The stock class declares these by their first values, most of them None.
    callLater: Any
    factory: Any
    mbox: Any
    portal: Any
    timeOut: Any
    transport: Any

    def __init__(self, settings: Settings) -> None:
        self.portal = settings.portal
        self.callLater = settings.clock.callLater
        self.timeOut = settings.limits.login_time
        self._settings = settings
        self._limits = settings.limits
        self._lines = LineBuffer()
        self._session: Session
        self._flow: Flow
        self._working = False
        self._answering = False
        self._reading = True
        # The client has closed its side: what it sent before is still answered.
        self._all_read = False
        # The connection is gone; what was begun may end later.
        self._lost = False
        # Why no further command is answered; empty while they are.
        self._ended = ""
        # The command that was begun last, and when anything was last heard or answered.
        self._doing = b""
        self._heard = 0.0
        # The server is being stopped: no further command is begun.
        self._is_last = False

    def connectionMade(self) -> None:
        set_no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            # Transports of UNIX sockets have it in some versions of Twisted, and cannot do it.
            with suppress(OSError):
                set_no_delay(True)
        self._flow = Flow(self.transport, self._client_has_read)
        self._session = Session(
            self._settings.log, self.transport.getPeer, tally=self._settings.tally
        )
        self._session.begun()
        self._session.connected(self.transport.getHost)
        self._heard = self._settings.clock.seconds()
        self._settings.present.enter(self)
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        self._ended = self._ended or "disconnected"
        self._flow.lost()
        self._session.ended()
        super().connectionLost(reason)
        self._settings.present.leave(self)

    def readConnectionLost(self) -> None:
        """The client will send no more; it may still be waiting for answers."""
        self._all_read = True
        self._work()

    def writeConnectionLost(self) -> None:
        """Never of itself: only we close our side, and then both."""

    def timeoutConnection(self) -> None:
        """The client has been silent for too long: close without a word, as RFC 1939 wants it."""
        self._cut_off("idle")

    def dataReceived(self, data: bytes) -> None:
        if not self._ended:
            self._heard = self._settings.clock.seconds()
            self._lines.append(data)
            self._work()

    def _client_has_read(self) -> None:
        self._heard = self._settings.clock.seconds()
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
                line = self._lines.next_line(self._longest_line() - CRLF)
            except LineTooLong:
                self._line_too_long()
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
                self._settings.clock.callLater(0, self._next_turn)
        self._working = False
        self._read_or_not()

    def _may_answer(self) -> bool:
        return self._flow.open and not self._answering and not self._ended and not self._is_last

    def _next_turn(self) -> None:
        self._answering = False
        self._work()

    def _read_or_not(self) -> None:
        """Stop reading from a client that is far ahead of its answers, and go on when it is not."""
        waiting, limits = self._lines, self._limits
        reading = len(waiting) <= limits.input and waiting.whole <= limits.pipelined
        if reading != self._reading and not self._ended and not self._all_read:
            self._reading = reading
            if reading:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def _longest_line(self) -> int:
        """Octets that the next line may have, with its CRLF."""
        return self._limits.command

    def _line_too_long(self) -> None:
        self.failResponse(b"line too long")

    def lineReceived(self, line: bytes) -> None:
        self.resetTimeout()
        try:
            self._take(line)
        except CommandRefused as refused:
            self.failResponse(refused.args[0])
        except Exception:
            self._failed(Failure())

    def _take(self, line: bytes) -> None:
        """Carry out what a line says."""
        self.processCommand(*line.split(b" "))

    def processCommand(self, command: bytes, *args: bytes) -> None:
        """Check a command against the state and the syntax, and carry it out."""
        command = command.upper()
        syntax = COMMANDS.get(command) if self._knows(command) else None
        if self.mbox is None and not (syntax and syntax.before_login):
            raise CommandRefused(b"authorization first")
        if syntax is None or (self.mbox is not None and not syntax.after_login):
            raise CommandRefused(b"unimplemented")
        if not syntax.blanks_count:
            args = tuple(word for word in args if word)
        if not syntax.least <= len(args) <= syntax.most:
            raise CommandRefused(b"syntax error")
        self._doing = command
        do: Callable[..., None] = getattr(self, "do_" + command.decode("ascii"))
        do(*args)

    def _knows(self, command: bytes) -> bool:
        """Whether a command that there is is one here: not all clients need know of all."""
        return True

    def _answer(self, answer: Coroutine[Deferred[Any], Any, None]) -> None:
        """Carry out a command that takes its time; those behind it wait."""
        self._answering = True
        self._session.carry_out(answer).addErrback(self._failed).addCallback(self._answered)

    def _answered(self, _: object) -> None:
        self._answering = False
        self._heard = self._settings.clock.seconds()
        self._work()

    def _failed(self, failure: Failure) -> None:
        """A fault of ours: say so in the log, and end the session rather than guess on."""
        if failure.check(CancelledError) and self._ended:
            return
        self._session.failed("command", failure)
        self._cut_off("failed")

    def _hang_up(self, close: Callable[[Any], None] = _lose) -> None:
        """Close once everything written has been sent; the client has a while to take it."""
        if self._lost:
            return
        self._flow.finish()
        self.setTimeout(self._limits.linger)
        close(self.transport)

    def _cut_off(self, why: str) -> None:
        """Close at once: loseConnection would wait for a client that does not read."""
        self._ended = self._ended or why
        # Twisted's TLS raises where there is nothing to abort any more.
        if not self._lost:
            self.transport.abortConnection()

    # One of those who are on: see `qmailldap.present.Entry`.

    def presence(self) -> Presence:
        raise NotImplementedError

    def kick(self) -> bool:
        if self._is_updating():
            return False
        if self._ended or self._is_under_way():
            self._cut_off(KICKED.end)
        else:
            self._say_farewell(KICKED)
        return True

    def stop(self, quiet: float) -> None:
        if self._ended:
            return
        if self._is_under_way():
            self._is_last = not quiet
        elif self._settings.clock.seconds() - self._heard >= quiet:
            self._say_farewell(STOPPED)

    def cut_off(self) -> bool:
        if self._ended:
            # It was told, or is updating.
            return False
        self._cut_off(STOPPED.end)
        return True

    def _is_under_way(self) -> bool:
        """A command is being carried out, or the client has not taken its answer."""
        return self._answering or not self._flow.open

    def _is_updating(self) -> bool:
        return self._ended == "quit" and self._answering

    def _say_farewell(self, farewell: Farewell) -> None:
        self._ended = farewell.end
        self.failResponse(farewell.words)
        self._hang_up(close)
