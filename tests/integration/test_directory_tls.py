"""Directory servers that are spoken to by TLS, or not at all; with certificates good and bad."""

from __future__ import annotations

import re
from pathlib import Path

from .certificates import write_authority, write_certificate
from .chain import ChainTestCase
from .popup import Popup
from .processes import Finished, run, wait_until
from .server import environment
from .slapd import Slapd
from .test_showctl import QMAILLDAP

ACCEPTED = "accepted"
NO_DIRECTORY = "-ERR [SYS/TEMP] unable to contact authorization server"
WRONG = "-ERR [AUTH] authorization failed"
UNREACHABLE = 2
LIMIT = 30.0
SOON = 15.0


class TLSTestCase(ChainTestCase):
    """A site whose directory servers are vouched for by an authority of its own, `ca`."""

    def setUp(self) -> None:
        super().setUp()
        self.ca = self.authority("ca")
        self.tls = {
            "ldaptls": "1",
            "ldapcacert": self.ca.read_text().partition("-----BEGIN PRI")[0],
        }

    def authority(self, name: str) -> Path:
        path = self.directory / name
        write_authority(path, f"the authority {name}")
        return path

    def server_of(
        self,
        name: str,
        *names: str,
        days: float = 1,
        ca: Path | None = None,
        host: str = "localhost",
        ldaps: bool = False,
    ) -> Slapd:
        """A directory server with a certificate for ``names``, by default ``host``."""
        file = self.directory / f"{name}.pem"
        write_certificate(file, *(names or (host,)), days=days, authority=ca or self.ca)
        return self.new_slapd(name, certificate=file, host=host, ldaps=ldaps)

    async def start_all(self, *servers: Slapd, **control: str) -> None:
        """Start them, and a POP3 server that asks them in this order."""
        addresses = "\n".join(each.address for each in servers)
        # No wrong password is to make the next one wait.
        files = {**self.tls, "pop3trusted": "127.0.0.0/8", **control}
        self.server = self.new_server(addresses, control=files)
        # All is read before rights are given up.
        (self.server.control / "ldapcacert").chmod(0o600)
        await self.together(self.server.start(), *(each.start() for each in servers))

    def of_no_use(self) -> dict[str, str]:
        """What the log has of servers that are of no use: why, by address."""
        line = r"\[qmailldap\.directory#error\] directory server (\S+) is of no use: (.*); next try"
        found = re.findall(line, self.server.log)
        self.assertEqual(len(dict(found)), len(found), "each is told once")
        return dict(found)

    def assert_told_nothing(self, *servers: Slapd) -> None:
        """Nobody has bound or searched there."""
        for slapd in servers:
            self.assertGreater(slapd.count("ACCEPT"), 0)
            self.assertEqual((slapd.count("BIND"), slapd.count("SRCH")), (0, 0), slapd.log)

    def assert_told_by_tls_only(self, slapd: Slapd) -> None:
        """Every connection that was used for anything had TLS before."""
        secured: set[str] = set()
        used = 0
        for connection, what in re.findall(
            r"conn=(\d+) (?:fd|op)=\d+ (TLS est|BIND|SRCH)", slapd.log
        ):
            if what == "TLS est":
                secured.add(connection)
            else:
                used += 1
                self.assertIn(connection, secured)
        self.assertGreater(used, 0)


