"""A login's request and the messages of its answer: as ldaptor makes and reads them."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from ldaptor.protocols import pureber, pureldap
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.account import ACCOUNT_ATTRIBUTES, Entry
from qmailldap.control import Control, ServerAddress
from qmailldap.directory._codec import PASSED_OVER, PassedOver, RequestTemplate, decoded
from qmailldap.directory._frames import MESSAGE_LIMIT, FrameReader
from qmailldap.directory._operations import SearchOperation, response_of, result_of
from qmailldap.directory.errors import NotLDAP
from qmailldap.directory.results import Result
from qmailldap.directory.search import Search, SearchAnswer, entry_from_result, equals
from tests.directory.fake import done, entry

message_ids = st.integers(1, 2**31 - 1)
time_limits = st.integers(0, 2**31 - 1)
octets = st.binary(max_size=300)
long_octets = st.one_of(octets, st.integers(0, 70_000).map(bytes))
terms = st.one_of(
    st.builds(equals, st.sampled_from(["objectClass", "x"]), octets),
    st.builds(pureldap.LDAPFilter_present, octets),
    st.builds(lambda value: pureldap.LDAPFilter_not(equals("o", value)), octets),
    st.builds(
        pureldap.LDAPFilter_substrings,
        octets,
        st.lists(st.builds(pureldap.LDAPFilter_substrings_any, octets), min_size=1, max_size=3),
    ),
)
names = st.one_of(
    st.sampled_from(ACCOUNT_ATTRIBUTES).map(str.encode),
    st.sampled_from([b"mailHost;lang-en", b"MAILHOST", b"userPassword", b"", b";", b"caf\xc3\xa9"]),
    st.binary(max_size=10),
)
attribute_lists = st.lists(
    st.tuples(names, st.lists(st.one_of(octets, st.just(b"x" * 200)), max_size=4)), max_size=12
)


def wire(operation: Any, message_id: int = 1) -> bytes:
    octets = pureldap.LDAPMessage(operation, id=message_id).toWire()
    assert isinstance(octets, bytes)
    return octets


def ours(message: bytes) -> Entry | Result | PassedOver | None:
    """What is decoded here of a message, None where that is left to ldaptor."""
    (frame,) = FrameReader(message_limit=10**6).feed(message)
    assert frame.octets is not None
    return decoded(frame.octets, frame.operation_at)


def ldaptors(message: bytes) -> Entry | Result | PassedOver:
    """The same by ldaptor."""
    response = response_of(message)
    if isinstance(response, pureldap.LDAPSearchResultEntry):
        return entry_from_result(response)
    if isinstance(response, pureldap.LDAPSearchResultDone):
        return result_of(response)
    if response.tag in (pureldap.LDAPSearchResultReference.tag, pureber.CLASS_APPLICATION | 0x19):
        return PASSED_OVER
    raise NotLDAP("which is of another kind")


def length(number: int, width: int) -> bytes:
    """A length in the shortest form for width 0, else in the long form of so many octets."""
    if width == 0 and number < 0x80:
        return bytes([number])
    width = max(width, (number.bit_length() + 7) // 8)
    return bytes([0x80 | width]) + number.to_bytes(width, "big")


def element(width: int, tag: int, *contents: bytes) -> bytes:
    joined = b"".join(contents)
    return bytes([tag]) + length(len(joined), width) + joined


def entry_with_lengths(width: int, dn: bytes, attributes: list[tuple[bytes, list[bytes]]]) -> bytes:
    """The message with an entry, all lengths of it in a form of so many octets."""
    listed = [
        element(
            width,
            0x30,
            element(width, 0x04, name),
            element(width, 0x31, *(element(width, 0x04, value) for value in values)),
        )
        for name, values in attributes
    ]
    found = element(width, 0x64, element(width, 0x04, dn), element(width, 0x30, *listed))
    return element(width, 0x30, b"\x02\x01\x01", found)


class RequestTests(SynchronousTestCase):
    @given(
        octets,
        st.integers(0, 2**31 - 1),
        st.booleans(),
        st.none() | st.lists(terms, min_size=1, max_size=3),
        st.lists(octets, max_size=12),
        st.lists(st.tuples(long_octets, time_limits, message_ids), min_size=1, max_size=3),
    )
    def test_a_request_is_what_ldaptor_makes_of_it(
        self,
        base: bytes,
        size_limit: int,
        types_only: bool,
        others: list[Any] | None,
        attributes: list[bytes],
        searches: list[tuple[bytes, int, int]],
    ) -> None:
        def request(value: bytes, time_limit: int) -> Any:
            match = equals("uid", value)
            return pureldap.LDAPSearchRequest(
                baseObject=base,
                sizeLimit=size_limit,
                timeLimit=time_limit,
                typesOnly=types_only,
                filter=match if others is None else pureldap.LDAPFilter_and([*others, match]),
                attributes=attributes,
            )

        template = RequestTemplate(request(b"example", 1))
        for value, time_limit, message_id in searches:
            self.assertEqual(
                template.encoded(value, time_limit, message_id),
                wire(request(value, time_limit), message_id),
            )

    @settings(deadline=None)  # The parser of filters takes its time to load.
    @given(
        st.sampled_from(["", "dc=example,dc=org", "o=" + "caf\u00e9" * 50]),
        st.sampled_from([None, "qmailUser", "*", "a)(|(b=c)(!(d=e*f))", "o" * 200]),
        st.booleans(),
        octets,
        st.floats(0, 1000),
        message_ids,
    )
    def test_the_request_of_a_login_is_that_of_its_filter(
        self,
        base: str,
        object_class: str | None,
        rebind: bool,
        login: bytes,
        limit: float,
        message_id: int,
    ) -> None:
        search = Search(
            Control(
                ldapserver=(ServerAddress("ldap"),),
                ldapbasedn=base,
                ldapobjectclass=object_class,
                ldaprebind=rebind,
            )
        )
        request = search.login_request(login, limit)
        in_full = search.request(search.filter(equals("uid", login)), limit)
        self.assertEqual(request.encoded(message_id), wire(in_full, message_id))
        self.assertEqual(request.filter.toWire(), in_full.filter.toWire())
        self.assertEqual(
            (request.baseObject, request.sizeLimit), (in_full.baseObject, in_full.sizeLimit)
        )


class AnswerTests(SynchronousTestCase):
    @given(octets, attribute_lists)
    def test_an_entry_is_what_ldaptor_reads(
        self, dn: bytes, attributes: list[tuple[bytes, list[bytes]]]
    ) -> None:
        message = wire(pureldap.LDAPSearchResultEntry(dn, attributes))
        self.assertEqual(ours(message), ldaptors(message))

    @given(st.sampled_from([1, 2, 4]), octets, attribute_lists)
    def test_lengths_may_be_longer_than_need_be(
        self, width: int, dn: bytes, attributes: list[tuple[bytes, list[bytes]]]
    ) -> None:
        # Active Directory sends all of them in four octets.
        message = entry_with_lengths(width, dn, attributes)
        shortest = wire(pureldap.LDAPSearchResultEntry(dn, attributes))
        self.assertEqual(ours(message), ours(shortest))
        self.assertEqual(ours(message), ldaptors(message))

    @given(st.integers(-(2**40), 2**40), octets, octets)
    def test_a_result_is_what_ldaptor_reads(self, code: int, dn: bytes, text: bytes) -> None:
        response = pureldap.LDAPSearchResultDone(resultCode=code, matchedDN=dn, errorMessage=text)
        message = wire(response)
        if -(2**31) <= code < 2**31:
            self.assertEqual(ours(message), Result(code, text))
        else:
            self.assertIsNone(ours(message))
        self.assertEqual(ldaptors(message), Result(code, text))

    def test_references_and_intermediate_responses_are_passed_over(self) -> None:
        for contents in (
            b"\x73\x0d\x04\x0bldap://x/dc",
            b"\x73\x06\x04\x01a\x04\x01b",
            b"\x79\x00",
            b"\x79\x0a\x80\x051.2.3\x81\x01\xff",
        ):
            message = element(0, 0x30, b"\x02\x01\x01", contents)
            self.assertIs(ours(message), PASSED_OVER)
            self.assertIs(ldaptors(message), PASSED_OVER)

    def test_what_is_not_known_here_is_ldaptors_to_read(self) -> None:
        well = b"\x0a\x01\x00\x04\x00\x04\x00"
        control = element(0, 0xA0, element(0, 0x30, element(0, 0x04, b"1.2.3")))
        found = element(0, 0x64, b"\x04\x01d", b"\x30\x00")
        for operation, meant in (
            # controls behind the response
            (element(0, 0x65, well) + control, Result(0)),
            (found + control, Entry("d", {})),
            # a referral in the result, and an element of another version of LDAP in the entry
            (element(0, 0x65, b"\x0a\x01\x0a\x04\x00\x04\x00\xa3\x03\x04\x01u"), Result(10)),
            (element(0, 0x64, b"\x04\x01d", b"\x30\x00", b"\x04\x00"), Entry("d", {})),
            # tags that say primitive where they are not
            (element(0, 0x45, well), Result(0)),
            (element(0, 0x44, b"\x04\x01d", b"\x10\x00"), Entry("d", {})),
        ):
            message = element(0, 0x30, b"\x02\x01\x01", operation)
            self.assertIsNone(ours(message), operation)
            self.assertEqual(ldaptors(message), meant, operation)

    def test_elements_that_do_not_end_with_what_holds_them_are_refused(self) -> None:
        for operation in (
            b"\x64\x7f\x04\x01d\x30\x00",
            b"\x65\x82\x00\x08\x0a\x01\x00\x04\x00\x04\x00",
            element(0, 0x64),
            element(0, 0x64, b"\x04\x01d"),
            element(0, 0x64, b"\x04\x7fd\x30\x00"),
            element(0, 0x64, b"\x04\x01d\x30\x01"),
            element(0, 0x64, b"\x04\x01d\x30\x02\x30\x04\x04\x00\x31\x00"),
            element(0, 0x64, b"\x04\x01d\x30\x04\x30\x04\x04\x00\x31\x00"),
            element(0, 0x64, b"\x04\x01d\x30\x06\x30\x04\x04\x00\x31\x02"),
            element(0, 0x64, b"\x04\x01d\x30\x08\x30\x06\x04\x00\x31\x01\x04\x00"),
            element(0, 0x64, b"\x04\x01d\x30\x08\x30\x06\x04\x00\x31\x02\x04\x01"),
            element(0, 0x64, b"\x04\x01d\x30\x08\x30\x06\x04\x00\x31\x00\x04\x00"),
            element(0, 0x65, b"\x0a\x01\x00\x04\x00"),
            element(0, 0x65, b"\x0a\x01\x00\x04\x00\x04\x01"),
            element(0, 0x73, b"\x04\x01"),
            # lengths that are indefinite, absurd, or not there
            element(0, 0x64, b"\x04\x80d\x00\x00\x30\x00"),
            element(0, 0x64, b"\x04\x85\x00\x00\x00\x00\x01d\x30\x00"),
            element(0, 0x64, b"\x04\x01d\x30\x84\x00"),
        ):
            message = element(0, 0x30, b"\x02\x01\x01", operation)
            self.assertRaises(NotLDAP, SearchOperation().receive, message, message.index(operation))

    @given(st.data())
    def test_whatever_has_become_of_an_answer_it_is_read_as_by_ldaptor_or_refused(
        self, data: st.DataObject
    ) -> None:
        """Octets of an operation changed, left out and put in; the envelope fits again."""
        operation = bytearray(
            data.draw(
                st.sampled_from(
                    [
                        entry("uid=joe", [("uid", ["joe"]), ("mailHost", ["a", "b"])]).toWire(),
                        entry("uid=joe", [("jpegPhoto", [b"x" * 200])]).toWire(),
                        entry_with_lengths(4, b"uid=joe", [(b"uid", [b"joe"]), (b"o", [])])[9:],
                        done(0, "well").toWire(),
                        b"\x73\x06\x04\x01a\x04\x01b",
                    ]
                )
            )
        )
        changes = st.tuples(
            st.sampled_from(["change", "drop", "insert", "cut"]),
            st.integers(0, 400),
            st.one_of(
                st.integers(0, 255), st.sampled_from([0x02, 0x04, 0x30, 0x31, 0x80, 0x81, 0x84])
            ),
        )
        for change, where, octet in data.draw(st.lists(changes, min_size=1, max_size=3)):
            at = where % (len(operation) or 1)
            if change == "insert":
                operation.insert(at, octet)
            elif change == "cut":
                del operation[at:]
            elif operation and change == "drop":
                del operation[at]
            elif operation:
                operation[at] = octet
        self.check(b"\x02\x01\x01" + operation)

    @given(st.sampled_from([0x64, 0x65, 0x73, 0x79]), st.binary(max_size=150))
    def test_any_octets_are_read_as_by_ldaptor_or_refused(self, tag: int, contents: bytes) -> None:
        self.check(b"\x02\x01\x01" + element(0, tag, contents))

    def check(self, contents: bytes) -> None:
        message = element(0, 0x30, contents)
        try:
            read = ours(message)
        except NotLDAP:
            if not any(octet > 0x84 for octet in contents):
                # Only of lengths that take more than four octets less is borne than by ldaptor.
                self.assertRaises(NotLDAP, ldaptors, message)
            return
        if read is not None:
            self.assertEqual(read, ldaptors(message))

    @given(st.binary(max_size=200), st.integers(0, 210))
    def test_nothing_but_not_ldap_is_ever_raised(self, octets: bytes, at: int) -> None:
        with contextlib.suppress(NotLDAP):
            decoded(octets, at)

    def test_an_entry_of_the_smallest_elements_is_read(self) -> None:
        one = element(0, 0x30, element(0, 0x04, b"o"), element(0, 0x31, b"\x04\x00"))
        count = (MESSAGE_LIMIT - 50) // len(one)
        found = element(0, 0x64, b"\x04\x00", element(0, 0x30, one * count))
        self.assertEqual(
            ours(element(0, 0x30, b"\x02\x01\x01", found)), Entry("", {"o": (b"",) * count})
        )


class OperationTests(SynchronousTestCase):
    def test_an_answer_is_the_same_whoever_reads_its_messages(self) -> None:
        control = element(0, 0xA0, element(0, 0x30, element(0, 0x04, b"1.2.3")))
        found = entry("uid=joe", [("mailHost", ["a"])]).toWire()
        for behind in (b"", control):
            operation = SearchOperation()
            answers = []
            for response in (b"\x73\x03\x04\x01u", found, done(0, "well").toWire()):
                message = element(0, 0x30, b"\x02\x01\x01", response, behind)
                (frame,) = FrameReader().feed(message)
                assert frame.octets is not None
                answers.append(operation.receive(frame.octets, frame.operation_at))
            expected = SearchAnswer(Result(0, b"well"), (Entry("uid=joe", {"mailhost": (b"a",)}),))
            self.assertEqual(answers, [None, None, expected])
