"""Scores that fade, whoever else writes to where they are kept."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.admission import BadScores, ScoreTable, scores
from qmailldap.admission.scores import HALF_LIFE

from ..loglevels import log_at, logged_lines

NOW = 1_700_000_000.0
HEADER = 64


class ScoreTableTests(SynchronousTestCase):
    def table(self, sets: int = 16) -> ScoreTable:
        table = ScoreTable.in_memory(sets)
        self.addCleanup(table.close)
        return table

    def test_what_was_never_added_to_is_none(self) -> None:
        self.assertEqual(self.table().score(b"key", NOW), 0)

    def test_each_adds_one(self) -> None:
        table = self.table()
        self.assertEqual([table.add(b"key", NOW) for _ in range(3)], [1, 2, 3])
        self.assertEqual(table.score(b"key", NOW), 3)
        self.assertEqual(table.score(b"other", NOW), 0)

    def test_a_score_halves_and_goes_on_from_there(self) -> None:
        table = self.table()
        for _ in range(4):
            table.add(b"key", NOW)
        self.assertEqual(table.score(b"key", NOW + HALF_LIFE), 2)
        self.assertEqual(table.add(b"key", NOW + 2 * HALF_LIFE), 2)
        self.assertEqual(table.score(b"key", NOW + 3 * HALF_LIFE), 1)

    def test_the_lowest_gives_way(self) -> None:
        table = self.table(sets=1)
        for number in range(8):
            table.add(b"%d" % number, NOW + number)
        table.add(b"0", NOW + 8)
        table.add(b"another", NOW + 9)
        kept = [number for number in range(8) if table.score(b"%d" % number, NOW + 9)]
        self.assertEqual(kept, [0, 2, 3, 4, 5, 6, 7])
        self.assertEqual(table.score(b"another", NOW + 9), 1)

    def test_memory_is_bounded_however_many_come(self) -> None:
        table = self.table()
        size = os.fstat(table.fileno()).st_size
        for number in range(5000):
            table.add(b"%d" % number, NOW)
        self.assertEqual(os.fstat(table.fileno()).st_size, size)
        self.assertEqual(size, HEADER + 16 * 8 * 32)
        kept = sum(table.score(b"%d" % number, NOW) > 0 for number in range(5000))
        self.assertLessEqual(kept, 16 * 8)

    def test_what_is_of_a_time_to_come_is_of_another_boot(self) -> None:
        table = self.table()
        table.add(b"key", NOW)
        self.assertEqual(table.score(b"key", NOW - 1), 1)
        self.assertEqual(table.score(b"key", NOW - 3600), 0)
        self.assertEqual(table.add(b"key", NOW - 3600), 1)
        self.assertEqual(table.score(b"key", NOW - 3600), 1)

    @given(
        st.lists(
            st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.floats(0, 10 * HALF_LIFE)),
            max_size=30,
        )
    )
    def test_scores_are_what_they_would_be_in_a_dictionary(
        self, steps: list[tuple[bytes, float]]
    ) -> None:
        table = ScoreTable.in_memory(2)
        expected: dict[bytes, float] = {}
        now = NOW
        for key, pause in steps:
            now += pause
            expected = {each: expected[each] * 0.5 ** (pause / HALF_LIFE) for each in expected}
            expected[key] = expected.get(key, 0) + 1
            self.assertAlmostEqual(table.add(key, now), expected[key])
            for each, score in expected.items():
                self.assertAlmostEqual(table.score(each, now), score)
        table.close()


class StrangeContentTests(SynchronousTestCase):
    """Others write to the same memory, and may do so at any moment, or be ended in the middle."""

    @given(st.binary(max_size=300), st.integers(0, 256))
    def test_whatever_is_found_is_a_score_or_none(self, octets: bytes, offset: int) -> None:
        table = ScoreTable.in_memory(1)
        table.add(b"key", NOW)
        os.pwrite(table.fileno(), octets, HEADER + offset)
        score = table.score(b"key", NOW)
        self.assertIn(score, (0, 1))
        self.assertEqual(table.add(b"key", NOW), score + 1)
        self.assertEqual(table.score(b"key", NOW), score + 1)
        table.close()

    def test_what_only_looks_like_a_tag_is_no_record(self) -> None:
        table = ScoreTable.in_memory(1)
        self.addCleanup(table.close)
        table.add(b"key", NOW)
        record = os.pread(table.fileno(), 32, HEADER)
        os.pwrite(table.fileno(), bytes(8) + record[:8], HEADER + 32)
        self.assertEqual(table.score(b"key", NOW), 1)
        os.pwrite(table.fileno(), bytes(8) + record[:24], HEADER)
        self.assertEqual(table.score(b"key", NOW), 0)
        os.pwrite(table.fileno(), record, HEADER + 7 * 32)
        self.assertEqual(table.score(b"key", NOW), 1)

    def test_a_record_that_is_there_twice_has_the_higher_score(self) -> None:
        table = ScoreTable.in_memory(1)
        self.addCleanup(table.close)
        table.add(b"key", NOW)
        first = os.pread(table.fileno(), 32, HEADER)
        table.add(b"key", NOW)
        os.pwrite(table.fileno(), first, HEADER + 3 * 32)
        self.assertEqual(table.score(b"key", NOW), 2)

    def test_a_half_written_record_is_none(self) -> None:
        table = ScoreTable.in_memory(1)
        self.addCleanup(table.close)
        table.add(b"key", NOW)
        before = os.pread(table.fileno(), 32, HEADER)
        table.add(b"key", NOW + 1)
        os.pwrite(table.fileno(), before[:16], HEADER)
        self.assertEqual(table.score(b"key", NOW + 1), 0)

    @given(
        st.floats(allow_nan=True, allow_infinity=True),
        st.floats(allow_nan=True, allow_infinity=True),
    )
    def test_no_number_makes_trouble(self, score: float, since: float) -> None:
        table = ScoreTable.in_memory(1)
        table.add(b"key", NOW)
        tag = os.pread(table.fileno(), 8, HEADER)
        record = struct.pack("<8sdd", tag, score, since)
        os.pwrite(table.fileno(), record + struct.pack("<II", zlib.crc32(record), 0), HEADER)
        found = table.score(b"key", NOW)
        self.assertTrue(0 <= found <= 1_000_000, found)
        self.assertTrue(1 <= table.add(b"key", NOW) <= 1_000_001)
        table.close()

    def test_a_file_that_was_cut_off_has_no_scores(self) -> None:
        path = Path(self.mktemp())
        table = ScoreTable.in_file(str(path), 16)
        self.addCleanup(table.close)
        table.add(b"key", NOW)
        os.truncate(path, HEADER)
        self.assertEqual(table.score(b"key", NOW), 0)
        self.assertEqual(table.add(b"key", NOW), 1)

    def test_what_cannot_be_written_is_told_once(self) -> None:
        log_at(self, LOGLEVEL=1)
        lines = logged_lines(self, "qmailldap.admission")
        path = Path(self.mktemp())
        ScoreTable.in_file(str(path), 16).close()
        read_only = os.open(path, os.O_RDONLY)
        self.addCleanup(os.close, read_only)
        table = ScoreTable(read_only)
        for _ in range(3):
            self.assertEqual(table.add(b"key", NOW), 1)
        self.assertEqual(lines, ["scores of wrong passwords are not kept: Bad file descriptor"])


_OTHER = """
import sys
from qmailldap.admission import ScoreTable

