"""`qmailldap lookup` as it is called, for a real directory server and real mailboxes."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from qmailldap.commands.lookup.findings import Asked, Findings
from qmailldap.commands.lookup.gathering import gather
from qmailldap.commands.lookup.json_text import as_json
from qmailldap.commands.lookup.text import as_lines
from qmailldap.crypt3 import crypt, preferred_setting

from .hosts import NOBODY, Host, python_as_user, require_root
from .mailboxes import MESSAGES, Maildir
from .ports import unused_port
from .server import Pop3Server, environment
from .site import PASSWORD, SiteTestCase
from .users import OWNER, SUFFIX, Owner, md5_value

LIMIT = 60
PROGRAM = "import sys; from qmailldap.commands import main; sys.exit(main())"

ANN: Owner = (21001, 22001)
ROOT = f"{pwd.getpwuid(0).pw_name}(0):{grp.getgrgid(0).gr_name}(0)"


class LookupTestCase(SiteTestCase):
    """A directory server, and the control files of a POP3 server, which need not be started."""

    timeout = 180

    async def start_directory(self, **control: str | None) -> None:
        self.slapd = self.new_slapd()
        self.server = self.new_server(self.slapd.address, control=control)
        await self.slapd.start()

    async def run_lookup(
        self,
        *arguments: str,
        password: str | None = None,
        before: Sequence[str] = (),
        server: Pop3Server | None = None,
        **variables: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end; no output ever holds a password or a value of one."""
        control = str((server or self.server).control)
        options = ["--control", control, *(["--password"] if password is not None else [])]
        finished = await deferToThread(
            subprocess.run,
            [*before, sys.executable, "-c", PROGRAM, "lookup", *options, *arguments],
            input=f"{password}\nnot this line\n",
            capture_output=True,
            text=True,
            timeout=LIMIT,
            env=environment(**variables),
        )
        for secret in self.secrets:
            self.assertNotIn(secret, finished.stdout + finished.stderr)
        self.assertNotIn("Traceback", finished.stderr)
        return finished

    async def lookup(self, *arguments: str, **options: Any) -> tuple[int, str]:
        """The exit code, and the text with what differs from run to run replaced."""
        finished = await self.run_lookup(*arguments, **options)
        if "LOGLEVEL" not in options:
            self.assertEqual(finished.stderr, "")
        return finished.returncode, self.steady(finished.stdout)

    def steady(self, text: str) -> str:
        text = text.replace(str(self.directory), "/SITE").replace(self.slapd.address, "SLAPD")
        text = re.sub(r"in \d+ ms", "in N ms", text)
        return re.sub(r'"milliseconds": \d+', '"milliseconds": 0', text)

    async def facts(self, *arguments: str, **options: Any) -> Any:
        """The object of --json; its exit code is that of the process."""
        finished = await self.run_lookup(*arguments, "--json", **options)
        found = json.loads(finished.stdout)
        self.assertEqual(found["verdict"]["exit_code"], finished.returncode)
        return found


GOLDEN = f"""\
login             joe
search            (&(objectClass=qmailUser)(uid=joe)) below {SUFFIX}
answered by       SLAPD, in N ms
entry             uid=joe,{SUFFIX}
accountStatus     active (may log in)
mailHost          not set: the mail is here
mailMessageStore  ./Maildir/ (the mailbox)
homeDirectory     /SITE/homes/0
qmailUID          {OWNER[0]}
qmailGID          not set: {OWNER[1]}, from ldapgid
mailQuotaSize     10000
mailQuotaCount    not set: 100, from defaultquotacount
mailSizeMax       not set: no limit
password          MD5, proved by its hash; {{password}}
mail              here
ids               {OWNER[0]}:{OWNER[1]}
home              /SITE/homes/0: directory, mode 0700, owner {OWNER[0]}:{OWNER[1]}
mailbox           /SITE/homes/0/Maildir: directory, mode 0700, owner {OWNER[0]}:{OWNER[1]}
messages          2, 15 octets (1 in new, 1 in cur)
quota             10000 octets, 100 messages; used: 15 octets (0 %), 2 messages (2 %)
maildirsize       for a quota of 10000S,100C; says 20 octets, 3 messages
verdict           {{verdict}}
exit code         {{code}}
"""


