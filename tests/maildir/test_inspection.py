"""What a look at a mailbox finds: what a session would find, and nothing is changed by it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.maildir.inspection import (
    KINDS,
    Inspection,
    Messages,
    QuotaUse,
    Seen,
    decode,
    encode,
    inspect,
)
from qmailldap.maildir.storage import MailboxCorrupted, MailboxMissing
from qmailldap.maildir.work import Place, Work
from qmailldap.quota import Quota

from .support import deliver, make_maildir

NO_QUOTA = Quota()


def place_of(
    home: Path, *, quota: Quota = NO_QUOTA, dirmaker: bytes | None = None, asks: bool = False
) -> Place:
    return Place(
        os.fsencode(home),
        os.fsencode(home / "Maildir"),
        b"./Maildir/",
        quota,
        dirmaker,
        asks_dot_qmail=asks,
    )


def everything(path: Path) -> dict[str, tuple[int, ...]]:
    """All that a look could change, the time of the last look at messages among it."""
    found = {}
    for each in (path, *path.rglob("*")):
        status = each.lstat()
        times = [status.st_ctime_ns, status.st_mtime_ns]
        if stat.S_ISREG(status.st_mode):
            times.append(status.st_atime_ns)
        found[str(each)] = (status.st_ino, status.st_mode, status.st_size, *times)
    return found


class InspectionTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute() / "home"
        self.home.mkdir(parents=True)

    def make_maildir(self) -> Path:
        return make_maildir(self.home / "Maildir")

    def found(self, place: Place | None = None) -> Inspection:
        found, error = inspect(place or place_of(self.home))
        self.assertIsNone(error)
        return found


class WhatIsThereTests(InspectionTestCase):
    def test_a_mailbox_is_shown_with_its_owner_and_mode(self) -> None:
        maildir = self.make_maildir()
        maildir.chmod(0o750)
        found = self.found()
        ids = os.getuid(), os.getgid()
        self.assertEqual(found.mailbox, Seen(str(maildir), "directory", 0o750, *ids))
        self.assertEqual(found.home.path, str(self.home))
        self.assertEqual([Path(each.path).name for each in found.folders], ["tmp", "new", "cur"])
        self.assertEqual({each.kind for each in found.folders}, {"directory"})
        self.assertFalse(found.makes_home or found.makes)

    def test_messages_are_counted_as_a_session_would_list_them(self) -> None:
        maildir = self.make_maildir()
        deliver(maildir, "new/1.a", b"four")
        deliver(maildir, "new/2.b,W=99", b"two")
        deliver(maildir, "cur/3.c:2,ST", b"three")
        deliver(maildir, "cur/.hidden", b"no message")
        deliver(maildir, "tmp/4.d", b"not yet one")
        found = self.found()
        self.assertEqual(found.messages, Messages(new=2, cur=1, octets=4 + 99 + 5))
        # What is flagged T is listed, and no quota counts it.
        self.assertEqual(found.quota, QuotaUse(octets=7, messages=2))

    def test_links_are_followed_and_told(self) -> None:
        elsewhere = make_maildir(self.home.parent / "elsewhere")
        (self.home / "Maildir").symlink_to("../elsewhere")
        deliver(elsewhere, "new/1.a")
        found = self.found()
        self.assertEqual((found.mailbox.kind, found.mailbox.link), ("directory", "../elsewhere"))
        self.assertEqual(found.messages and found.messages.new, 1)

    def test_a_folder_that_is_a_link_is_not_allowed(self) -> None:
        maildir = self.make_maildir()
        (maildir / "tmp").rmdir()
        (maildir / "tmp").symlink_to("new")
        found, error = inspect(place_of(self.home))
        self.assertIsInstance(error, MailboxCorrupted)
        self.assertEqual(
            [(each.kind, each.link, each.problem) for each in found.folders[:2]],
            [("other", "new", "a symbolic link is not allowed here"), ("directory", "", "")],
        )

    def test_dot_qmail_names_the_mailbox_of_those_who_have_one(self) -> None:
        self.make_maildir()
        deliver(make_maildir(self.home / "Mail"), "cur/1.a")
        (self.home / ".qmail").write_text("|program\n./Mail/\n")
        found = self.found(place_of(self.home, asks=True))
        self.assertEqual(Path(found.mailbox.path).name, "Mail")
        self.assertTrue(found.by_dot_qmail)
        self.assertFalse(self.found().by_dot_qmail)

    def test_a_dot_qmail_that_cannot_be_read_is_an_error(self) -> None:
        self.make_maildir()
        (self.home / ".qmail").symlink_to(".qmail")
        found, error = inspect(place_of(self.home, asks=True))
        self.assertIsInstance(error, OSError)
        self.assertEqual(found.mailbox.kind, "directory")
        self.assertIsNone(found.messages)

    def test_names_that_are_no_text_are_kept(self) -> None:
        home = Path(os.fsdecode(os.fsencode(self.home) + b"/h\xff\x1b[2J"))
        make_maildir(home / "Maildir")
        found = self.found(place_of(home))
        self.assertEqual(decode(encode(found)), found)
        self.assertEqual(os.fsencode(found.home.path), os.fsencode(home))


class QuotaFileTests(InspectionTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.file = self.make_maildir() / "maildirsize"

    def use(self) -> QuotaUse:
        use = self.found(place_of(self.home, quota=Quota(1000, 10))).quota
        assert use is not None
        return use

    def test_what_it_says_is_told_beside_what_was_counted(self) -> None:
        deliver(self.home / "Maildir", "new/1.a,S=500")
        self.file.write_text("1000S,10C\n300 1\n100 1\n-50 -1\n")
        self.assertEqual(self.use(), QuotaUse(500, 1, "1000S,10C", 350, 1))

    def test_one_that_is_not_there_says_nothing(self) -> None:
        self.assertEqual(self.use(), QuotaUse(0, 0))

    def test_one_whose_sum_cannot_be_used_is_told(self) -> None:
        self.file.write_text("1000S\nhalf a li")
        self.assertEqual(self.use(), QuotaUse(0, 0, "1000S"))

    def test_a_fifo_in_its_place_is_not_waited_for(self) -> None:
        os.mkfifo(self.file)
        use = self.use()
        self.assertIn("not a regular file", use.problem)
        self.assertEqual(use.octets, 0)

    def test_a_link_in_its_place_is_not_followed(self) -> None:
        self.file.symlink_to("/etc/passwd")
        self.assertIn("maildirsize", self.use().problem)
        self.assertIsNone(self.use().definition)


class NothingChangesTests(InspectionTestCase):
    def test_nothing_is_made_moved_tidied_or_written(self) -> None:
        maildir = self.make_maildir()
        deliver(maildir, "new/1.a", b"new")
        died = deliver(maildir, "tmp/2.b")
        os.utime(died, (0, 0))
        (maildir / "cur").rmdir()
        # A definition of another time, and a sum that is wrong: a session would write it anew.
        (maildir / "maildirsize").write_text("1S\n77 7\n")
        os.utime(maildir / "maildirsize", (0, 0))
        before = everything(self.home)
        found = self.found(place_of(self.home, quota=Quota(1000)))
        self.assertEqual(found.makes, (str(maildir / "cur"),))
        after = everything(self.home)
        file = str(maildir / "maildirsize")
        self.assertEqual({**after, file: after[file][:-1]}, {**before, file: before[file][:-1]})

    def test_a_home_that_dirmaker_would_make_is_not_made(self) -> None:
        self.home.rmdir()
        ran = self.home.parent / "ran"
        dirmaker = self.home.parent / "dirmaker"
        dirmaker.write_text(f"#!/bin/sh\ntouch {ran}\n")
        dirmaker.chmod(0o755)
        found = self.found(place_of(self.home, dirmaker=os.fsencode(dirmaker)))
        self.assertTrue(found.makes_home)
        self.assertEqual((found.home.kind, found.mailbox.kind), ("missing", "missing"))
        self.assertFalse(ran.exists() or self.home.exists())


class HindrancesTests(InspectionTestCase):
    """What keeps a dirmaker from making the home; tests/integration has owners who may not."""

    def setUp(self) -> None:
        super().setUp()
        self.home.rmdir()
        self.bin = self.home.parent / "bin"
        self.bin.mkdir()
        self.dirmaker = self.bin / "make-home"
        self.dirmaker.touch(0o755)
        path = os.environb[b"PATH"]
        self.addCleanup(os.environb.__setitem__, b"PATH", path)

    def hindrances(self, dirmaker: bytes, home: Path | None = None) -> tuple[str, ...]:
        return self.found(place_of(home or self.home, dirmaker=dirmaker)).hindrances

    def test_none_is_told_of_where_all_is_well(self) -> None:
        self.assertEqual(self.hindrances(os.fsencode(self.dirmaker)), ())
        os.environb[b"PATH"] = os.fsencode(self.bin)
        self.assertEqual(self.hindrances(b"make-home"), ())

    def test_a_dirmaker_that_cannot_be_executed_is_told(self) -> None:
        self.dirmaker.chmod(0o644)
        for program in (self.dirmaker, self.bin / "missing", self.bin):
            (line,) = self.hindrances(os.fsencode(program))
            self.assertIn(f"may not execute the dirmaker {program}", line)

    def test_one_without_a_slash_is_sought_along_path(self) -> None:
        os.environb[b"PATH"] = b"/nonexistent"
        (line,) = self.hindrances(b"make-home")
        self.assertIn("make-home is not along PATH", line)

    def test_the_nearest_folder_above_the_home_must_be_writable(self) -> None:
        asked: list[bytes] = []

        def access(path: bytes, mode: int) -> bool:
            asked.append(path)
            return mode & os.W_OK == 0

        self.patch(os, "access", access)
        home = self.home.parent / "a" / "b" / "joe"
        (self.home.parent / "a").mkdir()
        (line,) = self.hindrances(os.fsencode(self.dirmaker), home)
        self.assertIn(f"may not write in {self.home.parent / 'a'},", line)
        self.assertEqual(asked[-1], os.fsencode(self.home.parent / "a"))

    def test_where_there_is_a_home_no_dirmaker_is_looked_at(self) -> None:
        self.home.mkdir()
        self.assertEqual(self.hindrances(b"/nonexistent"), ())


def _file_as_home(home: Path) -> None:
    home.rmdir()
    home.touch()


def _file_above_home(home: Path) -> None:
    home.rmdir()
    home.parent.rmdir()
    home.parent.touch()


def _dangling(home: Path) -> None:
    (home / "Maildir").symlink_to("nowhere")


def _link_as_folder(home: Path) -> None:
    make_maildir(home / "Maildir")
    (home / "Maildir" / "tmp").rmdir()
    (home / "Maildir" / "tmp").symlink_to("new")


def _file_as_folder(home: Path) -> None:
    (home / "Maildir").mkdir()
    (home / "Maildir" / "new").touch()


LAYOUTS: dict[str, Callable[[Path], object]] = {
    "whole": lambda home: make_maildir(home / "Maildir"),
    "no mailbox": lambda home: None,
    "no folders": lambda home: (home / "Maildir").mkdir(),
    "no home": lambda home: home.rmdir(),
    "a file as home": _file_as_home,
    "a file above the home": _file_above_home,
    "a file as mailbox": lambda home: (home / "Maildir").touch(),
    "a fifo as mailbox": lambda home: os.mkfifo(home / "Maildir"),
    "a link to nowhere": _dangling,
    "a loop": lambda home: (home / "Maildir").symlink_to("Maildir"),
    "a link as folder": _link_as_folder,
    "a file as folder": _file_as_folder,
}


class SameAsASessionTests(InspectionTestCase):
    """The verdict of a look is that of a login, for whatever is on disk."""

    def layout(self, name: str) -> Path:
        home = Path(self.mktemp()).absolute() / "home"
        home.mkdir(parents=True)
        LAYOUTS[name](home)
        return home

    def test_a_look_fails_where_a_session_does_and_as_it_does(self) -> None:
        refused = set()
        for name in LAYOUTS:
            home = self.layout(name)
            before = everything(home.parent)
            _, foreseen = inspect(place_of(home))
            self.assertEqual(everything(home.parent), before, name)
            happened = None
            try:
                Work(place_of(home)).begin()
            except OSError as error:
                happened = error
            self.assertEqual(type(foreseen), type(happened), name)
            if foreseen is not None:
                refused.add(type(foreseen))
        self.assertLessEqual({MailboxMissing, MailboxCorrupted}, refused)

    def test_what_it_says_would_be_made_is_made(self) -> None:
        for name in ("no mailbox", "no folders", "whole"):
            home = self.layout(name)
            found, _ = inspect(place_of(home))
            before = set(home.rglob("*"))
            Work(place_of(home)).begin()
            made = {str(path) for path in set(home.rglob("*")) - before}
            self.assertEqual(set(found.makes), made, name)

    def test_a_mailbox_whose_parent_is_missing_is_not_made(self) -> None:
        place = place_of(self.home)._replace(mailbox=os.fsencode(self.home / "a" / "b"))
        _, foreseen = inspect(place)
        with self.assertRaises(OSError) as caught:
            Work(place).begin()
        self.assertEqual(type(foreseen), type(caught.exception))
        assert foreseen is not None
        self.assertEqual(foreseen.errno, caught.exception.errno)


texts = st.text(st.characters(codec="utf-8"))
numbers = st.integers(0, 2**64 - 1)
seen = st.builds(Seen, texts, st.sampled_from(KINDS), numbers, numbers, numbers, texts, texts)
uses = st.builds(
    QuotaUse,
    st.none() | numbers,
    st.none() | numbers,
    st.none() | texts,
    st.none() | numbers,
    st.none() | numbers,
    texts,
)
inspections = st.builds(
    Inspection,
    seen,
    seen,
    st.lists(seen, max_size=3).map(tuple),
    st.booleans(),
    st.booleans(),
    st.lists(texts, max_size=4).map(tuple),
    st.none() | st.builds(Messages, numbers, numbers, numbers),
    st.none() | uses,
    st.lists(texts, max_size=2).map(tuple),
)


class EncodingTests(SynchronousTestCase):
    @given(inspections)
    def test_what_is_encoded_is_decoded(self, found: Inspection) -> None:
        self.assertEqual(decode(encode(found)), found)

    @given(st.binary() | st.text().map(str.encode))
    def test_anything_else_is_a_value_error(self, octets: bytes) -> None:
        self.assertRaises(ValueError, decode, octets)

    @given(inspections, st.data())
    def test_what_was_tampered_with_is_read_or_a_value_error(
        self, found: Inspection, data: st.DataObject
    ) -> None:
        octets = bytearray(encode(found))
        at = data.draw(st.integers(0, len(octets) - 1))
        octets[at] = data.draw(st.integers(0, 255))
        try:
            again = decode(bytes(octets))
        except ValueError:
            return
        self.assertIsInstance(again, Inspection)
        self.assertIn(again.home.kind, KINDS)
