"""The status page in a browser: what a person sees, on a phone and on a desk."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.internet.threads import deferToThread

from .chromium import Browser, Seen
from .mailboxes import MESSAGES
from .ports import HOST
from .site import PASSWORD
from .watching import WatchedTestCase

_PHONE, _DESK = (360, 740), (1280, 900)
_HOSTILE = "<script>document.title='x'</script><img/src=//192.0.2.1/>"


class StatusPageTests(WatchedTestCase):
    """Chromium takes its time to start: so it is started once, and looks at all there is."""

    timeout = 120

    async def test_a_person_reads_it_on_a_phone_and_on_a_desk(self) -> None:
        self.user("joe", messages=[MESSAGES["plain"]])
        self.user("ann")
        await self.start("--workers", "2", "--status-users", *self.watched, me="mail1.example.org")
        connection = await self.connect()
        await deferToThread(connection.log_in, "joe", PASSWORD)
        await self.assert_serves("ann")
        await self.refusal_of("joe", "wrong-one")
        await self.refusal_of(_HOSTILE, "wrong-one")

        pictures = Path(self.mktemp())
        pictures.mkdir()
        for name, seen in (await deferToThread(self.look)).items():
            (pictures / f"{name}.png").write_bytes(seen.picture)
            self.assert_is_good(seen, name)
        # What was looked at is what was sent.
        self.assertEqual(len(list(pictures.glob("*.png"))), 3)

    def look(self) -> dict[str, Seen]:
        address = f"http://{HOST}:{self.status_port}/"
        with Browser(self.directory / "profile") as browser:
            return {
                "phone": browser.look(address, *_PHONE),
                "desk": browser.look(address, *_DESK),
                "dark": browser.look(f"{address}?every=30", *_DESK, "dark"),
            }

    def assert_is_good(self, seen: Seen, name: str) -> None:
        self.assertEqual(seen.complaints, [], name)
        self.assertEqual(seen.overflow, 0, name)
        own = f"http://{HOST}:{self.status_port}/"
        elsewhere = [each for each in seen.requests if not each.startswith((own, "data:"))]
        self.assertEqual((elsewhere, len(seen.requests) > 0), ([], True), name)
        self.assertEqual(seen.picture[:8], b"\x89PNG\r\n\x1a\n")
        for expected in (
            "mail1.example.org",
            "All is well.",
            "Sessions",
            "Logins a minute",
            "Directory servers",
            self.slapd.address,
            "wrong-credentials",
            "script",
            HOST,
        ):
            self.assertIn(expected, seen.text, name)
        self.assertRegex(seen.text, re.compile(r"^1 with mail here", re.MULTILINE))
