"""What one process asks all: alone, and by the supervisor, whom workers tell what they like."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.figures import together
from qmailldap.figures.tally import Tally
from qmailldap.workers import links as links_module
from qmailldap.workers.crew import ANSWER_LIMIT, Alone, Crew, NotDone
from qmailldap.workers.frames import MOST_OCTETS, Frame, Frames, Kind
from qmailldap.workers.links import MOST_QUESTIONS, MOST_UNASKED, Link, Unanswered
from qmailldap.workers.member import Member

from .crews import Site, Wire, frame

_QUICK = settings(deadline=None, max_examples=60)


class AloneTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.crew: Crew = Alone(self.clock)

    def test_one_process_asks_itself(self) -> None:
        self.crew.answer("kick", lambda who: f"kicked {who}")
        self.assertEqual(self.successResultOf(self.crew.ask("kick", "joe")), ["kicked joe"])

    def test_an_answer_may_take_its_time_but_not_too_long(self) -> None:
        self.crew.answer("state", lambda _: Deferred())
        asked = self.crew.ask("state")
        self.assertNoResult(asked)
        self.clock.advance(ANSWER_LIMIT)
        self.assertEqual(self.successResultOf(asked), [])

    def test_what_fails_or_is_not_known_is_no_answer(self) -> None:
        self.crew.answer("state", lambda _: 1 // 0)
        self.assertEqual(self.successResultOf(self.crew.ask("state")), [])
        self.assertEqual(self.successResultOf(self.crew.ask("figures")), [])

    def test_what_the_supervisor_alone_may_ask_is_refused(self) -> None:
        for question in ("prepare", "commit", "abort", "alive", "else"):
            self.assertRaises(ValueError, self.crew.ask, question)


class CrewTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.site = Site()
        self.links = self.site.links

    def test_all_answer_in_the_order_of_their_numbers(self) -> None:
        two, one = self.site.worker(2), self.site.worker(1)
        one.answer("kick", lambda who: f"one {who}")
        two.answer("kick", lambda who: f"two {who}")
        for each in (one, two):
            asked = each.ask("kick", "jo\u00e9")
            self.site.carry()
            self.assertEqual(self.successResultOf(asked), ["one jo\u00e9", "two jo\u00e9"])
        self.assertEqual([each.number for each in self.site.serve], [2, 1])

    def test_who_hangs_or_fails_holds_up_nobody_for_longer_than_the_limit(self) -> None:
        one, two, three = (self.site.worker(number) for number in (1, 2, 3))
        never: Deferred[Any] = Deferred()
        one.answer("state", lambda _: "one")
        two.answer("state", lambda _: never)
        three.answer("state", lambda _: 1 // 0)
        asked = one.ask("state")
        self.site.carry()
        self.assertNoResult(asked)
        self.site.clock.advance(ANSWER_LIMIT)
        self.site.carry()
        self.assertEqual(self.successResultOf(asked), ["one"])
        # It is too late then, and no harm is done.
        never.callback("two")
        self.site.carry()
        self.assertEqual(self.site.ended, [])

    def test_a_worker_that_ends_is_waited_for_no_longer(self) -> None:
        one, two = self.site.worker(1), self.site.worker(2)
        one.answer("state", lambda _: "one")
        two.answer("state", lambda _: Deferred())
        asked = one.ask("state")
        self.site.carry()
        self.links.remove(2)
        self.site.carry()
        self.assertEqual(self.successResultOf(asked), ["one"])

    def test_a_worker_whose_supervisor_has_ended_gets_no_answers_and_ends(self) -> None:
        ended: list[bool] = []
        member = self.site.worker(1)
        member._ended = lambda: ended.append(True)
        asked = member.ask("state")
        assert member._frames is not None
        member._frames.connectionLost()
        self.assertEqual(self.successResultOf(asked), [])
        self.assertEqual(self.successResultOf(member.ask("state")), [])
        self.assertEqual(ended, [True])

    def test_nobody_waits_without_end_for_a_supervisor_that_hangs(self) -> None:
        member = self.site.worker(1)
        asked = [member.ask("state") for _ in range(MOST_QUESTIONS + 1)]
        self.assertEqual(self.successResultOf(asked.pop()), [])
        self.site.clock.advance(ANSWER_LIMIT + 2)
        for each in asked:
            self.assertEqual(self.successResultOf(each), [])
        self.assertEqual(self.site.clock.getDelayedCalls(), [])

    def test_one_that_does_not_serve_yet_is_not_asked(self) -> None:
        one = self.site.worker(1)
        self.site.hostile(2)
        one.answer("state", lambda _: "one")
        asked = one.ask("state")
        self.site.carry()
        self.assertEqual(self.successResultOf(asked), ["one"])

    def test_an_answer_that_is_too_large_is_none_and_ends_nobody(self) -> None:
        one = self.site.worker(1)
        one.answer("state", lambda _: "a" * MOST_OCTETS)
        asked = one.ask("state")
        self.site.carry()
        self.assertEqual(self.successResultOf(asked), [])
        self.assertEqual(self.site.ended, [])

    def test_why_it_cannot_be_done_is_told_where_it_is_meant_to_be(self) -> None:
        def refuse(_: object) -> None:
            raise NotDone("control/ldapserver: no\nhost")

        def fail(_: object) -> None:
            raise ValueError("a secret")

        self.site.worker(1).answer("prepare", refuse)
        self.site.worker(2).answer("prepare", fail)
        asked = self.links.ask("prepare")
        self.site.carry()
        whys = [str(answer) for _, answer in self.successResultOf(asked)]
        self.assertEqual(whys, ["control/ldapserver: no?host", "ValueError"])


class FiguresTests(SynchronousTestCase):
    """A scrape goes to any worker, and counters never go back."""

    def setUp(self) -> None:
        self.site = Site()

    def worker(self, number: int, logins: int) -> Member:
        member, tally = self.site.worker(number), Tally()
        tally.add("logins_total", "ok", amount=logins)
        member.answer("figures", lambda _: tally.snapshot())
        return member

    def logins(self, asks: Member) -> float:
        asked = asks.ask("figures")
        self.site.carry()
        self.site.clock.advance(ANSWER_LIMIT)
        self.site.carry()
        answers: list[Any] = self.successResultOf(asked)
        return together(answers).value("logins_total", "ok")

    def test_what_ended_workers_had_counted_is_not_lost(self) -> None:
        one, _ = self.worker(1, 10), self.worker(2, 5)
        self.assertEqual(self.logins(one), 15)
        for _ in range(2):
            self.site.links.remove(2)
            self.assertEqual(self.logins(one), 15)
            self.worker(2, 0)
        self.assertEqual(self.logins(one), 15)

    def test_of_one_that_hangs_what_it_had_before_counts(self) -> None:
        one, two = self.worker(1, 10), self.worker(2, 5)
        self.assertEqual(self.logins(one), 15)
        two._responders._responders["figures"] = lambda _: Deferred()
        self.assertEqual(self.logins(one), 15)

    def test_figures_that_are_none_are_nobodys_trouble(self) -> None:
        one, two = self.worker(1, 10), self.site.worker(2)
        two.answer("figures", lambda _: {"counters": [["logins_total", ["ok"], "many"]]})
        self.assertEqual(self.logins(one), 10)
        self.site.links.remove(2)
        self.assertEqual(self.logins(one), 10)


# Of what a frame may be, what means something, and anything else.
numbers = st.integers(0, 3) | st.integers(0, 2**32 - 1)
bodies = st.sampled_from(
    [
        b"",
        b"state\nnull",
        b"figures\n{}",
        b"commit\nnull",
        b"prepare\n" + b"[" * 5000,
        b'kick\n"joe"',
        b"[" * 5000,
        b"9" * 5000,
        b"NaN",
        b'{"counters":[],"histograms":[],"gauges":[],"history":[]}',
    ]
) | st.binary(max_size=40)
frames = st.builds(frame, st.integers(0, 8), numbers, bodies)
said = st.lists(frames | st.binary(max_size=12), max_size=12).map(b"".join)


class HostileTests(SynchronousTestCase):
    """A worker may be in the hands of somebody who wants the supervisor, or all others."""

    def setUp(self) -> None:
        self.site = Site()
        self.site.worker(1).answer("state", lambda _: "one")

    @given(st.lists(said, max_size=4), st.booleans())
    @_QUICK
    def test_whatever_it_says_others_are_asked_and_answered(
        self, sayings: list[bytes], serves: bool
    ) -> None:
        site = Site()
        one = site.worker(1)
        one.answer("state", lambda _: "one")
        hostile = site.hostile(2)
        if serves:
            hostile.dataReceived(frame(Kind.SERVING))
        for each in sayings:
            asked = one.ask("state"), one.ask("figures")
            own = site.links.ask("state")
            site.carry()
            if not hostile.is_lost:
                hostile.dataReceived(each)
            site.carry()
            site.clock.advance(ANSWER_LIMIT)
            site.carry()
            answers, figures = (self.successResultOf(each) for each in asked)
            self.assertEqual(answers[0], "one")
            self.assertLessEqual(len(answers), 2)
            self.assertLessEqual(len(figures), 2)
            self.assertEqual(self.successResultOf(own)[0][1], b'"one"')
        site.links.remove(2)
        asked_again = one.ask("state")
        site.carry()
        self.assertEqual(self.successResultOf(asked_again), ["one"])
        self.assertEqual([each.number for each in site.links.serving()], [1])
        self.assertEqual({number for number, _ in site.ended} - {2}, set())
        site.clock.advance(ANSWER_LIMIT)
        self.assertEqual(site.clock.getDelayedCalls(), [])

    @given(st.lists(said, max_size=4))
    @_QUICK
    def test_a_worker_outlives_what_others_ask_and_answer(self, sayings: list[bytes]) -> None:
        # The frames are the supervisor's own, the bodies may be of any worker.
        member = Member(Clock(), lambda: None)
        member._frames = Frames(member._received, member._lost)
        member._frames.makeConnection(Wire())
        member.answer("kick", lambda who: who["user"])
        for each in sayings:
            asked = member.ask("state")
            for kind in (Kind.ASK, Kind.PIECE, Kind.END):
                body = b"kick\n" + each if kind is Kind.ASK else each
                member._frames.dataReceived(frame(kind, member._next - 1, body))
            self.assertLessEqual(len(self.successResultOf(asked)), 1)
            self.assertFalse(member._frames.is_lost)

    def test_it_cannot_have_others_do_what_only_the_supervisor_may(self) -> None:
        for question in (b"commit", b"prepare", b"abort", b"alive"):
            hostile = self.site.hostile(2)
            hostile.dataReceived(frame(Kind.ASK, 1, question + b"\nnull"))
            self.assertTrue(hostile.is_lost)
            self.assertTrue(hostile.transport.is_closed)
        self.assertEqual(len(self.site.ended), 4)
        self.assertIn("commit", self.site.ended[0][1])

    def test_what_is_too_large_is_not_waited_for(self) -> None:
        hostile = self.site.hostile(2)
        hostile.dataReceived((MOST_OCTETS + 1).to_bytes(4, "big"))
        self.assertTrue(hostile.is_lost)

    def test_what_nobody_asked_for_is_not_listened_to_for_long(self) -> None:
        for kind in (Kind.ANSWER, Kind.FAILURE):
            hostile = self.site.hostile(2)
            hostile.dataReceived(frame(kind, 7) * MOST_UNASKED)
            self.assertFalse(hostile.is_lost)
            hostile.dataReceived(frame(kind, 7))
            self.assertTrue(hostile.is_lost)
        self.assertEqual(self.site.ended, [(2, "answers that nobody asked for")] * 2)

    def test_one_that_answers_all_too_late_is_not_ended_for_that(self) -> None:
        hostile = self.site.hostile(2)
        hostile.dataReceived(frame(Kind.SERVING))
        for _ in range(2 * MOST_UNASKED):
            self.site.links.ask("alive")
        self.site.clock.advance(ANSWER_LIMIT)
        for number in range(1, 2 * MOST_UNASKED + 1):
            hostile.dataReceived(frame(Kind.ANSWER, number, b"true"))
        self.assertFalse(hostile.is_lost)

    def test_it_has_few_questions_at_a_time(self) -> None:
        hostile = self.site.hostile(2)
        self.site.ends.clear()  # so that the other does not answer
        for number in range(MOST_QUESTIONS + 5):
            hostile.dataReceived(frame(Kind.ASK, number, b"state\nnull"))
        # What is too much has no answers, at once.
        self.assertEqual(hostile.transport.taken().count(b"\x00\x00\x00\x05\x05"), 5)
        self.site.clock.advance(ANSWER_LIMIT)
        self.assertEqual(hostile.transport.taken().count(b"\x00\x00\x00\x05\x05"), MOST_QUESTIONS)
        self.assertEqual(self.site.ended, [])

    def test_one_that_reads_nothing_is_sent_little_and_ended_when_it_goes_on(self) -> None:
        self.patch(links_module, "MOST_UNREAD", 100)
        hostile = self.site.hostile(2)
        hostile.pauseProducing()
        for number in range(100):
            if not hostile.is_lost:
                hostile.dataReceived(frame(Kind.ASK, number, b"state\nnull"))
            self.site.carry()
        self.assertLess(len(hostile.transport.value()), 200)
        self.assertEqual(self.site.ended, [(2, "questions without end")])

    def test_one_that_reads_nothing_is_asked_nothing(self) -> None:
        link = Link(self.site.links, self.site.clock, 3)
        link.frames.makeConnection(Wire())
        link.frames.pauseProducing()
        asked = link.ask("state", b"null", 1.0)
        self.assertIsInstance(self.failureResultOf(asked).value, Unanswered)
        self.assertEqual(link.frames.transport.value(), b"")


class FrameTests(SynchronousTestCase):
    @given(st.sampled_from(Kind), st.integers(0, 2**32 - 1), st.binary(max_size=50))
    @_QUICK
    def test_a_frame_is_read_as_it_was_written(self, kind: Kind, number: int, body: bytes) -> None:
        written = Frame(kind, number, body)
        self.assertEqual(Frame.of(written.octets()), written)

    @given(
        st.lists(
            st.tuples(st.sampled_from(Kind), st.integers(0, 2**32 - 1), st.binary()), max_size=9
        ),
        st.lists(st.integers(0, 200), max_size=9),
    )
    @_QUICK
    def test_frames_come_one_by_one_however_their_octets_come(
        self, sent: list[tuple[Kind, int, bytes]], cuts: list[int]
    ) -> None:
        whole = b"".join(frame(*each) for each in sent)
        received: list[Frame] = []
        frames = Frames(received.append, self.fail)
        frames.makeConnection(Wire())
        for start, end in pairwise([0, *sorted(cuts), len(whole) + 200]):
            frames.dataReceived(whole[start:end])
        self.assertEqual(received, [Frame(*each) for each in sent])
        self.assertFalse(frames.is_lost)

    def test_after_one_that_is_none_no_other_is_read(self) -> None:
        received: list[Frame] = []
        lost: list[str] = []
        frames = Frames(received.append, lost.append)
        frames.makeConnection(Wire())
        frames.dataReceived(frame(Kind.ANSWER, 1) + frame(99) + frame(Kind.ANSWER, 2))
        frames.dataReceived(frame(Kind.ANSWER, 3))
        self.assertEqual(received, [Frame(Kind.ANSWER, 1)])
        self.assertEqual(len(lost), 1)

    def test_after_one_that_has_the_connection_closed_no_other_is_read(self) -> None:
        received: list[Frame] = []

        def close(each: Frame) -> None:
            received.append(each)
            ours.lose("enough")

        ours = Frames(close, lambda why: None)
        ours.makeConnection(Wire())
        ours.dataReceived(frame(Kind.ANSWER, 1) + frame(Kind.ANSWER, 2))
        ours.dataReceived(frame(Kind.ANSWER, 3))
        self.assertEqual(received, [Frame(Kind.ANSWER, 1)])
