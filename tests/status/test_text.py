"""How a server stands, in a terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.status.state import Place, Refused, State, together_of
from qmailldap.status.text import NARROWEST, as_text
from qmailldap.status.words import count, latency, octets, span

from .support import NOW, one, places, refused, state, texts


def text(
    shown: State, *, users: bool = False, width: int | None = None, unicode: bool = True
) -> str:
    return as_text(shown, users=users, width=width, unicode=unicode)


class TextTests(SynchronousTestCase):
    def test_it_says_what_the_page_says(self) -> None:
        down = one(up=False, failed=NOW - 9, why="connection refused", latency=0.02)
        member = one("192.0.2.2:110", sessions=1)
        shown = text(state(servers=(down,), members=(member,), refusals=(refused(),), silent=(2,)))
        for expected in (
            "mail1.example.org",
            "Worker 2 does not answer.",
            "No directory server answers",
            "6: 3 with mail here, 2 forwarded, 1 before their login",
            "7.89 GB in 4321 messages",
            "1 d 1 h, version 1.2.3",
            "1 of 2 answer",
            "  ldap2:389  down  20 ms  last failure",
            "connection refused",
            "  192.0.2.2:110  up  1 session\n",
            "wrong-credentials 192.0.2.7",
            "most 14",
        ):
            self.assertIn(expected, shown)

    def test_a_pipe_gets_whole_lines(self) -> None:
        down = one(failed=NOW, why="x" * 250)
        self.assertIn("x" * 250, text(state(servers=(down,))))

    @given(
        st.lists(places, max_size=2),
        st.lists(texts, min_size=3, max_size=3),
        st.integers(1, 200),
        st.booleans(),
    )
    def test_no_line_is_wider_than_the_terminal_or_has_what_it_would_obey(
        self, names: list[Place], said: list[str], width: int, unicode: bool
    ) -> None:
        reason, peer, user = said
        shown = state(
            servers=together_of(names),
            members=together_of(names),
            refusals=(Refused(time=NOW, reason=reason, peer=peer, user=user),),
        )
        lines = text(shown, users=True, width=width, unicode=unicode).split("\n")
        for line in lines:
            self.assertLessEqual(len(line), max(width, NARROWEST), line)
            self.assertTrue(line.isprintable(), repr(line))
            self.assertTrue(unicode or line.isascii(), repr(line))

    def test_users_are_named_only_where_that_is_wanted(self) -> None:
        shown = state(refusals=(refused(user="joe"),))
        self.assertNotIn("joe", text(shown))
        self.assertIn("joe", text(shown, users=True))

    def test_a_server_that_has_just_started_has_something_to_show(self) -> None:
        self.assertIn("sessions", text(state(minutes=(), servers=(), silent=(1, 2)), width=40))


class WordsTests(SynchronousTestCase):
    def test_numbers_are_as_people_read_them(self) -> None:
        self.assertEqual([count(0), count(1234567)], ["0", "1\u202f234\u202f567"])
        self.assertEqual(
            [octets(number) for number in (0, 999, 1000, 12_345, 999_950, 10**9, 10**18)],
            ["0 octets", "999 octets", "1.00 kB", "12.3 kB", "1.00 MB", "1.00 GB", "1000 PB"],
        )
        self.assertEqual([latency(s) for s in (0.0021, 0.02, 1.25)], ["2.1 ms", "20 ms", "1.2 s"])
        self.assertEqual(
            [span(s) for s in (-1, 0, 59, 60, 3661, 86_400, 90_000)],
            ["0 s", "0 s", "59 s", "1 min", "1 h 1 min", "1 d", "1 d 1 h"],
        )
