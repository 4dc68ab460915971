"""Which server is asked, and what a login sees when one fails; on a network that has no time."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from ldaptor.protocols import pureldap
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.account import Entry
from qmailldap.control import Control, ControlError, ServerAddress
from qmailldap.directory import Directory, DirectoryUnavailable, EntryTooLarge
from qmailldap.directory._frames import MESSAGE_LIMIT
from qmailldap.directory._pool import IDLE_LIMIT
from qmailldap.directory._server import SEARCHES_PER_CONNECTION, UNFINISHED_IN_A_ROW
from tests.directory.fake import (
    BASE,
    Behaviour,
    FakeServer,
    Network,
    Peer,
    begins,
    binds_with,
    checks_password,
    closes,
    disconnects,
    done,
    entry,
    except_for,
    finds,
    finds_a_large_entry,
    finds_nothing_but,
    login_of,
    notice_of_disconnection,
    refuses_with_an_echo,
    says_nothing,
    sends,
    sends_half,
)

JOE = f"uid=joe,{BASE}"
TIMEOUT = 20
T = TypeVar("T")


class DirectoryTestCase(SynchronousTestCase):
    """A directory, `start_directory`, on the network of the servers `one` and `two`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.network = Network(self.clock)
        self.one = self.network.server("one")
        self.two = self.network.server("two")
        self.directories: list[Directory] = []
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.addCleanup(self.nothing_is_left)

    def start_directory(self, *servers: FakeServer, limits: Any = None, **facts: Any) -> Directory:
        control = Control(
            ldapserver=tuple(server.address for server in servers),
            ldapbasedn=BASE,
            **{"ldaptimeout": TIMEOUT, **facts},
        )
        directory = Directory(self.clock, control, connect=self.network.connect, **(limits or {}))
        self.directories.append(directory)
        return directory

    def nothing_is_left(self) -> None:
        for directory in self.directories:
            stopped = directory.stop()
            self.network.settle()
            self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        for server in (self.one, self.two):
            self.assertEqual(server.open_peers, [])

    def log_lines(self) -> list[str]:
        return [formatEvent(event) for event in self.events]

    def begin(self, coroutine: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        return Deferred.fromCoroutine(coroutine)

    def result(self, coroutine: Coroutine[Deferred[Any], Any, T], seconds: float = 0.05) -> T:
        operation = self.begin(coroutine)
        self.network.settle(seconds)
        return self.successResultOf(operation)

    def fails(self, coroutine: Coroutine[Deferred[Any], Any, Any], seconds: float = 0.05) -> str:
        operation = self.begin(coroutine)
        self.network.settle(seconds)
        reason = self.failureResultOf(operation, DirectoryUnavailable).value.reason
        assert isinstance(reason, str)
        return reason

    def begin_finding(self, directory: Directory, count: int) -> list[Deferred[tuple[Entry, ...]]]:
        """Look for so many logins, all of Joe's entry; equal ones would share one search."""
        logins = [b"joe%d" % number for number in range(count)]
        for server in (self.one, self.two):
            server.entries.update((login, [JOE]) for login in logins)
        return [self.begin(directory.find(login)) for login in logins]

    def names(self, entries: tuple[Entry, ...]) -> list[str]:
        return [entry.dn for entry in entries]


class FindTests(DirectoryTestCase):
    def test_a_login_is_found(self) -> None:
        directory = self.start_directory(self.one)
        self.assertEqual(self.names(self.result(directory.find(b"joe"))), [JOE])
        self.assertEqual(self.log_lines(), [])

    def test_a_login_may_be_no_entry_or_more_than_one(self) -> None:
        self.one.entries[b"twin"] = ["dc=1", "dc=2", "dc=3"]
        directory = self.start_directory(self.one)
        self.assertEqual(self.result(directory.find(b"nobody")), ())
        self.assertEqual(self.names(self.result(directory.find(b"twin"))), ["dc=1", "dc=2"])

    def test_a_server_without_the_base_is_told_once_and_the_next_is_asked(self) -> None:
        self.one.search = finds_nothing_but(32)
        directory = self.start_directory(self.one, self.two)
        for _ in range(3):
            self.assertEqual(self.names(self.result(directory.find(b"joe"))), [JOE])
        self.assertEqual(len(self.one.logins), 3)
        (line,) = self.log_lines()
        self.assertIn("has no entry ldapbasedn", line)

    def test_a_base_that_no_server_has_is_no_answer(self) -> None:
        self.one.search = self.two.search = finds_nothing_but(32)
        directory = self.start_directory(self.one, self.two)
        for _ in range(3):
            reason = self.fails(directory.find(b"joe"))
            self.assertEqual(reason.count("ldapbasedn"), 2)
        self.assertEqual(len(self.log_lines()), 2)

    def test_a_probe_that_finds_no_base_has_its_answer(self) -> None:
        self.one.running = False
        self.start_directory(self.one).start()
        self.network.settle()
        self.one.running = True
        self.one.search = finds_nothing_but(32)
        self.network.settle(1.1)
        self.assertIn("up again", self.log_lines()[-1])

    def test_an_entry_too_large_is_that_logins_own_affair(self) -> None:
        self.one.search = lambda peer, message: (
            finds_a_large_entry if login_of(message.value) == b"huge" else finds
        )(peer, message)
        directory = self.start_directory(self.one, self.two)
        for _ in range(3):
            operation = self.begin(directory.find(b"huge"))
            self.network.settle()
            self.failureResultOf(operation, EntryTooLarge)
            self.assertEqual(self.names(self.result(directory.find(b"joe"))), [JOE])
        self.assertEqual(self.two.peers, [])
        self.assertEqual(len(self.one.peers), 1)
        self.assertEqual(self.log_lines(), [])

    def test_an_entry_too_large_is_an_answer_of_a_server_that_was_down(self) -> None:
        self.one.running = False
        directory = self.start_directory(self.one)
        self.fails(directory.find(b"joe"))
        self.one.running = True
        self.one.search = finds_a_large_entry
        self.network.settle(1.1)
        self.assertIn("up again", self.log_lines()[-1])

    def test_a_single_entry_with_a_size_limit_exceeded_is_not_trusted(self) -> None:
        def finds_one_of_many(peer: Peer, message: Any) -> None:
            peer.answer(message, entry(JOE), done(4))

        self.one.search = finds_one_of_many
        directory = self.start_directory(self.one)
        self.assertIn("sizeLimitExceeded", self.fails(directory.find(b"joe")))

    def test_a_sample_is_enough_when_there_are_more(self) -> None:
        self.one.search = lambda peer, message: peer.answer(message, entry(JOE), done(4))
        directory = self.start_directory(self.one, ldapobjectclass="qmailUser")
        self.assertEqual(self.names(self.result(directory.sample()).value), [JOE])
        self.one.search = lambda peer, message: peer.answer(message, done(0))
        self.assertEqual(self.result(directory.sample()).value, ())

    def test_a_sample_that_the_server_refuses_is_no_answer(self) -> None:
        self.one.search = finds_nothing_but(11)
        directory = self.start_directory(self.one, ldapobjectclass="qmailUser")
        self.assertIn("adminLimitExceeded", self.fails(directory.sample()))

    def test_the_service_binds_with_its_own_name_before_it_searches(self) -> None:
        self.one.passwords[b"cn=us"] = b"\xffours"
        directory = self.start_directory(self.one, ldaplogin="cn=us", ldappassword=b"\xffours")
        self.result(directory.find(b"joe"))
        first, second = (message.value for message in self.one.requests)
        self.assertEqual((first.dn, first.auth), (b"cn=us", b"\xffours"))
        self.assertIsInstance(second, pureldap.LDAPSearchRequest)

    def test_a_configuration_that_cannot_work_is_refused_at_once(self) -> None:
        for facts in ({"ldapobjectclass": "a)("}, {"ldapbasedn": "org"}):
            control = Control(ldapserver=(ServerAddress("one"),), **facts)  # type: ignore[arg-type]
            self.assertRaises(ControlError, Directory, self.clock, control)

    def test_a_start_connects_before_the_first_login(self) -> None:
        self.start_directory(self.one, self.two).start()
        self.network.settle()
        self.assertEqual(len(self.one.open_peers), 1)
        self.assertEqual(self.two.peers, [])

    def test_a_start_with_every_server_down_is_no_error(self) -> None:
        self.one.running = False
        directory = self.start_directory(self.one)
        directory.start()
        self.network.settle()
        self.one.running = True
        self.network.settle(1.1)
        self.assertEqual(self.names(self.result(directory.find(b"joe"))), [JOE])


class SharingTests(DirectoryTestCase):
    """Many logins, a few connections."""

    def slow(self, peer: Peer, message: Any) -> None:
        self.clock.callLater(0.5, finds, peer, message)

    def test_logins_one_after_another_use_one_connection(self) -> None:
        directory = self.start_directory(self.one)
        for _ in range(10):
            self.result(directory.find(b"joe"))
        self.assertEqual(len(self.one.peers), 1)

    def test_logins_together_share_a_few_connections(self) -> None:
        self.one.search = self.slow
        directory = self.start_directory(self.one, limits={"connections": 3})
        finds = self.begin_finding(directory, 30)
        self.network.settle(0.1)
        self.assertEqual(len(self.one.logins), 30)
        self.network.settle(1)
        for found in finds:
            self.assertEqual(self.names(self.successResultOf(found)), [JOE])
        self.assertEqual(len(self.one.peers), 3)

    def test_searches_under_way_on_a_connection_are_bounded(self) -> None:
        self.one.search = self.slow
        directory = self.start_directory(self.one, limits={"connections": 2})
        finds = self.begin_finding(directory, 100)
        self.network.settle(0.1)
        self.assertEqual(len(self.one.logins), 2 * SEARCHES_PER_CONNECTION)
        self.network.settle(3)
        for found in finds:
            self.successResultOf(found)

    def test_operations_beyond_the_queue_fail_at_once(self) -> None:
        self.one.search = says_nothing
        directory = self.start_directory(self.one, limits={"queue_limit": 5})
        waiting = self.begin_finding(directory, 5)
        self.assertIn("5 operations", self.fails(directory.find(b"joe"), seconds=0))
        self.assertIn("5 operations", self.fails(directory.prove(JOE, b"secret"), seconds=0))
        self.network.settle(TIMEOUT)
        for operation in waiting:
            self.failureResultOf(operation, DirectoryUnavailable)
        self.one.search = finds
        self.result(directory.find(b"joe"), seconds=2)

    def test_a_login_that_gives_up_leaves_its_place(self) -> None:
        self.one.search = says_nothing
        directory = self.start_directory(self.one, limits={"queue_limit": 1})
        operation = self.begin(directory.find(b"joe"))
        self.network.settle()
        operation.cancel()
        self.failureResultOf(operation, CancelledError)
        self.one.search = finds
        self.result(directory.find(b"joe"))

    def test_a_connection_unused_for_long_is_replaced(self) -> None:
        directory = self.start_directory(self.one)
        self.result(directory.find(b"joe"))
        self.clock.advance(IDLE_LIMIT + 1)
        self.one.open_peers[0].open = False  # what a firewall does: nobody is told
        self.result(directory.find(b"joe"))
        self.assertEqual(len(self.one.peers), 2)
        self.one.peers[0].open = True
        self.one.peers[0].close()
        self.assertEqual(self.log_lines(), [])


class JoiningTests(DirectoryTestCase):
    """Logins that are the same, at the same time."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = self.start_directory(self.one, limits={"queue_limit": 3})
        self.result(self.directory.find(b"first"))
        self.asked: list[tuple[Peer, Any]] = []
        self.one.search = lambda peer, message: self.asked.append((peer, message))

    def begin_finding_joe(self, count: int) -> list[Deferred[tuple[Entry, ...]]]:
        begun = [self.begin(self.directory.find(b"joe")) for _ in range(count)]
        self.network.settle()
        return begun

    def answer(self) -> None:
        while self.asked:
            finds(*self.asked.pop())

    def test_they_are_searched_for_once_and_all_found(self) -> None:
        together = self.begin_finding_joe(3)
        self.assertEqual(len(self.asked), 1)
        self.answer()
        for found in together:
            self.assertEqual(self.names(self.successResultOf(found)), [JOE])

    def test_one_that_comes_after_the_answer_is_searched_for(self) -> None:
        for number in range(3):
            (found,) = self.begin_finding_joe(1)
            self.one.entries[b"joe"] = [f"dc={number}"]
            self.answer()
            self.assertEqual(self.names(self.successResultOf(found)), [f"dc={number}"])

    def test_each_of_them_has_its_place_in_the_queue(self) -> None:
        together = self.begin_finding_joe(3)
        self.assertIn("3 operations", self.fails(self.directory.find(b"joe"), seconds=0))
        together.pop().addErrback(lambda _: None).cancel()
        together += self.begin_finding_joe(1)
        self.answer()
        for found in together:
            self.successResultOf(found)
        self.begin_finding_joe(3)
        self.answer()

    def test_the_search_goes_on_while_one_of_them_waits(self) -> None:
        first, second = self.begin_finding_joe(2)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.network.settle()
        self.assertEqual(self.one.asked(pureldap.LDAPAbandonRequest), [])
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.network.settle()
        self.assertEqual(len(self.one.asked(pureldap.LDAPAbandonRequest)), 1)

    def test_they_are_tried_once_more_together(self) -> None:
        self.two.search = self.one.search
        self.directory = self.start_directory(self.one, self.two)
        self.one.search = closes
        together = self.begin_finding_joe(3)
        self.assertEqual(len(self.asked), 1)
        self.answer()
        for found in together:
            self.assertEqual(self.names(self.successResultOf(found)), [JOE])

    def test_they_fail_together_when_their_time_is_up(self) -> None:
        (first,) = self.begin_finding_joe(1)
        self.network.settle(TIMEOUT - 1)
        (second,) = self.begin_finding_joe(1)
        self.network.settle(1)
        for found in (first, second):
            self.failureResultOf(found, DirectoryUnavailable)

    def test_they_fail_together_when_the_directory_is_stopped(self) -> None:
        together = self.begin_finding_joe(2)
        self.directory.stop()
        for found in together:
            reason = self.failureResultOf(found, DirectoryUnavailable).value.reason
            self.assertIn("stopped", reason)


class ProveTests(DirectoryTestCase):
    def test_a_password_is_right_or_wrong(self) -> None:
        directory = self.start_directory(self.one)
        self.assertTrue(self.result(directory.prove(JOE, b"secret")))
        self.assertFalse(self.result(directory.prove(JOE, b"Secret")))
        self.assertFalse(self.result(directory.prove("uid=nobody", b"secret")))

    def test_an_empty_password_is_wrong_and_not_asked_about(self) -> None:
        self.one.bind = binds_with(0)
        directory = self.start_directory(self.one)
        self.assertFalse(self.result(directory.prove(JOE, b"")))
        self.assertFalse(self.result(directory.prove("", b"secret")))
        self.assertEqual(self.one.requests, [])

    def test_a_name_that_is_not_utf8_goes_back_as_it_came(self) -> None:
        name = b"uid=\xff\xc3\xa9,dc=org"
        self.one.passwords[name] = b"\xfe\0"
        self.one.search = lambda peer, message: peer.answer(message, entry(name), done())
        directory = self.start_directory(self.one)
        (found,) = self.result(directory.find(b"\xff"))
        self.assertTrue(self.result(directory.prove(found.dn, b"\xfe\0")))

    def test_binds_stay_off_the_connections_that_search(self) -> None:
        directory = self.start_directory(self.one)
        self.result(directory.find(b"joe"))
        self.result(directory.prove(JOE, b"secret"))
        self.result(directory.find(b"joe"))
        self.assertEqual(len(self.one.peers), 2)
        binds = self.one.asked(pureldap.LDAPBindRequest)
        self.assertEqual([bind.dn for bind in binds], [b"", JOE.encode()])

    def test_binds_take_turns_on_a_few_connections(self) -> None:
        under_way = set()
        overlaps = []

        def slow(peer: Peer, message: Any) -> None:
            overlaps.append(peer in under_way)
            under_way.add(peer)
            self.clock.callLater(0.1, answer, peer, message)

        def answer(peer: Peer, message: Any) -> None:
            under_way.discard(peer)
            checks_password(peer, message)

        self.one.bind = slow
        directory = self.start_directory(self.one, limits={"rebind_connections": 2})
        passwords = [b"secret", b"wrong"] * 10
        proofs = [self.begin(directory.prove(JOE, password)) for password in passwords]
        self.network.settle(2)
        proved = [self.successResultOf(proof) for proof in proofs]
        self.assertEqual(proved, [True, False] * 10)
        self.assertEqual(len(self.one.peers), 2)
        self.assertNotIn(True, overlaps)

    def test_what_a_server_judges_is_not_asked_of_the_next(self) -> None:
        directory = self.start_directory(self.one, self.two)
        for code in (19, 32, 34, 48, 49, 50, 53):
            self.one.bind = binds_with(code)
            self.assertFalse(self.result(directory.prove(JOE, b"secret")), code)
        self.assertEqual(self.two.peers, [])
        self.assertEqual(self.log_lines(), [])

    def test_what_a_server_cannot_judge_is_asked_of_the_next_and_told_once(self) -> None:
        directory = self.start_directory(self.one, self.two)
        self.one.bind = binds_with(13)
        for _ in range(3):
            self.assertTrue(self.result(directory.prove(JOE, b"secret")))
        (line,) = self.log_lines()
        self.assertIn("confidentialityRequired", line)
        self.assertEqual(len(self.two.asked(pureldap.LDAPBindRequest)), 3)

    def test_a_bind_that_is_not_answered_is_tried_at_the_next_server(self) -> None:
        directory = self.start_directory(self.one, self.two)
        self.result(directory.find(b"joe"))
        self.one.bind = says_nothing
        self.assertTrue(self.result(directory.prove(JOE, b"secret"), seconds=5.1))


class OneRecordTests(DirectoryTestCase):
    """The bind of one user goes wrong: the server stays everybody's, unless its probe fails too."""

    def check_that_it_stays_up(self, bad: Behaviour, *, told: str, seconds: float = 0.05) -> None:
        self.one.bind = except_for("uid=odd", checks_password, bad)
        self.two.passwords[b"uid=odd"] = b"secret"
        directory = self.start_directory(self.one, self.two)
        self.result(directory.find(b"joe"))
        for number in range(6):
            self.assertTrue(self.result(directory.prove("uid=odd", b"secret"), seconds))
            self.assertTrue(self.result(directory.prove(JOE, b"secret")))
            self.assertEqual(len(self.one.logins), 1 + number)
            self.result(directory.find(b"joe"))
        self.assertEqual(self.two.logins, [])
        self.assertNotEqual(self.one.probes, [])
        (line,) = self.log_lines()
        self.assertIn(told, line)

    def test_a_bind_that_hangs(self) -> None:
        self.check_that_it_stays_up(
            says_nothing, told="does not answer a rebind: the server said nothing", seconds=5.1
        )

    def test_a_bind_that_is_answered_with_busy(self) -> None:
        self.check_that_it_stays_up(binds_with(51), told="answers a rebind with busy")

    def test_a_bind_that_is_answered_with_unavailable(self) -> None:
        self.check_that_it_stays_up(binds_with(52), told="answers a rebind with unavailable")

    def test_a_bind_that_is_answered_with_garbage(self) -> None:
        self.check_that_it_stays_up(sends(b"\0"), told="does not answer a rebind: the server sent")

    def test_binds_that_end_their_connections(self) -> None:
        self.one.bind = except_for("uid=odd", checks_password, closes)
        self.two.passwords[b"uid=odd"] = b"secret"
        directory = self.start_directory(self.one, self.two)
        self.result(directory.find(b"joe"))
        for _ in range(6):
            self.assertTrue(self.result(directory.prove("uid=odd", b"secret")))
        self.assertEqual(len(self.one.probes), 2)
        self.result(directory.find(b"joe"))
        self.assertEqual(self.two.logins, [])
        (line,) = self.log_lines()
        self.assertIn("does not answer a rebind: closed", line)

    def test_a_bind_that_hangs_takes_nothing_along(self) -> None:
        directory = self.start_directory(self.one)
        self.result(directory.find(b"joe"))
        self.result(directory.prove(JOE, b"secret"))
        kept = list(self.one.open_peers)
        self.one.bind = except_for("uid=odd", checks_password, says_nothing)
        stuck = self.begin(directory.prove("uid=odd", b"secret"))
        also_stuck = self.begin(directory.prove("uid=odd", b"secret"))
        self.network.settle(TIMEOUT - 1)
        slow_answers: list[tuple[Peer, Any]] = []
        self.one.search = lambda peer, message: slow_answers.append((peer, message))
        found = self.begin(directory.find(b"joe"))
        self.network.settle(1.1)
        self.failureResultOf(stuck, DirectoryUnavailable)
        self.failureResultOf(also_stuck, DirectoryUnavailable)
        for peer, message in slow_answers:
            finds(peer, message)
        self.assertEqual(self.names(self.successResultOf(found)), [JOE])
        self.assertIn(kept[0], self.one.open_peers)
        self.assertNotIn(kept[1], self.one.open_peers)

    def test_a_server_whose_probe_is_silent_too_is_down(self) -> None:
        directory = self.start_directory(self.one, self.two)
        self.result(directory.find(b"joe"))
        self.one.bind = self.one.search = says_nothing
        self.assertTrue(self.result(directory.prove(JOE, b"secret"), seconds=5.1))
        self.assertEqual(len(self.one.probes), 1)
        self.network.settle(10)
        self.assertIn("one:389 is down: it said nothing for 10 s", self.log_lines()[-1])
        self.assertEqual(self.names(self.result(directory.find(b"joe"))), [JOE])
        self.assertEqual(len(self.two.logins), 1)

    def test_a_server_whose_probe_finds_it_busy_is_down(self) -> None:
        directory = self.start_directory(self.one, self.two)
        self.result(directory.find(b"joe"))
        self.one.bind, self.one.search = binds_with(51), finds_nothing_but(51)
        self.assertTrue(self.result(directory.prove(JOE, b"secret")))
        complaint, down = self.log_lines()
        self.assertIn("answers a rebind with busy", complaint)
        self.assertIn("is down: it answers busy", down)

    def test_a_doubt_about_a_server_that_is_down_leaves_its_pauses_alone(self) -> None:
        self.one.bind = except_for(JOE, checks_password, binds_with(51))
        self.one.search = finds_nothing_but(52)
        directory = self.start_directory(self.one)
        self.fails(directory.find(b"joe"))
        self.network.settle(5)  # it was probed after 1 s and 3 s, and is due again after 7 s
        self.fails(directory.prove(JOE, b"secret"))
        self.assertEqual(len(self.one.probes), 2)
        (probe,) = self.clock.getDelayedCalls()
        self.assertEqual(round(probe.getTime()), 7)

    def test_the_service_itself_is_refused_by_a_busy_server_as_before(self) -> None:
        self.one.bind = binds_with(51)
        directory = self.start_directory(self.one, self.two)
        self.assertEqual(self.names(self.result(directory.find(b"joe"))), [JOE])
        (line,) = self.log_lines()
        self.assertIn("is down: it answers busy", line)


class UnfinishedTests(DirectoryTestCase):
    """A server that talks all the time and comes to no end."""

    def setUp(self) -> None:
        super().setUp()
        self.unanswered: list[tuple[Peer, Any]] = []
        self.one.search = lambda peer, message: self.unanswered.append((peer, message))

    def drip(self, seconds: float) -> None:
        """Let time pass, with an entry for every search each 0.2 s."""
        self.talk(seconds, begins)

    def talk(self, seconds: float, behaviour: Behaviour) -> None:
        for _ in range(round(seconds / 0.2)):
            self.network.settle(0.2)
            for peer, message in self.unanswered:
                behaviour(peer, message)

    def test_it_is_down_after_three_searches(self) -> None:
        directory = self.start_directory(self.one, self.two)
        for number in range(UNFINISHED_IN_A_ROW):
            self.assertEqual(self.log_lines(), [])
            found = self.begin(directory.find(b"joe"))
            self.drip(5.2)
            self.assertEqual(self.names(self.successResultOf(found)), [JOE])
            self.assertEqual(len(self.one.logins), 1 + number)
        (line,) = self.log_lines()
        self.assertIn("is down: it does not finish searches; next try in 1 s", line)
        self.assertEqual(self.names(self.result(directory.find(b"joe"))), [JOE])
        self.assertEqual(len(self.one.logins), UNFINISHED_IN_A_ROW)

    def test_answers_to_nothing_asked_finish_no_search(self) -> None:
        foreign = pureldap.LDAPMessage(done(), id=2**30).toWire()
        directory = self.start_directory(self.one, self.two)
        searches = self.begin_finding(directory, UNFINISHED_IN_A_ROW)
        self.talk(5.2, sends(foreign))
        for found in searches:
            self.assertEqual(self.names(self.successResultOf(found)), [JOE])
        (line,) = self.log_lines()
        self.assertIn("does not finish searches", line)

    def test_the_only_server_is_no_exception(self) -> None:
        directory = self.start_directory(self.one)
        searches = self.begin_finding(directory, UNFINISHED_IN_A_ROW)
        self.drip(TIMEOUT + 0.2)
        for found in searches:
            self.failureResultOf(found, DirectoryUnavailable)
        (line,) = self.log_lines()
        self.assertIn("does not finish searches", line)
        self.assertIn("every server is down", self.fails(directory.find(b"joe"), seconds=0))

    def test_a_login_need_not_outwait_the_probe(self) -> None:
        directory = self.start_directory(self.one)
        for found in self.begin_finding(directory, UNFINISHED_IN_A_ROW):
            found.addErrback(lambda _: None)
        self.drip(TIMEOUT + 1.4)
        late = self.begin(directory.find(b"joe"))
        self.drip(10.2)
        self.failureResultOf(late, DirectoryUnavailable)

    def test_a_probe_that_it_finishes_brings_it_back(self) -> None:
        directory = self.start_directory(self.one, self.two)
        self.begin_finding(directory, UNFINISHED_IN_A_ROW)
        self.drip(5.2)
        self.one.search = finds
        self.network.settle(1)
        self.assertIn("up again", self.log_lines()[-1])
        self.result(directory.find(b"joe"))
        self.assertEqual(self.one.logins[-1], b"joe")

    def test_a_probe_that_it_does_not_finish_leaves_it_down(self) -> None:
        directory = self.start_directory(self.one, self.two)
        self.begin_finding(directory, UNFINISHED_IN_A_ROW)
        self.drip(30)
        self.assertEqual(len(self.log_lines()), 1)
        self.assertEqual(len(self.one.probes), 2)  # after 1 s, given up after 10 s, and 2 s later

    def test_a_search_that_is_finished_in_between_starts_the_count_over(self) -> None:
        directory = self.start_directory(self.one, self.two)
        unanswering = self.one.search
        for _ in range(2 * UNFINISHED_IN_A_ROW):
            self.one.search = unanswering
            self.begin(directory.find(b"joe"))
            self.drip(5.2)
            self.one.search = finds
            self.result(directory.find(b"joe"))
        self.assertEqual(self.log_lines(), [])

    def test_searches_that_take_too_long_among_others_that_do_not_are_no_sign(self) -> None:
        directory = self.start_directory(self.one, self.two)
        unanswering = self.one.search
        slow = self.begin_finding(directory, 2 * UNFINISHED_IN_A_ROW)
        self.drip(3)
        self.one.search = finds
        self.result(directory.find(b"joe"))
        self.one.search = unanswering
        self.drip(2.2)
        for found in slow:
            self.assertEqual(self.names(self.successResultOf(found)), [JOE])
        self.assertEqual(self.log_lines(), [])

    def test_a_login_that_goes_away_is_no_sign(self) -> None:
        directory = self.start_directory(self.one, self.two)
        for _ in range(2 * UNFINISHED_IN_A_ROW):
            operation = self.begin(directory.find(b"joe"))
            self.drip(4)
            operation.cancel()
            self.failureResultOf(operation, CancelledError)
        self.assertEqual(self.log_lines(), [])

    def test_searches_that_waited_for_their_connection_are_no_sign(self) -> None:
        def binds_slowly(peer: Peer, message: Any) -> None:
            self.clock.callLater(4, checks_password, peer, message)

        # After 4 s for the connection 1 s is left, in which the server says nothing.
        self.one.bind = binds_slowly
        directory = self.start_directory(self.one, self.two, limits={"connections": 1})
        searches = self.begin_finding(directory, 2 * UNFINISHED_IN_A_ROW)
        self.network.settle(5.1)
        for found in searches:
            self.assertEqual(self.names(self.successResultOf(found)), [JOE])
        self.assertEqual(len(self.one.logins), len(searches))
        self.assertEqual(self.log_lines(), [])
        # A further connection may have been begun, whose bind the fake server still thinks about.
        self.network.settle(4)


class FailoverTests(DirectoryTestCase):
    def test_servers_are_asked_in_their_order(self) -> None:
        directory = self.start_directory(self.one, self.two)
        self.result(directory.find(b"joe"))
        self.assertEqual((len(self.one.logins), self.two.peers), (1, []))

    def test_a_dead_server_is_passed_over_and_told_once(self) -> None:
        self.one.running = False
        directory = self.start_directory(self.one, self.two)
        for _ in range(100):
            self.assertEqual(self.names(self.result(directory.find(b"joe"))), [JOE])
        (line,) = [line for line in self.log_lines() if " down" in line]
        self.assertIn("one:389", line)
        self.assertIn("refused", line)
        self.assertIn("1 s", line)

    def test_a_server_that_comes_back_is_preferred_again(self) -> None:
        self.one.running = False
        directory = self.start_directory(self.one, self.two)
        self.result(directory.find(b"joe"))
        self.one.running = True
        self.network.settle(1.1)
        self.result(directory.find(b"joe"))
        self.assertEqual((len(self.one.logins), len(self.two.logins)), (1, 1))
        self.assertEqual(len(self.log_lines()), 2)
        self.assertIn("one:389 is up again", self.log_lines()[1])

    def test_a_dead_server_is_tried_after_longer_and_longer_pauses(self) -> None:
        self.one.running = False
        directory = self.start_directory(self.one)
        self.fails(directory.find(b"joe"), seconds=0)
        self.assertEqual(self.pauses(9), [1, 2, 4, 8, 16, 32, 60, 60, 60])
        self.assertEqual(len(self.log_lines()), 1)

    def test_the_pauses_start_over_when_it_was_up_for_long_enough(self) -> None:
        self.one.running = False
        directory = self.start_directory(self.one)
        self.fails(directory.find(b"joe"), seconds=0)
        self.pauses(4)
        self.one.running = True
        self.network.settle(17)
        self.one.stop()
        self.fails(directory.find(b"joe"))
        self.assertIn("next try in 32 s", self.log_lines()[-1])
        self.clock.advance(32)
        self.one.running = True
        self.clock.advance(60)
        self.network.settle(33)
        self.one.stop()
        self.fails(directory.find(b"joe"))
        self.assertIn("next try in 60 s", self.log_lines()[-1])
        self.one.running = True
        self.clock.advance(60)
        self.network.settle(61)
        self.one.stop()
        self.fails(directory.find(b"joe"))
        self.assertIn("next try in 1 s", self.log_lines()[-1])

    def pauses(self, count: int) -> list[int]:
        pauses = []
        for _ in range(count):
            (probe,) = self.clock.getDelayedCalls()
            pause = probe.getTime() - self.clock.seconds()
            pauses.append(round(pause))
            self.clock.advance(pause)
        return pauses

    def test_a_server_that_drops_packets_leaves_time_for_the_next(self) -> None:
        self.one.reachable = False
        directory = self.start_directory(self.one, self.two)
        self.assertEqual(self.names(self.result(directory.find(b"joe"), seconds=5.1)), [JOE])
        self.assertEqual(self.names(self.result(directory.find(b"joe"))), [JOE])

    def test_with_little_time_an_attempt_has_half_of_it(self) -> None:
        self.one.reachable = False
        directory = self.start_directory(self.one, self.two, ldaptimeout=2)
        self.assertEqual(self.names(self.result(directory.find(b"joe"), seconds=1.1)), [JOE])

    def test_a_server_that_falls_silent_leaves_time_for_the_next(self) -> None:
        directory = self.start_directory(self.one, self.two)
        self.result(directory.find(b"joe"))
        self.one.search = says_nothing
        searches = self.begin_finding(directory, 50)
        self.network.settle(5.1)
        for search in searches:
            self.assertEqual(self.names(self.successResultOf(search)), [JOE])
        (line,) = self.log_lines()
        self.assertIn("said nothing for 5 s", line)

    def test_an_operation_under_way_is_tried_once_more_elsewhere(self) -> None:
        directory = self.start_directory(self.one, self.two)
        self.result(directory.find(b"joe"))
        self.one.search = closes
        self.assertEqual(self.names(self.result(directory.find(b"joe"))), [JOE])
        self.assertEqual((len(self.one.logins), len(self.two.logins)), (2, 1))

    def test_with_one_server_it_is_tried_once_more_on_a_new_connection(self) -> None:
        directory = self.start_directory(self.one)
        self.result(directory.find(b"joe"))
        self.one.search = closes
        operation = self.begin(directory.find(b"joe"))
        self.network.settle(0.0011)
        self.one.search = finds
        self.network.settle()
        self.assertEqual(self.names(self.successResultOf(operation)), [JOE])
        self.assertEqual(self.log_lines(), [])

    def test_it_is_not_tried_a_third_time(self) -> None:
        three = self.network.server("three")
        self.one.search = self.two.search = closes
        directory = self.start_directory(self.one, self.two, three)
        self.assertIn("closed", self.fails(directory.find(b"joe")))
        self.assertEqual(three.logins, [])

    def test_connections_that_all_ended_unseen_cost_no_login(self) -> None:
        directory = self.start_directory(self.one)
        for _ in range(4):
            together = self.begin_finding(directory, 8)
            self.network.settle()
            for found in together:
                self.successResultOf(found)
        stale = self.one.open_peers
        self.assertEqual(len(stale), 4)

        def resets_the_old(peer: Peer, message: Any) -> None:
            (closes if peer in stale else finds)(peer, message)

        self.one.search = resets_the_old
        self.assertEqual(self.names(self.result(directory.find(b"joe"))), [JOE])
        self.assertEqual(self.log_lines(), [])

    def test_a_slow_search_does_not_take_its_connection_along(self) -> None:
        directory = self.start_directory(self.one, self.two, limits={"connections": 1})
        self.one.search = lambda peer, message: (
            None if login_of(message.value) == b"slow" else finds(peer, message)
        )
        slow = self.begin(directory.find(b"slow"))
        self.network.settle(4)
        self.result(directory.find(b"joe"))
        self.network.settle(2)
        self.assertEqual(self.successResultOf(slow), ())
        self.assertEqual(self.two.logins, [b"slow"])
        abandoned = self.one.asked(pureldap.LDAPAbandonRequest)
        self.assertEqual(len(abandoned), 1)
        self.result(directory.find(b"joe"))
        self.assertEqual(len(self.one.peers), 1)
        self.assertEqual(self.log_lines(), [])

    def test_one_dead_connection_among_living_ones_is_not_a_dead_server(self) -> None:
        directory = self.start_directory(self.one)
        self.one.search = says_nothing
        stuck = self.begin_finding(directory, 2)
        self.network.settle(0.01)
        self.assertEqual(len(self.one.peers), 2)
        dead = self.one.peers[0]
        self.one.search = lambda peer, message: None if peer is dead else finds(peer, message)
        for _ in range(20):
            self.begin(directory.find(b"joe")).addErrback(lambda _: None)
            self.network.settle(1)
        for search in stuck:
            self.failureResultOf(search, DirectoryUnavailable)
        self.assertFalse(dead.open)
        self.assertEqual(self.log_lines(), [])

    def test_every_operation_ends_within_the_time(self) -> None:
        for server in (self.one, self.two):
            server.search = says_nothing
        directory = self.start_directory(self.one, self.two, limits={"connections": 1})
        searches = self.begin_finding(directory, 200)
        self.network.settle(TIMEOUT + 0.01)
        for search in searches:
            self.failureResultOf(search, DirectoryUnavailable)
        self.assertEqual(len(self.log_lines()), 2)

    def test_results_that_are_no_answer_are_asked_of_the_next_server_and_told_once(self) -> None:
        directory = self.start_directory(self.one, self.two)
        for code, name in ((1, "operationsError"), (3, "timeLimit"), (10, "referral"), (53, "unw")):
            self.events.clear()
            self.one.search = finds_nothing_but(code)
            for _ in range(3):
                self.assertEqual(self.names(self.result(directory.find(b"joe"))), [JOE])
            (line,) = self.log_lines()
            self.assertIn(name, line)

    def test_a_server_that_says_it_is_busy_is_left_alone(self) -> None:
        directory = self.start_directory(self.one, self.two)
        self.one.search = finds_nothing_but(51)
        for _ in range(3):
            self.assertEqual(self.names(self.result(directory.find(b"joe"))), [JOE])
        self.assertEqual(len(self.one.logins), 1)
        (line,) = self.log_lines()
        self.assertIn("is down: it answers busy", line)


class AllDownTests(DirectoryTestCase):
    def test_logins_share_one_attempt_to_connect(self) -> None:
        self.one.running = False
        directory = self.start_directory(self.one)
        self.fails(directory.find(b"joe"))
        self.one.running = True
        self.one.reachable = False
        self.one.attempts = 0
        self.clock.advance(1.5)
        searches = self.begin_finding(directory, 500)
        proofs = [self.begin(directory.prove(JOE, b"secret")) for _ in range(100)]
        self.network.settle(5)
        self.assertEqual(self.one.attempts, 1)
        for operation in (*searches, *proofs):
            self.failureResultOf(operation, DirectoryUnavailable)

    def test_a_login_just_after_a_failure_fails_at_once(self) -> None:
        self.one.running = self.two.running = False
        directory = self.start_directory(self.one, self.two)
        self.fails(directory.find(b"joe"))
        self.assertIn("every server is down", self.fails(directory.find(b"joe"), seconds=0))
        self.assertIn("every server is down", self.fails(directory.prove(JOE, b"a"), seconds=0))

    def test_a_login_need_not_wait_for_the_probe(self) -> None:
        self.one.running = False
        directory = self.start_directory(self.one)
        self.fails(directory.find(b"joe"))
        self.clock.pump([1, 2, 4, 8, 2])
        self.one.running = True
        self.assertEqual(self.names(self.result(directory.find(b"joe"))), [JOE])
        self.assertIn("up again", self.log_lines()[-1])

    def test_a_password_need_not_wait_for_the_probe(self) -> None:
        self.one.running = False
        directory = self.start_directory(self.one)
        self.fails(directory.find(b"joe"))
        self.clock.pump([1, 2, 4, 8, 2])
        self.one.running = True
        self.assertTrue(self.result(directory.prove(JOE, b"secret")))
        self.assertIn("up again", self.log_lines()[-1])

    def test_they_come_back_without_a_login(self) -> None:
        self.one.running = False
        self.start_directory(self.one).start()
        self.network.settle()
        self.one.running = True
        self.network.settle(1.1)
        self.assertEqual(len(self.one.open_peers), 1)
        self.assertIn("up again", self.log_lines()[-1])


class BadServerTests(DirectoryTestCase):
    """A hundred logins meet a server that misbehaves: all are served, and the log is short."""

    def check(self, search: Behaviour, *, lines: int = 1, seconds: float = 0.02) -> None:
        self.one.search = search
        directory = self.start_directory(self.one, self.two)
        for _ in range(100):
            found = self.result(directory.find(b"joe"), seconds)
            self.assertEqual(self.names(found), [JOE])
        downs = [line for line in self.log_lines() if "again" not in line]
        self.assertEqual(len(downs), lines, downs)

    def test_garbage(self) -> None:
        self.check(sends(b"HTTP/1.1 400 Bad Request\r\n\r\n"))

    def test_closing(self) -> None:
        self.check(closes)

    def test_half_an_answer(self) -> None:
        self.check(sends_half)

    def test_a_notice_of_disconnection(self) -> None:
        self.check(disconnects, lines=2)

    def test_unsolicited_notices_and_answers_to_nothing(self) -> None:
        other = pureldap.LDAPExtendedResponse(resultCode=0, responseName="1.2.3")

        def chatters(peer: Peer, message: Any) -> None:
            peer.deliver(pureldap.LDAPMessage(other, id=0).toWire())
            peer.deliver(pureldap.LDAPMessage(done(), id=2**30).toWire())
            finds(peer, message)

        self.check(chatters, lines=0)

    def test_references(self) -> None:
        def refers(peer: Peer, message: Any) -> None:
            uri = b"ldap://elsewhere/"
            reference = b"\x73" + bytes([len(uri) + 2]) + b"\x04" + bytes([len(uri)]) + uri
            identifier = b"\x02\x01" + bytes([message.id])
            contents = identifier + reference
            peer.deliver(b"\x30" + bytes([len(contents)]) + contents)
            finds(peer, message)

        self.check(refers, lines=0)

    def test_intermediate_responses(self) -> None:
        def informs(peer: Peer, message: Any) -> None:
            contents = b"\x02\x01" + bytes([message.id]) + b"\x79\x03\x81\x01\xff"
            peer.deliver(b"\x30" + bytes([len(contents)]) + contents)
            finds(peer, message)

        self.check(informs, lines=0)

    def test_referrals(self) -> None:
        self.check(finds_nothing_but(10))

    def test_entries_without_end(self) -> None:
        def floods(peer: Peer, message: Any) -> None:
            for number in range(1000):
                peer.answer(message, entry(f"dc={number}"))
            peer.answer(message, done(4))

        self.one.search = floods
        directory = self.start_directory(self.one)
        self.assertEqual(len(self.result(directory.find(b"joe"))), 2)

    def test_a_service_bind_whose_answer_is_too_large(self) -> None:
        def overdoes(peer: Peer, message: Any) -> None:
            text = "x" * MESSAGE_LIMIT
            peer.answer(message, pureldap.LDAPBindResponse(resultCode=0, errorMessage=text))

        self.one.bind = overdoes
        directory = self.start_directory(self.one, self.two)
        self.assertEqual(self.names(self.result(directory.find(b"joe"))), [JOE])
        self.assertEqual(self.one.open_peers, [])
        self.assertEqual(len(self.log_lines()), 1)

    def test_a_service_bind_that_is_refused(self) -> None:
        secret = b"not the password"
        self.one.passwords[b"cn=us"] = b"another"
        self.two.passwords[b"cn=us"] = secret
        directory = self.start_directory(self.one, self.two, ldaplogin="cn=us", ldappassword=secret)
        for _ in range(100):
            self.assertEqual(self.names(self.result(directory.find(b"joe"))), [JOE])
        (line,) = self.log_lines()
        self.assertIn("ldaplogin, ldappassword", line)
        self.assertIn("invalidCredentials", line)

    def test_a_service_bind_that_is_refused_when_the_server_comes_back(self) -> None:
        self.one.running = False
        self.start_directory(self.one).start()
        self.network.settle()
        self.one.running = True
        self.one.bind = binds_with(49)
        self.network.settle(10)
        first, second = self.log_lines()
        self.assertIn("Connection was refused", first)
        self.assertIn("ldaplogin", second)

    def test_a_notice_to_a_connection_at_rest(self) -> None:
        directory = self.start_directory(self.one)
        self.result(directory.find(b"joe"))
        self.one.peers[0].deliver(notice_of_disconnection())
        self.network.settle()
        self.assertEqual(self.one.open_peers, [])
        self.assertEqual(self.names(self.result(directory.find(b"joe"))), [JOE])


class SecretTests(DirectoryTestCase):
    """No password gets into a log or an exception."""

    def test_whatever_goes_wrong(self) -> None:
        behaviours: list[Behaviour] = [closes, sends(b"\0"), says_nothing, disconnects, sends_half]
        echoes = [refuses_with_an_echo(code) for code in (2, 49, 51, 52, 80)]
        echoes_to_users = [except_for("cn=us", binds_with(0), echo) for echo in echoes]
        answers = [binds_with(49), binds_with(52), binds_with(80)]
        for behaviour in (*behaviours, *answers, *echoes, *echoes_to_users):
            self.one.bind = behaviour
            directory = self.start_directory(self.one, ldaplogin="cn=us", ldappassword=b"OURSECRET")
            operation = self.begin(directory.prove(JOE, b"THEIRSECRET"))
            search = self.begin(directory.find(b"joe"))
            self.network.settle(TIMEOUT)
            for each in (operation, search):
                result: list[object] = []
                each.addBoth(result.append)
                shown = repr(result) + getattr(result[0], "getTraceback", str)()
                self.assertNotIn("SECRET", shown)
            self.assertNotIn("SECRET", repr(directory.__dict__))
        self.assertNotIn("SECRET", json.dumps([str(event) for event in self.events]))


class StopTests(DirectoryTestCase):
    def test_it_fails_what_is_under_way_and_leaves_nothing(self) -> None:
        self.one.search = says_nothing
        self.two.reachable = False
        directory = self.start_directory(self.one, self.two, limits={"connections": 1})
        operations = self.begin_finding(directory, 30)
        proof = self.begin(directory.prove(JOE, b"secret"))
        self.network.settle(0.0021)
        stopped = directory.stop()
        for operation in operations:
            self.failureResultOf(operation, DirectoryUnavailable)
        proof.addBoth(lambda _: None)
        self.network.settle()
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIn("stopped", self.fails(directory.find(b"joe")))
        self.assertEqual(self.log_lines(), [])

    def test_it_may_come_at_any_time(self) -> None:
        for moment in range(12):
            directory = self.start_directory(self.one)
            directory.start()
            self.begin(directory.find(b"joe")).addErrback(lambda _: None)
            self.begin(directory.prove(JOE, b"secret")).addErrback(lambda _: None)
            self.clock.pump([0.0005] * moment)
            stopped = directory.stop()
            self.network.settle()
            self.successResultOf(stopped)
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.assertEqual(self.one.open_peers, [])

    def test_a_peer_that_takes_no_farewell_is_cut(self) -> None:
        directory = self.start_directory(self.one)
        self.result(directory.find(b"joe"))
        self.patch(self.one.peers[0], "loseConnection", lambda: None)
        stopped = directory.stop()
        self.assertNoResult(stopped)
        self.network.settle(1.1)
        self.successResultOf(stopped)

    def test_a_server_that_is_down_is_not_probed_any_more(self) -> None:
        self.one.running = False
        directory = self.start_directory(self.one)
        self.fails(directory.find(b"joe"))
        self.successResultOf(directory.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])
