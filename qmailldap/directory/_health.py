"""Whether a server is of use at the moment, and when it is tried again.

A server is up until something shows that it is not. It is then down, and a probe tries it after a
pause, 1 s at first and doubling to 60 s; the first answer to an operation or to the probe makes it
up again. The pause starts over when the server was up for longer than it was last left alone; one
that comes and goes is left alone for longer each time and does not fill the log. An outage is one
line in the log, and so is its end.

Where one record may be to blame for what went wrong, the server stays up and is probed at once.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from qmailldap.directory.errors import ServerTrouble
from qmailldap.loglevel import Kind, Log

__all__ = ["COMPLAINT_PAUSE", "FAIL_FAST", "FIRST_PAUSE", "LONGEST_PAUSE", "Health"]

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Seconds a server that is down is left alone, at first and at most."""

FAIL_FAST = 1.0
"""Seconds after a failure during which a server is not tried although no other one is up."""

COMPLAINT_PAUSE = 3600.0
"""Seconds until the same complaint of a server that is up is logged again."""

_log = Log(namespace="qmailldap.directory", of_sessions=False)


class Health:
    """The state of the server ``name``; ``probe`` tries it, and reports what it finds here."""

    def __init__(self, clock: IReactorTime, name: str, probe: Callable[[], Deferred[None]]) -> None:
        self._clock = clock
        self._name = name
        self._probe = probe
        self._up = True
        self._up_since = clock.seconds() - FIRST_PAUSE
        self._failed_at = clock.seconds() - FAIL_FAST
        self._pause = FIRST_PAUSE
        # Why it is of no use, as it was told last.
        self._refusal = ""
        self._complaints: dict[str, float] = {}
        self._answered_at: float | None = None
        self._next_probe: IDelayedCall | None = None
        self._probing: Deferred[None] | None = None
        # When each began to wait for what a probe finds.
        self._looking: list[tuple[float, Deferred[bool]]] = []
        self._stopped = False
        self.last_failure: tuple[float, str] | None = None
        """When it failed last, by the clock, and why."""

    @property
    def up(self) -> bool:
        """No server is known to be down before it was tried."""
        return self._up

    @property
    def failed_just_now(self) -> bool:
        """Whether trying it again would be too soon, even with no other server up."""
        return self._clock.seconds() - self._failed_at < FAIL_FAST

    def answered(self) -> None:
        """It has answered an operation: it is up."""
        self._answered_at = self._clock.seconds()
        if self._up:
            return
        self._up = True
        self._up_since = self._clock.seconds()
        self._refusal = ""
        if self._next_probe is not None:
            self._next_probe.cancel()
            self._next_probe = None
        # For those who were told that it is down.
        _log.info("directory server {server} is up again", kind=Kind.WARNINGS, server=self._name)

    def failed(self, reason: str, *, refused: bool = False) -> None:
        """It is down, or still down; ``refused`` when it will be until somebody mends something:
        what it refuses is the site's bind, or its certificate will not do."""
        if self._stopped:
            return
        now = self._clock.seconds()
        self._failed_at = now
        self.last_failure = now, reason
        began = self._up
        if began:
            self._up = False
            lasted = now - self._up_since >= self._pause
            self._pause = FIRST_PAUSE if lasted else min(2 * self._pause, LONGEST_PAUSE)
            self._schedule_probe()
        if refused and reason != self._refusal:
            self._refusal = reason
            _log.error(
                "directory server {server} is of no use: {reason}; next try in {pause:.0f} s",
                server=self._name,
                reason=reason,
                pause=self._pause,
            )
        elif began:
            _log.warn(
                "directory server {server} is down: {reason}; next try in {pause:.0f} s",
                server=self._name,
                reason=reason,
                pause=self._pause,
            )

    def complain(self, complaint: str) -> None:
        """Log what is wrong with a server that is up; each thing once in a while."""
        now = self._clock.seconds()
        told = self._complaints.get(complaint)
        if told is None or now - told >= COMPLAINT_PAUSE:
            self._complaints[complaint] = now
            _log.warn(
                "directory server {server} {complaint}", server=self._name, complaint=complaint
            )

    def doubt(self) -> None:
        """It may be down: have the probe decide, unless it is down and probed anyway."""
        if self._up and not self._stopped:
            self.probe()

    def probe(self) -> None:
        """Try it now, in the background."""
        self._next_probe = None
        self._begin_probe()

    def answers(self, fresh: float) -> Deferred[bool]:
        """Whether it has answered within the last ``fresh`` seconds, or else does so now.

        For those who want to know where nobody asks it anything. It changes nothing of the pauses
        between probes, and does not try one again that has failed just now.
        """
        now = self._clock.seconds()
        if self._up and self._answered_at is not None and now - self._answered_at <= fresh:
            return succeed(True)
        if self._stopped or self.failed_just_now:
            return succeed(False)
        looking: Deferred[bool] = Deferred()
        self._looking.append((now, looking))
        self._begin_probe()
        return looking

    def _begin_probe(self) -> None:
        if self._probing is None:
            self._probing = probing = self._probe()
            probing.addBoth(self._probed)

    def stop(self) -> None:
        """No more probes."""
        self._stopped = True
        if self._next_probe is not None:
            self._next_probe.cancel()
            self._next_probe = None
        if self._probing is not None:
            self._probing.cancel()

    def _probed(self, result: object) -> None:
        self._probing = None
        # What went wrong with the server was reported to `failed` where it happened.
        if isinstance(result, Failure) and not result.check(ServerTrouble, CancelledError):
            _log.failure("directory server {server} cannot be probed", result, server=self._name)
        looking, self._looking = self._looking, []
        for since, each in looking:
            answered = self._answered_at is not None and self._answered_at >= since
            each.callback(self._up and answered)
        if not self._up and not self._stopped and self._next_probe is None:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self._schedule_probe()

    def _schedule_probe(self) -> None:
        self._next_probe = self._clock.callLater(self._pause, self.probe)