class GoldenTests(LookupTestCase):
    """Whole outputs, as a person reads them."""

    maxDiff = None

    def setUp(self) -> None:
        super().setUp()
        self.joe = self.user(
            "joe",
            value=md5_value(PASSWORD),
            qmailGID=None,
            mailQuotaSize=10000,
            mailMessageStore="./Maildir/",
        )
        self.joe.deliver(b"in new\n")
        self.joe.deliver(b"in cur.\n", "cur", ":2,S")
        (self.joe.path / "maildirsize").write_text("10000S,100C\n20 3\n")
        self.joe.own(self.joe.path / "maildirsize")

    async def start_joe(self) -> None:
        await self.start_directory(
            ldapobjectclass="qmailUser", ldapgid=str(OWNER[1]), defaultquotacount="100"
        )

    async def test_without_a_password(self) -> None:
        await self.start_joe()
        golden = GOLDEN.format(
            password="not tried", verdict="would be let in, with the right password", code=0
        )
        self.assertEqual(await self.lookup("joe"), (0, golden))

    async def test_with_the_right_password_and_a_wrong_one(self) -> None:
        await self.start_joe()
        right = GOLDEN.format(password="right", verdict="would be let in", code=0)
        self.assertEqual(await self.lookup("joe", password=PASSWORD), (0, right))
        wrong = GOLDEN.format(
            password="wrong",
            verdict=f"refused: authorization failed\n{'':18}wrong password",
            code=3,
        )
        self.assertEqual(await self.lookup("joe", password="wrong"), (3, wrong))
        facts = await self.facts("joe", password="")
        self.assertEqual(facts["verdict"]["reason"], "empty password")

    async def test_by_mail_and_by_filter(self) -> None:
        self.user("ann", mail="ann@example.org", mailAlternateAddress=["a@example.org", "x@y"])
        await self.start_joe()
        by_mail = "(|(mail=a@example.org)(mailAlternateAddress=a@example.org))"
        for arguments, search in (
            (
                ["--mail", "a@example.org"],
                f"search by mail    (&(objectClass=qmailUser){by_mail})",
            ),
            (
                ["--filter", "(&(objectClass=*) (mail=ann*))"],
                "search by filter  (&(objectClass=*)(mail=ann*))",
            ),
        ):
            code, text = await self.lookup(*arguments)
            self.assertEqual(code, 0)
            head = (
                f"login             ann\n{search} below {SUFFIX}\n"
                f"answered by       SLAPD, in N ms\n                  uid=ann,{SUFFIX}\n"
                f"search            (&(objectClass=qmailUser)(uid=ann)) below {SUFFIX}\n"
                f"answered by       SLAPD, in N ms\nentry             uid=ann,{SUFFIX}\n"
            )
            self.assertEqual(text[: len(head)], head)
            self.assertIn("\nverdict           would be let in, with the right password\n", text)

    async def test_json_holds_the_same(self) -> None:
        await self.start_joe()
        found = await self.facts("joe", password=PASSWORD)
        self.assertEqual(found["password"]["schemes"], ["MD5"])
        self.assertIs(found["password"]["right"], True)
        self.assertEqual(
            found["account"],
            {
                "uid": OWNER[0],
                "gid": OWNER[1],
                "home": str(self.joe.path.parent),
                "mailbox": str(self.joe.path),
                "quota": {"octets": 10000, "messages": 100},
                "max_message_size": 0,
            },
        )
        mailbox = found["mailbox"]
        self.assertEqual(mailbox["messages"], {"new": 1, "cur": 1, "octets": 15})
        self.assertEqual(mailbox["use"], {"octets": 15, "messages": 2})
        self.assertEqual(mailbox["maildirsize"]["messages"], 3)
        self.assertTrue(mailbox["looked_as"]["is_owner"])
        self.assertEqual(
            found["verdict"],
            {
                "let_in": True,
                "exit_code": 0,
                "refusal": None,
                "text": None,
                "client_is_told": None,
                "reason": "",
                "password_proved": True,
                "complete": True,
                "condition": "",
                "forwarded_to": None,
            },
        )


