"""The broker, a real one, asked by whoever holds its socket: what it does, and what it refuses."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from qmailldap.maildir.work import Place
from qmailldap.options import MOST_GRACE
from qmailldap.privsep import encoding, wire
from qmailldap.privsep.broker import (
    LOWEST_ID,
    MOST_CHECKS,
    MOST_OF_AN_OWNER,
    MOST_READS,
    MOST_TIME,
    REQUEST,
)
from tests.privsep.support import (
    PACKAGE,
    TIME_LIMIT,
    RawBroker,
    children_of,
    descriptors_of,
    isolated,
    status_of,
    stop,
    until,
)
from tests.root import require_root

UID, GID = 20125, 20126
LEAVING = 16
FOLDERS = ("tmp", "new", "cur")


class BrokerTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        require_root("begins processes of other users")
        self.log = Path(self.mktemp()).absolute()
        self.broker = RawBroker(self.log)
        self.addCleanup(self.broker.close)
        self.pid = self.broker.process.pid

    def begin(self, kind: bytes = b"k", uid: int = UID, gid: int = GID) -> socket.socket:
        connection, _ = self.broker.begin(kind, uid, gid)
        self.addCleanup(connection.close)
        return connection

    def keeper(self, uid: int = UID, gid: int = GID) -> tuple[socket.socket, int]:
        """A keeper that has answered a question, and its process id."""
        before = children_of(self.pid)
        connection = self.begin(b"k", uid, gid)
        self.assert_serves(connection)
        (pid,) = set(children_of(self.pid)) - set(before)
        return connection, pid

    def assert_serves(self, connection: socket.socket) -> None:
        place = encoding.write_place(Place(b"/nonexistent", b"/nonexistent/Maildir"))
        wire.send(connection, [b"1", b"begin", b"1", *place])
        answer = wire.receive(connection)
        assert answer is not None
        self.assertEqual(answer[:3], [b"1", b"error", b"MailboxMissing"], answer)

    def assert_works(self) -> None:
        """The broker is there, holds what it held, and begins keepers."""
        connection, pid = self.keeper()
        connection.close()
        until(lambda: pid not in children_of(self.pid), "the keeper ends")

    def refusal(self, connection: socket.socket) -> str:
        answer = wire.receive(connection)
        assert answer is not None
        self.assertEqual(answer[:2], [b"0", b"refused"])
        self.assertIsNone(wire.receive(connection))
        return answer[2].decode()


class RightsTests(BrokerTestCase):
    def test_a_keeper_is_its_owner_and_nobody_else(self) -> None:
        _, pid = self.keeper()
        status = status_of(pid)
        self.assertEqual(status["Uid"], [str(UID)] * 4)
        self.assertEqual(status["Gid"], [str(GID)] * 4)
        self.assertEqual(status["Groups"], [])
        for capabilities in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            self.assertEqual(int(status[capabilities][0], 16), 0, capabilities)

    def test_it_holds_its_connection_and_nothing_of_the_broker_s(self) -> None:
        self.keeper()
        _, pid = self.keeper(UID + 1)
        targets = [os.readlink(f"/proc/{pid}/fd/{each}") for each in descriptors_of(pid)]
        self.assertEqual(targets[:3], ["/dev/null", str(self.log), str(self.log)])
        self.assertEqual([target.partition(":")[0] for target in targets[3:]], ["socket"])

    def test_another_process_of_its_owner_cannot_look_into_it(self) -> None:
        _, pid = self.keeper()
        text = (
            "import os, sys\n"
            f"os.setgroups([]); os.setgid({GID}); os.setuid({UID})\n"
            "os.listdir(f'/proc/{sys.argv[1]}/fd')\n"
        )
        looked = subprocess.run(isolated(text, str(pid)), stderr=subprocess.PIPE, check=False)
        self.assertIn(b"PermissionError", looked.stderr)

    def test_ids_that_no_mailbox_has_are_refused(self) -> None:
        for uid, gid in (
            (0, GID),
            (UID, 0),
            (0, 0),
            (LOWEST_ID - 1, GID),
            (UID, LOWEST_ID - 1),
            (2**32 - 1, GID),
            (UID, 2**32 - 1),
        ):
            text = self.refusal(self.begin(b"k", uid, gid))
            self.assertIn(f"no keeper has the ids {uid}:{gid}", text)
            self.assertIn(text, self.log.read_text())
        self.assertEqual(children_of(self.pid), [])
        for ids in ((LOWEST_ID, LOWEST_ID), (2**32 - 2, 2**32 - 2)):
            _, pid = self.keeper(*ids)
            self.assertEqual(status_of(pid)["Uid"], [str(ids[0])] * 4)

    def test_it_reads_what_its_owner_may_and_nothing_else(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)
            for owner in (UID, UID + 1):
                home = Path(folder) / str(owner)
                for each in (home, home / "Maildir", *(home / "Maildir" / f for f in FOLDERS)):
                    each.mkdir(mode=0o700)
                    os.chown(each, owner, GID)
            connection, _ = self.keeper()
            answers = []
            for owner in (UID, UID + 1):
                home = Path(folder) / str(owner)
                place = Place(os.fsencode(home), os.fsencode(home / "Maildir"))
                wire.send(connection, [b"2", b"begin", b"1", *encoding.write_place(place)])
                answers.append(wire.receive(connection) or [])
        self.assertEqual([answer[1] for answer in answers], [b"ok", b"error"])
        self.assertIsInstance(encoding.read_error(answers[1][2:]), PermissionError)

    def test_only_what_it_takes_is_loaded_into_a_process_that_is_root(self) -> None:
        text = (
            "import sys; sys.path.append(sys.argv[1])\n"
            "import qmailldap.privsep.broker\n"
            "names = {name.split('.')[0] for name in sys.modules}\n"
            "print(*sorted(names - sys.stdlib_module_names - {'__main__'}))\n"
            "print(*sorted(name for name in sys.modules if name.startswith('qmailldap.')))\n"
            "print(*sorted(sys.modules))\n"
        )
        command = isolated(text, PACKAGE)
        strange, ours, everything = subprocess.check_output(command, text=True).splitlines()
        self.assertEqual(strange, "qmailldap")
        for name in ours.split():
            room = name.removeprefix("qmailldap.").split(".")
            rooms = ("maildir", "privsep", "printable", "quota", "raw_files", "regular_files")
            self.assertIn(room[0], rooms, name)
        for name in ("qmailldap.privsep.channel", "qmailldap.privsep.pool", "qmailldap.threads"):
            self.assertNotIn(name, ours.split())
        loaded = set(everything.split())
        unwanted = {"threading", "hmac", "ctypes", "subprocess", "ssl", "logging", "asyncio"}
        self.assertEqual(loaded & unwanted, set())


class RequestTests(BrokerTestCase):
    def test_a_request_that_is_none_is_refused_and_leaves_nothing(self) -> None:
        self.assert_works()
        before = descriptors_of(self.pid)
        good = REQUEST.pack(b"k", 1, UID, GID)
        with open(os.devnull, "rb") as file:
            for message in (
                b"k",
                good[:-1],
                good + b"x",
                good * 9,
                REQUEST.pack(b"?", 1, UID, GID),
            ):
                ours, theirs = socket.socketpair()
                with ours, theirs:
                    self.broker.send(message, theirs.fileno())
                    self.broker.send(message)
                    self.broker.send(message, file.fileno())
                    theirs.close()
                    self.refusal(ours)
            for count in (0, 2, 3, 4, 5, 9):
                ours, theirs = socket.socketpair()
                with ours, theirs:
                    self.broker.send(good, *[theirs.fileno()] * count)
                    self.broker.send(good, *[file.fileno()] * count)
            self.broker.send(good, file.fileno())
        self.assert_works()
        until(lambda: not children_of(self.pid), "no child is left")
        self.assertEqual(descriptors_of(self.pid), before)

    def test_a_refusal_waits_for_nobody(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while theirs.send(b"x" * 4096):
                    pass
            theirs.setblocking(True)
            self.broker.send(b"?", theirs.fileno())
            self.assert_works()
        self.assertIn("could not be sent", self.log.read_text())

    def test_no_more_keepers_run_than_may(self) -> None:
        most = 4 + LEAVING
        running = [self.begin(b"k", UID + number) for number in range(most)]
        self.assertIn("too many", self.refusal(self.begin()))
        until(lambda: len(children_of(self.pid)) == most)
        running.pop().close()
        until(lambda: len(children_of(self.pid)) == most - 1)
        self.assert_works()

    def test_no_more_passwords_are_checked_at_once_than_may_be(self) -> None:
        running = [self.begin(b"p") for _ in range(MOST_CHECKS)]
        self.assertIn("too many", self.refusal(self.begin(b"p")))
        self.assert_works()
        for each in running:
            wire.send(each, [b"1", b"check", b"no such user", b"secret"])
            self.assertEqual(wire.receive(each), [b"1", b"ok", b"0", b"unknown"])
        until(lambda: not children_of(self.pid))

    def test_no_more_files_are_read_at_once_than_may_be(self) -> None:
        running = [self.begin(b"f") for _ in range(MOST_READS)]
        self.assertIn("too many", self.refusal(self.begin(b"f")))
        self.assert_works()
        for each in running:
            # It was started with none.
            wire.send(each, [b"1", b"read", b"0"])
            self.assertEqual((wire.receive(each) or [])[:3], [b"1", b"error", b"OSError"])
        until(lambda: not children_of(self.pid))

    def test_one_is_killed_by_its_number(self) -> None:
        others = [self.begin(), self.begin()]
        connection, number = self.broker.begin(b"k", UID, GID)
        self.addCleanup(connection.close)
        self.assert_serves(connection)
        self.broker.send(REQUEST.pack(b"x", number, 0, 0))
        self.broker.send(REQUEST.pack(b"x", 12345, 0, 0))
        self.assertIsNone(wire.receive(connection))
        for each in others:
            self.assert_serves(each)
        until(lambda: "ended with -9" in self.log.read_text())

    def test_an_owner_whose_keepers_do_not_end_takes_few_places(self) -> None:
        mine = [self.begin() for _ in range(MOST_OF_AN_OWNER)]
        for each in mine:
            self.assert_serves(each)
        answer = wire.receive(self.begin())
        assert answer is not None
        self.assertEqual(answer[:2], [b"0", b"refused"])
        self.assertIn(b"have not ended", answer[2])
        self.assert_serves(self.begin(uid=UID + 1))

    def test_nothing_but_the_end_of_a_stream_is_served_or_written_to(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with ours, theirs:
            self.broker.send(REQUEST.pack(b"k", 1, UID, GID), theirs.fileno())
            self.broker.send(REQUEST.pack(b"p", 2, 0, 0), theirs.fileno())
            self.assert_works()
            self.assertRaises(BlockingIOError, ours.recv, 100, socket.MSG_DONTWAIT)

    def test_those_that_end_leave_no_zombie(self) -> None:
        for _ in range(3):
            connections = [self.begin(uid=UID + number) for number in range(15)]
            # Begun in their order: when the last one answers, all are there.
            self.assert_serves(connections[-1])
            for each in connections:
                each.close()
            until(lambda: not children_of(self.pid))
        self.assert_works()


class EndTests(BrokerTestCase):
    def assert_ended(self, *pids: int) -> None:
        self.broker.control.close()
        self.assertEqual(self.broker.process.wait(TIME_LIMIT), 0)
        for pid in pids:
            self.assertFalse(Path(f"/proc/{pid}").exists())

    def test_it_ends_with_the_network_process(self) -> None:
        self.assert_ended()
        self.assertEqual(self.log.read_text(), "")

    def test_keepers_end_what_they_do(self) -> None:
        connection, pid = self.keeper()
        connection.close()
        self.assert_ended(pid)
        self.assertEqual(self.log.read_text(), "")

    def test_it_takes_those_that_hang_along(self) -> None:
        _, pid = self.keeper()
        _, stopped = self.keeper()
        stop(stopped)
        self.broker.control.close()
        self.assertEqual(self.broker.process.wait(TIME_LIMIT), 0)
        until(lambda: not Path(f"/proc/{stopped}").exists() and not Path(f"/proc/{pid}").exists())

    def test_they_have_as_long_as_the_network_process_says(self) -> None:
        stopped = self.with_broker(busy_limit=10 * TIME_LIMIT, most_time=10 * TIME_LIMIT)
        self.broker.send(REQUEST.pack(b"e", 50, 0, 0))
        self.broker.control.close()
        self.assertEqual(self.broker.process.wait(TIME_LIMIT), 0)
        until(lambda: not Path(f"/proc/{stopped}").exists())

    def with_broker(self, **limits: float) -> int:
        """Have another broker, with one keeper, that hangs."""
        self.broker.close()
        self.broker = RawBroker(self.log, **limits)  # type: ignore[arg-type]
        self.addCleanup(self.broker.close)
        self.pid = self.broker.process.pid
        _, stopped = self.keeper()
        stop(stopped)
        return stopped

    def test_and_never_longer_than_the_server_was_given_at_its_start(self) -> None:
        for too_long in (2_147_000_000, 2**32 - 1):
            stopped = self.with_broker(busy_limit=10 * TIME_LIMIT, most_time=0.05)
            self.broker.send(REQUEST.pack(b"e", too_long, 0, 0))
            self.broker.control.close()
            self.assertEqual(self.broker.process.wait(TIME_LIMIT), 0)
            until(lambda gone=stopped: not Path(f"/proc/{gone}").exists())  # type: ignore[misc]
            self.assertEqual(self.log.read_text(), "")

    def test_that_is_no_more_than_a_server_can_be_given(self) -> None:
        self.assertEqual(MOST_TIME, MOST_GRACE)

    def test_a_fault_of_its_own_leaves_no_child_behind(self) -> None:
        stopped = self.with_broker(longest_wait=float("-inf"))
        self.broker.control.close()
        self.assertEqual(self.broker.process.wait(TIME_LIMIT), 1)
        self.assertIn("OverflowError", self.log.read_text())
        until(lambda: not Path(f"/proc/{stopped}").exists())

    def test_signals_for_all_processes_of_the_server_are_not_its_business(self) -> None:
        connection, pid = self.keeper()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(self.pid, number)
            os.kill(pid, number)
        self.assert_serves(connection)
        self.assert_works()

    def test_a_keeper_that_dies_is_a_line_in_the_log_and_no_more(self) -> None:
        connection, pid = self.keeper()
        os.kill(pid, signal.SIGKILL)
        self.assertIsNone(wire.receive(connection))
        self.assert_works()
        self.assertIn(f"uid {UID} ended with -9", self.log.read_text())
