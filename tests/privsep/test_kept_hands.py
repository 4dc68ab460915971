"""A session whose hands are a keeper's, and what it tells those that come after the first."""

from __future__ import annotations

import os
from array import array
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.maildir.listings import ListingCache
from qmailldap.maildir.reading import OpenMessage
from qmailldap.maildir.scanning import SETTLED, Snapshot
from qmailldap.maildir.storage import Failures, Listing
from qmailldap.maildir.work import Begun, Finished, Place, Unchanged
from qmailldap.privsep import encoding
from qmailldap.privsep.channel import KeeperLost
from qmailldap.privsep.encoding import Opened
from qmailldap.privsep.kept_hands import KeptHands
from qmailldap.privsep.pool import IDLE_LIMIT, Keepers
from qmailldap.threads import Busy
from tests.maildir.support import open_descriptors
from tests.privsep.support import FakeKeeper, FakeStarter

ANN, BOB = (1001, 1001), (1002, 1002)
PLACE = Place(b"/home/ann", b"/home/ann/Maildir", b"./Maildir/")
LISTING = Listing((b"new/1.a",), array("q", [3]), array("Q", [7]), frozenset(), True)
BEGUN = Begun(b"/home/ann/Maildir", LISTING, Failures(), True)
STATE = [*encoding.write_place(PLACE), *encoding.write_begun(BEGUN)]
FINISHED = Finished(Failures(), Failures(2, "EIO"), "")


class KeptHandsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.starter = FakeStarter(self.clock)
        self.keepers = Keepers(self.starter, self.clock, 1)
        self.hands = self.keepers.hands(ANN, PLACE)

    def tearDown(self) -> None:
        self.keepers.stop()
        for keeper in self.starter.running():
            keeper.end()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @property
    def keeper(self) -> FakeKeeper:
        return self.starter.started[-1]

    def begin(self, hands: KeptHands | None = None) -> None:
        began = (hands or self.hands).begin()
        self.keeper.answer(*encoding.write_begun(BEGUN))
        self.assertEqual(self.successResultOf(began), BEGUN)

    def open_file(self, content: bytes) -> int:
        path = Path(self.mktemp())
        path.write_bytes(content)
        return os.open(path, os.O_RDONLY)

    def fetch(self) -> None:
        fetched = self.hands.fetch(0)
        self.keeper.answer(*encoding.write_opened([Opened(3, b"abc", False, 5)]))
        self.assertEqual(self.successResultOf(fetched), [OpenMessage(3, b"abc", None, 5)])

    def assert_forgotten(self, keeper: FakeKeeper) -> None:
        """What it is told goes with the next question."""
        other = self.keepers.ask(ANN, lambda channel: [b"next"])
        self.assertEqual(keeper.heard().count([b"forget", b"1"]), 1)
        keeper.answer()
        self.successResultOf(other)

    def test_the_calls_are_questions(self) -> None:
        self.begin()
        self.fetch()
        finished = self.hands.finish(frozenset([0]))
        self.keeper.answer(*encoding.write_finished(FINISHED))
        self.assertEqual(self.successResultOf(finished), FINISHED)
        self.assertEqual(
            self.keeper.heard(),
            [
                [b"begin", b"1", *encoding.write_place(PLACE)],
                [b"fetch", b"1", b"0"],
                [b"finish", b"1", b"\0" * 8],
            ],
        )

    def test_sessions_of_one_owner_are_told_apart(self) -> None:
        other = self.keepers.hands(ANN, PLACE)
        self.begin()
        self.begin(other)
        self.assertEqual([fields[1] for fields in self.keeper.heard()], [b"1", b"2"])

    def test_a_large_message_comes_with_its_file(self) -> None:
        self.begin()
        fetched = self.hands.fetch(0)
        descriptor = self.open_file(b"def")
        status = os.fstat(descriptor)
        self.keeper.channel.fileDescriptorReceived(descriptor)
        sent = Opened(6, b"abc", True, 5, status.st_dev, status.st_ino)
        fields = encoding.write_opened([sent, Opened(1, b"x", False, 6)])
        self.keeper.answer(*fields, files=b"1")
        large, small = self.successResultOf(fetched)
        assert large.file is not None
        with large.file:
            self.assertEqual((large.size, large.first, large.file.read()), (6, b"abc", b"def"))
        self.assertEqual(small, OpenMessage(1, b"x", None, 6))

    def test_a_message_is_never_continued_by_another_file(self) -> None:
        # Descriptors that find no room are lost, and the next to come is another answer's.
        self.begin()
        fetched = self.hands.fetch(0)
        descriptor = self.open_file(b"somebody else's")
        status = os.fstat(descriptor)
        self.keeper.channel.fileDescriptorReceived(descriptor)
        sent = Opened(18, b"abc", True, 5, status.st_dev, status.st_ino + 1)
        self.keeper.answer(*encoding.write_opened([sent]), files=b"1")
        self.failureResultOf(fetched, KeeperLost)
        self.assertRaises(OSError, os.fstat, descriptor)

    def test_another_keeper_is_told_what_the_session_found_and_only_once(self) -> None:
        self.begin()
        self.clock.advance(IDLE_LIMIT)
        self.keeper.end()
        self.fetch()
        self.fetch()
        self.assertEqual(len(self.starter.started), 2)
        self.assertEqual(
            self.keeper.heard(), [[b"fetch", b"1", b"0", *STATE], [b"fetch", b"1", b"0"]]
        )

    def test_one_that_makes_room_for_another_owner_comes_back(self) -> None:
        self.begin()
        other = self.keepers.ask(BOB, lambda channel: [b"?"])
        self.keeper.end()
        fetched = self.hands.fetch(0)
        self.starter.started[1].answer()
        self.successResultOf(other)
        self.starter.started[1].end()
        self.assertEqual(self.keeper.heard(), [[b"fetch", b"1", b"0", *STATE]])
        self.keeper.end()
        self.failureResultOf(fetched, KeeperLost)

    def test_a_keeper_lost_at_work_fails_the_call_and_the_next_goes_on(self) -> None:
        self.begin()
        fetched = self.hands.fetch(0)
        self.keeper.end()
        self.failureResultOf(fetched, KeeperLost)
        self.fetch()
        self.assertEqual(self.keeper.heard(), [[b"fetch", b"1", b"0", *STATE]])

    def test_a_session_that_has_ended_is_forgotten(self) -> None:
        self.begin()
        self.hands.close()
        self.assert_forgotten(self.keeper)

    def test_only_once_though_it_is_closed_twice(self) -> None:
        self.begin()
        self.hands.close()
        self.hands.close()
        self.assert_forgotten(self.keeper)

    def test_not_before_what_is_under_way_has_ended(self) -> None:
        self.begin()
        finishing, fetched = self.hands.finish(frozenset()), self.hands.fetch(0)
        self.hands.close()
        self.keeper.answer(*encoding.write_finished(FINISHED))
        self.successResultOf(finishing)
        self.assert_nothing_told()
        self.keeper.answer(outcome=b"fault")
        self.failureResultOf(fetched, KeeperLost)
        self.assert_forgotten(self.keeper)

    def test_a_listing_that_is_known_is_not_told_again(self) -> None:
        self.begin_known()
        token = [b"begin", b"1", *encoding.write_place(PLACE), b"t"]
        self.assertEqual(self.keeper.heard()[-1], token)
        self.hands.close()
        self.assert_nothing_told()

    def test_the_keeper_is_told_it_when_there_is_more_to_do(self) -> None:
        self.begin_known()
        self.fetch()
        self.fetch()
        self.assertEqual(
            self.keeper.heard()[-2:], [[b"fetch", b"1", b"0", *STATE], [b"fetch", b"1", b"0"]]
        )
        self.hands.close()
        self.assert_forgotten(self.keeper)

    def test_also_where_the_end_is_all_there_is_to_do(self) -> None:
        self.begin_known()
        finished = self.hands.finish(frozenset())
        self.keeper.answer(*encoding.write_finished(FINISHED))
        self.assertEqual(self.successResultOf(finished), FINISHED)
        self.assertEqual(self.keeper.heard()[-1], [b"finish", b"1", b"", *STATE])

    def test_what_is_told_about_a_mailbox_that_changed_is_for_the_next_session(self) -> None:
        listings = ListingCache()
        for _ in range(2):
            began = self.keepers.hands(ANN, PLACE, listings).begin()
            fields = [*encoding.write_begun(BEGUN), *encoding.write_snapshot(Snapshot(b"t", 5))]
            self.keeper.answer(*fields)
            self.assertEqual(self.successResultOf(began).listing, LISTING)
        self.assertEqual([fields[-1] for fields in self.keeper.heard()], [b"", b""])
        self.assertEqual(listings.mailboxes, 1)

    def test_nothing_is_unchanged_that_is_not_known(self) -> None:
        began = self.keepers.hands(ANN, PLACE, ListingCache()).begin()
        self.keeper.answer(*encoding.write_unchanged(Unchanged(b"/home/ann/Maildir", True)))
        self.failureResultOf(began, KeeperLost)
        self.assertEqual(self.starter.killed, [1])

    def begin_known(self) -> None:
        """Begin a session whose keeper says that nothing has changed since the one before."""
        listings = ListingCache(monotonic=self.clock.seconds, time=self.clock.seconds)
        for _ in range(2):
            self.clock.advance(SETTLED + 1)
            began = self.keepers.hands(ANN, PLACE, listings).begin()
            fields = [*encoding.write_begun(BEGUN), *encoding.write_snapshot(Snapshot(b"t", 0))]
            self.keeper.answer(*fields)
            kept = self.successResultOf(began).listing
        self.hands = KeptHands(self.keepers, ANN, PLACE, 1, listings)
        began = self.hands.begin()
        self.keeper.answer(*encoding.write_unchanged(Unchanged(BEGUN.path, True)))
        begun = self.successResultOf(began)
        self.assertEqual(begun, BEGUN)
        self.assertIs(begun.listing, kept)

    def assert_nothing_told(self) -> None:
        self.assertNotIn([b"forget", b"1"], self.keeper.heard())

    def test_not_by_a_keeper_that_does_not_know_it(self) -> None:
        self.begin()
        first = self.keeper
        first.end()
        self.hands.close()
        other = self.keepers.ask(ANN, lambda channel: [b"next"])
        self.keeper.answer()
        self.successResultOf(other)
        self.assert_nothing_told()

    def test_one_that_never_began_has_nothing_to_forget(self) -> None:
        self.hands.close()
        self.assertEqual(self.starter.started, [])

    def test_an_answer_that_says_nothing_is_a_keeper_lost(self) -> None:
        for fields in ([], [b"x"], encoding.write_opened([Opened(9, b"abc", False, 5)])):
            self.setUp()
            self.begin()
            fetched = self.hands.fetch(0)
            self.keeper.answer(*fields)
            self.failureResultOf(fetched, KeeperLost)
            self.assertEqual(self.starter.killed, [1])
            self.assertTrue(self.keeper.transport.aborted)
            self.tearDown()

    def test_so_is_one_that_comes_when_the_session_has_ended(self) -> None:
        self.begin()
        fetched = self.hands.fetch(0)
        self.hands.close()
        self.keeper.answer(b"x")
        self.failureResultOf(fetched, KeeperLost)
        self.assertEqual(self.starter.killed, [1])

    def test_the_files_of_an_answer_that_says_nothing_are_closed(self) -> None:
        self.begin()
        before = open_descriptors()
        fetched = self.hands.fetch(0)
        self.keeper.channel.fileDescriptorReceived(self.open_file(b"abc"))
        self.keeper.answer(b"x", files=b"1")
        self.failureResultOf(fetched, KeeperLost)
        self.assertEqual(open_descriptors(), before)

    def test_nothing_is_begun_once_the_server_is_being_stopped(self) -> None:
        self.keepers.stop()
        self.failureResultOf(self.hands.begin(), Busy)
