"""Command lines, however they arrive."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.pop3.lines import LineBuffer, LineTooLong

LONGEST = 10


def lines_of(*pieces: bytes) -> list[bytes | None]:
    """Every line that comes out, None for one that was too long."""
    buffer = LineBuffer()
    lines: list[bytes | None] = []
    for piece in pieces:
        buffer.append(piece)
        while True:
            try:
                line = buffer.next_line(LONGEST)
            except LineTooLong:
                lines.append(None)
                continue
            if line is None:
                break
            lines.append(line)
        assert len(buffer) <= LONGEST + 1
        assert buffer.whole == 0
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

    def test_whole_lines_are_counted(self) -> None:
        buffer = LineBuffer()
        for octets, whole in ((b"a", 0), (b"\nb\r\n", 2), (b"c" * 20, 2), (b"\n", 3)):
            buffer.append(octets)
            self.assertEqual(buffer.whole, whole)
        self.assertEqual(buffer.next_line(LONGEST), b"a")
        self.assertEqual(buffer.whole, 2)
        self.assertEqual(buffer.take_all(), b"b\r\n" + b"c" * 20 + b"\n")
        self.assertEqual(buffer.whole, 0)

    def test_how_long_a_line_may_be_can_differ_from_line_to_line(self) -> None:
        buffer = LineBuffer()
        buffer.append(b"x" * 20 + b"\n" + b"y" * 20 + b"\n")
        self.assertEqual(buffer.next_line(20), b"x" * 20)
        self.assertRaises(LineTooLong, buffer.next_line, 10)

    def test_what_is_taken_away_does_not_make_the_next_line_too_long(self) -> None:
        buffer = LineBuffer()
        buffer.append(b"x" * 50)
        self.assertIsNone(buffer.next_line(LONGEST))
        buffer.take_all()
        buffer.append(b"ok\n")
        self.assertEqual(buffer.next_line(LONGEST), b"ok")
