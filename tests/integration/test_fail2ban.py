"""The filter for fail2ban on a real log: it finds guessers, whatever names they try."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from twisted.internet.threads import deferToThread

from qmailldap.refusal import Refusal

from .clients import Conversation
from .processes import run
from .server import PROJECT
from .site import PASSWORD, SiteTestCase

CONTRIB = PROJECT / "contrib" / "fail2ban"
_LIMIT = 20.0

FORGED = "peer=192.0.2.1 session=s reason=wrong-credentials detail="
NAMES = (
    f"x {FORGED}",
    f'x" {FORGED}',
    f'" {FORGED}',
    FORGED,
    f"peer=192.0.2.1\t{FORGED}",
    f"x\n2026-11-23T03:05:01+0000 [qmailldap.pop3#info] refused user=x {FORGED}",
    f"x\r {FORGED}",
    f"x\x1b[2K\x1b[1A {FORGED}",
    f"refused user=x {FORGED}",
    f"[qmailldap.pop3#info] refused user=x {FORGED}",
    f"2026-11-23T03:05:01+0000 [qmailldap.pop3#info] refused user=x {FORGED}",
    f"\\x22 {FORGED}",
    f"\u2028\x85\xa0{FORGED}",
    "x" * 120 + f'" {FORGED}',
    "x" * 8000 + f'" {FORGED}',
)
"""What would have somebody else banned, if the log let it through."""


class FilterTests(SiteTestCase):
    async def found(self, log: str, mode: str = "normal") -> list[str]:
        """The address of each line of the log that the filter matches."""
        configuration = self.directory / "fail2ban"
        if not configuration.exists():
            shutil.copytree("/etc/fail2ban", configuration)
            shutil.copytree(CONTRIB, configuration, dirs_exist_ok=True)
        path = self.directory / "log"
        path.write_text(log)
        return await self._fail2ban(
            "fail2ban-regex", "-c", configuration, "-o", "ip", path, f"qmailldap[mode={mode}]"
        )

    async def _fail2ban(self, *arguments: str | Path) -> list[str]:
        assert shutil.which("fail2ban-regex"), "not found; apt-get install fail2ban"
        finished = await run([str(argument) for argument in arguments], _LIMIT)
        self.assertEqual(finished.code, 0, finished.text)
        return finished.output.decode().split()

    async def guess(self, source: str, names: Sequence[str], password: str = "wrong-one") -> None:
        """A try for each of the names, from that address."""

        def session(name: str) -> None:
            connection = Conversation(self.server.port, source=source)
            # Of all ways to log in, the one in which a name may be of any length, and have lines.
            connection.ask(b"AUTH PLAIN")
            connection.ask(base64.b64encode(f"\0{name}\0{password}".encode()))
            connection.hang_up()

        for name in names:
            await deferToThread(session, name)

    async def test_only_the_addresses_of_those_who_guess_are_found(self) -> None:
        self.user("joe")
        self.user("eve", accountStatus="disabled")
        # Trusted, as all but those are made to wait for the answer to a wrong password.
        await self.start(pop3trusted="127.0.0.0/8")
        await self.guess("127.0.0.1", ["joe"], PASSWORD)
        await self.guess("127.0.0.2", ["joe"])
        await self.guess("127.0.0.3", ["eve"], PASSWORD)
        await self.guess("127.0.0.4", NAMES)
        log = self.server.log
        lines = re.findall(r"^\S+ \[qmailldap\.pop3#info\] refused user=", log, re.MULTILINE)
        self.assertEqual(len(lines), 2 + len(NAMES), log)
        guessers = ["127.0.0.2"] + ["127.0.0.4"] * len(NAMES)
        self.assertEqual(await self.found(log), guessers)
        # The same behind what syslog and multilog put before a line.
        for before in ("Nov 23 03:05:01 mx1 twistd[12]: ", "@400000006743e0a50f8c2b14 "):
            shown = "".join(before + line for line in log.splitlines(keepends=True))
            self.assertEqual(await self.found(shown), guessers)
        of_workers = re.sub("(?<=[^\n])$", " worker=2", log, flags=re.MULTILINE)
        self.assertEqual(await self.found(of_workers), guessers)

    async def test_a_mode_finds_those_too_who_only_take_up_room(self) -> None:
        lines = {
            refusal: "2026-11-23T03:05:01+0000 [qmailldap.pop3#info] refused"
            f' user="" peer=2001:db8::{number:x} session=abc'
            f' reason={refusal.name.lower().replace("_", "-")} detail=""\n'
            for number, refusal in enumerate(Refusal)
        }
        guesses = {Refusal.WRONG_CREDENTIALS, Refusal.TOO_MANY_GUESSES}
        nuisances = {
            Refusal.TLS_REQUIRED,
            Refusal.TOO_MANY_CONNECTIONS,
            Refusal.LOGIN_TIME,
            Refusal.HANDSHAKE_TIME,
        }
        for mode, meant in (("normal", guesses), ("aggressive", guesses | nuisances)):
            found = await self.found("".join(lines.values()), mode)
            peers = [f"peer={address} " for address in found]
            matched = {each for each in lines if any(peer in lines[each] for peer in peers)}
            self.assertEqual(matched, meant)
            self.assertEqual(len(found), len(meant))

    async def test_auth_pop_s_lines_are_read_as_well(self) -> None:
        line = '@400000006743e0a50f8c2b14 auth_pop: refused user="x y" peer=198.51.100.7 session=s'
        line += ' reason=wrong-credentials detail="wrong password"\n'
        self.assertEqual(await self.found(line), ["198.51.100.7"])

    async def test_the_jail_is_one_that_fail2ban_takes(self) -> None:
        configuration = self.directory / "fail2ban"
        shutil.copytree("/etc/fail2ban", configuration)
        # Only ours: those of the distribution want logs that need not be here.
        shutil.rmtree(configuration / "jail.d")
        shutil.copytree(CONTRIB, configuration, dirs_exist_ok=True)
        jail = configuration / "jail.d" / "qmailldap.conf"
        log = self.directory / "log"
        log.touch()
        text = jail.read_text().replace("/var/log/qmailldap-pop3/current", str(log))
        jail.write_text(text)
        await self._fail2ban("fail2ban-client", "-c", configuration, "--test")
        shown = await self._fail2ban("fail2ban-client", "-c", configuration, "-d")
        self.assertIn(str(log), " ".join(shown))
