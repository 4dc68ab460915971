"""The process that starts workers, starts one again that has ended, and ends with all of them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorProcess,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.runner.procmon import ProcessMonitor
from zope.interface import implementer

import qmailldap
from qmailldap.log_output import workers_log_themselves
from qmailldap.loglevel import Log
from qmailldap.workers.inheritance import HEARS, SAYS, Inheritance
from qmailldap.workers.links import Link, Links, Unanswered
from qmailldap.workers.logs import LineRelay

__all__ = ["START_LIMIT", "Supervisor"]

_PROGRAM = Path(qmailldap.__file__).resolve().parent / "commands" / "worker.py"

DEFAULT_GRACE = 10.0

SHORTEST_GRACE = 1.0
"""Seconds that a worker has to tell its clients and to end, even with --grace 0."""

STEADY = 10
"""Seconds after which a worker counts as one that had started: it takes a second or two to fail."""

SHORTEST_PAUSE = 1
LONGEST_PAUSE = 30
"""Seconds before one is started again that did not get so far; they double from try to try."""

START_LIMIT = 60.0
"""Seconds after which a worker that does not serve yet is one that hangs, and after which it is a
fault that none at all serves, however often they are started."""

FIGURES_PERIOD = 5.0
"""Seconds of which nothing that was counted is known when a worker ends without a warning."""

_NOT_FOR_WORKERS = (b"LISTEN_PID", b"LISTEN_FDS", b"LISTEN_FDNAMES")
"""Variables by which systemd hands descriptors to one process."""

_log = Log(namespace="qmailldap.workers")


class Counts(Protocol):
    """What the supervisor does with `qmailldap.admission.SharedCounts`."""

    def clear(self, number: int) -> None: ...


class Reloading(Protocol):
    """What the supervisor does with `qmailldap.workers.reload.ReloadOfAll`."""

    def __call__(self) -> None: ...

    def serves(self, link: Link) -> None: ...


class Supervisor(Service):
    """Workers, by Twisted's monitor of processes.

    Each is started with ``options``, arguments of the server, and the `Inheritance` that
    ``inheritance`` gives for its number and for whether its log is relayed, once the ports are
    bound; a ``ValueError`` of that keeps the server from starting. Nobody of a worker that has
    ended is left in ``counts``. ``check``, which raises `CannotStart`, is called where this process
    is another user by then than when it was configured: workers may not read what it could.

    ``grace`` are the seconds that workers have to end when they are told to. ``reload`` is to be
    set before the start; ``serial`` gives the number of the control files in force. ``all_serve``
    fires when each worker has come to take connections.
    """

    name = "--workers"

    def __init__(
        self,
        reactor: Any,
        workers: int,
        options: Sequence[str],
        inheritance: Callable[[int, bool], Inheritance],
        counts: Counts,
        check: Callable[[], object],
        grace: float = DEFAULT_GRACE,
    ) -> None:
        self._reactor = reactor
        self._numbers = {f"worker-{number}": number for number in range(1, workers + 1)}
        self._options = list(options)
        self._inheritance = inheritance
        self._counts = counts
        self._check = check
        self.links = Links(reactor, self._serves, self.end)
        self.reload: Reloading | None = None
        self.serial: Callable[[], int] = lambda: 0
        self.all_serve: Deferred[None] = Deferred()
        self._to_come = set(self._numbers.values())
        self._figures = LoopingCall(self.links.ask, "figures")
        self._figures.clock = reactor
        self._served_at = 0.0
        self._configured_as = os.geteuid()
        self._relayed = False
        self._stopped: Deferred[None] = Deferred()
        self._beginning: IDelayedCall | None = None
        spawner: Any = _Spawner(reactor, self._spawn)
        self._monitor = ProcessMonitor(spawner)
        self._monitor.threshold = STEADY
        self._grace = max(grace, SHORTEST_GRACE)
        self._monitor.killTime = self._grace  # type: ignore[assignment]
        self._monitor.minRestartDelay = SHORTEST_PAUSE
        self._monitor.maxRestartDelay = LONGEST_PAUSE

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        if not os.access(sys.executable, os.X_OK):
            # twistd's --chroot, say.
            raise ValueError(f"{sys.executable} cannot be started here")
        self._inheritance(1, False)

    def startService(self) -> None:
        super().startService()
        if os.geteuid() != self._configured_as:
            self._check()
        self._relayed = not workers_log_themselves()
        for name in self._numbers:
            self._monitor.addProcess(name, [name])
        # Not before the reactor heeds signals: one that ends this process leaves no workers behind.
        self._beginning = self._reactor.callLater(0, self._begin)

    def _begin(self) -> None:
        _log.info("workers count={count} are started", count=len(self._numbers))
        self._served_at = self._reactor.seconds()
        self._monitor.startService()
        self._figures.start(FIGURES_PERIOD, now=False)

    def stopService(self) -> Deferred[None]:
        """Fires when all of them have ended."""
        super().stopService()
        if self._beginning is not None and self._beginning.active():
            self._beginning.cancel()
        if self._figures.running:
            self._figures.stop()
        self._monitor.stopService()
        self._look_for_the_end()
        return self._stopped

    @property
    def count(self) -> int:
        """How many workers there are to be."""
        return len(self._numbers)

    def hang_up(self) -> None:
        """SIGHUP: control files and certificates are to be read again."""
        if self.reload is not None and self.running:
            self.reload()

    def end(self, number: int, why: str) -> None:
        """Have a worker end, and another begin in its place."""
        name = f"worker-{number}"
        if name in self._monitor.protocols and name not in self._monitor.murder:
            _log.error("workers worker={number} is ended: {why}", number=number, why=why)
            self._monitor.stopProcess(name)

    async def look_for_the_dead(self, limit: float) -> str:
        """Asks all workers. Empty where all answer in so many seconds, else a line about one.

        One that has ended is not asked: it is started again. It is a fault when, for longer than
        that may take, no worker was seen to serve by those who call this.
        """
        now = self._reactor.seconds()
        if self.links.serving():
            self._served_at = now
        elif now - self._served_at > START_LIMIT:
            return f"no worker has served for {START_LIMIT:.0f} s"
        for link in self.links.all():
            if not link.is_serving and now - link.since > START_LIMIT:
                return f"worker={link.number} does not begin to serve"
        for link, answer in await self.links.ask("alive", limit=limit):
            if isinstance(answer, Unanswered) and not link.is_lost:
                return f"worker={link.number} does not answer: {answer}"
        return ""

    def _serves(self, link: Link) -> None:
        self._served_at = self._reactor.seconds()
        if self.reload is not None:
            self.reload.serves(link)
        self._to_come.discard(link.number)
        if not self._to_come and not self.all_serve.called:
            self.all_serve.callback(None)

    def _spawn(self, protocol: Any) -> None:
        """Start the worker of that name."""
        number = self._numbers[protocol.name]
        serial = self.serial()
        inherited, descriptors = self._inheritance(number, self._relayed).handed_over()
        log: Mapping[int, Any] = {1: "r", 2: "r"} if self._relayed else {1: 1, 2: 2}
        # -P: nothing is loaded but what is installed.
        command = [sys.executable, "-P", str(_PROGRAM), *inherited.arguments(), *self._options]
        worker = _Worker(protocol, self.links.add(number, serial), self._ended)
        try:
            with _hangups_blocked():
                self._reactor.spawnProcess(
                    worker,
                    os.fsencode(sys.executable),
                    [os.fsencode(each) for each in command],
                    _environment(),
                    childFDs={HEARS: "w", SAYS: "r", **log, **descriptors},
                )
        except OSError as error:
            # Older monitors would never try again.
            worker.makeConnection(_NoProcess())
            self._reactor.callLater(0, worker.not_started, error)

    def _ended(self, number: int, how: str) -> None:
        """A worker has ended, and the monitor has seen it."""
        # One that was killed has not said that its clients are gone.
        self._counts.clear(number - 1)
        self.links.remove(number)
        if self._monitor.running:
            again = self._monitor.restart[f"worker-{number}"].getTime() - self._reactor.seconds()
            _log.error(
                "workers worker={number} has ended with {how}: another is started in {again:.0f} s",
                number=number,
                how=how,
                again=max(0.0, again),
            )
        else:
            if how == f"signal {signal.SIGKILL:d}":
                _log.warn(
                    "workers worker={number} was killed: it did not end within {limit:g} s",
                    number=number,
                    limit=self._grace,
                )
            self._look_for_the_end()

    def _look_for_the_end(self) -> None:
        if not self._monitor.protocols and not self._stopped.called:
            self._stopped.callback(None)


@implementer(IReactorProcess, IReactorTime)
@attrs.frozen
class _Spawner:
    """The reactor of the monitor, which knows of neither descriptors nor arguments in octets."""

    _reactor: Any
    _spawn: Callable[[Any], None]

    def spawnProcess(self, processProtocol: Any, *_: object, **__: object) -> Any:
        return self._spawn(processProtocol)

    def seconds(self) -> float:
        return float(self._reactor.seconds())

    def callLater(self, *arguments: Any, **more: Any) -> IDelayedCall:
        later: IDelayedCall = self._reactor.callLater(*arguments, **more)
        return later

    def getDelayedCalls(self) -> Any:
        return self._reactor.getDelayedCalls()


class _Worker(ProcessProtocol):
    """One worker's process: what it has to say goes into the log, its end to the monitor."""

    def __init__(
        self,
        monitored: Any,
        link: Link,
        ended: Callable[[int, str], None],
    ) -> None:
        self._monitored = monitored
        self._number = number = link.number
        self._frames = link.frames
        self._ended = ended
        self._relays = {descriptor: LineRelay(number, globalLogPublisher) for descriptor in (1, 2)}

    def connectionMade(self) -> None:
        self._monitored.makeConnection(self.transport)
        self._frames.makeConnection(_Pipes(self.transport))

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD == SAYS:
            self._frames.dataReceived(data)
        elif childFD in self._relays:
            self._relays[childFD].received(data)

    def childConnectionLost(self, childFD: int) -> None:
        if childFD in (HEARS, SAYS):
            self._frames.connectionLost()

    def processExited(self, reason: Failure) -> None:
        # Or what it has left behind could keep them open, and another from being started.
        self._frames.lose("")
        process: Any = self.transport
        for each in (HEARS, SAYS):
            process.closeChildFD(each)

    def processEnded(self, reason: Failure) -> None:
        for relay in self._relays.values():
            relay.ended()
        ended: Any = reason.value
        how = f"signal {ended.signal}" if ended.signal else f"exit code {ended.exitCode}"
        self._monitored.processEnded(reason)
        self._ended(self._number, how)

    def not_started(self, error: OSError) -> None:
        self._monitored.processEnded(Failure(ProcessTerminated(1)))
        self._ended(self._number, f"no process: {error.strerror or error}")


