"""Every way in, and every way to be kept out, with a real directory."""

from __future__ import annotations

import poplib
from typing import Any

from .clients import Conversation, in_session, refusal_of
from .mailboxes import MESSAGES, as_lines
from .site import PASSWORD, SiteTestCase
from .users import SUFFIX, md5_value, ssha_value, user_dn

WRONG = "-ERR [AUTH] authorization failed"
DISABLED = "-ERR [AUTH] account disabled"
TEMPORARY = "-ERR [SYS/TEMP] temporary error"
INCORRECT = "-ERR [SYS/PERM] user record incorrect"
UNREACHABLE_MAILHOST = "-ERR [SYS/TEMP] mailhost is unreachable"
ACCEPTED = "accepted"

# Of "correct-horse-battery", made by libxcrypt's crypt(3).
SHA512_VALUE = (
    "$6$NaClNaClNaClNaCl$A3XFd7A45LOUyT1sx/a2sEHXK0hZa1YxKdIvbVKy"
    "fqYh0aYyjJQWMwCnzZX8qGNXIbY8CDFTQpf2FZy6ffyM61"
)
YESCRYPT_VALUE = "{CRYPT}$y$j9T$F5Jx5fExrKuPp53xLKQ..1$Y3tFVkwsM9l9YoxLKGWuWvIX8Hmr4fkkuH2dAhV6cV1"
BCRYPT_VALUE = "{CRYPT}$2b$05$abcdefghijklmnopqrstuuSnF5tLPqPFqc0z9CY0HcSLFbSRlL67u"


class SessionTests(SiteTestCase):
    async def test_a_whole_session_of_poplib(self) -> None:
        contents = [MESSAGES["plain"], MESSAGES["dots"], MESSAGES["8-bit"]]
        maildir = self.user("joe", messages=contents)
        await self.start()

        def session(pop: poplib.POP3) -> None:
            self.assertEqual(pop.stat(), (3, sum(map(len, contents))))
            self.assertEqual(
                pop.list()[1], [b"%d %d" % (i, len(c)) for i, c in enumerate(contents, 1)]
            )
            self.assertEqual(
                pop.uidl()[1], [b"%d %b" % (i, n.encode()) for i, n in enumerate(names, 1)]
            )
            for number, content in enumerate(contents, 1):
                self.assertEqual(pop.retr(number)[1], as_lines(content))
            self.assertEqual(pop.top(1, 1)[1], as_lines(contents[0])[:5])
            pop.dele(2)
            self.assertEqual(pop.stat(), (2, len(contents[0]) + len(contents[2])))
            pop.rset()
            self.assertEqual(pop.stat()[0], 3)
            pop.dele(3)
            pop.noop()
            pop.quit()

        names = maildir.new()
        await self.in_session("joe", session)
        self.assertEqual(maildir.new(), [])
        self.assertEqual(maildir.cur(), [name + ":2," for name in names[:2]])

    async def test_the_greeting_is_that_of_the_original_without_its_promise_of_apop(self) -> None:
        await self.start(me="pop.example.org")
        greeting = await self.converse(lambda connection: connection.greeting)
        self.assertRegex(greeting, rb"^\+OK [0-9]+\.[0-9]+@pop\.example\.org$")

    async def test_three_tries_are_given(self) -> None:
        self.user("joe")
        await self.start()

        def guessing(connection: Conversation) -> list[bytes]:
            answers = []
            for _ in range(3):
                connection.ask(b"USER joe")
                answers.append(connection.ask(b"PASS wrong"))
            answers.append(connection.rest())
            return answers

        def remembering(connection: Conversation) -> bytes:
            for password in ("wrong", "also wrong", PASSWORD):
                connection.ask(b"USER joe")
                answer = connection.ask(b"PASS " + password.encode())
            return answer

        self.assertEqual(await self.converse(guessing), [WRONG.encode()] * 3 + [b""])
        self.assertEqual(await self.converse(remembering), b"+OK ")


