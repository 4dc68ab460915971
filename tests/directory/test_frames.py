"""Cutting octets into LDAP messages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.directory._frames import Frame, FrameReader
from qmailldap.directory.errors import NotLDAP


def message(message_id: int, size: int = 0) -> bytes:
    contents = b"\x02\x01" + bytes([message_id]) + b"x" * size
    return b"\x30\x84" + len(contents).to_bytes(4, "big") + contents


class FrameReaderTests(SynchronousTestCase):
    @given(st.lists(st.integers(0, 40), max_size=6), st.data())
    def test_messages_come_out_whole_however_they_are_cut(
        self, sizes: list[int], data: st.DataObject
    ) -> None:
        messages = [message(number + 1, size) for number, size in enumerate(sizes)]
        stream = b"".join(messages)
        reader, frames = FrameReader(), []
        while stream:
            cut = data.draw(st.integers(1, len(stream)))
            frames += list(reader.feed(stream[:cut]))
            stream = stream[cut:]
        expected = [Frame(number + 1, octets, 9) for number, octets in enumerate(messages)]
        self.assertEqual(frames, expected)
        self.assertFalse(reader.in_a_message)

    def test_a_message_above_the_limit_is_passed_over_and_the_next_is_read(self) -> None:
        reader = FrameReader(message_limit=50)
        stream = message(1, 1000) + message(2)
        frames = [frame for i in range(len(stream)) for frame in reader.feed(stream[i : i + 1])]
        self.assertEqual(frames, [Frame(1, None, 0), Frame(2, message(2), 9)])

    def test_what_is_held_stays_within_the_limit(self) -> None:
        reader = FrameReader(message_limit=50)
        for _ in range(100):
            list(reader.feed(message(1, 1000)))
        self.assertFalse(reader.in_a_message)
        list(reader.feed(message(1, 1000)[:200]))
        self.assertTrue(reader.in_a_message)
        self.assertEqual(reader.held, 0)

    def test_what_is_no_envelope_is_refused_at_once(self) -> None:
        for octets in (
            b"HTTP/1.1 400 Bad Request",
            b"\x00",
            b"\x30\x80",  # indefinite length
            b"\x30\x88",
            b"\x30\x84\x7f\xff\xff\xff",  # 2 GiB
            b"\x30\x00",
            b"\x30\x01\x02",
            b"\x30\x02\x02\x00",
            b"\x30\x03\x04\x01\x01",
            b"\x30\x0a\x02\x08\x01\x01\x01\x01\x01\x01\x01\x01",
        ):
            with self.assertRaises(NotLDAP, msg=repr(octets)):
                list(FrameReader().feed(octets))

    @given(st.binary())
    def test_any_octets_make_frames_or_are_refused(self, octets: bytes) -> None:
        try:
            frames = list(FrameReader().feed(octets))
        except NotLDAP:
            return
        self.assertTrue(octets.startswith(b"".join(frame.octets or b"" for frame in frames)))
