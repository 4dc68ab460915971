"""Tests for `qmailldap.maildir.listings`: which listings are kept, and for how long."""

from __future__ import annotations

from array import array
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.maildir.listings import LONGEST, ListingCache, Mailbox
from qmailldap.maildir.scanning import SETTLED, Snapshot
from qmailldap.maildir.storage import Failures, Listing
from qmailldap.maildir.work import Begun, Unchanged

JOE, ANN = Mailbox(1001, 1001, b"/joe/Maildir"), Mailbox(1002, 1002, b"/ann/Maildir")
EPOCH = 1_700_000_000
LONG_AGO = 3600.0


def listing(count: int = 1) -> Listing:
    """So many messages, not equal to those of any other call but for the names."""
    files = tuple(b"cur/%d.%d.mx:2," % (EPOCH + number, number) for number in range(count))
    return Listing(
        files, array("q", [1] * count), array("Q", range(count)), frozenset(), has_new=False
    )


class Disk:
    """What those find who do the file work: a mailbox whose folders changed ``changed_at``."""

    def __init__(self, count: int = 1, changed_at: float = EPOCH - LONG_AGO) -> None:
        self.count = count
        self.changed_at = changed_at
        self.token: bytes | None = b"as it was"
        self.asked: list[bytes | None] = []

    def begin(self) -> Deferred[Begun]:
        self.asked.append(None)
        return succeed(self.read())

    def begin_again(self, token: bytes) -> Deferred[Begun | Unchanged]:
        self.asked.append(token)
        if token == self.token:
            return succeed(Unchanged(b"/joe/Maildir", True))
        return succeed(self.read())

    def read(self) -> Begun:
        snapshot = None
        if self.token is not None:
            snapshot = Snapshot(self.token, int(self.changed_at * 1e9))
        return Begun(b"/joe/Maildir", listing(self.count), Failures(), True, snapshot=snapshot)


class ListingsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 50.0
        self.ahead = EPOCH - 50.0
        self.disk = Disk()
        self.listings = self.cache()

    def cache(self, *most_octets: int) -> ListingCache:
        return ListingCache(
            *most_octets, monotonic=lambda: self.now, time=lambda: self.now + self.ahead
        )

    def begin(self, mailbox: Mailbox = JOE, disk: Disk | None = None) -> Begun:
        disk = disk or self.disk
        beginning = self.listings.begin(mailbox, disk.begin, disk.begin_again)
        return self.successResultOf(Deferred.fromCoroutine(beginning))

    def pass_time(self, seconds: float = SETTLED + 1) -> None:
        self.now += seconds

    def is_kept(self, mailbox: Mailbox = JOE, disk: Disk | None = None) -> bool:
        """Whether a session would be told what an earlier one has read."""
        disk = disk or self.disk
        before = len(disk.asked)
        self.begin(mailbox, disk)
        return disk.asked[before:] != [None]

    def keep(self, mailbox: Mailbox = JOE, disk: Disk | None = None) -> Listing:
        """Two sessions far enough from each other."""
        self.begin(mailbox, disk)
        self.pass_time()
        return self.begin(mailbox, disk).listing


class TrustTests(ListingsTestCase):
    """From when on a listing is kept."""

    def test_the_first_session_that_sees_a_mailbox_proves_nothing(self) -> None:
        self.begin()
        self.assertFalse(self.is_kept())

    def test_the_listing_of_a_later_one_is_given_to_those_behind_it(self) -> None:
        kept = self.keep()
        for _ in range(3):
            self.assertIs(kept, self.begin().listing)
        self.assertEqual([None, None, b"as it was", b"as it was", b"as it was"], self.disk.asked)

    def test_what_was_not_read_is_as_it_was_told(self) -> None:
        self.keep()
        begun = self.begin()
        self.assertEqual((b"/joe/Maildir", True), (begun.path, begun.quota_is_current))
        self.assertEqual((Failures(), False), (begun.not_cleaned, begun.was_made))

    def test_what_was_seen_a_moment_ago_only_is_not_kept(self) -> None:
        # A server's clock may be behind ours: the change looks old and is within this tick.
        self.begin()
        self.pass_time(SETTLED)
        self.begin()
        self.assertFalse(self.is_kept())

    def test_what_changed_a_moment_ago_is_not_kept(self) -> None:
        # Our clock was set back: the change was seen long ago, and its time comes again.
        self.disk.changed_at = EPOCH + 100.0
        self.begin()
        self.pass_time(99.0)
        self.begin()
        self.pass_time(SETTLED)
        self.assertFalse(self.is_kept())
        self.pass_time()
        self.begin()
        self.assertTrue(self.is_kept())

    def test_it_counts_when_the_first_answer_came_and_the_second_reading_began(self) -> None:
        held: Deferred[Begun] = Deferred()
        first = Deferred.fromCoroutine(
            self.listings.begin(JOE, lambda: held, self.disk.begin_again)
        )
        self.pass_time(60.0)
        held.callback(self.disk.read())
        self.successResultOf(first)
        held = Deferred()
        second = Deferred.fromCoroutine(
            self.listings.begin(JOE, lambda: held, self.disk.begin_again)
        )
        self.pass_time(60.0)
        held.callback(self.disk.read())
        self.successResultOf(second)
        self.assertFalse(self.is_kept())

    def test_a_scan_that_saw_changes_is_not_kept_and_forgets_what_was_seen(self) -> None:
        self.begin()
        self.pass_time()
        token, self.disk.token = self.disk.token, None
        self.begin()
        self.disk.token = token
        self.begin()
        self.assertFalse(self.is_kept())

    def test_where_something_changed_it_all_begins_anew(self) -> None:
        self.keep()
        self.disk.token, self.disk.count = b"changed", 2
        self.assertEqual(2, len(self.begin().listing.files))
        self.assertFalse(self.is_kept())
        self.pass_time()
        self.begin()
        self.assertTrue(self.is_kept())

    def test_a_failure_passes_and_changes_nothing(self) -> None:
        kept = self.keep()

        def broken(*arguments: Any) -> Deferred[Any]:
            return fail(OSError(5, "EIO"))

        beginning = self.listings.begin(JOE, broken, broken)
        self.failureResultOf(Deferred.fromCoroutine(beginning), OSError)
        self.assertIs(kept, self.begin().listing)