class GatheredTestCase(LookupTestCase):
    """What the command finds and writes, of many logins: without a process for each."""

    async def gathered(self, *arguments: str, password: str | None = None) -> Findings:
        by, value = ("--user", *arguments)[-2:]
        asked = Asked(by.removeprefix("--"), value, str(self.server.control))
        octets = None if password is None else password.encode()
        return await gather(reactor, asked, value.encode(), octets)

    async def lookup(self, *arguments: str, **options: Any) -> tuple[int, str]:
        found = await self.gathered(*arguments, **options)
        text = "".join(f"{line}\n" for line in as_lines(found))
        for secret in self.secrets:
            self.assertNotIn(secret, text)
        return found.verdict.exit_code, self.steady(text)

    async def facts(self, *arguments: str, **options: Any) -> Any:
        found = as_json(await self.gathered(*arguments, **options))
        for secret in self.secrets:
            self.assertNotIn(secret, found)
        return json.loads(found)


class VerdictTests(GatheredTestCase):
    """A verdict is what the server says to a client, at the same time and of the same files."""

    def declare(self) -> dict[str, str]:
        """Users, and why each is refused; empty for the one who is not."""
        homes = self.directory / "homes"
        self.user("fine", messages=[MESSAGES["plain"]])
        self.user("disabled", accountStatus="Disabled")
        self.user("locked", value="{CRYPT}!" + "x" * 13)
        self.user("unknown-scheme", value="{WHATEVER}c2VjcmV0LXZhbHVl")
        self.user("clear", value=PASSWORD)
        self.user("named-clear", value=f"{{CLEARTEXT}}{PASSWORD}")
        self.user("malformed", value="{SSHA}not-base64-at-all!")
        self.user("two-values", value=[md5_value(PASSWORD), "{CRYPT}*locked"])
        self.user("no-value", value=[])
        self.user("relative-home", homeDirectory="home/joe")
        self.user("low-uid", qmailUID=99)
        self.user("no-home", homeDirectory=str(homes / "missing"))
        self.user("twice")
        self.user("twice", dn=f"cn=twice,{SUFFIX}")
        maildir = self.user("a-file").path
        for folder in maildir.iterdir():
            folder.rmdir()
        maildir.rmdir()
        maildir.touch()
        self.user("closed").path.chmod(0)
        not_his = self.user("not-his-home").path
        for folder in (*not_his.iterdir(), not_his):
            folder.rmdir()
        os.chown(not_his.parent, 0, 0)
        not_his.parent.chmod(0o755)
        self.user("no-parent", mailMessageStore="missing/Maildir/")
        return {
            "fine": "",
            "disabled": "ACCOUNT_DISABLED",
            "locked": "WRONG_CREDENTIALS",
            "unknown-scheme": "WRONG_CREDENTIALS",
            "clear": "WRONG_CREDENTIALS",
            "named-clear": "WRONG_CREDENTIALS",
            "malformed": "RECORD_INCORRECT",
            "two-values": "TEMPORARY",
            "no-value": "WRONG_CREDENTIALS",
            "relative-home": "RECORD_INCORRECT",
            "low-uid": "RECORD_INCORRECT",
            "no-home": "MAILBOX_MISSING",
            "twice": "TEMPORARY",
            "a-file": "MAILBOX_CORRUPTED",
            "closed": "TEMPORARY",
            "not-his-home": "MAILBOX_NOT_CREATED",
            "no-parent": "MAILBOX_NOT_CREATED",
            "nobody-at-all": "WRONG_CREDENTIALS",
        }

    async def test_every_verdict_without_and_with_the_password_is_the_server_s(self) -> None:
        require_root()
        verdicts = self.declare()
        await self.start()
        for user, refusal in verdicts.items():
            without = await self.facts(user)
            self.assertEqual(without["verdict"]["refusal"] or "", refusal, user)
            self.assertFalse(without["verdict"]["password_proved"])
            found = await self.facts(user, password=PASSWORD)
            self.assertEqual(found["verdict"]["refusal"] or "", refusal, user)
            told = await self.refusal_of(user)
            shown = found["verdict"]["client_is_told"]
            self.assertEqual(told, "accepted" if shown is None else f"-ERR {shown}", user)
            wrong = await self.facts(user, password="wrong")
            self.assertFalse(wrong["verdict"]["let_in"])
            self.assertEqual(wrong["verdict"]["client_is_told"], "[AUTH] authorization failed")

    async def test_a_value_that_nothing_matches_says_why(self) -> None:
        require_root()
        values = {
            f"{PASSWORD}": "it has no {SCHEME} and is nothing that crypt(3) gives: clear text?",
            f"{{CLEARTEXT}}{PASSWORD}": "{CLEARTEXT} is clear text, which needs the control file"
            " ldapcleartext",
            f"{{SASL}}{PASSWORD}": "{SASL} is a scheme that is not known here",
            f"!{md5_value(PASSWORD)}": "it is locked by ! or *",
        }
        for number, value in enumerate(values):
            self.user(f"joe{number}", value=value)
        await self.start_directory()
        for number, why in enumerate(values.values()):
            for password in (None, PASSWORD):
                code, text = await self.lookup(f"joe{number}", password=password)
                self.assertEqual(code, 3)
                self.assertIn(
                    f"password          proved by its hash; no password matches it: {why}\n", text
                )
                self.assertIn(f"which no password matches: {why}\n", text)

    async def test_clear_text_is_told_as_such_by_what_the_site_has_asked_for(self) -> None:
        require_root()
        for login, value in (
            ("clear", PASSWORD),
            ("named", f"{{Clear}}{PASSWORD}"),
            ("hash", md5_value(PASSWORD)),
            ("bare-hash", md5_value(PASSWORD)[len("{MD5}") :]),
        ):
            self.user(login, value=value)
        self.slapd = self.new_slapd()
        await self.slapd.start()
        found: dict[str, Any] = {}
        for level in ("0", "1", "2"):
            self.server = self.new_server(
                self.slapd.address, f"server{level}", control={"ldapcleartext": level}
            )
            for login in ("clear", "named", "hash", "bare-hash"):
                for password in (None, PASSWORD, "wrong"):
                    facts = await self.facts(login, password=password)
                    password_found = facts["password"]
                    found[f"{level} {login}"] = (password_found["schemes"], facts["notes"])
                    is_usable = login == "hash" or (login != "bare-hash" and level != "0")
                    self.assertEqual(password_found["problem"] in (None, ""), is_usable)
                    if password is not None:
                        is_right = password == PASSWORD and is_usable
                        refused = facts["verdict"]["refusal"] == "WRONG_CREDENTIALS"
                        self.assertEqual(refused, not is_right, (level, login, password))
        unusable = "userPassword looks like clear text, which lets nobody in, as ldapcleartext is 0"
        no_challenge = "the login is refused by %s, as userPassword is not in clear text"
        self.assertEqual(
            found,
            {
                "0 clear": ([], [unusable]),
                "0 named": ([], [unusable]),
                "0 hash": (["MD5"], []),
                "0 bare-hash": ([], []),
                "1 clear": (["clear text"], []),
                "1 named": (["clear text"], []),
                "1 hash": (["MD5"], [no_challenge % "CRAM-MD5"]),
                "1 bare-hash": ([], []),
                "2 clear": (["clear text"], []),
                "2 named": (["clear text"], []),
                "2 hash": (["MD5"], [no_challenge % "CRAM-MD5 and APOP"]),
                "2 bare-hash": ([], []),
            },
        )

    async def test_with_rebind_the_directory_proves_the_password(self) -> None:
        require_root()
        self.user("fine")
        self.user("disabled", accountStatus="disabled")
        await self.start_directory(ldaprebind="1")
        _, text = await self.lookup("fine")
        self.assertIn("proved by a bind (ldaprebind), its value not asked for; not tried\n", text)
        for user, password, code in (
            ("fine", PASSWORD, 0),
            ("fine", "wrong", 3),
            ("fine", "", 3),
            ("disabled", PASSWORD, 4),
            ("disabled", "wrong", 3),
            ("unknown", PASSWORD, 3),
        ):
            finished, text = await self.lookup(user, password=password)
            self.assertEqual(finished, code, text)
            self.assertNotIn("SSHA", text)
        self.assertEqual((await self.lookup("disabled"))[0], 4)

    async def test_a_missing_home_would_be_made_by_dirmaker(self) -> None:
        require_root()
        home = self.directory / "missing"
        self.user("joe", homeDirectory=str(home))
        ran = self.directory / "ran"
        dirmaker = self.directory / "make home"
        dirmaker.write_text(f"#!/bin/sh\ntouch {ran}\n")
        dirmaker.chmod(0o755)
        await self.start_directory(dirmaker=str(dirmaker))
        code, text = await self.lookup("joe", password=PASSWORD)
        self.assertEqual(code, 0)
        self.assertIn(
            "home              /SITE/missing: missing, would be made at the login by dirmaker"
            ' "/SITE/make home"\n',
            text,
        )
        self.assertIn("verdict           would be let in, if dirmaker makes the home\n", text)
        may_not_write = (
            "note              the owner, as whom dirmaker is run, may not write in /SITE, where"
            " the home is to be made\n"
        )
        self.assertIn(may_not_write, text)
        self.assertNotIn("execute", text)
        dirmaker.chmod(0o700)
        self.directory.chmod(0o777)
        self.addCleanup(self.directory.chmod, 0o755)
        code, text = await self.lookup("joe", password="wrong")
        self.assertEqual(code, 3)
        self.assertIn("note              the owner may not execute the dirmaker /SITE/make ", text)
        self.assertNotIn(may_not_write, text)
        self.assertFalse(home.exists() or ran.exists())

    async def test_one_who_is_found_otherwise_must_have_one_uid_that_finds_him(self) -> None:
        self.user("joe", mail="both@example.org")
        self.user("ann", mail="both@example.org")
        self.user("bob", mail="bob@example.org", uid=["bob", "robert"])
        self.user("old", mail="old@example.org", deliveryMode="reply")
        self.other_entry(
            f"cn=group,{SUFFIX}", {"objectClass": ["applicationProcess"], "cn": "group"}
        )
        await self.start_directory(ldapobjectclass="qmailUser)(deliveryMode=nolocal")
        code, text = await self.lookup("--mail", "both@example.org")
        self.assertEqual(code, 111)
        self.assertIn(
            f"found             two entries, or more\n{'':18}uid=joe,{SUFFIX}\n"
            f"{'':18}uid=ann,{SUFFIX}\n",
            text,
        )
        code, text = await self.lookup("--mail", "bob@example.org")
        self.assertEqual(code, 0)
        self.assertIn("note              the entry has 2 values of uid: ", text)
        code, text = await self.lookup("--filter", "(cn=group)")
        self.assertEqual(code, 3)
        self.assertIn("verdict           finds nobody\n", text)
        self.assertIn("the entry has no uid", text)
        # ldapobjectclass is not added to a filter, but the login is sought by it.
        code, text = await self.lookup("--filter", "(mail=old@example.org)")
        self.assertEqual(code, 3)
        self.assertIn("login             old\n", text)
        self.assertIn("found             no entry\n", text)
        self.assertIn(
            "note              the entry that the filter finds does not match ldapobjectclass"
            " (qmailUser)(deliveryMode=nolocal), by which logins are sought\n",
            text,
        )
        self.assertEqual((await self.lookup("--filter", "(uid=joe)"))[0], 0)
        code, text = await self.lookup("--mail", "no*body@example.org")
        self.assertEqual(code, 3)
        self.assertIn(
            "verdict           finds nobody\n"
            f"{'':18}the search by mail finds no entry\nexit code         3\n",
            text,
        )
        self.assertNotIn("authorization", text)
        verdict = (await self.facts("--mail", "no*body@example.org"))["verdict"]
        self.assertIsNone(verdict["client_is_told"])

    async def test_a_record_is_hostile(self) -> None:
        hostile = b"\x1b[2Jactive\r\nverdict: let in"
        self.user(
            "joe\x1b]0;x\x07",
            accountStatus=hostile.decode(),
            mailHost="\x1b[31mred",
            value="{\x1b[2J}hidden-value",
        )
        await self.start_directory(ldapcluster="1", me="mail1.example.org")
        for arguments in (["joe\x1b]0;x\x07"], ["--mail", "\x1b[2J@x"], ["--filter", "(uid=joe*)"]):
            for form in ([], ["--json"]):
                finished = await self.run_lookup(*arguments, *form)
                shown = finished.stdout + finished.stderr
                self.assertTrue(all(each == "\n" or " " <= each <= "~" for each in shown), shown)
                self.assertNotIn("hidden-value", shown)


