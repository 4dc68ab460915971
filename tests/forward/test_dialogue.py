"""Our side of the conversation with a member, whatever the member's side is."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from qmailldap.forward.dialogue import (
    LONGEST_ANSWER,
    Dialogue,
    MemberRefused,
    MemberTrouble,
)
from qmailldap.handover import Connection
from tests.forward.support import READ_AT_ONCE, ForwardTestCase, Network, Wire

LIMIT = 10.0
MOST_HELD = 2 * READ_AT_ONCE + LONGEST_ANSWER


def connect(wire: Wire, clock: Network) -> Dialogue:
    connected: list[Dialogue] = []
    dialogue = Dialogue(clock, Failure.getErrorMessage, connected.append)
    dialogue.connection = wire.protocol = Connection(dialogue)
    wire.protocol.makeConnection(wire)
    assert connected == [dialogue]
    return dialogue


class DialogueTestCase(ForwardTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.wire = Wire(self.network)
        self.network.wires.append(self.wire)
        self.dialogue = connect(self.wire, self.network)

    def nothing_is_left(self) -> None:
        self.dialogue.hang_up()
        super().nothing_is_left()

    def greeting(self) -> Deferred[bytes]:
        return self.begin(self.dialogue.greeting(LIMIT))

    def ask(self, command: bytes = b"USER", argument: bytes = b"joe") -> Deferred[bytes]:
        return self.begin(self.dialogue.ask(command, argument, limit=LIMIT))

    def trouble(self, asked: Deferred[bytes]) -> str:
        return str(self.failureResultOf(asked, MemberTrouble).value)

    def text_of_refusal(self, asked: Deferred[bytes]) -> Any:
        return self.failureResultOf(asked, MemberRefused).value.text


class AnswerTests(DialogueTestCase):
    def test_small_questions_are_not_held_back_by_the_kernel(self) -> None:
        self.assertTrue(self.wire.no_delay)

    def test_a_greeting_is_what_is_behind_its_ok(self) -> None:
        greeting = self.greeting()
        self.wire.say(b"+OK [XCLIENT] <1.2@mail2>\r\n")
        self.assertEqual(self.successResultOf(greeting), b"[XCLIENT] <1.2@mail2>")
        self.assertEqual(self.wire.said(), b"")

    def test_a_greeting_may_be_there_before_it_is_waited_for(self) -> None:
        self.wire.say(b"+OK ready\r\n")
        self.assertEqual(self.successResultOf(self.greeting()), b"ready")

    def test_a_question_is_one_write_and_one_line(self) -> None:
        asked = self.ask(b"USER", b"joe doe")
        self.assertEqual(self.wire.said(), b"USER joe doe\r\n")
        self.wire.say(b"+OK go on\r\n")
        self.assertEqual(self.successResultOf(asked), b"go on")
        self.ask(b"STLS", b"").addErrback(lambda failure: failure.trap(MemberTrouble))
        self.assertEqual(self.wire.said(), b"STLS\r\n")

    def test_an_answer_may_have_no_text_and_end_in_a_bare_newline(self) -> None:
        for line, text in (
            (b"+OK\r\n", b""),
            (b"+OK \r\n", b""),
            (b"+OK\n", b""),
            (b"+OK  two\n", b" two"),
            (b"+OK one\r\r\n", b"one\r"),
        ):
            asked = self.ask()
            self.wire.say(line)
            self.assertEqual(self.successResultOf(asked), text, line)

    def test_a_refusal_has_the_text_octet_by_octet(self) -> None:
        everything = bytes(octet for octet in range(256) if octet not in b"\n")
        for line, text in (
            (b"-ERR\r\n", b""),
            (b"-ERR \r\n", b""),
            (b"-ERR [AUTH] no\r\n", b"[AUTH] no"),
            (b"-ERR  \x80 two \n", b" \x80 two "),
            (b"-ERR " + everything + b"\r\n", everything),
        ):
            asked = self.ask()
            self.wire.say(line)
            self.assertEqual(self.text_of_refusal(asked), text)

    def test_an_answer_may_come_octet_by_octet(self) -> None:
        asked = self.ask()
        for octet in b"-ERR [IN-USE] later\r":
            self.wire.say(bytes([octet]))
            self.assertNoResult(asked)
        self.wire.say(b"\n")
        self.assertEqual(self.text_of_refusal(asked), b"[IN-USE] later")

    def test_an_answer_has_at_most_512_octets(self) -> None:
        for status in (b"+OK ", b"-ERR "):
            for line_end in (b"\r\n", b"\n"):
                text = b"x" * (LONGEST_ANSWER - len(status + line_end))
                asked = self.ask()
                self.wire.say(status + text + line_end)
                if status == b"+OK ":
                    self.assertEqual(self.successResultOf(asked), text)
                else:
                    self.assertEqual(self.text_of_refusal(asked), text)

    def test_one_octet_more_is_too_much(self) -> None:
        for octets_each in (1, 511, 512, 600):
            wire = Wire(self.network)
            dialogue = connect(wire, self.network)
            asked = self.begin(dialogue.ask(b"USER", b"joe", limit=LIMIT))
            line = b"+OK " + b"x" * (LONGEST_ANSWER + 1 - 6) + b"\r\n"
            self.assertEqual(len(line), LONGEST_ANSWER + 1)
            for start in range(0, len(line), octets_each):
                wire.say(line[start : start + octets_each])
            self.assertEqual(
                self.trouble(asked), "gave no answer to USER: a line of more than 512 octets"
            )
            dialogue.hang_up()

    def test_a_line_is_too_long_when_it_can_end_in_time_no_more(self) -> None:
        asked = self.ask()
        self.wire.say(b"x" * (LONGEST_ANSWER - 1))
        self.assertNoResult(asked)
        self.wire.say(b"x")
        self.assertIn("more than 512 octets", self.trouble(asked))

    def test_what_comes_behind_an_answer_is_kept(self) -> None:
        asked = self.ask()
        self.wire.say(b"+OK\r\nmail\r\n", b"more")
        self.assertEqual(self.successResultOf(asked), b"")
        self.assertEqual(self.dialogue.take_unread(), b"mail\r\nmore")
        self.assertEqual(self.dialogue.take_unread(), b"")


class TroubleTests(DialogueTestCase):
    def test_silence_has_a_limit(self) -> None:
        for asked, what in ((self.greeting, "greeting"), (self.ask, "answer to USER")):
            answer = asked()
            self.network.advance(LIMIT - 0.1)
            self.assertNoResult(answer)
            self.network.advance(0.1)
            self.assertEqual(self.trouble(answer), f"gave no {what} within 10 s")

    def test_an_answer_that_drips_has_the_same_limit(self) -> None:
        answer = self.ask()
        for _ in range(9):
            self.network.advance(1)
            self.wire.say(b"+")
            self.assertNoResult(answer)
        self.network.advance(1)
        self.assertIn("within 10 s", self.trouble(answer))

    def test_a_late_answer_is_none_to_the_next_question(self) -> None:
        self.network.advance(0)
        late = self.ask()
        self.network.advance(LIMIT)
        self.trouble(late)
        self.wire.say(b"+OK\r\n")
        self.assertEqual(self.trouble(self.ask()), "spoke before it was asked: USER")

    def test_garbage_is_shown_but_only_so_much_of_it(self) -> None:
        for line in (
            b"",
            b"+",
            b"OK",
            b"+ok",
            b"+OKAY",
            b"+OK\tready",
            b"-err no",
            b"-ERRno",
            b" +OK",
            b"\0+OK",
            b"\x80\x1b[2J" * 100,
            b"* OK IMAP4rev1",
            b"220 smtp",
            b"\x15\x03\x03\x00\x02\x02\x28",
        ):
            asked = self.ask()
            self.wire.say(line + b"\r\n")
            trouble = self.trouble(asked)
            self.assertRegex(trouble, r"\Agave no answer to USER, but [ -~]*\Z")
            self.assertLess(len(trouble), 600)

    def test_an_endless_line_is_not_waited_for(self) -> None:
        asked = self.ask()
        self.wire.say(b"x" * 10_000_000)
        self.assertEqual(
            self.trouble(asked), "gave no answer to USER: a line of more than 512 octets"
        )
        self.assertLessEqual(len(self.dialogue.take_unread()), MOST_HELD)

    def test_a_member_that_goes_on_unasked_is_not_read_for_ever(self) -> None:
        asked = self.ask()
        self.wire.say(b"+OK\r\n" + b"x" * 10_000_000)
        self.assertEqual(self.successResultOf(asked), b"")
        self.assertEqual(self.wire.producerState, "paused")
        self.assertEqual(self.trouble(self.ask()), "spoke before it was asked: USER")
        self.assertLessEqual(len(self.dialogue.take_unread()), MOST_HELD)

    def test_two_answers_in_one_packet_are_one_too_many(self) -> None:
        # The second would be taken for the answer to what it has not heard yet.
        asked = self.ask()
        self.wire.say(b"+OK\r\n+OK\r\n")
        self.assertEqual(self.successResultOf(asked), b"")
        self.wire.said()
        self.assertEqual(
            self.trouble(self.ask(b"PASS", b"secret")), "spoke before it was asked: PASS"
        )
        self.assertEqual(self.wire.said(), b"")

    def test_half_an_answer_too_many_is_too_much(self) -> None:
        self.wire.say(b"+")
        self.assertEqual(self.trouble(self.ask()), "spoke before it was asked: USER")
        self.assertEqual(self.wire.said(), b"")

    def test_a_member_that_closes_gives_no_answer(self) -> None:
        for unread in (b"", b"+OK not the whole li"):
            self.setUp()
            asked = self.ask()
            self.wire.say(unread)
            self.wire.close()
            self.assertRegex(
                self.trouble(asked), r"gave no answer to USER: Connection was closed cleanly"
            )
            self.nothing_is_left()

    def test_a_member_that_says_no_more_is_closed(self) -> None:
        # A half-close tells nothing of whether it still reads, but it can answer no more.
        self.wire.close()
        self.assertTrue(self.wire.disconnecting)
        self.assertIn("closed cleanly", self.trouble(self.ask()))
        self.assertEqual(self.wire.said(), b"")
        self.network.settle()
        self.assertTrue(self.wire.gone)
        self.assertIn("closed cleanly", self.trouble(self.ask()))

    def test_a_reset_gives_no_answer(self) -> None:
        asked = self.ask()
        self.wire.lose(ConnectionLost())
        self.assertIn("non-clean fashion", self.trouble(asked))
        self.wire.said()
        self.assertIn("non-clean fashion", self.trouble(self.ask()))
        self.assertEqual(self.wire.said(), b"")

    def test_an_answer_counts_whatever_follows(self) -> None:
        asked = self.ask()
        self.wire.say(b"-ERR no\r\n")
        self.wire.close()
        self.network.settle()
        self.assertEqual(self.text_of_refusal(asked), b"no")

    def test_who_asks_may_go_away(self) -> None:
        asked = self.ask()
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertEqual(self.network.getDelayedCalls(), [])
        self.wire.say(b"+OK\r\n")
        self.wire.close()

    def test_to_hang_up_waits_for_nothing(self) -> None:
        self.dialogue.hang_up()
        self.assertTrue(self.wire.aborted)
        self.network.settle()
        self.dialogue.hang_up()

    def test_a_password_is_shown_to_nobody(self) -> None:
        for line in (
            b"secret",
            b"-ERRsecret",
            b"PASS secret",
            b"what is " + b"x" * 100 + b"secret and so on",
        ):
            asked = self.ask(b"PASS", b"secret")
            self.wire.say(line + b"\r\n")
            trouble = self.failureResultOf(asked, MemberTrouble)
            for shown in (str(trouble.value), repr(trouble.value), trouble.getErrorMessage()):
                self.assertNotIn("secret", shown)
            self.assertEqual(str(trouble.value), "gave no answer to PASS, but what was said to it")


class SecuringTests(DialogueTestCase):
    def test_tls_is_spoken_from_the_answer_on(self) -> None:
        asked = self.ask(b"STLS", b"")
        self.wire.say(b"+OK\r\n")
        self.successResultOf(asked)
        self.dialogue.start_tls("context")
        self.assertEqual(self.wire.secured, "context")

    def test_plain_text_behind_the_answer_is_not_taken_for_an_answer_in_tls(self) -> None:
        asked = self.ask(b"STLS", b"")
        self.wire.say(b"+OK\r\n+OK [XCLIENT]\r\n")
        self.successResultOf(asked)
        with self.assertRaisesRegex(MemberTrouble, "plain text"):
            self.dialogue.start_tls("context")
        self.assertIsNone(self.wire.secured)


PIECES = st.sampled_from(
    [
        b"+OK\r\n",
        b"+OK [XCLIENT] ready\r\n",
        b"+OK",
        b"-ERR no\r\n",
        b"-ERR secret\r\n",
        b"-ERR",
        b"+",
        b"secret\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"x" * 511,
        b"x" * 70_000,
        b"\n" * 200_000,
        b"close",
        b"reset",
        b"wait",
    ]
) | st.binary(max_size=600)


class AnyMemberTests(ForwardTestCase):
    @settings(deadline=None)
    @given(st.lists(PIECES, max_size=20))
    @example([b"+OK\r\n", b"+OK\r\n", b"+OK\r\n" + b"x" * 200_000])
    @example([b"+OK\r\n", b"+OK\r\n", b"-ERR secret\r\n"])
    def test_a_member_helps_or_refuses_or_is_in_trouble(self, pieces: list[bytes]) -> None:
        network = Network()
        wire = Wire(network)
        dialogue = connect(wire, network)

        async def log_in() -> bytes:
            await dialogue.greeting(LIMIT)
            await dialogue.ask(b"USER", b"joe", limit=LIMIT)
            return await dialogue.ask(b"PASS", b"secret", limit=LIMIT)

        login = self.begin(log_in())
        for piece in pieces:
            if piece == b"close":
                wire.close()
            elif piece == b"reset":
                wire.lose()
            elif piece == b"wait":
                network.advance(1)
            elif not wire.gone:
                wire.say(piece)
            self.assertLessEqual(len(dialogue._unread), MOST_HELD)
            network.settle()
        if not login.called:
            network.advance(LIMIT)
        outcome: list[Any] = []
        login.addBoth(outcome.append)
        (result,) = outcome
        if isinstance(result, Failure):
            result.trap(MemberTrouble, MemberRefused)
            if "PASS" in str(result.value):
                self.assertNotIn("secret", str(result.value))
        dialogue.hang_up()
        network.settle()
        self.assertEqual(network.getDelayedCalls(), [])
