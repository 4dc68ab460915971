"""`qmailldap digest` with other tools: what they make it checks, and what it makes they check.

And how it takes a password from a terminal, and what it costs to load.
"""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import tempfile
import termios
import time
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from qmailldap.passwords.making import TYPES

from .processes import run
from .server import environment
from .slapd import Slapd
from .users import qmail_user, user_dn

_LIMIT = 30.0
_PASSWORD = "zürich-secret"
_QMAILLDAP = [sys.executable, "-c", "from qmailldap.commands import main; raise SystemExit(main())"]
_DIGEST = [*_QMAILLDAP, "digest"]
# A session of its own, which its standard input controls.
_ON_TERMINAL = ["setsid", "--ctty"]
_SBIN = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_SALT = b"0123456789abcdefgh"

# Arguments of digest for each kind of value, by who is known to verify it.
_CRYPT = (
    (),
    ("-5",),
    ("-b",),
    ("-f", "$2b$05$XXXXXXXXXXXXXXXXXXXXXX"),
    ("-f", "$6$XXXXXXXXXXXXXXXX"),
    ("-t", "sha512-crypt"),
    ("-t", "sha256-crypt", "--rounds", "1234"),
    ("-t", "yescrypt"),
)
_RFC_2307 = (("-t", "md5"), ("-t", "smd5"), ("-t", "sha"), ("-t", "ssha"))
_SHA_2 = (("-t", "ssha256"), ("-t", "ssha512"))
_ARGON2 = (("-t", "argon2id"), ("-t", "argon2id", "--rounds", "1"))


def program(name: str) -> str:
    path = shutil.which(name, path=_SBIN)
    if path is None:
        raise AssertionError(f"{name} is not installed; `make test` sees to that")
    return path


class ToolsTestCase(TestCase):
    timeout = 120

    async def output(self, *arguments: str) -> str:
        finished = await run(arguments, _LIMIT, environment=environment())
        self.assertEqual(finished.code, 0, f"{arguments[0]}: {finished.text}")
        return finished.output.decode().strip()

    async def made(self, *arguments: str, password: str = _PASSWORD) -> str:
        return await self.output(*_DIGEST, *arguments, "--", password)

    async def verdict(self, password: str, value: str) -> int:
        finished = await run(
            [*_DIGEST, "-v", "--", password, value], _LIMIT, environment=environment()
        )
        self.assertEqual(finished.errors, b"")
        return finished.code

    async def assert_checked(self, value: str) -> None:
        """It is checked as a value of the password, and of nothing else."""
        self.assertEqual(await self.verdict(_PASSWORD, value), 0, value)
        self.assertEqual(await self.verdict(_PASSWORD + "x", value), 3, value)


