"""What of a server is made anew when a control file changes, and what is kept: a row for each."""

from __future__ import annotations

from typing import cast

from qmailldap.control import ControlError
from qmailldap.control.snapshot import NAMES
from qmailldap.generation import Generation
from tests.test_generations import GenerationsTestCase
from tests.tls.support import Identity, identity, shown_to

PARTS = ("directory", "proof", "local_users", "forwarder", "watch")
"""Of a `Generation`, what the next has as well where its facts are the same."""

Files = dict[str, str | None]


def pem(which: Identity) -> str:
    return which.both.decode()


FIRST, SECOND = (identity("a.example.org", number=number) for number in (0, 1))

SITE: Files = {
    "me": "mail1.example.org",
    "ldapserver": "192.0.2.1",
    "ldapbasedn": "dc=example,dc=org",
    "ldaplogin": "cn=pop3",
    "ldappassword": "secret",
    "ldaptls": "1",
    "ldapcacert": pem(FIRST),
    "ldapcluster": "1",
    "pop3routes": "mail2.example.org:192.0.2.12",
    "pop3clustertls": "2",
    "pop3clusterca": pem(FIRST),
    "ldaplocaldelivery": "1",
}
"""The files before the change, in which nothing is of no use."""

REBINDING: Files = {"ldaprebind": "1"}

CHANGES: tuple[tuple[Files, str, str | None, set[str]], ...] = (
    # Further files before it, the file that changes, to what, and what is made anew.
    ({}, "me", "mail9.example.org", {"forwarder"}),
    ({}, "ldapserver", "192.0.2.2", {"directory"}),
    ({}, "ldapserver", "192.0.2.1:3389", {"directory"}),
    ({}, "ldapserver", "192.0.2.1\n192.0.2.2", {"directory"}),
    ({}, "ldapbasedn", "dc=example,dc=com", {"directory"}),
    ({}, "ldapobjectclass", "qmailUser", {"directory"}),
    ({}, "ldaplogin", "cn=other", {"directory"}),
    ({}, "ldappassword", "another", {"directory"}),
    ({}, "ldaptimeout", "20", {"directory"}),
    ({"ldapserver": "ldaps://192.0.2.1"}, "ldaptls", "0", {"directory"}),
    ({}, "ldapcacert", pem(SECOND), {"directory"}),
    ({}, "ldapcacert", None, {"directory"}),
    ({}, "ldaprebind", "1", {"proof"}),
    # What binds have told of the one directory is not true of another.
    (REBINDING, "ldapserver", "192.0.2.2", {"directory", "proof"}),
    (REBINDING, "ldapbasedn", "dc=example,dc=com", {"directory", "proof"}),
    (REBINDING, "ldappassword", "another", {"directory", "proof"}),
    (REBINDING, "ldapcacert", pem(SECOND), {"directory", "proof"}),
    (REBINDING, "pop3routes", None, {"forwarder"}),
    ({}, "ldapcleartext", "1", {"proof"}),
    ({"ldapcleartext": "1"}, "ldapcleartext", "2", set()),
    ({}, "ldapuid", "1000", set()),
    ({}, "ldapgid", "1000", set()),
    ({}, "ldapmessagestore", "/var/mail", set()),
    ({}, "ldapdefaultdotmode", "both", set()),
    ({}, "defaultquotasize", "1000", set()),
    ({}, "defaultquotacount", "10", set()),
    ({}, "ldapcluster", "0", {"forwarder"}),
    ({}, "ldapclusterhosts", "pop.example.org", {"forwarder"}),
    ({}, "pop3routes", "mail2.example.org:192.0.2.13", {"forwarder"}),
    ({}, "pop3routes", None, {"forwarder"}),
    ({}, "pop3trusted", "192.0.2.0/24", set()),
    ({}, "pop3clustertls", "1", {"forwarder"}),
    ({}, "pop3clusterca", pem(SECOND), {"forwarder"}),
    ({}, "pop3clusterca", None, {"forwarder"}),
    ({"cert_pem": pem(FIRST)}, "requiretls", "1", set()),
    ({}, "pop3limits", "sessions:3", set()),
    ({}, "ldaplocaldelivery", "0", {"local_users"}),
    ({}, "dirmaker", "/bin/true", set()),
    ({}, "defaultdelivery", "./Mail/", {"local_users"}),
    ({}, "aliasempty", "./Mail/", {"local_users"}),
    ({}, "cert_pem", pem(FIRST), {"watch"}),
    ({"cert_pem": pem(FIRST)}, "cert_pem", None, {"watch"}),
    # The certificates of a listener are replaced, and not what listens by them.
    ({"cert_pem": pem(FIRST)}, "cert_pem", pem(SECOND), set()),
)


class FactsTests(GenerationsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.write(ldaptimeout=None, **SITE)

    def generation(self, before: Generation | None) -> Generation:
        return Generation.of(self.snapshot(), self.lasting, before)

    def test_a_changed_file_makes_anew_what_depends_on_it_and_nothing_else(self) -> None:
        for more, file, content, expected in CHANGES:
            given = {**SITE, **more}
            self.write(**given)
            before = self.generation(None)
            self.write(**{file: content})
            after = self.generation(before)
            anew = {part for part in PARTS if getattr(after, part) is not getattr(before, part)}
            self.assertEqual(anew, expected, (file, content))
            for part in anew - {"watch", "local_users"}:
                values = (getattr(before, part).value, getattr(after, part).value)
                self.assertIsNot(*values, (file, content))
            for each in self.directory.iterdir():
                each.unlink()

    def test_no_file_makes_nothing_anew_where_it_is_as_it_was(self) -> None:
        self.write(cert_pem=pem(FIRST))
        before = self.generation(None)
        self.write(**SITE)
        after = self.generation(before)
        for part in PARTS:
            self.assertIs(getattr(after, part), getattr(before, part), part)

    def test_there_is_a_row_for_every_control_file(self) -> None:
        changed = {file.replace("_", ".") for _, file, _, _ in CHANGES}
        self.assertEqual(changed, set(NAMES))


class CertificateTests(GenerationsTestCase):
    """They are shown when all that was prepared with them comes into force, and not before."""

    def setUp(self) -> None:
        super().setUp()
        self.load(cert_pem=pem(FIRST))

    @property
    def shown(self) -> bytes:
        certificates = self.generations.in_force.certificates
        assert certificates is not None
        return cast(bytes, shown_to(certificates)[0])

    def test_one_that_was_prepared_is_not_shown_once_that_is_aborted(self) -> None:
        self.successResultOf(self.prepare(cert_pem=pem(SECOND)))
        self.assertEqual(self.shown, FIRST.certificate)
        self.generations.abort()
        self.assertEqual(self.shown, FIRST.certificate)
        self.load()
        self.assertEqual(self.shown, SECOND.certificate)

    def test_one_that_comes_with_a_file_of_no_use_is_not_shown(self) -> None:
        for files, fault in (
            ({"ldaptls": "1", "ldapcacert": "none"}, "ldapcacert: "),
            ({"pop3clustertls": "2", "pop3clusterca": "none"}, "pop3clusterca: "),
            ({"dirmaker": "/not/what/the/broker/reads"}, "dirmaker: "),
        ):
            prepared = self.prepare(cert_pem=pem(SECOND), **files)
            failure = self.failureResultOf(prepared, ControlError)
            self.assertIn(fault, failure.getErrorMessage())
            self.assertEqual(self.shown, FIRST.certificate, fault)
            self.write(**cast(Files, dict.fromkeys(files)))
        self.load()
        self.assertEqual(self.shown, SECOND.certificate)
