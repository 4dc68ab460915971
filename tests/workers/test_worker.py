"""Where a worker is while it reads what its options name."""

from __future__ import annotations

import os
from typing import Any

from twisted.application.service import Service
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from qmailldap import service
from qmailldap.options import CannotStart
from qmailldap.workers import worker
from qmailldap.workers.crew import Alone, Crew
from qmailldap.workers.inheritance import WorkerOptions


class StartTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.here = os.getcwd()
        self.addCleanup(os.chdir, self.here)
        self.read_from: list[str] = []
        self.patch(service, "make_worker", self.make_worker)

    def make_worker(self, options: WorkerOptions, reactor: Any, crew: Crew) -> Service:
        self.read_from.append(os.getcwd())
        return Service()

    def start(self, directory: str) -> None:
        options = WorkerOptions.parse(
            [
                *("--number=1", "--scores=3", "--counts=4", "--ports=", "--reactor=r"),
                f"--start={directory}",
            ]
        )
        reactor = MemoryReactorClock()
        worker._start(options, reactor, Alone(reactor))

    def test_relative_paths_are_those_of_the_directory_of_the_start(self) -> None:
        directory = os.path.abspath(self.mktemp())
        os.mkdir(directory)
        self.start(directory)
        self.assertEqual(self.read_from, [directory])
        self.assertEqual(os.getcwd(), self.here)

    def test_a_directory_that_is_gone_is_named_and_none_is_read_in_its_place(self) -> None:
        missing = os.path.abspath(self.mktemp())
        with self.assertRaises(CannotStart) as caught:
            self.start(missing)
        self.assertIn(f"{missing} cannot be entered: No such file", str(caught.exception.code))
        self.assertEqual(self.read_from, [])

    def test_the_directory_it_is_in_may_be_gone_too(self) -> None:
        directory = os.path.abspath(self.mktemp())
        os.mkdir(directory)
        os.chdir(directory)
        os.rmdir(directory)
        with self.assertRaises(CannotStart) as caught:
            self.start(directory)
        self.assertIn(f"{directory} cannot be entered", str(caught.exception.code))

    def test_one_that_it_is_in_already_need_not_be_entered(self) -> None:
        # As of a user who may not, after twistd has given its rights up.
        def refuse(path: str) -> None:
            raise PermissionError(13, "Permission denied")

        self.patch(os, "chdir", refuse)
        self.start(self.here)
        self.assertEqual(self.read_from, [self.here])
