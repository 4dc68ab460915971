"""Who is held to have guessed, how long they wait, and who is not punished for it."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.admission import Admission, Connections, Guesses, ScoreTable
from qmailldap.admission.scores import HALF_LIFE
from qmailldap.control import POP3Limits
from qmailldap.refusal import LoginRefused, Refusal

HERE = "192.0.2.1"
THERE = "192.0.2.2"


class GuessesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.table = ScoreTable.in_memory(64)
        self.addCleanup(self.table.close)

    def guesses(self, in_all: int = 50, per_login: int = 10) -> Guesses:
        limits = POP3Limits(guesses=in_all, guesses_per_login=per_login)
        return Guesses(self.clock, self.table, limits)

    def assert_refused(self, guesses: Guesses, host: str, login: bytes) -> str:
        with self.assertRaises(LoginRefused) as caught:
            guesses.check(host, login)
        self.assertIs(caught.exception.refusal, Refusal.TOO_MANY_GUESSES)
        return str(caught.exception.detail)

    def test_each_wrong_password_is_answered_later_than_the_one_before(self) -> None:
        guesses = self.guesses()
        delays = [guesses.wrong(HERE, b"joe") for _ in range(10)]
        self.assertEqual(delays, [2, 4, 6, 8, 10, 12, 14, 15, 15, 15])

    def test_other_numbers_hold_at_once_for_the_scores_there_are(self) -> None:
        guesses = self.guesses()
        for _ in range(5):
            guesses.wrong(HERE, b"joe")
        guesses.check(HERE, b"joe")
        guesses.limit_to(POP3Limits(guesses=0, guesses_per_login=5))
        self.assert_refused(guesses, HERE, b"joe")
        guesses.limit_to(POP3Limits(guesses=0, guesses_per_login=0))
        self.assertEqual(guesses.wrong(HERE, b"joe"), 0)

    def test_the_delay_fades(self) -> None:
        guesses = self.guesses()
        for _ in range(5):
            guesses.wrong(HERE, b"joe")
        self.clock.advance(2 * HALF_LIFE)
        self.assertEqual(guesses.wrong(HERE, b"joe"), 2 * (5 / 4 + 1))
        self.clock.advance(1000 * HALF_LIFE)
        self.assertEqual(guesses.wrong(HERE, b"joe"), 2)

    def test_one_who_tries_many_logins_waits_as_for_one(self) -> None:
        guesses = self.guesses()
        delays = [guesses.wrong(HERE, b"user%d" % number) for number in range(10)]
        self.assertEqual(delays, [2, 4, 6, 8, 10, 12, 14, 15, 15, 15])

    def test_one_telephone_is_refused_and_its_office_is_not(self) -> None:
        guesses = self.guesses()
        for _ in range(10):
            guesses.check(HERE, b"joe")
            guesses.wrong(HERE, b"joe")
        detail = self.assert_refused(guesses, HERE, b"joe")
        self.assertEqual(detail, "score 10.0, by wrong passwords for this login from 192.0.2.1")
        guesses.check(HERE, b"jane")

    def test_one_who_is_refused_adds_to_no_score(self) -> None:
        guesses = self.guesses()
        for _ in range(10):
            guesses.wrong(HERE, b"joe")
        for _ in range(1000):
            self.assert_refused(guesses, HERE, b"joe")
        self.clock.advance(HALF_LIFE)
        guesses.check(HERE, b"joe")
        guesses.check(HERE, b"jane")

    def test_an_address_past_its_threshold_is_refused_whoever_it_says_it_is(self) -> None:
        guesses = self.guesses()
        for number in range(50):
            guesses.check(HERE, b"user%d" % number)
            guesses.wrong(HERE, b"user%d" % number)
        for login in (b"joe", b"user1", b""):
            detail = self.assert_refused(guesses, HERE, login)
            self.assertEqual(detail, "score 50.0, by wrong passwords from 192.0.2.1")
        self.clock.advance(HALF_LIFE)
        guesses.check(HERE, b"joe")

    def test_fading_does_not_put_off_the_threshold_of_one_who_hurries(self) -> None:
        guesses = self.guesses()
        for number in range(50):
            guesses.wrong(HERE, b"user%d" % number)
            self.clock.advance(0.01)
        self.assert_refused(guesses, HERE, b"joe")

    def test_elsewhere_nobody_is_punished_for_guesses_at_the_same_login(self) -> None:
        guesses = self.guesses()
        for number in range(200):
            for _ in range(10):
                guesses.wrong(f"198.51.100.{number}", b"joe")
        guesses.check(HERE, b"joe")
        self.assertEqual(guesses.wrong(HERE, b"joe"), 2)

    def test_all_of_one_slash_64_is_one_guesser(self) -> None:
        guesses = self.guesses(in_all=10)
        for number in range(10):
            guesses.wrong(f"2001:db8::{number}", b"user%d" % number)
        self.assertIn("2001:db8::/64", self.assert_refused(guesses, "2001:db8::ff", b"joe"))
        guesses.check("2001:db8:0:1::", b"joe")

    def test_case_and_blanks_make_no_other_login(self) -> None:
        guesses = self.guesses()
        for login in (b"Joe Doe", b"joe doe", b"JOE  DOE", b" joe\tdoe "):
            delay = guesses.wrong(HERE, login)
        self.assertEqual(delay, 8)
        for _ in range(6):
            guesses.wrong(HERE, b"joe doe")
        self.assert_refused(guesses, HERE, b"jOE   doe")
        guesses.check(HERE, b"joedoe")

    def test_letters_that_a_directory_takes_for_others_make_no_other_login(self) -> None:
        guesses = self.guesses()
        for login in ("joë", "joe\u0308", "\uff2a\uff2f\u00cb", "\U0001d423oë"):
            delay = guesses.wrong(HERE, login.encode())
        self.assertEqual(delay, 8)
        for _ in range(6):
            guesses.wrong(HERE, "joë".encode())
        self.assert_refused(guesses, HERE, "\uff4aoë".encode())
        guesses.check(HERE, b"joe")

    def test_a_login_is_any_octets(self) -> None:
        guesses = self.guesses()
        for login in (b"", b"\xff\xfe", b"x" * 60_000, b"\0", "Jörg".encode()):
            guesses.check(HERE, login)
            guesses.wrong(HERE, login)

    def test_who_has_no_address_is_not_punished(self) -> None:
        guesses = self.guesses()
        for _ in range(100):
            guesses.check("", b"joe")
            self.assertEqual(guesses.wrong("", b"joe"), 0)

    def test_with_a_threshold_of_none_wrong_passwords_are_only_answered_late(self) -> None:
        for guesses in (self.guesses(0, 1000), self.guesses(1000, 0)):
            self.clock.advance(1000 * HALF_LIFE)
            for _ in range(100):
                guesses.check(HERE, b"joe")
                delay = guesses.wrong(HERE, b"joe")
            self.assertEqual(delay, 15)

    def test_with_no_threshold_at_all_nobody_is_punished(self) -> None:
        guesses = self.guesses(0, 0)
        for _ in range(100):
            guesses.check(HERE, b"joe")
            self.assertEqual(guesses.wrong(HERE, b"joe"), 0)

    def test_another_process_knows_the_guessers(self) -> None:
        guesses = self.guesses()
        for _ in range(10):
            guesses.wrong(HERE, b"joe")
        other = Guesses(self.clock, ScoreTable(self.table.fileno()), POP3Limits())
        self.assert_refused(other, HERE, b"joe")


class AdmissionTests(SynchronousTestCase):
    def setUp(self) -> None:
        table = ScoreTable.in_memory(64)
        self.addCleanup(table.close)
        self.admission = Admission(
            Connections(100, 1),
            Guesses(Clock(), table, POP3Limits(guesses=1, guesses_per_login=1)),
            lambda host: host == HERE,
        )

    def test_the_trusted_are_held_to_nothing(self) -> None:
        for _ in range(10):
            self.admission.enter(HERE, lambda: self.fail("had to go"))
            self.admission.check(HERE, b"joe")
            self.assertEqual(self.admission.wrong(HERE, b"joe"), 0)

    def test_others_are(self) -> None:
        self.admission.enter(THERE, lambda: None)
        self.admission.check(THERE, b"joe")
        self.assertEqual(self.admission.wrong(THERE, b"joe"), 2)
        for refused in (
            lambda: self.admission.enter(THERE, lambda: None),
            lambda: self.admission.check(THERE, b"joe"),
        ):
            with self.assertRaises(LoginRefused):
                refused()
