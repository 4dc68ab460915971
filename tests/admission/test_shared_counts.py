"""Counts that the worker processes of one server share."""

from __future__ import annotations

import fcntl
import mmap
import os
import subprocess
import sys
import zlib
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.admission import BadCounts, SharedCounts

WORKERS = 3
KEYS = [b"network 192.0.2.1", b"user 192.0.2.1", b"", b"\0" * 1000]


def joined(counts: SharedCounts, number: int) -> SharedCounts:
    """As another process has them: with a descriptor of its own."""
    return SharedCounts.join(os.dup(counts.fileno()), number)


class Crowded(SharedCounts):
    """Hardly any cells, so that most keys share theirs."""

    def _cells_of(self, key: bytes) -> tuple[int, int, int, int]:
        first, second, third, fourth = super()._cells_of(key)
        return first % 2, 10 + second % 2, 20 + third % 2, 30 + fourth % 2


class SharedCountsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.made = SharedCounts.create(WORKERS)
        self.addCleanup(self.made.close)

    def worker(self, number: int) -> SharedCounts:
        counts = joined(self.made, number)
        self.addCleanup(counts.close)
        return counts


class SharedCountsTests(SharedCountsTestCase):
    def test_a_worker_is_told_of_all_others_and_not_of_itself(self) -> None:
        workers = [self.worker(number) for number in range(WORKERS)]
        for times, worker in enumerate(workers, 1):
            worker.tell_total(times)
            for _ in range(times):
                worker.add(b"key")
        self.assertEqual([each.total_elsewhere() for each in workers], [5, 4, 3])
        self.assertEqual([each.elsewhere(b"key") for each in workers], [5, 4, 3])
        self.assertEqual([each.elsewhere(b"other") for each in workers], [0, 0, 0])
        self.assertEqual(self.made.total_elsewhere(), 6)
        self.assertEqual(self.made.elsewhere(b"key"), 6)

    def test_of_a_worker_that_has_ended_nothing_is_left(self) -> None:
        first, second, third = (self.worker(number) for number in range(WORKERS))
        for each in (first, second):
            each.tell_total(7)
            each.add(b"key")
        self.made.clear(1)
        self.assertEqual((third.total_elsewhere(), third.elsewhere(b"key")), (7, 1))
        self.assertEqual((second.total_elsewhere(), second.elsewhere(b"key")), (7, 1))
        again = self.worker(1)
        again.add(b"key")
        self.assertEqual(third.elsewhere(b"key"), 2)

    def test_one_that_was_held_to_have_ended_counts_none_below_none(self) -> None:
        first, second = self.worker(0), self.worker(1)
        second.add(b"key")
        self.made.clear(1)
        second.remove(b"key")
        self.assertEqual(first.elsewhere(b"key"), 0)

    def test_one_key_may_have_very_many(self) -> None:
        first, second = self.worker(0), self.worker(1)
        for _ in range(70_000):
            second.add(b"key")
        self.assertEqual(first.elsewhere(b"key"), 70_000)

    def test_a_lonely_worker_has_nobody_elsewhere(self) -> None:
        made = SharedCounts.create(1)
        self.addCleanup(made.close)
        only = joined(made, 0)
        self.addCleanup(only.close)
        only.add(b"key")
        only.tell_total(1)
        self.assertEqual((only.total_elsewhere(), only.elsewhere(b"key")), (0, 0))

    def test_two_servers_hash_by_different_keys(self) -> None:
        other = SharedCounts.create(WORKERS)
        self.addCleanup(other.close)
        self.assertNotEqual(self.made._cells_of(b"key"), other._cells_of(b"key"))

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["add", "remove", "total", "clear"]),
                st.integers(0, WORKERS - 1),
                st.integers(0, 10),
            ),
            max_size=40,
        ),
        st.booleans(),
    )
    def test_whatever_happens_nobody_is_missed(
        self, steps: list[tuple[str, int, int]], crowded: bool
    ) -> None:
        kind = Crowded if crowded else SharedCounts
        for number in range(WORKERS):
            self.made.clear(number)
        descriptors = [os.dup(self.made.fileno()) for _ in range(WORKERS)]
        workers = [kind.join(each, number) for number, each in enumerate(descriptors)]
        truth: list[Counter[bytes]] = [Counter() for _ in workers]
        totals = [0] * WORKERS
        for step, number, which in steps:
            key = KEYS[which % len(KEYS)]
            if step == "add":
                workers[number].add(key)
                truth[number][key] += 1
            elif step == "remove" and truth[number][key]:
                workers[number].remove(key)
                truth[number][key] -= 1
            elif step == "total":
                workers[number].tell_total(which)
                totals[number] = which
            elif step == "clear":
                self.made.clear(number)
                truth[number].clear()
                totals[number] = 0
            for me, worker in enumerate(workers):
                others = [each for each in range(WORKERS) if each != me]
                self.assertEqual(worker.total_elsewhere(), sum(totals[each] for each in others))
                for each_key in KEYS:
                    count = sum(truth[each][each_key] for each in others)
                    if crowded:
                        self.assertGreaterEqual(worker.elsewhere(each_key), count)
                    else:
                        self.assertEqual(worker.elsewhere(each_key), count)
        for worker, keys in zip(workers, truth, strict=True):
            for key in keys.elements():
                worker.remove(key)
        for worker in workers:
            self.assertEqual([worker.elsewhere(key) for key in KEYS], [0] * len(KEYS))
            worker.close()


