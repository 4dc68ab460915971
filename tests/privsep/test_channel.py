"""The connection to a keeper, which is not trusted, as the network process sees it."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.maildir.storage import MailboxMissing
from qmailldap.privsep import encoding, wire
from qmailldap.privsep.channel import ANSWER_LIMIT, Answer, Channel, KeeperLost
from tests.maildir.support import open_descriptors
from tests.privsep.support import FakeTransport


class ChannelTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.losses: list[tuple[Channel, bool]] = []
        self.transport = FakeTransport()
        self.channel = Channel(self.clock, lambda *loss: self.losses.append(loss))
        self.channel.makeConnection(self.transport)
        self.file = self.mktemp()
        with open(self.file, "w") as file:
            file.write("contents")
        # What earlier tests have left for the collector is not counted.
        gc.collect()
        self.descriptors = open_descriptors()

    def tearDown(self) -> None:
        """Whatever happened: once the connection is lost, nothing of it is left."""
        self.channel.connectionLost(connectionDone)
        self.assertEqual(open_descriptors(), self.descriptors)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.losses), 1)

    def send_file(self, path: str = "") -> int:
        """A file arrives; its descriptor."""
        descriptor = os.open(path or self.file, os.O_RDONLY | os.O_NONBLOCK)
        self.channel.fileDescriptorReceived(descriptor)
        return descriptor

    def answer(self, *fields: bytes) -> None:
        self.channel.dataReceived(wire.frame(fields))

    def assert_lost(self, asked: Deferred[Answer], why: str = "") -> None:
        self.assertIn(why, self.failureResultOf(asked, KeeperLost).getErrorMessage())

    def assert_given_up(self) -> None:
        self.assertEqual(self.losses, [(self.channel, True)])
        self.assertTrue(self.transport.aborted)
        self.assert_lost(self.channel.ask(b"more"))


class AnswerTests(ChannelTestCase):
    def test_a_question_is_sent_with_a_number_of_its_own(self) -> None:
        asked = [self.channel.ask(b"begin", b"7"), self.channel.ask(b"fetch", b"7", b"0")]
        self.assertEqual(
            self.transport.frames(), [[b"1", b"begin", b"7"], [b"2", b"fetch", b"7", b"0"]]
        )
        self.channel.connectionLost(connectionDone)
        for each in asked:
            self.assert_lost(each)

    def test_answers_may_come_in_any_order(self) -> None:
        first, second = self.channel.ask(b"a"), self.channel.ask(b"b")
        self.answer(b"2", b"ok", b"0", b"to b")
        self.assertEqual(self.successResultOf(second), Answer([b"to b"], []))
        self.assertTrue(self.channel.under_way)
        self.answer(b"1", b"ok", b"0")
        self.assertEqual(self.successResultOf(first), Answer([], []))
        self.assertFalse(self.channel.under_way)

    @settings(deadline=None)
    @given(
        st.permutations([b"%d" % number for number in range(1, 7)]),
        st.lists(st.integers(1, 30), min_size=1, max_size=9),
    )
    def test_answers_may_come_in_any_pieces(
        self, order: Sequence[bytes], cuts: Sequence[int]
    ) -> None:
        channel = Channel(Clock(), lambda *_: None)
        channel.makeConnection(FakeTransport())
        asked = {b"%d" % number: channel.ask(b"q") for number in range(1, 7)}
        octets = b"".join(wire.frame([each, b"ok", b"0", each * 9]) for each in order)
        while octets:
            for cut in cuts:
                channel.dataReceived(octets[:cut])
                octets = octets[cut:]
        for number, each in asked.items():
            self.assertEqual(self.successResultOf(each).fields, [number * 9])

    def test_an_error_is_raised_as_it_was_in_the_keeper(self) -> None:
        asked = self.channel.ask(b"begin")
        error = MailboxMissing(errno.ENOENT, "there is none", b"/home/ann")
        self.answer(b"1", b"error", *encoding.error_fields(error))
        raised = self.failureResultOf(asked, MailboxMissing).value
        self.assertEqual(raised.args[:2], error.args)
        self.assertEqual(self.losses, [])

    def test_a_lack_of_memory_and_a_fault_fail_one_question(self) -> None:
        asked = [self.channel.ask(b"a"), self.channel.ask(b"b"), self.channel.ask(b"c")]
        self.answer(b"1", b"no-memory")
        self.answer(b"2", b"fault")
        self.failureResultOf(asked[0], MemoryError)
        self.assert_lost(asked[1], "see its line in the log")
        self.assertNoResult(asked[2])
        self.assertEqual(self.losses, [])
        self.answer(b"3", b"ok", b"0")
        self.successResultOf(asked[2])

    def test_what_is_told_goes_with_the_next_question(self) -> None:
        self.channel.tell(b"forget", b"7")
        self.channel.tell(b"forget", b"8")
        self.assertEqual(self.transport.written, b"")
        asked = self.channel.ask(b"begin", b"9")
        self.assertEqual(
            self.transport.frames(),
            [[b"0", b"forget", b"7"], [b"0", b"forget", b"8"], [b"1", b"begin", b"9"]],
        )
        self.answer(b"1", b"ok", b"0")
        self.successResultOf(asked)


class EndTests(ChannelTestCase):
    def test_the_death_of_the_keeper_fails_what_was_asked(self) -> None:
        asked = [self.channel.ask(b"a"), self.channel.ask(b"b")]
        self.channel.connectionLost(connectionDone)
        for each in asked:
            self.assert_lost(each, "it has ended")
        self.assertEqual(self.losses, [(self.channel, False)])
        self.assert_lost(self.channel.ask(b"c"), "it has ended")
        self.channel.tell(b"forget", b"7")

    def test_whoever_asks_again_at_once_is_past_the_loss(self) -> None:
        known: list[int] = []
        self.channel.ask(b"a").addErrback(lambda _: known.append(len(self.losses)))
        self.channel.connectionLost(connectionDone)
        self.assertEqual(known, [1])

    def test_no_answer_in_time_is_a_keeper_that_hangs(self) -> None:
        first = self.channel.ask(b"a")
        self.clock.advance(ANSWER_LIMIT / 2)
        second = self.channel.ask(b"b")
        self.clock.advance(ANSWER_LIMIT / 2 - 1)
        self.assertNoResult(first)
        self.clock.advance(1)
        self.assert_lost(first, "no answer in 300 s")
        self.assert_lost(second, "no answer in 300 s")
        self.assert_given_up()

    def test_a_keeper_that_is_asked_nothing_may_be_silent(self) -> None:
        asked = self.channel.ask(b"a")
        self.answer(b"1", b"ok", b"0")
        self.successResultOf(asked)
        self.clock.advance(2 * ANSWER_LIMIT)
        self.assertEqual(self.losses, [])

    def test_a_refusal_of_the_broker_is_what_the_question_fails_with(self) -> None:
        asked = self.channel.ask(b"begin")
        self.answer(b"0", b"refused", b"no keeper has the ids 0:0")
        self.assert_lost(asked, "no keeper has the ids 0:0")
        # There is nothing that could hang.
        self.assertEqual(self.losses, [(self.channel, False)])
        self.assertTrue(self.transport.aborted)
        self.assert_lost(self.channel.ask(b"more"))

    def test_one_that_is_lost_may_be_closed(self) -> None:
        self.channel.connectionLost()
        self.channel.close()
        # There is no connection to close: a real transport would fail.
        self.assertFalse(self.transport.half_closed)

    def test_closing_leaves_answers_their_time(self) -> None:
        asked = self.channel.ask(b"finish")
        self.channel.close()
        self.assertTrue(self.transport.half_closed)
        self.assertFalse(self.transport.aborted)
        self.assert_lost(self.channel.ask(b"more"), "told to end")
        self.channel.tell(b"forget", b"7")
        self.answer(b"1", b"ok", b"0", b"done")
        self.assertEqual(self.successResultOf(asked).fields, [b"done"])
        self.assertEqual(self.losses, [])

    def test_a_keeper_may_be_given_up_twice(self) -> None:
        self.channel.give_up("once")
        self.channel.give_up("twice")
        self.channel.close()
        self.channel.connectionLost(connectionDone)
        self.assert_given_up()


class NoAnswerTests(ChannelTestCase):
    """A keeper that sends what it should not is given up, and whoever waits hears of it."""

    def assert_no_answer(self, octets: bytes) -> None:
        asked, other = self.channel.ask(b"a"), self.channel.ask(b"b")
        self.channel.dataReceived(octets)
        self.assert_lost(asked)
        self.assert_lost(other)
        self.assert_given_up()
        # What was on its way when it was given up.
        self.channel.dataReceived(octets)

    def test_an_answer_of_too_few_fields(self) -> None:
        self.assert_no_answer(wire.frame([b"1"]))

    def test_an_empty_frame(self) -> None:
        self.assert_no_answer(wire.frame([]))

    def test_an_answer_to_no_question(self) -> None:
        self.assert_no_answer(wire.frame([b"3", b"ok", b"0"]))

    def test_a_second_answer_to_one_question(self) -> None:
        asked = self.channel.ask(b"a")
        self.answer(b"1", b"ok", b"0")
        self.answer(b"1", b"ok", b"0")
        self.successResultOf(asked)
        self.assert_given_up()

    def test_a_number_that_is_none(self) -> None:
        self.assert_no_answer(wire.frame([b"one", b"ok", b"0"]))

    def test_a_field_that_goes_beyond_its_frame(self) -> None:
        self.assert_no_answer(b"\0\0\0\x05\0\0\0\x09a")

    def test_a_frame_larger_than_any(self) -> None:
        self.assert_no_answer(b"\xff\xff\xff\xff")

    def test_an_error_that_is_none(self) -> None:
        self.assert_no_answer(wire.frame([b"1", b"error", b"SystemExit", b"2", b"", b""]))

    def test_a_count_of_files_that_is_none(self) -> None:
        self.assert_no_answer(wire.frame([b"1", b"ok", b"-1"]))

    @settings(deadline=None)
    @given(st.binary(max_size=40) | st.lists(st.binary(max_size=9), max_size=5).map(wire.frame))
    def test_any_octets_fail_all_questions_or_none(self, octets: bytes) -> None:
        lost: list[bool] = []
        channel = Channel(Clock(), lambda _, hangs: lost.append(hangs))
        channel.makeConnection(FakeTransport())
        asked = channel.ask(b"a")
        results: list[object] = []
        asked.addBoth(results.append)
        channel.dataReceived(octets)
        channel.connectionLost(connectionDone)
        self.assertEqual((len(results), len(lost)), (1, 1))


class FileTests(ChannelTestCase):
    def test_files_belong_to_the_answers_in_their_order(self) -> None:
        first, second, third = (self.channel.ask(each) for each in (b"a", b"b", b"c"))
        descriptors = [self.send_file(), self.send_file(), self.send_file()]
        self.answer(b"2", b"ok", b"1", b"to b")
        self.answer(b"1", b"ok", b"0", b"to a")
        self.answer(b"3", b"ok", b"2", b"to c")
        answers = [self.successResultOf(each) for each in (first, second, third)]
        files = [[file.fileno() for file in answer.files] for answer in answers]
        self.assertEqual(files, [[], descriptors[:1], descriptors[1:]])
        for answer in answers:
            for file in answer.files:
                self.assertEqual(file.read(), b"contents")
                self.assertFalse(os.get_inheritable(file.fileno()))
                file.close()

    def test_a_file_that_did_not_arrive_is_one_too_many(self) -> None:
        asked, other = self.channel.ask(b"fetch"), self.channel.ask(b"fetch")
        self.send_file()
        self.answer(b"1", b"ok", b"2", b"message")
        self.assertEqual(self.failureResultOf(asked, OSError).value.args[0], errno.EMFILE)
        self.assert_lost(other, "did not arrive")
        self.assert_given_up()

    def test_files_that_nobody_asked_for_are_closed(self) -> None:
        asked = self.channel.ask(b"a")
        for _ in range(100):
            self.send_file()
        self.assert_lost(asked, "nobody asked for")
        self.assert_given_up()
        self.assertEqual(open_descriptors(), self.descriptors)

    def test_files_that_come_when_it_is_over_are_closed(self) -> None:
        self.channel.give_up("enough")
        self.send_file()
        self.assertEqual(open_descriptors(), self.descriptors)

    def test_files_of_no_answer_are_closed_with_the_connection(self) -> None:
        self.send_file()
        self.channel.connectionLost(connectionDone)
        self.assertEqual(open_descriptors(), self.descriptors)

    def test_what_is_no_regular_file_is_not_read_from(self) -> None:
        fifo = self.mktemp()
        os.mkfifo(fifo)
        for path in (fifo, os.path.dirname(os.path.abspath(self.file)), "/dev/zero"):
            self.setUp()
            asked = self.channel.ask(b"fetch")
            self.send_file(path)
            self.answer(b"1", b"ok", b"1", b"message")
            self.assert_lost(asked)
            self.assert_given_up()
            self.assertEqual(open_descriptors(), self.descriptors)

    def test_an_answer_that_nobody_awaits_any_more_leaves_no_file_open(self) -> None:
        asked = self.channel.ask(b"fetch")
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertTrue(self.channel.under_way)
        self.send_file()
        self.answer(b"1", b"ok", b"1", b"message")
        self.assertFalse(self.channel.under_way)
        self.assertEqual(self.losses, [])
        self.assertEqual(open_descriptors(), self.descriptors)
