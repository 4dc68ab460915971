"""With whose rights the mail of an account is touched."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.account import Account
from qmailldap.maildir.hands import Hands, InThreads
from qmailldap.maildir.listings import ListingCache
from qmailldap.maildir.work import Place
from qmailldap.owners import Owners, mailbox_refused
from qmailldap.quota import Quota
from qmailldap.refusal import LoginRefused, Refusal
from tests.maildir.support import HandsAsked, here, make_maildir
from tests.test_realm import account

OWN = (1000, 1000)


class KeepersAsked:
    """Keepers that tell whom they were asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[int, int], Place]] = []
        self.given: list[HandsAsked] = []
        self.listings: list[ListingCache | None] = []

    def hands(
        self, owner: tuple[int, int], place: Place, listings: ListingCache | None = None
    ) -> Hands:
        self.asked.append((owner, place))
        self.listings.append(listings)
        self.given.append(HandsAsked())
        return self.given[-1]


class OwnersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.keepers = KeepersAsked()

    def account(self, uid: int, gid: int) -> Account:
        return attrs.evolve(account(), uid=uid, gid=gid)

    def hands(self, uid: int, gid: int, *, started_as_root: bool) -> Hands:
        keepers = self.keepers if started_as_root else None
        owners = Owners(here, keepers, "/bin/dirmaker", own_ids=lambda: OWN)
        return owners.hands(self.account(uid, gid))

    def assert_in_process(self, uid: int, gid: int, *, started_as_root: bool) -> None:
        hands = self.hands(uid, gid, started_as_root=started_as_root)
        self.assertIsInstance(hands, InThreads)
        self.assertEqual([], self.keepers.asked)

    def assert_by_keeper(self, uid: int, gid: int) -> None:
        hands = self.hands(uid, gid, started_as_root=True)
        self.assertIs(self.keepers.given[-1], hands)
        self.assertEqual((uid, gid), self.keepers.asked[-1][0])

    def test_our_own_mail_is_touched_here(self) -> None:
        self.assert_in_process(*OWN, started_as_root=True)
        self.assert_in_process(*OWN, started_as_root=False)

    def test_the_mail_of_others_is_for_keepers(self) -> None:
        self.assert_by_keeper(1001, 1001)
        self.assert_by_keeper(1001, 1000)

    def test_another_group_is_for_a_keeper_where_there_are_any(self) -> None:
        self.assert_by_keeper(1000, 1001)

    def test_who_was_not_started_as_root_has_no_choice_of_groups(self) -> None:
        self.assert_in_process(1000, 1001, started_as_root=False)

    def test_without_keepers_the_mail_of_others_is_refused(self) -> None:
        for gid in (1000, 1001):
            with self.assertRaises(LoginRefused) as caught:
                self.hands(1001, gid, started_as_root=False)
            self.assertIs(Refusal.RECORD_INCORRECT, caught.exception.refusal)
            self.assertIn("uid 1001", caught.exception.detail)
            self.assertIn("uid 1000", caught.exception.detail)

    def test_the_ids_of_this_process_are_those_it_acts_with(self) -> None:
        mine = self.account(os.geteuid(), os.getegid())
        self.assertIsInstance(Owners(here, self.keepers, None).hands(mine), InThreads)
        self.assertEqual([], self.keepers.asked)

    def test_listings_are_kept_by_whoever_does_the_work(self) -> None:
        listings = ListingCache()
        owners = Owners(here, self.keepers, None, own_ids=lambda: OWN, listings=listings)
        owners.hands(self.account(1001, 1001))
        self.assertIs(listings, self.keepers.listings[-1])
        maildir = make_maildir(Path(self.mktemp()).absolute() / "Maildir")
        ours = attrs.evolve(account(), uid=1000, gid=1000, mailbox=str(maildir))
        self.successResultOf(owners.hands(ours).begin())
        self.assertEqual(1, listings.mailboxes)

    def test_without_any_none_are_kept(self) -> None:
        self.hands(1001, 1001, started_as_root=True)
        self.assertEqual([None], self.keepers.listings)


