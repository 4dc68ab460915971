"""Tests for `qmailldap.maildir.mailbox`."""

from __future__ import annotations

import gc
import os
from array import array
from pathlib import Path
from typing import cast

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from qmailldap.interfaces import IMaildrop
from qmailldap.maildir.hands import InThreads
from qmailldap.maildir.mailbox import MaildirMailbox, open_mailbox
from qmailldap.maildir.reading import CHUNK, MOST_AHEAD, OpenMessage
from qmailldap.maildir.storage import Failures, Listing, MailboxCorrupted, MailboxMissing
from qmailldap.maildir.work import Begun, Finished, Place, Work
from qmailldap.quota import Quota
from qmailldap.threads import Busy, Offload, Workers
from tests.loglevels import log_at
from tests.maildir.support import (
    HandsAsked,
    HeldBack,
    deliver,
    descriptors_below,
    files_of,
    have_disks_read,
    here,
    in_threads,
    make_maildir,
    open_descriptors,
)

NOW = 1_700_000_000.0


class MailboxTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = make_maildir(self.mktemp())
        before = open_descriptors()
        self.addCleanup(lambda: self.assertEqual(before, open_descriptors()))
        self.before = before

    def opening(self, path: Path, offload: Offload = here) -> Deferred[MaildirMailbox]:
        return Deferred.fromCoroutine(
            open_mailbox(in_threads(offload, path, time=lambda: NOW), offload)
        )

    def mailbox(self) -> MaildirMailbox:
        mailbox = self.successResultOf(self.opening(self.path))
        self.addCleanup(mailbox.close)
        return mailbox

    def logged(self) -> list[str]:
        """Collects what is logged from now on."""
        lines: list[str] = []

        @implementer(ILogObserver)
        def collect(event: LogEvent) -> None:
            lines.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(collect)
        self.addCleanup(globalLogPublisher.removeObserver, collect)
        return lines


class OpenMailboxTests(MailboxTestCase):
    def test_it_is_told_when_something_of_it_had_to_be_made(self) -> None:
        log_at(self, LOGLEVEL=8)
        lines = self.logged()
        (self.path / "cur").rmdir()
        self.mailbox()
        self.mailbox()
        (line,) = lines
        self.assertRegex(line, "^mailbox path=.* made=what-was-missing$")

    def test_it_provides_its_interface(self) -> None:
        self.assertTrue(verifyObject(IMaildrop, self.mailbox()))

    def test_it_takes_one_trip_to_a_thread(self) -> None:
        deliver(self.path, "new/1.a")
        thread = HeldBack()
        opening = self.opening(self.path, thread)
        self.assertNoResult(opening)
        thread.run()
        self.assertEqual([2], self.successResultOf(opening).listMessages())

    def test_tmp_is_tidied(self) -> None:
        stale = deliver(self.path, "tmp/stale")
        os.utime(stale, (0, NOW))
        self.mailbox()
        self.assertFalse(stale.exists())

    def test_what_cannot_be_tidied_is_one_line_in_the_log(self) -> None:
        for number in range(3):
            os.utime(deliver(self.path, f"tmp/{number}"), (0, NOW))

        def refuse(*args: object, **kwargs: object) -> None:
            raise PermissionError(13, "Permission denied")

        self.patch(os, "unlink", refuse)
        lines = self.logged()
        self.mailbox()
        self.assertEqual(1, len(lines))
        self.assertIn("problem=not-cleaned count=3", lines[0])
        self.assertIn("Permission denied", lines[0])

    def test_its_faults_are_told_apart(self) -> None:
        self.failureResultOf(self.opening(self.path / "none/Maildir"), MailboxMissing)
        deliver(self.path, "file")
        self.failureResultOf(self.opening(self.path / "file"), MailboxCorrupted)


