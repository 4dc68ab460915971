"""Tests for `qmailldap.stop_signals`."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from qmailldap.stop_signals import Hangups, StopSignals

ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Reactor:
    """Has handlers of its own once it runs, as Twisted's."""

    def __init__(self) -> None:
        self.stops: list[int] = []
        self.asked: list[Callable[[], object]] = []
        self.when_running: list[Callable[[], object]] = []

    def handle(self, number: int, frame: Any) -> None:
        self.stops.append(number)

    def callWhenRunning(self, call: Callable[[], object]) -> None:
        self.when_running.append(call)

    def callFromThread(self, call: Callable[[], object]) -> None:
        self.asked.append(call)

    def run(self) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, self.handle)
        for call in self.when_running:
            call()


class SignalTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        for each in ALL:
            self.addCleanup(signal.signal, each, signal.signal(each, signal.SIG_IGN))
        self.reactor = Reactor()


class StopSignalsTests(SignalTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.signals = StopSignals(self.reactor)
        self.signals.startService()

    def test_the_first_is_the_reactors_and_those_behind_it_are_nobodys(self) -> None:
        self.reactor.run()
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(each)
        self.assertEqual(self.reactor.stops, [signal.SIGTERM])

    def test_a_server_that_ends_already_is_not_ended_again(self) -> None:
        self.reactor.run()
        self.signals.stopService()
        signal.raise_signal(signal.SIGTERM)
        self.assertEqual(self.reactor.stops, [])

    def test_who_runs_the_reactor_without_signals_keeps_them(self) -> None:
        for call in self.reactor.when_running:
            call()
        self.assertEqual(signal.getsignal(signal.SIGTERM), signal.SIG_IGN)


class HangupsTests(SignalTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.hangups = Hangups(self.reactor, self.reload)
        self.hangups.privilegedStartService()
        self.hangups.startService()

    def reload(self) -> None:
        """What is asked for."""

    def test_each_is_told_to_the_reactor(self) -> None:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        self.assertEqual(self.reactor.asked, [self.reload, self.reload])

    def test_none_ends_a_server_that_is_being_stopped(self) -> None:
        self.hangups.stopService()
        signal.raise_signal(signal.SIGHUP)
        self.assertEqual(self.reactor.asked, [])
        self.assertNotIn(signal.getsignal(signal.SIGHUP), (signal.SIG_DFL, None))