class RefusalTests(SynchronousTestCase):
    """What is told where a mailbox cannot be had."""

    def test_whose_rights_were_not_enough_is_told(self) -> None:
        error = PermissionError(errno.EACCES, "Permission denied", b"/home/joe")
        joe = attrs.evolve(account(), uid=1001, gid=1002)
        for rights, ids in ((None, "uid 1001, gid 1002"), ((7, 8), "uid 7, gid 8")):
            self.assertEqual(
                mailbox_refused(error, joe, rights).detail,
                f"/home/joe: Permission denied (for {ids})",
            )


class PlaceTests(SynchronousTestCase):
    """What hands learn of an account."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.home = self.folder / "home"
        self.account = attrs.evolve(
            account(),
            uid=1001,
            home=str(self.home),
            mailbox=f"{self.home}/mail",
            delivery="./mail/",
            names_both=True,
            quota=Quota(100, 10),
            max_message_size=5,
            asks_dot_qmail=True,
        )

    def test_a_keeper_is_told_all_but_its_own_path(self) -> None:
        keepers = KeepersAsked()
        Owners(here, keepers, "/bin/dirmaker", own_ids=lambda: OWN).hands(self.account)
        ((_, place),) = keepers.asked
        environment = {
            b"USER": b"joe",
            b"AUTHENTICATED": b"joe",
            b"HOME": os.fsencode(self.home),
            b"MAILDIR": b"./mail/",
            b"MAILDIRQUOTA": b"100S,10C",
            b"DATASIZE": b"5",
        }
        self.assertEqual(
            Place(
                home=os.fsencode(self.home),
                mailbox=os.fsencode(self.home / "mail"),
                delivery=b"./mail/",
                quota=Quota(100, 10),
                dirmaker=b"/bin/dirmaker",
                environment=environment,
                asks_dot_qmail=True,
            ),
            place,
        )

    def test_without_a_dirmaker_none_is_named(self) -> None:
        keepers = KeepersAsked()
        Owners(here, keepers, None, own_ids=lambda: OWN).hands(self.account)
        self.assertIsNone(keepers.asked[0][1].dirmaker)

    def test_octets_of_a_path_that_are_no_text_stay_as_they_are(self) -> None:
        keepers = KeepersAsked()
        named = attrs.evolve(self.account, home="/home/j\udcff")
        Owners(here, keepers, None, own_ids=lambda: OWN).hands(named)
        self.assertEqual(b"/home/j\xff", keepers.asked[0][1].home)

    def made_by(self, dirmaker: str, path: str | None) -> dict[str, str]:
        """The environment of a dirmaker that is run in this process."""
        seen = self.folder / "seen"
        program = self.folder / "dirmaker"
        program.write_text(f'#!/bin/sh\n/bin/mkdir "$1"\n/bin/cat /proc/$$/environ > {seen}\n')
        program.chmod(0o755)
        before = os.environb.pop(b"PATH")
        self.addCleanup(os.environb.__setitem__, b"PATH", before)
        if path is not None:
            os.environb[b"PATH"] = os.fsencode(path)
        owners = Owners(here, None, dirmaker, own_ids=lambda: (1001, 1000))
        begun = self.successResultOf(owners.hands(self.account).begin())
        self.assertEqual(os.fsencode(self.home / "mail"), begun.path)
        lines = seen.read_text().rstrip("\0").split("\0")
        return dict(line.split("=", 1) for line in lines)

    def test_a_dirmaker_in_this_process_has_the_variables_and_our_path(self) -> None:
        environment = self.made_by("dirmaker", f"/nowhere:{self.folder}")
        expected = {
            **{name.decode(): value.decode() for name, value in self.account.environment().items()},
            "PATH": f"/nowhere:{self.folder}",
        }
        self.assertEqual(expected, environment)

    def test_where_we_have_no_path_it_has_that_of_the_system(self) -> None:
        environment = self.made_by(f"{self.folder}/dirmaker", None)
        self.assertEqual(os.defpath, environment["PATH"])
