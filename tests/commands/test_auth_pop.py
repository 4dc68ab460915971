"""What auth_pop is asked, and what it does without a directory: `qmailldap.commands.auth_pop`."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.commands import auth_pop
from qmailldap.commands.auth_pop.request import (
    MOST_OCTETS,
    USAGE,
    Arguments,
    BadRequest,
    Login,
    Usage,
)
from qmailldap.refusal import Refusal

WITHOUT_NUL = st.binary(max_size=100).map(lambda octets: octets.replace(b"\0", b"x"))


class ArgumentsTests(SynchronousTestCase):
    def test_options_end_at_the_subprogram(self) -> None:
        arguments = Arguments.parse(["-d", "pbsadd", "--control", "/c", "env", "-d", "--help"])
        expected = Arguments(("env", "-d", "--help"), control="/c", pbstool="pbsadd")
        self.assertEqual(arguments, expected)

    def test_two_dashes_end_them_as_well(self) -> None:
        self.assertEqual(Arguments.parse(["--", "-x"]).subprogram, ("-x",))

    def test_without_a_subprogram_it_says_how_it_is_used(self) -> None:
        for arguments in ([], ["-d", "pbsadd"], ["--control", "/c"], ["-d"], ["-x", "env"]):
            self.assertRaises(Usage, Arguments.parse, arguments)

    def test_the_last_argument_is_the_mailbox_but_the_subprogram_is_none(self) -> None:
        self.assertEqual(Arguments.parse(["qmail-pop3d", "./Maildir/"]).delivery, "./Maildir/")
        self.assertIsNone(Arguments.parse(["checkpassword-reply"]).delivery)

    def test_every_option_is_in_the_usage(self) -> None:
        for option in ("-d PBSTOOL", "--control DIR", "--help", "--version"):
            self.assertIn(f"\n  {option} ", USAGE)


class LoginTests(SynchronousTestCase):
    @given(WITHOUT_NUL, WITHOUT_NUL, st.binary(max_size=100))
    def test_login_and_password_are_what_is_before_the_first_two_nuls(
        self, name: bytes, password: bytes, rest: bytes
    ) -> None:
        login = Login.parse(name + b"\0" + password + b"\0" + rest)
        self.assertEqual(login, (name, password))

    @given(st.binary(max_size=600))
    def test_whatever_comes_is_a_login_or_refused_in_words_without_it(self, octets: bytes) -> None:
        try:
            login = Login.parse(octets)
        except BadRequest as error:
            self.assertTrue(len(octets) > MOST_OCTETS or octets.count(b"\0") < 2)
            self.assertEqual(error.malformed, len(octets) <= MOST_OCTETS)
        else:
            self.assertNotIn(b"\0", login.name + login.password)

    def test_the_password_is_not_shown(self) -> None:
        self.assertNotIn("secret", repr(Login(b"joe", b"secret")))

    def test_512_octets_are_taken_and_513_are_not(self) -> None:
        for size, taken in ((512, True), (513, False)):
            octets = b"joe\0".ljust(size - 1, b"p") + b"\0"
            reader, writer = os.pipe()
            os.write(writer, octets)
            os.close(writer)
            if taken:
                self.assertEqual(Login.read(reader), (b"joe", b"p" * 507))
            else:
                error = self.assertRaises(BadRequest, Login.read, reader)
                self.assertEqual(str(error), "more than 512 octets came on descriptor 3")
            self.assertRaises(OSError, os.fstat, reader)

    def test_it_may_come_in_pieces(self) -> None:
        reader, writer = os.pipe()

        def write() -> None:
            for octet in b"joe\0secret\0<t>\0":
                os.write(writer, bytes([octet]))
            os.close(writer)

        thread = threading.Thread(target=write)
        thread.start()
        self.assertEqual(Login.read(reader), (b"joe", b"secret"))
        thread.join()

    def test_a_pipe_that_stays_open_is_not_waited_for_without_end(self) -> None:
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        os.write(writer, b"joe\0secret\0")
        error = self.assertRaises(BadRequest, Login.read, reader, 0.01)
        self.assertEqual(str(error), "descriptor 3 was not at its end within 0.01 s")

    def test_a_descriptor_that_is_not_open_is_told(self) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        os.close(writer)
        error = self.assertRaises(BadRequest, Login.read, reader)
        self.assertIn("descriptor 3 cannot be read: Bad file descriptor", str(error))


class ProcessTests(SynchronousTestCase):
    """What becomes of it where the process it is given is not as it should be."""

    def auth_pop(self, redirections: str = "", **variables: str) -> tuple[int, str]:
        """Its exit code and standard error, for a control directory that is not there."""
        program = "from qmailldap.commands.auth_pop import main; main()"
        command = f'exec "$0" -c "$1" --control /nonexistent env 3<"$2" {redirections}'
        login = Path(self.mktemp())
        login.write_bytes(b"joe\0secret\0<t>\0")
        done = subprocess.run(
            ["sh", "-c", command, sys.executable, program, str(login)],
            capture_output=True,
            text=True,
            env={**os.environ, **variables},
        )
        return done.returncode, done.stderr

    def test_streams_that_are_closed_change_nothing(self) -> None:
        expected = Refusal.CONFIGURATION.outcome.exit_code
        for redirections in ("", "<&-", ">&-", "<&- >&-"):
            code, said = self.auth_pop(redirections)
            self.assertEqual(code, expected, redirections)
            self.assertIn("reason=configuration", said)
        self.assertEqual(self.auth_pop("<&- >&- 2>&-"), (expected, ""))

    def test_an_installation_that_is_broken_is_a_temporary_error_in_one_line(self) -> None:
        broken = Path(self.mktemp())
        broken.mkdir()
        (broken / "attr.py").write_text("raise ImportError('broken')")
        path = f"{broken.absolute()}:{os.environ.get('PYTHONPATH', '')}"
        code, said = self.auth_pop(PYTHONPATH=path)
        self.assertEqual(code, Refusal.TEMPORARY.outcome.exit_code)
        self.assertRegex(said, r"\Aauth_pop: cannot be run: ImportError: .*\n\Z")

    def test_its_own_exit_codes_are_those_of_the_table(self) -> None:
        refusals = Refusal.CONFIGURATION, Refusal.OUT_OF_MEMORY, Refusal.TEMPORARY
        self.assertEqual(
            (auth_pop._USAGE_CODE, auth_pop._OUT_OF_MEMORY, auth_pop._TEMPORARY),
            tuple(refusal.outcome.exit_code for refusal in refusals),
        )


class LoadingTests(SynchronousTestCase):
    def loaded(self, module: str) -> set[str]:
        text = f"import sys, {module}; print(*sys.modules)"
        return set(subprocess.check_output([sys.executable, "-c", text], text=True).split())

    def test_the_login_is_read_before_anything_that_takes_time_is_loaded(self) -> None:
        rooms = {name.split(".")[0] for name in self.loaded("qmailldap.commands.auth_pop")}
        self.assertEqual(rooms & {"twisted", "ldaptor", "OpenSSL", "passlib", "asyncio"}, set())

    def test_a_login_loads_nothing_of_the_server_that_it_does_not_need(self) -> None:
        loaded = self.loaded("qmailldap.commands.auth_pop.run")
        for name in (
            "argon2",
            "argparse",
            "ldaptor.inmemory",
            "ldaptor.ldapfilter",
            "passlib",
            "pyparsing",
            "qmailldap.directory.embedded",
            "qmailldap.forward",
            "qmailldap.pop3",
            "qmailldap.privsep.broker_process",
            "qmailldap.service",
            "twisted.application",
            "twisted.mail.pop3",
        ):
            self.assertNotIn(name, loaded)