class WhoIsLetInTests(SiteTestCase):
    async def test_logins_of_unusual_characters(self) -> None:
        logins = (
            "joe@example.org",
            "o'brien+lists",
            "with blanks in it",
            "(joe)",
            "st*r",
            "back\\slash",
            "#1,2=3;<4>",
            "jürgen",
        )
        for login in logins:
            self.user(login)
        await self.start()
        for login in logins:
            self.assertEqual(await self.refusal_of(login), ACCEPTED, login)

    async def test_a_password_of_unusual_characters(self) -> None:
        password = "  (Grüße, \\*) two  blanks at the end  "
        self.user("joe", password=password)
        await self.start()
        self.assertEqual(await self.refusal_of("joe", password), ACCEPTED)
        self.assertEqual(await self.refusal_of("joe", password.strip()), WRONG)

    async def test_what_is_wrong_is_not_told(self) -> None:
        self.user("joe")
        await self.start()

        def empty_password(connection: Conversation) -> bytes:
            connection.ask(b"USER joe")
            return connection.ask(b"PASS ")

        self.assertEqual(await self.refusal_of("joe", "wrong"), WRONG)
        self.assertEqual(await self.refusal_of("nobody"), WRONG)
        self.assertEqual(await self.refusal_of("nobody", "wrong"), WRONG)
        self.assertEqual((await self.converse(empty_password)).decode(), WRONG)

    async def test_no_login_is_a_pattern_or_a_filter(self) -> None:
        for login in ("joe", "jane"):
            self.user(login)
        await self.start()
        for login in (
            "*",
            "jo*",
            "*)(uid=joe",
            "joe)(uid=*",
            ")(uid=*",
            "joe)",
            "(",
            "\\",
            "\\6aoe",
        ):
            self.assertEqual(await self.refusal_of(login), WRONG, login)

        def octets(connection: Conversation) -> list[bytes]:
            answers = []
            for login in (b"joe\0", b"\0", b"jo\xff"):
                connection.ask(b"USER " + login)
                answers.append(connection.ask(b"PASS " + PASSWORD.encode()))
            return answers

        self.assertEqual(await self.converse(octets), [WRONG.encode()] * 3)

    async def test_the_login_is_found_as_the_directory_compares(self) -> None:
        self.user("joe")
        await self.start()
        self.assertEqual(await self.refusal_of("JOE"), ACCEPTED)

    async def test_two_entries_of_one_login_are_a_temporary_error(self) -> None:
        self.user("joe", dn=f"cn=joe one,{SUFFIX}", cn="joe one")
        self.user("joe", dn=f"cn=joe two,{SUFFIX}", cn="joe two")
        await self.start()
        self.assertEqual(await self.refusal_of("joe"), TEMPORARY)
        self.assertEqual(await self.refusal_of("joe", "wrong"), WRONG)

    async def test_an_object_class_may_be_required(self) -> None:
        self.user("joe")
        self.other_entry(
            user_dn("jane"),
            {
                "objectClass": ["account", "posixAccount"],
                "cn": "jane",
                "uid": "jane",
                "uidNumber": 2000,
                "gidNumber": 2000,
                "homeDirectory": "/home/jane",
                "userPassword": ssha_value(PASSWORD),
            },
        )
        await self.start(ldapobjectclass="qmailUser")
        self.assertEqual(await self.refusal_of("joe"), ACCEPTED)
        self.assertEqual(await self.refusal_of("jane"), WRONG)

    async def test_the_object_class_may_be_more_than_one_term(self) -> None:
        self.user("joe", deliveryMode="normal")
        self.user("jane", deliveryMode="forwardonly")
        await self.start(ldapobjectclass="qmailUser)(deliveryMode=normal")
        self.assertEqual(await self.refusal_of("joe"), ACCEPTED)
        self.assertEqual(await self.refusal_of("jane"), WRONG)


