"""The broker as the network process starts it, asks it, and hears of its end."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from qmailldap.maildir.reading import CHUNK
from qmailldap.maildir.work import Place
from qmailldap.privsep.broker_process import BrokerProcess
from qmailldap.privsep.channel import Channel, KeeperLost
from qmailldap.privsep.kept_hands import Owner
from qmailldap.privsep.pool import Keepers
from qmailldap.raw_files import MISSING
from qmailldap.threads import Busy
from tests.privsep.support import TIME_LIMIT, children_of, stop
from tests.root import require_root

ANN, BOB = (20125, 20125), (20126, 20125)
MOST_TIME = 1.0
LARGE = b"x" * CHUNK + b"the rest"


class BrokerProcessTests(TestCase):
    timeout = TIME_LIMIT + 10
    reactor: Any = reactor

    def setUp(self) -> None:
        require_root("begins processes of other users")
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.ended: list[str] = []
        self.lines: list[str] = []
        observer: Any = lambda event: self.lines.append(formatEvent(event))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.files = [Path(self.folder.name) / name for name in ("first.pem", "second.pem")]
        self.control = Path(self.folder.name) / "control"
        self.control.mkdir()
        self.broker = BrokerProcess(
            self.reactor,
            2,
            None,
            self.ended.append,
            self.files,
            self.control,
            ("me", "ldapserver", "dirmaker"),
            MOST_TIME,
        )
        self.broker.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.end()))
        self.keepers = Keepers(self.broker, self.reactor, 2)
        os.chmod(self.folder.name, 0o755)

    async def end(self) -> None:
        self.keepers.stop()
        await self.broker.stop()
        await self.until(lambda: not self.channels())

    def channels(self) -> list[object]:
        """Connections whose ends have not been seen yet."""
        readers = [getattr(each, "protocol", None) for each in self.reactor.getReaders()]
        return [each for each in readers if isinstance(each, Channel)]

    async def until(self, condition: Callable[[], object]) -> None:
        for _ in range(int(TIME_LIMIT / 0.01)):
            if condition():
                return
            await deferLater(self.reactor, 0.01)
        self.fail("not in time")

    @property
    def pid(self) -> int:
        transport: Any = self.broker.transport
        return int(transport.pid)

    def place(self, owner: Owner) -> Place:
        """An owner's home, with one small message and a large one."""
        home = Path(self.folder.name) / str(owner[0])
        maildir = home / "Maildir"
        for folder in (home, maildir, maildir / "tmp", maildir / "new", maildir / "cur"):
            folder.mkdir(mode=0o700)
        (maildir / "new" / "1.a").write_bytes(b"small")
        (maildir / "new" / "2.a").write_bytes(LARGE)
        for path in (home, *home.rglob("*")):
            os.chown(path, *owner)
        return Place(os.fsencode(home), os.fsencode(maildir))

    async def test_a_session_is_done_with_its_owner_s_rights(self) -> None:
        hands = self.keepers.hands(ANN, self.place(ANN))
        begun = await hands.begin()
        self.assertEqual(begun.listing.files, (b"new/1.a", b"new/2.a"))
        (large,) = await hands.fetch(1)
        assert large.file is not None
        with large.file:
            self.assertEqual(large.first + large.file.read(), LARGE)
        finished = await hands.finish(frozenset([1]))
        self.assertEqual((finished.not_removed.files, finished.not_moved.files), (0, 0))
        hands.close()
        cur = Path(self.folder.name) / str(ANN[0]) / "Maildir" / "cur"
        self.assertEqual(os.listdir(cur), ["1.a:2,"])

    async def test_nobody_gets_at_the_mail_of_another(self) -> None:
        hands = self.keepers.hands(BOB, self.place(ANN))
        with self.assertRaises(PermissionError):
            await hands.begin()

    async def test_a_session_goes_on_when_its_keeper_was_killed(self) -> None:
        hands = self.keepers.hands(ANN, self.place(ANN))
        await hands.begin()
        (pid,) = children_of(self.pid)
        stop(pid)
        fetched = hands.fetch(0)
        os.kill(pid, signal.SIGKILL)
        with self.assertRaises(KeeperLost):
            await fetched
        self.assertEqual((await hands.fetch(0))[0].first, b"small")

    async def test_more_owners_than_keepers_are_served(self) -> None:
        owners = [(20130 + number, 20125) for number in range(8)]
        sessions = [self.keepers.hands(owner, self.place(owner)) for owner in owners]
        for begun in [each.begin() for each in sessions]:
            self.assertEqual(len((await begun).listing.files), 2)
        for fetched in [each.fetch(0) for each in sessions]:
            self.assertEqual((await fetched)[0].first, b"small")

    async def test_root_has_no_mail(self) -> None:
        for owner in ((0, 0), (0, 20125), (20125, 0), (99, 20125), (2**32 - 1, 20125)):
            with self.assertRaisesRegex(KeeperLost, "no keeper has the ids"):
                await self.keepers.hands(owner, Place(b"/x", b"/x/Maildir")).begin()

    async def test_ids_that_are_no_ids_fail_one_question(self) -> None:
        for owner in ((2**32, 20125), (-1, 20125)):
            with self.assertRaises(Exception):  # noqa: B017  # whatever it is
                await self.keepers.hands(owner, Place(b"/x", b"/x/Maildir")).begin()
        await self.keepers.hands(ANN, self.place(ANN)).begin()

    async def test_one_that_hangs_is_killed(self) -> None:
        ended: Deferred[bool] = Deferred()

        def lost(channel: Channel, hangs: bool) -> None:
            ended.callback(hangs)

        _, number = self.broker.open_channel(b"k", *ANN, lost)
        await self.until(lambda: children_of(self.pid))
        stop(children_of(self.pid)[0])
        self.broker.kill(number)
        self.assertIs(await ended, False)

    async def test_passwords_are_checked(self) -> None:
        self.assertEqual(await self.broker.check_password(b"no such user", b"secret"), "unknown")

    async def test_files_that_only_root_may_read_are_read_as_they_are_now(self) -> None:
        for content in (b"before", b"after " * 100_000):
            self.files[1].write_bytes(content)
            self.files[1].chmod(0o600)
            self.assertEqual(await self.broker.read_file(1), content)
        with self.assertRaises(FileNotFoundError):
            await self.broker.read_file(0)

    async def test_it_reads_no_other_file(self) -> None:
        self.files[1].write_bytes(b"x")
        with self.assertRaisesRegex(OSError, "no file of that number"):
            await self.broker.read_file(2)
        self.assertEqual(await self.broker.read_file(1), b"x")

    async def test_a_reader_that_is_killed_fails_one_question(self) -> None:
        self.files[0].write_bytes(b"x")
        asked = self.broker.open_channel(b"f", 0, 0, lambda *_: None)
        await self.until(lambda: children_of(self.pid))
        self.broker.kill(asked[1])
        await self.until(lambda: not children_of(self.pid))
        killed = mock.patch.object(self.broker, "open_channel", return_value=asked)
        with killed, self.assertRaisesRegex(OSError, "lost"):
            await self.broker.read_file(0)
        self.assertEqual(await self.broker.read_file(0), b"x")

    async def test_control_files_are_read_as_they_are_now_with_the_certificates(self) -> None:
        (self.control / "ldapserver").write_bytes(b"ldap1\n")
        (self.control / "ldapserver").chmod(0o600)
        (self.control / "cert.pem").write_bytes(b"not asked for")
        self.files[1].write_bytes(b"PEM")
        me, ldapserver, dirmaker, first, second = await self.broker.read_control()
        self.assertEqual({me.state, dirmaker.state, first.state}, {MISSING})
        self.assertEqual((ldapserver.content, second.content), (b"ldap1\n", b"PEM"))
        self.assertEqual(ldapserver.mode & 0o777, 0o600)
        self.control.rename(self.control.with_name("elsewhere"))
        with self.assertRaises(FileNotFoundError):
            await self.broker.read_control()

    async def test_the_program_that_makes_homes_is_what_the_broker_itself_has_read(self) -> None:
        (self.control / "dirmaker").write_bytes(b"/bin/first \nmore\n")
        number, program = await self.broker.read_dirmaker()
        self.assertEqual(program, b"/bin/first")
        # Only what was read last counts.
        (self.control / "dirmaker").unlink()
        last, program = await self.broker.read_dirmaker()
        self.assertEqual(program, b"")
        taken: list[bool] = []
        self.broker.take_dirmaker(number, lambda: taken.append(True))
        await self.until(lambda: any("no such process" in line for line in self.lines))
        self.broker.take_dirmaker(last)
        self.broker.take_dirmaker(last)
        await self.until(
            lambda: sum("no such process" in line for line in self.lines) == 2,
        )
        self.assertEqual(taken, [True])

    async def test_one_that_cannot_be_read_is_an_error(self) -> None:
        os.mkfifo(self.control / "dirmaker")
        with self.assertRaises(OSError):
            await self.broker.read_dirmaker()
        (self.control / "dirmaker").unlink()
        (self.control / "dirmaker").write_bytes(b"x" * 5000)
        with self.assertRaises(OSError):
            await self.broker.read_dirmaker()

    async def test_a_broker_that_is_busy_is_told_again(self) -> None:
        (self.control / "dirmaker").write_bytes(b"/bin/true\n")
        number, _ = await self.broker.read_dirmaker()
        taken: Deferred[None] = Deferred()
        with mock.patch.object(self.broker, "_request", side_effect=Busy("no")):
            self.broker.take_dirmaker(number, lambda: taken.callback(None))
            self.assertFalse(taken.called)
        await taken

    async def test_its_end_is_told_with_the_reason(self) -> None:
        hands = self.keepers.hands(ANN, self.place(ANN))
        await hands.begin()
        keepers = children_of(self.pid)
        os.kill(self.pid, signal.SIGKILL)
        await self.until(lambda: self.ended)
        self.assertEqual(len(self.ended), 1)
        self.assertIn("the broker has ended", self.ended[0])
        self.assertIn("9", self.ended[0])
        with self.assertRaises(Busy):
            self.broker.open_channel(b"k", *BOB, lambda *_: None)
        # What it had begun is still there, and ends with its connection.
        self.assertEqual(len(await hands.fetch(0)), 1)
        self.keepers.stop()
        await self.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in keepers))

    async def test_an_end_that_was_asked_for_is_not_told(self) -> None:
        stopping = self.broker.stop()
        with self.assertRaises(Busy):
            self.broker.open_channel(b"k", *ANN, lambda *_: None)
        with self.assertRaises(Busy):
            self.broker.kill(1)
        await stopping
        await self.broker.stop()
        self.assertEqual(self.ended, [])

    async def test_its_end_takes_no_longer_than_there_is_time(self) -> None:
        await self.keepers.hands(ANN, self.place(ANN)).begin()
        (keeper,) = children_of(self.pid)
        stop(keeper)
        self.keepers.stop()
        await self.broker.stop(0.5)
        await self.until(lambda: not Path(f"/proc/{keeper}").exists())
        self.assertFalse(self.broker.is_running)
        self.assertEqual([line for line in self.lines if "did not end" in line], [])

    async def test_nor_than_it_was_started_with(self) -> None:
        await self.keepers.hands(ANN, self.place(ANN)).begin()
        (keeper,) = children_of(self.pid)
        stop(keeper)
        self.keepers.stop()
        await self.broker.stop(100 * TIME_LIMIT)
        await self.until(lambda: not Path(f"/proc/{keeper}").exists())

    async def test_what_it_complains_of_is_in_the_log_a_line_each(self) -> None:
        self.broker.errReceived(b"half a line, ")
        self.broker.errReceived(b"the other half\x1b[2J\nand another\n")
        first, second = [line for line in self.lines if "half" in line or "another" in line]
        self.assertIn("half a line, the other half", first)
        self.assertNotIn("\x1b", first)
        self.assertIn("and another", second)
