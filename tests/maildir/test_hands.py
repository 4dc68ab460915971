"""Tests for `qmailldap.maildir.hands`."""

from __future__ import annotations

import os

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.maildir.hands import InThreads, InTurn
from qmailldap.maildir.listings import ListingCache, Mailbox
from qmailldap.maildir.scanning import SETTLED
from qmailldap.maildir.work import Begun, Place, Work
from qmailldap.threads import WAIT_LIMIT, Busy
from qmailldap.turns import MOST_WAITING, Turns
from tests.maildir.support import (
    HandsAsked,
    HeldBack,
    deliver,
    files_of,
    here,
    in_threads,
    let_rest,
    make_maildir,
)

NOTHING: frozenset[int] = frozenset()


class InThreadsTests(SynchronousTestCase):
    def test_each_call_is_one_trip_to_a_thread(self) -> None:
        path = make_maildir(self.mktemp())
        (path / "new/1.a").write_bytes(b"hello")
        thread = HeldBack()
        hands = in_threads(thread, path)
        beginning = hands.begin()
        self.assertNoResult(beginning)
        thread.run()
        self.assertEqual((b"new/1.a",), self.successResultOf(beginning).listing.files)
        fetching, finishing = hands.fetch(0), hands.finish(frozenset({0}))
        thread.run()
        self.assertEqual([b"hello"], [message.first for message in self.successResultOf(fetching)])
        hands.close()
        thread.run()
        self.assertEqual(0, self.successResultOf(finishing).not_removed.files)
        self.assertEqual(({}, []), (files_of(path), thread.waiting))


class KnownListingTests(SynchronousTestCase):
    """Sessions that follow each other in a mailbox where nothing happens."""

    def setUp(self) -> None:
        self.now = 0.0
        # Of our clock only that it is well ahead of the disk's times.
        self.listings = ListingCache(monotonic=lambda: self.now, time=lambda: self.now + 2**33)
        self.path = make_maildir(self.mktemp())
        for number in range(3):
            deliver(self.path, f"cur/{number + 1}.a:2,", b"%d" % number)
        let_rest(self.path)
        kept = self.session()[1]
        while self.session()[1].listing is not kept.listing:
            self.now += SETTLED + 1
            kept = self.session()[1]

    def session(self) -> tuple[InThreads, Begun]:
        mailbox = os.fsencode(self.path.absolute())
        place = Place(os.path.dirname(mailbox), mailbox)
        hands = InThreads(here, Work(place), self.listings, Mailbox(1, 1, mailbox))
        return hands, self.successResultOf(hands.begin())

    def test_they_have_one_listing_and_each_its_own_way_with_it(self) -> None:
        (one, begun), (two, same) = self.session(), self.session()
        self.assertIs(begun.listing, same.listing)
        self.assertEqual(b"1", self.successResultOf(one.fetch(1))[0].first)
        self.assertEqual(0, self.successResultOf(one.finish(frozenset({1}))).not_removed.files)
        self.failureResultOf(two.fetch(1), FileNotFoundError)
        self.assertEqual(b"2", self.successResultOf(two.fetch(2))[0].first)
        self.assertEqual(0, self.successResultOf(two.finish(frozenset({2}))).not_removed.files)
        self.assertEqual({"cur/1.a:2,": b"0"}, files_of(self.path))

    def test_what_one_of_them_changed_the_next_one_sees(self) -> None:
        hands, _ = self.session()
        self.successResultOf(hands.finish(frozenset({0})))
        self.assertEqual((b"cur/2.a:2,", b"cur/3.a:2,"), self.session()[1].listing.files)

    def test_what_others_changed_is_seen_and_found(self) -> None:
        hands, _ = self.session()
        (self.path / "cur/1.a:2,").rename(self.path / "cur/1.a:2,S")
        self.assertEqual(b"0", self.successResultOf(hands.fetch(0))[0].first)
        self.assertIn(b"cur/1.a:2,S", self.session()[1].listing.files)


