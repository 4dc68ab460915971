"""How the findings of a lookup are told, and how they come about where no server is needed."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Coroutine
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from qmailldap.account import ACCOUNT_ATTRIBUTES, Entry
from qmailldap.cluster import Cluster
from qmailldap.commands import main
from qmailldap.commands.lookup import looking
from qmailldap.commands.lookup.attributes import attributes_of
from qmailldap.commands.lookup.findings import (
    CLEAR_TEXT,
    Asked,
    Attribute,
    Findings,
    Looked,
    Mail,
    Mailbox,
    Names,
    Password,
    Search,
    Verdict,
)
from qmailldap.commands.lookup.gathering import gather
from qmailldap.commands.lookup.json_text import as_json
from qmailldap.commands.lookup.looking import CannotLook, look
from qmailldap.commands.lookup.text import as_lines
from qmailldap.control import Control, ServerAddress
from qmailldap.control import inspection as control_inspection
from qmailldap.maildir.inspection import Inspection, Messages, QuotaUse, Seen
from qmailldap.maildir.storage import MailboxMissing
from qmailldap.maildir.work import Place
from qmailldap.quota import Quota
from qmailldap.refusal import LoginRefused, Refusal

DN = "uid=joe,dc=example,dc=org"
HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e\x9b31m\r\ninjected"

HOME = Seen("/home/joe", "directory", 0o755, 1001, 1002)
MAILDIR = Seen("/home/joe/Maildir", "directory", 0o700, 0, 0, "/mail/joe")
FOLDERS = (
    Seen("/home/joe/Maildir/tmp", "directory", 0o700, 1001, 1002),
    Seen("/home/joe/Maildir/new", "directory", 0o500, 1001, 1002),
    Seen("/home/joe/Maildir/cur", "missing"),
)
INSPECTION = Inspection(
    HOME,
    MAILDIR,
    FOLDERS,
    makes=("/home/joe/Maildir/cur",),
    messages=Messages(1, 2, 4711),
    quota=QuotaUse(4000, 3, "5000S", 4100, 4),
)
MAILBOX = Mailbox(
    uid=1001,
    gid=1002,
    home="/home/joe",
    mailbox="/home/joe/Maildir",
    quota=Quota(8000, 10),
    max_message_size=0,
    looked=Looked(1001, 1002, True),
    inspection=INSPECTION,
    dirmaker="/usr/bin/make home",
    names=Names({0: "root", 1001: "joe"}, {1002: "users"}),
)
FOUND = Findings(
    Asked("mail", "joe@example.org", "/var/qmail/control"),
    Verdict(""),
    login="joe",
    searches=(
        Search(
            "mail",
            "dc=example,dc=org",
            "(|(mail=joe@example.org)(mailAlternateAddress=joe@example.org))",
            "ldap2.example.org:389",
            0.0123,
            ("ldap1.example.org:389: Connection refused",),
            (DN,),
        ),
        Search("user", "dc=example,dc=org", "(uid=joe)", "[::1]:389", 0.002, (), (DN,)),
    ),
    known_by="directory",
    dn=DN,
    attributes=(
        Attribute("accountStatus", ("active",), "active", "directory", "may log in"),
        Attribute("qmailGID", (), 1002, "ldapgid", "1002, from ldapgid"),
    ),
    password=Password("hash", 1, ("PBKDF2-SHA256 10000",)),
    mail=Mail(True),
    mailbox=MAILBOX,
    notes=("/var/qmail/control/ldappassword: can be read by everyone",),
)

TEXT = """\
login             joe
search by mail    (|(mail=joe@example.org)(mailAlternateAddress=joe@example.org)) below \
dc=example,dc=org
answered by       ldap2.example.org:389, in 12 ms
asked before      ldap1.example.org:389: Connection refused
                  uid=joe,dc=example,dc=org
search            (uid=joe) below dc=example,dc=org
answered by       [::1]:389, in 2 ms
entry             uid=joe,dc=example,dc=org
accountStatus     active (may log in)
qmailGID          not set: 1002, from ldapgid
password          PBKDF2-SHA256 10000, proved by its hash; not tried
mail              here
ids               joe(1001):users(1002)
home              /home/joe: directory, mode 0755, owner joe(1001):users(1002)
mailbox           /home/joe/Maildir: directory, mode 0700, owner root(0):0, and not joe(1001), \
by a symbolic link to /mail/joe
                  /home/joe/Maildir/new: directory, mode 0500, owner joe(1001):users(1002), \
