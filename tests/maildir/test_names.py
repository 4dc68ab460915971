"""Tests for `qmailldap.maildir.names`."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.maildir.names import (
    delivery_number,
    is_trashed,
    seen_name,
    size_in_name,
    stored_size,
    unique_id,
    unique_ids,
    unique_name,
)

file_names = st.binary(max_size=255).map(lambda name: name.translate(None, b"\0/"))
unique_names = file_names.map(unique_name)


class UniqueIdTests(SynchronousTestCase):
    def test_a_clean_name_is_its_own_unique_id(self) -> None:
        name = b"1700000000.M1P2.mx.example.org,S=2000"
        self.assertEqual(name, unique_id(unique_name(name + b":2,S")))

    def test_a_clean_name_beyond_70_octets_is_not_shortened(self) -> None:
        self.assertEqual(b"x" * 200, unique_id(b"x" * 200))

    def test_octets_that_may_not_be_shown_are_written_in_hex(self) -> None:
        self.assertEqual(b"a:20b:FF:7F:0A", unique_id(b"a b\xff\x7f\n"))

    def test_an_empty_name_has_a_unique_id(self) -> None:
        self.assertEqual(b":", unique_id(unique_name(b":2,S")))

    @given(unique_names, unique_names)
    @example(b"", b" ")
    @example(b"a b", b"a20b")
    def test_two_names_never_share_a_unique_id(self, one: bytes, other: bytes) -> None:
        self.assertEqual(one == other, unique_id(one) == unique_id(other))

    @given(unique_names)
    def test_a_unique_id_is_always_printable(self, name: bytes) -> None:
        shown = unique_id(name)
        self.assertTrue(shown)
        self.assertTrue(all(0x21 <= octet <= 0x7E for octet in shown))

    @given(unique_names, file_names)
    def test_flags_do_not_change_the_unique_id(self, name: bytes, flags: bytes) -> None:
        self.assertEqual(unique_id(name), unique_id(unique_name(name + b":" + flags)))


class DeliveryNumberTests(SynchronousTestCase):
    def test_the_digits_before_the_first_dot_are_the_number(self) -> None:
        self.assertEqual(1700000000, delivery_number(b"1700000000.5.mx"))
        self.assertEqual(7, delivery_number(b"007.mx"))

    def test_other_names_have_no_number(self) -> None:
        for name in (b"", b"12", b"x12.mx", b"12x.mx", b".mx", b"0.mx", b"-1.mx", b"1_0.mx"):
            self.assertIsNone(delivery_number(name), name)

    @given(file_names)
    def test_no_name_breaks_it(self, name: bytes) -> None:
        number = delivery_number(name)
        self.assertTrue(number is None or number > 0)


class SizeInNameTests(SynchronousTestCase):
    def test_the_size_on_disk_is_taken_where_it_stands_alone(self) -> None:
        self.assertEqual(2000, size_in_name(b"1.2.mx,S=2000"))

    def test_the_size_with_crlf_goes_first_in_any_order(self) -> None:
        self.assertEqual(2100, size_in_name(b"1.2.mx,S=2000,W=2100"))
        self.assertEqual(2100, size_in_name(b"1.2.mx,W=2100,S=2000"))

    def test_what_is_no_number_is_no_size(self) -> None:
        for name in (b"mx", b"mx,S=", b"mx,S=-1", b"mx,S=1k", b"mx,S= 1", b"S=1", b"mx,s=1"):
            self.assertIsNone(size_in_name(name), name)

    def test_a_bad_size_with_crlf_leaves_the_good_one_on_disk(self) -> None:
        self.assertEqual(5, size_in_name(b"mx,S=5,W=x"))

    def test_a_number_too_long_for_any_file_is_no_size(self) -> None:
        self.assertIsNone(size_in_name(b"mx,S=" + b"9" * 200))
        self.assertIsNone(size_in_name(b"mx,W=" + b"9" * 19))

    @given(file_names)
    def test_no_name_breaks_it(self, name: bytes) -> None:
        for text in (name, b"mx,S=" + name, b"mx,W=" + name):
            size = size_in_name(text)
            self.assertTrue(size is None or 0 <= size < 2**63)


class UniqueIdsTests(SynchronousTestCase):
    @given(st.lists(file_names | st.sampled_from([b"", b"1.mx", b"1.m x"]), max_size=6))
    def test_all_at_once_comes_to_the_same_as_one_by_one(self, names: list[bytes]) -> None:
        uniques = [unique_name(name) for name in names]
        self.assertEqual([unique_id(each) for each in uniques], unique_ids(uniques))


class StoredSizeTests(SynchronousTestCase):
    def test_the_size_with_crlf_is_not_what_a_disk_holds(self) -> None:
        self.assertEqual(2000, stored_size(b"1.2.mx,S=2000,W=2100"))
        self.assertEqual(2000, stored_size(b"1.2.mx,W=2100,S=2000"))
        self.assertIsNone(stored_size(b"1.2.mx,W=2100"))

    def test_what_is_no_number_is_no_size(self) -> None:
        for name in (b"mx", b"mx,S=", b"mx,S=-1", b"mx,S=1k", b"mx,s=1", b"mx,S=" + b"9" * 19):
            self.assertIsNone(stored_size(name), name)

    @given(file_names)
    def test_no_name_breaks_it(self, name: bytes) -> None:
        size = stored_size(b"mx,S=" + name)
        self.assertTrue(size is None or 0 <= size < 2**63)


class IsTrashedTests(SynchronousTestCase):
    def test_the_flag_is_one_of_those_behind_the_colon(self) -> None:
        for name in (b"1.mx:2,T", b"1.mx:2,ST", b"1.mx:2,RST", b"1.mx:2,T,x", b"cur/1.mx:2,T"):
            self.assertTrue(is_trashed(name), name)

    def test_a_letter_elsewhere_is_no_flag(self) -> None:
        for name in (b"1.T", b"1.T:2,S", b"1.mx:1,T", b"1.mx:2,S,T", b"1.mx:2T", b"T", b"1.mx:2,t"):
            self.assertFalse(is_trashed(name), name)


class SeenNameTests(SynchronousTestCase):
    def test_an_info_part_is_added(self) -> None:
        self.assertEqual(b"1.mx:2,", seen_name(b"1.mx"))

    def test_an_info_part_that_is_there_is_kept(self) -> None:
        self.assertEqual(b"1.mx:2,FS", seen_name(b"1.mx:2,FS"))

    @given(file_names)
    def test_the_unique_name_stays(self, name: bytes) -> None:
        self.assertEqual(unique_name(name), unique_name(seen_name(name)))
        self.assertIn(b":2,", seen_name(name))