table = ScoreTable(int(sys.argv[1]))
print("ready", flush=True)
for line in sys.stdin:
    count, key, now = line.split()
    score = table.score(key.encode(), float(now))
    for _ in range(int(count)):
        score = table.add(key.encode(), float(now))
    print(score, flush=True)
"""


class OtherProcessTests(SynchronousTestCase):
    """A real second process, which has nothing from this one but a descriptor."""

    def setUp(self) -> None:
        self.table = ScoreTable.in_memory()
        self.addCleanup(self.table.close)
        fd = self.table.fileno()
        self.other = subprocess.Popen(
            [sys.executable, "-c", _OTHER, str(fd)],
            pass_fds=[fd],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self.addCleanup(self.end)
        self.assertEqual(self.answer(), "ready")

    def end(self) -> None:
        self.other.kill()
        self.other.communicate()

    def ask(self, count: int, key: str, now: float = NOW) -> None:
        assert self.other.stdin is not None
        self.other.stdin.write(f"{count} {key} {now}\n")
        self.other.stdin.flush()

    def answer(self) -> str:
        assert self.other.stdout is not None
        return self.other.stdout.readline().strip()

    def test_each_sees_what_the_other_has_added(self) -> None:
        self.table.add(b"key", NOW)
        self.ask(2, "key")
        self.assertEqual(self.answer(), "3.0")
        self.assertEqual(self.table.score(b"key", NOW), 3)
        self.table.add(b"key", NOW)
        self.ask(0, "key")
        self.assertEqual(self.answer(), "4.0")

    def test_both_may_add_at_the_same_time(self) -> None:
        self.ask(2000, "key")
        for number in range(2000):
            self.table.add(b"key", NOW)
            self.table.add(b"%d" % (number % 5), NOW)
        self.assertTrue(self.answer())
        score = self.table.score(b"key", NOW)
        self.assertTrue(2000 < score <= 4000, score)
        for number in range(5):
            self.assertEqual(self.table.score(b"%d" % number, NOW), 400)

    def test_one_that_was_stopped_with_a_lock_is_not_waited_for(self) -> None:
        # Locks are of processes: the other locks the whole file, and stays so.
        path = Path(self.mktemp())
        table = ScoreTable.in_file(str(path))
        self.addCleanup(table.close)
        lock_from_elsewhere(self, path)
        self.assertEqual([table.add(b"key", NOW) for _ in range(3)], [1, 2, 3])

    def test_nobody_else_changes_a_record_while_it_is_changed(self) -> None:
        script = "import fcntl, sys; fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        fd = self.table.fileno()

        def locked_elsewhere() -> bool:
            arguments = [sys.executable, "-c", script, str(fd)]
            return subprocess.run(arguments, pass_fds=[fd], capture_output=True).returncode == 0

        could_lock: list[bool] = []

        def watched(method: Callable[..., Any], *args: Any) -> Any:
            could_lock.append(locked_elsewhere())
            result = method(*args)
            could_lock.append(locked_elsewhere())
            return result

        for name in ("_read", "_write"):
            self.patch(self.table, name, partial(watched, getattr(self.table, name)))
        self.table.add(b"key", NOW)
        self.assertEqual(could_lock, [False] * 4)
        self.assertTrue(locked_elsewhere())


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def open(self, sets: int = 16) -> ScoreTable:
        table = ScoreTable.in_file(str(self.path), sets)
        self.addCleanup(table.close)
        return table

    def assert_bad(self, problem: str) -> None:
        before = self.path.read_bytes() if self.path.is_file() else b""
        with self.assertRaises(BadScores) as caught:
            self.open()
        self.assertIn(problem, str(caught.exception))
        if self.path.is_file():
            self.assertEqual(self.path.read_bytes(), before)

    def test_scores_outlive_a_server(self) -> None:
        first = ScoreTable.in_file(str(self.path), 16)
        first.add(b"key", NOW)
        first.close()
        self.assertEqual(self.open().score(b"key", NOW), 1)

    def test_servers_share_them_while_they_run(self) -> None:
        first, second = self.open(), self.open()
        first.add(b"key", NOW)
        self.assertEqual(second.add(b"key", NOW), 2)
        self.assertEqual(first.score(b"key", NOW), 2)

    def test_a_new_file_is_nobody_elses(self) -> None:
        self.open()
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_an_empty_file_and_one_that_was_not_finished_are_begun(self) -> None:
        self.path.touch()
        self.open().add(b"key", NOW)
        self.path.write_bytes(bytes(HEADER + 16 * 8 * 32))
        self.open().add(b"key", NOW)

    def test_a_table_of_another_size_stays_as_it_is(self) -> None:
        self.open(4).add(b"key", NOW)
        self.assertEqual(self.open(16).score(b"key", NOW), 1)
        self.assertEqual(self.path.stat().st_size, HEADER + 4 * 8 * 32)

    def test_two_tables_hash_by_different_keys(self) -> None:
        self.open(1).add(b"key", NOW)
        first = self.path.read_bytes()
        self.path.unlink()
        self.open(1).add(b"key", NOW)
        self.assertNotEqual(self.path.read_bytes()[HEADER : HEADER + 8], first[HEADER : HEADER + 8])

    def test_no_file_but_one_of_scores_is_taken(self) -> None:
        for content in (b"x", b"joe:secret\n" * 1000, bytes(HEADER), bytes(5000)):
            self.path.write_bytes(content)
            self.assert_bad("holds something else")

    def test_a_damaged_file_is_not_taken(self) -> None:
        self.open()
        whole = self.path.read_bytes()
        for damaged in (whole[:-1], whole + b"x", whole[:30] + b"?" + whole[31:]):
            self.path.write_bytes(damaged)
            self.assert_bad("is damaged")
        self.path.write_bytes(whole[:16] + b"\2\0\0\0" + whole[20:])
        self.assert_bad("another version, 2")

    def test_what_is_no_file_is_not_taken(self) -> None:
        os.mkfifo(self.path)
        self.assert_bad("is not a file")
        self.path.unlink()
        self.path.mkdir()
        self.assert_bad("Is a directory")
        self.path.rmdir()
        self.path.symlink_to(self.mktemp())
        self.assert_bad("Too many levels of symbolic links")
        self.path = self.path / "nowhere"
        self.assert_bad("cannot be opened: ")

    def test_one_that_another_process_keeps_locked_is_not_waited_for_for_ever(self) -> None:
        tries: list[float] = []
        self.patch(scores, "time", FakeTime(tries))
        self.open()
        lock_from_elsewhere(self, self.path)
        self.assert_bad("kept locked")
        self.assertTrue(0 < sum(tries) <= 10, tries)


def lock_from_elsewhere(test: SynchronousTestCase, path: Path) -> None:
    """Have another process lock the whole file for the rest of the test."""
    script = (
        "import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.lockf(f, fcntl.LOCK_EX)\n"
        "print('locked', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    test.addCleanup(holder.communicate)
    assert holder.stdout is not None
    test.assertEqual(holder.stdout.readline(), "locked\n")


class FakeTime:
    def __init__(self, slept: list[float]) -> None:
        self.sleep = slept.append
