"""The search of a login as data."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from ldaptor.protocols import pureber, pureldap
from ldaptor.protocols.ldap.ldapserver import BaseLDAPServer
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.account import ACCOUNT_ATTRIBUTES
from qmailldap.control import Control, ControlError, ServerAddress
from qmailldap.directory.errors import NotLDAP
from qmailldap.directory.search import Search, entry_from_result, equals, search_filter


def control(
    ldapobjectclass: str | None = None, ldapbasedn: str = "dc=org", ldaprebind: bool = False
) -> Control:
    return Control(
        ldapserver=(ServerAddress("ldap"),),
        ldapbasedn=ldapbasedn,
        ldapobjectclass=ldapobjectclass,
        ldaprebind=ldaprebind,
    )


JOE = equals("uid", b"joe")


def request_for(search: Search, login: bytes, limit: float) -> Any:
    return search.request(search.filter(equals("uid", login)), limit)


def decoded(request: Any) -> Any:
    """The request as a server sees it."""
    octets = pureldap.LDAPMessage(request, id=1).toWire()
    message, size = pureber.berDecodeObject(BaseLDAPServer.berdecoder, octets)
    assert size == len(octets)
    return message.value


class SearchFilterTests(SynchronousTestCase):
    @given(st.binary())
    def test_a_login_is_the_value_of_an_assertion_and_nothing_else(self, login: bytes) -> None:
        filter = decoded(request_for(Search(control()), login, 5)).filter
        self.assertIsInstance(filter, pureldap.LDAPFilter_equalityMatch)
        self.assertEqual(filter.attributeDesc.value, b"uid")
        self.assertEqual(filter.assertionValue.value, login)

    @given(st.binary())
    def test_a_login_leaves_the_other_terms_alone(self, login: bytes) -> None:
        search = Search(control("qmailUser)(accountStatus=active"))
        *terms, uid = decoded(request_for(search, login, 5)).filter
        found = [(term.attributeDesc.value, term.assertionValue.value) for term in terms]
        self.assertEqual(found, [(b"objectClass", b"qmailUser"), (b"accountStatus", b"active")])
        self.assertIsInstance(uid, pureldap.LDAPFilter_equalityMatch)
        self.assertEqual((uid.attributeDesc.value, uid.assertionValue.value), (b"uid", login))

    def test_the_object_class_may_be_any_terms(self) -> None:
        for text, count in (
            ("qmailUser", 2),
            ("*", 2),
            ("a)(|(b=c)(!(d=e*f))", 3),
            ("a)(!(accountStatus=deleted)", 3),
        ):
            filter = search_filter(control(text))(JOE)
            self.assertIsInstance(filter, pureldap.LDAPFilter_and)
            self.assertEqual(len(list(filter)), count, text)

    def test_blanks_between_terms_count_for_nothing(self) -> None:
        for text, meant in (
            ("qmailUser) (accountStatus=active", "qmailUser)(accountStatus=active"),
            (" qmailUser)\t (accountStatus=active ", "qmailUser)(accountStatus=active"),
            ("a) (| (b=c) (! (d=e*f) ) ", "a)(|(b=c)(!(d=e*f))"),
            ("a)(| (b=c & d) (e=f) )(g=h", "a)(|(b=c & d)(e=f))(g=h"),
        ):
            found, expected = search_filter(control(text)), search_filter(control(meant))
            self.assertEqual(found(JOE).toWire(), expected(JOE).toWire(), text)

    def test_blanks_in_a_value_are_left_alone(self) -> None:
        for text in (r"a)(o=Sue & Co", r"a)(o=a\29 \28b", "a)(o=x ! y)(c=d"):
            value = search_filter(control(text))(JOE)[1].assertionValue.value
            self.assertEqual(value.count(" "), text.count(" "), text)

    def test_an_escaped_value_is_sent_as_the_octets_that_were_meant(self) -> None:
        terms = search_filter(control(r"a)(o=caf\c3\a9\2a"))(b"joe")
        self.assertEqual(terms[1].assertionValue.toWire(), b"\x04\x06caf\xc3\xa9*")

    def test_an_object_class_that_does_not_parse_names_its_control_file(self) -> None:
        for text in ("a)", "(a", "a))(uid=*", "a)(b", "a)(&", "a\\zz", "", "\\ff", "a\0"):
            error = self.assertRaises(ControlError, search_filter, control(text))
            self.assertEqual(error.file, "ldapobjectclass")

    def test_a_base_that_is_no_name_is_refused_and_names_its_control_file(self) -> None:
        for text in (
            "example",
            "dc=org,example",
            "dc=org\\",
            "dc=a,,dc=b",
            "=x",
            "dc=a,=x",
            "dc=a,",
            "dc=a, ",
            ",dc=a",
            "dc=a+",
            "dc=a+b",
            r"dc=\zz",
            r"dc=\2",
            "d c=a",
            "1.=a",
            "caf\u00e9=a",
            'o="a,c=b',
        ):
            error = self.assertRaises(ControlError, Search, control(ldapbasedn=text))
            self.assertEqual(error.file, "ldapbasedn", text)

    def test_a_base_may_be_any_name(self) -> None:
        for text in (
            "",
            "dc=org",
            "dc=a, dc=b ,dc=c",
            "DC = a , DC = b",
            "dc=a;dc=b",
            "o=caf\u00e9, c=FR",
            "cn=a+uid=b + sn=c,o=d",
            "o=a\\, b",
            r"o=a\2C b,c=\C3\A9",
            r"o=\#a\ ,c=\"b\\",
            'o="Sue, Grabbit", c=GB',
            r'o="a \"b\" c"+ou=d , c=GB',
            "2.5.4.10=#04024869,OID.2.5.4.6=x",
            "o=a=b",
            "o=",
        ):
            request = decoded(request_for(Search(control(ldapbasedn=text)), b"joe", 1))
            self.assertEqual(request.baseObject, text.encode(), text)

    def test_no_warning_is_shown_on_import(self) -> None:
        shown = subprocess.run(
            [sys.executable, "-W", "always", "-c", "import qmailldap.directory"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
        ).stderr
        self.assertNotIn(b"ldaptor/ldapfilter", shown)
        self.assertNotIn(b"Pyparsing", shown)


class SearchRequestTests(SynchronousTestCase):
    def test_it_is_one_subtree_search_for_at_most_two_entries(self) -> None:
        request = decoded(request_for(Search(control()), b"joe", 4.2))
        self.assertEqual(request.baseObject, b"dc=org")
        self.assertEqual(request.scope, pureldap.LDAP_SCOPE_wholeSubtree)
        self.assertEqual((request.sizeLimit, request.timeLimit), (2, 5))

    def test_a_sample_is_one_entry_of_the_object_class_without_attributes(self) -> None:
        for text, count in (("qmailUser", 2), ("qmailUser)(accountStatus=active", 3)):
            request = decoded(Search(control(text)).sample_request(4.2))
            self.assertEqual((request.sizeLimit, request.timeLimit), (1, 5))
            self.assertEqual(request.scope, pureldap.LDAP_SCOPE_wholeSubtree)
            self.assertEqual(request.attributes, [b"1.1"])
            self.assertEqual(len(list(request.filter)), count)
            self.assertEqual(request.filter[0].assertionValue.value, b"qmailUser")

    def test_the_hash_is_asked_for_where_it_proves_passwords(self) -> None:
        names = [name.encode() for name in ACCOUNT_ATTRIBUTES]
        request = decoded(request_for(Search(control()), b"joe", 1))
        self.assertEqual(request.attributes, [*names, b"userPassword"])
        request = decoded(request_for(Search(control(ldaprebind=True)), b"joe", 1))
        self.assertEqual(request.attributes, names)


class EntryTests(SynchronousTestCase):
    def entry(self, dn: bytes, *attributes: tuple[bytes, list[bytes]]) -> Any:
        message = pureldap.LDAPSearchResultEntry(dn, list(attributes))
        octets = pureldap.LDAPMessage(message, id=1).toWire()
        return entry_from_result(
            pureber.berDecodeObject(BaseLDAPServer.berdecoder, octets)[0].value
        )

    def test_names_are_lower_case_and_have_no_options(self) -> None:
        entry = self.entry(b"dc=org", (b"mailHost", [b"a"]), (b"MAILHOST;lang-en", [b"b"]))
        self.assertEqual(entry.attributes, {"mailhost": (b"a", b"b")})
        self.assertEqual(entry.values("mailHost"), (b"a", b"b"))

    @given(st.binary())
    def test_any_name_and_value_come_back_as_they_were(self, octets: bytes) -> None:
        entry = self.entry(octets, (b"userPassword", [octets]))
        self.assertEqual(entry.dn.encode("utf-8", "surrogateescape"), octets)
        self.assertEqual(entry.values("userpassword"), (octets,))

    def test_values_are_not_shown(self) -> None:
        self.assertNotIn("secret", repr(self.entry(b"dc=org", (b"userPassword", [b"secret"]))))

    def test_a_value_that_is_not_octets_is_refused(self) -> None:
        message = pureldap.LDAPSearchResultEntry(b"dc=org", [(b"uid", [7])])
        self.assertRaises(NotLDAP, entry_from_result, message)
