"""What the administrator's socket answers, for all processes."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.admin import answers
from qmailldap.admin.answers import Answers
from qmailldap.admin.protocol import Peer
from qmailldap.admin.sessions import LONGEST_TEXT, Told
from qmailldap.present import Presence, Present
from qmailldap.workers.crew import Alone
from tests.loglevels import logged_lines

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
_fields = ("id", "user", "host", "kind", "doing", "tls", "member", "since", "octets")


class OneEntry:
    def __init__(self, present: Present, presence: Presence) -> None:
        self.kicked = False
        self._presence = presence
        present.enter(self)

    def presence(self) -> Presence:
        return self._presence

    def kick(self) -> None:
        self.kicked = True

    def stop(self, quiet: float) -> None:
        raise NotImplementedError

    def cut_off(self) -> bool:
        raise NotImplementedError


class WithOthers(Alone):
    """A crew whose other processes answer what they are given here."""

    others: tuple[Any, ...] = ()

    def ask(self, question: str, argument: Any = None) -> Deferred[list[Any]]:
        # As it comes from another process.
        asked = super().ask(question, json.loads(json.dumps(argument)))
        return asked.addCallback(lambda own: [*json.loads(json.dumps(own)), *self.others])


class AnswersTests(SynchronousTestCase):
    def setUp(self) -> None:
        clock = Clock()
        self.crew = WithOthers(clock)
        self.present = Present(clock)
        self.answers = Answers(self.crew, self.present, lambda: succeed(None)).by_name()  # type: ignore[arg-type]

    def on(self, **fields: Any) -> OneEntry:
        return OneEntry(self.present, Presence(**fields))

    def ask(self, question: str, **more: Any) -> Any:
        return self.successResultOf(self.answers[question](more, Peer(4711, 0)))

    def test_sessions_of_all_processes_are_told_in_the_order_of_their_time(self) -> None:
        self.on(id="b", user="joe", since=20.0, kind="local")
        self.on(id="a", since=10.0)
        other = {**dict.fromkeys(_fields, ""), "id": "c", "since": 15, "octets": 7}
        self.crew.others = ({"sessions": [other], "more": 3},)
        told = self.ask("sessions")
        self.assertEqual([each["id"] for each in told["sessions"]], ["a", "c", "b"])
        self.assertEqual(told["more"], 3)

    def test_those_of_one_user_are_told_if_that_is_asked(self) -> None:
        self.on(id="a", user="joe")
        self.on(id="b", user="jane")
        self.assertEqual(
            [each["id"] for each in self.ask("sessions", user="joe")["sessions"]], ["a"]
        )

    def test_of_too_many_the_rest_is_counted(self) -> None:
        self.patch(answers, "MOST_SESSIONS", 2)
        for since in range(5):
            self.on(since=float(since))
        told = self.ask("sessions")
        self.assertEqual(([each["since"] for each in told["sessions"]], told["more"]), ([0, 1], 3))

    def test_who_is_named_is_kicked_everywhere_and_the_log_says_by_whom(self) -> None:
        lines = logged_lines(self, "qmailldap.admin")
        joe, jane = self.on(id="a", user="joe"), self.on(id="b", user="jane")
        self.crew.others = (2, "x", True)
        self.assertEqual(self.ask("kick", who="joe"), 3)
        self.assertEqual((joe.kicked, jane.kicked), (True, False))
        self.assertEqual(lines, ["kicked who=joe sessions=3 by-uid=0 by-pid=4711"])

    def test_whatever_is_kicked_makes_one_line(self) -> None:
        lines = logged_lines(self, "qmailldap.admin")
        self.ask("kick", who='x" sessions=9\nlogin user=y \ud800')
        (line,) = lines
        self.assertTrue(line.isascii() and line.isprintable(), line)

    def test_nobody_is_kicked_by_no_name(self) -> None:
        waiting = self.on(id="a", user="")
        for who in ("", 7, None, "x" * 2000):
            with self.assertRaises(ValueError):
                self.ask("kick", who=who)
        self.assertFalse(waiting.kicked)

    @given(_json | st.fixed_dictionaries({"sessions": st.lists(_json), "more": _json}))
    def test_what_is_no_list_of_sessions_is_left_out(self, given: Any) -> None:
        self.assertEqual(Told.from_json(given).sessions, [])

    @given(st.sampled_from(_fields), _json | st.text(max_size=3 * LONGEST_TEXT))
    def test_a_session_with_anything_in_it_can_be_shown_or_is_left_out(
        self, field: str, given: Any
    ) -> None:
        good = {**dict.fromkeys(_fields, ""), "since": 1, "octets": 2}
        for session in Told.from_json({"sessions": [{**good, field: given}]}).sessions:
            for text in session.values():
                self.assertTrue(str(text).isprintable())
                self.assertLessEqual(len(str(text)), LONGEST_TEXT)
