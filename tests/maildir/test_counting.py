"""What is counted is what is subtracted: `qmailldap.maildir.counting` against removals."""

from __future__ import annotations

import os

from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmailldap.maildir.counting import count
from qmailldap.maildir.maildirsize import Removed
from qmailldap.maildir.names import is_trashed, seen_name
from tests.maildir.support import deliver, make_maildir
from tests.maildir.test_storage import MaildirTestCase

names = st.builds(
    "{}.mx{}{}".format,
    st.integers(1, 9),
    st.sampled_from(["", ",S=7", ",S=7,W=8", ",W=8", ",S=x", ",S=7,S=9", ",s=7"]),
    st.sampled_from(
        ["", ":2,", ":2,S", ":2,T", ":2,ST", ":2,S,T", ":1,T", ":1,x:2,T", ":2,,S=9", ":2T"]
    ),
)


class AgreementTests(MaildirTestCase):
    def counted(self) -> Removed:
        root = os.open(self.path, os.O_RDONLY)
        try:
            octets, messages, _ = count(root)
        finally:
            os.close(root)
        return Removed(octets, messages)

    @given(st.sets(names, max_size=6), st.sets(names, max_size=6), st.sets(st.integers(0, 11)))
    @example({"1.mx:2,T", "2.mx"}, set(), {0})
    @example({"1.mx:1,x:2,T"}, {"2.mx:1,x:2,T"}, {0, 1})
    @settings(deadline=None, max_examples=150)
    def test_what_a_removal_subtracts_was_counted_before(
        self, in_new: set[str], in_cur: set[str], marked: set[int]
    ) -> None:
        self.path = make_maildir(self.mktemp())
        self.maildir = self.maildir_at(self.path)
        for folder, delivered in (("new", in_new), ("cur", in_cur)):
            for name in delivered:
                deliver(self.path, f"{folder}/{name}", name.encode())
        before = self.counted()
        listed = range(len(self.scan().files))
        updated = self.maildir.finish(marked.intersection(listed))
        self.assertEqual(0, updated.not_removed.files)
        after = self.counted()
        self.assertEqual(before, (after.octets + updated.octets, after.messages + updated.messages))

    @given(st.binary(max_size=60))
    @example(b"a:2")
    @example(b"a:1,:2,T")
    def test_the_way_to_cur_changes_nothing_about_it(self, name: bytes) -> None:
        self.assertEqual(is_trashed(name), is_trashed(seen_name(name)))