class OpenldapTests(ToolsTestCase):
    async def test_what_slappasswd_makes_is_checked(self) -> None:
        slappasswd = program("slappasswd")
        for options in (
            *(["-h", scheme] for scheme in ("{SSHA}", "{SMD5}", "{SHA}", "{MD5}")),
            *(
                ["-o", "module-load=pw-sha2", "-h", scheme]
                for scheme in ("{SSHA256}", "{SSHA384}", "{SSHA512}", "{SHA256}")
            ),
            ["-o", "module-load=argon2", "-h", "{ARGON2}"],
            *(["-h", "{CRYPT}", "-c", format] for format in ("$6$%.16s", "$5$%.8s", "$1$%.8s")),
        ):
            await self.assert_checked(await self.output(slappasswd, *options, "-s", _PASSWORD))

    async def test_a_real_slapd_lets_in_with_what_is_made(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="qmailldap-test-"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        kinds = (*_CRYPT, ("-C",), *_RFC_2307, *_SHA_2, *_ARGON2)
        entries = []
        for number, arguments in enumerate(kinds):
            password = _PASSWORD[:5] if arguments == ("-C",) else _PASSWORD
            value = await self.made(*arguments, password=password)
            entries.append(qmail_user(f"user{number}", value, {"homeDirectory": "/nowhere"}))
        slapd = Slapd(directory, "".join(entries), modules=("pw-sha2", "argon2"))
        self.addCleanup(slapd.stop)
        await slapd.start()
        for number, arguments in enumerate(kinds):
            password = _PASSWORD[:5] if arguments == ("-C",) else _PASSWORD
            bind = ["ldapwhoami", "-x", "-H", f"ldap://{slapd.address}"]
            bind += ["-D", user_dn(f"user{number}"), "-w"]
            right = await run([*bind, password], _LIMIT)
            wrong = await run([*bind, "x" + password], _LIMIT)
            # 49 is invalidCredentials.
            self.assertEqual((right.code, wrong.code), (0, 49), f"{arguments}: {right.text}")


class OpensslTests(ToolsTestCase):
    async def test_what_openssl_makes_is_checked(self) -> None:
        openssl = program("openssl")
        for method in ("-1", "-5", "-6"):
            value = await self.output(openssl, "passwd", method, _PASSWORD)
            await self.assert_checked(value)
            await self.assert_checked("{CRYPT}" + value)

    async def test_apaches_variant_is_none_of_crypt(self) -> None:
        value = await self.output(program("openssl"), "passwd", "-apr1", _PASSWORD)
        finished = await run([*_DIGEST, "-v", _PASSWORD, value], _LIMIT, environment=environment())
        self.assertEqual(finished.code, 3)

    async def test_the_same_salt_makes_the_same_value(self) -> None:
        openssl = program("openssl")
        salt = b64encode(_SALT).decode()
        for method, format in (
            ("-1", "$1$XXXXXXXX$"),
            ("-5", "$5$XXXXXXXXXXXXXXXX$"),
            ("-6", "$6$XXXXXXXXXXXXXXXX$"),
        ):
            text = salt[: format.count("X")]
            theirs = await self.output(openssl, "passwd", method, "-salt", text, _PASSWORD)
            self.assertEqual(await self.made("-f", format, "-s", salt), "{CRYPT}" + theirs)


class DovecotTests(ToolsTestCase):
    async def test_what_doveadm_makes_is_checked(self) -> None:
        doveadm = program("doveadm")
        known = set((await self.output(doveadm, "pw", "-l")).split())
        ours = {
            *("SHA", "SHA1", "SSHA", "SMD5", "LDAP-MD5", "SHA256", "SSHA256", "SHA512", "SSHA512"),
            *("DES-CRYPT", "MD5-CRYPT", "BLF-CRYPT", "SHA256-CRYPT", "SHA512-CRYPT", "CRYPT"),
            *("ARGON2I", "ARGON2ID"),
        }
        looked_at = 0
        for scheme in sorted(ours & known):
            password = _PASSWORD[:5] if scheme == "DES-CRYPT" else _PASSWORD
            value = await self.output(doveadm, "pw", "-s", scheme, "-p", password)
            self.assertEqual(await self.verdict(password, value), 0, value)
            self.assertEqual(await self.verdict("x" + password, value), 3, value)
            looked_at += 1
        self.assertGreater(looked_at, 10)

    async def test_doveadm_verifies_what_is_made(self) -> None:
        doveadm = program("doveadm")
        for arguments in (*_CRYPT, ("-C",), *_RFC_2307, *_SHA_2):
            password = _PASSWORD[:5] if arguments == ("-C",) else _PASSWORD
            value = await self.made(*arguments, password=password)
            # Dovecot's {MD5} is that of crypt(3).
            value = value.replace("{MD5}", "{LDAP-MD5}")
            said = await self.output(doveadm, "pw", "-t", value, "-p", password)
            self.assertIn("(verified)", said)
            wrong = await run([doveadm, "pw", "-t", value, "-p", "x" + password], _LIMIT)
            self.assertNotEqual(wrong.code, 0, value)

    async def test_doveadm_verifies_argon2_by_its_own_name_for_it(self) -> None:
        doveadm = program("doveadm")
        self.assertIn("ARGON2ID", (await self.output(doveadm, "pw", "-l")).split())
        for arguments in _ARGON2:
            value = (await self.made(*arguments)).replace("{ARGON2}", "{ARGON2ID}")
            said = await self.output(doveadm, "pw", "-t", value, "-p", _PASSWORD)
            self.assertIn("(verified)", said)


class OnTerminal:
    """The command on a terminal of its own, which controls it."""

    def __init__(self, arguments: Sequence[str], directory: Path) -> None:
        self._master, slave = pty.openpty()
        self.output = directory / "output"
        self.shown = b""
        try:
            with open(self.output, "wb") as output:
                self._process = subprocess.Popen(
                    [*_ON_TERMINAL, *_DIGEST, *arguments],
                    stdin=slave,
                    # The prompt comes all the same; a value can be sent to a file.
                    stdout=output,
                    stderr=slave,
                    env=environment(LC_ALL="C.UTF-8"),
                )
        except BaseException:
            os.close(self._master)
            raise
        finally:
            os.close(slave)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    @property
    def command_line(self) -> bytes:
        return Path(f"/proc/{self._process.pid}/cmdline").read_bytes()

    @property
    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self._master)[3] & termios.ECHO)

    def wait_for(self, text: bytes, times: int = 1) -> None:
        """Read what is shown until ``text`` was, so many times in all."""
        deadline = time.monotonic() + _LIMIT
        while self.shown.count(text) < times:
            assert self._read(deadline), f"waited for {text!r}: {self.shown!r}"

    def type(self, octets: bytes) -> None:
        os.write(self._master, octets)

    def ended(self) -> int:
        """The exit code, when all that was shown has been read."""
        deadline = time.monotonic() + _LIMIT
        while self._read(deadline):
            pass
        return self._process.wait(_LIMIT)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0, deadline - time.monotonic()))
        try:
            octets = os.read(self._master, 4096) if ready else b""
        except OSError:
            # What Linux says when nobody holds the other side any more.
            octets = b""
        self.shown += octets
        return bool(octets)