class ElsewhereTests(GatheredTestCase):
    async def test_mail_of_another_member_has_its_addresses(self) -> None:
        self.user("far", mailHost="mail2.example.org")
        self.user("near", mailHost="MAIL1.example.org")
        self.user("lost", mailHost="no-such-host.invalid")
        await self.start_directory(
            ldapcluster="1", me="mail1.example.org", pop3routes="mail2.example.org:127.0.0.9:1110"
        )
        code, text = await self.lookup("far")
        self.assertEqual(code, 0)
        self.assertIn(" mail2.example.org (another host, as this one is mail1.example.org)", text)
        self.assertIn(
            "mail              on mail2.example.org, reached at 127.0.0.9:1110: 127.0.0.9\n"
            "verdict           would be forwarded to mail2.example.org at 127.0.0.9:1110, with the"
            " right password; whether that member lets the user in was not tried\n"
            "exit code         0\n",
            text,
        )
        self.assertNotIn("mailbox  ", text)
        verdict = (await self.facts("far", password=PASSWORD))["verdict"]
        self.assertEqual(verdict["forwarded_to"], "mail2.example.org at 127.0.0.9:1110")
        self.assertTrue(verdict["let_in"])
        code, text = await self.lookup("near", password=PASSWORD)
        self.assertEqual(code, 0)
        self.assertIn("mail              here\n", text)
        facts = await self.facts("lost", password=PASSWORD)
        self.assertEqual(facts["verdict"]["refusal"], "MAILHOST_UNREACHABLE")
        self.assertEqual(facts["mail"]["addresses"], [])
        self.assertIs(facts["password"]["right"], True)