class ListingTests(MailboxTestCase):
    def setUp(self) -> None:
        super().setUp()
        for name, content in (("new/3.c", b"three"), ("cur/1.a:2,S", b"1"), ("cur/2.b:2,", b"")):
            deliver(self.path, name, content)

    def test_sizes_and_unique_ids_are_at_hand(self) -> None:
        mailbox = self.mailbox()
        self.assertEqual([1, 0, 5], mailbox.listMessages())
        self.assertEqual(5, mailbox.listMessages(2))
        self.assertEqual([b"1.a", b"2.b", b"3.c"], [mailbox.getUidl(n) for n in range(3)])

    def test_a_marked_message_counts_nothing_until_it_is_unmarked(self) -> None:
        mailbox = self.mailbox()
        mailbox.deleteMessage(2)
        mailbox.deleteMessage(2)
        self.assertEqual(([1, 0, 0], 0), (mailbox.listMessages(), mailbox.listMessages(2)))
        self.assertEqual([False, False, True], [mailbox.isDeleted(n) for n in range(3)])
        self.assertEqual(b"3.c", mailbox.getUidl(2))
        mailbox.undeleteMessages()
        self.assertEqual([1, 0, 5], mailbox.listMessages())
        self.assertFalse(mailbox.isDeleted(2))

    def test_the_drop_listing_keeps_up_with_the_marks(self) -> None:
        mailbox = self.mailbox()
        self.assertEqual((3, (3, 6)), (mailbox.messageCount(), mailbox.dropListing()))
        mailbox.deleteMessage(2)
        mailbox.deleteMessage(2)
        mailbox.deleteMessage(1)
        self.assertEqual((3, (1, 1)), (mailbox.messageCount(), mailbox.dropListing()))
        mailbox.undeleteMessages()
        self.assertEqual((3, 6), mailbox.dropListing())

    def test_the_list_given_is_the_callers(self) -> None:
        mailbox = self.mailbox()
        mailbox.listMessages().clear()
        self.assertEqual([1, 0, 5], mailbox.listMessages())

    def test_the_facts_of_several_can_be_had_at_once(self) -> None:
        deliver(self.path, "new/4.d d")
        mailbox = self.mailbox()
        mailbox.deleteMessage(0)
        for start, stop in ((0, 4), (1, 3), (2, 9), (4, 5)):
            indexes = range(4)[start:stop]
            unique_ids = [mailbox.getUidl(index) for index in indexes]
            self.assertEqual(unique_ids, list(mailbox.uniqueIds(start, stop)))
            self.assertEqual([1, 0, 5, 2][start:stop], list(mailbox.sizes(start, stop)))

    def test_a_listing_that_is_nobody_elses_shares_nothing(self) -> None:
        self.assertIsNone(self.mailbox().shared(lambda _: 1))

    def test_a_bad_index_is_a_value_error(self) -> None:
        mailbox = self.mailbox()
        for index in (-1, 3, 10**30):
            for method in (
                mailbox.listMessages,
                mailbox.getUidl,
                mailbox.isDeleted,
                mailbox.deleteMessage,
                mailbox.getMessage,
            ):
                self.assertRaises(ValueError, method, index)
        self.assertEqual([1, 0, 5], mailbox.listMessages())