class EndTests(ListingsTestCase):
    """Until when it is kept."""

    def test_a_clock_that_is_set_back_ends_it(self) -> None:
        self.keep()
        self.ahead -= 1.0
        self.assertFalse(self.is_kept())

    def test_also_by_little_at_a_time(self) -> None:
        self.keep()
        for _ in range(3):
            self.ahead -= 0.2
            kept = self.is_kept()
        self.assertFalse(kept)

    def test_also_before_the_listing_has_come(self) -> None:
        self.begin()
        self.pass_time()
        held: Deferred[Begun] = Deferred()
        second = Deferred.fromCoroutine(
            self.listings.begin(JOE, lambda: held, self.disk.begin_again)
        )
        self.ahead -= 1.0
        held.callback(self.disk.read())
        self.successResultOf(second)
        self.assertFalse(self.is_kept())

    def test_one_that_is_set_forward_does_not(self) -> None:
        self.keep()
        self.ahead += 3600.0
        self.assertTrue(self.is_kept())

    def test_it_is_made_anew_after_its_time_and_kept_again(self) -> None:
        self.keep()
        self.pass_time(LONGEST + 1)
        self.assertFalse(self.is_kept())
        self.assertTrue(self.is_kept())


class BoundTests(ListingsTestCase):
    def test_a_mailbox_is_its_owner_s(self) -> None:
        self.keep(JOE)
        for other in (ANN, JOE._replace(uid=7), JOE._replace(gid=7), JOE._replace(path=b"/x")):
            self.assertFalse(self.is_kept(other, Disk()))

    def test_what_was_used_longest_ago_goes_first(self) -> None:
        one, two, three = (Mailbox(1, 1, b"/%d" % number) for number in range(3))
        large = Disk(100)
        self.keep(one, large)
        self.listings = self.cache(self.listings.octets * 5 // 2)
        self.keep(one, large)
        self.keep(two, large)
        self.assertTrue(self.is_kept(one, large))
        self.keep(three, large)
        self.assertTrue(self.is_kept(one, large))
        self.assertTrue(self.is_kept(three, large))
        self.assertFalse(self.is_kept(two, large))

    def test_there_is_never_more_than_the_bound(self) -> None:
        self.listings = self.cache(20_000)
        for number in range(60):
            disk = Disk(number)
            self.keep(Mailbox(1, 1, b"/%d" % (number % 20)), disk)
            self.assertLessEqual(self.listings.octets, 20_000)
        self.assertGreater(self.listings.mailboxes, 1)

    def test_mailboxes_that_are_only_seen_are_bounded_too(self) -> None:
        self.listings = self.cache(20_000)
        for number in range(200):
            self.begin(Mailbox(1, 1, b"/%d" % number))
        self.assertLessEqual(self.listings.octets, 20_000)
        self.assertLess(self.listings.mailboxes, 200)

    def test_names_that_are_there_twice_or_are_shown_longer_count_as_well(self) -> None:
        plain = listing(20)
        odd = plain._replace(files=tuple(b"cur/\x80" + file[5:] for file in plain.files))
        twice = plain._replace(ambiguous=frozenset([b"x" * 50, b"y" * 50]))
        counted = []
        for each in (plain, odd, twice):
            disk = Disk()
            begun = disk.read()._replace(listing=each)
            self.patch(disk, "read", lambda begun=begun: begun)
            self.listings = self.cache()
            self.begin(JOE, disk)
            self.pass_time()
            self.begin(JOE, disk)
            self.assertTrue(each.is_shared)
            counted.append(self.listings.octets)
        self.assertEqual(counted[1], counted[0] + 2 * 20)
        self.assertGreaterEqual(counted[2], counted[0] + 2 * 50)

    def test_one_listing_does_not_take_the_place_of_all(self) -> None:
        self.listings = self.cache(20_000)
        self.keep(ANN)
        self.keep(JOE, Disk(1000))
        self.assertFalse(self.is_kept(JOE, Disk(1000)))
        self.assertTrue(self.is_kept(ANN))

    def test_nothing_is_counted_that_is_gone(self) -> None:
        self.begin()
        least = self.listings.octets
        self.keep(disk=Disk(50))
        self.assertGreater(self.listings.octets, least)
        self.disk.token = b"changed"
        self.begin()
        self.assertEqual((least, 1), (self.listings.octets, self.listings.mailboxes))
        self.disk.token = None
        self.begin()
        self.assertEqual((0, 0), (self.listings.octets, self.listings.mailboxes))


class DerivedTests(ListingsTestCase):
    def test_what_sessions_have_in_common_is_made_once(self) -> None:
        made: list[Listing] = []
        self.keep()
        for _ in range(3):
            self.begin().listing.derived(made.append)
        self.assertEqual(1, len(made))

    def test_of_a_session_s_own_listing_nothing_is_kept(self) -> None:
        made: list[Listing] = []
        own = self.begin().listing
        for _ in range(3):
            own.derived(made.append)
        self.assertEqual(3, len(made))
