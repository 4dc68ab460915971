"""What auth_pop writes to standard error at each LOGLEVEL, and what it never writes."""

from __future__ import annotations

import base64
import hashlib
import re

from .chain import ChainTestCase
from .mailboxes import MESSAGES
from .server import environment

GUESS = "one-that-somebody-has-guessed"

CORRUPTED = "refused mailbox-corrupted"
WRONG = "refused wrong-credentials"

EVENTS: dict[str, set[str]] = {
    "": {"login", CORRUPTED, WRONG},
    "1": {CORRUPTED},
    "8": {"mailbox"},
    "256": set(),
    "511": {
        *("login", CORRUPTED, WRONG, "mailbox", "found", "proof", "account", "record", "defaults"),
        *("search", "bind", "connection"),
    },
}
"""The lines at each LOGLEVEL, unset for the first, of one who is let in and two who are not."""


class LogTests(ChainTestCase):
    def setUp(self) -> None:
        super().setUp()
        # All of them are sought in what was written when a test ends; in other guises, too.
        self.secrets.add(GUESS)
        for octets in [secret.encode() for secret in self.secrets]:
            self.secrets |= {
                octets.hex(),
                base64.b64encode(octets).decode(),
                hashlib.sha1(octets).hexdigest(),
            }

    async def test_loglevel_says_which_lines_there_are_and_no_line_holds_a_secret(self) -> None:
        await self.assert_events(EVENTS)

    async def test_nor_does_one_where_passwords_are_proved_by_rebind(self) -> None:
        await self.assert_events({"511": EVENTS["511"]}, ldaprebind="1")

    async def assert_events(self, events: dict[str, set[str]], **control: str) -> None:
        self.user("guessed")
        corrupted = self.user("bad")
        (corrupted.path / "cur").rmdir()
        (corrupted.path / "cur").touch()
        for level in events:
            incomplete = self.user(f"new{level}", messages=[MESSAGES["plain"]])
            (incomplete.path / "cur").rmdir()
        await self.start_directory()
        lines = {level: self.lines_at(level, control) for level in events}
        for level, text in zip(lines, await self.together(*lines.values()), strict=True):
            for line in text.splitlines():
                self.assertRegex(line, r'^auth_pop: [a-z]+( [A-Za-z]+=("([^"\\]|\\.)*"|[^" ]*))+$')
            found = re.findall(r"(?m)^auth_pop: ([a-z]+) (?:.* reason=(\S+))?", text)
            self.assertEqual({" ".join(each).strip() for each in found}, events[level], level)

    async def lines_at(self, level: str, control: dict[str, str]) -> str:
        """All that is written for three logins."""
        variables = environment(**({"LOGLEVEL": level} if level else {}))
        popup = self.new_chain(f"chain{level}", control=control, variables=variables)
        outcomes = await self.together(
            self.outcome(popup, f"new{level}"),
            self.outcome(popup, "bad"),
            self.outcome(popup, "guessed", GUESS),
        )
        return "".join(outcome.errors for outcome in outcomes)
