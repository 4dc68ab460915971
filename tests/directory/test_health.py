"""What is told of a server that goes down and comes back, and how often."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.directory._health import Health
from tests.loglevels import logged_lines


class HealthTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lines = logged_lines(self, "qmailldap.directory")
        never: Deferred[Any] = Deferred()
        self.health = Health(Clock(), "ldap1:389", lambda: never)
        self.addCleanup(self.health.stop)

    def told(self) -> list[str]:
        told, self.lines[:] = list(self.lines), []
        return [line.partition("; next try")[0] for line in told]

    def test_that_it_is_down_is_told_once(self) -> None:
        for reason in ("refused", "refused", "timed out"):
            self.health.failed(reason)
        self.assertEqual(self.told(), ["directory server ldap1:389 is down: refused"])
        self.health.answered()
        self.assertEqual(self.told(), ["directory server ldap1:389 is up again"])

    def test_the_last_failure_is_remembered_when_it_is_up_again(self) -> None:
        self.assertIsNone(self.health.last_failure)
        for reason in ("refused", "timed out"):
            self.health.failed(reason)
        self.health.answered()
        self.assertEqual(self.health.last_failure, (0.0, "timed out"))

    def test_why_it_is_of_no_use_is_told_again_when_that_has_changed(self) -> None:
        for reason in ("its certificate is for ldap2", "its certificate is for ldap2", "expired"):
            self.health.failed(reason, refused=True)
        self.assertEqual(
            self.told(),
            [
                "directory server ldap1:389 is of no use: its certificate is for ldap2",
                "directory server ldap1:389 is of no use: expired",
            ],
        )
        self.health.answered()
        self.health.failed("expired", refused=True)
        self.assertEqual(len(self.told()), 2)

    def test_one_that_goes_down_and_is_found_to_be_of_no_use_is_told_both_ways(self) -> None:
        self.health.failed("refused")
        self.health.failed("its certificate is for ldap2", refused=True)
        self.assertEqual(len(self.told()), 2)
