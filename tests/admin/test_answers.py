"""What the administrator's socket answers, for all processes."""

from __future__ import annotations

import base64
import json
import os
import zlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.admin import sessions
from qmailldap.admin.answers import Answers
from qmailldap.admin.protocol import Peer
from qmailldap.admin.sessions import LONGEST_TEXT, Telling, Told, told
from qmailldap.present import Presence, Present
from qmailldap.workers.crew import Alone
from qmailldap.workers.frames import MOST_ANSWER
from tests.loglevels import logged_lines

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def packed(octets: bytes) -> str:
    return base64.b64encode(zlib.compress(octets)).decode("ascii")


_slices = st.lists(
    _json | st.binary(max_size=30).map(packed) | _json.map(json.dumps).map(str.encode).map(packed)
)
_fields = ("id", "user", "host", "kind", "doing", "tls", "member", "since", "octets")


class OneEntry:
    def __init__(self, present: Present, presence: Presence) -> None:
        self.kicked = self.is_updating = False
        self._presence = presence
        present.enter(self)

    def presence(self) -> Presence:
        return self._presence

    def kick(self) -> bool:
        self.kicked = True
        return not self.is_updating

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
        self.clock = clock = Clock()
        self.crew = WithOthers(clock)
        self.present = Present(clock)
        self.answers = Answers(self.crew, self.present, lambda: succeed(None)).by_name()  # type: ignore[arg-type]

    def on(self, **fields: Any) -> OneEntry:
        return OneEntry(self.present, Presence(**fields))

    def ask(self, question: str, **more: Any) -> Any:
        return self.successResultOf(self.answers[question](more, Peer(4711, 0)))

    def sessions(self, **more: Any) -> Told:
        """As the command has them."""
        asked = self.answers["sessions"](more, Peer(4711, 0))
        while not asked.called:
            self.clock.advance(0)
        return Told.of(json.loads(json.dumps(self.successResultOf(asked))))

    def test_sessions_of_all_processes_are_told_in_the_order_of_their_time(self) -> None:
        self.on(id="b", user="joe", since=20.0, kind="local")
        self.on(id="a", since=10.0)
        other = Telling()
        other.add(Presence(id="c", since=15, octets=7))
        self.crew.others = ({**other.to_json(), "more": 3},)
        told = self.sessions()
        self.assertEqual([each["id"] for each in told.sessions], ["a", "c", "b"])
        self.assertEqual(told.more, 3)

    def test_a_crowd_is_told_of_some_at_a_time_and_whole(self) -> None:
        for number in range(1001):
            self.on(id=str(number), since=float(number))
        asked = self.answers["sessions"]({}, Peer(4711, 0))
        self.assertNoResult(asked)
        told = self.sessions()
        self.assertEqual([each["since"] for each in told.sessions], [*range(1001)])
        self.assertEqual(told.more, 0)

    def test_those_of_one_user_are_told_if_that_is_asked(self) -> None:
        self.on(id="a", user="joe")
        self.on(id="b", user="jane")
        self.assertEqual([each["id"] for each in self.sessions(user="joe").sessions], ["a"])

    def test_of_too_many_the_rest_is_counted(self) -> None:
        self.patch(sessions, "_SLICE", 1)
        self.patch(sessions, "MOST_SESSIONS", 2)
        for since in range(5):
            self.on(since=float(since))
        told = self.sessions()
        self.assertEqual(([each["since"] for each in told.sessions], told.more), ([0, 1], 3))

    def test_of_those_with_long_names_as_many_are_told_as_a_frame_has_room_for(self) -> None:
        for _ in range(6000):
            self.on(user=os.urandom(2 * LONGEST_TEXT).hex())
        told = self.sessions()
        self.assertEqual(len(told.sessions) + told.more, 6000)
        self.assertGreater(len(told.sessions), 1000)
        self.assertGreater(told.more, 0)
        asked = self.crew.ask("sessions", {"user": ""})
        while not asked.called:
            self.clock.advance(0)
        (answer,) = self.successResultOf(asked)
        self.assertLess(len(json.dumps(answer)), MOST_ANSWER)

    def test_who_is_named_is_kicked_everywhere_and_the_log_says_by_whom(self) -> None:
        lines = logged_lines(self, "qmailldap.admin")
        joe, jane = self.on(id="a", user="joe"), self.on(id="b", user="jane")
        self.crew.others = ({"ended": 2, "updating": 1}, {"ended": True}, {"updating": -1}, 7, "x")
        self.assertEqual(self.ask("kick", who="joe"), {"ended": 3, "updating": 1})
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

    def test_one_that_is_updating_is_told_apart(self) -> None:
        self.on(user="joe").is_updating = True
        self.assertEqual(self.ask("kick", who="joe"), {"ended": 0, "updating": 1})

    @given(_json | st.lists(_json | st.fixed_dictionaries({"sessions": _slices, "more": _json})))
    def test_what_is_no_list_of_sessions_is_left_out(self, given: Any) -> None:
        self.assertEqual(Told.of(given).sessions, [])

    def test_a_slice_that_is_larger_than_any_is_not_unpacked(self) -> None:
        good = told(Presence())
        bomb = packed(json.dumps([good] * 100_000).encode())
        self.assertLess(len(bomb), 1_000_000)
        self.assertEqual(Told.of([{"sessions": [bomb], "more": 0}]).sessions, [])
        self.patch(sessions, "_MOST_UNPACKED", 1000)
        few = packed(json.dumps([good] * 3).encode())
        self.assertEqual(len(Told.of([{"sessions": [few] * 10}] * 10).sessions), 6)

    @given(st.sampled_from(_fields), _json | st.text(max_size=3 * LONGEST_TEXT))
    def test_a_session_with_anything_in_it_can_be_shown_or_is_left_out(
        self, field: str, given: Any
    ) -> None:
        good = {**dict.fromkeys(_fields, ""), "since": 1, "octets": 2}
        answer = {"sessions": [packed(json.dumps([{**good, field: given}]).encode())], "more": 0}
        for session in Told.of([answer]).sessions:
            for text in session.values():
                self.assertTrue(str(text).isprintable())
                self.assertLessEqual(len(str(text)), LONGEST_TEXT)
