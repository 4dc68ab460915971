"""Who a login is, and that nothing is told before the password was right."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from twisted.cred.credentials import UsernamePassword
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.account import Account, AccountDefaults, Entry, RemoteAccount, parse_account
from qmailldap.checker import REFUSAL_GRID, HashProof, LDAPChecker, Proof, RebindProof
from qmailldap.directory import DirectoryUnavailable, EntryTooLarge
from qmailldap.local_users import LocalUsers
from qmailldap.passwords import StoredPassword, parse_password
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.threads import Busy

P = ParamSpec("P")
T = TypeVar("T")

PASSWORD = b"correct horse"
SSHA = b"{SSHA}" + base64.b64encode(hashlib.sha1(PASSWORD + b"salt").digest() + b"salt")
# bcrypt at its lowest cost, of another password: only that it is slow matters.
BCRYPT = b"{CRYPT}$2b$04$abcdefghijklmnopqrstuuVJ7SkvcOTTn4V5qlRMHYR5Dxq5TeS9e"


def here(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
    """Offloaded work, done at once."""
    return maybeDeferred(function, *args, **kwargs)


def record(*passwords: bytes, dn: str = "uid=joe,dc=x", **attributes: tuple[bytes, ...]) -> Entry:
    return Entry(
        dn,
        {
            "qmailuid": (b"1000",),
            "qmailgid": (b"1000",),
            "homedirectory": (b"/home/joe",),
            **({"userpassword": passwords} if passwords else {}),
            **attributes,
        },
    )


class FakeDirectory:
    """Entries by login, and what each bind answers."""

    def __init__(self, clock: Clock, **entries: tuple[Entry, ...]) -> None:
        self.entries = entries
        self.clock = clock
        self.down: Exception | None = None
        self.find_takes = 0.0
        self.binds: list[tuple[str, bytes]] = []
        self.bind_takes = 0.0

    async def find(self, login: bytes) -> tuple[Entry, ...]:
        if self.down is not None:
            raise self.down
        self.clock.advance(self.find_takes)
        return self.entries.get(login.decode("latin-1"), ())

    async def prove(self, dn: str, password: bytes) -> bool:
        self.binds.append((dn, password))
        self.clock.advance(self.bind_takes)
        return password == PASSWORD and not dn.startswith("uid=other")


class CheckerTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.directory = FakeDirectory(self.clock)

    def proof(self) -> Proof:
        raise NotImplementedError

    def checked(self, login: bytes, password: bytes) -> Deferred[Any]:
        if not hasattr(self, "checker"):
            self.checker = LDAPChecker(self.directory, self.proof(), AccountDefaults(), self.clock)
        return self.checker.requestAvatarId(UsernamePassword(login, password))

    def assert_let_in(self, login: bytes, password: bytes = PASSWORD) -> Account:
        account = self.successResultOf(self.checked(login, password))
        assert isinstance(account, Account)
        return account

    def assert_refused(
        self,
        refusal: Refusal,
        login: bytes,
        password: bytes = PASSWORD,
        shown: Refusal | None = None,
    ) -> LoginRefused:
        pending = self.checked(login, password)
        if (shown or refusal) is Refusal.WRONG_CREDENTIALS:
            self.assertNoResult(pending)
            self.clock.pump([REFUSAL_GRID] * 6)
        refused = self.failureResultOf(pending, LoginRefused).value
        assert isinstance(refused, LoginRefused)
        self.assertIs(refused.refusal, refusal)
        self.assertIs(refused.shown, shown or refusal)
        for text in (str(refused), refused.detail, repr(refused)):
            self.assertNotIn(PASSWORD.decode(), text)
            self.assertNotIn(SSHA.decode()[6:], text)
        return refused


class HashTests(CheckerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.offloaded: list[str] = []
        self.verified: list[str] = []
        verify = StoredPassword.verify
        verified = self.verified

        def watched(stored: StoredPassword, password: bytes) -> bool:
            verified.append(stored.cost)
            return verify(stored, password)

        self.patch(StoredPassword, "verify", watched)
        self.directory.entries = {"joe": (record(SSHA),)}

    def proof(self) -> Proof:
        def offload(function: Any, /, *args: Any, **kwargs: Any) -> Deferred[Any]:
            self.offloaded.append(function.__name__)
            return here(function, *args, **kwargs)

        return HashProof(offload)

    def test_the_right_password_gives_the_account(self) -> None:
        account = self.assert_let_in(b"joe")
        self.assertEqual((account.login, account.dn, account.uid), (b"joe", "uid=joe,dc=x", 1000))

    def elsewhere(self, **attributes: Any) -> LDAPChecker:
        """A checker that keeps no mail of mail2, where joe's is."""
        attributes = {"mailhost": (b"Mail2.example.org",), **attributes}
        self.directory.entries = {"joe": (record(SSHA, **attributes),)}
        return LDAPChecker(
            self.directory,
            self.proof(),
            AccountDefaults(),
            self.clock,
            keeps=lambda mail_host: mail_host.lower() != "mail2.example.org",
        )

    def test_whose_mail_is_elsewhere_is_judged_there(self) -> None:
        # That host may have defaults for what is missing here.
        self.checker = self.elsewhere(qmailuid=(), homedirectory=(), mailquotasize=(b"x",))
        self.assertEqual(
            self.successResultOf(self.checked(b"joe", PASSWORD)),
            RemoteAccount(b"joe", "uid=joe,dc=x", "Mail2.example.org"),
        )
        self.assert_refused(Refusal.WRONG_CREDENTIALS, b"joe", b"x")

    def test_whose_mail_is_elsewhere_may_be_kept_out_here(self) -> None:
        self.checker = self.elsewhere(accountstatus=(b"noaccess",))
        self.assert_refused(Refusal.ACCOUNT_DISABLED, b"joe")
        self.checker = self.elsewhere(mailhost=(b"Mail2.example.org", b"mail3"))
        self.assert_refused(Refusal.TEMPORARY, b"joe")

    def test_wrong_password_unknown_user_and_empty_password_are_the_same(self) -> None:
        said = {
            str(self.assert_refused(Refusal.WRONG_CREDENTIALS, login, password))
            for login, password in (
                (b"joe", b"x"),
                (b"nobody", PASSWORD),
                (b"joe", b""),
                (b"", b""),
            )
        }
        self.assertEqual(said, {"authorization failed"})

    def test_an_unknown_user_costs_what_the_commonest_hash_costs(self) -> None:
        self.directory.entries = {
            "joe": (record(SSHA),),
            "ann": (record(BCRYPT),),
            "eve": (record(BCRYPT),),
        }
        self.assert_refused(Refusal.WRONG_CREDENTIALS, b"nobody")
        self.assertEqual(self.verified, ["SSHA"])
        for login in (b"joe", b"ann", b"eve"):
            self.checked(login, b"x").addErrback(
                lambda failure: failure.trap(LoginRefused) and None
            )
        self.verified.clear()
        self.assert_refused(Refusal.WRONG_CREDENTIALS, b"nobody")
        self.assertEqual(self.verified, ["CRYPT $2b$04$"])

    def test_only_slow_hashes_leave_the_reactor(self) -> None:
        self.assert_let_in(b"joe")
        self.assertEqual(self.offloaded, [])
        self.directory.entries = {"joe": (record(BCRYPT),)}
        self.assert_refused(Refusal.WRONG_CREDENTIALS, b"joe")
        self.assertEqual(len(self.offloaded), 1)

    def test_a_record_without_password_is_as_good_as_none_and_takes_as_long(self) -> None:
        self.directory.entries = {"joe": (record(),)}
        refused = self.assert_refused(Refusal.WRONG_CREDENTIALS, b"joe")
        self.assertIn("no userPassword", refused.detail)
        self.assertEqual(self.verified, ["SSHA"])

    def test_a_hash_of_the_empty_password_lets_nobody_in(self) -> None:
        for value in (
            b"{SSHA}" + base64.b64encode(hashlib.sha1(b"salt").digest() + b"salt"),
            b"{MD5}" + base64.b64encode(hashlib.md5(b"").digest()),
        ):
            self.directory.entries = {"joe": (record(value),)}
            self.assert_refused(Refusal.WRONG_CREDENTIALS, b"joe", b"")

    def test_refusals_before_the_proof_come_at_multiples_of_one_time(self) -> None:
        answered = []
        for login, takes in ((b"joe", 0.001), (b"nobody", 0.0), (b"joe", 0.09), (b"joe", 0.12)):
            self.directory.find_takes = takes
            begun = self.clock.seconds()
            pending = self.checked(login, b"x")
            pending.addErrback(lambda failure: failure.trap(LoginRefused))
            while not pending.called:
                self.clock.advance(0.001)
            answered.append(round(self.clock.seconds() - begun, 3))
        self.assertEqual(answered, [0.1, 0.1, 0.1, 0.2])

    def test_a_guesser_who_does_not_wait_to_be_refused_is_refused_all_the_same(self) -> None:
        pending = self.checked(b"joe", b"x")
        pending.cancel()
        refused = self.failureResultOf(pending, LoginRefused).value
        self.assertEqual(refused.detail, "wrong password")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def slowly(self) -> Deferred[bool]:
        """From now on nothing is judged before this fires, and then as it says."""
        hashed: Deferred[bool] = Deferred()
        proof = HashProof(cast(Any, lambda *_: hashed))
        for _ in range(2):
            proof._decoys.seen(parse_password(BCRYPT))
        self.checker = LDAPChecker(self.directory, proof, AccountDefaults(), self.clock)
        return hashed

    def test_one_who_leaves_while_a_hash_is_computed_is_judged_to_the_end(self) -> None:
        # A right {SSHA} is answered at once, and so the first of these knows enough by then.
        for value in (SSHA, BCRYPT):
            self.directory.entries = {"joe": (record(value),)}
            hashed = self.slowly()
            pending = self.checked(b"joe", b"x")
            self.clock.advance(REFUSAL_GRID * 10)
            pending.cancel()
            self.assertNoResult(pending)
            hashed.callback(False)
            self.clock.advance(REFUSAL_GRID)
            refused = self.failureResultOf(pending, LoginRefused).value
            self.assertEqual(refused.detail, "wrong password")

    def test_nobody_is_let_in_who_has_left_by_then(self) -> None:
        self.directory.entries = {"joe": (record(BCRYPT),)}
        hashed = self.slowly()
        pending = self.checked(b"joe", PASSWORD)
        pending.cancel()
        hashed.callback(True)
        self.failureResultOf(pending, CancelledError)

    def test_one_of_few_cheap_hashes_costs_what_an_unknown_user_costs(self) -> None:
        self.directory.entries = {"joe": (record(SSHA),), "ann": (record(BCRYPT),)}
        self.assert_refused(Refusal.WRONG_CREDENTIALS, b"ann", b"x")
        self.assert_refused(Refusal.WRONG_CREDENTIALS, b"ann", b"x")
        self.verified.clear()
        self.assert_refused(Refusal.WRONG_CREDENTIALS, b"joe", b"x")
        self.assertEqual(self.verified, ["SSHA", "CRYPT $2b$04$"])

    def test_a_value_of_no_known_format_costs_what_an_unknown_user_costs(self) -> None:
        self.directory.entries = {"joe": (record(b"{SASL}joe@EXAMPLE"),)}
        self.assert_refused(Refusal.WRONG_CREDENTIALS, b"joe", b"x")
        self.assertIn("SSHA", self.verified)

    def test_a_malformed_hash_is_an_incorrect_record_that_strangers_do_not_hear_of(self) -> None:
        self.directory.entries = {"joe": (record(b"{SSHA}c2hvcnQ="),)}
        self.assert_refused(Refusal.RECORD_INCORRECT, b"joe", shown=Refusal.WRONG_CREDENTIALS)
        self.assertEqual(self.verified, ["SSHA"])

    def test_a_value_that_no_password_matches_is_told_in_the_log_alone(self) -> None:
        for value, why in (
            (b"*", "locked"),
            (b"{SASL}Zq7x@EXAMPLE", "{SASL} is a scheme that is not known here"),
            (b"{PLAIN}Zq7x", "{PLAIN} is clear text"),
            (b"Zq7xZq7x", "clear text?"),
        ):
            self.directory.entries = {"joe": (record(value),)}
            refused = self.assert_refused(Refusal.WRONG_CREDENTIALS, b"joe", b"Zq7xZq7x")
            self.assertIn("which no password matches: ", refused.detail)
            self.assertIn(why, refused.detail)
            self.assertNotIn("Zq7x", refused.detail)

    def test_clear_text_that_is_like_des_still_costs_its_hash(self) -> None:
        self.directory.entries = {"joe": (record(b"secret"),)}
        self.assert_refused(Refusal.WRONG_CREDENTIALS, b"joe", b"secret")
        self.assertEqual(self.verified, ["CRYPT DES"])
        self.assertEqual(len(self.offloaded), 1)

    def test_a_locked_password_takes_as_long_as_a_wrong_one(self) -> None:
        self.directory.entries = {"joe": (record(b"*"),)}
        self.assert_refused(Refusal.WRONG_CREDENTIALS, b"joe", b"*")
        self.assertEqual(self.verified, ["NEVER", "SSHA"])

    def test_a_hash_that_gets_no_memory_is_neither_right_nor_wrong(self) -> None:
        def starved(stored: StoredPassword, password: bytes) -> bool:
            raise MemoryError

        self.patch(StoredPassword, "verify", starved)
        self.assert_refused(Refusal.OUT_OF_MEMORY, b"joe")

    def test_a_disabled_account_is_told_only_with_the_right_password(self) -> None:
        self.directory.entries = {"joe": (record(SSHA, accountstatus=(b"disabled",)),)}
        self.assert_refused(Refusal.WRONG_CREDENTIALS, b"joe", b"x")
        self.assert_refused(Refusal.ACCOUNT_DISABLED, b"joe")

    def test_a_malformed_record_is_told_only_with_the_right_password(self) -> None:
        self.directory.entries = {"joe": (record(SSHA, qmailuid=(b"x",)),)}
        self.assert_refused(Refusal.WRONG_CREDENTIALS, b"joe", b"x")
        self.assert_refused(Refusal.RECORD_INCORRECT, b"joe")

    def test_two_passwords_are_a_temporary_error_for_who_knows_one(self) -> None:
        other = b"{SSHA}" + base64.b64encode(hashlib.sha1(b"other").digest())
        self.directory.entries = {"joe": (record(other, SSHA),)}
        self.assert_refused(Refusal.TEMPORARY, b"joe")
        self.assert_refused(Refusal.TEMPORARY, b"joe", b"other")
        self.assert_refused(Refusal.WRONG_CREDENTIALS, b"joe", b"x")

    def test_a_malformed_value_beside_the_right_one_does_not_hide_it(self) -> None:
        for values in ((b"{SSHA}!!", SSHA), (SSHA, b"{SSHA}!!"), (b"x", b"x", SSHA)):
            self.directory.entries = {"joe": (record(*values),)}
            refused = self.assert_refused(Refusal.TEMPORARY, b"joe")
            self.assertIn(f"{len(values)} values", refused.detail)

    def test_of_very_many_values_only_some_are_tried(self) -> None:
        self.directory.entries = {"joe": (record(*[BCRYPT] * 50),)}
        self.assert_refused(Refusal.WRONG_CREDENTIALS, b"joe", b"x")
        self.assertEqual(len(self.verified), 8)

    def test_two_entries_are_a_temporary_error_for_who_knows_a_password(self) -> None:
        self.directory.entries = {"joe": (record(SSHA), record(SSHA, dn="uid=joe,o=y"))}
        refused = self.assert_refused(Refusal.TEMPORARY, b"joe")
        self.assertIn("more than one entry", refused.detail)
        self.assert_refused(Refusal.WRONG_CREDENTIALS, b"joe", b"x")

    def test_two_entries_of_which_one_has_a_password_are_a_temporary_error(self) -> None:
        self.directory.entries = {"joe": (record(), record(SSHA, dn="uid=joe,o=y"))}
        self.assert_refused(Refusal.TEMPORARY, b"joe")

    def test_a_directory_that_is_down_is_said_to_be(self) -> None:
        self.directory.down = DirectoryUnavailable("no server answers")
        refused = self.assert_refused(Refusal.DIRECTORY_UNREACHABLE, b"joe")
        self.assertEqual(refused.detail, "no server answers")

    def test_a_record_too_large_to_be_read_is_not_told_to_strangers(self) -> None:
        self.directory.down = EntryTooLarge("an entry of 20000 octets")
        self.assert_refused(Refusal.RECORD_INCORRECT, b"joe", shown=Refusal.WRONG_CREDENTIALS)
        self.assertEqual(self.verified, ["SSHA"])

    def test_a_full_queue_is_a_temporary_error(self) -> None:
        self.directory.entries = {"joe": (record(BCRYPT),)}

        def full(function: object, /, *args: object, **kwargs: object) -> Deferred[Any]:
            return fail(Busy("full"))

        self.checker = LDAPChecker(self.directory, HashProof(full), AccountDefaults(), self.clock)
        self.assert_refused(Refusal.TEMPORARY, b"joe")


