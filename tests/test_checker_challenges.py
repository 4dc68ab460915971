"""Answers to challenges: who has given one, and that nothing is told to who has not."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.cred.credentials import (
    CramMD5Credentials,
    IUsernameHashedPassword,
    IUsernamePassword,
    UsernamePassword,
)
from twisted.cred.error import UnhandledCredentials
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.mail.pop3 import APOPCredentials
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.account import Account, AccountDefaults, Entry, RemoteAccount
from qmailldap.checker import REFUSAL_GRID, HashProof, LDAPChecker
from qmailldap.directory import DirectoryUnavailable, EntryTooLarge
from qmailldap.refusal import LoginRefused, Refusal
from tests.loglevels import log_at, logged_lines
from tests.test_checker import (
    PASSWORD,
    SSHA,
    CheckerTestCase,
    FakeDirectory,
    FakeLocalUsers,
    here,
    record,
)

CHALLENGE = b"<1896.697170952@postoffice.example.org>"
CLEAR = b"{CLEARTEXT}" + PASSWORD


def cram_md5(login: bytes, password: bytes) -> CramMD5Credentials:
    """RFC 2195's answer to the challenge, as a client gives it."""
    credentials = CramMD5Credentials()
    credentials.challenge = CHALLENGE
    digest = hmac.new(password, CHALLENGE, "md5").hexdigest().encode("ascii")
    credentials.username, credentials.response = login, digest
    return credentials


def apop(login: bytes, password: bytes) -> APOPCredentials:
    """RFC 1939's answer to the greeting."""
    digest = hashlib.md5(CHALLENGE + password).hexdigest()
    return APOPCredentials(CHALLENGE, login, digest)


ANSWERS = (cram_md5, apop)


