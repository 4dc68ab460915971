"""How a quota is written: reference.md, "auth_pop" (MAILDIRQUOTA) and maildirsize."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.maildir.maildirsize import parse
from qmailldap.quota import Quota

numbers = st.integers(0, 2**63 - 1)


class QuotaTests(SynchronousTestCase):
    def test_the_parts_that_are_set_are_written(self) -> None:
        for quota, text in (
            (Quota(1_000_000, 1000), "1000000S,1000C"),
            (Quota(size=5), "5S"),
            (Quota(count=7), "7C"),
            (Quota(), ""),
        ):
            self.assertEqual(text, str(quota))
            self.assertEqual(text, f"{quota}")

    def test_any_limit_makes_it_one(self) -> None:
        self.assertTrue(Quota(1, 0).is_set and Quota(0, 1).is_set and Quota(1, 1).is_set)
        self.assertFalse(Quota().is_set)

    @given(numbers, numbers)
    def test_what_is_written_is_what_is_read(self, size: int, count: int) -> None:
        quota = Quota(size, count)
        self.assertEqual(quota, parse(f"{quota}\n".encode())[0])