class VerificationTests(TLSTestCase):
    async def test_none_but_a_server_that_proves_its_name_is_told_anything(self) -> None:
        self.user("joe")
        wrong_name = self.server_of("wrong-name", "ldap.example.org", ldaps=True)
        wrong_address = self.server_of("wrong-address", "localhost", host="127.0.0.1")
        expired = self.server_of("expired", days=-1)
        unknown = self.server_of("unknown", ca=self.authority("stranger"), ldaps=True)
        plain = self.new_slapd("plain")
        right = self.server_of("right")
        await self.start_all(wrong_name, wrong_address, expired, unknown, plain, right)
        self.assertEqual(await self.refusal_of("joe"), ACCEPTED)
        self.assertEqual(await self.refusal_of("joe", "wrong"), WRONG)
        reasons = self.of_no_use()
        refused = reasons.pop(plain.address)
        self.assertRegex(refused, r"^it refuses StartTLS \(control file ldaptls\): \w+")
        self.assertEqual(
            reasons,
            {
                wrong_name.address: "its certificate is for ldap.example.org",
                wrong_address.address: "its certificate is for localhost",
                expired.address: "its certificate has expired",
                unknown.address: "its certificate is of no authority that is trusted here",
            },
        )
        self.assert_told_nothing(wrong_name, wrong_address, expired, unknown, plain)
        self.assert_told_by_tls_only(right)

    async def test_both_kinds_of_tls_prove_passwords_both_ways_and_stand_in_for_each_other(
        self,
    ) -> None:
        self.user("joe")
        ldaps = self.server_of("ldaps", ldaps=True)
        starttls = self.server_of("starttls", host="127.0.0.1")
        await self.start_all(ldaps, starttls)
        by_hash = self.server
        addresses = f"{ldaps.address}\n{starttls.address}"
        by_bind = self.new_server(
            addresses,
            "by-bind",
            control={**self.tls, "ldaprebind": "1", "pop3trusted": "127.0.0.0/8"},
        )
        await by_bind.start()
        for slapd in (ldaps, starttls):
            for self.server in (by_hash, by_bind):
                self.assertEqual(await self.refusal_of("joe"), ACCEPTED)
                self.assertEqual(await self.refusal_of("joe", "wrong"), WRONG)
            self.assert_told_by_tls_only(slapd)
            slapd.kill()
        self.assertEqual(await self.refusal_of("joe"), NO_DIRECTORY)

    async def test_a_certificate_that_is_renewed_brings_the_server_back(self) -> None:
        self.user("joe")
        slapd = self.server_of("slapd", days=-1, ldaps=True)
        # The authorities of the system.
        self.server = self.new_server(slapd.address, variables={"SSL_CERT_FILE": str(self.ca)})
        await self.together(self.server.start(), slapd.start())
        self.assertEqual(await self.refusal_of("joe"), NO_DIRECTORY)
        self.assert_told_nothing(slapd)
        await slapd.stop()
        write_certificate(self.directory / "slapd.pem", "localhost", authority=self.ca)
        await slapd.start()
        await wait_until(lambda: "is up again" in self.server.log, SOON, "the server to be up")
        self.assertEqual(await self.refusal_of("joe"), ACCEPTED)
        self.assertEqual(self.of_no_use(), {slapd.address: "its certificate has expired"})

    async def test_a_server_that_does_not_end_a_handshake_is_left_in_time(self) -> None:
        self.user("joe")
        slow, right = self.server_of("slow", ldaps=True), self.server_of("right")
        await self.start_all(slow, right, ldaptimeout="2")
        self.assertEqual(await self.refusal_of("joe"), ACCEPTED)
        slow.kill()
        await slow.start()
        slow.pause()
        self.assertEqual(await self.refusal_of("joe"), ACCEPTED)
        slow.resume()


class CommandTests(TLSTestCase):
    async def command(self, *arguments: str) -> Finished:
        finished = await run([*QMAILLDAP, *arguments], LIMIT, environment=environment())
        for secret in self.secrets:
            self.assertNotIn(secret, finished.text)
        self.assertNotIn("Traceback", finished.text)
        return finished

    def chain(self, slapd: Slapd, name: str, **control: str) -> Popup:
        self.slapd = slapd
        return self.new_chain(name, control={**self.tls, **control})

    async def test_commands_verify_as_the_server_does(self) -> None:
        self.user("joe")
        right, expired = self.server_of("right"), self.server_of("expired", days=-1, ldaps=True)
        await self.together(right.start(), expired.start())
        good, bad = self.chain(right, "good"), self.chain(expired, "bad")
        unusable = self.chain(right, "unusable", ldapcacert="none")
        await self.assert_refused(bad, {"joe": UNREACHABLE})
        outcome = await self.outcome(good, "joe")
        self.assertEqual((outcome.code, outcome.answer[:3]), (0, "+OK"), outcome)
        places = [str(self.directory / name / "control") for name in ("good", "bad", "unusable")]
        expected = ("answers", "its certificate has expired", "holds no certificate")
        checks = (self.command("showctl", "--check", "--control", place) for place in places)
        for said, shown in zip(expected, await self.together(*checks), strict=True):
            self.assertIn(said, shown.text)
            self.assertEqual(shown.code, 0 if said == "answers" else 1, shown.text)
        lookups = (self.command("lookup", "--control", place, "joe") for place in places[:2])
        for said, shown in zip(
            ("mailbox", expected[1]), await self.together(*lookups), strict=True
        ):
            self.assertIn(said, shown.text)
        self.assert_told_nothing(expired)
        self.assert_told_by_tls_only(right)
        refused = await self.outcome(unusable, "joe")
        self.assertEqual(refused.code, 1)
        self.assertIn("ldapcacert", refused.errors)

    async def test_a_server_does_not_start_without_its_authorities(self) -> None:
        for name, address, ldaptls in (
            ("ldaps", "ldaps://localhost", "0"),
            ("starttls", "localhost", "1"),
        ):
            files = {"ldapcacert": "none", "ldaptls": ldaptls}
            server = self.new_server(address, name, control=files)
            finished = await server.refuse_to_start()
            self.assertNotEqual(finished.code, 0)
            self.assertIn("ldapcacert: holds no certificate in PEM format", finished.text)
