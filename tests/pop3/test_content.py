"""Dot-stuffing and TOP against simple models: any content, cut anywhere."""

from __future__ import annotations

import io
import poplib
from collections.abc import Iterator
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.pop3.content import DotStuffer, TopOfMessage, framed, lines_at_once

# Every interesting octet, often.
CONTENT = st.lists(st.sampled_from([b"\n", b"\r", b".", b"\r\n", b"\r\n.\r\n", b"a", b"\xe9"])).map(
    b"".join
)


def cut(content: bytes, places: list[int]) -> list[bytes]:
    """The content as chunks; none is empty, as an empty one stands for the end."""
    chunks = []
    for place in places:
        chunks.append(content[:place])
        content = content[place:]
    return [chunk for chunk in [*chunks, content] if chunk]


def sent(chunks: list[bytes]) -> bytes:
    stuffer = DotStuffer()
    return b"".join([stuffer.encode(chunk) for chunk in chunks]) + stuffer.finish()


def received(response: bytes) -> list[bytes]:
    """The lines that poplib makes of a multi-line response."""
    client: Any = poplib.POP3.__new__(poplib.POP3)
    client._debugging = 0
    client.file = io.BytesIO(b"+OK \r\n" + response)
    _, lines, _ = client._getlongresp()
    assert client.file.read() == b"", "something stands behind the end"
    return list(lines)


def lines_of(content: bytes) -> list[bytes]:
    """The model: lines end with LF or CRLF, the last one may have no end."""
    lines = content.split(b"\n")
    ended = lines.pop()
    return [line.removesuffix(b"\r") for line in lines] + ([ended] if ended else [])


CUTS = st.lists(st.integers(0, 6), max_size=30)


class DotStufferTests(SynchronousTestCase):
    def test_lf_and_crlf_files_are_sent_alike(self) -> None:
        self.assertEqual(sent([b"a\n\nb\n"]), b"a\r\n\r\nb\r\n.\r\n")
        self.assertEqual(sent([b"a\r\n\r\nb\r\n"]), b"a\r\n\r\nb\r\n.\r\n")

    def test_a_dot_at_the_start_of_the_message_is_stuffed(self) -> None:
        self.assertEqual(sent([b".\n"]), b"..\r\n.\r\n")

    def test_a_dot_at_a_chunk_boundary_is_stuffed(self) -> None:
        self.assertEqual(sent([b"a\n", b".\n", b"."]), b"a\r\n..\r\n..\r\n.\r\n")

    def test_a_crlf_cut_in_two_stays_one(self) -> None:
        self.assertEqual(sent([b"a\r", b"\n.b\r", b"\n"]), b"a\r\n..b\r\n.\r\n")

    def test_a_cr_elsewhere_is_passed_on(self) -> None:
        self.assertEqual(sent([b"a\rb\r\r\n", b"\r"]), b"a\rb\r\r\n\r\r\n.\r\n")

    def test_an_empty_message_is_just_its_end(self) -> None:
        self.assertEqual(sent([]), b".\r\n")

    def test_a_last_line_without_an_end_gets_one(self) -> None:
        self.assertEqual(sent([b"a"]), b"a\r\n.\r\n")

    @given(CONTENT, CUTS)
    @example(b"\r\n.\r\n", [1, 1, 1, 1])
    def test_poplib_gets_the_lines_back_however_they_are_cut(
        self, content: bytes, places: list[int]
    ) -> None:
        self.assertEqual(received(sent(cut(content, places))), lines_of(content))

    @given(st.binary(max_size=200), CUTS)
    def test_poplib_gets_any_octets_back(self, content: bytes, places: list[int]) -> None:
        self.assertEqual(received(sent(cut(content, places))), lines_of(content))


class TopOfMessageTests(SynchronousTestCase):
    def top(self, lines: int, chunks: list[bytes]) -> bytes:
        top = TopOfMessage(lines)
        taken = []
        for chunk in chunks:
            taken.append(top.take(chunk))
            if top.complete:
                break
        return b"".join(taken)

    def test_no_lines_is_the_header_and_its_end(self) -> None:
        self.assertEqual(self.top(0, [b"A: b\n\nbody\n"]), b"A: b\n\n")

    def test_lines_are_counted_behind_the_header(self) -> None:
        self.assertEqual(self.top(2, [b"A: b\r\n\r\n1\r\n2\r\n3\r\n"]), b"A: b\r\n\r\n1\r\n2\r\n")

    def test_a_message_without_body_is_sent_whole(self) -> None:
        self.assertEqual(self.top(3, [b"A: b\nC: d"]), b"A: b\nC: d")

    def test_a_message_that_starts_with_an_empty_line_has_no_header(self) -> None:
        self.assertEqual(self.top(1, [b"\n1\n2\n"]), b"\n1\n")

    @given(CONTENT, CUTS, st.integers(0, 5))
    def test_the_top_is_that_of_the_model(
        self, content: bytes, places: list[int], wanted: int
    ) -> None:
        lines = [line + b"\n" for line in content.split(b"\n")]
        lines[-1] = lines[-1][:-1]
        header = next((n for n, line in enumerate(lines) if line in (b"\n", b"\r\n")), len(lines))
        expected = b"".join(lines[: header + 1 + wanted])
        self.assertEqual(self.top(wanted, cut(content, places)), expected)


class ListingTests(SynchronousTestCase):
    @given(st.lists(st.binary(min_size=1, max_size=5), max_size=10))
    def test_its_pieces_are_in_a_frame(self, pieces: list[bytes]) -> None:
        chunks = list(framed(iter(pieces)))
        self.assertEqual(b"".join(chunks), b"".join([b"+OK \r\n", *pieces, b".\r\n"]))
        self.assertEqual(len(chunks), max(1, len(pieces)))

    def test_one_piece_is_looked_at_ahead_and_no_more(self) -> None:
        asked: list[int] = []

        def pieces() -> Iterator[bytes]:
            for number in range(10):
                asked.append(number)
                yield b"line\r\n"

        chunks = framed(pieces())
        for count in (2, 3, 4):
            next(chunks)
            self.assertEqual(len(asked), count)

    def test_a_small_piece_has_a_line_at_least(self) -> None:
        self.assertEqual([lines_at_once(octets) for octets in (1, 64, 65536)], [1, 1, 1024])