class TroubleTests(LookupTestCase):
    async def test_a_directory_that_is_down_is_said_to_be(self) -> None:
        self.slapd = self.new_slapd()
        self.server = self.new_server(self.slapd.address)
        for password in (None, PASSWORD):
            code, text = await self.lookup("joe", password=password)
            self.assertEqual(code, 2)
            self.assertIn("answered by       none: SLAPD: ", text)
            self.assertIn("refused: unable to contact authorization server\n", text)

    async def test_one_that_hangs_is_given_ldaptimeout(self) -> None:
        self.user("joe")
        await self.start_directory(ldaptimeout="1")
        self.slapd.pause()
        code, text = await self.lookup("joe")
        self.slapd.resume()
        self.assertEqual(code, 2, text)

    async def test_which_of_two_has_answered_is_told_and_why_not_the_other(self) -> None:
        self.user("joe")
        self.slapd = self.new_slapd()
        await self.slapd.start()
        down = f"127.0.0.1:{unused_port()}"
        self.server = self.new_server(f"{down}\n{self.slapd.address}")
        code, text = await self.lookup("joe", password=PASSWORD)
        self.assertEqual(code, 0)
        self.assertIn(f"answered by       SLAPD, in N ms\nasked before      {down}: ", text)

    async def test_control_files_that_no_server_starts_with_are_named(self) -> None:
        self.slapd = self.new_slapd()
        for name, files in (
            ("ldapserver", {"ldapserver": ""}),
            ("ldapobjectclass", {"ldapobjectclass": "qmailUser)("}),
            ("ldapbasedn", {"ldapbasedn": "no dn"}),
            ("pop3clustertls", {"pop3clustertls": "7"}),
        ):
            server = self.new_server(self.slapd.address, f"with-{name}", control=files)
            code, text = await self.lookup("joe", server=server)
            self.assertEqual(code, 1)
            self.assertIn(f"/SITE/with-{name}/control/{name}: ", text)

    async def test_the_log_goes_to_standard_error_and_holds_no_secret(self) -> None:
        self.user("joe")
        await self.start_directory()
        for arguments in (["joe"], ["joe", "--json"], ["nobody-at-all"]):
            silent = await self.run_lookup(*arguments, password=PASSWORD)
            self.assertEqual(silent.stderr, "")
            for level in ("255", "511"):
                talking = await self.run_lookup(*arguments, password=PASSWORD, LOGLEVEL=level)
                self.assertEqual(self.steady(talking.stdout), self.steady(silent.stdout))
                self.assertIn("uid=", talking.stderr)


