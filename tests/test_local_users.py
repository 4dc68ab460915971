"""Users of passwd: whom the broker proves, and that answers take the same time."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmailldap import local_users
from qmailldap.account import HIGHEST_ID, LOWEST_ID, Account
from qmailldap.local_users import ANSWER_LIMIT, MOST_ASKED, LocalUsers, seconds_of_a_hash
from qmailldap.quota import Quota
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.threads import WAIT_LIMIT, Busy
from qmailldap.turns import MOST_WAITING

P = ParamSpec("P")
T = TypeVar("T")

HASH_TAKES = 0.5
"""What timing a hash says; no test computes one."""


class LocalUsersTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.under_way: list[Deferred[str]] = []
        self.asked: list[tuple[bytes, bytes]] = []
        self.hashes = 0
        self.offload_fails: Exception | None = None
        self.offload_hangs = False
        self.patch(local_users, "seconds_of_a_hash", lambda: HASH_TAKES)
        self.users = LocalUsers(self.ask, self.offload, "./Maildir/", self.clock)

    def ask(self, login: bytes, password: bytes) -> Deferred[str]:
        self.asked.append((login, password))
        self.under_way.append(Deferred())
        return self.under_way[-1]

    def offload(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        if self.offload_fails is not None:
            return fail(self.offload_fails)
        if self.offload_hangs:
            return Deferred()
        self.hashes += function is local_users.seconds_of_a_hash
        return maybeDeferred(function, *args, **kwargs)

    def prove(self, login: bytes = b"ann", password: bytes = b"secret") -> Deferred[bool | None]:
        return Deferred.fromCoroutine(self.users.prove(login, password))

    def pretend(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.users.pretend())

    def answer(self, answer: str, after: float = 0.0) -> bool | None:
        """What `prove` gives of an answer that came so many seconds later, and when it is due."""
        pending = self.prove()
        self.clock.advance(after)
        self.under_way.pop().callback(answer)
        return self.successResultOf(pending)

    def assert_done_after(self, seconds: float, pending: Deferred[Any]) -> None:
        self.clock.advance(seconds - 0.001)
        self.assertNoResult(pending)
        self.clock.advance(0.002)
        self.assertTrue(pending.called)


class ProveTests(LocalUsersTestCase):
    def test_yes_and_no_are_told_at_once(self) -> None:
        self.assertIs(self.answer("yes", 0.2), True)
        self.assertIs(self.answer("no", 0.2), False)
        self.assertEqual(self.asked, [(b"ann", b"secret")] * 2)

    def test_unknown_is_told_when_a_hash_would_be_done(self) -> None:
        self.answer("no", 0.3)
        pending = self.prove()
        self.clock.advance(0.1)
        self.under_way.pop().callback("unknown")
        self.assert_done_after(0.2, pending)
        self.assertIsNone(self.successResultOf(pending))

    def test_unknown_that_took_longer_is_told_at_once(self) -> None:
        self.answer("yes", 0.3)
        self.assertIsNone(self.answer("unknown", 0.31))

    def test_unknown_is_no_measure_for_later(self) -> None:
        self.answer("no", 0.3)
        self.answer("unknown", 2.0)
        self.assert_done_after(0.3, self.pretend())

    def test_pretending_takes_what_a_check_took_lately(self) -> None:
        self.answer("yes", 0.3)
        self.assert_done_after(0.3, self.pretend())
        self.assertEqual(len(self.asked), 1)
        for _ in range(64):
            self.answer("no", 0.7)
        self.assert_done_after(0.7, self.pretend())
        self.assertEqual(self.hashes, 0)

    # A test of times on a clock, in which a busy host is no fault.
    @settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(st.lists(st.integers(1, 900).map(lambda number: number / 1000), min_size=1, max_size=9))
    def test_what_pretends_takes_as_long_as_one_of_those_that_did_not(
        self, taken: list[float]
    ) -> None:
        LocalUsersTestCase.setUp(self)
        for seconds in taken:
            self.answer("no", seconds)
        for begin in (self.pretend, self.prove):
            waiting: Deferred[Any] = begin()
            if self.under_way:
                self.under_way.pop().callback("unknown")
            (delayed,) = self.clock.getDelayedCalls()
            left = delayed.getTime() - self.clock.seconds()
            self.assertTrue(any(abs(left - seconds) < 1e-6 for seconds in taken))
            self.clock.advance(left)
            self.assertTrue(waiting.called)

    def test_before_any_check_one_hash_is_the_measure(self) -> None:
        for _ in range(2):
            pending = self.prove()
            self.clock.advance(0.1)
            self.under_way.pop().callback("unknown")
            self.assert_done_after(HASH_TAKES - 0.1, pending)
            self.assert_done_after(HASH_TAKES, self.pretend())
        self.assertEqual(self.hashes, 1)
        self.answer("no", 0.3)
        self.assert_done_after(0.3, self.pretend())

    def test_a_hash_that_could_not_be_timed_is_timed_later(self) -> None:
        for error in (Busy("full"), MemoryError()):
            self.offload_fails = error
            self.successResultOf(self.pretend())
            self.assertIsNone(self.answer("unknown"))
        self.offload_fails = None
        self.assert_done_after(HASH_TAKES, self.pretend())

    def test_a_host_that_prefers_no_method_is_told_of_once(self) -> None:
        said: list[Any] = []
        self.patch(local_users._log, "warn", lambda text, **values: said.append(values["error"]))
        self.offload_fails = OSError("crypt_gensalt(3): Invalid argument")
        for _ in range(3):
            self.successResultOf(self.pretend())
        self.assertEqual(said, [self.offload_fails])

    def test_an_error_takes_as_long_as_a_check(self) -> None:
        self.answer("no", 0.3)
        for error in (OSError("the broker is gone"), Busy("full")):
            pending = self.prove()
            self.under_way.pop().errback(error)
            self.assert_done_after(0.3, pending)
            self.failureResultOf(pending, type(error))
        self.assert_done_after(0.3, self.pretend())

    def test_an_answer_that_never_comes_is_an_error(self) -> None:
        self.answer("no", 0.3)
        pending = self.prove()
        self.assert_done_after(ANSWER_LIMIT, pending)
        self.assertIn("no answer in 40 s", str(self.failureResultOf(pending, OSError).value))

    def test_few_are_asked_about_at_a_time_and_few_wait(self) -> None:
        all_of_them = [self.prove() for _ in range(MOST_ASKED * (1 + MOST_WAITING))]
        self.assertEqual(len(self.under_way), MOST_ASKED)
        self.failureResultOf(self.prove(), Busy)
        # Nor is whoever only pretends let in; it says nothing of it.
        self.successResultOf(self.pretend())
        for work in self.under_way:
            work.callback("no")
        self.assertEqual([self.successResultOf(each) for each in all_of_them], [False] * 84)

    def test_pretending_waits_in_the_same_queue(self) -> None:
        self.answer("no", 0.3)
        for _ in range(MOST_ASKED):
            self.prove()
        pending = self.pretend()
        self.clock.advance(1.0)
        self.assertNoResult(pending)
        self.under_way[0].callback("no")
        self.assertNoResult(pending)
        self.clock.advance(1.0)
        self.successResultOf(pending)

    def test_nobody_waits_for_ever(self) -> None:
        # The broker's answer is awaited for less than that.
        self.patch(local_users, "ANSWER_LIMIT", 10 * WAIT_LIMIT)
        for _ in range(MOST_ASKED):
            self.prove()
        last = self.prove()
        self.clock.advance(WAIT_LIMIT)
        self.failureResultOf(last, Busy)

    def test_a_hash_can_be_timed(self) -> None:
        self.assertGreater(seconds_of_a_hash(), 0)


class AccountTests(LocalUsersTestCase):
    def account(self, login: bytes = b"ann", /, **changes: Any) -> Deferred[Account]:
        fields: dict[str, Any] = {
            "name": os.fsdecode(login),
            "passwd": "x",
            "uid": 1000,
            "gid": 100,
            "gecos": "",
            "home": "/home/ann",
            "shell": "/bin/sh",
            **changes,
        }

        def getpwnam(name: str) -> pwd.struct_passwd:
            if name != os.fsdecode(login):
                raise KeyError(name)
            return pwd.struct_passwd(fields.values())

        self.patch(pwd, "getpwnam", getpwnam)
        return Deferred.fromCoroutine(self.users.account(login))

    def assert_refused(self, pending: Deferred[Account], refusal: Refusal) -> str:
        refused = self.failureResultOf(pending, LoginRefused).value
        self.assertIs(refused.refusal, refusal)
        detail: str = refused.detail
        return detail

    def test_an_entry_of_passwd_is_an_account(self) -> None:
        self.assertEqual(
            self.successResultOf(self.account()),
            Account(
                login=b"ann",
                dn="passwd:ann",
                uid=1000,
                gid=100,
                home="/home/ann",
                mailbox="/home/ann/Maildir",
                delivery="./Maildir/",
                names_both=False,
                asks_dot_qmail=True,
                quota=Quota(),
                max_message_size=0,
                mail_host=None,
            ),
        )

    def test_ids_of_the_system_are_refused(self) -> None:
        for number in (0, 33, LOWEST_ID - 1, HIGHEST_ID + 1):
            for name in ("uid", "gid"):
                detail = self.assert_refused(
                    self.account(**{name: number}), Refusal.RECORD_INCORRECT
                )
                self.assertEqual(detail, f"{name} is {number}, not 100 to 4294967294")
        for number in (LOWEST_ID, HIGHEST_ID):
            self.successResultOf(self.account(uid=number, gid=number))

    def test_a_home_must_be_absolute(self) -> None:
        for home in ("", "home/ann", "./ann"):
            self.assertIn(
                "is not absolute",
                self.assert_refused(self.account(home=home), Refusal.RECORD_INCORRECT),
            )

    def test_a_home_may_hold_what_the_administrator_likes(self) -> None:
        home = "/home/Ann's home, \udce9"
        account = self.successResultOf(self.account(home=home))
        self.assertEqual((account.home, account.mailbox), (home, f"{home}/Maildir"))

    def test_a_name_that_is_not_utf_8_is_shown_in_ascii(self) -> None:
        account = self.successResultOf(self.account(b"ann\xe9"))
        self.assertEqual((account.login, account.dn), (b"ann\xe9", r'passwd:"ann\xe9"'))

    def test_a_user_who_is_gone_meanwhile_may_be_back(self) -> None:
        pending = self.account()
        self.successResultOf(pending)
        gone = Deferred.fromCoroutine(self.users.account(b"eve"))
        self.assert_refused(gone, Refusal.TEMPORARY)

    def test_a_passwd_that_does_not_answer_is_not_waited_for_without_end(self) -> None:
        self.offload_hangs = True
        pending = self.account()
        self.clock.advance(ANSWER_LIMIT - 0.001)
        self.assertNoResult(pending)
        self.clock.advance(0.002)
        self.assert_refused(pending, Refusal.TEMPORARY)

    def test_a_passwd_that_cannot_be_read_is_a_temporary_error(self) -> None:
        for error, refusal in (
            (Busy("full"), Refusal.TEMPORARY),
            (OSError("no"), Refusal.TEMPORARY),
            (MemoryError(), Refusal.OUT_OF_MEMORY),
        ):
            self.offload_fails = error
            self.assert_refused(self.account(), refusal)
