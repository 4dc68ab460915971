"""Which files are taken for misspelt control files, and which are left alone."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.control.files import FILES
from qmailldap.control.strangers import strangers

# qmail-control(5) and what qmail-showctl of qmail-ldap shows besides.
QMAIL = """
    badmailfrom bouncefrom bouncehost concurrencylocal concurrencyremote defaultdomain defaulthost
    databytes doublebouncehost doublebounceto envnoathost helohost idhost localiphost locals
    morercpthosts percenthack plusdomain qmqpservers queuelifetime rcpthosts smtpgreeting
    smtproutes timeoutconnect timeoutremote timeoutsmtpd virtualdomains
"""
QMAIL_LDAP = """
    aliasdomains badmailfrom-unknown badrcptto bigbrother bouncemaxbytes custombouncetext
    goodmailaddr goodmailfrom ldapgrouplogin ldapgrouppassword locals.cdb morercpthosts.cdb
    outgoingip pbscachesize pbsenv pbsip pbsport pbssecret pbsservers pbstimeout qmqpcip
    quotawarning rbllist rcpthosts.cdb relaymailfrom remotecert signatures smtpcert
    smtpclustercookie tlsciphers tlsdheparams tlsremoteciphers Makefile
"""


class StrangersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def told(self, *names: str, mode: int = 0o600) -> dict[str, str]:
        """What is said of files with these names."""
        for path in self.directory.iterdir():
            path.unlink()
        for name in names:
            (self.directory / name).touch()
            (self.directory / name).chmod(mode)
        return {found.name: found.problem for found in strangers(str(self.directory))}

    def test_a_misspelt_name_is_told_with_the_one_that_is_meant(self) -> None:
        for name, meant in (
            ("ldapbasdn", "ldapbasedn"),
            ("ldap_server", "ldapserver"),
            ("LdapServer", "ldapserver"),
            ("LDAP-server", "ldapserver"),
            ("ldapservers", "ldapserver"),
            ("ldapserevr", "ldapserver"),
            ("ldappasswd", "ldappassword"),
            ("defaultquota", "defaultquotasize"),
            ("pop3route", "pop3routes"),
            ("Me", "me"),
            ("certpem", "cert.pem"),
        ):
            said = f"is not read; it may be meant for {meant}, which is missing"
            self.assertEqual(self.told(name), {name: said})

    def test_one_that_is_there_too_is_not_asked_for(self) -> None:
        said = self.told("ldapserver", "LdapServer")
        meaning = "is not read; the file of that meaning is ldapserver"
        self.assertEqual(said, {"LdapServer": meaning})

    def test_a_copy_that_was_put_aside_is_called_one(self) -> None:
        said = "is not read; it seems to be a copy of ldapserver"
        for name in ("~", ".bak", "-2024"):
            self.assertEqual(self.told(f"ldapserver{name}"), {f"ldapserver{name}": said})
        for name in ("#ldapserver#", ".ldapserver.swp", ".#ldapserver", ".ldapserver"):
            self.assertEqual(self.told(name), {name: said})
        self.assertIn("cert.pem.new", self.told("cert.pem.new"))

    def test_a_copy_of_a_secret_that_everybody_can_read_is_told(self) -> None:
        for name in ("ldappassword.bak", "cert.pem~"):
            self.assertNotIn("everyone", self.told(name)[name])
            told = self.told(name, mode=0o644)[name]
            self.assertTrue(told.endswith(". This one can be read by everyone"), told)
        said = self.told("ldappasswd", "ldappassword", mode=0o644)["ldappasswd"]
        self.assertEqual(
            said,
            "is not read; the file of that meaning is ldappassword."
            " This one can be read by everyone",
        )
        self.assertNotIn("everyone", self.told("me.bak", mode=0o644)["me.bak"])

    def test_what_the_original_has_given_up_is_told(self) -> None:
        said = self.told("ldapdefaultquota")["ldapdefaultquota"]
        self.assertIn("qmail-ldap has given it up: see defaultquotasize", said)
        said = self.told("ldapusername")["ldapusername"]
        self.assertEqual(said, "is not read; qmail-ldap has given it up")

    def test_what_begins_as_ours_do_is_told_although_nothing_is_like_it(self) -> None:
        for name in (
            "ldapssl",
            "ldaphost",
            "LDAPport",
            "pop3tls",
            ".pop3.swp",
            "ldap",
            "ldap" * 30,
        ):
            self.assertEqual(self.told(name), {name: "is not read; no control file has this name"})

    def test_an_attribute_is_no_control_file(self) -> None:
        for name, attribute in (("mailHost", "mailHost"), ("userpassword", "userPassword")):
            said = f"is not read; {attribute} is an attribute of records, and no control file"
            self.assertEqual(self.told(name), {name: said})

    def test_files_of_other_programs_are_left_alone(self) -> None:
        names = [*QMAIL.split(), *QMAIL_LDAP.split()]
        self.assertEqual(self.told(*names), {})
        self.assertEqual(self.told(*(f"{name}.bak" for name in names)), {})
        self.assertEqual(self.told(*(f"{name}s" for name in names)), {})

    def test_a_whole_directory_of_the_original_is_left_alone(self) -> None:
        names = {*QMAIL.split(), *QMAIL_LDAP.split(), *(file.name for file in FILES)}
        self.assertGreater(len(names), 80)
        self.assertEqual(self.told(*names), {})
        self.assertEqual(self.told(*(f".{name}.swp" for name in QMAIL_LDAP.split())), {})

    def test_control_files_and_what_is_like_none_are_left_alone(self) -> None:
        self.assertEqual(self.told(*(file.name for file in FILES)), {})
        self.assertEqual(
            self.told("README", ".git", ".gitignore", "notes", "x" * 200, "--", "my-ldap"), {}
        )

    def test_names_that_are_no_text_are_told_too(self) -> None:
        name = os.fsdecode(b"ldapserver\xff\x1b")
        self.assertEqual(list(self.told(name)), [name])

    @settings(deadline=None)
    @given(st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=60))
    def test_any_name_is_looked_at(self, name: str) -> None:
        if name in (".", "..") or len(name.encode()) > 255:
            return
        for found in self.told(name):
            self.assertEqual(found, name)
