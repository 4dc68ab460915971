"""A keeper at work, here with the rights of the tests: requests in, answers and files out."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import tempfile
import threading
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.maildir.reading import CHUNK
from qmailldap.maildir.storage import MailboxMissing
from qmailldap.maildir.work import Begun, Finished, Unchanged, Work
from qmailldap.privsep import encoding, keeper, wire
from qmailldap.privsep.encoding import Opened
from qmailldap.privsep.keeper import MOST_THREADS
from tests.maildir.support import (
    deliver,
    files_of,
    let_rest,
    make_maildir,
    open_descriptors,
)
from tests.privsep.support import Served, place_of, until

LARGE = bytes(range(256)) * (CHUNK // 256) + b"the rest"


class KeeperTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.complaints: list[str] = []
        self.patch(keeper, "_complain", self.complaints.append)
        self.maildir = make_maildir(Path(self.mktemp()).absolute() / "Maildir")
        self.place = encoding.write_place(place_of(self.maildir))
        # What earlier tests have left for the collector is not counted.
        gc.collect()
        self.descriptors = open_descriptors()
        self.served = self.serve()

    def tearDown(self) -> None:
        self.served.close()
        self.assertEqual(open_descriptors(), self.descriptors)

    def serve(self, dirmaker: bytes | None = None) -> Served:
        served = Served(dirmaker)
        self.addCleanup(served.close)
        return served

    def begin(self, session: bytes = b"7") -> Begun:
        ok, files, *fields = self.served.asked(b"begin", session, *self.place)
        self.assertEqual((ok, files), (b"ok", b"0"))
        return encoding.read_begun(fields)

    def fetch(self, number: int, *state: bytes) -> list[Opened]:
        """The messages; their files are in `Served.files`."""
        before = len(self.served.files)
        ok, files, *fields = self.served.asked(b"fetch", b"7", b"%d" % number, *state)
        self.assertEqual(ok, b"ok")
        self.assertEqual(len(self.served.files) - before, int(files))
        return encoding.read_opened(fields, int(files))

    def finish(self, deleted: set[int], *state: bytes) -> Finished:
        numbers = encoding.write_numbers(frozenset(deleted))
        ok, files, *fields = self.served.asked(b"finish", b"7", numbers, *state)
        self.assertEqual((ok, files), (b"ok", b"0"))
        return encoding.read_finished(fields)

    def assert_error(self, answer: list[bytes], kind: type[OSError]) -> OSError:
        self.assertEqual(answer[0], b"error")
        error = encoding.read_error(answer[1:])
        self.assertIsInstance(error, kind)
        return error


class SessionTests(KeeperTestCase):
    def test_a_session_from_its_beginning_to_its_end(self) -> None:
        for number in range(3):
            deliver(self.maildir, f"new/{number + 1}.a", b"%d" % number)
        begun = self.begin()
        self.assertEqual(begun.listing.files, (b"new/1.a", b"new/2.a", b"new/3.a"))
        self.assertEqual([message.first for message in self.fetch(1)], [b"1", b"2"])
        self.assertEqual(self.finish({0}).not_removed.files, 0)
        self.assertEqual(files_of(self.maildir), {"cur/2.a:2,": b"1", "cur/3.a:2,": b"2"})

    def test_a_large_message_is_a_file_to_be_read_on(self) -> None:
        deliver(self.maildir, "new/1.a", LARGE)
        self.begin()
        (message,) = self.fetch(0)
        self.assertEqual((message.size, message.first), (len(LARGE), LARGE[:CHUNK]))
        (descriptor,) = self.served.files
        self.assertEqual(os.read(descriptor, CHUNK), b"the rest")
        self.assertEqual(os.fstat(descriptor).st_mtime_ns, message.written_at)

    def test_of_which_the_keeper_keeps_nothing(self) -> None:
        deliver(self.maildir, "new/1.a", LARGE)
        self.begin()
        before = open_descriptors()
        for _ in range(20):
            self.fetch(0)
        # It closes what it has sent a moment after.
        until(lambda: open_descriptors() == before + 20)

    def test_what_is_wrong_with_a_mailbox_is_an_error_with_its_path(self) -> None:
        home = self.maildir.parent / "nowhere"
        place = encoding.write_place(place_of(home / "Maildir"))
        error = self.assert_error(self.served.asked(b"begin", b"7", *place), MailboxMissing)
        self.assertEqual(error.filename, os.fsencode(home))
        (self.maildir / "new").rmdir()
        (self.maildir / "new").symlink_to("/tmp")
        answer = self.served.asked(b"begin", b"7", *self.place)
        self.assert_error(answer, NotADirectoryError)
        self.assertEqual(self.complaints, [])

    def test_a_message_that_is_gone_is_an_error(self) -> None:
        file = deliver(self.maildir, "new/1.a")
        self.begin()
        file.unlink()
        self.assert_error(self.served.asked(b"fetch", b"7", b"0"), FileNotFoundError)

    def test_no_more_files_than_may_be_open_is_an_error_and_leaves_none(self) -> None:
        deliver(self.maildir, "new/1.a", LARGE)
        self.begin()
        before = open_descriptors()

        def refuse(descriptor: int) -> int:
            raise OSError(errno.EMFILE, "Too many open files")

        self.patch(keeper.os, "dup", refuse)  # type: ignore[attr-defined]
        answer = self.served.asked(b"fetch", b"7", b"0")
        self.assertEqual(self.assert_error(answer, OSError).errno, errno.EMFILE)
        self.assertEqual(open_descriptors(), before)

    def test_an_error_that_names_a_descriptor_is_told(self) -> None:
        self.begin()

        def scandir(descriptor: int) -> None:
            raise OSError(errno.ESTALE, "Stale file handle", descriptor)

        self.patch(os, "scandir", scandir)
        error = self.assert_error(self.served.asked(b"begin", b"8", *self.place), OSError)
        self.assertEqual((error.errno, error.filename), (errno.ESTALE, None))

    def test_a_lack_of_memory_fails_one_request(self) -> None:
        deliver(self.maildir, "new/1.a")
        self.begin()

        def refuse(*arguments: object) -> None:
            raise MemoryError

        patched = self.patch(encoding, "write_opened", refuse)
        self.assertEqual(self.served.asked(b"fetch", b"7", b"0"), [b"no-memory"])
        patched.restore()
        self.assertEqual(len(self.fetch(0)), 1)


class KnownListingTests(KeeperTestCase):
    def setUp(self) -> None:
        super().setUp()
        for number in range(3):
            deliver(self.maildir, f"cur/{number + 1}.a:2,", b"%d" % number)
        let_rest(self.maildir)

    def begin_knowing(self, token: bytes) -> Begun | Unchanged:
        ok, files, *fields = self.served.asked(b"begin", b"7", *self.place, token)
        self.assertEqual((ok, files), (b"ok", b"0"))
        return encoding.read_begun_again(fields)

    def known(self) -> Begun:
        begun = self.begin_knowing(b"")
        assert isinstance(begun, Begun)
        return begun

    def test_what_a_listing_was_made_of_is_told_to_those_who_want_to_know(self) -> None:
        self.assertIsNone(self.begin().snapshot)
        begun = self.known()
        self.assertEqual(begun._replace(snapshot=None), self.begin())
        assert begun.snapshot is not None
        unchanged = Unchanged(begun.path, begun.quota_is_current)
        self.assertEqual(self.begin_knowing(begun.snapshot.token), unchanged)

    def test_it_is_told_anew_where_something_changed(self) -> None:
        snapshot = self.known().snapshot
        assert snapshot is not None
        deliver(self.maildir, "new/4.a")
        begun = self.begin_knowing(snapshot.token)
        assert isinstance(begun, Begun) and begun.snapshot is not None
        self.assertEqual(len(begun.listing.files), 4)
        self.assertNotEqual(begun.snapshot.token, snapshot.token)

    def test_of_a_session_with_nothing_new_the_keeper_knows_nothing(self) -> None:
        begun = self.known()
        assert begun.snapshot is not None
        self.served.close()
        self.served = self.serve()
        self.begin_knowing(begun.snapshot.token)
        self.assertEqual(self.served.asked(b"fetch", b"7", b"0"), [b"fault"])
        self.complaints.clear()
        state = [*self.place, *encoding.write_begun(begun)]
        self.assertEqual(self.fetch(1, *state)[0].first, b"1")
        self.finish({0})
        self.assertEqual(sorted(files_of(self.maildir).values()), [b"1", b"2"])


class ResumeTests(KeeperTestCase):
    def setUp(self) -> None:
        super().setUp()
        for number in range(4):
            deliver(self.maildir, f"new/{number + 1}.a", b"%d" % number)
        self.state = [*self.place, *encoding.write_begun(self.begin())]
        self.served.close()
        self.served = self.serve()

    def test_another_keeper_goes_on_where_the_first_was(self) -> None:
        self.assertEqual(self.fetch(2, *self.state)[0].first, b"2")
        self.assertEqual(self.fetch(3)[0].first, b"3")
        self.finish({1})
        self.assertEqual(sorted(files_of(self.maildir).values()), [b"0", b"2", b"3"])

    def test_the_end_of_a_session_may_be_the_first_it_hears_of_it(self) -> None:
        self.finish({0, 1, 2}, *self.state)
        self.assertEqual(files_of(self.maildir), {"cur/4.a:2,": b"3"})

    def test_messages_are_what_they_were_whatever_became_of_them_meanwhile(self) -> None:
        (self.maildir / "new/1.a").unlink()
        (self.maildir / "new/2.a").rename(self.maildir / "cur/2.a:2,RS")
        deliver(self.maildir, "new/0.b", b"earlier")
        answer = self.served.asked(b"fetch", b"7", b"0", *self.state)
        self.assert_error(answer, FileNotFoundError)
        self.assertEqual(self.fetch(1)[0].first, b"1")
        self.assertEqual(self.finish({0, 1}).not_removed.files, 0)
        self.assertEqual(
            files_of(self.maildir),
            {"new/0.b": b"earlier", "cur/3.a:2,": b"2", "cur/4.a:2,": b"3"},
        )

    def test_a_message_that_bears_the_name_of_another_is_not_taken_for_it(self) -> None:
        (self.maildir / "new/1.a").unlink()
        deliver(self.maildir, "cur/1.a:2,S", b"another")
        # Of the same inode, it would be the same.
        status = os.stat(self.maildir / "cur/1.a:2,S")
        if status.st_ino in encoding.read_begun(self.state[keeper.PLACE_FIELDS :]).listing.inodes:
            return
        self.finish({0}, *self.state)
        self.assertIn(b"another", files_of(self.maildir).values())

    def test_without_what_the_session_found_it_is_unknown(self) -> None:
        self.assertEqual(self.served.asked(b"fetch", b"7", b"0"), [b"fault"])
        self.assertEqual(self.served.asked(b"finish", b"7", b""), [b"fault"])

    def test_what_is_forgotten_is_unknown(self) -> None:
        self.fetch(0, *self.state)
        self.served.ask(b"forget", b"7")
        self.served.ask(b"forget", b"never known")
        self.assertEqual(self.served.asked(b"fetch", b"7", b"0"), [b"fault"])


class ManySessionsTests(KeeperTestCase):
    def setUp(self) -> None:
        super().setUp()
        dirmaker = self.maildir.parent / "dirmaker"
        dirmaker.write_text('#!/bin/sh\nread line < "$1.gate"\nmkdir "$1"\n')
        dirmaker.chmod(0o755)
        self.served.close()
        self.served = self.serve(os.fsencode(dirmaker))
        self.homes = 0

    def ask_slowly(self) -> tuple[bytes, Path]:
        """A request that waits for `let_go`: its number, and the gate at which it does."""
        self.homes += 1
        home = self.maildir.parent / f"home{self.homes}"
        gate = home.with_suffix(".gate")
        os.mkfifo(gate)
        place = encoding.write_place(place_of(home / "Maildir"))
        return self.served.ask(b"begin", b"slow %d" % self.homes, *place), gate

    def let_go(self, gate: Path) -> None:
        """Let one go on, which may not have come to the gate yet."""
        os.close(self.opened(gate))

    def opened(self, gate: Path) -> int:
        descriptors: list[int] = []

        def opened() -> bool:
            with contextlib.suppress(OSError):
                descriptors.append(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
            return bool(descriptors)

        until(opened)
        return descriptors[0]

    def assert_done(self, number: bytes) -> None:
        answer = self.served.answer()
        assert answer is not None
        self.assertEqual(answer[:2], [number, b"ok"])

    def test_one_that_takes_long_does_not_keep_the_others_waiting(self) -> None:
        slow, gate = self.ask_slowly()
        deliver(self.maildir, "new/1.a", b"x")
        self.begin()
        self.assertEqual(self.fetch(0)[0].first, b"x")
        self.let_go(gate)
        self.assert_done(slow)

    def test_its_own_end_waits_for_what_is_under_way(self) -> None:
        begun, gate = threading.Event(), threading.Event()
        real = Work.finish

        def slow(work: Work, deleted: frozenset[int]) -> Finished:
            begun.set()
            gate.wait(10)
            return real(work, deleted)

        self.patch(Work, "finish", slow)
        self.begin()
        number = self.served.ask(b"finish", b"7", encoding.write_numbers(frozenset()))
        self.assertTrue(begun.wait(10))
        self.served.ours.shutdown(1)
        self.assertTrue(self.served.thread.is_alive())
        gate.set()
        self.assert_done(number)
        self.assertIsNone(self.served.answer())
        self.served.thread.join(10)
        self.assertFalse(self.served.thread.is_alive())

    def test_its_end_ends_a_dirmaker_which_nothing_would_limit_then(self) -> None:
        slow, gate = self.ask_slowly()
        self.begin()
        # It has come so far that it reads from its gate.
        writer = self.opened(gate)
        self.addCleanup(os.close, writer)
        self.served.ours.shutdown(1)
        answer = self.served.answer()
        assert answer is not None
        self.assertEqual(answer[:3], [slow, b"error", b"MailboxNotCreated"])
        self.served.thread.join(10)
        self.assertFalse(self.served.thread.is_alive())

    def test_the_end_comes_also_when_nobody_awaits_what_is_under_way(self) -> None:
        self.ask_slowly()
        self.begin()
        self.served.ours.close()
        self.served.thread.join(10)
        self.assertFalse(self.served.thread.is_alive())

    def test_more_than_it_has_threads_for_wait(self) -> None:
        slow = [self.ask_slowly() for _ in range(MOST_THREADS)]
        waiting = self.served.ask(b"begin", b"7", *self.place)
        number, gate = slow.pop()
        self.let_go(gate)
        self.assert_done(number)
        self.assert_done(waiting)
        for number, gate in slow:
            self.let_go(gate)
            self.assert_done(number)
        self.assertEqual(self.complaints, [])
        self.served.end()

    def test_an_owner_who_may_have_no_more_threads_is_served_all_the_same(self) -> None:
        def refuse(*arguments: object) -> None:
            raise RuntimeError("can't start new thread")

        self.patch(keeper._thread, "start_new_thread", refuse)  # type: ignore[attr-defined]
        slow, gate = self.ask_slowly()
        for session in (b"1", b"2", b"3"):
            self.served.ask(b"begin", session, *self.place)
        self.let_go(gate)
        answers = [self.served.answer() for _ in range(4)]
        self.assertEqual([answer and answer[1] for answer in answers], [b"ok"] * 4)
        assert answers[0] is not None
        self.assertEqual(answers[0][0], slow)
        self.served.end()


class HostileTests(KeeperTestCase):
    """A network process that somebody else has taken over: it has these rights, and no others."""

    def test_an_unknown_operation_is_a_fault_and_in_the_log(self) -> None:
        self.begin()
        self.assertEqual(self.served.asked(b"unlink", b"7", b"/etc/passwd"), [b"fault"])
        self.assertIn("no operation is called b'unlink'", self.complaints[0])

    def test_a_request_of_too_few_fields_is_a_fault(self) -> None:
        for request in ([], [b"fetch"], [b"fetch", b"7"], [b"begin"], [b"begin", b"7", b"/x"]):
            self.assertEqual(self.served.asked(*request), [b"fault"])
        wire.send(self.served.ours, [])
        self.assertEqual(self.served.answer(), [b"", b"fault"])
        self.begin()

    def test_no_message_is_one_that_was_not_listed(self) -> None:
        deliver(self.maildir, "new/1.a")
        self.begin()
        for number in (b"1", b"-1", b"18446744073709551615", b"99999999999999999999", b"x"):
            self.assertEqual(self.served.asked(b"fetch", b"7", number), [b"fault"])
        for numbers in (b"\0" * 7 + b"\x09", b"\xff" * 8, b"\0"):
            self.assertEqual(self.served.asked(b"finish", b"7", numbers), [b"fault"])
        self.assertEqual(list(files_of(self.maildir)), ["new/1.a"])

    def test_what_is_no_frame_ends_it_in_order(self) -> None:
        self.begin(b"1")
        self.begin(b"2")
        self.served.ours.sendall(b"\0\0\0\x05\0\0\0\x09a" + wire.frame([b"9", b"begin", b"7"]) * 20)
        self.assertIsNone(self.served.answer())
        self.served.thread.join(10)
        self.assertFalse(self.served.thread.is_alive())
        self.assertEqual(len(self.complaints), 1, self.complaints)

    def test_files_that_are_sent_to_it_are_not_kept(self) -> None:
        self.begin()
        before = open_descriptors()
        with open(os.devnull, "rb") as file:
            wire.send(self.served.ours, [b"9", b"fetch", b"7", b"0"], [file.fileno()] * 50)
        self.assertEqual(self.served.answer(), [b"9", b"fault"])
        until(lambda: open_descriptors() == before)

    @settings(deadline=None, max_examples=150)
    @given(st.data())
    def test_any_requests_are_answered_and_none_of_them_ends_it(self, data: st.DataObject) -> None:
        with tempfile.TemporaryDirectory() as folder:
            maildir = make_maildir(Path(folder) / "home" / "Maildir")
            deliver(maildir, "new/1.a", LARGE)
            deliver(maildir, "cur/2.b:2,S", b"x")
            place = encoding.write_place(place_of(maildir))
            before = open_descriptors()
            served = Served()
            begun = served.asked(b"begin", b"7", *place)[2:]
            # No path but those that are here: it does have the rights of the tests.
            octets = st.binary(max_size=10).map(lambda field: field.lstrip(b"/"))
            field = octets | st.sampled_from([b"0", b"1", b"7", b"\0" * 8, *place, *begun])
            about = st.sampled_from([b"0", b"1", b"2", b"", b"\0" * 8]) | octets
            state = st.sampled_from([[], place, [*place, *begun], [*place, *begun[:-1]]])
            request = st.tuples(
                st.sampled_from([b"begin", b"fetch", b"finish", b"forget", b""]),
                st.sampled_from([b"7", b"8"]) | octets,
            )
            question = st.one_of(
                st.builds(lambda head, tail: [*head, *tail], request, st.lists(field, max_size=9)),
                st.builds(lambda head, one, more: [*head, one, *more], request, about, state),
                st.lists(field, max_size=4),
            )
            try:
                awaited = []
                for fields in data.draw(st.lists(question, max_size=8)):
                    number = served.ask(*fields)
                    if fields[:1] != [b"forget"]:
                        awaited.append(number)
                answers = [served.answer() for _ in awaited]
                self.assertEqual(sorted(awaited), sorted(a[0] for a in answers if a))
                outcomes = {answer[1] for answer in answers if answer}
                self.assertLessEqual(outcomes, {b"ok", b"error", b"fault"})
                self.assertEqual(served.asked(b"begin", b"9", *place)[0], b"ok")
                served.end()
            finally:
                served.close()
            self.assertEqual(open_descriptors(), before)