who may not do all there
                  /home/joe/Maildir/cur: missing, would be made at the login
messages          3, 4711 octets (1 in new, 2 in cur)
quota             8000 octets, 10 messages; used: 4000 octets (50 %), 3 messages (30 %)
maildirsize       for a quota of 5000S; not the account's; says 4100 octets, 4 messages
note              /var/qmail/control/ldappassword: can be read by everyone
verdict           would be let in, with the right password
exit code         0
"""


def text(found: Findings) -> str:
    return "".join(f"{line}\n" for line in as_lines(found))


def refused(refusal: Refusal, detail: str, shown: Refusal | None = None) -> Verdict:
    return Verdict(detail, LoginRefused(refusal, detail, shown=shown))


class TextTests(SynchronousTestCase):
    maxDiff = None

    def assert_shows(self, lines: str, **facts: Any) -> None:
        self.assertIn(lines, text(attrs.evolve(FOUND, **facts)))

    def test_everything_has_its_line(self) -> None:
        self.assertEqual(text(FOUND), TEXT)

    def test_what_was_not_come_to_has_none(self) -> None:
        problem = "/c/ldapserver: names no directory server, and one is required"
        found = Findings(FOUND.asked, refused(Refusal.CONFIGURATION, problem))
        self.assertEqual(
            text(found),
            "verdict           refused: error in server configuration\n"
            f"                  {problem}\n"
            "exit code         1\n",
        )

    def test_a_search_that_nobody_answers_says_why(self) -> None:
        search = Search("user", "", "(uid=joe)", problem="a:389: timed out; b:389: refused")
        self.assert_shows(
            "search            (uid=joe) below no base, as there is no ldapbasedn\n"
            "answered by       none: a:389: timed out; b:389: refused\n",
            searches=(search,),
        )

    def test_no_entry_and_two_entries_are_told(self) -> None:
        (_, search) = FOUND.searches
        none = attrs.evolve(search, entries=())
        two = attrs.evolve(search, entries=(DN, f"cn=2,{DN}"))
        self.assert_shows(
            "found             no entry\npasswd            does not know the user either\n",
            searches=(none,),
            passwd=False,
        )
        self.assert_shows(
            f"found             two entries, or more\n{'':18}{DN}\n{'':18}cn=2,{DN}\n",
            searches=(two,),
        )

    def test_a_password_says_what_is_wrong_with_it(self) -> None:
        for password, line in (
            (Password("bind"), "proved by a bind (ldaprebind), its value not asked for; not tried"),
            (Password("hash", 1, ("SSHA",), right=False), "SSHA, proved by its hash; wrong"),
            (Password("shadow", 1, ("DES",), right=True), "DES, proved by shadow; right"),
            (Password("hash", 0, (), "none"), "proved by its hash; none"),
            (Password("hash", 1, (CLEAR_TEXT,)), "clear text, compared as it is; not tried"),
        ):
            self.assert_shows(f"password          {line}\n", password=password)

    def test_mail_elsewhere_has_all_addresses(self) -> None:
        mail = Mail(False, "mail2", "fd00::2", 1110, ("192.0.2.2", "fd00::2"))
        self.assert_shows(
            "mail              on mail2, reached at [fd00::2]:1110: 192.0.2.2, fd00::2\n", mail=mail
        )

    def test_what_cannot_be_seen_is_said(self) -> None:
        looked = Looked(500, 501, False)
        home = Seen("/home/joe", "not to be seen", problem="Permission denied")
        mailbox = attrs.evolve(
            MAILBOX,
            looked=looked,
            inspection=Inspection(home, home),
            problem="/home/joe: Permission denied",
        )
        found = attrs.evolve(FOUND, mailbox=mailbox, verdict=Verdict("", is_complete=False))
        shown = text(found)
        self.assertIn("looked at as      500:501, who may not see all", shown)
        self.assertIn("home              /home/joe: not to be seen (Permission denied)\n", shown)
        self.assertIn("would be let in, with the right password, as far as can be seen\n", shown)

    def test_a_home_that_would_be_made_names_who_makes_it(self) -> None:
        found = Inspection(Seen("/home/joe", "missing"), Seen("/m", "missing"), makes_home=True)
        self.assert_shows(
            "home              /home/joe: missing, would be made at the login by dirmaker"
            ' "/usr/bin/make home"\n',
            mailbox=attrs.evolve(MAILBOX, inspection=found),
        )

    def test_a_home_that_must_be_made_first_is_a_condition(self) -> None:
        made = Verdict("dirmaker would have to make it", condition="if dirmaker makes the home")
        for verdict, line in (
            (made, "let in, with the right password, if dirmaker makes the home"),
            (attrs.evolve(made, proved=True), "let in, if dirmaker makes the home"),
            (
                attrs.evolve(made, proved=True, is_complete=False),
                "let in, if dirmaker makes the home, as far as can be seen",
            ),
        ):
            self.assert_shows(
                f"verdict           would be {line}\nexit code         0\n", verdict=verdict
            )

    def test_whoever_is_forwarded_is_not_said_to_be_let_in(self) -> None:
        verdict = Verdict("forwarded", proved=True, forwarded_to="mail2")
        self.assert_shows(
            "verdict           would be forwarded to mail2; whether that member lets the user in"
            " was not tried\nexit code         0\n",
            verdict=verdict,
        )

    def test_a_search_that_finds_nobody_is_no_refused_login(self) -> None:
        why = "the search by mail finds no entry"
        nobody = attrs.evolve(FOUND, login=None, verdict=refused(Refusal.WRONG_CREDENTIALS, why))
        self.assertIn(f"verdict           finds nobody\n{'':18}{why}\nexit code", text(nobody))
        self.assertNotIn("authorization", text(nobody))

    def test_another_group_of_a_folder_is_not_worth_a_line(self) -> None:
        folders = tuple(
            Seen(f"/m/{name}", "directory", 0o700, 1001, gid)
            for name, gid in (("tmp", 1002), ("new", 7))
        )
        found = INSPECTION._replace(
            mailbox=Seen("/m", "directory", 0o700, 1001, 7), folders=folders, makes=()
        )
        shown = text(attrs.evolve(FOUND, mailbox=attrs.evolve(MAILBOX, inspection=found)))
        self.assertIn("mailbox           /m: directory, mode 0700, owner joe(1001):7\n", shown)
        self.assertNotIn("/m/", shown)

    def test_what_is_wrong_besides_the_password_is_told_too(self) -> None:
        mailbox = attrs.evolve(MAILBOX, problem="/home/joe: Permission denied")
        wrong = refused(Refusal.WRONG_CREDENTIALS, "wrong password")
        self.assert_shows("problem           /home/joe: Permission denied\n", mailbox=mailbox)
        self.assertIn(
            "problem           /home/joe: Permission denied\n"
            "note              /var/qmail/control/ldappassword: can be read by everyone\n"
            "verdict           refused: authorization failed\n"
            "                  wrong password\n",
            text(attrs.evolve(FOUND, mailbox=mailbox, verdict=wrong)),
        )

    def test_the_client_s_own_reason_is_told_where_it_is_another(self) -> None:
        self.assert_shows(
            "verdict           refused: user record incorrect\n"
            "                  malformed\n"
            "                  the client is told: authorization failed\n"
            "exit code         25\n",
            verdict=refused(Refusal.RECORD_INCORRECT, "malformed", Refusal.WRONG_CREDENTIALS),
        )
        self.assert_shows(
            "verdict           refused: account disabled\nexit code         4\n",
            verdict=refused(Refusal.ACCOUNT_DISABLED, ""),
        )

    def test_a_password_that_was_tried_and_right_needs_no_condition(self) -> None:
        self.assert_shows(
            "verdict           would be let in\n", verdict=Verdict("", None, proved=True)
        )

    @given(st.text())
    def test_nothing_that_a_terminal_obeys_is_ever_shown(self, value: str) -> None:
        for octet in everywhere(value + HOSTILE):
            self.assertTrue(octet == "\n" or " " <= octet <= "~", repr(octet))

    def test_a_line_cannot_be_broken_into_another(self) -> None:
        plain = everywhere("x").count("\n")
        self.assertEqual(everywhere(HOSTILE).count("\n"), plain)

    def test_long_values_are_cut(self) -> None:
        self.assertLess(max(map(len, everywhere("x" * 100_000).splitlines())), 5000)


def everywhere(value: str) -> str:
    """The text of findings that hold the value wherever one can stand."""
    seen = Seen(value, "directory", 0, 0, 0, value, value)
    inspection = Inspection(seen, seen, (seen,), True, True, (value,))
    return text(
        Findings(
            Asked("user", value, value),
            refused(Refusal.RECORD_INCORRECT, value, Refusal.WRONG_CREDENTIALS),
            value,
            (Search("mail", value, value, value, 1, (value,), (value, value)),),
            "directory",
            None,
            value,
            (Attribute("mailHost", (value,), value, "directory", value),),
            Password("hash", 1, (value,), value),
            Mail(False, value, value, 1, (value,)),
            attrs.evolve(
                MAILBOX,
                home=value,
                inspection=inspection,
                dirmaker=value,
                names=Names({0: value, 1001: value}, {0: value, 1002: value}),
            ),
            (value,),
        )
    )


class JSONTests(SynchronousTestCase):
    def object(self, **facts: Any) -> Any:
        return json.loads(as_json(attrs.evolve(FOUND, **facts)))

    def test_the_whole_object(self) -> None:
        golden = Path(__file__).with_name("lookup.json").read_text()
        self.assertEqual(as_json(FOUND) + "\n", golden)

    def test_the_keys_are_those_of_a_lookup_that_came_to_nothing(self) -> None:
        nothing = Findings(FOUND.asked, refused(Refusal.CONFIGURATION, "x"))
        empty = json.loads(as_json(nothing))
        self.assertEqual(empty.keys(), self.object().keys())
        self.assertEqual(empty["verdict"].keys(), self.object()["verdict"].keys())
        self.assertIsNone(empty["mailbox"])
        self.assertEqual(empty["attributes"], {})

    def test_a_mailbox_that_could_not_be_looked_at_has_the_same_keys(self) -> None:
        blind = self.object(mailbox=attrs.evolve(MAILBOX, inspection=None, problem="hangs"))
        self.assertEqual(blind["mailbox"].keys(), self.object()["mailbox"].keys())
        self.assertEqual(blind["mailbox"]["problem"], "hangs")

    def test_what_was_asked_need_not_be_utf_8(self) -> None:
        shown = self.object(asked=Asked("user", "j\udcf6e", "/control"))
        self.assertEqual(shown["asked"], {"by": "user", "value": "j\\xf6e"})

    def test_a_refusal_has_its_name_and_what_the_client_is_told(self) -> None:
        verdict = refused(Refusal.RECORD_INCORRECT, "why", Refusal.WRONG_CREDENTIALS)
        self.assertEqual(
            self.object(verdict=verdict)["verdict"],
            {
                "let_in": False,
                "exit_code": 25,
                "refusal": "RECORD_INCORRECT",
                "text": "user record incorrect",
                "client_is_told": "[AUTH] authorization failed",
                "reason": "why",
                "password_proved": False,
                "complete": True,
                "condition": "",
                "forwarded_to": None,
            },
        )

    def test_a_search_that_finds_nobody_is_nothing_that_a_client_is_told(self) -> None:
        verdict = refused(Refusal.WRONG_CREDENTIALS, "the search by mail finds no entry")
        told = self.object(login=None, verdict=verdict)["verdict"]
        self.assertIsNone(told["client_is_told"])
        self.assertEqual(told["exit_code"], 3)

    @given(st.text())
    def test_any_text_is_kept_in_ascii(self, value: str) -> None:
        shown = as_json(attrs.evolve(FOUND, login=value + HOSTILE))
        self.assertTrue(all(each == "\n" or " " <= each <= "~" for each in shown))
        self.assertEqual(json.loads(shown)["login"], value + HOSTILE)


def control(**facts: Any) -> Control:
    return Control(ldapserver=(ServerAddress("127.0.0.1"),), me="mail1.example.org", **facts)


class AttributesTests(SynchronousTestCase):
    def facts(self, facts: Control | None = None, **values: bytes | list[bytes]) -> dict[str, Any]:
        """Of each attribute, what counts, where it is from and what it means."""
        entry = Entry(
            DN,
            {
                name.lower(): (value,) if isinstance(value, bytes) else tuple(value)
                for name, value in values.items()
            },
        )
        facts = facts or control()
        return {
            each.name: (each.used, each.source, each.meaning)
            for each in attributes_of(entry, facts, Cluster(facts))
        }

    def test_all_are_there_in_their_order(self) -> None:
        self.assertEqual(tuple(self.facts()), ACCOUNT_ATTRIBUTES)

    def test_what_is_missing_is_taken_from_control_files(self) -> None:
        found = self.facts(control(ldapuid=5000, defaultquota=Quota(1000)))
        self.assertEqual(found["qmailUID"], (5000, "ldapuid", "5000, from ldapuid"))
        self.assertEqual(found["qmailGID"], (None, "default", "missing, and there is no ldapgid"))
        self.assertEqual(
            found["mailQuotaSize"], (1000, "defaultquotasize", "1000, from defaultquotasize")
        )
        self.assertEqual(found["mailQuotaCount"], (0, "default", "no limit"))
        both = "missing, homeDirectory and mailMessageStore both"
        self.assertEqual(found["homeDirectory"], (None, "default", both))
        self.assertEqual(found["mailMessageStore"], (None, "default", both))

    def test_a_value_comes_before_a_control_file(self) -> None:
        found = self.facts(control(ldapuid=5000), qmailUID=b"6000", mailQuotaSize=b"0")
        self.assertEqual(found["qmailUID"], (6000, "directory", ""))
        self.assertEqual(found["mailQuotaSize"], (0, "directory", "no limit"))

    def test_a_number_that_is_none_is_shown_as_it_is(self) -> None:
        self.assertEqual(self.facts(qmailUID=b"joe")["qmailUID"], ("joe", "directory", ""))

    def test_two_values_count_for_nothing(self) -> None:
        found = self.facts(mailHost=[b"a", b"b"])
        self.assertEqual(found["mailHost"], (None, "directory", "2 values, and one is allowed"))

    def test_a_status_says_whether_it_lets_in(self) -> None:
        for status, meaning in (
            (b"Disabled", "may not log in"),
            (b"noaccess", "may not log in"),
            (b"whatever", "may log in"),
        ):
            self.assertEqual(self.facts(accountStatus=status)["accountStatus"][2], meaning)

    def test_a_mailhost_is_compared_where_there_is_a_cluster(self) -> None:
        cluster = control(ldapcluster=True)
        for facts, host, meaning in (
            (control(), b"elsewhere", "not looked at, as ldapcluster is 0"),
            (cluster, b"MAIL1.example.org", "this host, as this one is mail1.example.org"),
            (cluster, b"mail2", "another host, as this one is mail1.example.org"),
        ):
            self.assertEqual(self.facts(facts, mailHost=host)["mailHost"][2], meaning)

    def test_a_store_is_the_mailbox_or_the_home(self) -> None:
        for facts, values, meaning in (
            (control(), {"homeDirectory": b"/h"}, "the mailbox"),
            (control(), {}, "relative, and there is no ldapmessagestore"),
            (
                control(ldapmessagestore="/mail/"),
                {},
                "the home, below /mail/, from ldapmessagestore",
            ),
        ):
            found = self.facts(facts, mailMessageStore=b"joe", **values)
            self.assertEqual(found["mailMessageStore"][2], meaning)
        self.assertEqual(self.facts(mailMessageStore=b"/joe")["mailMessageStore"][2], "the home")


class LookTests(TestCase):
    """The process that looks, as who this is; tests/integration has it as other owners."""

    timeout = 30

    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        (self.home / "Maildir" / "new").mkdir(parents=True)
        self.place = Place(os.fsencode(self.home), os.fsencode(self.home / "Maildir"))

    def look(self, limit: float = 20.0) -> Coroutine[Deferred[Any], Any, Any]:
        return look(reactor, self.place, 0, 0, limit)

    async def test_it_says_what_is_there(self) -> None:
        found, error = await self.look()
        self.assertIsNone(error)
        self.assertEqual(found.mailbox.path, str(self.home / "Maildir"))
        self.assertEqual(len(found.makes), 2)

    async def test_it_is_told_which_dirmaker_it_is_about(self) -> None:
        home = self.home / "missing"
        for program, hindrances in ((b"/bin/sh", 0), (b"sh", 0), (b"no-such-program", 1)):
            self.place = Place(os.fsencode(home), os.fsencode(home / "Maildir"), dirmaker=program)
            found, _ = await self.look()
            self.assertTrue(found.makes_home)
            self.assertEqual(len(found.hindrances), hindrances, program)

    async def test_an_error_is_of_its_own_kind(self) -> None:
        self.place = Place(b"/nonexistent/home", b"/nonexistent/home/Maildir")
        found, error = await self.look()
        self.assertIsInstance(error, MailboxMissing)
        self.assertEqual(found.home.kind, "missing")

    async def test_one_that_hangs_is_not_waited_for(self) -> None:
        self.patch(looking, "START", "import time; time.sleep(100)")
        begun = time.monotonic()
        error = await self.assertFailure(Deferred.fromCoroutine(self.look(0.2)), CannotLook)
        self.assertIn("0.2 seconds", str(error))
        self.assertLess(time.monotonic() - begun, 20)

    async def test_one_that_talks_without_end_is_ended(self) -> None:
        self.patch(looking, "START", "while True: print('x' * 10000)")
        error = await self.assertFailure(Deferred.fromCoroutine(self.look()), CannotLook)
        self.assertIn("longer than", str(error))

    async def test_one_that_says_nonsense_or_fails_is_no_answer(self) -> None:
        for program in (
            "print('nonsense')",
            "raise ValueError('broken')",
            "pass",
        ):
            self.patch(looking, "START", program)
            await self.assertFailure(Deferred.fromCoroutine(self.look()), CannotLook)


class ControlTests(TestCase):
    """Control files that cannot be used; tests/integration has those that can."""

    async def reason(self, directory: str) -> str:
        found = await gather(reactor, Asked("user", "joe", directory), b"joe")
        self.assertEqual(found.verdict.exit_code, 1)
        return found.verdict.reason

    async def test_what_only_root_may_read_is_to_be_looked_at_as_root(self) -> None:
        directory = self.mktemp()
        Path(directory).mkdir()
        self.assertNotIn("as root", await self.reason(directory))
        self.patch(control_inspection, "_is_denied", lambda path: path.startswith(directory))
        self.assertIn("so look at it as root", await self.reason(directory))


class CommandLineTests(SynchronousTestCase):
    def run_command(self, *arguments: str) -> tuple[Any, str]:
        output = io.StringIO()
        with redirect_stdout(output), redirect_stderr(output):
            try:
                code = main(["lookup", *arguments])
            except SystemExit as end:
                code = end.code  # type: ignore[assignment]  # a number, as argparse has it
        return code, output.getvalue()

    def test_help_says_what_it_does(self) -> None:
        code, said = self.run_command("--help")
        self.assertEqual(code, 0)
        for word in ("--mail", "--filter", "--password", "--json", "--control", "catch-all"):
            self.assertIn(word, said)

    def test_exactly_one_thing_is_looked_up(self) -> None:
        for arguments in ((), ("joe", "--mail", "a@b"), ("--mail", "a", "--filter", "(a=b)")):
            code, said = self.run_command(*arguments)
            self.assertEqual(code, 2, arguments)
            self.assertIn("usage: ", said)

    def test_what_is_no_filter_is_a_usage_error(self) -> None:
        for wrong in ("uid=joe)", "(uid=joe", "(|(uid=joe)", "", "()"):
            code, said = self.run_command("--filter", wrong)
            self.assertEqual(code, 2, wrong)
            self.assertIn("--filter", said)

    def test_a_password_that_is_not_given_is_a_usage_error(self) -> None:
        self.patch(sys, "stdin", None)
        code, said = self.run_command("joe", "--password")
        self.assertEqual(code, 2)
        self.assertIn("password", said)

    def test_an_empty_login_or_address_is_a_usage_error(self) -> None:
        self.assertEqual(self.run_command("")[0], 2)
        self.assertEqual(self.run_command("--mail", "")[0], 2)