class RebindTests(CheckerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory.entries = {"joe": (record(),)}

    def proof(self) -> Proof:
        return RebindProof(self.directory, "dc=x", self.clock)

    def test_the_right_password_gives_the_account(self) -> None:
        self.assertEqual(self.assert_let_in(b"joe").uid, 1000)
        self.assertEqual(self.directory.binds, [("uid=joe,dc=x", PASSWORD)])

    def test_a_wrong_password_is_refused(self) -> None:
        self.assert_refused(Refusal.WRONG_CREDENTIALS, b"joe", b"x")

    def test_an_empty_password_never_reaches_the_directory(self) -> None:
        self.assert_refused(Refusal.WRONG_CREDENTIALS, b"joe", b"")
        self.assertNotIn(b"", [password for _, password in self.directory.binds])
        self.assertNotIn("uid=joe,dc=x", [dn for dn, _ in self.directory.binds])

    def test_the_first_unknown_user_binds_as_nobody(self) -> None:
        self.assert_refused(Refusal.WRONG_CREDENTIALS, b"nobody", b"guess")
        ((dn, _),) = self.directory.binds
        self.assertRegex(dn, r"\Auid=[0-9a-f]{16},dc=x\Z")

    def test_binds_as_nobody_are_no_measure_of_those_of_entries(self) -> None:
        self.assert_refused(Refusal.WRONG_CREDENTIALS, b"nobody", b"guess")
        self.directory.bind_takes = 0.25
        self.assert_let_in(b"joe")
        pending = self.checked(b"nobody", b"guess")
        self.clock.advance(0.24)
        self.assertNoResult(pending)
        self.clock.pump([0.01] * 6)
        self.failureResultOf(pending, LoginRefused)

    def test_guesses_at_one_entry_are_made_one_at_a_time(self) -> None:
        under_way: list[Deferred[bool]] = []

        async def slowly(dn: str, password: bytes) -> bool:
            under_way.append(Deferred())
            return await under_way[-1]

        self.directory.prove = slowly  # type: ignore[method-assign]
        guesses = [self.checked(b"joe", b"x") for _ in range(22)]
        self.assertEqual(len(under_way), 1)
        # The last one found too many before it, and is told nothing else than the others.
        self.clock.advance(REFUSAL_GRID)
        refused = self.failureResultOf(guesses[-1], LoginRefused).value
        self.assertEqual(
            (refused.refusal, refused.shown), (Refusal.TEMPORARY, Refusal.WRONG_CREDENTIALS)
        )
        under_way[0].callback(False)
        self.assertEqual(len(under_way), 2)
        for each in guesses[:-1]:
            each.addErrback(lambda failure: failure.trap(LoginRefused, CancelledError))
            each.cancel()
        # The directory goes on with the one it has begun.
        self.assertEqual(len(under_way), 2)

    def test_guesses_at_a_name_that_nobody_has_wait_for_each_other_as_well(self) -> None:
        self.directory.bind_takes = 0.22
        self.assert_let_in(b"joe")
        spellings = (b"nobody", b"NoBody", b" nobody  ")
        guesses = [self.checked(spelling, b"x") for spelling in spellings]
        answered = []
        begun = self.clock.seconds()
        for _ in range(100):
            self.clock.advance(0.01)
            answered.append(sum(guess.called for guess in guesses))
        self.assertEqual(begun + 1, round(self.clock.seconds(), 6))
        # 0.22 s each, one after the other, each held to a multiple of 0.1 s.
        self.assertEqual([answered.index(count) // 10 for count in (1, 2, 3)], [2, 4, 6])
        for guess in guesses:
            self.failureResultOf(guess, LoginRefused)

    def test_later_ones_wait_as_long_as_a_refused_bind_took(self) -> None:
        self.directory.bind_takes = 0.25
        self.assert_refused(Refusal.WRONG_CREDENTIALS, b"joe", b"x")
        for login, password in ((b"nobody", b"guess"), (b"joe", b"")):
            pending = self.checked(login, password)
            self.clock.advance(0.24)
            self.assertNoResult(pending)
            self.clock.pump([0.01] * 6)
            self.failureResultOf(pending, LoginRefused)
        self.assertEqual(len(self.directory.binds), 1)

    def test_two_entries_are_a_temporary_error_for_who_knows_a_password(self) -> None:
        self.directory.entries = {"joe": (record(dn="uid=other,dc=x"), record())}
        self.assert_refused(Refusal.TEMPORARY, b"joe")
        self.assert_refused(Refusal.WRONG_CREDENTIALS, b"joe", b"x")

    def test_the_password_values_of_a_record_do_not_matter(self) -> None:
        self.directory.entries = {"joe": (record(b"one", b"two"),)}
        self.assert_let_in(b"joe")

    def test_a_directory_that_is_down_is_said_to_be(self) -> None:
        async def down(dn: str, password: bytes) -> bool:
            raise DirectoryUnavailable("gone")

        self.directory.prove = down  # type: ignore[method-assign]
        self.assert_refused(Refusal.DIRECTORY_UNREACHABLE, b"joe")


class FakeLocalUsers:
    """Answers by login, and what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[bytes, bool | Exception] = {}
        self.asked: list[str] = []

    async def prove(self, login: bytes, password: bytes) -> bool | None:
        self.asked.append(f"prove {login.decode()}")
        answer = self.answers.get(login)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def pretend(self) -> None:
        self.asked.append("pretend")

    async def account(self, login: bytes) -> Account:
        self.asked.append(f"account {login.decode()}")
        return parse_account(login, record(dn=f"passwd:{login.decode()}"), AccountDefaults())


class LocalTests(CheckerTestCase):
    """The login is looked up in passwd where the directory does not know it, and only there."""

    def setUp(self) -> None:
        super().setUp()
        self.directory.entries = {"joe": (record(SSHA),)}
        self.local = FakeLocalUsers()
        self.local.answers = {b"ann": True, b"eve": False}
        self.checker = LDAPChecker(
            self.directory, self.proof(), AccountDefaults(), self.clock, self.local
        )

    def proof(self) -> Proof:
        return HashProof(here)

    def test_a_login_that_passwd_alone_knows_is_let_in(self) -> None:
        self.assertEqual(self.assert_let_in(b"ann").dn, "passwd:ann")
        self.assertEqual(self.local.asked, ["prove ann", "account ann"])

    def test_a_wrong_password_by_passwd_is_one(self) -> None:
        refused = self.assert_refused(Refusal.WRONG_CREDENTIALS, b"eve")
        self.assertEqual(refused.detail, "wrong password, by passwd")
        self.assertEqual(self.local.asked, ["prove eve"])

    def test_a_login_that_nobody_knows_is_refused(self) -> None:
        refused = self.assert_refused(Refusal.WRONG_CREDENTIALS, b"nobody")
        self.assertEqual(refused.detail, "no such user")
        self.assertEqual(self.local.asked, ["prove nobody"])

    def test_the_right_password_by_the_directory_asks_nobody_else(self) -> None:
        self.assertEqual(self.assert_let_in(b"joe").dn, "uid=joe,dc=x")
        self.assertEqual(self.local.asked, [])

    def test_a_wrong_password_by_the_directory_never_falls_through(self) -> None:
        self.local.answers[b"joe"] = True
        for entries in (
            (record(SSHA),),
            (record(SSHA, accountstatus=(b"deleted",)),),
            (record(),),
            (record(b"*"),),
            (record(b"{SSHA}c2hvcnQ="),),
            (record(SSHA), record(SSHA, dn="uid=joe,o=y")),
        ):
            self.directory.entries = {"joe": entries}
            self.local.asked.clear()
            pending = self.checked(b"joe", b"x")
            self.clock.advance(REFUSAL_GRID)
            refused = self.failureResultOf(pending, LoginRefused).value
            self.assertIs(refused.shown, Refusal.WRONG_CREDENTIALS)
            self.assertEqual(self.local.asked, ["pretend"])

    def test_an_entry_too_large_to_be_read_is_one_that_the_directory_knows(self) -> None:
        self.local.answers[b"joe"] = True
        self.directory.down = EntryTooLarge("an entry of 20000 octets")
        self.assert_refused(Refusal.RECORD_INCORRECT, b"joe", shown=Refusal.WRONG_CREDENTIALS)
        self.assertEqual(self.local.asked, ["pretend"])

    def test_a_directory_that_is_down_never_falls_through(self) -> None:
        self.directory.down = DirectoryUnavailable("no server answers")
        self.assert_refused(Refusal.DIRECTORY_UNREACHABLE, b"ann")
        self.assertEqual(self.local.asked, [])

    def test_what_the_directory_knows_and_passwd_too_is_refused_by_the_directory(self) -> None:
        self.local.answers[b"joe"] = True
        self.directory.entries = {"joe": (record(SSHA, qmailuid=(b"x",)),)}
        self.assert_refused(Refusal.RECORD_INCORRECT, b"joe")
        self.assertEqual(self.local.asked, [])

    def test_an_empty_password_is_never_asked_about(self) -> None:
        for login in (b"joe", b"ann", b"nobody"):
            refused = self.assert_refused(Refusal.WRONG_CREDENTIALS, login, b"")
            self.assertEqual(refused.detail, "empty password")
        self.assertEqual(self.local.asked, ["pretend"] * 3)

    def test_a_check_that_fails_is_told_to_the_log_alone(self) -> None:
        for error in (OSError("the broker is gone"), Busy("80 sessions wait")):
            self.local.answers[b"ann"] = error
            refused = self.assert_refused(
                Refusal.TEMPORARY, b"ann", shown=Refusal.WRONG_CREDENTIALS
            )
            self.assertEqual(refused.detail, f"passwd: {error}")

    def test_a_guesser_who_does_not_wait_to_be_refused_is_refused_all_the_same(self) -> None:
        done: Deferred[None] = Deferred()

        async def pretend() -> None:
            await done

        self.local.pretend = pretend  # type: ignore[method-assign]
        pending = self.checked(b"joe", b"x")
        pending.cancel()
        self.assertNoResult(pending)
        done.callback(None)
        self.clock.advance(REFUSAL_GRID)
        refused = self.failureResultOf(pending, LoginRefused).value
        self.assertEqual(refused.detail, "wrong password")

    def test_without_passwd_a_login_that_the_directory_does_not_know_is_refused(self) -> None:
        self.checker = LDAPChecker(self.directory, self.proof(), AccountDefaults(), self.clock)
        refused = self.assert_refused(Refusal.WRONG_CREDENTIALS, b"ann")
        self.assertEqual(refused.detail, "no such user")


class SameTimeTests(CheckerTestCase):
    """Whoever is refused, and whichever of the two knows them, it takes the same time."""

    def setUp(self) -> None:
        super().setUp()
        self.directory.bind_takes = 0.17
        self.directory.entries = {
            "joe": (record(SSHA),),
            "none": (record(),),
            "locked": (record(b"*"),),
            "malformed": (record(b"{SSHA}c2hvcnQ="),),
            "two": (record(SSHA), record(SSHA, dn="uid=two,o=y")),
        }

    def ask(self, login: bytes, password: bytes) -> Deferred[str]:
        """The broker: 0.25 s where a password is hashed, 0.02 s where none is."""
        if login == b"ann":
            return deferLater(self.clock, 0.25, lambda: "no")
        if login == b"broken":
            return fail(OSError("the broker is gone"))
        return deferLater(self.clock, 0.02, lambda: "unknown")

    def times(self, proof: Proof) -> dict[bytes, float]:
        local = LocalUsers(self.ask, here, "./Maildir/", self.clock)
        self.checker = LDAPChecker(self.directory, proof, AccountDefaults(), self.clock, local)
        times = {}
        logins = (b"ann", *map(str.encode, self.directory.entries), b"nobody", b"broken")
        for password in (b"x", b""):
            for login in logins:
                begun = self.clock.seconds()
                pending = self.checked(login, password)
                for _ in range(200):
                    if pending.called:
                        break
                    self.clock.advance(0.005)
                self.failureResultOf(pending, LoginRefused)
                times[login + b" " + password] = round(self.clock.seconds() - begun, 2)
        return times

    def test_by_hash(self) -> None:
        times = self.times(HashProof(here))
        # 0.25 s and then the next multiple of 0.1 s.
        self.assertEqual(times, dict.fromkeys(times, 0.3))

    def test_by_rebind(self) -> None:
        self.directory.entries = {"joe": (record(),)}
        proof = RebindProof(self.directory, "dc=x", self.clock)
        self.successResultOf(Deferred.fromCoroutine(proof.prove(b"joe", (record(),), PASSWORD)))
        times = self.times(proof)
        # 0.17 s, 0.25 s and then the next multiple of 0.1 s.
        self.assertEqual(times, dict.fromkeys(times, 0.5))
