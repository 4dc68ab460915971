"""Passwords of local users: a question by a socket, one word for an answer.

Most run the module as the broker does, by an interpreter without site-packages, on a passwd and a
shadow of their own, which are mounted over the host's: root is needed.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap import crypt3
from qmailldap.privsep import shadow, wire
from tests.root import no_root
from tests.test_passwords import CRYPT_VALUES, OPENSSL, PERL_CRYPT, SLAPPASSWD_CRYPT

PACKAGE = str(Path(shadow.__file__).parent.parent.parent)
TIME_LIMIT = 60

DES, MD5, SHA512 = PERL_CRYPT[0], OPENSSL[0], OPENSSL[2]
YESCRYPT = SLAPPASSWD_CRYPT[3].removeprefix(b"{CRYPT}")

MOUNTED = 'mount --bind "$1" /etc && shift && exec "$@"'

IMPORTED = f"""
import sys
sys.path.insert(0, {PACKAGE!r})
from qmailldap.privsep import shadow
"""

SERVED = IMPORTED + "shadow.serve(int(sys.argv[1]))\n"


def program(text: str, *arguments: str) -> list[str]:
    """The command that runs it as the broker is run."""
    return [sys.executable, "-I", "-S", "-c", text, *arguments]


class CompareTests(SynchronousTestCase):
    def test_values_of_other_tools_match_their_password_and_no_other(self) -> None:
        for value in CRYPT_VALUES:
            self.assertIs(shadow.compare(b"secret", value), True, value)
            self.assertIs(shadow.compare(b"Secret", value), False, value)

    def test_a_setting_without_a_digest_matches_nothing(self) -> None:
        for value in (b"ab", b"$6$saltsalt", b"$1$saltsalt$"):
            self.assertIs(shadow.compare(b"secret", value), False, value)

    def test_there_is_nothing_to_hash_where_no_password_lets_in(self) -> None:
        self.patch(crypt3, "crypt", None)
        values = [b"", b"x", b"*", b"!", b"!!", b"!*", b"*0", b"*1", b"*LK*"]
        values += [lock + value for value in CRYPT_VALUES for lock in (b"!", b"!!", b"*")]
        for value in values:
            for password in (b"", b"x", b"*0", b"secret", value):
                self.assertIsNone(shadow.compare(password, value), value)

    def test_nor_for_an_empty_password(self) -> None:
        for setting in (b"ab", b"$6$saltsalt", b"$1$saltsalt$"):
            value = crypt3.crypt(b"", setting)
            assert value is not None
            self.assertIsNone(shadow.compare(b"", value))

    def test_nor_where_the_host_refuses_the_format_or_the_password(self) -> None:
        for value in (b"$9$abc$def", b"{SSHA}abcdefgh", b"a", b"\xff\xfe"):
            self.assertIsNone(shadow.compare(b"secret", value), value)
        for password in (b"secret\0", b"s" * 10240):
            self.assertIsNone(shadow.compare(password, SHA512))

    @given(st.binary(max_size=40), st.binary(max_size=40))
    def test_no_two_byte_strings_match_by_chance(self, password: bytes, value: bytes) -> None:
        self.assertIsNot(shadow.compare(password, value), True)


class ShadowTestCase(SynchronousTestCase):
    """A host with the users of `PASSWD` and `SHADOW`."""

    USERS = {
        # name: what passwd and shadow hold, None where shadow has no entry
        b"ann": (b"x", YESCRYPT),
        b"bob": (b"x", SHA512),
        b"des": (b"x", DES),
        b"jos\xe9": (b"x", MD5),
        b"jos\xc3\xa9": (b"x", DES),
        b"both": (MD5, b"!" + MD5),
        b"old": (MD5, None),
        b"nowhere": (b"x", None),
        b"open": (b"x", b""),
        b"opened": (b"", None),
        b"locked": (b"x", b"!" + SHA512),
        b"daemon": (b"x", b"*"),
        b"huge": (b"x", b"$6$" + b"s" * 9000),
    }

    def setUp(self) -> None:
        self.etc = Path(self.mktemp())
        self.etc.mkdir()
        (self.etc / "nsswitch.conf").write_text("passwd: files\nshadow: files\n")
        # Where libraries are.
        for known in Path("/etc").glob("ld.so.cache"):
            shutil.copy(known, self.etc)
        (self.etc / "passwd").write_bytes(
            b"".join(
                b"%s:%s:1000:1000::/home/%s:/bin/sh\n" % (name, value, name)
                for name, (value, _) in self.USERS.items()
            )
        )
        (self.etc / "shadow").write_bytes(
            b"".join(
                b"%s:%s:19000:0:99999:7:::\n" % (name, value)
                for name, (_, value) in self.USERS.items()
                if value is not None
            )
        )
        (self.etc / "shadow").chmod(0o600)

    def mounted(self, command: list[str]) -> list[str]:
        """The command that runs another one on that host."""
        unshared = ["unshare", "--mount"]
        if os.geteuid() != 0 or subprocess.run([*unshared, "true"], check=False).returncode:
            no_root("mounts a passwd of its own")
        return [*unshared, "sh", "-c", MOUNTED, "sh", str(self.etc.resolve()), *command]

    def run_mounted(self, text: str, *arguments: str) -> str:
        finished = subprocess.run(
            self.mounted(program(text, *arguments)),
            stdout=subprocess.PIPE,
            timeout=TIME_LIMIT,
            check=True,
        )
        return finished.stdout.decode()

    def checked(self, *questions: tuple[bytes, bytes]) -> list[str]:
        """What `shadow.check` answers, on that host."""
        text = IMPORTED + (
            "import json\n"
            "for question in json.loads(sys.argv[1]):\n"
            "    print(shadow.check(*(field.encode('latin-1') for field in question)))\n"
        )
        encoded = [[field.decode("latin-1") for field in question] for question in questions]
        return self.run_mounted(text, json.dumps(encoded)).split()

    def assert_checked(self, answers: dict[tuple[bytes, bytes], str]) -> None:
        self.assertEqual(dict(zip(answers, self.checked(*answers), strict=True)), answers)


class CheckTests(ShadowTestCase):
    def test_the_hash_is_that_of_shadow(self) -> None:
        self.assert_checked(
            {
                (name, password): answer
                for name in (b"ann", b"bob", b"des", b"jos\xe9", b"jos\xc3\xa9")
                for password, answer in ((b"secret", "yes"), (b"Secret", "no"), (b"s" * 99, "no"))
            }
        )

    def test_without_an_entry_of_shadow_it_is_that_of_passwd(self) -> None:
        self.assert_checked(
            {
                (b"old", b"secret"): "yes",
                (b"old", b"Secret"): "no",
                (b"nowhere", b"secret"): "unknown",
                (b"nowhere", b"x"): "unknown",
                (b"opened", b"secret"): "unknown",
                (b"opened", b""): "unknown",
            }
        )

    def test_an_entry_of_shadow_counts_whatever_passwd_holds(self) -> None:
        self.assert_checked({(b"both", b"secret"): "unknown"})

    def test_without_a_shadow_all_hashes_are_those_of_passwd(self) -> None:
        (self.etc / "shadow").unlink()
        self.assert_checked(
            {
                (b"old", b"secret"): "yes",
                (b"both", b"secret"): "yes",
                (b"ann", b"secret"): "unknown",
            }
        )

    def test_whom_no_password_lets_in_is_unknown(self) -> None:
        passwords = (b"", b"x", b"!", b"*", b"*0", b"secret", SHA512)
        names = (b"open", b"locked", b"daemon")
        self.assert_checked(
            {(name, password): "unknown" for name in names for password in passwords}
        )

    def test_who_is_not_in_passwd_is_unknown(self) -> None:
        names = (
            b"nobody",
            b"ANN",
            b"ann ",
            b"",
            b":",
            b"\n",
            b"\xff",
            b"\xed\xa0\x80",
            b"a" * 9999,
        )
        self.assert_checked({(name, b"secret"): "unknown" for name in names})

    def test_a_nul_or_no_password_is_unknown_whoever_it_is(self) -> None:
        names = (b"ann", b"des", b"nobody")
        questions = [(name, password) for name in names for password in (b"", b"\0", b"secret\0")]
        questions += [(name + b"\0", b"secret") for name in names]
        self.assert_checked(dict.fromkeys(questions, "unknown"))

    def test_a_long_entry_is_read(self) -> None:
        self.assertIn(self.checked((b"huge", b"secret"))[0], ("no", "unknown"))

    def test_only_the_standard_library_is_loaded_and_ctypes_only_for_a_hash(self) -> None:
        text = IMPORTED + (
            "before = set(sys.modules)\n"
            "print(*('ctypes' in before, shadow.check(b'ann', b'secret')))\n"
            "names = {name.split('.')[0] for name in sys.modules}\n"
            "print(*sorted(names - sys.stdlib_module_names - {'__main__'}))\n"
            "print(*sorted(name for name in sys.modules if name.startswith('qmailldap.')))\n"
        )
        loaded, strange, ours = self.run_mounted(text).splitlines()
        self.assertEqual((loaded, strange), ("False yes", "qmailldap"))
        self.assertEqual(
            set(ours.split()),
            {
                "qmailldap.crypt3",
                "qmailldap.privsep",
                "qmailldap.privsep.one_question",
                "qmailldap.privsep.shadow",
                "qmailldap.privsep.wire",
            },
        )


class ServeTests(ShadowTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.ours, theirs = socket.socketpair()
        self.addCleanup(self.ours.close)
        self.theirs = theirs
        self.addCleanup(theirs.close)
        self.ours.settimeout(TIME_LIMIT)

    def served(self, text: str = SERVED, mounted: bool = True) -> subprocess.Popen[bytes]:
        """`shadow.serve` at the other end of ``ours``."""
        command = program(text, str(self.theirs.fileno()))
        child = subprocess.Popen(
            self.mounted(command) if mounted else command,
            pass_fds=[self.theirs.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.addCleanup(child.communicate)
        self.addCleanup(child.kill)
        self.theirs.close()
        return child

    def assert_ended(self, child: subprocess.Popen[bytes], code: int = 0) -> None:
        said, _ = child.communicate(timeout=TIME_LIMIT)
        self.assertEqual((child.returncode, said), (code, b""))

    def ask(self, login: bytes, password: bytes) -> None:
        wire.send(self.ours, [b"7", b"check", login, password])

    def assert_answer(self, word: bytes) -> None:
        self.assertEqual(wire.receive(self.ours), [b"7", b"ok", b"0", word])
        self.assertIsNone(wire.receive(self.ours))

    def assert_error(self, text: bytes, number: bytes = b"7") -> None:
        answer = wire.receive(self.ours)
        self.assertEqual(answer, [number, b"error", b"OSError", b"%d" % errno.EIO, text, b""])
        self.assertIsNone(wire.receive(self.ours))

    def test_one_question_is_answered(self) -> None:
        child = self.served()
        self.ask(b"ann", b"secret")
        self.assert_answer(b"yes")
        self.assert_ended(child)

    def test_a_wrong_password_is_no(self) -> None:
        child = self.served()
        self.ask(b"ann", b"Secret")
        self.assert_answer(b"no")
        self.assert_ended(child)

    def test_nobody_is_unknown(self) -> None:
        child = self.served(mounted=False)
        self.ask(b"nobody at all", b"secret")
        self.assert_answer(b"unknown")
        self.assert_ended(child)

    def test_without_a_question_there_is_no_answer(self) -> None:
        child = self.served(mounted=False)
        self.ours.shutdown(socket.SHUT_WR)
        self.assertIsNone(wire.receive(self.ours))
        self.assert_ended(child)

    def test_what_is_no_question_is_an_error(self) -> None:
        for fields in ([], [b"7", b"check", b"ann"], [b"7", b"check", b"ann", b"secret", b"more"]):
            self.setUp()
            child = self.served(mounted=False)
            wire.send(self.ours, fields)
            self.assert_error(b"ValueError", number=fields[0] if fields else b"0")
            self.assert_ended(child)

    def test_what_is_no_frame_is_an_error(self) -> None:
        child = self.served(mounted=False)
        self.ours.sendall(wire.frame([b"7", b"check", b"ann", b"secret"])[:-1])
        self.ours.shutdown(socket.SHUT_WR)
        self.assert_error(b"FrameError", number=b"0")
        self.assert_ended(child)

    def test_a_shadow_that_cannot_be_read_is_an_error(self) -> None:
        # What is imported late may be where only root can read.
        dropped = (
            "import ctypes, os\nfrom qmailldap import crypt3\n"
            "os.setgroups([])\nos.setgid(65534)\nos.setuid(65534)\n"
        )
        child = self.served(IMPORTED + dropped + "shadow.serve(int(sys.argv[1]))\n")
        self.ask(b"ann", b"secret")
        self.assert_error(b"PermissionError: getspnam(3): Permission denied")
        self.assert_ended(child)

    def test_an_error_quotes_nothing_of_the_question(self) -> None:
        for name in ("ValueError", "MemoryError", "OSError", "RecursionError"):
            self.setUp()
            raising = f"def check(*question):\n    raise {name}(f'{{question}}')\n"
            child = self.served(
                IMPORTED + raising + "shadow.check = check\nshadow.serve(int(sys.argv[1]))\n",
                mounted=False,
            )
            self.ask(b"ann", b"secret")
            self.assert_error(name.encode())
            self.assert_ended(child)

    def test_a_question_that_takes_too_long_ends_the_child(self) -> None:
        text = IMPORTED + (
            "import os, signal\n"
            "def check(login, password):\n"
            "    left, _ = signal.getitimer(signal.ITIMER_REAL)\n"
            "    assert 0 < left <= shadow.LIMIT == 30\n"
            "    os.kill(os.getpid(), signal.SIGALRM)\n"
            "shadow.check = check\n"
            "signal.signal(signal.SIGALRM, signal.SIG_IGN)\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})\n"
            "shadow.serve(int(sys.argv[1]))\n"
        )
        child = self.served(text, mounted=False)
        self.ask(b"ann", b"secret")
        self.assertIsNone(wire.receive(self.ours))
        self.assert_ended(child, -signal.SIGALRM)

    def test_an_answer_that_nobody_awaits_is_not_an_error(self) -> None:
        child = self.served(mounted=False)
        self.ask(b"nobody at all", b"secret")
        self.ours.close()
        self.assert_ended(child)
