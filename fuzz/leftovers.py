"""What a piece of work must not leave behind, whoever it was that disturbed it."""

from __future__ import annotations

import gc
import os
import re
from typing import cast

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText, globalLogPublisher

__all__ = ["Leftovers"]

_LONGEST_LINE = 4000

_OWN_WORDS = re.compile(r'\b(?:user|session)=(?:"[^"]*"|\S+)')
"""What a client says of itself: it may take a password for its name."""


class Leftovers:
    """Looks on from `begin` until `assert_none`, again and again, and no more after `stop`.

    ``secrets`` are not to be in the log. ``rooms`` are packages of which no object may be left.
    What was there at the beginning is not looked at: the collector of garbage is told to leave it
    alone, which makes a look at the rest cheap.
    """

    def __init__(self, secrets: tuple[bytes, ...] = (), rooms: tuple[str, ...] = ()) -> None:
        self._secrets = tuple(secret.decode("latin-1") for secret in secrets)
        self._rooms = rooms
        self.events: list[LogEvent] = []
        self._descriptors: dict[str, str] = {}
        self._observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(self._observer)
        # A worker of trial sends each line to its manager, and has a Deferred wait for the answer.
        self._senders = [(each, each.protocol) for each in gc.get_objects() if _sends_lines(each)]
        for each, _ in self._senders:
            each.protocol = _Nobody()

    def begin(self) -> None:
        gc.collect()
        gc.freeze()
        gc.disable()
        self.events.clear()
        self._descriptors = _descriptors()

    def stop(self) -> None:
        globalLogPublisher.removeObserver(self._observer)
        for each, protocol in self._senders:
            each.protocol = protocol
        gc.enable()
        gc.unfreeze()

    def assert_none(self) -> None:
        """Nothing waits, nothing is open, and the log is as it should be."""
        # Those too that only garbage waits for: what was to follow them was never done.
        waiting = [each for each in gc.get_objects() if type(each) is Deferred and not each.called]
        assert not waiting, f"{len(waiting)} left: {'; '.join(map(_shown, waiting))}"
        # What nobody waits for and has failed is said in the log only now.
        gc.collect()
        self._assert_log()
        left = [each for each in gc.get_objects() if type(each).__module__.startswith(self._rooms)]
        assert not left, f"{len(left)} left: {'; '.join(map(_shown, left))}"
        descriptors = _descriptors()
        assert descriptors == self._descriptors, (descriptors, self._descriptors)

    def _assert_log(self) -> None:
        failures = []
        for event in self.events:
            text = eventAsText(event, includeTimestamp=False, includeSystem=False)
            level = event.get("log_level", LogLevel.info)
            if level is LogLevel.critical or event.get("log_failure") is not None:
                failures.append(text)
                continue
            if str(event.get("log_namespace", "")).startswith("qmailldap"):
                assert text.isprintable() and text.isascii(), f"not to be shown: {text!r}"
                assert len(text) < _LONGEST_LINE, text
            own_words = _OWN_WORDS.sub("", text)
            for secret in self._secrets:
                assert secret not in own_words, f"{secret} in {text!r}"
        assert not failures, "\n".join(failures)


class _Nobody:
    """To whom lines are sent for which nobody is to wait."""

    def callRemote(self, command: object, **arguments: object) -> None:
        pass


def _sends_lines(each: object) -> bool:
    return type(each).__name__ == "WorkerLogObserver"


def _descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # that of the directory itself
    return found


def _shown(each: object) -> str:
    """It, and who knows of it."""
    holders = [type(one).__name__ for one in gc.get_referrers(each)]
    return f"{each!r:.200} held by {holders}"
