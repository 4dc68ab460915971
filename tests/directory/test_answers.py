"""Whether some server answers, for those who want to know where nobody logs in; what is counted."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from qmailldap.directory import Directory
from qmailldap.directory._health import FAIL_FAST
from qmailldap.directory.directory import ATTEMPT_LIMIT
from qmailldap.figures import Tally, together
from tests.directory.fake import FakeServer, finds_nothing_but, says_nothing
from tests.directory.test_directory import DirectoryTestCase

FRESH = 10.0


class AnswersTests(DirectoryTestCase):
    def answers(self, directory: Directory, seconds: float = 0.05) -> bool:
        told: Deferred[bool] = directory.answers(FRESH)
        self.network.settle(seconds)
        return self.successResultOf(told)

    def probes(self) -> tuple[int, int]:
        return len(self.one.probes), len(self.two.probes)

    def test_a_server_that_nobody_has_asked_anything_is_asked(self) -> None:
        directory = self.start_directory(self.one, self.two)
        self.assertTrue(self.answers(directory))
        self.assertEqual(self.probes(), (1, 1))

    def test_one_that_has_answered_a_moment_ago_is_not(self) -> None:
        directory = self.start_directory(self.one)
        self.result(directory.find(b"joe"))
        for _ in range(5):
            self.assertTrue(self.answers(directory))
        self.assertEqual(self.probes(), (0, 0))
        self.network.settle(FRESH)
        self.assertTrue(self.answers(directory))
        self.assertEqual(self.probes(), (1, 0))

    def test_one_that_has_ended_meanwhile_is_found_out_although_nobody_logs_in(self) -> None:
        directory = self.start_directory(self.one)
        self.assertTrue(self.answers(directory))
        self.one.stop()
        self.network.settle(FRESH)
        self.assertFalse(self.answers(directory))
        self.assertFalse(directory.servers[0].up)

    def test_one_of_several_is_enough(self) -> None:
        self.one.running = False
        directory = self.start_directory(self.one, self.two)
        self.assertTrue(self.answers(directory))

    def test_a_silent_one_is_waited_for_so_long_and_no_longer(self) -> None:
        self.one.reachable = self.two.reachable = False
        directory = self.start_directory(self.one, self.two)
        told = directory.answers(FRESH)
        self.network.settle(ATTEMPT_LIMIT - 0.1)
        self.assertNoResult(told)
        self.network.settle(0.2)
        self.assertFalse(self.successResultOf(told))

    def test_a_silent_one_keeps_nobody_waiting_where_another_answers(self) -> None:
        self.one.search = says_nothing
        directory = self.start_directory(self.one, self.two)
        self.assertTrue(self.answers(directory))

    def test_a_server_without_the_base_answers(self) -> None:
        self.one.search = finds_nothing_but(32)
        self.assertTrue(self.answers(self.start_directory(self.one)))

    def test_one_that_is_busy_does_not(self) -> None:
        self.one.search = finds_nothing_but(51)
        self.assertFalse(self.answers(self.start_directory(self.one)))

    def test_those_who_ask_together_share_one_search(self) -> None:
        directory = self.start_directory(self.one)
        told = [directory.answers(FRESH) for _ in range(3)]
        self.network.settle()
        self.assertEqual([self.successResultOf(each) for each in told], [True] * 3)
        self.assertEqual(self.probes(), (1, 0))

    def test_one_that_is_down_is_tried_once_a_second_whoever_asks(self) -> None:
        self.one.running = False
        directory = self.start_directory(self.one)
        self.assertFalse(self.answers(directory))
        attempts = self.one.attempts
        for _ in range(5):
            self.assertFalse(self.answers(directory, 0))
        self.assertEqual(self.one.attempts, attempts)

    def test_one_that_is_back_is_found_however_long_its_next_probe_is_away(self) -> None:
        self.one.running = False
        directory = self.start_directory(self.one)
        self.assertFalse(self.answers(directory))
        self.network.settle(40)
        self.one.running = True
        self.network.settle(FAIL_FAST)
        self.assertTrue(self.answers(directory))
        self.assertIn("up again", self.log_lines()[-1])

    def test_asking_changes_nothing_of_when_the_next_probe_is(self) -> None:
        self.one.running = self.two.running = False
        asked, left_alone = self.start_directory(self.one), self.start_directory(self.two)
        for directory in (asked, left_alone):
            directory.start()
        # They were tried at 0, 1 and 3, and will be at 7.
        self.network.settle(4.5)
        before = self.one.attempts - self.two.attempts
        self.assertEqual(before, 0)
        self.assertFalse(self.answers(asked))
        self.network.settle(10)
        # But for the one that was asked for.
        self.assertEqual(self.one.attempts - self.two.attempts, 1)

    def test_after_the_end_nothing_answers(self) -> None:
        directory = self.start_directory(self.one)
        directory.stop()
        self.assertFalse(self.answers(directory))

    def test_what_is_asked_when_all_ends_does_not(self) -> None:
        self.one.search = says_nothing
        directory = self.start_directory(self.one)
        told = directory.answers(FRESH)
        self.network.settle()
        directory.stop()
        self.assertFalse(self.successResultOf(told))
        self.network.settle(ATTEMPT_LIMIT + 1)

    def test_to_look_asks_those_of_which_nothing_is_known(self) -> None:
        directory = self.start_directory(self.one, self.two)
        self.result(directory.find(b"joe"))
        directory.look(FRESH)
        self.network.settle()
        self.assertEqual(self.probes(), (0, 1))


class CountingTests(DirectoryTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.tally = Tally(self.clock.seconds)

    def start(self, *servers: FakeServer, **facts: Any) -> Directory:
        return self.start_directory(*servers, limits={"tally": self.tally}, **facts)

    def value(self, name: str, *labels: str) -> float:
        return together([self.tally.snapshot()]).value(name, *labels)

    def answers_of(self, server: str) -> int:
        histograms = together([self.tally.snapshot()]).histograms
        counts, _ = histograms["directory_seconds"].get((server,), ([], 0.0))
        return sum(counts)

    def test_answers_are_counted_by_server(self) -> None:
        directory = self.start(self.one)
        for _ in range(3):
            self.result(directory.find(b"joe"))
        # And the bind that opens the connection.
        self.assertEqual(self.answers_of("one:389"), 4)
        self.assertEqual(self.value("directory_failures_total"), 0)
        self.assertEqual(self.value("directory_retries_total"), 0)

    def test_a_failure_and_what_is_tried_after_it_are_counted(self) -> None:
        self.one.running = False
        directory = self.start(self.one, self.two)
        self.result(directory.find(b"joe"))
        self.assertEqual(self.value("directory_failures_total", "one:389"), 1)
        self.assertEqual(self.value("directory_failures_total", "two:389"), 0)
        self.assertEqual(self.value("directory_retries_total"), 1)

    def test_those_who_share_a_search_are_counted(self) -> None:
        directory = self.start(self.one)
        found = [self.begin(directory.find(b"joe")) for _ in range(3)]
        self.network.settle()
        for each in found:
            self.successResultOf(each)
        self.assertEqual(self.value("directory_joined_lookups_total"), 2)