class InTurnTests(SynchronousTestCase):
    """Sessions in one mailbox, and one in another."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.turns = Turns(self.clock)

    def session(self, mailbox: str = "/joe") -> tuple[InTurn, HandsAsked]:
        inner = HandsAsked()
        return InTurn(inner, self.turns, mailbox), inner

    def test_one_session_at_a_time_lists_a_mailbox(self) -> None:
        (one, asked_of_one), (two, asked_of_two) = self.session(), self.session()
        first, second = one.begin(), two.begin()
        self.assertEqual(([("begin",)], []), (asked_of_one.asked, asked_of_two.asked))
        asked_of_one.answers[0].callback("one")
        self.assertEqual("one", self.successResultOf(first))
        self.assertEqual([("begin",)], asked_of_two.asked)
        asked_of_two.answers[0].callback("two")
        self.assertEqual("two", self.successResultOf(second))

    def test_an_update_waits_for_a_listing_and_a_listing_for_an_update(self) -> None:
        (one, asked_of_one), (two, asked_of_two) = self.session(), self.session()
        one.begin()
        finishing = two.finish(frozenset({3}))
        third = one.begin()
        self.assertEqual([], asked_of_two.asked)
        asked_of_one.answers[0].callback(None)
        self.assertEqual([("finish", frozenset({3}))], asked_of_two.asked)
        self.assertEqual(1, len(asked_of_one.asked))
        asked_of_two.answers[0].callback("done")
        self.assertEqual("done", self.successResultOf(finishing))
        asked_of_one.answers[1].callback("listed")
        self.assertEqual("listed", self.successResultOf(third))

    def test_another_mailbox_waits_for_nobody(self) -> None:
        (one, _), (other, asked_of_other) = self.session(), self.session("/ann")
        one.begin()
        other.begin()
        self.assertEqual([("begin",)], asked_of_other.asked)

    def test_to_fetch_a_message_takes_no_turn(self) -> None:
        (one, asked_of_one), (two, asked_of_two) = self.session(), self.session()
        one.finish(NOTHING)
        fetching = two.fetch(7)
        self.assertEqual([("fetch", 7)], asked_of_two.asked)
        asked_of_two.answers[0].callback(["message"])
        self.assertEqual(["message"], self.successResultOf(fetching))
        self.assertEqual(1, len(asked_of_one.asked))

    def test_a_failure_is_passed_on_and_lets_the_next_one_in(self) -> None:
        (one, asked_of_one), (two, asked_of_two) = self.session(), self.session()
        first = one.begin()
        two.begin()
        asked_of_one.answers[0].errback(OSError("no"))
        self.failureResultOf(first, OSError)
        self.assertEqual([("begin",)], asked_of_two.asked)

    def test_who_is_cancelled_while_waiting_is_not_asked_for(self) -> None:
        (one, asked_of_one), (two, asked_of_two), (three, asked_of_three) = (
            self.session(),
            self.session(),
            self.session(),
        )
        one.begin()
        second = two.finish(NOTHING)
        three.begin()
        second.cancel()
        self.failureResultOf(second, CancelledError)
        asked_of_one.answers[0].callback(None)
        self.assertEqual([], asked_of_two.asked)
        self.assertEqual([("begin",)], asked_of_three.asked)

    def test_who_is_cancelled_later_keeps_the_turn_until_the_work_is_done(self) -> None:
        (one, asked_of_one), (two, asked_of_two) = self.session(), self.session()
        first = one.finish(frozenset({1}))
        two.begin()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertFalse(asked_of_one.answers[0].called)
        self.assertEqual([], asked_of_two.asked)
        asked_of_one.answers[0].callback("done")
        self.assertEqual([("begin",)], asked_of_two.asked)

    def test_too_many_or_too_long_is_busy(self) -> None:
        one, _ = self.session()
        one.begin()
        waiting = [self.session() for _ in range(MOST_WAITING)]
        results = [hands.begin() for hands, _ in waiting]
        self.failureResultOf(self.session()[0].begin(), Busy)
        self.clock.advance(WAIT_LIMIT)
        for result in results:
            self.failureResultOf(result, Busy)
        self.assertEqual([[]] * MOST_WAITING, [inner.asked for _, inner in waiting])

    def test_the_end_of_the_session_is_passed_on(self) -> None:
        hands, inner = self.session()
        hands.close()
        self.assertEqual(1, inner.closed)
