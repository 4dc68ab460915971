"""Whom auth_pop lets in, and what it ends with for all others: the tables of reference.md.

Everything that does not depend on it is tried with passwords proved by hash and by rebind.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher

from .chain import ChainTestCase
from .hosts import python_as_user, require_root
from .mailboxes import MESSAGES, everything_below
from .popup import Popup
from .ports import HOST, unused_port
from .processes import wait_until
from .site import PASSWORD
from .users import OWNER, SUFFIX, ssha_value

CONFIGURATION, UNREACHABLE, WRONG, DISABLED, MAILHOST, CORRUPTED = 1, 2, 3, 4, 5, 6
NOT_STARTED, NO_MEMORY, INCORRECT, NOT_CREATED, MISSING, TEMPORARY = 7, 8, 25, 61, 62, 111

RECORDS: dict[str, tuple[int, dict[str, Any]]] = {
    "disabled": (DISABLED, {"accountStatus": "NoAccess"}),
    "no-paths": (INCORRECT, {"homeDirectory": None}),
    "relative": (INCORRECT, {"homeDirectory": None, "mailMessageStore": "joe"}),
    "system-id": (INCORRECT, {"qmailUID": 99}),
    "quota": (INCORRECT, {"mailQuotaSize": -1}),
    "elsewhere": (MAILHOST, {"mailHost": "mx9.example.org"}),
}
"""Records that give nobody any mail here, and the exit code for their owner."""

DEAR = PasswordHasher(time_cost=1, memory_cost=256 * 1024, parallelism=1)
"""Its memory, in KiB, is as much as a password may take."""

REPORT = ("sh", "-c", 'echo "$HOME ${MAILDIR-unset} $(pwd) $*"', "sh", "./Default/")


class OutcomeTestCase(ChainTestCase):
    async def assert_faults(self, *faults: tuple[Popup, int, str]) -> None:
        """Joe is refused with these exit codes, and standard error says what is at fault."""
        refusals = (self.assert_refused(popup, {"joe": code}) for popup, code, _ in faults)
        for found, (_, _, words) in zip(await self.together(*refusals), faults, strict=True):
            self.assertIn(words, found["joe"].errors)

    def assert_made(self, mailbox: Path) -> None:
        for each in (mailbox, mailbox / "tmp", mailbox / "new", mailbox / "cur"):
            status = each.stat()
            shown = (oct(status.st_mode), status.st_uid, status.st_gid)
            self.assertEqual(shown, (oct(0o040700), *OWNER), each)

    async def code_of(self, popup: Popup, handed: bytes) -> int | None:
        with open(os.devnull) as nothing:
            login = popup.start(handed, {0: nothing.fileno(), 1: nothing.fileno()})
        await wait_until(login.has_ended, 20, "its end")
        return login.code


class DecisionTests(OutcomeTestCase):
    async def test_what_is_wrong_with_a_record_is_told_to_its_owner_only(self) -> None:
        for login, (_, attributes) in RECORDS.items():
            self.user(login, **attributes)
        for number in ("one", "two"):
            self.user("twice", dn=f"cn=twice {number},{SUFFIX}", cn=f"twice {number}")
        await self.start_directory()
        nobody_there = f"mx9.example.org:{HOST}:{unused_port()}"
        cluster = {"ldapcluster": "1", "me": "mail1.example.org", "pop3routes": nobody_there}
        popup = self.new_chain(control=cluster)
        expected = {login: code for login, (code, _) in RECORDS.items()}
        found = await self.assert_refused(popup, {**expected, "twice": TEMPORARY})
        self.assertIn("qmailUID is 99", found["system-id"].errors)
        self.assertIn("mailMessageStore joe is relative", found["relative"].errors)
        guessed = dict.fromkeys(["disabled", "elsewhere", "twice"], WRONG)
        await self.assert_refused(popup, guessed, "a-guess")

    async def test_all_who_may_not_log_in_are_told_the_same(self) -> None:
        joe = self.user("joe")
        self.user("locked", value="{CRYPT}!")
        await self.start_directory()
        popup = self.new_chain()
        before = everything_below(joe.path.parent)
        logins = ("locked", "unheard-of", "*")
        await self.assert_refused(popup, dict.fromkeys(logins, WRONG))
        await self.assert_refused(popup, {"joe": WRONG}, "a-guess")
        # qmail-popup hands no empty ones over, but others may.
        empty = (self.code_of(popup, handed) for handed in (b"joe\0\0<1>\0", b"\0\0\0"))
        self.assertEqual(await self.together(*empty), [WRONG, WRONG])
        self.assertEqual(everything_below(joe.path.parent), before)

    async def test_the_mailbox_is_where_every_row_of_the_table_says(self) -> None:
        homes, store = self.directory / "homes", self.directory / "store"
        # homeDirectory and mailMessageStore; HOME, the mailbox below it, and MAILDIR.
        rows: dict[str, tuple[Path | None, str | None, Path, str, str]] = {
            "both": (homes / "both", "in/", homes / "both", "in", "in/"),
            "apart": (homes / "apart", f"{store}/box", homes / "apart", f"{store}/box", ""),
            "home": (homes / "home", None, homes / "home", "Default", "unset"),
            "absolute": (None, f"{store}/ann", store / "ann", "Default", "unset"),
            "relative": (None, "bob", store / "bob", "Default", "unset"),
        }
        for login, (home_directory, message_store, home, _, _) in rows.items():
            home.mkdir(parents=True)
            home.chmod(0o700)
            os.chown(home, *OWNER)
            self.user(
                login,
                homeDirectory=None if home_directory is None else str(home_directory),
                mailMessageStore=message_store,
            )
        os.chown(store, *OWNER)
        await self.start_directory()
        popup = self.new_chain(control={"ldapmessagestore": str(store)}, subprogram=REPORT)
        for login, outcome in (await self.outcomes(popup, [*rows])).items():
            _, message_store, home, mailbox, maildir = rows[login]
            maildir = maildir or str(message_store)
            self.assertEqual(outcome.answer.split(), [str(home), maildir, str(home), "./Default/"])
            self.assertEqual(outcome.code, 0)
            self.assert_made(home / mailbox)

    async def test_the_site_itself_may_be_at_fault(self) -> None:
        joe = self.user("joe", messages=[MESSAGES["plain"]])
        await self.start_directory()
        before = everything_below(joe.path.parent)
        down, slow = self.new_slapd("down"), self.new_slapd("slow")
        await slow.start()
        slow.pause()
        nobody_there = {"ldapserver": down.address}
        impatient = {"ldapserver": slow.address, "ldaptimeout": "1"}
        no_program = ("no-such-program", "./Maildir/")
        await self.assert_faults(
            (self.new_chain("faulty", control={"ldapserver": None}), CONFIGURATION, "ldapserver"),
            (
                self.new_chain("down", control=nobody_there),
                UNREACHABLE,
                down.address,
            ),
            (self.new_chain("slow", control=impatient), UNREACHABLE, slow.address),
            (self.new_chain("program", subprogram=no_program), NOT_STARTED, no_program[0]),
        )
        # A home may be touched for a program that is not there; a session, never.
        self.assertEqual(everything_below(joe.path.parent), before)

    async def test_mailboxes_that_are_not_as_they_should_be(self) -> None:
        corrupted, unwritable = self.user("corrupted"), self.user("unwritable")
        shutil.rmtree(corrupted.path)
        corrupted.path.touch()
        shutil.rmtree(unwritable.path)
        unwritable.path.parent.chmod(0o500)
        self.user("missing", homeDirectory=str(self.directory / "nowhere"))
        await self.start_directory()
        without = self.new_chain("without")
        failing = self.new_chain("failing", control={"dirmaker": "false"})
        await self.together(
            self.assert_refused(
                without, {"corrupted": CORRUPTED, "unwritable": NOT_CREATED, "missing": MISSING}
            ),
            self.assert_refused(failing, {"missing": NOT_CREATED}),
        )


class RebindDecisionTests(DecisionTests):
    control = {"ldaprebind": "1"}

    async def test_two_values_of_the_password_do_no_harm(self) -> None:
        self.user("two", value=[ssha_value("another-one"), ssha_value(PASSWORD)])
        await self.start_directory()
        self.assertEqual((await self.outcome(self.new_chain(), "two")).code, 0)


class AsOwnerTests(DecisionTests):
    """The same where auth_pop is not started as root, but as the owner of all mail."""

    def new_chain(self, name: str = "chain", **keywords: Any) -> Popup:
        require_root()
        before = [*python_as_user(OWNER), *keywords.pop("before", [])]
        popup = super().new_chain(name, before=before, **keywords)
        place = self.directory / name
        for each in (place, *place.rglob("*")):
            os.chown(each, *OWNER)
        return popup


class RebindAsOwnerTests(AsOwnerTests):
    control = {"ldaprebind": "1"}


class HashTests(OutcomeTestCase):
    """What only who reads userPassword can meet."""

    async def test_values_that_prove_no_password(self) -> None:
        self.user("malformed", value="{SSHA}!not-base64!")
        self.user("two", value=[ssha_value("another-one"), ssha_value(PASSWORD)])
        self.user("two-wrong", value=[ssha_value("another-one"), ssha_value("a-third-one")])
        self.user("dear", value="{ARGON2}" + DEAR.hash(PASSWORD))
        await self.start_directory()
        popup = self.new_chain()
        await self.assert_refused(popup, {"malformed": WRONG, "two": TEMPORARY, "two-wrong": WRONG})
        self.assertEqual((await self.outcome(popup, "dear")).code, 0)
        poor = self.new_chain("poor", before=["prlimit", f"--as={DEAR.memory_cost * 1024}"])
        found = await self.assert_refused(poor, {"dear": NO_MEMORY})
        self.assertIn("memory", found["dear"].errors)


class CallTests(OutcomeTestCase):
    """Faults of whoever has written the command line."""

    async def test_what_is_at_fault_is_named(self) -> None:
        self.user("joe")
        await self.start_directory()
        control = {"ldapserver": "ldap.example.org:port"}
        none = str(self.directory / "none")
        await self.assert_faults(
            (self.new_chain("server", control=control), CONFIGURATION, "ldap.example.org:port"),
            (self.new_chain("control", options=("--control", none)), CONFIGURATION, none),
            (self.new_chain("option", options=("-z",)), CONFIGURATION, "-z"),
            (self.new_chain("nothing", subprogram=()), CONFIGURATION, "no subprogram"),
            (
                self.new_chain("not-a-program", subprogram=("/etc/passwd", "./Maildir/")),
                NOT_STARTED,
                "/etc/passwd",
            ),
        )