class TerminalTests(TestCase):
    """A password that is typed."""

    timeout = 120
    # Not in UTF-8, and neither is it in the command line of what runs.
    SECRET = b"zq7x-\xe4 secret"

    def start(self, *arguments: str) -> OnTerminal:
        directory = Path(tempfile.mkdtemp(prefix="qmailldap-test-"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        terminal = OnTerminal(arguments, directory)
        self.addCleanup(terminal.close)
        return terminal

    async def check(self, value: str, password: bytes) -> int:
        def verdict() -> int:
            return subprocess.run(
                [*_DIGEST, "-v", value],
                input=password + b"\n",
                env=environment(),
                stdout=subprocess.DEVNULL,
                timeout=_LIMIT,
            ).returncode

        return await deferToThread(verdict)

    async def test_it_is_asked_for_twice_and_never_shown(self) -> None:
        def talk() -> tuple[OnTerminal, int]:
            terminal = self.start("-t", "ssha")
            terminal.wait_for(b"Password: ")
            self.assertFalse(terminal.echoes)
            terminal.type(self.SECRET + b"\n")
            terminal.wait_for(b"Password (again): ")
            self.assertFalse(terminal.echoes)
            self.assertIn(b"digest", terminal.command_line)
            self.assertNotIn(b"zq7x", terminal.command_line)
            terminal.type(self.SECRET + b"\n")
            return terminal, terminal.ended()

        terminal, code = await deferToThread(talk)
        self.assertEqual(code, 0, terminal.shown)
        self.assertNotIn(b"zq7x", terminal.shown)
        value = terminal.output.read_text().strip()
        self.assertTrue(value.startswith("{SSHA}"))
        self.assertEqual(await self.check(value, self.SECRET), 0)
        self.assertEqual(await self.check(value, self.SECRET + b"x"), 3)

    async def test_two_that_differ_make_nothing(self) -> None:
        def talk() -> tuple[OnTerminal, int]:
            terminal = self.start()
            terminal.wait_for(b"Password: ")
            terminal.type(self.SECRET + b"\n")
            terminal.wait_for(b"Password (again): ")
            terminal.type(self.SECRET + b"x\n")
            return terminal, terminal.ended()

        terminal, code = await deferToThread(talk)
        self.assertEqual(code, 1)
        self.assertIn(b"not the same", terminal.shown)
        self.assertNotIn(b"zq7x", terminal.shown)
        self.assertEqual(terminal.output.read_bytes(), b"")

    async def test_it_is_asked_for_once_to_be_checked(self) -> None:
        def talk(value: str) -> tuple[OnTerminal, int]:
            terminal = self.start("-v", value)
            terminal.wait_for(b"Password: ")
            terminal.type(b"secret\n")
            return terminal, terminal.ended()

        value = TYPES["ssha"].make(b"secret").decode()
        terminal, code = await deferToThread(talk, value)
        self.assertEqual(code, 0, terminal.shown)
        self.assertEqual(terminal.output.read_text(), "passwords are equal.\n")
        self.assertNotIn(b"again", terminal.shown)

    async def test_ctrl_c_leaves_the_terminal_as_it_was(self) -> None:
        def talk() -> tuple[OnTerminal, int, bool]:
            terminal = self.start()
            terminal.wait_for(b"Password: ")
            self.assertFalse(terminal.echoes)
            terminal.type(b"zq7x\x03")
            return terminal, terminal.ended(), terminal.echoes

        terminal, code, echoes = await deferToThread(talk)
        self.assertEqual(code, 130, terminal.shown)
        self.assertTrue(echoes)
        self.assertNotIn(b"Traceback", terminal.shown)

    async def test_the_end_of_the_input_is_no_password(self) -> None:
        def talk() -> tuple[OnTerminal, int]:
            terminal = self.start()
            terminal.wait_for(b"Password: ")
            terminal.type(b"\x04")
            return terminal, terminal.ended()

        terminal, code = await deferToThread(talk)
        self.assertEqual(code, 1, terminal.shown)
        self.assertIn(b"no password was given", terminal.shown)


class LoadingTests(SynchronousTestCase):
    def test_twisted_is_not_loaded(self) -> None:
        script = (
            "import sys\n"
            "from qmailldap.commands import main\n"
            "main(['digest', '-t', 'ssha', 'secret'])\n"
            "print(*sys.modules)\n"
        )
        output = subprocess.run(
            [sys.executable, "-c", script],
            env=environment(),
            capture_output=True,
            check=True,
            timeout=_LIMIT,
        ).stdout.decode()
        self.assertIn("qmailldap.passwords.making", output)
        for name in ("twisted", "ldaptor", "zope.interface"):
            self.assertNotIn(f" {name}", output)
