"""Names of the usual kind are looked at all at once; it must come to the same as one by one."""

from __future__ import annotations

import os
from typing import Any, NamedTuple
from unittest import mock

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.maildir import scanning
from qmailldap.maildir.scanning import SETTLED, Found, token_of
from tests.maildir.support import deliver
from tests.maildir.test_storage import MaildirTestCase


class Status(NamedTuple):
    st_size: int
    st_mtime: float
    st_mtime_ns: int


class Entry:
    """A file of a folder, as os.scandir gives it."""

    def __init__(self, name: bytes, number: int) -> None:
        self.name = os.fsdecode(name)
        self._number = number

    def inode(self) -> int:
        return 1000 + self._number

    def stat(self, follow_symlinks: bool) -> Status:
        assert not follow_symlinks
        seconds = 1_600_000_000 + self._number
        return Status(self._number, float(seconds), seconds * 10**9)


seconds = st.sampled_from([b"1700000000", b"1700000001", b"1700000001", b"2700000000"])
rests = st.sampled_from(
    [b"mx", b"mx", b"m", b"mx-1", b"mx.1", b"", b"1.mx", b"M1P2.m\x01x", b"m\n"]
)
sizes = st.sampled_from([b"", b",S=12", b",S=12", b",W=15", b",S=12,W=15", b",S=0012"])
infos = st.sampled_from([b"", b":2,", b":2,", b":2,S", b":2,RS", b":1,a:b", b":", b":2,S,S=9"])
usual_names = st.tuples(seconds, st.just(b"."), rests, sizes, infos).map(b"".join)
odd_names = st.sampled_from(
    [
        b"1.a", b"x", b"0700000000.a", b"01700000000.a", b"17000000000.a", b"1700000000", b":2,S",
        b"1700000000.a,S=", b"1700000000.a,W=1,S=2", b"1700000000.a,S=1,W=x", b"1700000000.a,x,S=1",
        b"1700000000.a,S=1,S=2", b"1700000000.\xff", b"1700000000.a,S=1234567890123456789",
        b"1700000000.\xc3\xa9:2,S", b"1700000000.,S=4", b"\xd9\xa1700000000.a",
    ]
)  # fmt: skip
folders = st.sets(usual_names | usual_names | usual_names | odd_names, max_size=6)


class InOrderTests(SynchronousTestCase):
    def found(self, new: set[bytes], cur: set[bytes]) -> Found:
        numbered = enumerate([*sorted(new, reverse=True), *sorted(cur, reverse=True)])
        entries: list[Any] = [Entry(name, number) for number, name in numbered]
        return scanning._in_order([(b"new", entries[: len(new)]), (b"cur", entries[len(new) :])])

    @settings(deadline=None, max_examples=300)
    @given(folders, folders)
    @example(set(), set())
    @example({b"1700000000.a"}, {b"1700000000.a:2,S"})
    @example({b"1700000000.a.b"}, {b"1700000000.a:2,S", b"1700000000.a-b"})
    def test_all_at_once_comes_to_the_same_as_one_by_one(
        self, new: set[bytes], cur: set[bytes]
    ) -> None:
        at_once = self.found(new, cur)
        with mock.patch.object(scanning, "_usual_in_order", lambda read: None):
            one_by_one = self.found(new, cur)
        self.assertEqual(_plain(one_by_one), _plain(at_once))

    def test_usual_names_are_looked_at_all_at_once(self) -> None:
        names = {
            b"1700000000.4000.mx", b"1700000000.M1P2.mx,S=5,W=6:2,S", b"1700000001.3.mx,S=5",
        }  # fmt: skip
        with mock.patch.object(scanning, "_rows") as rows:
            self.assertEqual(3, len(self.found(names, set()).files))
        rows.assert_not_called()


def _plain(found: Found) -> list[Any]:
    return [*found.files, *found.sizes, *found.inodes, found.ambiguous, *found[4:]]


class SnapshotTests(MaildirTestCase):
    def read(self) -> scanning.Snapshot | None:  # type: ignore[override]
        self.scan()
        return self.maildir.snapshot

    def test_it_is_that_of_the_folders_as_they_are(self) -> None:
        os.utime(self.path / "cur", ns=(1, 7 * 10**18))
        snapshot = self.read()
        assert snapshot is not None
        self.assertEqual(7 * 10**18, snapshot.newest)
        self.assertTrue(self.maildir.is_unchanged(snapshot.token))

    def test_there_is_none_of_a_folder_that_never_rests(self) -> None:
        changes = iter(range(100))
        self.patch(scanning, "_last_changes", lambda folders: [(1, 2, 3, next(changes))] * 2)
        self.assertIsNone(self.read())

    def test_there_is_none_where_a_folder_is_missing(self) -> None:
        (self.path / "cur").rmdir()
        self.assertIsNone(self.read())

    def test_there_is_none_where_a_message_was_written_to_in_its_place(self) -> None:
        for name in ("cur/1700000000.1.mx:2,", "cur/x:2,"):
            file = deliver(self.path, name)
            times = os.stat(self.path / "cur")
            later = times.st_ctime_ns + int((SETTLED + 1) * 1e9)
            self.assertIsNotNone(self.read())
            os.utime(file, ns=(later, later))
            self.assertIsNone(self.read())
            file.unlink()

    def test_unless_its_name_tells_the_size(self) -> None:
        file = deliver(self.path, "cur/1700000000.1.mx,S=2:2,")
        os.utime(file, (2**33, 2**33))
        self.assertIsNotNone(self.read())

    def test_another_folder_of_the_same_times_is_another_token(self) -> None:
        real = os.fstat

        class Timeless(NamedTuple):
            st_dev: int
            st_ino: int
            st_mtime_ns: int = 1
            st_ctime_ns: int = 2

        def timeless(descriptor: int) -> Timeless:
            status = real(descriptor)
            return Timeless(status.st_dev, status.st_ino)

        def token() -> bytes:
            with self.maildir._folders() as opened, mock.patch.object(os, "fstat", timeless):
                return token_of(opened)

        before = token()
        (self.path / "cur").rename(self.path / "old")
        (self.path / "cur").mkdir()
        self.assertNotEqual(before, token())
        (self.path / "cur").rmdir()
        (self.path / "old").rename(self.path / "cur")
        self.assertEqual(before, token())

    def test_any_change_of_a_folder_is_another_token(self) -> None:
        new, cur = (os.open(self.path / name, os.O_RDONLY) for name in ("new", "cur"))
        self.addCleanup(os.close, new)
        self.addCleanup(os.close, cur)
        tokens = {token_of({b"new": new, b"cur": cur})}
        for number, folder in enumerate(("new", "cur"), 1):
            # Only the kernel sets a ctime, perhaps within the tick of the one before.
            os.utime(self.path / folder, (number, number))
            tokens.add(token_of({b"new": new, b"cur": cur}))
        tokens.add(token_of({b"new": cur, b"cur": new}))
        self.assertEqual(4, len(tokens))
