"""What is asked and answered, written and read; and read when somebody else has written it."""

from __future__ import annotations

import errno
import os
import re
from array import array
from collections.abc import Callable
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.maildir.creation import MailboxNotCreated
from qmailldap.maildir.reading import MessageChanged
from qmailldap.maildir.scanning import Snapshot
from qmailldap.maildir.storage import Failures, Listing, MailboxCorrupted, MailboxMissing
from qmailldap.maildir.work import Begun, Finished, Place, Unchanged
from qmailldap.privsep import encoding
from qmailldap.privsep.encoding import Opened
from qmailldap.privsep.wire import FrameError
from qmailldap.quota import Quota

PROGRAM = b"/usr/local/sbin/dirmaker"

numbers = st.integers(0, 2**64 - 1)
sizes = st.integers(0, 2**63 - 1)
# As they come from a file system or a program: any octets, not all of them UTF-8.
texts = st.binary(max_size=20).map(lambda octets: octets.decode("utf-8", "surrogateescape"))
words = st.binary(max_size=12).map(lambda octets: octets.replace(b"\0", b""))
paths = words.map(lambda word: b"/" + word)
# No scan lists a name that begins with a dot.
parts = st.binary(min_size=1, max_size=12).filter(
    lambda name: not set(name) & set(b"/\0") and not name.startswith(b".")
)
file_names = st.tuples(st.sampled_from([b"new/", b"cur/"]), parts).map(b"".join)
failures = st.builds(Failures, numbers, texts)
tokens = st.binary(min_size=1, max_size=20)
times = st.integers(-(2**63), 2**63)

places = st.builds(
    Place,
    home=paths,
    mailbox=paths,
    delivery=words,
    quota=st.builds(Quota, numbers, numbers),
    dirmaker=st.just(PROGRAM),
    environment=st.dictionaries(st.sampled_from(sorted(encoding.ENVIRONMENT)), words),
    asks_dot_qmail=st.booleans(),
)


@st.composite
def begun_ones(draw: st.DrawFn) -> Begun:
    files = draw(st.lists(file_names, max_size=5))
    count = len(files)
    listing = Listing(
        files=tuple(files),
        sizes=array("q", draw(st.lists(sizes, min_size=count, max_size=count))),
        inodes=array("Q", draw(st.lists(numbers, min_size=count, max_size=count))),
        ambiguous=frozenset(draw(st.lists(words, max_size=min(3, count)))),
        has_new=draw(st.booleans()),
    )
    flags = draw(st.booleans()), draw(st.booleans())
    return Begun(draw(paths), listing, draw(failures), *flags)


@st.composite
def opened_ones(draw: st.DrawFn, whole: bool = False) -> Opened:
    first = draw(st.binary(max_size=20))
    left = 0 if whole else draw(st.just(0) | sizes)
    return Opened(len(first) + left, first, bool(left), draw(st.integers(-(2**63), 2**63)))


opened_together = st.builds(
    lambda first, others: [first, *others],
    opened_ones(),
    st.lists(opened_ones(whole=True), max_size=4),
)


def begun(**changes: bytes) -> list[bytes]:
    """The fields of a listing of two messages, some of them changed."""
    listing = Listing(
        (b"cur/1.a:2,S", b"new/2.b"), array("q", [1, 2]), array("Q", [3, 4]), frozenset(), True
    )
    fields = encoding.write_begun(Begun(b"/home/ann/Maildir", listing, Failures(), True))
    names = ["path", "files", "sizes", "inodes", "ambiguous", "has_new", "failures", "first"]
    names += ["current", "made"]
    return [changes.get(name, field) for name, field in zip(names, fields, strict=True)]


def place(**changes: bytes) -> list[bytes]:
    fields = encoding.write_place(Place(b"/home/ann", b"/home/ann/Maildir"))
    names = ["home", "mailbox", "delivery", "size", "count", "environment", "asks"]
    return [changes.get(name, field) for name, field in zip(names, fields, strict=True)]


class RoundTripTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(places)
    def test_a_place_comes_back(self, value: Place) -> None:
        self.assertEqual(encoding.read_place(encoding.write_place(value), PROGRAM), value)

    @settings(deadline=None)
    @given(places)
    def test_the_program_that_makes_homes_is_never_the_asker_s(self, value: Place) -> None:
        fields = encoding.write_place(value._replace(dirmaker=b"/tmp/evil"))
        self.assertEqual(encoding.read_place(fields, PROGRAM).dirmaker, PROGRAM)
        self.assertIsNone(encoding.read_place(fields, None).dirmaker)

    @settings(deadline=None)
    @given(begun_ones())
    def test_what_a_session_finds_comes_back(self, value: Begun) -> None:
        self.assertEqual(encoding.read_begun(encoding.write_begun(value)), value)

    @settings(deadline=None)
    @given(begun_ones(), st.none() | st.builds(Snapshot, tokens, times))
    def test_so_does_what_it_was_made_of(self, value: Begun, snapshot: Snapshot | None) -> None:
        fields = [*encoding.write_begun(value), *encoding.write_snapshot(snapshot)]
        expected = value._replace(snapshot=snapshot)
        self.assertEqual(encoding.read_begun_anew(fields), expected)
        self.assertEqual(encoding.read_begun_again(fields), expected)

    @given(st.builds(Unchanged, paths, st.booleans()))
    def test_that_nothing_changed_comes_back(self, value: Unchanged) -> None:
        self.assertEqual(encoding.read_begun_again(encoding.write_unchanged(value)), value)

    def test_a_unique_name_may_be_empty(self) -> None:
        # Of the files ":2,S" and ":2,F".
        listing = Listing((b"cur/:2,S",), array("q", [1]), array("Q", [2]), frozenset([b""]), False)
        value = Begun(b"/m", listing, Failures(), True)
        self.assertEqual(encoding.read_begun(encoding.write_begun(value)), value)

    @settings(deadline=None)
    @given(opened_together)
    def test_messages_come_back(self, messages: list[Opened]) -> None:
        files = sum(message.has_file for message in messages)
        fields = encoding.write_opened(messages)
        self.assertEqual(encoding.read_opened(fields, files), messages)
        for other in {0, files - 1, files + 1} - {files}:
            with self.assertRaises(FrameError):
                encoding.read_opened(fields, other)

    @settings(deadline=None)
    @given(st.builds(Finished, failures, failures, texts))
    def test_what_became_of_a_session_comes_back(self, value: Finished) -> None:
        self.assertEqual(encoding.read_finished(encoding.write_finished(value)), value)

    @settings(deadline=None)
    @given(st.frozensets(numbers, max_size=20))
    def test_numbers_come_back(self, value: frozenset[int]) -> None:
        self.assertEqual(encoding.read_numbers(encoding.write_numbers(value)), value)

    @settings(deadline=None)
    @given(
        st.sampled_from(
            [MailboxMissing, MailboxCorrupted, MailboxNotCreated, MessageChanged, OSError]
        ),
        st.sampled_from([errno.ENOENT, errno.EACCES, errno.EDQUOT, errno.EIO, 9999]),
        texts,
        st.binary(max_size=20),
    )
    def test_an_error_comes_back_as_what_it_was(
        self, kind: type[OSError], number: int, text: str, path: bytes
    ) -> None:
        error = kind(number, text, path) if path else kind(number, text)
        read = encoding.read_error(encoding.error_fields(error))
        self.assertIs(type(read), type(error))
        self.assertEqual((read.errno, read.filename), (error.errno, error.filename))
        self.assertEqual(read.strerror, text or str(error))

    def test_an_error_that_names_a_descriptor_names_no_path(self) -> None:
        with open(os.devnull, "rb") as file, self.assertRaises(NotADirectoryError) as caught:
            os.scandir(file.fileno())
        read = encoding.read_error(encoding.error_fields(caught.exception))
        self.assertIsInstance(read, NotADirectoryError)
        self.assertIsNone(read.filename)

    def test_an_error_of_an_unnamed_kind_is_one_of_input_and_output(self) -> None:
        read = encoding.read_error(encoding.error_fields(OSError("the disk is on fire")))
        self.assertEqual((read.errno, read.strerror), (errno.EIO, "the disk is on fire"))


