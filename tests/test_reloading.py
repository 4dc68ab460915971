"""SIGHUP in a server of one process: read once more, all or nothing, and said in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import attrs
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.control import ControlError, ControlSnapshot
from qmailldap.control.snapshot import NAMES
from qmailldap.options import Options
from qmailldap.raw_files import MISSING, READ, RawFile
from qmailldap.reloading import (
    READ_LIMIT,
    Reload,
    changes,
    read_by_broker,
    read_by_ourselves,
    read_snapshot,
)
from qmailldap.threads import Busy
from qmailldap.tls.pem import BadCertificate
from tests.loglevels import log_at, logged_lines

STAYS = "control was not loaded, what was in force stays so: "


def snapshot(**files: str) -> ControlSnapshot:
    found = {name: RawFile(READ, 0o100644, 0, text.encode()) for name, text in files.items()}
    return ControlSnapshot(directory="/control", files=found)


@attrs.define
class FakeWatch:
    faults: list[str] = attrs.field(factory=list)

    def told(self, fault: str) -> None:
        self.faults.append(fault)


@attrs.define
class Part:
    value: Any


@attrs.define
class InForce:
    snapshot: ControlSnapshot
    watch: Part


class FakeGenerations:
    """Prepares with ``outcome``."""

    def __init__(self) -> None:
        self.watch = FakeWatch()
        self.in_force = InForce(snapshot(me="a"), Part(self.watch))
        self.outcome: Deferred[None] | Exception | None = None
        self.prepared: ControlSnapshot | None = None
        self.aborted = 0
        self.wait: Deferred[None] | None = None

    def room(self) -> Deferred[None]:
        return self.wait or succeed(None)

    def prepare(self, read: ControlSnapshot) -> Deferred[None]:
        if isinstance(self.outcome, Exception):
            return fail(self.outcome)
        self.prepared = read
        return self.outcome or succeed(None)

    def commit(self) -> None:
        assert self.prepared is not None
        self.in_force.snapshot, self.prepared = self.prepared, None

    def abort(self) -> None:
        self.aborted += 1
        self.prepared = None


class ReloadTests(SynchronousTestCase):
    def setUp(self) -> None:
        log_at(self)
        self.clock = Clock()
        self.generations = FakeGenerations()
        self.reads: list[Deferred[ControlSnapshot]] = []
        self.counted: list[str] = []
        # What is told to who has asked for it: begins, is over.
        self.told: list[str] = []
        self.reload = Reload(
            self.read,
            cast(Any, self.generations),
            self.clock,
            lambda: self.told.append("begins"),
            lambda: self.told.append("over"),
            self.counted.append,
        )
        self.lines = logged_lines(self)
        self.reload.startService()

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def read(self) -> Deferred[ControlSnapshot]:
        self.reads.append(Deferred())
        return self.reads[-1]

    def test_what_has_changed_is_said_in_one_line(self) -> None:
        self.reload()
        self.reads[0].callback(snapshot(me="b", ldapserver="x"))
        self.assertEqual(self.lines, ["control loaded changed=me,ldapserver"])
        self.reload()
        self.reads[1].callback(snapshot(me="b", ldapserver="x"))
        self.assertEqual(self.lines[1:], ["control loaded changed=none"])

    def test_who_asks_while_files_are_read_has_them_read_once_more(self) -> None:
        for _ in range(3):
            self.reload()
        self.assertEqual(len(self.reads), 1)
        self.reads[0].callback(snapshot(me="b"))
        self.assertEqual(len(self.reads), 2)
        self.reads[1].callback(snapshot(me="c"))
        self.assertEqual(len(self.reads), 2)
        self.assertEqual(self.generations.in_force.snapshot, snapshot(me="c"))

    def test_and_while_they_are_made_ready_for(self) -> None:
        self.generations.outcome = Deferred()
        self.reload()
        self.reads[0].callback(snapshot(me="b"))
        self.reload()
        self.assertEqual(len(self.reads), 1)
        self.generations.outcome.callback(None)
        self.generations.outcome = None
        self.reads[1].callback(snapshot(me="c"))
        self.assertEqual(self.generations.in_force.snapshot, snapshot(me="c"))

    def test_who_asks_before_the_start_is_heard_then(self) -> None:
        self.successResultOf(succeed(self.reload.stopService()))
        self.reload()
        self.assertEqual(self.reads, [])
        self.reload.startService()
        self.reads[0].callback(snapshot(me="b"))
        self.assertEqual(self.lines, ["control loaded changed=me"])

    def test_a_fault_is_one_line_that_names_the_file_and_all_stays(self) -> None:
        before = self.generations.in_force.snapshot
        for fault in (ControlError("/control/me", "is bad"), Busy("too much"), OSError(5, "I/O")):
            self.reload()
            self.reads[-1].errback(fault)
            self.assertEqual(self.lines.pop(), f"{STAYS}{fault}")
            self.generations.outcome = fault
            self.reload()
            self.reads[-1].callback(snapshot(me="b"))
            self.assertEqual(self.lines.pop(), f"{STAYS}{fault}")
            self.generations.outcome = None
        self.assertEqual(self.lines, [])
        self.assertIs(self.generations.in_force.snapshot, before)
        self.assertEqual(self.generations.aborted, 6)

    def test_that_of_a_certificate_is_not_found_again_by_those_who_watch_it(self) -> None:
        self.generations.outcome = BadCertificate("/cert.pem: is bad")
        self.reload()
        self.reads[0].callback(snapshot())
        self.assertEqual(self.generations.watch.faults, ["/cert.pem: is bad"])

    def test_files_that_cannot_be_read_are_not_waited_for_without_end(self) -> None:
        self.reload()
        self.clock.advance(READ_LIMIT)
        self.assertEqual(self.lines, [f"{STAYS}the files could not be read within 60 s"])
        self.reload()
        self.reads[1].callback(snapshot(me="b"))
        self.assertEqual(self.lines[1:], ["control loaded changed=me"])

    def test_a_fault_of_ours_ends_nothing(self) -> None:
        self.generations.outcome = ZeroDivisionError()
        self.reload()
        # Who asks meanwhile is heard nevertheless.
        self.reload()
        self.reads[0].callback(snapshot())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((self.counted, self.generations.aborted), (["failed"], 1))
        self.generations.outcome = None
        self.reads[1].callback(snapshot(me="b"))
        self.assertEqual(self.generations.in_force.snapshot, snapshot(me="b"))
        self.assertEqual(self.counted, ["failed", "ok"])
        self.assertEqual(self.told, ["begins", "over"] * 2)

    def test_a_fault_of_ours_when_it_comes_into_force_is_counted_too(self) -> None:
        self.patch(self.generations, "commit", lambda: 1 / 0)
        self.reload()
        self.reads[0].callback(snapshot(me="b"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((self.counted, self.generations.aborted), (["failed"], 1))

    def test_while_logins_ask_too_many_earlier_states_files_are_not_read(self) -> None:
        self.generations.wait = room = Deferred[None]()
        for _ in range(3):
            self.reload()
        self.assertEqual((self.reads, self.told), ([], []))
        room.callback(None)
        self.reads[0].callback(snapshot(me="b"))
        self.assertEqual((len(self.reads), self.told), (1, ["begins", "over"]))
        self.assertEqual(self.generations.in_force.snapshot, snapshot(me="b"))

    def test_the_end_of_the_server_ends_that_wait_too(self) -> None:
        self.generations.wait = room = Deferred[None]()
        self.reload()
        self.reload.stopService()
        room.callback(None)
        self.assertEqual((self.reads, self.told), ([], []))

    def test_what_was_read_when_the_server_ends_changes_nothing(self) -> None:
        self.reload()
        self.reload()
        self.reload.stopService()
        self.reads[0].callback(snapshot(me="b"))
        self.assertEqual((len(self.reads), self.lines), (1, []))
        self.assertEqual(self.generations.in_force.snapshot, snapshot(me="a"))


class FakeBroker:
    def __init__(self, *files: RawFile) -> None:
        self.files = list(files)
        self.fault: OSError | None = None

    async def read_control(self) -> list[RawFile]:
        if self.fault is not None:
            raise self.fault
        return self.files


class ReadingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        (self.directory / "ldapserver").write_text("ldap1\n")
        self.chain = self.directory / "chain.pem"
        self.chain.write_text("PEM")

    def options(self, *more: str) -> Options:
        options = Options()
        options.parseOptions(["--control", str(self.directory), *more])
        return options

    def test_all_ways_to_read_give_the_same(self) -> None:
        for more in ([], ["--certificate", str(self.chain)]):
            options = self.options(*more)
            expected = read_snapshot(options)
            by_ourselves = read_by_ourselves(options, cast(Any, maybeDeferred))
            self.assertEqual(self.successResultOf(by_ourselves()), expected)
            files = [expected.look(name) for name in NAMES]
            certificates = list(expected.certificates.values()) or [RawFile(MISSING)]
            broker: Any = FakeBroker(*files, *certificates)
            found = self.successResultOf(read_by_broker(options, broker)())
            self.assertEqual(found, expected)
            self.assertEqual(changes(found, expected), "none")

    def test_relative_paths_are_those_of_the_start(self) -> None:
        options = Options()
        relative = self.directory.relative_to(Path.cwd())
        options.parseOptions(["--control", str(relative)])
        read = read_by_ourselves(options, cast(Any, maybeDeferred))
        self.assertEqual(self.successResultOf(read()).directory, str(self.directory))

    def test_a_directory_that_is_gone_is_named(self) -> None:
        broker: Any = FakeBroker()
        broker.fault = FileNotFoundError(2, "No such file or directory")
        failure = self.failureResultOf(read_by_broker(self.options(), broker)(), ControlError)
        self.assertEqual(
            failure.getErrorMessage(),
            f"{self.directory}: cannot be used: No such file or directory",
        )
