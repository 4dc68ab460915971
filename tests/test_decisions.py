"""The lines on how a login is decided."""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.account import (
    ACCOUNT_ATTRIBUTES,
    Account,
    AccountDefaults,
    Entry,
    RemoteAccount,
    parse_account,
)
from qmailldap.decisions import tell_account, tell_found, tell_member, tell_proof
from qmailldap.quota import Quota

from .loglevels import log_at, logged_lines

DN = "uid=joe,dc=example,dc=org"
DEFAULTS = AccountDefaults(
    uid=5000, gid=5001, message_store="/var/vmail/", quota=Quota(1000, 10), delivery="./Maildir/"
)


def entry(dn: str = DN, **attributes: str) -> Entry:
    return Entry(dn, {name.lower(): (value.encode(),) for name, value in attributes.items()})


class DecisionTestCase(SynchronousTestCase):
    loglevel = 255

    def setUp(self) -> None:
        log_at(self, LOGLEVEL=self.loglevel)
        self.lines = logged_lines(self)

    def account(self, record: Entry) -> Account:
        return parse_account(b"joe", record, DEFAULTS)


class DebugTests(DecisionTestCase):
    """What 16 shows."""

    loglevel = 16

    def test_what_was_found(self) -> None:
        tell_found(b"joe", ())
        tell_found(b"joe", (entry(mailHost="a"),))
        tell_found(b"joe", (entry(), entry("uid=joe,ou=other")))
        self.assertEqual(
            self.lines,
            [
                "found user=joe entries=0",
                'found user=joe entries=1 dn="uid=joe,dc=example,dc=org"',
                'found user=joe entries=2 dn="uid=joe,dc=example,dc=org"',
                'found user=joe entries=2 dn="uid=joe,ou=other"',
            ],
        )

    def test_how_the_password_was_proved(self) -> None:
        tell_proof(b"joe", "SSHA", True)
        tell_proof(b"joe", "bind", False)
        tell_proof(b"joe", "passwd", None)
        self.assertEqual(
            self.lines,
            [
                "proof user=joe by=SSHA password=right",
                "proof user=joe by=bind password=wrong",
                "proof user=joe by=passwd password=unknown-user",
            ],
        )

    def test_where_the_mail_is(self) -> None:
        record = entry(homeDirectory="/home/joe", mailMessageStore="mail/", mailQuotaSize="5")
        tell_account(self.account(record), record, DEFAULTS)
        tell_account(attrs.evolve(self.account(record), quota=Quota()))
        tell_member(RemoteAccount(b"joe", DN, "mail2.example.org"))
        start = "account user=joe mail=here uid=5000 gid=5001 home=/home/joe mailbox=/home/joe/mail"
        self.assertEqual(
            self.lines,
            [
                f"{start} quota=5S,10C",
                f"{start} quota=none",
                "account user=joe mail=elsewhere mailhost=mail2.example.org",
            ],
        )


class DebugMoreTests(DecisionTestCase):
    """What 32 shows."""

    loglevel = 32

    def test_the_attributes_that_count(self) -> None:
        record = entry(accountStatus="active", MAILHOST="a b", userPassword="{SSHA}x", cn="Joe")
        tell_found(b"joe", (record, entry()))
        self.assertEqual(
            self.lines,
            [
                'record user=joe accountStatus=active mailHost="a b"',
                "record user=joe attributes=none",
            ],
        )

    def defaults(self, **attributes: str) -> str:
        """What is told of the defaults that a record leaves to the control files."""
        del self.lines[:]
        record = entry(**attributes)
        tell_account(self.account(record), record, DEFAULTS)
        return "".join(line.removeprefix("defaults user=joe ") for line in self.lines)

    def test_the_control_files_that_fill_the_gaps(self) -> None:
        self.assertEqual(
            self.defaults(mailMessageStore="joe"),
            "ldapuid=5000 ldapgid=5001 defaultquotasize=1000 defaultquotacount=10"
            " ldapmessagestore=/var/vmail/ defaultdelivery=./Maildir/",
        )
        ids = {"qmailUID": "2000", "qmailGID": "2001"}
        quota = {"mailQuotaSize": "0", "mailQuotaCount": "0"}
        self.assertEqual(
            self.defaults(mailMessageStore="/mail/joe", **ids, mailQuotaSize="1"),
            "defaultquotacount=10 defaultdelivery=./Maildir/",
        )
        self.assertEqual(
            self.defaults(homeDirectory="/home/joe", **ids, **quota), "defaultdelivery=./Maildir/"
        )

    def test_nothing_is_said_where_there_is_no_gap(self) -> None:
        complete = {name: "1000" for name in ACCOUNT_ATTRIBUTES if name[:5] in ("qmail", "mailQ")}
        paths = {"homeDirectory": "/home/joe", "mailMessageStore": "mail/"}
        self.assertEqual(self.defaults(**complete, **paths), "")

    def test_users_of_passwd_have_none(self) -> None:
        tell_account(self.account(entry(homeDirectory="/home/joe")))
        self.assertEqual(self.lines, [])


class AnyLoginTests(DecisionTestCase):
    @given(
        st.binary(max_size=300),
        st.text(max_size=300),
        st.dictionaries(st.sampled_from(ACCOUNT_ATTRIBUTES), st.binary(max_size=300)),
    )
    def test_nothing_of_it_can_harm_a_terminal_or_the_log(
        self, login: bytes, text: str, attributes: dict[str, bytes]
    ) -> None:
        del self.lines[:]
        values = {name.lower(): (value,) for name, value in attributes.items()}
        dn = text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
        tell_found(login, (Entry(dn, {**values, "userpassword": (b"{SSHA}a-hash",)}),))
        tell_member(RemoteAccount(login, dn, dn))
        self.assertEqual(len(self.lines), 3)
        for line in self.lines:
            self.assertTrue(line.isascii() and line.isprintable(), line)
            self.assertNotIn("a-hash", line)