class ChallengeTestCase(CheckerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.local = FakeLocalUsers()
        self.checker = self.make_checker()

    def make_checker(self, **options: Any) -> LDAPChecker:
        options = {"cleartext": True, **options}
        proof = HashProof(here, cleartext=options["cleartext"])
        return LDAPChecker(
            self.directory, proof, AccountDefaults(), self.clock, self.local, **options
        )

    def answered(self, credentials: Any) -> Deferred[Any]:
        return self.checker.requestAvatarId(credentials)

    def refused(self, credentials: Any, shown: Refusal = Refusal.WRONG_CREDENTIALS) -> LoginRefused:
        pending = self.answered(credentials)
        if shown is Refusal.WRONG_CREDENTIALS:
            self.assertNoResult(pending)
            self.clock.advance(REFUSAL_GRID)
        refused = self.failureResultOf(pending, LoginRefused).value
        assert isinstance(refused, LoginRefused)
        self.assertIs(refused.shown, shown)
        for text in (str(refused), refused.detail, repr(refused)):
            self.assertNotIn(PASSWORD.decode(), text)
        return refused


class AnswerTests(ChallengeTestCase):
    def test_the_right_answer_gives_the_account(self) -> None:
        for value in (CLEAR, b"{plain}" + PASSWORD, PASSWORD):
            self.directory.entries = {"joe": (record(value),)}
            for answer in ANSWERS:
                account = self.successResultOf(self.answered(answer(b"joe", PASSWORD)))
                assert isinstance(account, Account)
                self.assertEqual((account.login, account.dn), (b"joe", "uid=joe,dc=x"))

    def test_the_example_of_the_standard_is_right(self) -> None:
        # RFC 2195, section 2.
        self.directory.entries = {"tim": (record(b"{CLEAR}tanstaaftanstaaf"),)}
        credentials = CramMD5Credentials()
        credentials.challenge = b"<1896.697170952@postoffice.reston.mci.net>"
        credentials.setResponse(b"tim b913a602c7eda7a495b4e6e7334d3890")
        self.assertEqual(self.successResultOf(self.answered(credentials)).login, b"tim")

    def test_the_password_itself_is_right_as_well(self) -> None:
        for value in (CLEAR, PASSWORD):
            self.directory.entries = {"joe": (record(value),)}
            self.assert_let_in(b"joe")
            self.assert_refused(Refusal.WRONG_CREDENTIALS, b"joe", b"x")

    def test_every_refusal_is_the_same_to_a_stranger(self) -> None:
        self.directory.entries = {
            "clear": (record(CLEAR),),
            "hash": (record(SSHA),),
            "locked": (record(b"*"),),
            "none": (record(),),
            "malformed": (record(b"{SSHA}c2hvcnQ="),),
            "disabled": (record(CLEAR, accountstatus=(b"disabled",)),),
            "incorrect": (record(CLEAR, qmailuid=(b"x",)),),
            "two": (record(CLEAR), record(CLEAR, dn="uid=two,o=y")),
            "values": (record(CLEAR, SSHA),),
        }
        self.local.answers = {b"ann": True}
        said = set()
        for login in (*map(str.encode, self.directory.entries), b"ann", b"nobody", b""):
            for answer in ANSWERS:
                begun = self.clock.seconds()
                refused = self.refused(answer(login, b"wrong"))
                said.add((str(refused), round(self.clock.seconds() - begun, 3)))
        self.assertEqual(said, {("authorization failed", REFUSAL_GRID)})

    def test_a_hash_answers_nothing(self) -> None:
        self.directory.entries = {"joe": (record(SSHA),)}
        for answer in ANSWERS:
            for password in (PASSWORD, SSHA, SSHA[6:]):
                refused = self.refused(answer(b"joe", password))
                self.assertIs(refused.refusal, Refusal.WRONG_CREDENTIALS)
                self.assertIn("is not in clear text", refused.detail)

    def test_an_empty_password_answers_nothing(self) -> None:
        for value in (b"", b"{CLEARTEXT}", b"x", b"*"):
            self.directory.entries = {"joe": (record(value),)}
            for answer in ANSWERS:
                self.refused(answer(b"joe", b""))

    def test_who_has_answered_learns_what_else_is_wrong(self) -> None:
        for refusal, entries in (
            (Refusal.ACCOUNT_DISABLED, (record(CLEAR, accountstatus=(b"disabled",)),)),
            (Refusal.RECORD_INCORRECT, (record(CLEAR, qmailuid=(b"x",)),)),
            (Refusal.TEMPORARY, (record(CLEAR, SSHA),)),
            (Refusal.TEMPORARY, (record(CLEAR), record(CLEAR, dn="uid=joe,o=y"))),
        ):
            self.directory.entries = {"joe": entries}
            for answer in ANSWERS:
                self.assertIs(self.refused(answer(b"joe", PASSWORD), refusal).refusal, refusal)

    def test_whoever_passwd_knows_has_no_clear_text(self) -> None:
        self.local.answers = {b"ann": True}
        for answer in ANSWERS:
            refused = self.refused(answer(b"ann", PASSWORD))
            self.assertIs(refused.refusal, Refusal.WRONG_CREDENTIALS)
        self.assertEqual(self.local.asked, [])

    def test_a_directory_in_trouble_is_no_wrong_answer(self) -> None:
        self.directory.down = DirectoryUnavailable("no server answers")
        self.refused(cram_md5(b"joe", PASSWORD), Refusal.DIRECTORY_UNREACHABLE)
        self.directory.down = EntryTooLarge("an entry of 20000 octets")
        refused = self.refused(cram_md5(b"joe", PASSWORD))
        self.assertIs(refused.refusal, Refusal.RECORD_INCORRECT)

    def test_a_client_that_leaves_is_refused_all_the_same(self) -> None:
        pending = self.answered(cram_md5(b"joe", PASSWORD))
        pending.cancel()
        refused = self.failureResultOf(pending, LoginRefused).value
        self.assertIn("no such user", refused.detail)

    def test_the_member_that_has_the_mail_is_told_the_password(self) -> None:
        self.directory.entries = {"joe": (record(CLEAR, mailhost=(b"mail2",)),)}
        self.checker = self.make_checker(keeps=lambda mail_host: mail_host != "mail2")
        expected = RemoteAccount(b"joe", "uid=joe,dc=x", "mail2", PASSWORD)
        for answer in ANSWERS:
            remote = self.successResultOf(self.answered(answer(b"joe", PASSWORD)))
            self.assertEqual(remote, expected)
            self.assertNotIn(PASSWORD.decode(), repr(remote))
            self.assertNotIn(PASSWORD, b"".join(remote.environment().values()))
        # Who has sent it is known to have it.
        sent = self.successResultOf(self.checked(b"joe", PASSWORD))
        self.assertEqual(sent, attrs.evolve(expected, password=None))

    def test_the_log_tells_how_it_was_proved_and_not_the_password(self) -> None:
        self.directory.entries = {"joe": (record(CLEAR),)}
        log_at(self, LOGLEVEL=255)
        lines = logged_lines(self)
        self.successResultOf(self.answered(cram_md5(b"joe", PASSWORD)))
        self.refused(apop(b"joe", b"wrong"))
        text = "\n".join(lines)
        self.assertIn("proof user=joe by=challenge password=right", text)
        self.assertIn("proof user=joe by=challenge password=wrong", text)
        self.assertNotIn(PASSWORD.decode(), text)


class NotAskedForTests(ChallengeTestCase):
    """A site that has not asked for clear text has no challenges."""

    def setUp(self) -> None:
        super().setUp()
        self.checker = self.make_checker(cleartext=False)
        self.directory.entries = {"joe": (record(CLEAR),), "ann": (record(PASSWORD),)}

    def test_answers_are_taken_by_nobody(self) -> None:
        self.assertEqual(self.checker.credentialInterfaces, (IUsernamePassword,))
        for answer in ANSWERS:
            self.assertRaises(UnhandledCredentials, self.answered, answer(b"joe", PASSWORD))
        asked = self.make_checker().credentialInterfaces
        self.assertEqual(asked, (IUsernamePassword, IUsernameHashedPassword))

    def test_clear_text_is_the_password_of_nobody(self) -> None:
        for login in (b"joe", b"ann"):
            for password in (PASSWORD, CLEAR):
                self.assert_refused(Refusal.WRONG_CREDENTIALS, login, password)


class AnyAnswerTests(SynchronousTestCase):
    """Whatever stands in a record, and whatever a client answers."""

    @settings(max_examples=300)
    @given(
        login=st.binary(max_size=20),
        values=st.lists(
            st.builds(
                bytes.__add__,
                st.sampled_from((b"", b"{CLEARTEXT}", b"{SSHA}", b"{CRYPT}", b"{SASL}", b"!")),
                st.binary(max_size=40),
            ),
            max_size=3,
        ),
        password=st.binary(max_size=20),
        response=st.binary(max_size=40),
    )
    def test_it_is_refused_unless_it_follows_from_a_password_in_clear_text(
        self, login: bytes, values: list[bytes], password: bytes, response: bytes
    ) -> None:
        clock = Clock()
        entry: Entry = record(*values)
        directory = FakeDirectory(clock)
        directory.entries = {login.decode("latin-1"): (entry,)}
        checker = LDAPChecker(
            directory,
            HashProof(here, cleartext=True),
            AccountDefaults(),
            clock,
            cleartext=True,
        )
        wrong = CramMD5Credentials()
        wrong.challenge, wrong.username, wrong.response = CHALLENGE, login, response
        right = apop(login, password)
        for credentials, may_be_right in (
            (wrong, False),
            (right, any(value.endswith(password) for value in values) and password != b""),
        ):
            pending = checker.requestAvatarId(credentials)
            clock.advance(REFUSAL_GRID)
            self.assertEqual(clock.getDelayedCalls(), [])
            outcome: list[Any] = []
            pending.addBoth(outcome.append)
            if isinstance(outcome[0], Account):
                self.assertTrue(may_be_right)
                self.assertEqual(len(values), 1)
            else:
                refused = outcome[0].value
                self.assertIsInstance(refused, LoginRefused)
                if not may_be_right:
                    self.assertIs(refused.shown, Refusal.WRONG_CREDENTIALS)

    @settings(max_examples=100)
    @given(password=st.binary(min_size=1, max_size=80), other=st.binary(max_size=80))
    def test_one_password_alone_is_right(self, password: bytes, other: bytes) -> None:
        clock = Clock()
        directory = FakeDirectory(clock, joe=(record(b"{CLEARTEXT}" + password),))
        proof = HashProof(here, cleartext=True)
        checker = LDAPChecker(directory, proof, AccountDefaults(), clock, cleartext=True)
        # HMAC fills a key up with NULs (RFC 2104): with those it is the same key.
        for each in (password, other.rstrip(b"\0") or b"x"):
            is_right = each == password
            for credentials in (
                UsernamePassword(b"joe", each),
                cram_md5(b"joe", each),
                apop(b"joe", each),
            ):
                pending = checker.requestAvatarId(credentials)
                clock.advance(REFUSAL_GRID)
                if is_right:
                    self.successResultOf(pending)
                elif isinstance(credentials, CramMD5Credentials) and password.endswith(b"\0"):
                    pending.addErrback(lambda failure: None)
                else:
                    self.failureResultOf(pending, LoginRefused)
