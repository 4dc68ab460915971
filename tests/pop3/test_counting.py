"""What is counted of sessions, as the figures show it."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.figures import Tally, Together, together
from qmailldap.pop3 import Limits
from qmailldap.refusal import LoginRefused, Refusal
from tests.pop3.maildrop import Server


class _NoRoom:
    """An admission that turns everybody away."""

    def enter(self, host: str, make_room: Any) -> Any:
        raise LoginRefused(Refusal.TOO_MANY_CONNECTIONS, "none")


class CountingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.tally = Tally(Clock().seconds)

    def server(self, *messages: Any, **settings: Any) -> Server:
        return Server(*messages, tally=self.tally, **settings)

    @property
    def figures(self) -> Together:
        return together([self.tally.snapshot()])

    def sessions(self) -> dict[str, int]:
        values = self.figures.values["sessions"]
        return {kind: int(value) for (kind,), value in values.items() if value}

    def logins(self) -> dict[str, int]:
        values = self.figures.values["logins_total"]
        return {outcome: int(value) for (outcome,), value in values.items() if value}

    def test_a_session_waits_until_its_login_and_is_gone_at_its_end(self) -> None:
        server = self.server()
        self.assertEqual(self.sessions(), {"waiting": 1})
        server.log_in()
        self.assertEqual(self.sessions(), {"local": 1})
        server.connection.connectionLost(connectionDone)
        self.assertEqual(self.sessions(), {})
        self.assertEqual(self.figures.value("sessions_begun_total"), 1)
        minutes = self.figures.history(0)
        self.assertEqual((minutes[-1].logins, minutes[-1].sessions), (1, 1))

    def test_one_that_never_logs_in_is_gone_as_well(self) -> None:
        server = self.server()
        server.connection.connectionLost(connectionDone)
        self.assertEqual(self.sessions(), {})
        self.assertEqual(self.logins(), {})

    def test_logins_are_counted_by_what_came_of_them(self) -> None:
        server = self.server(limits=Limits(logins=5))
        for _ in range(2):
            server.say(b"USER joe\r\nPASS wrong\r\n")
        self.assertEqual(self.logins(), {"wrong-credentials": 2})
        self.assertEqual(sum(self.figures.histograms["login_seconds"][()][0]), 0)
        self.server().log_in()
        self.assertEqual(self.logins(), {"wrong-credentials": 2, "ok-local": 1})
        self.assertEqual(sum(self.figures.histograms["login_seconds"][()][0]), 1)
        self.assertEqual(self.figures.history(0)[-1].refusals, 2)

    def test_messages_and_octets_are_counted_as_they_are_sent(self) -> None:
        server = self.server(b"a\n.b\n", [b"c\n", b"d\n"]).log_in()
        server.say(b"RETR 1\r\n")
        # The dot is sent twice, lines end in two octets.
        self.assertEqual(self.figures.value("octets_sent_total"), 8)
        server.say(b"RETR 2\r\nTOP 2 0\r\n")
        self.assertEqual(self.figures.value("messages_sent_total"), 2)
        self.assertEqual(self.figures.value("octets_sent_total"), server.protocol._session.octets)

    def test_deletions_are_counted_when_they_are_done(self) -> None:
        server = self.server(b"a\n", b"b\n").log_in()
        server.say(b"DELE 1\r\nDELE 2\r\n")
        self.assertEqual(self.figures.value("deletions_total"), 0)
        server.say(b"QUIT\r\n")
        self.assertEqual(self.figures.value("deletions_total"), 2)

    def test_who_takes_too_long_is_refused_by_a_limit_and_is_no_login(self) -> None:
        server = self.server(limits=Limits(login_time=10))
        server.clock.advance(11)
        self.assertEqual(self.figures.value("limit_refusals_total", "login-time"), 1)
        self.assertEqual(self.logins(), {})

    def test_who_is_turned_away_is_no_session(self) -> None:
        server = self.server(admission=_NoRoom())
        self.assertIn(b"too many connections", server.greeting)
        self.assertEqual(self.figures.value("limit_refusals_total", "too-many-connections"), 1)
        self.assertEqual(self.figures.value("sessions_begun_total"), 0)
