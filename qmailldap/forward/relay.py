"""Two connections joined into one: octets both ways, and nothing is looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from qmailldap.handover import close
from qmailldap.interfaces import Relayed

__all__ = ["Relay"]

# Octets read at once, and so held for a side that takes no more. It is what Twisted sends at once.
_CHUNK = 128 * 1024

# Octets that a side may still send when the other is gone, until it has noticed: enough for the
# answers of most sessions up to their QUIT, too few to keep a member busy for nobody.
_MOST_UNWANTED = 1024 * 1024


class Relay:
    """Joins ``client`` and ``member``, two protocols that take over one connection each.

    It starts when both have theirs (where no producer may be registered) with ``to_client`` and
    ``to_member``, what is to be written before all else; ``client_ended`` says that the client
    closed its side before. A side that reads slowly slows down the other. The end of one side's
    stream is passed on behind all that came before it, and a connection is closed only once the
    other side has ended it as well: to close one with octets unread would make the kernel throw
    away what that side has yet to receive.

    After ``idle`` seconds without an octet both connections are given up; ``linger`` seconds, once
    the client was told the end, or the member was and the client is gone. ``ended`` is called once,
    when both connections are gone.
    """

    def __init__(
        self,
        clock: IReactorTime,
        ended: Callable[[Relayed], None],
        *,
        to_client: bytes = b"",
        to_member: bytes = b"",
        client_ended: bool = False,
        idle: float = 31 * 60,
        linger: float = 60,
    ) -> None:
        self.client = _Side(self, "client", to_client)
        self.member = _Side(self, "member", to_member)
        self.client.other, self.member.other = self.member, self.client
        self.client.silent = client_ended
        self._clock = clock
        self._ended = ended
        self._idle = idle
        self._linger = linger
        self._end = "client-closed" if client_ended else ""
        self._since = self._moved = clock.seconds()
        self._timer: IDelayedCall | None = None
        # The client has said something last: an answer of the member is under way.
        self._asked = bool(to_member)
        self._ending = False
        self._reads_client = True

    def join(self) -> bool:
        """Start, if both sides have had their connection; say whether that is so."""
        sides = (self.client, self.member)
        if not all(side.transport or side.lost for side in sides):
            return False
        self.moved()
        self._timer = self._clock.callLater(self._limit(), self._check)
        for side in sides:
            side.start()
        for side in sides:
            if side.silent:
                self.pass_end_on(side)
        self.gone()
        return True

    @property
    def sent(self) -> int:
        """Octets towards the client; those of its end, none once the session is over."""
        return self.client.octets if self._timer is not None else 0

    def quiet(self) -> float | None:
        """Seconds for which nothing has been under way; None while something may be."""
        if self._timer is None or self._asked or self.member.paused or self.client.is_ending:
            return None
        return self._clock.seconds() - self._moved

    def read_no_more(self) -> None:
        """Leave unread what the client says, as long as the member has something to say."""
        if self._timer is not None and self._reads_client and not self.member.silent:
            self._reads_client = False
            if not self.client.silent:
                self.client.transport.pauseProducing()

    def end(self, how: str, words: bytes) -> None:
        """End both sides; the client is told the words, if there are any, behind all before."""
        if self._timer is None or self._ending:
            return
        self._ending = True
        self.came_to_an_end(how)
        client, member = self.client, self.member
        if words:
            client.close_behind(words)
            self.hurry()
        else:
            client.give_up()
        member.give_up()

    def reads(self, side: _Side) -> bool:
        """Whether a side is to be read."""
        return self._reads_client or side is not self.client

    def moved(self) -> None:
        """Octets have been passed on."""
        self._moved = self._clock.seconds()

    def heard(self, side: _Side) -> None:
        """Octets of a side are about to be passed on."""
        self._moved = self._clock.seconds()
        self._asked = side is self.client

    def pass_end_on(self, side: _Side) -> None:
        """Nothing more comes from ``side``: the other is told, behind all before."""
        if side is self.member and not self._reads_client:
            self._reads_client = True
            if not (self.client.paused or self.client.lost):
                self.client.read_on()
        if side is self.client and not (side.lost or self.member.plain):
            # TLS cannot half-close, and a member that hears its end gives no more answers.
            self.hurry()
        else:
            side.other.finish()

    def came_to_an_end(self, end: str) -> None:
        """A side has ended; the first of these tells what ended the session."""
        self._end = self._end or end

    def hurry(self) -> None:
        """A side has been told the end, or is gone: from now on the limit may be another."""
        if self._timer is not None and self._timer.active():
            self.moved()
            self._timer.reset(self._limit())

    def gone(self) -> None:
        """A side is gone; with the second all is over."""
        if self._timer is None or not (self.client.lost and self.member.lost):
            return
        timer, self._timer = self._timer, None
        if timer.active():
            timer.cancel()
        seconds = self._clock.seconds() - self._since
        self._ended(Relayed(self._end, seconds, self.client.octets, self.member.octets))
        # Who needs each other no more is not to wait for the garbage collector.
        del self.client.other, self.member.other, self.client, self.member, self._ended

    def _limit(self) -> float:
        """Seconds without an octet after which both are given up.

        A client that has ended its side may wait long for a member that is still at work, but when
        the member has ended its own, or cannot be told, all is said.
        """
        if self._ending:
            ending = True
        elif self.client.lost:
            ending = self.member.told or not self.member.plain
        else:
            ending = self.client.told or (self.client.silent and not self.member.plain)
        return self._linger if ending else self._idle

    def _check(self) -> None:
        left = self._moved + self._limit() - self._clock.seconds()
        if left > 0:
            self._timer = self._clock.callLater(left, self._check)
            return
        self.came_to_an_end("idle")
        for side in (self.client, self.member):
            side.give_up()


@implementer(IHalfCloseableProtocol, IPushProducer)
class _Side(Protocol):
    """One connection of a relay, and the producer for the transport of the other.

    ``plain``: without TLS between, with half-close, and what it is sent may go past its
    buffer as long as that is ``_empty``. ``octets`` were handed to it. ``silent``: it will send no
    more. ``paused``: it is not read, because the other does not take what it has said.
    ``deaf``: it takes no more. ``_finished``: it is to be told the end, behind all that was
    written; ``told``: the kernel has it. ``lost``: it is gone.
    """

    other: _Side
    transport: Any

    def __init__(self, relay: Relay, name: str, first: bytes) -> None:
        self._relay = relay
        self._name = name
        self._first = first
        self._started = False
        self.plain = False
        self._empty = False
        self.octets = 0
        # Octets that came from it when the other was gone.
        self._unwanted = 0
        self.paused = False
        self.silent = False
        self.deaf = False
        self._finished = False
        self.told = False
        self.lost = False

    def connectionMade(self) -> None:
        set_no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            set_no_delay(True)
        if not self._relay.join():
            self.transport.pauseProducing()

    def start(self) -> None:
        """Both sides are there."""
        self._started = True
        if self.lost:
            return
        self.plain = ITCPTransport.providedBy(self.transport) and not (
            ISSLTransport.providedBy(self.transport)
        )
        if self.plain:
            self.transport.bufferSize = _CHUNK
        if self._first:
            self.octets = len(self._first)
            self.transport.write(self._first)
        # A plain transport asks a pull producer for more each time that it has sent all. TLS would
        # do so in a busy loop.
        self.transport.registerProducer(self.other, not self.plain)
        # So it just did, but something may wait there.
        self._empty = False
        self.read_on()

    def dataReceived(self, data: bytes) -> None:
        if not self._started:
            # A layer between delivers what it holds even to one that wants a pause.
            self.other._first += data
        elif not self.other.deaf:
            self._relay.heard(self)
            self.other.send(data)
        elif self.other.lost:
            self._unwanted += len(data)
            if self._unwanted > _MOST_UNWANTED:
                self.transport.abortConnection()

    def send(self, data: bytes) -> None:
        self.octets += len(data)
        if self._empty:
            # Much cheaper than a write that waits for the reactor's next turn.
            sent = self.transport.writeSomeData(data)
            if sent == len(data):
                return
            if isinstance(sent, Exception):
                # Not told to the transport: it would close without reading what is there to read.
                self.deaf = True
                self._relay.came_to_an_end(f"{self._name}-lost")
                if self.silent:
                    # There is nothing to read, by which its end would be found.
                    self.transport.abortConnection()
                return
            data = data[sent:]
            self._empty = False
        self.transport.write(data)
        if self.plain:
            self.other.pauseProducing()

    def readConnectionLost(self) -> None:
        self.silent = True
        self._relay.came_to_an_end(f"{self._name}-closed")
        if self._started:
            self._relay.pass_end_on(self)
        if self._finished:
            self.transport.loseConnection()

    def finish(self) -> None:
        """Tell this side the end, behind all that was written to it."""
        if self._finished or self.lost:
            return
        self._finished = True
        # With a producer the transport would not come to an end.
        self.transport.unregisterProducer()
        if not self.plain:
            # TLS reads on by itself until this side has ended, too. That it has told the end it
            # does not say: a slow client may be taking octets for long.
            self.transport.loseConnection()
        elif self.silent:
            self.transport.loseConnection()
        elif not self.deaf:
            self.transport.loseWriteConnection()

    def writeConnectionLost(self) -> None:
        self.told = True
        self._relay.hurry()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.silent = self.deaf = self.lost = True
        how = "closed" if reason.check(ConnectionDone) else "lost"
        self._relay.came_to_an_end(f"{self._name}-{how}")
        if not self._started:
            self._relay.join()
            return
        # What it still sends is read to be thrown away; it may be waiting for this side to read.
        self.other.read_on()
        self._relay.pass_end_on(self)
        self._relay.hurry()
        self._relay.gone()

    def give_up(self) -> None:
        if self.lost:
            return
        if self.told and self.plain:
            # The kernel goes on delivering what it holds; a reset would undo that.
            self.transport.loseConnection()
        else:
            self.transport.abortConnection()

    @property
    def is_ending(self) -> bool:
        """It is about to be told the end, behind what it has yet to take."""
        return self._finished and not self.told

    def close_behind(self, words: bytes) -> None:
        """Close it in order, with these words behind all that was written to it."""
        if self.lost or self.deaf or self._finished:
            self.give_up()
            return
        self._finished = True
        self.transport.unregisterProducer()
        self.transport.write(words)
        close(self.transport)

    def read_on(self) -> None:
        if not self.silent and self._relay.reads(self):
            self.transport.resumeProducing()

    def pauseProducing(self) -> None:
        self.paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.paused = False
        self.other._empty = self.other.plain
        if not self.other.plain:
            # Once TLS has heard the end it waits for its producer to go, and does not say so.
            self.other.transport.unregisterProducer()
            self.other.transport.registerProducer(self, True)
        self.read_on()

    def stopProducing(self) -> None:
        """The other connection is lost, and is about to hear so itself."""