class RecordTests(SiteTestCase):
    async def test_a_disabled_account_is_told_to_its_owner_only(self) -> None:
        for status in ("noaccess", "disabled", "Deleted"):
            self.user(status, accountStatus=status)
        self.user("no status", accountStatus=None)
        self.user("another status", accountStatus="on holiday")
        await self.start()
        for login in ("noaccess", "disabled", "Deleted"):
            self.assertEqual(await self.refusal_of(login), DISABLED)
            self.assertEqual(await self.refusal_of(login, "wrong"), WRONG)
        self.assertEqual(await self.refusal_of("no status"), ACCEPTED)
        self.assertEqual(await self.refusal_of("another status"), ACCEPTED)

    async def test_mail_that_another_host_keeps(self) -> None:
        self.user("elsewhere", mailHost="mx9.example.org")
        self.user("here", mailHost="POP.example.org")
        self.user("also here", mailHost="pop2.example.org")
        self.user("anywhere", mailHost=None)
        await self.start(
            ldapcluster="1", me="pop.example.org", ldapclusterhosts="# ours\npop2.example.org"
        )
        for login in ("here", "also here", "anywhere"):
            self.assertEqual(await self.refusal_of(login), ACCEPTED, login)
        self.assertEqual(await self.refusal_of("elsewhere"), UNREACHABLE_MAILHOST)
        self.assertEqual(await self.refusal_of("elsewhere", "wrong"), WRONG)

    async def test_without_clustering_all_mail_is_here(self) -> None:
        self.user("elsewhere", mailHost="mx9.example.org")
        await self.start(me="pop.example.org")
        self.assertEqual(await self.refusal_of("elsewhere"), ACCEPTED)

    async def test_a_record_that_makes_no_account_is_told_to_its_owner_only(self) -> None:
        records: dict[str, dict[str, Any]] = {
            "no paths": {"homeDirectory": None},
            "relative home": {"homeDirectory": "homes/joe"},
            "path with dots": {"homeDirectory": "/home/../etc"},
            "path with blank": {"homeDirectory": "/home/joe smith"},
            "system's id": {"qmailUID": "99"},
            "no id": {"qmailUID": None},
            "negative quota": {"mailQuotaSize": "-1"},
        }
        for login, attributes in records.items():
            self.user(login, **attributes)
        await self.start()
        for login in records:
            self.assertEqual(await self.refusal_of(login), INCORRECT, login)
            self.assertEqual(await self.refusal_of(login, "wrong"), WRONG, login)

    async def test_a_missing_and_a_corrupted_mailbox_are_told_apart(self) -> None:
        self.user("no home", homeDirectory=str(self.directory / "nothing-here"))
        corrupted = self.user("corrupted")
        for folder in ("new", "cur", "tmp"):
            (corrupted.path / folder).rmdir()
        corrupted.path.rmdir()
        corrupted.path.write_bytes(b"From MAILER-DAEMON\n")
        await self.start()
        self.assertEqual(
            await self.refusal_of("no home"),
            "-ERR [SYS/PERM] the users mailbox does not exist",
        )
        self.assertEqual(await self.refusal_of("corrupted"), "-ERR [SYS/PERM] mailbox is corrupted")

    async def test_ids_and_message_store_may_come_from_the_control_files(self) -> None:
        store = self.directory / "homes"
        self.user(
            "joe", qmailUID=None, qmailGID=None, homeDirectory=None, mailMessageStore="0",
            messages=[MESSAGES["plain"]],
        )  # fmt: skip
        await self.start(ldapuid="20125", ldapgid="20126", ldapmessagestore=str(store))
        self.assertEqual((await self.in_session("joe", poplib.POP3.stat))[0], 1)

    async def test_the_message_store_may_be_below_home(self) -> None:
        maildir = self.user("joe", mailMessageStore="./Maildir/")
        maildir.deliver(MESSAGES["plain"])
        await self.start(defaultdelivery="./Elsewhere/")
        self.assertEqual((await self.in_session("joe", poplib.POP3.stat))[0], 1)


