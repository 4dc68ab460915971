"""Whatever a client sends, a log line stays one line of plain characters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.printable import printable


class PrintableTests(SynchronousTestCase):
    def test_an_ordinary_name_stays_as_it_is(self) -> None:
        self.assertEqual(printable(b"joe.smith+pop@example.org"), "joe.smith+pop@example.org")

    def test_anything_else_is_quoted(self) -> None:
        self.assertEqual(printable(b""), '""')
        self.assertEqual(printable(b"a b"), '"a b"')
        self.assertEqual(printable(b"a\nlogin user=b"), '"a\\x0alogin user=b"')
        self.assertEqual(printable(b"\x1b[2J\xe9"), '"\\x1b[2J\\xe9"')
        self.assertEqual(printable(b'"\\'), '"\\x22\\x5c"')

    def test_a_long_name_is_cut(self) -> None:
        self.assertEqual(printable(b"a" * 10_000, most=5), '"aaaaa"...')

    @given(st.binary(max_size=300))
    def test_the_result_is_safe_and_tells_values_apart(self, value: bytes) -> None:
        shown = printable(value, most=300)
        self.assertTrue(shown.isascii() and shown.isprintable())
        if shown.startswith('"'):
            self.assertNotIn('"', shown[1:-1])
            decoded = shown[1:-1].encode().decode("unicode_escape").encode("latin-1")
            self.assertEqual(decoded, value)
        else:
            self.assertEqual(shown.encode(), value)
