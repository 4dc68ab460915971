"""The page on threats names tests that there are, and limits as they are."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from qmailldap.admission.guesses import LONGEST_DELAY, SHORTEST_DELAY
from qmailldap.admission.scores import HALF_LIFE
from qmailldap.client import FIRST_TTL
from qmailldap.control import POP3Limits
from qmailldap.pop3 import Limits

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "threats.md").read_text()


class ThreatsTests(SynchronousTestCase):
    def test_every_test_that_is_named_is_there(self) -> None:
        links = re.findall(r"\[(\w+)\]\((\.\./tests/[^)]+)\)", PAGE)
        self.assertGreater(len(links), 30)
        for name, target in links:
            self.assertTrue((DOCS / target).is_file(), target)
            self.assertEqual(Path(target).stem, name)

    def test_every_threat_has_a_means_and_a_test(self) -> None:
        rows = [
            line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")
        ]
        threats = [row for row in rows if len(row) == 3 and row[2] != "shown by"]
        self.assertGreater(len(threats), 25)
        for attempt, means, shown_by in threats:
            self.assertTrue(means, attempt)
            self.assertIn("](../tests/", shown_by, attempt)

    def test_the_numbers_are_those_in_the_code(self) -> None:
        limits, site = Limits(), POP3Limits()
        for text in (
            f"{site.connections_per_address} of one address (IPv6: one /64)",
            f"{site.connections:,} in all",
            f"{site.sessions} at a time",
            f"from a score of {site.guesses} on",
            f"from {site.guesses_per_login} on those of address and login",
            f"{site.proxy_time:.0f} s for a PROXY header",
            f"{limits.login_time:.0f} s until the login",
            f"{limits.handshake_time:.0f} s for a TLS handshake",
            f"{limits.command} octets a line, {limits.sasl:,} within AUTH",
            f"{limits.pipelined} commands and {limits.input // 1024} KiB ahead",
            f"idle after {limits.idle / 60:.0f} minutes",
            f"cut off {limits.linger:.0f} s later",
            f"{SHORTEST_DELAY:.0f} s for each point of the higher one, {LONGEST_DELAY:.0f} s at",
            f"halve every {HALF_LIFE / 60:.0f} minutes",
        ):
            self.assertIn(text, PAGE)
        # At 1 it is handed on no more.
        self.assertEqual(FIRST_TTL - 1, 4)
        self.assertIn("handed on four times at most", PAGE)