class PasswordTests(SiteTestCase):
    async def assert_password_opens(self, *logins: str) -> None:
        for login in logins:
            self.assertEqual(await self.refusal_of(login), ACCEPTED, login)
            self.assertEqual(await self.refusal_of(login, PASSWORD + "x"), WRONG, login)

    async def test_by_hash_of_any_kind(self) -> None:
        values = {
            "ssha": ssha_value(PASSWORD),
            "md5": md5_value(PASSWORD),
            "md5 in small letters": md5_value(PASSWORD).replace("{MD5}", "{md5}"),
            "sha512-crypt": "{CRYPT}" + SHA512_VALUE,
            "sha512-crypt without a scheme": SHA512_VALUE,
            "yescrypt": YESCRYPT_VALUE,
            "bcrypt": BCRYPT_VALUE,
        }
        for login, value in values.items():
            self.user(login, value=value)
        await self.start()
        await self.assert_password_opens(*values)

    async def test_values_that_nothing_matches(self) -> None:
        values = {"star": "{CRYPT}*", "bang": "!", "clear text": PASSWORD, "x": "x"}
        for login, value in values.items():
            self.user(login, value=value)
        await self.start()
        for login, value in values.items():
            self.assertEqual(await self.refusal_of(login), WRONG, login)
            self.assertEqual(await self.refusal_of(login, value), WRONG, login)

    async def test_two_password_values_are_a_temporary_error(self) -> None:
        self.user("joe", value=[ssha_value(PASSWORD), ssha_value("another one")])
        await self.start()
        self.assertEqual(await self.refusal_of("joe"), TEMPORARY)
        self.assertEqual(await self.refusal_of("joe", "wrong"), WRONG)

    async def test_a_malformed_hash_reads_as_a_wrong_password(self) -> None:
        self.user("joe", value="{SSHA}not*base64")
        await self.start()
        self.assertEqual(await self.refusal_of("joe"), WRONG)
        self.assertIn("record-incorrect", self.server.log)

    async def test_by_rebind(self) -> None:
        self.user("joe")
        self.user("jane", value=["{CRYPT}*", ssha_value(PASSWORD)])
        self.user("disabled", accountStatus="disabled")
        await self.start(ldaprebind="1")
        await self.assert_password_opens("joe", "jane")
        self.assertEqual(await self.refusal_of("disabled"), DISABLED)
        self.assertEqual(await self.refusal_of("disabled", "wrong"), WRONG)

    async def test_a_rebind_without_a_password_is_not_even_tried(self) -> None:
        self.user("joe")
        await self.start(ldaprebind="1")

        def empty_password(connection: Conversation) -> bytes:
            connection.ask(b"USER joe")
            return connection.ask(b"PASS ")

        self.assertEqual((await self.converse(empty_password)).decode(), WRONG)
        self.assertNotIn(f'BIND dn="{user_dn("joe")}" method=', self.slapd.log)

    async def test_by_rebind_without_an_account_of_the_servers_own(self) -> None:
        self.user("joe")
        await self.start(ldaprebind="1", ldaplogin=None, ldappassword=None)
        await self.assert_password_opens("joe")

    async def test_hashes_are_not_asked_for_where_a_rebind_proves_the_password(self) -> None:
        self.user("joe")
        await self.start(ldaprebind="1")
        await self.refusal_of("joe")
        self.assertIn("accountStatus", self.slapd.log)
        self.assertNotIn("userPassword", self.slapd.log)

    async def test_a_login_is_one_search_on_a_connection_that_is_kept(self) -> None:
        for login in ("joe", "jane"):
            self.user(login)
        await self.start()
        for login in ("joe", "jane", "joe", "nobody") * 3:
            await self.refusal_of(login)
        # Scope 2 is the subtree; what else is searched is to see whether the directory answers.
        self.assertEqual(self.slapd.count("SRCH .* scope=2"), 12)
        # As many connections as there may be for searches, at most.
        self.assertLessEqual(self.slapd.count("BIND"), 4)

    async def test_many_users_at_once_are_not_mixed_up(self) -> None:
        logins = [f"user{number}" for number in range(20)]
        for login in logins:
            maildir = self.user(login, password=f"{login}-password")
            maildir.deliver(f"Subject: {login}\n\n".encode())
        await self.start()

        def subject(pop: poplib.POP3) -> bytes:
            return pop.retr(1)[1][0]

        port = self.server.port
        results = await self.together(
            *(in_session(port, login, f"{login}-password", subject) for login in logins)
        )
        self.assertEqual(results, [f"Subject: {login}".encode() for login in logins])
        refusals = await self.together(
            *(refusal_of(port, login, "user0-password") for login in logins)
        )
        self.assertEqual(refusals, [ACCEPTED] + [WRONG] * 19)
