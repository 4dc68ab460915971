"""The child of the broker that reads one file: as it runs, in a process of its own."""

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
from qmailldap.privsep.certificate_files import MOST_OCTETS, serve
from tests.privsep.support import PACKAGE, TIME_LIMIT, isolated

SERVED = (
    "import os, sys; sys.path.append(sys.argv[1])\n"
    "from qmailldap.privsep import certificate_files\n"
    "certificate_files.serve(int(sys.argv[2]), [os.fsencode(each) for each in sys.argv[3:]])\n"
)


class CertificateFilesTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.file = self.folder / "cert.pem"
        self.file.write_bytes(b"the content")

    def asked(self, *question: bytes, text: str = SERVED) -> list[bytes] | None:
        """The answer, without its number."""
        ours, theirs = socket.socketpair()
        ours.settimeout(TIME_LIMIT)
        with ours, theirs:
            child = subprocess.Popen(
                isolated(text, PACKAGE, str(theirs.fileno()), str(self.file)),
                pass_fds=[theirs.fileno()],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            theirs.close()
            wire.send(ours, [b"7", *question])
            answer = wire.receive(ours)
            said, _ = child.communicate(timeout=TIME_LIMIT)
        self.assertEqual(said, b"")
        if answer is None:
            return None
        self.assertEqual(answer[0], b"7")
        return answer[1:]

    def error(self, *question: bytes) -> OSError:
        answer = self.asked(*question)
        assert answer is not None and answer[0] == b"error", answer
        return encoding.read_error(answer[1:])

    def test_a_file_is_read_by_its_number(self) -> None:
        self.assertEqual(self.asked(b"read", b"0"), [b"ok", b"0", b"the content"])

    def test_a_file_that_is_not_there_is_said_so(self) -> None:
        self.file.unlink()
        self.assertIsInstance(self.error(b"read", b"0"), FileNotFoundError)

    def test_what_is_no_regular_file_is_not_waited_for(self) -> None:
        self.file.unlink()
        os.mkfifo(self.file)
        self.assertIn("no regular file", str(self.error(b"read", b"0")))

    def test_no_more_is_read_than_a_certificate_has(self) -> None:
        self.file.write_bytes(b"x" * MOST_OCTETS)
        answer = self.asked(b"read", b"0")
        assert answer is not None
        self.assertEqual(len(answer[2]), MOST_OCTETS)
        with self.file.open("ab") as file:
            file.write(b"x")
        self.assertIn(f"more than {MOST_OCTETS} octets", str(self.error(b"read", b"0")))

    def test_a_read_that_hangs_is_ended_without_an_answer(self) -> None:
        hanging = (
            "import time\n"
            "certificate_files.LIMIT = 1\n"
            "certificate_files.read_regular = lambda *_: time.sleep(60)\n"
        )
        before, last = SERVED.rsplit("certificate_files.serve", 1)
        text = f"{before}{hanging}certificate_files.serve{last}"
        self.assertIsNone(self.asked(b"read", b"0", text=text))


class QuestionTests(SynchronousTestCase):
    """In this process: there is nothing in a question that needs another."""

    @settings(max_examples=200, deadline=None)
    @given(
        st.one_of(
            st.lists(st.binary(max_size=30), max_size=4),
            st.tuples(
                st.just(b"1"),
                st.just(b"read"),
                st.sampled_from([b"1", b"-1", b"+0", b"00x", b"", b"/etc/passwd", b"9" * 40]),
            ),
        )
    )
    def test_no_question_has_anything_but_a_listed_file_read(self, question: list[bytes]) -> None:
        ours, theirs = socket.socketpair()
        with ours:
            wire.send(ours, question)
            ours.shutdown(socket.SHUT_WR)
            serve(theirs.detach(), [os.fsencode(os.devnull)])
            answer = wire.receive(ours)
        assert answer is not None
        self.assertEqual(answer[1:3], [b"error", b"OSError"])

    def test_nobody_who_asks_is_no_error(self) -> None:
        ours, theirs = socket.socketpair()
        ours.close()
        self.assertIsNone(serve(theirs.detach(), []))  # type: ignore[func-returns-value]
