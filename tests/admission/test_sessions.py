"""How many sessions one user has at a time."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from qmailldap.admission import Sessions, SharedCounts
from qmailldap.refusal import LoginRefused, Refusal


class SessionsTests(SynchronousTestCase):
    def test_a_user_has_as_many_as_it_may(self) -> None:
        sessions = Sessions(2)
        first = sessions.enter(b"uid=joe")
        sessions.enter(b"uid=joe")
        with self.assertRaises(LoginRefused) as caught:
            sessions.enter(b"uid=joe")
        self.assertIs(caught.exception.refusal, Refusal.TOO_MANY_SESSIONS)
        self.assertEqual(caught.exception.detail, "2 of this user")
        sessions.enter(b"uid=jane")
        first()
        sessions.enter(b"uid=joe")

    def test_the_end_of_a_session_counts_once(self) -> None:
        sessions = Sessions(2)
        first = sessions.enter(b"uid=joe")
        sessions.enter(b"uid=joe")
        first()
        first()
        sessions.enter(b"uid=joe")
        with self.assertRaises(LoginRefused):
            sessions.enter(b"uid=joe")

    def test_there_may_be_no_limit(self) -> None:
        sessions = Sessions(0)
        for _ in range(1000):
            sessions.enter(b"uid=joe")()

    def test_those_of_exempt_clients_do_not_count(self) -> None:
        sessions = Sessions(1, lambda host: host == "192.0.2.1")
        leave = [sessions.enter(b"uid=joe", "192.0.2.1") for _ in range(10)]
        sessions.enter(b"uid=joe", "192.0.2.2")
        for each in leave:
            each()
        with self.assertRaises(LoginRefused):
            sessions.enter(b"uid=joe", "192.0.2.2")

    def test_another_number_holds_at_once_and_counts_those_who_are_there(self) -> None:
        sessions = Sessions(3)
        leave = [sessions.enter(b"joe") for _ in range(3)]
        sessions.limit_to(2)
        leave.pop()()
        with self.assertRaises(LoginRefused):
            sessions.enter(b"joe")
        sessions.limit_to(0)
        sessions.enter(b"joe")()
        for each in leave:
            each()
        self.assertEqual(len(sessions), 0)

    def test_nothing_is_kept_of_users_who_have_left(self) -> None:
        sessions = Sessions(1)
        for number in range(100):
            sessions.enter(b"%d" % number)()
        self.assertEqual(len(sessions), 0)

    def test_workers_of_one_server_count_together(self) -> None:
        made = SharedCounts.create(2)
        self.addCleanup(made.close)
        counts = [SharedCounts.join(os.dup(made.fileno()), number) for number in range(2)]
        for each in counts:
            self.addCleanup(each.close)
        first, second = (
            Sessions(2, lambda host: host == "192.0.2.1", counts=each) for each in counts
        )
        first.enter(b"uid=joe", "192.0.2.1")
        leave = first.enter(b"uid=joe")
        second.enter(b"uid=joe")
        for sessions in (first, second):
            with self.assertRaises(LoginRefused) as caught:
                sessions.enter(b"uid=joe")
            self.assertEqual(caught.exception.detail, "2 of this user")
            sessions.enter(b"uid=jane")
        leave()
        leave()
        second.enter(b"uid=joe")
        with self.assertRaises(LoginRefused):
            first.enter(b"uid=joe")
        made.clear(1)
        first.enter(b"uid=joe")