class DescriptorTests(SharedCountsTestCase):
    """What a worker is given is looked at before it is believed."""

    def assert_bad(self, descriptor: int, problem: str, number: int = 0) -> None:
        with self.assertRaises(BadCounts) as caught:
            SharedCounts.join(descriptor, number)
        self.assertIn(problem, str(caught.exception))

    def memory(self, octets: bytes, *, sealed: bool = True) -> int:
        descriptor = os.memfd_create("other", os.MFD_ALLOW_SEALING)
        self.addCleanup(os.close, descriptor)
        os.write(descriptor, octets)
        if sealed:
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        return descriptor

    def whole(self) -> bytes:
        return os.pread(self.made.fileno(), os.fstat(self.made.fileno()).st_size, 0)

    def test_its_memory_can_neither_be_cut_off_nor_unsealed(self) -> None:
        descriptor = self.made.fileno()
        size = os.fstat(descriptor).st_size
        for length in (0, size - 1, size + 1):
            with self.assertRaises(PermissionError):
                os.ftruncate(descriptor, length)
        with self.assertRaises(PermissionError):
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)

    def test_nobody_inherits_it_unasked(self) -> None:
        self.assertFalse(os.get_inheritable(self.made.fileno()))

    def test_something_else_is_not_taken(self) -> None:
        for octets in (b"", b"qmailldap scores" + bytes(1000), bytes(mmap.PAGESIZE)):
            self.assert_bad(self.memory(octets), "something else")
        facts = b"qmailldap counts" + b"\2\0\0\0" + self.whole()[20:56]
        other = facts + zlib.crc32(facts).to_bytes(4, "little") + self.whole()[60:]
        self.assert_bad(self.memory(other), "another version")
        self.assert_bad(self.memory(facts + self.whole()[56:]), "another version")

    def test_memory_that_can_be_cut_off_is_not_taken(self) -> None:
        self.assert_bad(self.memory(self.whole(), sealed=False), "not as it was made")
        self.assert_bad(self.memory(self.whole()[:-1]), "not as it was made")
        path = self.mktemp()
        with open(path, "w+b") as file:
            file.write(self.whole())
            file.flush()
            self.assert_bad(file.fileno(), "not as it was made")

    def test_a_number_for_which_there_is_no_place_is_not_taken(self) -> None:
        for number in (-1, WORKERS):
            self.assert_bad(self.made.fileno(), f"no place for worker {number}, but for 3", number)


_OTHER = """
import sys
from qmailldap.admission import SharedCounts

counts = SharedCounts.join(int(sys.argv[1]), 1)
print("ready", flush=True)
for line in sys.stdin:
    count, key = line.split()
    counts.tell_total(int(count))
    for _ in range(int(count)):
        counts.add(key.encode())
    print(counts.total_elsewhere(), counts.elsewhere(key.encode()), flush=True)
"""


class OtherProcessTests(SharedCountsTestCase):
    """A real second process, which has nothing from this one but a descriptor."""

    def test_each_sees_what_the_other_has_until_it_has_ended(self) -> None:
        descriptor = self.made.fileno()
        other = subprocess.Popen(
            [sys.executable, "-c", _OTHER, str(descriptor)],
            pass_fds=[descriptor],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self.addCleanup(other.communicate)
        self.addCleanup(other.kill)
        assert other.stdin is not None
        assert other.stdout is not None
        self.assertEqual(other.stdout.readline(), "ready\n")
        worker = self.worker(0)
        worker.tell_total(3)
        worker.add(b"key")
        other.stdin.write("5 key\n")
        other.stdin.flush()
        self.assertEqual(other.stdout.readline(), "3 1\n")
        self.assertEqual((worker.total_elsewhere(), worker.elsewhere(b"key")), (5, 5))
        other.kill()
        other.wait()
        self.assertEqual((worker.total_elsewhere(), worker.elsewhere(b"key")), (5, 5))
        self.made.clear(1)
        self.assertEqual((worker.total_elsewhere(), worker.elsewhere(b"key")), (0, 0))