class RightsTests(LookupTestCase):
    """Who looks, and that a look is all that it is."""

    def setUp(self) -> None:
        require_root()
        super().setUp()

    async def test_nothing_is_changed(self) -> None:
        joe = self.user("joe", messages=[MESSAGES["plain"]], mailQuotaSize=1000, owner=ANN)
        died = joe.path / "tmp" / "1.died"
        died.write_text("half a mess")
        os.utime(died, (0, 0))
        (joe.path / "maildirsize").write_text("1S\n1 1\n")
        (joe.path / "cur").rmdir()
        joe.own(died, joe.path / "maildirsize")
        await self.start_directory()
        before = _everything(self.directory / "homes")
        for password in (None, PASSWORD):
            code, text = await self.lookup("joe", password=password)
            self.assertEqual(code, 0)
            self.assertIn("Maildir/cur: missing, would be made at the login\n", text)
            self.assertEqual(_everything(self.directory / "homes"), before)
        # A session would have done it all.
        self.assertEqual(self.slapd.count("MOD"), 0)

    async def test_root_looks_with_the_rights_of_the_owner_only(self) -> None:
        joe = self.user("joe", owner=ANN)
        secret = Maildir(self.directory / "secret" / "Maildir", (21009, 22009))
        secret.deliver(MESSAGES["plain"])
        for folder in joe.path.iterdir():
            folder.rmdir()
        joe.path.rmdir()
        joe.path.symlink_to(secret.path)
        await self.start_directory()
        code, text = await self.lookup("joe")
        self.assertEqual(code, 111)
        self.assertIn("/Maildir: not to be seen (Permission denied), by a symbolic link to", text)
        self.assertNotIn("messages", text)

    async def test_another_s_home_and_mailbox_are_told(self) -> None:
        joe = self.user("joe", owner=ANN)
        os.chown(joe.path, 0, 0)
        joe.path.chmod(0o755)
        await self.start_directory()
        _, text = await self.lookup("joe")
        self.assertIn(
            f"Maildir: directory, mode 0755, owner {ROOT}, and not 21001\n", self.steady(text)
        )

    async def test_another_group_is_no_fault(self) -> None:
        joe = self.user("joe", owner=ANN)
        for folder in (joe.path.parent, joe.path, *joe.path.iterdir()):
            os.chown(folder, ANN[0], 21995)
        await self.start_directory()
        code, text = await self.lookup("joe")
        self.assertEqual(code, 0)
        self.assertNotIn("and not", text)
        self.assertEqual(text.count("21001:21995"), 2)

    async def test_a_folder_that_is_a_link_is_said_not_to_be_allowed(self) -> None:
        joe = self.user("joe", owner=ANN)
        (joe.path / "tmp").rmdir()
        (joe.path / "tmp").symlink_to("new")
        await self.start_directory()
        code, text = await self.lookup("joe")
        self.assertEqual(code, 6)
        self.assertIn("Maildir/tmp: a symbolic link is not allowed here; it leads to new\n", text)

    async def test_another_user_sees_what_he_may_and_is_told_so(self) -> None:
        self.user("closed", owner=ANN)
        self.user("gone", homeDirectory=str(self.directory / "homes" / "missing"), owner=ANN)
        await self.start_directory()
        (self.server.control / "ldappassword").chmod(0o644)
        before = python_as_user(NOBODY)
        code, text = await self.lookup("closed", password=PASSWORD, before=before)
        self.assertEqual(code, 0)
        self.assertRegex(
            text, r"looked at as +(nobody\()?65534\)?:(\w+\()?65534\)?, who may not see all"
        )
        self.assertIn("verdict           would be let in, as far as can be seen\n", text)
        facts = await self.facts("closed", before=before)
        self.assertFalse(facts["verdict"]["complete"])
        self.assertFalse(facts["mailbox"]["looked_as"]["is_owner"])
        code, text = await self.lookup("gone", before=before)
        self.assertEqual(code, 62)
        self.assertIn("(for uid 65534, gid 65534)", text)

    async def test_the_owner_sees_all_of_his_own(self) -> None:
        self.user("own", messages=[MESSAGES["plain"]], owner=ANN)
        await self.start_directory()
        (self.server.control / "ldappassword").chmod(0o644)
        facts = await self.facts("own", before=python_as_user(ANN))
        self.assertTrue(facts["verdict"]["complete"])
        self.assertEqual(facts["mailbox"]["messages"]["new"], 1)


