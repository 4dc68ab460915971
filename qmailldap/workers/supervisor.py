"""The process that starts workers, starts one again that has ended, and ends with all of them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.runner.procmon import ProcessMonitor
from zope.interface import implementer

import qmailldap
from qmailldap.loglevel import Log
from qmailldap.privsep.broker import BUSY_LIMIT
from qmailldap.threads import STOP_LIMIT
from qmailldap.workers.inheritance import LIFELINE, Inheritance
from qmailldap.workers.logs import LineRelay, logs_to_standard_output

__all__ = ["KILL_LIMIT", "Supervisor"]

_PROGRAM = Path(qmailldap.__file__).resolve().parent / "commands" / "worker.py"

STEADY = 10
"""Seconds after which a worker counts as one that had started: it takes a second or two to fail."""

SHORTEST_PAUSE = 1
LONGEST_PAUSE = 30
"""Seconds before one is started again that did not get so far; they double from try to try."""

KILL_LIMIT = int(STOP_LIMIT + BUSY_LIMIT) + 5
"""Seconds that workers have to end. They themselves give their threads and the broker less."""

_NOT_FOR_WORKERS = (b"LISTEN_PID", b"LISTEN_FDS", b"LISTEN_FDNAMES")
"""Variables by which systemd hands descriptors to one process."""

_log = Log(namespace="qmailldap.workers")


class Counts(Protocol):
    """What the supervisor does with `qmailldap.admission.SharedCounts`."""

    def clear(self, number: int) -> None: ...


class Supervisor(Service):
    """Workers, by Twisted's monitor of processes.

    Each is started with ``options``, arguments of the server, and the `Inheritance` that
    ``inheritance`` gives for its number and for whether its log is relayed, once the ports are
    bound; a ``ValueError`` of that keeps the server from starting. Nobody of a worker that has
    ended is left in ``counts``. ``check``, which raises `CannotStart`, is called where this process
    is another user by then than when it was configured: workers may not read what it could.
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
    ) -> None:
        self._reactor = reactor
        self._numbers = {f"worker-{number}": number for number in range(1, workers + 1)}
        self._options = list(options)
        self._inheritance = inheritance
        self._counts = counts
        self._check = check
        self._configured_as = os.geteuid()
        self._relayed = False
        self._stopped: Deferred[None] = Deferred()
        self._beginning: IDelayedCall | None = None
        spawner: Any = _Spawner(reactor, self._spawn)
        self._monitor = ProcessMonitor(spawner)
        self._monitor.threshold = STEADY
        self._monitor.killTime = KILL_LIMIT
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
        self._relayed = not logs_to_standard_output()
        for name in self._numbers:
            self._monitor.addProcess(name, [name])
        # Not before the reactor heeds signals: one that ends this process leaves no workers behind.
        self._beginning = self._reactor.callLater(0, self._begin)

    def _begin(self) -> None:
        _log.info("workers count={count} are started", count=len(self._numbers))
        self._monitor.startService()

    def stopService(self) -> Deferred[None]:
        """Fires when all of them have ended."""
        super().stopService()
        if self._beginning is not None and self._beginning.active():
            self._beginning.cancel()
        self._monitor.stopService()
        self._look_for_the_end()
        return self._stopped

    def hang_up(self) -> None:
        """Pass SIGHUP on."""
        for each in list(self._monitor.protocols.values()):
            with suppress(ProcessExitedAlready):
                transport: Any = each.transport
                transport.signalProcess("HUP")

    def _spawn(self, protocol: Any) -> None:
        """Start the worker of that name."""
        number = self._numbers[protocol.name]
        inherited, descriptors = self._inheritance(number, self._relayed).handed_over()
        log: Mapping[int, Any] = {1: "r", 2: "r"} if self._relayed else {1: 1, 2: 2}
        # -P: nothing is loaded but what is installed.
        command = [sys.executable, "-P", str(_PROGRAM), *inherited.arguments(), *self._options]
        worker = _Worker(protocol, number, self._ended)
        try:
            with _hangups_blocked():
                self._reactor.spawnProcess(
                    worker,
                    os.fsencode(sys.executable),
                    [os.fsencode(each) for each in command],
                    _environment(),
                    childFDs={LIFELINE: "w", **log, **descriptors},
                )
        except OSError as error:
            # Older monitors would never try again.
            worker.makeConnection(_NoProcess())
            self._reactor.callLater(0, worker.not_started, error)

    def _ended(self, number: int, how: str) -> None:
        """A worker has ended, and the monitor has seen it."""
        # One that was killed has not said that its clients are gone.
        self._counts.clear(number - 1)
        if self._monitor.running:
            again = self._monitor.restart[f"worker-{number}"].getTime() - self._reactor.seconds()
            _log.error(
                "workers worker={number} has ended with {how}: another is started in {again:.0f} s",
                number=number,
                how=how,
                again=max(0.0, again),
            )
        else:
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
        number: int,
        ended: Callable[[int, str], None],
    ) -> None:
        self._monitored = monitored
        self._number = number
        self._ended = ended
        self._relays = {descriptor: LineRelay(number, globalLogPublisher) for descriptor in (1, 2)}

    def connectionMade(self) -> None:
        self._monitored.makeConnection(self.transport)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD in self._relays:
            self._relays[childFD].received(data)

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