# Fields that are nearly right are found by themselves too seldom.
near_fields = st.one_of(
    st.binary(max_size=16),
    st.sampled_from(
        [b"", b"0", b"1", b"-1", b"/", b"new/a", b"cur/a\0new/b", b"OSError", b"HOME\0/", b"\0" * 8]
    ),
)


class ReadTests(SynchronousTestCase):
    def assert_refused(self, read: Callable[..., object], *arguments: object) -> None:
        with self.assertRaises(FrameError):
            read(*arguments)

    @settings(deadline=None, max_examples=400)
    @given(st.lists(near_fields, max_size=10), st.integers(0, 2))
    def test_any_fields_are_read_or_a_frame_error(self, fields: list[bytes], files: int) -> None:
        readers: list[Callable[[], object]] = [
            lambda: encoding.read_place(fields, None),
            lambda: encoding.read_begun(fields),
            lambda: encoding.read_begun_anew(fields),
            lambda: encoding.read_begun_again(fields),
            lambda: encoding.read_opened(fields, files),
            lambda: encoding.read_finished(fields),
            lambda: encoding.read_error(fields),
            *[partial(encoding.read_numbers, field) for field in fields],
        ]
        for read in readers:
            try:
                read()
            except FrameError:
                continue

    @settings(deadline=None)
    @given(st.data())
    def test_one_field_changed_makes_no_other_fault(self, data: st.DataObject) -> None:
        for fields, read in (
            (begun(), encoding.read_begun),
            (place(), lambda changed: encoding.read_place(changed, None)),
        ):
            changed = list(fields)
            changed[data.draw(st.integers(0, len(fields) - 1))] = data.draw(near_fields)
            try:
                read(changed)
            except FrameError:
                continue

    @settings(deadline=None)
    @given(begun_ones(), st.data())
    def test_a_listing_that_lost_fields_is_refused(self, value: Begun, data: st.DataObject) -> None:
        fields = encoding.write_begun(value)
        at = data.draw(st.integers(0, len(fields) - 1))
        self.assert_refused(encoding.read_begun, fields[:at])
        self.assert_refused(encoding.read_begun, [*fields[:at], *fields[at + 1 :]])

    def test_a_listing_names_files_of_new_and_cur_only(self) -> None:
        for name in (
            b"../x", b"tmp/x", b"new", b"new/", b"new/a/b", b"/new/a", b"new/../cur/a", b"NEW/a",
            b"newer/a", b"new/a\0", b"\0new/a", b"new/a\0\0cur/b", b"new/a\0tmp/b", b"new//a", b"x",
        ):  # fmt: skip
            count = name.count(b"\0") + 1
            fields = begun(files=name, sizes=b"\0" * 8 * count, inodes=b"\0" * 8 * count)
            self.assert_refused(encoding.read_begun, fields)

    @settings(deadline=None, max_examples=300)
    @given(
        st.lists(st.sampled_from([b"new/", b"cur/", b"new", b"/", b".", b"\0", b"a", b"\0new/a"]))
    )
    def test_one_look_at_all_names_sees_what_one_at_each_would(self, pieces: list[bytes]) -> None:
        files = b"".join(pieces)
        names = files.split(b"\0") if files else []
        octets = b"\0" * 8 * len(names)
        fields = begun(files=files, sizes=octets, inodes=octets)
        if all(re.fullmatch(rb"(new|cur)/[^/.][^/]*", name) for name in names):
            self.assertEqual(encoding.read_begun(fields).listing.files, tuple(names))
        else:
            self.assert_refused(encoding.read_begun, fields)

    def test_nor_the_folders_themselves_nor_what_no_scan_lists(self) -> None:
        for name in (b"new/..", b"cur/.", b"new/.hidden"):
            fields = begun(files=name, sizes=b"\0" * 8, inodes=b"\0" * 8)
            self.assert_refused(encoding.read_begun, fields)

    def test_a_listing_has_as_many_sizes_and_inodes_as_names(self) -> None:
        for octets in (b"", b"\0" * 8, b"\0" * 15, b"\0" * 17, b"\0" * 24):
            self.assert_refused(encoding.read_begun, begun(sizes=octets))
            self.assert_refused(encoding.read_begun, begun(inodes=octets))
        self.assert_refused(encoding.read_begun, begun(files=b""))

    def test_no_message_has_a_negative_size(self) -> None:
        for value in (-1, -(2**63)):
            octets = array("q", [value, 1]).tobytes()
            self.assert_refused(encoding.read_begun, begun(sizes=octets))

    def test_a_token_is_short(self) -> None:
        fields = [*begun(), b"x" * 401, b"5"]
        self.assert_refused(encoding.read_begun_anew, fields)
        self.assert_refused(encoding.read_begun_again, fields)

    def test_a_mailbox_that_did_not_change_has_a_path(self) -> None:
        for fields in ([b"joe", b"1"], [b"/joe\0", b"1"], [b"/joe", b"x"], [b"/joe"], []):
            self.assert_refused(encoding.read_begun_again, fields)

    def test_no_more_names_are_there_twice_than_there_are_names(self) -> None:
        encoding.read_begun(begun(ambiguous=b"a\0b\0"))
        self.assert_refused(encoding.read_begun, begun(ambiguous=b"a\0b\0c\0"))

    def test_a_list_of_names_that_was_cut_is_refused(self) -> None:
        self.assert_refused(encoding.read_begun, begun(ambiguous=b"a\0b"))

    def test_paths_are_absolute_and_hold_no_nul(self) -> None:
        for path in (b"", b"home/ann", b"./Maildir", b"/home\0/ann"):
            self.assert_refused(encoding.read_place, place(home=path), None)
            self.assert_refused(encoding.read_place, place(mailbox=path), None)
            self.assert_refused(encoding.read_begun, begun(path=path))
        self.assert_refused(encoding.read_place, place(delivery=b"a\0b"), None)

    def test_a_program_is_given_no_other_variables_than_an_account_has(self) -> None:
        for environment in (
            b"LD_PRELOAD\0/tmp/evil.so",
            b"HOME\0/home/ann\0PATH\0/tmp",
            b"HOME\0/home/ann\0LD_AUDIT\0x",
            b"HOME",
            b"\0",
            b"HOME=x\0y",
            b"home\0/",
        ):
            self.assert_refused(encoding.read_place, place(environment=environment), None)

    def test_numbers_are_whole_and_of_64_bits(self) -> None:
        for field in (b"", b"-1", b"+1", b" 1", b"1.0", b"1_0", b"\xb2", b"9" * 21, b"0x1", b"1\n"):
            self.assert_refused(encoding.number, field)
        self.assertEqual(encoding.number(b"18446744073709551615"), 2**64 - 1)
        self.assert_refused(encoding.number, b"18446744073709551616")

    def test_no_message_looks_whole_that_is_not(self) -> None:
        for message, files in (
            (Opened(3, b"ab", False, 0), 0),
            (Opened(3, b"", False, 0), 0),
            (Opened(3, b"abc", True, 0), 1),
            (Opened(2, b"abc", False, 0), 0),
            (Opened(2, b"abc", True, 0), 1),
            (Opened(3, b"ab", True, 0), 0),
            (Opened(3, b"ab", True, 0), 2),
            (Opened(3, b"abc", False, 0), 1),
        ):
            fields = encoding.write_opened([message])
            self.assert_refused(encoding.read_opened, fields, files)

    def test_only_the_first_may_have_a_file(self) -> None:
        whole, half = Opened(1, b"a", False, 0), Opened(9, b"b", True, 0)
        self.assert_refused(encoding.read_opened, encoding.write_opened([whole, half]), 1)
        encoding.read_opened(encoding.write_opened([half, whole]), 1)

    def test_an_answer_has_at_least_the_message_that_was_asked_for(self) -> None:
        self.assert_refused(encoding.read_opened, [], 0)
        fields = encoding.write_opened([Opened(1, b"a", False, 0), Opened(1, b"b", False, 0)])
        for count in (1, 2, 3, 4, 5, 7, 11):
            self.assert_refused(encoding.read_opened, fields[:count], 0)

    def test_an_error_is_of_a_known_kind(self) -> None:
        for kind in (b"", b"Exception", b"SystemExit", b"FileNotFoundError", b"oserror", b"\xff"):
            fields = [kind, b"2", b"", b""]
            self.assert_refused(encoding.read_error, fields)
