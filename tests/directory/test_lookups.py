"""Those who ask for the same login at the same time share one search."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.account import Entry
from qmailldap.directory._lookups import Lookups
from qmailldap.directory.errors import DirectoryUnavailable, EntryTooLarge

Entries = tuple[Entry, ...]

LOGINS = (b"joe", b"ann")
steps = st.one_of(
    st.tuples(st.just("find"), st.sampled_from(LOGINS)),
    st.tuples(st.just("leave"), st.integers(0, 20)),
    st.tuples(st.sampled_from(["answer", "fail"]), st.sampled_from(LOGINS)),
    st.tuples(st.just("stop"), st.none()),
)


class LookupsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.begun: list[bytes] = []
        self.under_way: dict[bytes, Deferred[Entries]] = {}
        self.given_up: list[bytes] = []
        self.lookups = Lookups(self.search)

    def search(self, login: bytes) -> Deferred[Entries]:
        def give_up(search: Deferred[Entries]) -> None:
            self.given_up.append(login)
            del self.under_way[login]

        self.assertNotIn(login, self.under_way)
        self.begun.append(login)
        search = self.under_way[login] = Deferred(give_up)
        return search

    def answer(self, login: bytes) -> Entries:
        entries = (Entry(f"number={len(self.begun)}", {}),)
        self.under_way.pop(login).callback(entries)
        return entries

    def fail_search(self, login: bytes, error: Exception) -> None:
        self.under_way.pop(login).errback(error)

    def test_those_who_ask_for_the_same_login_share_a_search_and_what_it_finds(self) -> None:
        waiting = [self.lookups.find(b"joe") for _ in range(3)]
        self.assertEqual(self.begun, [b"joe"])
        entries = self.answer(b"joe")
        for found in waiting:
            self.assertIs(self.successResultOf(found), entries)

    def test_logins_that_differ_in_an_octet_are_not_the_same(self) -> None:
        for login in (b"joe", b"Joe", b"joe ", b"joe\0", b""):
            self.lookups.find(login)
        self.assertEqual(len(self.begun), 5)

    def test_nothing_is_remembered_of_a_search_that_has_ended(self) -> None:
        first = self.lookups.find(b"joe")
        self.answer(b"joe")
        second = self.lookups.find(b"joe")
        self.assertNoResult(second)
        entries = self.answer(b"joe")
        self.assertIsNot(self.successResultOf(first), entries)
        self.assertIs(self.successResultOf(second), entries)

    def test_asking_again_as_soon_as_one_is_told_begins_a_search(self) -> None:
        again: list[Deferred[Entries]] = []
        first = self.lookups.find(b"joe")
        first.addCallback(lambda _: again.append(self.lookups.find(b"joe")))
        second = self.lookups.find(b"joe")
        self.answer(b"joe")
        self.successResultOf(second)
        self.assertEqual(self.begun, [b"joe", b"joe"])
        self.assertNoResult(again[0])
        self.answer(b"joe")
        self.successResultOf(again[0])

    def test_a_search_that_ends_at_once_is_no_exception(self) -> None:
        error = DirectoryUnavailable("every server is down")
        lookups = Lookups(lambda login: fails_with(error))
        for _ in range(2):
            self.failureResultOf(lookups.find(b"joe"), DirectoryUnavailable)

    def test_an_error_is_told_to_each_by_an_exception_of_its_own(self) -> None:
        for error in (DirectoryUnavailable("no server"), EntryTooLarge("an entry")):
            waiting = [self.lookups.find(b"joe") for _ in range(3)]
            self.fail_search(b"joe", error)
            told = [self.failureResultOf(found, type(error)).value for found in waiting]
            self.assertEqual({str(each) for each in told}, {str(error)})
            self.assertEqual(len(set(map(id, told))), 3)

    def test_an_error_that_nobody_expects_is_told_as_well(self) -> None:
        waiting = [self.lookups.find(b"joe") for _ in range(2)]
        self.fail_search(b"joe", ZeroDivisionError())
        for found in waiting:
            self.failureResultOf(found, ZeroDivisionError)

    def test_in_whatever_order_they_leave_the_last_one_ends_the_search(self) -> None:
        for order in itertools.permutations(range(3)):
            waiting = [self.lookups.find(b"joe") for _ in range(3)]
            for left, number in enumerate(order, start=1):
                self.assertIn(b"joe", self.under_way)
                waiting[number].cancel()
                self.failureResultOf(waiting[number], CancelledError)
                for other in order[left:]:
                    self.assertNoResult(waiting[other])
            self.assertNotIn(b"joe", self.under_way)

    def test_one_who_comes_when_all_have_left_has_a_new_search(self) -> None:
        first = self.lookups.find(b"joe")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        second = self.lookups.find(b"joe")
        self.assertEqual(self.begun, [b"joe", b"joe"])
        self.answer(b"joe")
        self.successResultOf(second)

    def test_one_who_is_told_may_have_another_leave_who_is_not_told_yet(self) -> None:
        first, second, third = (self.lookups.find(b"joe") for _ in range(3))
        first.addCallback(lambda _: second.cancel())
        self.answer(b"joe")
        self.successResultOf(first)
        self.failureResultOf(second, CancelledError)
        self.successResultOf(third)
        self.assertEqual(self.given_up, [])

    @given(st.lists(steps, max_size=40))
    def test_each_is_told_once_and_what_came_of_the_search(
        self, script: list[tuple[str, Any]]
    ) -> None:
        self.setUp()
        waiting: dict[bytes, list[Deferred[Entries]]] = {login: [] for login in LOGINS}
        for step, argument in script:
            begun, given_up = len(self.begun), len(self.given_up)
            if step == "find":
                waiting[argument].append(self.lookups.find(argument))
                # A search is begun by the first of them.
                self.assertEqual(len(self.begun) - begun, len(waiting[argument]) == 1)
            elif step == "leave":
                all_waiting = [(login, each) for login in LOGINS for each in waiting[login]]
                if all_waiting:
                    login, leaver = all_waiting[argument % len(all_waiting)]
                    waiting[login].remove(leaver)
                    leaver.cancel()
                    self.failureResultOf(leaver, CancelledError)
                    self.assertEqual(len(self.given_up) - given_up, not waiting[login])
            elif step == "stop":
                self.lookups.stop()
                for login in LOGINS:
                    for each in waiting[login]:
                        self.failureResultOf(each, CancelledError)
                    waiting[login].clear()
            elif waiting[argument]:
                if step == "answer":
                    entries = self.answer(argument)
                    for each in waiting[argument]:
                        self.assertIs(self.successResultOf(each), entries)
                else:
                    self.fail_search(argument, EntryTooLarge("an entry"))
                    for each in waiting[argument]:
                        self.failureResultOf(each, EntryTooLarge)
                waiting[argument].clear()
            for login in LOGINS:
                self.assertEqual(login in self.under_way, bool(waiting[login]))
                for each in waiting[login]:
                    self.assertNoResult(each)


def fails_with(error: Exception) -> Deferred[Entries]:
    failed: Deferred[Entries] = Deferred()
    failed.errback(error)
    return failed
