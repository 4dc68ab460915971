"""The children of the broker that read control files: as they run, in processes of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.privsep import encoding, wire
from qmailldap.privsep.control_files import LONGEST_DIRMAKER, MOST_OCTETS, dirmaker_in
from qmailldap.raw_files import LARGER, MISSING, OTHER, READ, STATES, UNREADABLE, RawFile, unpack
from tests.privsep.support import PACKAGE, TIME_LIMIT, isolated

NAMES = ("me", "ldapserver", "ldappassword")

SERVED = (
    "import os, sys; sys.path.append(sys.argv[1])\n"
    "from qmailldap.privsep.control_files import ControlFiles, serve, serve_dirmaker\n"
    "files = ControlFiles(os.fsencode(sys.argv[3]), [os.fsencode(n) for n in sys.argv[4].split()],"
    " [os.fsencode(each) for each in sys.argv[5:]])\n"
)
ALL = SERVED + "serve(int(sys.argv[2]), files)\n"
DIRMAKER = SERVED + "serve_dirmaker(int(sys.argv[2]), files, 1)\n"


class ControlFilesTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "control"
        self.folder.mkdir()
        self.certificate = Path(folder.name) / "cert.pem"

    def asked(self, *question: bytes, text: str = ALL) -> tuple[list[bytes], bytes]:
        """The answer, without its number, and what the broker was told."""
        ours, theirs = socket.socketpair()
        ours.settimeout(TIME_LIMIT)
        with ours, theirs:
            command = isolated(
                text,
                PACKAGE,
                str(theirs.fileno()),
                str(self.folder),
                " ".join(NAMES),
                str(self.certificate),
            )
            child = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            theirs.close()
            wire.send(ours, [b"7", *question])
            answer = wire.receive(ours)
            told, said = child.communicate(timeout=TIME_LIMIT)
        self.assertEqual(said, b"")
        assert answer is not None and answer[0] == b"7", answer
        return answer[1:], told

    def read(self) -> list[RawFile]:
        (outcome, count, *files), _ = self.asked(b"read")
        self.assertEqual((outcome, count), (b"ok", b"0"))
        return [unpack(each) for each in files]

    def dirmaker(self) -> tuple[bytes, bytes]:
        """What is answered, and what the broker was told."""
        (outcome, count, program), told = self.asked(b"read", text=DIRMAKER)
        self.assertEqual((outcome, count), (b"ok", b"0"))
        return program, told


class AllFilesTests(ControlFilesTestCase):
    def test_all_of_the_table_are_read_and_nothing_else_that_is_there(self) -> None:
        (self.folder / "ldapserver").write_bytes(b"ldap1\n")
        (self.folder / "shadow").write_bytes(b"secret")
        self.certificate.write_bytes(b"PEM")
        me, ldapserver, password, certificate = self.read()
        self.assertEqual((me.state, password.state), (MISSING, MISSING))
        self.assertEqual((ldapserver.content, certificate.content), (b"ldap1\n", b"PEM"))

    def test_fifos_directories_and_devices_are_not_waited_for(self) -> None:
        os.mkfifo(self.folder / "me")
        (self.folder / "ldapserver").mkdir()
        (self.folder / "ldappassword").symlink_to("/dev/zero")
        self.certificate.symlink_to(self.certificate)
        states = [file.state for file in self.read()]
        self.assertEqual(states, [OTHER, UNREADABLE, OTHER, UNREADABLE])

    def test_no_more_is_read_than_a_control_file_has(self) -> None:
        (self.folder / "me").write_bytes(b"x" * MOST_OCTETS)
        with (self.folder / "ldapserver").open("wb") as file:
            file.truncate(10 * 1024 * MOST_OCTETS)
        me, ldapserver, *_ = self.read()
        self.assertEqual((len(me.content), ldapserver.state), (MOST_OCTETS, LARGER))

    def test_a_link_that_the_administrator_has_put_there_is_followed(self) -> None:
        self.certificate.write_bytes(b"elsewhere")
        (self.folder / "me").symlink_to(self.certificate)
        self.assertEqual(self.read()[0].content, b"elsewhere")

    def test_no_directory_is_an_error(self) -> None:
        self.folder.rename(self.folder.with_name("elsewhere"))
        (outcome, *error), _ = self.asked(b"read")
        self.assertEqual(outcome, b"error")
        self.assertIsInstance(encoding.read_error(error), FileNotFoundError)

    def test_no_name_that_is_asked_for_is_heeded(self) -> None:
        for question in ([b"read", b"/etc/shadow"], [b"read", b"0"], [b"list"], []):
            (outcome, *_), _ = self.asked(*question)
            self.assertEqual(outcome, b"error", question)


class DirmakerTests(ControlFilesTestCase):
    def test_the_broker_is_told_what_is_answered(self) -> None:
        self.assertEqual(self.dirmaker(), (b"", b"="))
        (self.folder / "dirmaker").write_bytes(b"/usr/local/sbin/make it\t\nmore\n")
        program = b"/usr/local/sbin/make it"
        self.assertEqual(self.dirmaker(), (program, b"=" + program))

    def test_of_one_that_cannot_be_read_it_is_told_nothing(self) -> None:
        os.mkfifo(self.folder / "dirmaker")
        (outcome, *_), told = self.asked(b"read", text=DIRMAKER)
        self.assertEqual((outcome, told), (b"error", b""))

    @settings(max_examples=200)
    @given(
        st.builds(
            RawFile,
            st.sampled_from(sorted(STATES)),
            st.just(0),
            st.integers(0, 100),
            st.binary(max_size=LONGEST_DIRMAKER + 100),
        )
    )
    def test_any_file_is_one_line_that_a_pipe_takes_or_an_error(self, file: RawFile) -> None:
        try:
            program = dirmaker_in(file)
        except OSError:
            return
        self.assertLessEqual(len(program), LONGEST_DIRMAKER)
        self.assertFalse(set(program) & {0, 10})
        self.assertIn(file.state, (READ, MISSING))
