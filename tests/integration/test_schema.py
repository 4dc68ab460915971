"""schema/qmail.schema, as a real slapd understands it."""

from __future__ import annotations

import re
from typing import Any

from .processes import run
from .server import PROJECT
from .site import SiteTestCase
from .slapd import SERVICE_DN, SERVICE_PASSWORD
from .users import SUFFIX, user_dn


class SchemaTests(SiteTestCase):
    async def search(self, *arguments: str) -> str:
        """What ldapsearch finds, logged in as the service account."""
        finished = await run(
            [
                *("ldapsearch", "-LLL", "-x", "-o", "ldif-wrap=no"),
                *("-H", f"ldap://{self.slapd.address}"),
                *("-D", SERVICE_DN, "-w", SERVICE_PASSWORD),
                *("-b", SUFFIX),
                *arguments,
            ],
            10,
        )
        self.assertEqual(finished.code, 0, finished.text)
        return finished.output.decode()

    async def start_slapd(self) -> None:
        self.slapd = self.new_slapd()
        await self.slapd.start()

    async def test_a_user_may_have_every_attribute(self) -> None:
        every: dict[str, Any] = {
            "mailMessageStore": "joe/Maildir",
            "mailHost": "mx1.example.org",
            "mailAlternateAddress": ["joseph@example.org", "j@example.org"],
            "mailForwardingAddress": ["joe@example.com", "joe@example.net"],
            "deliveryProgramPath": ["/bin/true", "/bin/false"],
            "qmailDotMode": "ldaponly",
            "deliveryMode": ["normal", "reply"],
            "mailReplyText": "Ich bin im Büro nicht zu erreichen.",
            "accountStatus": "active",
            "qmailAccountPurge": "1700000000",
            "mailQuotaSize": "1000000",
            "mailQuotaCount": "1000",
            "mailSizeMax": "50000",
        }
        self.user("joe", **every)
        await self.start_slapd()
        found = await self.search("uid=joe", *every)
        for name in every:
            self.assertIn(f"\n{name}:", found)

    async def test_attributes_that_describe_one_account_have_one_value(self) -> None:
        for name, values in (
            ("qmailUID", ["1000", "1001"]),
            ("qmailGID", ["1000", "1001"]),
            ("mailMessageStore", ["/a", "/b"]),
            ("mailHost", ["a.example.org", "b.example.org"]),
            ("mailReplyText", ["a", "b"]),
            ("accountStatus", ["active", "disabled"]),
            ("qmailAccountPurge", ["1", "2"]),
            ("mailQuotaSize", ["1", "2"]),
            ("mailQuotaCount", ["1", "2"]),
            ("mailSizeMax", ["1", "2"]),
        ):
            await self.assert_refused(name, values, "cannot have multiple values")

    async def test_ids_and_quotas_are_integers(self) -> None:
        for name in ("qmailUID", "qmailGID", "mailQuotaSize", "mailQuotaCount", "mailSizeMax"):
            await self.assert_refused(name, "1x", "value.*invalid")

    async def test_a_user_needs_an_address(self) -> None:
        await self.assert_refused("mail", None, "requires attribute 'mail'")

    async def test_host_and_status_ignore_case_and_the_message_store_does_not(self) -> None:
        self.user("joe", mailHost="mx1.example.org", mailMessageStore="/Var/Joe")
        await self.start_slapd()
        for matching in ("mailHost=MX1.Example.ORG", "accountStatus=ACTIVE"):
            self.assertIn(f"dn: {user_dn('joe')}", await self.search(matching, "dn"))
        self.assertEqual(await self.search("mailMessageStore=/var/joe", "dn"), "")

    async def assert_refused(self, name: str, values: str | list[str] | None, why: str) -> None:
        """A user with this attribute does not get into the directory."""
        attribute: dict[str, Any] = {name: values}
        self._entries.clear()
        self.user("joe", **attribute)
        slapd = self.new_slapd(f"slapd-{name}")
        with self.assertRaisesRegex(AssertionError, why):
            await slapd.start()

    async def test_the_lines_in_the_guide_are_good_for_slapd(self) -> None:
        guide = (PROJECT / "docs" / "administration.md").read_text()
        (sample,) = re.findall(r"```\n(include .*?)```", guide, re.DOTALL)
        (users,) = re.findall(r"```\n(dn: .*?)```", guide, re.DOTALL)
        own = str(PROJECT / "schema" / "qmail.schema")
        configuration, ldif = self.directory / "slapd.conf", self.directory / "users.ldif"
        place = self.directory / "database"
        place.mkdir()
        configuration.write_text(
            sample.replace("/etc/ldap/schema/qmail.schema", own).replace(
                "/var/lib/ldap", str(place)
            )
        )
        ldif.write_text(users)
        for command in (
            ["/usr/sbin/slaptest", "-u", "-f", str(configuration)],
            ["/usr/sbin/slapadd", "-f", str(configuration), "-l", str(ldif)],
        ):
            finished = await run(command, 10)
            self.assertEqual(finished.code, 0, finished.text)
