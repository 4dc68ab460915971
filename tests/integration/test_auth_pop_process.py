"""What auth_pop is given by whoever runs it, and what the subprogram finds: all of a process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sys
import termios
from pathlib import Path

from twisted.internet.threads import deferToThread

from .chain import SLEEPER, ChainTestCase
from .hosts import python_as_user, require_root
from .mailboxes import MESSAGES, everything_below
from .popup import Login, Popup, handed_over
from .process_table import living_processes
from .processes import wait_until
from .server import environment
from .site import PASSWORD
from .users import Owner

ANN: Owner = (21001, 22001)
BOB: Owner = (21002, 22002)

# Those above are libc's own; posix_spawn has them ignored.
_SIGNALS = 2**31 - 1

MALFORMED, NOT_THE_OWNER, TEMPORARY = 25, 25, 111


class SubprogramTests(ChainTestCase):
    def setUp(self) -> None:
        require_root()
        super().setUp()

    async def test_it_is_the_owner_at_home_and_knows_whom_it_serves(self) -> None:
        both = self.user(
            "both",
            owner=ANN,
            mailMessageStore="./Maildir/",
            mailQuotaSize=1000000,
            mailQuotaCount=1000,
            mailSizeMax=5000,
        )
        plain, count = (
            self.user("plain", owner=BOB),
            self.user("count", owner=BOB, mailQuotaCount=7),
        )
        await self.start_directory()
        given = {
            # As under daemontools, where no locale is set.
            **{name: environment()[name] for name in ("PATH", "PYTHONPATH")},
            "KEPT": "as it was",
            "EMPTY": "",
            "NOT_UTF_8": "\udcff",
        }
        outside = {**given, "MAILDIR": "/nowhere/", "USER": "root", "HOME": "/root"}
        before = ["setpriv", "--groups=4,20,24"]
        popup = self.new_chain(subprogram=SLEEPER, before=before, variables=outside)
        users = {
            "both": {
                "HOME": str(both.path.parent),
                "MAILDIR": "./Maildir/",
                "MAILDIRQUOTA": "1000000S,1000C",
                "DATASIZE": "5000",
            },
            "plain": {"HOME": str(plain.path.parent)},
            "count": {"HOME": str(count.path.parent), "MAILDIRQUOTA": "7C"},
        }
        for login, connection in await self.together(*(self.asleep(popup, user) for user in users)):
            (process,) = living_processes(login.pid)
            owner = ANN if login.user == "both" else BOB
            self.assertEqual((process.owner, process.capabilities), (owner, 0))
            self.assertLessEqual({*process.groups}, {owner[1]})
            proc = Path(f"/proc/{login.pid}")
            self.assertEqual((proc / "cmdline").read_bytes(), b"cat\0-\0./Maildir/\0")
            self.assertEqual(os.readlink(proc / "cwd"), users[login.user]["HOME"])
            found = _environment(login)
            tcp = [name for name in found if name == "PROTO" or name.startswith("TCP")]
            self.assertEqual(len(tcp), 5)
            for name in tcp:
                del found[name]
            names = {"USER": login.user, "AUTHENTICATED": login.user}
            self.assertEqual(found, {**given, **names, **users[login.user]})
            # It hears the client, and answers.
            await deferToThread(connection.send, b"heard\r\n")
            self.assertEqual(await deferToThread(connection.line), b"heard")

    async def test_descriptors_and_signals_are_as_if_nothing_had_been_between(self) -> None:
        self.user("joe", owner=ANN)
        await self.start_directory()
        popup = self.new_chain(subprogram=SLEEPER)
        client, server = socket.socketpair()
        further, end = os.pipe()
        given = {0: server.fileno(), 1: server.fileno(), 4: end, 9: further}
        for descriptor in (further, end):
            self.addCleanup(os.close, descriptor)
        for each in (client, server):
            self.addCleanup(each.close)
        popup.start(handed_over("joe", PASSWORD), given)
        login = await self.is_executed(popup, "joe")
        # The same program with nothing before it.
        bare = Login(["cat"], None, given, self.directory / "bare", os.environ)
        self.addCleanup(bare.kill)
        await wait_until(lambda: bare.name == "cat", 5, "cat")
        self.assertEqual(sorted(_descriptors(login)), [0, 1, 2, 4, 9])
        self.assertEqual(sorted(_descriptors(bare)), [0, 1, 2, 4, 9])
        for number in (0, 1, 4, 9):
            self.assertEqual(_descriptors(login)[number], _descriptors(bare)[number])
            # Whether it blocks, above all.
            self.assertEqual(_flags(login, number), _flags(bare, number), number)
        for name in ("SigBlk", "SigIgn", "SigCgt"):
            self.assertEqual(int(_status(login, name), 16) & _SIGNALS, 0, name)
        for name in ("Umask", "NoNewPrivs"):
            self.assertEqual(_status(login, name), _status(bare, name), name)


class StreamTests(ChainTestCase):
    async def test_nothing_is_read_from_the_client_and_streams_may_be_pipes(self) -> None:
        self.user("joe", messages=[MESSAGES["plain"], MESSAGES["dots"]])
        await self.start_directory()
        popup = self.new_chain()
        outcome = await self.outcome(popup, "joe")
        self.assertEqual(outcome.answer, "+OK \r\n+OK 2\r\n+OK \r\n")
        reader, writer = os.pipe()
        os.write(writer, b"STAT\r\nRETR 1\r\n")
        os.close(writer)
        with open(self.directory / "output", "wb") as output:
            login = popup.start(handed_over("joe", PASSWORD), {0: reader, 1: output.fileno()})
        os.close(reader)
        await wait_until(login.has_ended, 20, "the end of input")
        message = MESSAGES["plain"].replace(b"\n", b"\r\n")
        expected = b"+OK \r\n+OK 2\r\n+OK \r\n" + message + b".\r\n"
        self.assertEqual((self.directory / "output").read_bytes(), expected)

    async def test_a_script_without_a_first_line_for_the_kernel_is_one_of_the_shell(self) -> None:
        self.user("joe")
        await self.start_directory()
        script = self.directory / "script"
        script.write_text('echo "$# $1 $2"\n')
        script.chmod(0o755)
        popup = self.new_chain(subprogram=(str(script), "--help", "./Maildir/"))
        self.assertEqual((await self.outcome(popup, "joe")).answer, "2 --help ./Maildir/\n")


class HandedOverTests(ChainTestCase):
    """Descriptor 3."""

    async def test_what_is_handed_over_is_as_long_as_it_may_be_and_has_all_its_parts(self) -> None:
        self.user("joe")
        await self.start_directory()
        popup = self.new_chain(subprogram=("true", "./Maildir/"))
        full = handed_over("joe", PASSWORD)[:-1].ljust(511, b"x") + b"\0"
        login = b"joe\0" + PASSWORD.encode()
        cases: list[tuple[bytes | None, int, str]] = [
            (full, 0, "login user=joe"),
            # A time stamp is not looked at, nor what comes behind it.
            (login + b"\0", 0, "login user=joe"),
            (login + b"\0<1>\0more\0and more", 0, "login user=joe"),
            (full + b"\0", TEMPORARY, "512 octets"),
            (full * 200, TEMPORARY, "512 octets"),
            (login, MALFORMED, "descriptor 3"),
            (b"joe", MALFORMED, "descriptor 3"),
            (b"", MALFORMED, "descriptor 3"),
            (None, TEMPORARY, "descriptor 3"),
        ]
        await self.together(*(self.assert_ends(popup, *case) for case in cases))

    async def test_it_may_come_slowly(self) -> None:
        self.user("joe")
        await self.start_directory()
        popup = self.new_chain(subprogram=("true", "./Maildir/"))
        reader, writer = os.pipe()
        with open(os.devnull) as nothing, open(writer, "wb", buffering=0) as pipe:
            login = popup.start(None, {0: nothing.fileno(), 1: nothing.fileno(), 3: reader})
            os.close(reader)
            for octets in (b"joe\0", PASSWORD.encode(), b"\0<1>\0"):
                pipe.write(octets)
                await wait_until(lambda: not _unread(pipe.fileno()), 20, "it to read")
        await wait_until(login.has_ended, 20, "its end")
        self.assertEqual(login.code, 0, login.errors)

    async def test_nobody_can_see_the_password_meanwhile(self) -> None:
        self.user("joe")
        await self.start_directory()
        popup = self.new_chain(subprogram=("true", "./Maildir/"))
        self.slapd.pause()
        with open(os.devnull) as nothing:
            streams = {0: nothing.fileno(), 1: nothing.fileno()}
            login = popup.start(handed_over("joe", PASSWORD), streams)
        await wait_until(lambda: _has_a_socket(login), 20, "it to ask the directory")
        for name in ("cmdline", "environ", "comm"):
            octets = Path(f"/proc/{login.pid}/{name}").read_bytes()
            self.assertNotIn(PASSWORD.encode(), octets, name)
        self.slapd.resume()
        await wait_until(login.has_ended, 20, "its end")
        self.assertEqual(login.code, 0, login.errors)

    async def assert_ends(self, popup: Popup, handed: bytes | None, code: int, words: str) -> None:
        with open(os.devnull) as nothing:
            login = popup.start(handed, {0: nothing.fileno(), 1: nothing.fileno()})
        await wait_until(login.has_ended, 20, "its end")
        self.assertEqual(login.code, code, login.errors)
        self.assertIn(words, login.errors)
        self.assertEqual(login.errors.count("\n"), 1, login.errors)


class WithoutRootTests(ChainTestCase):
    """The server of a user who has some mail: run by who it belongs to, or by somebody else."""

    async def test_the_owner_is_served_and_nobody_elses_mail_is_touched(self) -> None:
        require_root()
        self.user("ann", messages=[MESSAGES["plain"]], owner=ANN)
        bob = self.user("bob", messages=[MESSAGES["plain"]], owner=BOB)
        await self.start_directory()
        popup = self.new_chain(before=python_as_user(ANN))
        for each in (self.directory / "chain", *(self.directory / "chain").rglob("*")):
            os.chown(each, *ANN)
        before = everything_below(bob.path.parent)
        found = await self.outcomes(popup, ["ann", "bob"])
        self.assertEqual(found["ann"].answer, "+OK \r\n+OK 1\r\n+OK \r\n")
        self.assertEqual(found["bob"].code, NOT_THE_OWNER)
        self.assertIn(f"uid {ANN[0]}", found["bob"].errors)
        self.assertEqual(everything_below(bob.path.parent), before)


def _environment(login: Login) -> dict[str, str]:
    text = os.fsdecode(Path(f"/proc/{login.pid}/environ").read_bytes())
    return dict(line.split("=", 1) for line in text.split("\0") if line)


def _status(login: Login, name: str) -> str:
    """A field of proc_pid_status(5)."""
    (line,) = [
        line
        for line in Path(f"/proc/{login.pid}/status").read_text().splitlines()
        if line.startswith(f"{name}:")
    ]
    return line.split(":\t")[1]


def _descriptors(login: Login) -> dict[int, str]:
    (process,) = living_processes(login.pid)
    return process.descriptors


def _has_a_socket(login: Login) -> bool:
    """Whether it has, even if descriptors come and go while it is looked at."""
    with contextlib.suppress(FileNotFoundError):
        return any(each.startswith("socket:") for each in _descriptors(login).values())
    return False


def _flags(login: Login, descriptor: int) -> int:
    """Those that open(2) has, and fcntl(2) sets."""
    text = Path(f"/proc/{login.pid}/fdinfo/{descriptor}").read_text()
    return int(text.split("flags:")[1].split()[0], 8)


def _unread(pipe: int) -> int:
    """Octets in a pipe that nobody has read yet."""
    octets = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
    return int.from_bytes(octets, sys.byteorder)
