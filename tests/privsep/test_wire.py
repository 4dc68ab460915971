"""Frames: whole ones come back as they were, and all else is refused."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.privsep import wire
from qmailldap.privsep.wire import FrameError
from tests.maildir.support import open_descriptors

field_lists = st.lists(st.binary(max_size=60), max_size=12)


class FrameTests(SynchronousTestCase):
    def test_a_frame_is_its_length_and_then_each_field_behind_its_own(self) -> None:
        self.assertEqual(wire.frame([b"ab", b""]), b"\0\0\0\x0a\0\0\0\x02ab\0\0\0\0")
        self.assertEqual(wire.frame([]), b"\0\0\0\0")

    @settings(deadline=None)
    @given(field_lists)
    def test_the_fields_come_back_as_they_were(self, fields: list[bytes]) -> None:
        frame = wire.frame(fields)
        self.assertEqual(int.from_bytes(frame[:4], "big"), len(frame) - 4)
        self.assertEqual(wire.fields_of(frame[4:]), fields)

    @settings(deadline=None)
    @given(st.binary(max_size=60))
    def test_any_octets_are_fields_or_a_frame_error(self, body: bytes) -> None:
        try:
            fields = wire.fields_of(body)
        except FrameError:
            return
        self.assertEqual(wire.frame(fields)[4:], body)

    @settings(deadline=None)
    @given(field_lists.filter(bool), st.data())
    def test_a_frame_that_was_cut_never_has_as_many_fields(
        self, fields: list[bytes], data: st.DataObject
    ) -> None:
        body = wire.frame(fields)[4:]
        cut = body[: data.draw(st.integers(0, len(body) - 1))]
        try:
            left = wire.fields_of(cut)
        except FrameError:
            return
        self.assertLess(len(left), len(fields))
        self.assertEqual(left, fields[: len(left)])

    def test_a_field_longer_than_its_frame_is_refused(self) -> None:
        for body in (b"\xff\xff\xff\xff", b"\0\0\0\x02a", b"\0\0\0\x01ab\0\0\0"):
            with self.assertRaises(FrameError):
                wire.fields_of(body)


class ConnectionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ours, self.theirs = self.pair()

    def pair(self) -> tuple[socket.socket, socket.socket]:
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        return ours, theirs

    def received_from(self, octets: bytes) -> list[bytes] | None:
        """What is received when these octets come, and then the end."""
        self.theirs.sendall(octets)
        self.theirs.close()
        return wire.receive(self.ours)

    @settings(deadline=None, max_examples=50)
    @given(st.lists(field_lists, max_size=4), st.lists(st.integers(1, 40), min_size=1))
    def test_frames_are_received_whatever_pieces_they_come_in(
        self, frames: Sequence[list[bytes]], cuts: Sequence[int]
    ) -> None:
        ours, theirs = socket.socketpair()
        octets = b"".join(map(wire.frame, frames))

        def send() -> None:
            at = 0
            with theirs:
                while at < len(octets):
                    for size in cuts:
                        theirs.sendall(octets[at : at + size])
                        at += size

        sender = threading.Thread(target=send)
        with ours:
            sender.start()
            received = []
            while (fields := wire.receive(ours)) is not None:
                received.append(fields)
            sender.join()
        self.assertEqual(received, list(frames))

    def test_the_end_between_frames_is_the_end(self) -> None:
        wire.send(self.theirs, [b"a"])
        self.theirs.close()
        self.assertEqual(wire.receive(self.ours), [b"a"])
        self.assertIsNone(wire.receive(self.ours))
        self.assertIsNone(wire.receive(self.ours))

    def test_the_end_within_a_frame_is_a_fault_wherever_it_comes(self) -> None:
        frame = wire.frame([b"ab", b"c"])
        for size in range(1, len(frame)):
            self.ours, self.theirs = self.pair()
            with self.assertRaises(FrameError):
                self.received_from(frame[:size])

    def test_a_frame_of_no_fields_is_not_the_end(self) -> None:
        self.assertEqual(self.received_from(wire.frame([])), [])

    def test_no_more_octets_are_taken_than_are_allowed(self) -> None:
        frame = wire.frame([b"abc"])
        wire.send(self.theirs, [b"abc"])
        self.assertEqual(wire.receive(self.ours, most=len(frame) - 4), [b"abc"])
        wire.send(self.theirs, [b"abc"])
        with self.assertRaises(FrameError):
            wire.receive(self.ours, most=len(frame) - 5)

    def test_a_frame_said_to_be_huge_is_refused_before_it_comes(self) -> None:
        self.theirs.sendall(b"\xff\xff\xff\xff")
        with self.assertRaises(FrameError):
            wire.receive(self.ours)

    def test_files_arrive_with_the_first_octets_of_their_frame(self) -> None:
        before = open_descriptors()
        reader, writer = os.pipe()
        wire.send(self.theirs, [b"a"], [writer])
        os.close(writer)
        octets, files, _, _ = socket.recv_fds(self.ours, 1, 4)
        self.assertEqual((octets, len(files)), (b"\0", 1))
        os.write(files[0], b"x")
        self.assertEqual(os.read(reader, 9), b"x")
        os.close(files[0])
        os.close(reader)
        self.assertEqual(open_descriptors(), before)

    def test_a_frame_that_the_socket_cannot_hold_is_sent_whole_with_its_files(self) -> None:
        field = os.urandom(3_000_000)
        files: list[int] = []
        received = bytearray()

        def receive() -> None:
            while octets := socket.recv_fds(self.ours, 65536, 4):
                received.extend(octets[0])
                files.extend(octets[1])
                if not octets[0]:
                    break

        receiver = threading.Thread(target=receive)
        receiver.start()
        wire.send(self.theirs, [field], [self.ours.fileno()])
        self.theirs.close()
        receiver.join()
        for file in files:
            os.close(file)
        self.assertEqual(len(files), 1)
        self.assertEqual(bytes(received), wire.frame([field]))

    def test_nobody_listening_is_an_error(self) -> None:
        self.ours.close()
        with self.assertRaises(OSError):
            wire.send(self.theirs, [b"a"])
