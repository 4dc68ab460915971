"""The conversation on the administrator's socket."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.admin.protocol import (
    CONVERSATION_LIMIT,
    MOST_CONNECTIONS,
    MOST_REQUEST,
    AdminFactory,
    Peer,
)


class ProtocolTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[dict[str, Any]] = []
        self.later: Deferred[Any] = Deferred()
        self.factory = AdminFactory(
            self.clock, {"echo": self.echo, "later": lambda *_: self.later, "bad": self.bad}
        )

    def echo(self, question: Any, peer: Peer) -> Any:
        self.asked.append(question)
        return {"peer": peer.uid}

    def bad(self, question: Any, peer: Peer) -> Any:
        raise RuntimeError("a secret")

    def connect(self) -> Any:
        protocol: Any = self.factory.buildProtocol(None)
        protocol.makeConnection(StringTransport())
        return protocol

    def answer_to(self, *pieces: bytes) -> Any:
        protocol = self.connect()
        for piece in pieces:
            protocol.dataReceived(piece)
        return self.said(protocol)

    def said(self, protocol: Any) -> Any:
        """The one line; the connection is closed behind it."""
        octets = protocol.transport.value()
        if not octets:
            return None
        self.assertTrue(protocol.transport.disconnecting)
        self.assertEqual(octets.count(b"\n"), 1)
        return json.loads(octets)

    def test_a_line_is_answered_with_a_line(self) -> None:
        self.assertEqual(self.answer_to(b'{"ask": "echo", "a": 1}\n'), {"answer": {"peer": -1}})
        self.assertEqual(self.asked, [{"ask": "echo", "a": 1}])

    def test_a_line_may_come_in_pieces(self) -> None:
        question = b'{"ask": "echo"}\n'
        pieces = [question[place : place + 1] for place in range(len(question))]
        self.assertIn("answer", self.answer_to(*pieces))

    def test_what_follows_the_question_is_not_heeded(self) -> None:
        self.answer_to(b'{"ask": "echo"}\n{"ask": "echo"}\n', b'{"ask": "echo"}\n')
        self.assertEqual(len(self.asked), 1)

    def test_an_answer_that_takes_time_is_waited_for(self) -> None:
        protocol = self.connect()
        protocol.dataReceived(b'{"ask": "later"}\n')
        self.assertEqual(protocol.transport.value(), b"")
        self.later.callback([1])
        self.assertEqual(self.said(protocol), {"answer": [1]})

    def test_a_question_that_is_too_long_is_none(self) -> None:
        for pieces in ([b" " * (MOST_REQUEST + 1)], [b" " * MOST_REQUEST, b" {}\n"]):
            self.assertIn("too long", self.answer_to(*pieces)["error"])

    def test_whoever_says_nothing_is_cut_off(self) -> None:
        protocol = self.connect()
        self.clock.advance(CONVERSATION_LIMIT)
        self.assertTrue(protocol.transport.disconnected)

    def test_so_is_whoever_does_not_read_the_answer(self) -> None:
        protocol = self.connect()
        protocol.dataReceived(b'{"ask": "echo"}\n')
        self.clock.advance(CONVERSATION_LIMIT)
        self.assertTrue(protocol.transport.disconnected)

    def test_few_ask_at_a_time(self) -> None:
        others = [self.connect() for _ in range(MOST_CONNECTIONS)]
        self.assertIn("too many", self.answer_to(b"")["error"])
        for each in others:
            each.connectionLost()
        self.factory.connections -= 1  # the one above
        self.assertEqual(self.factory.connections, 0)
        self.assertIn("answer", self.answer_to(b'{"ask": "echo"}\n'))

    def test_no_timer_is_left_behind(self) -> None:
        self.connect().connectionLost()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_fault_of_the_server_is_in_its_log_and_not_in_the_answer(self) -> None:
        answer = self.answer_to(b'{"ask": "bad"}\n')
        self.assertNotIn("secret", answer["error"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    @given(st.binary(max_size=200) | st.sampled_from([b"[" * 4000, b"null", b'{"ask":[]}', b"{}"]))
    def test_whatever_is_asked_is_answered_by_an_error(self, octets: bytes) -> None:
        answer = self.answer_to(octets.replace(b"\n", b" ") + b"\n")
        self.assertEqual(list(answer), ["error"])
