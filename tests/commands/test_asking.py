"""A password read from standard input; tests/integration/test_digest.py has a terminal."""

from __future__ import annotations

import io
import sys

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.commands.asking import ask_password


class StandardInputTests(SynchronousTestCase):
    def read(self, octets: bytes) -> bytes:
        self.patch(sys, "stdin", io.TextIOWrapper(io.BytesIO(octets), encoding="ascii"))
        return ask_password("Password", confirm=True)

    def refused(self, octets: bytes) -> str:
        error = self.assertRaises(SystemExit, self.read, octets)
        self.assertNotIn("secret", str(error.code))
        return str(error.code)

    def test_the_first_line_is_the_password(self) -> None:
        for octets in (b"secret\n", b"secret", b"secret\nmore\n", b"secret\n\n"):
            self.assertEqual(self.read(octets), b"secret")

    @given(st.binary(max_size=300).filter(lambda octets: b"\n" not in octets))
    def test_every_octet_but_the_newline_is_of_the_password(self, password: bytes) -> None:
        self.assertEqual(self.read(password + b"\n"), password)

    def test_an_empty_line_is_an_empty_password(self) -> None:
        self.assertEqual(self.read(b"\n"), b"")

    def test_no_line_is_no_password(self) -> None:
        self.assertIn("no password", self.refused(b""))

    def test_no_standard_input_is_no_password(self) -> None:
        self.patch(sys, "stdin", None)
        self.assertIn("closed", str(self.assertRaises(SystemExit, ask_password, "P").code))

    def test_its_length_is_bounded(self) -> None:
        self.assertEqual(self.read(b"s" * 65536 + b"\n"), b"s" * 65536)
        self.assertIn("65536", self.refused(b"secret" + b"s" * 65536))