class GetMessageTests(MailboxTestCase):
    def held(self, content: bytes) -> tuple[MaildirMailbox, HeldBack]:
        """A mailbox of one message, and the thread its work waits in."""
        deliver(self.path, "new/1.a", content)
        thread = HeldBack()
        opening = self.opening(self.path, thread)
        thread.run()
        return self.successResultOf(opening), thread

    def test_a_small_message_is_read_in_one_trip_to_a_thread(self) -> None:
        mailbox, thread = self.held(b"content")
        getting = mailbox.getMessage(0)
        self.assertNoResult(getting)
        thread.run()
        message = self.successResultOf(getting)
        self.assertEqual(
            (7, b"content", b""), (message.size, message.readChunk(), message.readChunk())
        )
        self.assertEqual([], thread.waiting)

    def test_a_message_that_is_gone_is_a_missing_file(self) -> None:
        mailbox, thread = self.held(b"content")
        (self.path / "new/1.a").unlink()
        getting = mailbox.getMessage(0)
        thread.run()
        self.failureResultOf(getting, FileNotFoundError)

    def test_closing_the_mailbox_closes_its_messages(self) -> None:
        mailbox, thread = self.held(b"x" * (3 * CHUNK))
        messages = []
        for _ in range(3):
            getting = mailbox.getMessage(0)
            thread.run()
            messages.append(self.successResultOf(getting))
        self.assertEqual(self.before + 3, open_descriptors())
        messages.pop(0).close()
        mailbox.close()
        mailbox.close()
        thread.run_all()
        self.assertEqual(self.before, open_descriptors())
        self.assertRaises(ValueError, messages[0].readChunk)

    def test_a_message_still_being_opened_is_closed_when_it_is(self) -> None:
        mailbox, thread = self.held(b"x" * (3 * CHUNK))
        getting = mailbox.getMessage(0)
        mailbox.close()
        thread.run()
        self.failureResultOf(getting, CancelledError)
        thread.run_all()
        self.assertEqual(self.before, open_descriptors())

    def test_a_message_that_nobody_waits_for_any_more_is_closed(self) -> None:
        mailbox, thread = self.held(b"x" * (3 * CHUNK))
        getting = mailbox.getMessage(0)
        getting.cancel()
        self.failureResultOf(getting, CancelledError)
        thread.run()
        thread.run_all()
        self.assertEqual(self.before, open_descriptors())

    def test_a_message_still_being_read_is_closed_when_it_was(self) -> None:
        have_disks_read(self)
        mailbox, thread = self.held(b"x" * (3 * CHUNK))
        getting = mailbox.getMessage(0)
        thread.run()
        message = self.successResultOf(getting)
        message.readChunk()
        reading = message.readChunk()
        assert isinstance(reading, Deferred)
        del message
        mailbox.close()
        self.assertEqual(self.before + 1, open_descriptors())
        thread.run()
        self.assertEqual(CHUNK, len(self.successResultOf(reading)))
        thread.run_all()
        self.assertEqual(self.before, open_descriptors())

    def test_a_message_that_stock_twisted_forgot_holds_no_descriptor(self) -> None:
        mailbox, thread = self.held(b"x" * (3 * CHUNK))
        for _ in range(5):
            getting = mailbox.getMessage(0)
            thread.run()
            self.successResultOf(getting).read(10)
        del getting
        gc.collect()
        self.assertEqual(self.before, open_descriptors())

    def test_no_descriptor_is_lost_in_a_long_session(self) -> None:
        for number in range(20):
            deliver(self.path, f"new/{number}.a", b"x" * (number * CHUNK // 5))
        mailbox = self.mailbox()
        for number in range(20):
            message = self.successResultOf(mailbox.getMessage(number))
            for _ in range(number % 4):
                if isinstance(reading := message.readChunk(), Deferred):
                    self.successResultOf(reading)
            if number % 2:
                message.close()
        mailbox.deleteMessage(3)
        self.assertEqual(0, self.successResultOf(mailbox.sync()))
        mailbox.close()
        self.assertEqual(self.before, open_descriptors())


class AheadTests(MailboxTestCase):
    """Small messages that were opened together with one that was asked for."""

    def setUp(self) -> None:
        super().setUp()
        for number in range(1, 6):
            deliver(self.path, f"cur/{number}.a:2,", b"%d" % number)
        self.thread = HeldBack()
        opening = self.opening(self.path, self.thread)
        self.thread.run()
        self.held = self.successResultOf(opening)

    def first_of(self, index: int) -> bytes:
        """What a message holds, for which a thread is waited for."""
        getting = self.held.getMessage(index)
        self.assertNoResult(getting)
        self.thread.run()
        return self.successResultOf(getting).read()

    def ahead(self, index: int) -> bytes:
        """What a message holds, for which no thread is needed."""
        content = self.successResultOf(self.held.getMessage(index)).read()
        self.assertEqual([], self.thread.waiting)
        return content

    def test_they_are_at_hand_in_their_order(self) -> None:
        self.assertEqual(b"1", self.first_of(0))
        self.assertEqual([b"2", b"3", b"4", b"5"], [self.ahead(index) for index in range(1, 5)])

    def test_they_are_at_hand_in_any_order(self) -> None:
        self.assertEqual(b"2", self.first_of(1))
        self.assertEqual([b"5", b"3", b"4"], [self.ahead(index) for index in (4, 2, 3)])

    def test_they_can_be_taken_whole(self) -> None:
        self.assertIsNone(self.held.takeAtHand(1))
        self.first_of(0)
        self.assertEqual(b"2", self.held.takeAtHand(1))
        self.assertIsNone(self.held.takeAtHand(1))
        self.assertEqual(b"3", self.ahead(2))
        self.assertRaises(ValueError, self.held.takeAtHand, 5)

    def test_one_of_which_a_part_was_read_is_not_taken_for_the_whole(self) -> None:
        with open(self.path / "cur/2.a:2,", "rb", buffering=0) as file:
            half = OpenMessage(10, b"half", file, 0)
            for ahead in (half, half._replace(file=None)):
                self.held._ahead = {1: ahead}
                self.assertIsNone(self.held.takeAtHand(1))
                self.assertIs(ahead, self.held._ahead[1])

    def test_each_is_given_once(self) -> None:
        self.first_of(0)
        self.assertEqual(b"3", self.ahead(2))
        self.assertEqual(b"3", self.first_of(2))

    def test_asking_for_another_drops_them(self) -> None:
        self.first_of(3)
        getting = [self.held.getMessage(0), self.held.getMessage(4)]
        self.assertEqual(2, len(self.thread.waiting))
        self.thread.run()
        self.thread.run()
        self.assertEqual([b"1", b"5"], [self.successResultOf(each).read() for each in getting])

    def test_a_marked_one_is_at_hand_as_well(self) -> None:
        self.first_of(0)
        self.held.deleteMessage(1)
        self.assertEqual(b"2", self.ahead(1))

    def test_one_that_was_removed_from_the_disk_meanwhile_is_given_as_it_was(self) -> None:
        self.first_of(0)
        (self.path / "cur/2.a:2,").unlink()
        self.assertEqual(b"2", self.ahead(1))
        getting = self.held.getMessage(1)
        self.thread.run()
        self.failureResultOf(getting, FileNotFoundError)

    def test_they_are_so_many_at_most(self) -> None:
        for number in range(6, 2 * MOST_AHEAD):
            deliver(self.path, f"cur/{number}.a:2,", b"%d" % number)
        opening = self.opening(self.path, self.thread)
        self.thread.run()
        self.held = self.successResultOf(opening)
        self.first_of(0)
        for index in range(1, MOST_AHEAD):
            self.ahead(index)
        self.first_of(MOST_AHEAD)

    def test_they_are_one_chunk_at_most(self) -> None:
        for number in range(6, 12):
            deliver(self.path, f"cur/{number}.a:2,", b"x" * (CHUNK // 2))
        opening = self.opening(self.path, self.thread)
        self.thread.run()
        self.held = self.successResultOf(opening)
        self.first_of(5)
        self.ahead(6)
        self.first_of(7)

    def test_they_go_when_the_session_does(self) -> None:
        self.first_of(0)
        self.held.close()
        getting = self.held.getMessage(1)
        self.assertNoResult(getting)
        self.thread.run()
        self.failureResultOf(getting, CancelledError)

    def test_those_that_come_after_the_end_are_not_kept(self) -> None:
        getting = self.held.getMessage(0)
        self.held.close()
        self.thread.run()
        self.failureResultOf(getting, CancelledError)
        self.assertEqual({}, self.held._ahead)


class HandsTests(MailboxTestCase):
    """What is asked of hands, whoever's they are."""

    def opened(self, *files: bytes, quota_is_current: bool = True) -> MaildirMailbox:
        sizes, inodes = array("q", [2] * len(files)), array("Q", range(len(files)))
        has_new = any(file.startswith(b"new/") for file in files)
        listing = Listing(files, sizes, inodes, frozenset(), has_new)
        opening = Deferred.fromCoroutine(open_mailbox(self.hands, here))
        begun = Begun(b"/joe/Maildir", listing, Failures(), quota_is_current)
        self.hands.answers[-1].callback(begun)
        return self.successResultOf(opening)

    def setUp(self) -> None:
        super().setUp()
        self.hands = HandsAsked()

    def asked_at_quit(self, mailbox: MaildirMailbox) -> list[tuple[str, frozenset[int]]]:
        del self.hands.asked[:]
        mailbox.sync()
        return cast(list[tuple[str, frozenset[int]]], self.hands.asked)

    def test_a_session_with_nothing_to_do_asks_nothing_at_quit(self) -> None:
        mailbox = self.opened(b"cur/1.a:2,")
        self.assertEqual([], self.asked_at_quit(mailbox))
        self.assertEqual(0, self.successResultOf(mailbox.sync()))

    def test_marks_new_messages_or_a_quota_file_that_is_not_current_are_something_to_do(
        self,
    ) -> None:
        nothing: frozenset[int] = frozenset()
        mailbox = self.opened(b"cur/1.a:2,", quota_is_current=False)
        self.assertEqual([("finish", nothing)], self.asked_at_quit(mailbox))
        mailbox = self.opened(b"cur/1.a:2,", b"new/2.b")
        self.assertEqual([("finish", nothing)], self.asked_at_quit(mailbox))
        mailbox = self.opened(b"cur/1.a:2,", b"cur/2.b:2,")
        mailbox.deleteMessage(1)
        self.assertEqual([("finish", frozenset({1}))], self.asked_at_quit(mailbox))

    def test_a_problem_with_the_quota_is_one_line_in_the_log_and_no_failure(self) -> None:
        mailbox = self.opened(b"cur/1.a:2,")
        mailbox.deleteMessage(0)
        lines = self.logged()
        syncing = mailbox.sync()
        self.hands.answers[-1].callback(
            Finished(Failures(), Failures(), "'maildirsize': No space left on device")
        )
        self.assertEqual(0, self.successResultOf(syncing))
        self.assertEqual(1, len(lines))
        self.assertTrue(
            lines[0].startswith("mailbox path=/joe/Maildir problem=quota count=1 first="), lines
        )
        self.assertIn("No space left on device", lines[0])

    def test_what_a_problem_says_cannot_break_its_line(self) -> None:
        mailbox = self.opened(b"new/1.a")
        lines = self.logged()
        mailbox.sync()
        self.hands.answers[-1].callback(
            Finished(Failures(1, "'a\udcff'\n: no"), Failures(2, "b\r\n\x1b[2J"), "c\nd")
        )
        self.assertEqual(3, len(lines))
        for line in lines:
            self.assertTrue(line.isprintable() and line.isascii(), line)

    def test_each_trouble_at_quit_is_told_to_whoever_asked(self) -> None:
        mailbox = self.opened(b"new/1.a")
        asked = [mailbox.sync(), mailbox.sync()]
        self.hands.answers[-1].errback(MailboxMissing(2, "gone"))
        for answer in asked:
            self.failureResultOf(answer, MailboxMissing)

    def test_hands_that_cannot_begin_are_let_go(self) -> None:
        opening = Deferred.fromCoroutine(open_mailbox(self.hands, here))
        self.hands.answers[-1].errback(Busy("full"))
        self.failureResultOf(opening, Busy)
        self.assertEqual(1, self.hands.closed)

    def test_hands_are_let_go_with_the_login_that_is_given_up(self) -> None:
        opening = Deferred.fromCoroutine(open_mailbox(self.hands, here))
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.assertEqual(1, self.hands.closed)

    def test_hands_are_let_go_at_the_end_of_the_session(self) -> None:
        self.opened(b"new/1.a").close()
        self.assertEqual(1, self.hands.closed)

    def test_a_file_that_came_ahead_is_closed_with_the_mailbox(self) -> None:
        mailbox = self.opened(b"new/1.a", b"new/2.b")
        path = deliver(self.path, "new/2.b", b"x" * (2 * CHUNK))
        file = path.open("rb", buffering=0)
        self.addCleanup(file.close)
        getting = mailbox.getMessage(0)
        ahead = OpenMessage(2 * CHUNK, b"", file, path.stat().st_mtime_ns)
        self.hands.answers[-1].callback([OpenMessage(1, b"x", None, 0), ahead])
        self.successResultOf(getting)
        message = self.successResultOf(mailbox.getMessage(1))
        self.assertTrue(message.holds_file)
        mailbox.close()
        self.assertTrue(file.closed)


class SyncTests(MailboxTestCase):
    def setUp(self) -> None:
        super().setUp()
        for name in ("new/1.a", "cur/2.b:2,", "cur/3.c:2,"):
            deliver(self.path, name)
        self.thread = HeldBack()
        opening = self.opening(self.path, self.thread)
        self.thread.run()
        self.held = self.successResultOf(opening)

    def test_marked_messages_go_at_sync_and_not_before(self) -> None:
        mailbox = self.mailbox()
        mailbox.deleteMessage(1)
        self.assertEqual({"new/1.a", "cur/2.b:2,", "cur/3.c:2,"}, set(files_of(self.path)))
        self.assertEqual(0, self.successResultOf(mailbox.sync()))
        self.assertEqual({"cur/1.a:2,", "cur/3.c:2,"}, set(files_of(self.path)))

    def test_a_session_that_ends_without_sync_changes_nothing(self) -> None:
        mailbox = self.mailbox()
        mailbox.deleteMessage(1)
        mailbox.close()
        self.assertEqual({"new/1.a", "cur/2.b:2,", "cur/3.c:2,"}, set(files_of(self.path)))

    def test_messages_unmarked_again_stay(self) -> None:
        mailbox = self.mailbox()
        mailbox.deleteMessage(1)
        mailbox.undeleteMessages()
        mailbox.deleteMessage(2)
        self.successResultOf(mailbox.sync())
        self.assertEqual({"cur/1.a:2,", "cur/2.b:2,"}, set(files_of(self.path)))

    def test_it_goes_on_when_the_session_ends(self) -> None:
        self.held.deleteMessage(1)
        syncing = self.held.sync()
        self.held.close()
        self.thread.run()
        self.assertEqual(0, self.successResultOf(syncing))
        self.assertEqual({"cur/1.a:2,", "cur/3.c:2,"}, set(files_of(self.path)))

    def test_it_goes_on_when_nobody_waits_for_it(self) -> None:
        self.held.deleteMessage(1)
        syncing = self.held.sync()
        syncing.cancel()
        self.failureResultOf(syncing, CancelledError)
        self.thread.run()
        self.assertEqual({"cur/1.a:2,", "cur/3.c:2,"}, set(files_of(self.path)))

    def test_it_is_done_once_however_often_it_is_asked_for(self) -> None:
        self.held.deleteMessage(1)
        asked = [self.held.sync(), self.held.sync()]
        self.thread.run()
        asked.append(self.held.sync())
        self.assertEqual([0, 0, 0], [self.successResultOf(answer) for answer in asked])
        self.assertEqual([], self.thread.waiting)

    def test_a_session_with_nothing_to_do_takes_no_trip_to_a_thread(self) -> None:
        (self.path / "new/1.a").rename(self.path / "cur/1.a:2,")
        opening = self.opening(self.path, self.thread)
        self.thread.run()
        self.assertEqual(0, self.successResultOf(self.successResultOf(opening).sync()))
        self.assertEqual([], self.thread.waiting)

    def test_a_quota_file_that_is_not_current_is_made_at_quit(self) -> None:
        (self.path / "new/1.a").rename(self.path / "cur/1.a:2,")
        home, quota = self.path.absolute().parent, Quota(1000, 0)
        place = Place(os.fsencode(home), os.fsencode(self.path.absolute()), quota=quota)
        for written in (True, False):
            before = (self.path / "maildirsize").exists()
            self.assertNotEqual(written, before)
            hands = InThreads(self.thread, Work(place))
            opening = Deferred.fromCoroutine(open_mailbox(hands, self.thread))
            self.thread.run()
            syncing = self.successResultOf(opening).sync()
            self.assertEqual(written, bool(self.thread.waiting))
            if written:
                self.thread.run()
            self.assertEqual(0, self.successResultOf(syncing))
        self.assertEqual("1000S\n6 3\n", (self.path / "maildirsize").read_text())

    def test_what_could_not_be_removed_is_told_and_logged(self) -> None:
        mailbox = self.mailbox()
        mailbox.deleteMessage(1)
        mailbox.deleteMessage(2)

        def refuse(*args: object, **kwargs: object) -> None:
            raise PermissionError(13, "Permission denied")

        self.patch(os, "unlink", refuse)
        lines = self.logged()
        self.assertEqual(2, self.successResultOf(mailbox.sync()))
        self.assertEqual(1, len(lines))
        self.assertIn("problem=not-removed count=2", lines[0])
        self.assertIn("Permission denied", lines[0])

    def test_one_that_could_not_begin_may_be_asked_for_again(self) -> None:
        mailbox = self.mailbox()
        mailbox.deleteMessage(1)

        willing = mailbox._hands.finish
        self.patch(mailbox._hands, "finish", lambda deleted: fail(Busy("full")))
        self.failureResultOf(mailbox.sync(), Busy)
        self.assertIn("cur/2.b:2,", files_of(self.path))
        self.patch(mailbox._hands, "finish", willing)
        self.assertEqual(0, self.successResultOf(mailbox.sync()))
        self.assertNotIn("cur/2.b:2,", files_of(self.path))


class ThreadedTests(TestCase):
    """The same in true threads."""

    async def test_a_session_in_threads(self) -> None:
        workers = Workers(cast(IReactorFromThreads, reactor), "test", threads=3, queue_limit=9)
        workers.start()
        self.addCleanup(workers.stop)
        path = make_maildir(self.mktemp())
        content = os.urandom(5 * CHUNK + 1)
        deliver(path, "new/1.a", content)
        deliver(path, "new/2.b", b"small")
        mailbox = await open_mailbox(in_threads(workers, path), workers)
        message = await mailbox.getMessage(0)
        received = b""
        while True:
            chunk = message.readChunk()
            if isinstance(chunk, Deferred):
                chunk = await chunk
            if not chunk:
                break
            received += chunk
        self.assertEqual(content, received)
        mailbox.deleteMessage(0)
        self.assertEqual(0, await mailbox.sync())
        mailbox.close()
        self.assertEqual([], descriptors_below(path))
        self.assertEqual({"cur/2.b:2,": b"small"}, files_of(path))
