"""What the server's log has at each LOGLEVEL, and what it never has."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil

from . import clients
from .cluster import ClusterTestCase, mail_host
from .mailboxes import MESSAGES
from .server import Pop3Server
from .site import PASSWORD, SiteTestCase
from .slapd import SERVICE_DN
from .users import SUFFIX, user_dn

GUESS = "one-that-somebody-has-guessed"

BITS: dict[int, set[str]] = {
    1: {"refused mailbox-corrupted"},
    2: {"control", "refused mailbox-missing"},
    4: {
        "login",
        "logout",
        "refused mailbox-corrupted",
        "refused mailbox-missing",
        "refused wrong-credentials",
    },
    8: {"rights", "connect", "mailbox"},
    16: {"found", "proof", "account"},
    32: {"record", "defaults"},
    64: {"search", "bind"},
    128: {"connection"},
}
"""The lines of each bit, after all that `LogLevelTests` does to a server."""


def events(log: str) -> set[str]:
    """The names of all lines that are the package's own, those of refusals with their reason.

    Where Python is installed for root only, there are warnings of that; where a client has not yet
    closed its connection when the server is stopped, there is a line of that.
    """
    found = re.findall(r" \[qmailldap\.[a-z0-9_.]+#[a-z]+\] ([a-z]+) (?:.* (reason=\S+))?", log)
    names = {f"{name} {reason.removeprefix('reason=')}".strip() for name, reason in found}
    return names - ({"stop"} if " rights network=" in log else {"stop", "rights"})


def lines(log: str, event: str) -> list[str]:
    """What stands behind an event's name in each of its lines, without the session's id."""
    found = re.findall(rf" \[qmailldap\.[a-z0-9_.]+#[a-z]+\] {event} (.*)", log)
    return [re.sub(r" session=\S{12}$", "", line) for line in found]


class LogLevelTests(SiteTestCase):
    timeout = 120

    def setUp(self) -> None:
        super().setUp()
        self.user("joe", messages=[MESSAGES["plain"]], mailQuotaSize=1000000)
        incomplete = self.user("new")
        (incomplete.path / "cur").rmdir()
        self.incomplete = incomplete.path / "cur"
        corrupted = self.user("bad")
        (corrupted.path / "cur").rmdir()
        (corrupted.path / "cur").touch()
        self.user("gone", homeDirectory=str(self.directory / "nowhere"))
        # What is searched for in the log when a test ends; in other guises, too.
        self.secrets.add(GUESS)
        for octets in [secret.encode() for secret in self.secrets]:
            self.secrets |= {
                octets.hex(),
                base64.b64encode(octets).decode(),
                hashlib.sha1(octets).hexdigest(),
            }
        self.slapd = self.new_slapd()
        self.servers = 0

    async def log_at(self, *, tac: bool = False, rebind: int = 0, **loglevel: str) -> str:
        """What a server has logged from its start to its end with this environment."""
        self.servers += 1
        shutil.rmtree(self.incomplete, ignore_errors=True)
        server = self.new_server(
            self.slapd.address,
            f"server-{self.servers}",
            control={
                "ldapobjectclass": "qmailUser",
                "ldapgid": "nobody",
                "ldaprebind": str(rebind),
            },
            variables=loglevel,
            tac=tac,
        )
        await server.start()
        self.assertEqual(await self.try_at(server, "joe", PASSWORD), "accepted")
        self.assertEqual(await self.try_at(server, "new", PASSWORD), "accepted")
        for login, password in (("joe", GUESS), ("nobody", GUESS), ("bad", PASSWORD)):
            self.assertNotEqual(await self.try_at(server, login, password), "accepted")
        self.assertNotEqual(await self.try_at(server, "gone", PASSWORD), "accepted")
        await server.stop()
        return server.log

    async def try_at(self, server: Pop3Server, login: str, password: str) -> str:
        return await clients.refusal_of(server.port, login, password)

    def assert_shows(self, log: str, *bits: int) -> None:
        self.assertEqual(events(log), set().union(*(BITS[bit] for bit in bits)), bits)

    async def test_unset_it_shows_errors_warnings_and_logins(self) -> None:
        await self.slapd.start()
        self.assert_shows(await self.log_at(), 1, 2, 4)

    async def test_each_bit_shows_its_lines_and_no_others(self) -> None:
        await self.slapd.start()
        for bit in BITS:
            self.assert_shows(await self.log_at(LOGLEVEL=str(bit)), bit)

    async def test_0_shows_nothing(self) -> None:
        await self.slapd.start()
        log = await self.log_at(LOGLEVEL="0")
        self.assert_shows(log)
        self.assertIn("Server Shut Down.", log)

    async def test_all_bits_show_all_and_256_no_more(self) -> None:
        await self.slapd.start()
        for rebind in (0, 1):
            complete = await self.log_at(rebind=rebind, LOGLEVEL="255")
            self.assert_shows(complete, *BITS)
            self.assert_shows(await self.log_at(rebind=rebind, LOGLEVEL="511"), *BITS)
        self.assert_shows(await self.log_at(LOGLEVEL="256"))

    async def test_a_value_that_is_no_number_is_told_of(self) -> None:
        await self.slapd.start()
        log = await self.log_at(LOGLEVEL="everything")
        self.assertEqual(lines(log, "environment"), ["LOGLEVEL is not a number: 'everything'"])
        self.assertEqual(events(log) - {"environment"}, BITS[1] | BITS[2] | BITS[4])

    async def test_a_number_that_is_not_all_of_a_value_counts_and_is_told_of(self) -> None:
        await self.slapd.start()
        log = await self.log_at(LOGLEVEL="0x10")
        self.assertEqual(
            lines(log, "environment"), ["LOGLEVEL is not a number: '0x10' counts as 0"]
        )
        self.assertEqual(events(log), {"environment"})

    async def test_debuglevel_and_the_tac_file_do_as_well(self) -> None:
        await self.slapd.start()
        self.assert_shows(await self.log_at(DEBUGLEVEL="20"), 4, 16)
        self.assert_shows(await self.log_at(tac=True, LOGLEVEL="20"), 4, 16)

    async def test_by_hash_the_log_tells_how_each_login_was_decided(self) -> None:
        await self.slapd.start()
        log = await self.log_at(LOGLEVEL="255")
        self.assert_tells_of_searches(log)
        self.assertEqual(
            lines(log, "proof")[:3],
            [
                "user=joe by=SSHA password=right",
                "user=new by=SSHA password=right",
                "user=joe by=SSHA password=wrong",
            ],
        )
        # The server's own connection is bound, and users are not.
        self.assertEqual(
            {re.sub(r" result.*", "", line) for line in lines(log, "bind")},
            {f'server={self.slapd.address} dn="{SERVICE_DN}"'},
        )

    async def test_by_rebind_the_log_tells_how_each_login_was_decided(self) -> None:
        await self.slapd.start()
        log = await self.log_at(rebind=1, LOGLEVEL="255")
        self.assert_tells_of_searches(log)
        self.assertEqual(lines(log, "proof")[2], "user=joe by=bind password=wrong")
        start = f'server={self.slapd.address} dn="{user_dn("joe")}" result='
        joes = [line.removeprefix(start) for line in lines(log, "bind") if line.startswith(start)]
        self.assertEqual(
            [re.sub(r" .*", "", result) for result in joes], ["success", "invalidCredentials"]
        )
        self.assertTrue(all(re.fullmatch(r"\S+ seconds=\d+\.\d{3}", line) for line in joes), joes)

    def assert_tells_of_searches(self, log: str) -> None:
        start = f'server={self.slapd.address} base="{SUFFIX}" filter="(&(objectClass=qmailUser)'
        searches = [line for line in lines(log, "search") if line.startswith(start)]
        for search, login, entries in zip(
            searches, ("joe", "new", "joe", "nobody"), (1, 1, 1, 0), strict=False
        ):
            self.assertRegex(
                search.removeprefix(start),
                rf'^\(uid={login}\)\)" entries={entries} result=success seconds=\d+\.\d{{3}}$',
            )
        self.assertEqual(len(searches), 6)
        found = lines(log, "found")
        self.assertEqual(found[0], f'user=joe entries=1 dn="{user_dn("joe")}"')
        self.assertEqual(found[3], "user=nobody entries=0")
        self.assertIn("mailQuotaSize=1000000", lines(log, "record")[0])
        self.assertIn(f"home={self.directory}/homes/0 ", lines(log, "account")[0])
        self.assertEqual(lines(log, "defaults")[0], "user=joe defaultdelivery=./Maildir/")
        self.assertIn("became=opened", lines(log, "connection")[0])


class ForwardingTests(ClusterTestCase):
    async def test_the_log_tells_of_a_session_that_is_forwarded(self) -> None:
        self.user("joe", mailHost=mail_host(2))
        self.slapd = self.new_slapd()
        variables = {"LOGLEVEL": "24"}
        for number, trusted in ((1, ""), (2, "127.0.0.0/8"), (3, "")):
            self.new_member(
                number,
                self.routes(3),
                {"pop3trusted": trusted} if trusted else {},
                variables=variables,
            )
        await self.start_members()
        self.assertEqual(await self.refusal_at(1, "joe"), "accepted")
        mailhost = f"mailhost={mail_host(2)}"
        member = rf"{mailhost} member={self.address(2)} tls=no xclient=yes\n"
        await self.in_log(1, rf" forwarding user=joe session=\S+ {member}")
        await self.in_log(1, rf" account user=joe mail=elsewhere {mailhost} session=\S+\n")
        where = f"host=127.0.0.2 port={self.port} addresses=127.0.0.2"
        await self.in_log(1, rf" addresses {mailhost} {where} session=\S+\n")
        self.assertEqual(
            events(self.members[1].log),
            {"connect", "rights", "found", "proof", "account", "addresses", "forwarding"},
        )
