"""Tests for `qmailldap.maildir.dirmaker`, with shell scripts for dirmakers."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import threading
import time
from typing import Any, NoReturn

from qmailldap.maildir import programs
from qmailldap.maildir.creation import MailboxNotCreated
from qmailldap.maildir.dirmaker import DIRMAKER_LIMIT, Dirmaker
from qmailldap.maildir.storage import MailboxMissing
from tests.maildir.test_creation import ENVIRONMENT, CreationTestCase, status_of


def is_running(process: int) -> bool:
    status = status_of(process)
    return status is not None and status[0] not in "ZX"


class DirmakerTests(CreationTestCase):
    """The home is missing."""

    def script(
        self, body: str, limit: float = DIRMAKER_LIMIT, first: str = "#!/bin/sh"
    ) -> Dirmaker:
        """A dirmaker that runs ``body`` in a shell; $seen is a file to write to."""
        program = self.folder / "dirmaker"
        program.write_text(f"{first}\nseen={self.folder}/seen\n{body}\n")
        program.chmod(0o755)
        return Dirmaker(os.fsencode(program), b"./Maildir/", ENVIRONMENT, limit)

    def seen(self) -> str:
        return (self.folder / "seen").read_text()

    def ignore(self, *signals: signal.Signals) -> None:
        for number in signals:
            self.handle(number, signal.SIG_IGN)

    def handle(self, number: signal.Signals, handler: Any) -> None:
        self.addCleanup(signal.signal, number, signal.signal(number, handler))

    def assert_says(self, error: MailboxNotCreated, number: int, text: str) -> None:
        self.assertEqual(number, error.errno)
        program = self.folder / "dirmaker"
        self.assertEqual(f"dirmaker {program} {text}", error.strerror)
        self.assertEqual(os.fsencode(self.home), error.filename)

    def test_without_a_dirmaker_the_mailbox_is_missing(self) -> None:
        with self.assertRaises(MailboxMissing) as caught:
            self.provide()
        self.assertIn("there is no control file dirmaker", str(caught.exception))
        self.assertEqual(os.fsencode(self.home), caught.exception.filename)
        self.assertFalse(self.home.exists())

    def test_the_dirmaker_makes_the_home_and_we_the_rest(self) -> None:
        self.provide(self.script('mkdir -m 750 "$1"'))
        self.assert_whole()
        self.assertEqual(0o750, stat.S_IMODE(self.home.stat().st_mode))

    def test_a_dirmaker_may_make_the_maildir_as_well(self) -> None:
        self.provide(self.script('mkdir -p "$1/$2/cur" "$1/$2/tmp"'))
        self.assert_whole()

    def test_it_is_given_the_home_and_the_mailbox_as_the_record_words_it(self) -> None:
        self.provide(self.script('mkdir "$1"; echo $# "$1" "$2" > $seen'))
        self.assertEqual(f"2 {self.home} ./Maildir/\n", self.seen())

    def test_it_has_exactly_the_environment_it_was_given(self) -> None:
        dirmaker = self.script('mkdir "$1"; cat /proc/$$/environ > $seen')
        self.provide(dirmaker._replace(environment={**ENVIRONMENT, b"USER": b"ann"}))
        self.assertEqual("PATH=/usr/bin:/bin\0USER=ann\0", self.seen())

    def test_its_standard_input_is_empty(self) -> None:
        self.provide(self.script('mkdir "$1"; readlink /proc/$$/fd/0 > $seen'))
        self.assertEqual("/dev/null\n", self.seen())

    def test_it_leads_a_session_of_its_own(self) -> None:
        self.provide(self.script('mkdir "$1"; (echo $$; cat /proc/$$/stat) > $seen'))
        process, status = self.seen().splitlines()
        self.assertEqual([process, process], status.rpartition(") ")[2].split()[2:4])

    def test_no_signal_is_ignored_or_blocked_in_it(self) -> None:
        ignored = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
        self.ignore(*ignored, signal.SIGUSR1)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [*ignored, signal.SIGCHLD])
        self.addCleanup(signal.pthread_sigmask, signal.SIG_SETMASK, before)
        self.provide(self.script('mkdir "$1"; grep -E "Sig(Ign|Blk)" /proc/self/status > $seen'))
        for line in self.seen().splitlines():
            bits = int(line.split()[1], 16)
            # The C library keeps 32 and 33 to itself.
            left = {number for number in signal.valid_signals() if bits >> (number - 1) & 1}
            self.assertEqual(set(), left, line)

    def test_no_descriptor_of_ours_gets_into_it(self) -> None:
        with open(os.devnull, "rb") as file:
            inheritable = fcntl.fcntl(file.fileno(), fcntl.F_DUPFD, 77)
        self.addCleanup(os.close, inheritable)
        self.provide(self.script(f'test -e /proc/$$/fd/{inheritable} || mkdir "$1"'))
        self.assert_whole()

    def test_a_program_without_a_slash_is_sought_along_the_path(self) -> None:
        path = os.environb[b"PATH"]
        self.addCleanup(os.environb.__setitem__, b"PATH", path)
        os.environb[b"PATH"] = path + b":" + os.fsencode(self.folder)
        self.provide(self.script('mkdir "$1"')._replace(program=b"dirmaker"))
        self.assert_whole()

    def test_a_script_that_names_no_interpreter_is_for_the_shell(self) -> None:
        self.provide(self.script('mkdir "$1"; echo $# "$2" > $seen', first=""))
        self.assertEqual("2 ./Maildir/\n", self.seen())

    def test_a_dirmaker_that_makes_nothing_has_failed(self) -> None:
        error = self.refused(self.script("echo hello"))
        text = "ended as if all were well, but left no directory there: hello"
        self.assert_says(error, errno.ENOENT, text)

    def test_a_dirmaker_that_makes_a_file_has_failed(self) -> None:
        error = self.refused(self.script('echo > "$1"'))
        text = "ended as if all were well, but left no directory there"
        self.assert_says(error, errno.ENOENT, text)

    def test_exit_100_is_a_failure_for_good(self) -> None:
        error = self.refused(self.script("echo no such domain >&2; exit 100"))
        self.assert_says(error, errno.EIO, "failed for good (exit 100): no such domain")

    def test_any_other_exit_code_is_a_failure(self) -> None:
        self.assert_says(self.refused(self.script("exit 1")), errno.EIO, "failed (exit 1)")

    def test_what_it_wrote_is_told_as_it_is(self) -> None:
        error = self.refused(self.script(r"printf 'a\nb\033[2J\377\n'; exit 111"))
        self.assert_says(error, errno.EIO, "failed (exit 111): a\nb\x1b[2J\\xff")

    def test_a_dirmaker_may_be_killed_by_a_signal(self) -> None:
        error = self.refused(self.script("kill -KILL $$"))
        self.assert_says(error, errno.EIO, "was killed by signal 9")

    def test_a_dirmaker_that_hangs_is_killed_with_all_that_it_started(self) -> None:
        error = self.refused(self.script("sleep 1000 & echo $! > $seen; echo Hm; wait", limit=0.5))
        self.assert_says(error, errno.ETIMEDOUT, "took more than 0.5 seconds and was killed: Hm")
        end = time.monotonic() + 10
        while is_running(int(self.seen())) and time.monotonic() < end:
            time.sleep(0.01)
        self.assertFalse(is_running(int(self.seen())))

    def test_a_dirmaker_that_cannot_be_killed_is_not_waited_for(self) -> None:
        def denied(group: int, number: int) -> NoReturn:
            self.addCleanup(os.waitpid, group, 0)
            self.addCleanup(os.kill, group, signal.SIGKILL)
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        self.patch(os, "killpg", denied)
        self.patch(programs, "_GRACE", 0.1)
        error = self.refused(self.script("exec sleep 1000", limit=0.1))
        self.assertEqual(errno.ETIMEDOUT, error.errno)

    def test_an_exception_in_a_signal_handler_leaves_nothing_running(self) -> None:
        def stop(*_: object) -> NoReturn:
            raise InterruptedError("stop")

        self.handle(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        self.assertRaises(InterruptedError, self.provide, self.script("exec sleep 1000"))

    def test_a_dirmaker_that_is_missing_is_named_with_the_reason(self) -> None:
        dirmaker = Dirmaker(os.fsencode(self.folder / "dirmaker"), b"./Maildir/", ENVIRONMENT)
        text = f"could not be started: {os.strerror(errno.ENOENT)}"
        self.assert_says(self.refused(dirmaker), errno.ENOENT, text)

    def test_a_dirmaker_that_is_not_executable_is_named_with_the_reason(self) -> None:
        dirmaker = self.script('mkdir "$1"')
        os.chmod(dirmaker.program, 0o644)
        text = f"could not be started: {os.strerror(errno.EACCES)}"
        self.assert_says(self.refused(dirmaker), errno.EACCES, text)

    def test_endless_output_is_read_and_forgotten(self) -> None:
        error = self.refused(self.script("head -c 10000000 /dev/zero | tr '\\0' x; exit 3"))
        self.assert_says(error, errno.EIO, f"failed (exit 3): {'x' * 500}")

    def test_a_daemon_that_it_leaves_is_neither_waited_for_nor_killed(self) -> None:
        began = time.monotonic()
        self.provide(self.script('sleep 1000 & echo $! > $seen; mkdir "$1"'))
        self.assertLess(time.monotonic() - began, 100)
        self.assert_whole()
        self.assertTrue(is_running(int(self.seen())))
        os.kill(int(self.seen()), signal.SIGKILL)

    def test_closed_output_is_not_the_end(self) -> None:
        self.provide(self.script('exec >&- 2>&-; sleep 0.2; mkdir "$1"'))
        self.assert_whole()

    def test_a_home_that_somebody_else_made_meanwhile_is_fine(self) -> None:
        self.provide(self.script('mkdir "$1"; mkdir "$1"'))
        self.assert_whole()

    def test_somebody_else_may_ignore_or_handle_the_end_of_children(self) -> None:
        for handler in (signal.SIG_IGN, lambda *_: None):
            self.handle(signal.SIGCHLD, handler)
            self.provide(self.script('mkdir "$1"'))
            self.home.rename(self.folder / f"done-{handler}")

    def test_a_lost_exit_code_is_no_success(self) -> None:
        self.ignore(signal.SIGCHLD)
        self.assertEqual(errno.ENOENT, self.refused(self.script("exit 1")).errno)

    def test_many_logins_at_once_all_find_the_mailbox(self) -> None:
        dirmaker = self.script('sleep 0.1; mkdir "$1"')
        together = threading.Barrier(8)
        outcomes: list[Exception | None] = []

        def login() -> None:
            together.wait()
            try:
                self.provide(dirmaker)
            except Exception as error:
                outcomes.append(error)
            else:
                outcomes.append(None)

        threads = [threading.Thread(target=login) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([None] * 8, outcomes)
        self.assert_whole()


class DirmakerWithoutPidfdTests(DirmakerTests):
    """The same, with a kernel before 5.3 or a Python that does not know of it."""

    def setUp(self) -> None:
        super().setUp()

        def pidfd_open(process: int) -> NoReturn:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        self.patch(os, "pidfd_open", pidfd_open)

    def test_python_need_not_know_of_it(self) -> None:
        del os.pidfd_open
        self.provide(self.script('mkdir "$1"'))
        self.assert_whole()
