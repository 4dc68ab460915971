"""Filters as text."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from ldaptor.protocols import pureldap
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.directory.filter_text import filter_text
from qmailldap.directory.search import equals, parse_filter

attributes = st.sampled_from(["uid", "mail", "mailAlternateAddress"])
values = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)


def escaped(value: str) -> str:
    return "".join(f"\\{octet:02x}" for octet in value.encode("utf-8"))


comparisons = st.tuples(attributes, st.sampled_from(["=", ">=", "<=", "~="]), values).map(
    lambda parts: f"({parts[0]}{parts[1]}{escaped(parts[2])})"
)
patterns = st.tuples(
    attributes, st.lists(values, min_size=1, max_size=4), st.booleans(), st.booleans()
).map(
    lambda parts: (
        f"({parts[0]}={'*' * (parts[2] or len(parts[1]) < 2)}"
        f"{'*'.join(map(escaped, parts[1]))}{'*' * parts[3]})"
    )
)
leaves = comparisons | patterns | attributes.map(lambda name: f"({name}=*)")
filters = st.recursive(
    leaves,
    lambda inner: (
        inner.map(lambda one: f"(!{one})")
        | st.tuples(st.sampled_from("&|"), st.lists(inner, min_size=1, max_size=3)).map(
            lambda parts: f"({parts[0]}{''.join(parts[1])})"
        )
    ),
    max_leaves=5,
)


class FilterTextTests(SynchronousTestCase):
    def test_filters_are_written_as_they_are_typed(self) -> None:
        for text in (
            "(uid=joe)",
            "(&(objectClass=qmailUser)(uid=joe@example.org))",
            "(|(uid=a)(!(mail=*)))",
            "(a>=1)",
            "(a<=1)",
            "(a~=x y)",
            "(a=b*)",
            "(a=*b)",
            "(a=*b*)",
            "(a=b*c*d)",
            "(a:dn:2.4.6:=x)",
            "(a:=x)",
        ):
            self.assertEqual(filter_text(parse_filter(text)), text)

    def test_a_login_may_hold_any_octets(self) -> None:
        text = filter_text(equals("uid", b'j(o)*\\"\0\xff\n{e}'))
        self.assertEqual(text, r"(uid=j\28o\29\2a\5c\22\00\ff\0a{e})")

    @given(st.binary())
    def test_it_is_printable_and_fits_into_quotes(self, login: bytes) -> None:
        text = filter_text(pureldap.LDAPFilter_and([parse_filter("(a=b)"), equals("uid", login)]))
        self.assertTrue(text.isascii() and text.isprintable() and '"' not in text, text)

    @settings(deadline=None)
    @given(filters)
    def test_what_is_read_of_it_is_the_same_filter(self, text: str) -> None:
        parsed = parse_filter(text)
        self.assertEqual(parse_filter(filter_text(parsed)).toWire(), parsed.toWire())
