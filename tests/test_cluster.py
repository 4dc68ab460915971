"""Whose mail is here: reference.md, "The decision", step 4."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from qmailldap.account import Account
from qmailldap.cluster import Cluster
from qmailldap.control import Control, ServerAddress
from qmailldap.quota import Quota


def account(mail_host: str | None) -> Account:
    return Account(
        login=b"joe",
        dn="uid=joe",
        uid=1000,
        gid=1000,
        home="/home/joe",
        mailbox="/home/joe/Maildir",
        delivery="./Maildir/",
        names_both=False,
        quota=Quota(),
        max_message_size=0,
        mail_host=mail_host,
    )


class ClusterTests(SynchronousTestCase):
    def keeps(self, mail_host: str | None, *, clustering: bool = True) -> bool:
        control = Control(
            ldapserver=(ServerAddress("localhost"),),
            me="Mail1.example.org",
            ldapcluster=clustering,
            ldapclusterhosts=("old.example.org",),
        )
        return Cluster(control).keeps(account(mail_host))

    def test_a_record_without_a_host_is_here(self) -> None:
        self.assertTrue(self.keeps(None))

    def test_our_names_are_compared_without_case(self) -> None:
        self.assertTrue(self.keeps("MAIL1.EXAMPLE.ORG"))
        self.assertTrue(self.keeps("Old.Example.Org"))

    def test_another_host_is_not_here(self) -> None:
        self.assertFalse(self.keeps("mail2.example.org"))

    def test_a_dot_at_the_end_makes_it_another_name(self) -> None:
        self.assertFalse(self.keeps("mail1.example.org."))

    def test_without_clustering_everything_is_here(self) -> None:
        self.assertTrue(self.keeps("mail2.example.org", clustering=False))