class PasswdTests(LookupTestCase):
    """Users of the host, whom the directory does not know."""

    def setUp(self) -> None:
        require_root()
        super().setUp()
        self.host = Host(self.directory / "etc")
        self.local_password = "a-password-of-the-hosts-own"
        value = crypt(self.local_password.encode(), preferred_setting())
        assert value is not None
        self.value = value.decode("ascii")
        self.secrets.update([self.local_password, self.value])

    def local(self, name: str, value: str, owner: Owner = ANN) -> Path:
        maildir = Maildir(self.directory / name / "Mail", owner)
        maildir.deliver(MESSAGES["plain"])
        (maildir.path.parent / ".qmail").write_text("./Mail/\n")
        maildir.own(maildir.path.parent, maildir.path.parent / ".qmail")
        self.host.user(name, owner, maildir.path.parent, value)
        return maildir.path

    async def test_a_user_of_passwd_is_decided_by_shadow(self) -> None:
        self.local("ann", self.value)
        self.local("locked", f"!{self.value}")
        self.local("system", self.value, (33, 33))
        await self.start_directory(ldaplocaldelivery="1")
        before = self.host.before
        code, text = await self.lookup("ann", before=before)
        self.assertEqual(code, 0)
        for line in (
            "found             no entry\npasswd            knows the user\n",
            "proved by shadow; not tried\n",
            "ids               ann(21001):ann(22001)\n",
            "/SITE/ann/./Mail: directory, mode 0700, owner ann(21001):ann(22001), named by",
            "verdict           would be let in, with the right password\n",
        ):
            self.assertIn(line, text)
        for user, password, code in (
            ("ann", self.local_password, 0),
            ("ann", "wrong", 3),
            ("locked", self.local_password, 3),
            ("system", self.local_password, 25),
            ("root", "x", 25),
            ("unheard-of", "x", 3),
        ):
            finished, text = await self.lookup(user, password=password, before=before)
            self.assertEqual(finished, code, text)
        code, text = await self.lookup("locked", before=before)
        self.assertEqual(code, 3)
        self.assertIn("the user is locked, or has no password", text)

    async def test_only_root_can_tell_of_his_password(self) -> None:
        self.local("ann", f"!{self.value}")
        await self.start_directory(ldaplocaldelivery="1")
        (self.server.control / "ldappassword").chmod(0o644)
        before = [*self.host.before, *python_as_user(ANN)]
        facts = await self.facts("ann", before=before)
        self.assertTrue(facts["verdict"]["let_in"])
        self.assertFalse(facts["verdict"]["complete"])

    async def test_passwd_is_not_asked_where_the_site_does_not_want_it(self) -> None:
        self.local("ann", self.value)
        await self.start_directory(ldaplocaldelivery="0")
        facts = await self.facts("ann", password=self.local_password, before=self.host.before)
        self.assertIsNone(facts["passwd"])
        self.assertEqual(facts["verdict"]["refusal"], "WRONG_CREDENTIALS")


def _everything(path: Path) -> dict[str, tuple[int, ...]]:
    """All that a look could change, and when each file but maildirsize was last read."""
    found = {}
    for each in (path, *path.rglob("*")):
        status = each.lstat()
        facts = [status.st_ino, status.st_mode, status.st_uid, status.st_size]
        facts += [status.st_mtime_ns, status.st_ctime_ns]
        if each.is_file() and each.name != "maildirsize":
            facts.append(status.st_atime_ns)
        found[str(each)] = tuple(facts)
    return found
