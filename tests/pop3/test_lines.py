"""Command lines, however they arrive."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.pop3.lines import LineBuffer, LineTooLong

LONGEST = 10


def lines_of(*pieces: bytes) -> list[bytes | None]:
    """Every line that comes out, None for one that was too long."""
    buffer = LineBuffer(LONGEST)
    lines: list[bytes | None] = []
    for piece in pieces:
        buffer.append(piece)
        while True:
            try:
                line = buffer.next_line()
            except LineTooLong:
                lines.append(None)
                continue
            if line is None:
                break
            lines.append(line)
        assert len(buffer) <= LONGEST + 1
    return lines


class LineBufferTests(SynchronousTestCase):
    def test_a_line_ends_with_crlf_or_lf(self) -> None:
        self.assertEqual(lines_of(b"a\r\nb\n\r\nc"), [b"a", b"b", b""])

    def test_only_one_cr_is_taken_off(self) -> None:
        self.assertEqual(lines_of(b"a\r\r\n\rb\n"), [b"a\r", b"\rb"])

    def test_a_line_of_just_the_limit_is_taken(self) -> None:
        self.assertEqual(lines_of(b"0123456789\r\n", b"0123456789\r", b"\n"), [b"0123456789"] * 2)

    def test_a_longer_line_is_reported_once_and_the_next_one_read(self) -> None:
        self.assertEqual(lines_of(b"x" * 11 + b"\r\nok\r\n"), [None, b"ok"])
        self.assertEqual(lines_of(*[b"x" * 7] * 1000, b"\r\n", b"ok\r\n"), [None, b"ok"])

    @given(st.lists(st.sampled_from([b"a", b"bb", b"\r", b"\n", b"\r\n", b"c" * 9]), max_size=40))
    def test_the_cutting_of_the_stream_makes_no_difference(self, pieces: list[bytes]) -> None:
        whole = b"".join(pieces)
        expected: list[bytes | None] = []
        for line in whole.split(b"\n")[:-1]:
            line = line.removesuffix(b"\r")
            expected.append(line if len(line) <= LONGEST else None)
        self.assertEqual(lines_of(*pieces), expected)
        self.assertEqual(lines_of(*(bytes([octet]) for octet in whole)), expected)