@attrs.frozen
class _Pipes:
    """By which a process is asked, as a transport."""

    _process: Any

    def write(self, data: bytes) -> None:
        self._process.write(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._process.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self._process.unregisterProducer()

    def loseConnection(self) -> None:
        for each in (HEARS, SAYS):
            self._process.closeChildFD(each)


@implementer(ITransport)
class _NoProcess:
    """The transport of a process that there is not."""

    disconnecting = False

    def signalProcess(self, signalID: object) -> None:
        raise ProcessExitedAlready

    def write(self, data: bytes) -> None:
        """Nobody reads it."""

    def writeSequence(self, data: object) -> None:
        """Nobody reads it."""

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """It is never full."""

    def unregisterProducer(self) -> None:
        """It never was."""

    def closeChildFD(self, descriptor: int) -> None:
        """It has none."""

    def loseConnection(self) -> None:
        """There is none."""

    def getPeer(self) -> Any:
        return None

    def getHost(self) -> Any:
        return None


@contextmanager
def _hangups_blocked() -> Iterator[None]:
    """What is started meanwhile has SIGHUP blocked, and unblocks it when it can heed one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _environment() -> dict[bytes, bytes]:
    return {name: value for name, value in os.environb.items() if name not in _NOT_FOR_WORKERS}
