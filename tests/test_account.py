"""The decision of reference.md, steps 3 to 7: each row of its tables, and what bad values do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.account import (
    Account,
    AccountDefaults,
    Entry,
    join_path,
    parse_account,
    path_is_allowed,
)
from qmailldap.quota import Quota
from qmailldap.refusal import LoginRefused, Refusal

GOOD: dict[str, tuple[bytes, ...]] = {
    "qmailuid": (b"1000",),
    "qmailgid": (b"1001",),
    "homedirectory": (b"/home/joe",),
}


def account(
    changes: dict[str, tuple[bytes, ...] | None] | None = None,
    defaults: AccountDefaults | None = None,
) -> Account:
    attributes = dict(GOOD)
    for name, values in (changes or {}).items():
        if values is None:
            attributes.pop(name, None)
        else:
            attributes[name] = values
    entry = Entry("uid=joe,dc=example,dc=org", attributes)
    return parse_account(b"joe", entry, defaults or AccountDefaults())


class AccountTests(SynchronousTestCase):
    def assert_refused(
        self,
        refusal: Refusal,
        changes: dict[str, tuple[bytes, ...] | None],
        defaults: AccountDefaults | None = None,
    ) -> str:
        with self.assertRaises(LoginRefused) as caught:
            account(changes, defaults)
        self.assertIs(caught.exception.refusal, refusal)
        self.assertIs(caught.exception.shown, refusal)
        return str(caught.exception.detail)

    def test_a_plain_record_makes_an_account(self) -> None:
        joe = account()
        self.assertEqual((joe.login, joe.uid, joe.gid), (b"joe", 1000, 1001))
        self.assertEqual((joe.quota, joe.max_message_size, joe.mail_host), (Quota(), 0, None))

    def test_an_account_without_access_is_disabled_in_any_case_of_letters(self) -> None:
        for status in (b"noaccess", b"disabled", b"deleted", b"NoAccess", b"DELETED"):
            self.assert_refused(Refusal.ACCOUNT_DISABLED, {"accountstatus": (status,)})

    def test_any_other_status_lets_in(self) -> None:
        for status in (b"active", b"ACTIVE", b"", b"nopop", b"unheard of"):
            self.assertEqual(account({"accountstatus": (status,)}).uid, 1000)

    def test_the_disabled_state_is_judged_before_the_rest_of_the_record(self) -> None:
        self.assert_refused(
            Refusal.ACCOUNT_DISABLED, {"accountstatus": (b"disabled",), "qmailuid": (b"x",)}
        )

    def test_missing_ids_are_taken_from_the_control_files(self) -> None:
        defaults = AccountDefaults(uid=500, gid=600)
        vmail = account({"qmailuid": None, "qmailgid": None}, defaults)
        self.assertEqual((vmail.uid, vmail.gid), (500, 600))

    def test_missing_ids_without_a_default_are_an_incorrect_record(self) -> None:
        for name in ("qmailuid", "qmailgid"):
            detail = self.assert_refused(Refusal.RECORD_INCORRECT, {name: None})
            self.assertIn("no control file ldap", detail)

    def test_ids_have_bounds(self) -> None:
        self.assertEqual(account({"qmailuid": (b"100",)}).uid, 100)
        self.assertEqual(account({"qmailuid": (b"4294967294",)}).uid, 2**32 - 2)
        for value in (b"0", b"99", b"4294967295", b"18446744073709551616", b"9" * 100_000):
            self.assert_refused(Refusal.RECORD_INCORRECT, {"qmailuid": (value,)})

    def test_numbers_are_whole(self) -> None:
        for value in (b"", b"-1", b"+1", b"1000x", b" 1000", b"1e3", b"1.0", "\uff11".encode()):
            for name in ("qmailuid", "qmailgid", "mailquotasize", "mailquotacount", "mailsizemax"):
                self.assert_refused(Refusal.RECORD_INCORRECT, {name: (value,)})

    def test_two_values_are_a_temporary_error(self) -> None:
        for name in (
            "accountstatus",
            "mailhost",
            "qmailuid",
            "qmailgid",
            "homedirectory",
            "mailmessagestore",
            "mailquotasize",
            "mailquotacount",
            "mailsizemax",
        ):
            self.assert_refused(Refusal.TEMPORARY, {name: (b"1", b"2")})

    def test_home_and_store_make_the_mailbox_of_the_record(self) -> None:
        joe = account({"mailmessagestore": (b"Mail/",)})
        self.assertEqual(
            (joe.home, joe.mailbox, joe.names_both), ("/home/joe", "/home/joe/Mail", True)
        )

    def test_an_absolute_store_beside_a_home_is_the_mailbox(self) -> None:
        joe = account({"mailmessagestore": (b"/mail/joe",)})
        self.assertEqual((joe.home, joe.mailbox, joe.names_both), ("/home/joe", "/mail/joe", True))

    def test_a_home_alone_has_the_default_delivery(self) -> None:
        joe = account(None, AccountDefaults(delivery="./Post/"))
        self.assertEqual(
            (joe.home, joe.mailbox, joe.names_both), ("/home/joe", "/home/joe/Post", False)
        )

    def test_an_absolute_store_alone_is_the_home(self) -> None:
        joe = account({"homedirectory": None, "mailmessagestore": (b"/mail/joe",)})
        self.assertEqual(
            (joe.home, joe.mailbox, joe.names_both), ("/mail/joe", "/mail/joe/Maildir", False)
        )

    def test_a_relative_store_alone_lies_in_the_message_store(self) -> None:
        joe = account(
            {"homedirectory": None, "mailmessagestore": (b"j/joe",)},
            AccountDefaults(message_store="/store/"),
        )
        self.assertEqual(
            (joe.home, joe.mailbox, joe.names_both), ("/store/j/joe", "/store/j/joe/Maildir", False)
        )

    def test_a_relative_store_without_message_store_is_an_incorrect_record(self) -> None:
        self.assert_refused(
            Refusal.RECORD_INCORRECT, {"homedirectory": None, "mailmessagestore": (b"joe",)}
        )

    def test_neither_home_nor_store_is_an_incorrect_record(self) -> None:
        self.assert_refused(Refusal.RECORD_INCORRECT, {"homedirectory": None})

    def test_a_home_is_absolute(self) -> None:
        for home in (b"home/joe", b"./joe", b""):
            self.assert_refused(Refusal.RECORD_INCORRECT, {"homedirectory": (home,)})

    def test_paths_of_other_characters_are_an_incorrect_record(self) -> None:
        for path in (
            b"/a b",
            b"/a\n",
            b"/a\x00",
            b"/../etc",
            b"/a/..",
            b"/a/../b",
            b"/\xe4",
            b"-a",
        ):
            self.assert_refused(Refusal.RECORD_INCORRECT, {"homedirectory": (path,)})
            self.assert_refused(Refusal.RECORD_INCORRECT, {"mailmessagestore": (path,)})

    def test_dots_within_a_name_are_allowed(self) -> None:
        self.assertTrue(path_is_allowed("/a..b/...c/d.."))

    def test_quotas_of_the_record_replace_the_defaults(self) -> None:
        defaults = AccountDefaults(quota=Quota(size=10, count=20))
        self.assertEqual(account(None, defaults).quota, Quota(size=10, count=20))
        joe = account({"mailquotasize": (b"0",), "mailquotacount": (b"7",)}, defaults)
        self.assertEqual(joe.quota, Quota(size=0, count=7))

    def test_the_mail_host_is_kept_as_it_is_named(self) -> None:
        self.assertEqual(
            account({"mailhost": (b"Mail1.example.org",)}).mail_host, "Mail1.example.org"
        )
        self.assertEqual(account({"mailhost": (b"m\xff",)}).mail_host, "m\\xff")

    def test_the_repr_of_an_entry_shows_no_values(self) -> None:
        self.assertNotIn("secret", repr(Entry("cn=x", {"userpassword": (b"secret",)})))

    @given(st.text(alphabet="ab./-=:#@_ \\\n%ä", max_size=30))
    def test_an_allowed_path_never_leaves_where_it_is_joined_to(self, path: str) -> None:
        if path_is_allowed(path):
            joined = join_path("/home/joe", path)
            self.assertTrue(joined.startswith("/"))
            self.assertNotIn("..", joined.split("/"))
            if not path.startswith("/"):
                self.assertTrue((joined + "/").startswith("/home/joe/"))

    @given(
        st.dictionaries(
            st.sampled_from(
                [
                    "accountstatus",
                    "mailhost",
                    "qmailuid",
                    "qmailgid",
                    "homedirectory",
                    "mailmessagestore",
                    "mailquotasize",
                ]
            ),
            st.lists(st.binary(max_size=40), max_size=3).map(tuple),
        )
    )
    def test_any_record_makes_an_account_or_a_refusal(
        self, attributes: dict[str, tuple[bytes, ...]]
    ) -> None:
        try:
            made = parse_account(b"joe", Entry("cn=x", attributes), AccountDefaults())
        except LoginRefused as refused:
            self.assertTrue(refused.detail.isprintable())
        else:
            self.assertTrue(made.mailbox.startswith("/"))
            self.assertGreaterEqual(made.uid, 100)
