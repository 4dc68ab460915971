"""Finds out all that there is about one login, by the objects that the server uses.

One direction: the search by mail or filter gives the login; the search of the login gives entries;
the checker makes an account of them; the account says where to look. Every step has a time limit.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import attrs
from twisted.cred.credentials import UsernamePassword
from twisted.internet.defer import TimeoutError

from qmailldap.account import Account, Entry, RemoteAccount
from qmailldap.checker import HashProof, LDAPChecker, Proof, RebindProof
from qmailldap.checker import LocalUsers as LocalUsersOfChecker
from qmailldap.cluster import Cluster
from qmailldap.commands.lookup.attributes import attributes_of
from qmailldap.commands.lookup.findings import (
    Asked,
    Findings,
    Looked,
    Mail,
    Mailbox,
    Names,
    Password,
    Search,
    Verdict,
    as_text,
)
from qmailldap.commands.lookup.looking import CannotLook, look
from qmailldap.commands.lookup.proofs import (
    AnyPassword,
    ByBind,
    ByHash,
    Found,
    Passwd,
    Watched,
    notes_on_clear_text,
    stored_password,
)
from qmailldap.control import Control, ControlError, read_control
from qmailldap.control.inspection import look_as_root
from qmailldap.directory import Directory, DirectoryUnavailable, EntryTooLarge
from qmailldap.directory import Search as Searches
from qmailldap.directory.filter_text import filter_text
from qmailldap.directory.search import equals, parse_filter
from qmailldap.forward import ClusterTLS
from qmailldap.forward.addresses import Addresses
from qmailldap.local_users import LocalUsers
from qmailldap.maildir.storage import MailboxCorrupted, MailboxMissing
from qmailldap.owners import mailbox_refused, place_of
from qmailldap.privsep.shadow import check
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.threads import Busy, Workers

__all__ = ["NAMES_LIMIT", "gather"]

NAMES_LIMIT = 10.0
"""Seconds that finding the addresses of a member may take, or the names of ids."""

_GRID = 0.001
"""Seconds; nobody here is to be kept from learning why."""

_WITHOUT = b"?"
"""What the checker is given where no password is tried: it only must not be empty."""

_Filter = Any


async def gather(
    reactor: Any, asked: Asked, octets: bytes, password: bytes | None = None
) -> Findings:
    """All that can be found out; what goes wrong is part of it.

    ``octets`` are those of ``asked.value``: the login, the address or the filter. Without a
    ``password``, none is tried. Raises ``ValueError`` where the filter is none.
    """
    wanted = parse_filter(asked.value) if asked.by == "filter" else None
    try:
        control = read_control(asked.control)
        lookup = _Lookup(reactor, asked, control, password)
    except ControlError as error:
        refused = LoginRefused(Refusal.CONFIGURATION, f"{error}{look_as_root(error.file)}")
        return Findings(asked, Verdict(refused.detail, refused))
    try:
        if asked.by == "mail":
            wanted = lookup.searches.filter(
                equals("mail", octets), equals("mailAlternateAddress", octets)
            )
        login = octets if wanted is None else await lookup.login_by(wanted)
        await lookup.decide(login)
    except LoginRefused as refused:
        lookup.findings = lookup.ended(Verdict(refused.detail, refused))
    finally:
        await lookup.stop()
    return lookup.findings


class _Lookup:
    """One run. Methods raise `LoginRefused` where it ends. Raises `ControlError`."""

    def __init__(
        self, reactor: Any, asked: Asked, control: Control, password: bytes | None
    ) -> None:
        self._reactor = reactor
        self._asked = asked
        self._control = control
        self._password = password
        self._cleartext = control.ldapcleartext > 0
        self.searches = Searches(control)
        self._directory = Directory(reactor, control, connections=1, rebind_connections=1)
        ClusterTLS(control)  # which a server would not start with either, if it raises
        self._cluster = Cluster(control)
        self._workers = Workers(reactor, "lookup", 2, 10, stop_limit=1)
        self._workers.start()
        self.findings = Findings(asked, Verdict(""), notes=control.warnings)

    async def stop(self) -> None:
        await self._directory.stop()
        await self._workers.stop()

    def ended(self, verdict: Verdict) -> Findings:
        return attrs.evolve(self.findings, verdict=verdict)

    def _know(self, **facts: Any) -> None:
        self.findings = attrs.evolve(self.findings, **facts)

    def _note(self, note: str) -> None:
        self._know(notes=(*self.findings.notes, note))

    async def login_by(self, wanted: _Filter) -> bytes:
        """The login of the one entry that an address or a filter finds."""
        entries, failed = await self._search(self._asked.by, wanted, more=("uid",))
        if failed is not None:
            raise _refusal_of(failed)
        if not entries:
            raise LoginRefused(
                Refusal.WRONG_CREDENTIALS, f"the search by {self._asked.by} finds no entry"
            )
        if len(entries) > 1:
            raise LoginRefused(
                Refusal.TEMPORARY, f"the search by {self._asked.by} finds more than one entry"
            )
        names = entries[0].values("uid")
        if not names:
            raise LoginRefused(
                Refusal.WRONG_CREDENTIALS, "the entry has no uid, which a login is sought by"
            )
        if len(names) > 1:
            others = ", ".join(map(as_text, names[1:]))
            self._note(f"the entry has {len(names)} values of uid: {others} besides the login")
        return names[0]

    async def decide(self, login: bytes) -> None:
        """What becomes of the login: up to the mailbox, or the member that has it."""
        self._know(login=as_text(login))
        entries, failed = await self._search("user", self.searches.filter(equals("uid", login)))
        if len(entries) == 1:
            (entry,) = entries
            self._know(
                dn=self.findings.searches[-1].entries[0],
                attributes=attributes_of(entry, self._control, self._cluster),
            )
        if self._asked.by == "filter" and failed is None:
            self._compare_with_filter()
        passwd = self._passwd()
        proof = Watched(self._proof())
        refused = None
        try:
            account = await self._checked(login, entries, failed, proof, passwd)
        except LoginRefused as error:
            refused = error
        if entries:
            self._know(known_by="directory", password=self._of_values(entries, proof.right))
        elif failed is None and passwd is not None:
            self._know(passwd=passwd.knows)
            if passwd.knows:
                self._know(known_by="passwd", password=passwd.password)
        if refused is not None:
            # What else there is to see does not depend on the password.
            try:
                account = await self._checked(login, entries, failed, ByBind(), _anyone(passwd))
            except LoginRefused:
                raise refused from None
        try:
            await self._find_mail(account)
        except LoginRefused:
            if refused is None:
                raise
        if refused is not None:
            raise refused

    async def _find_mail(self, account: Account | RemoteAccount) -> None:
        if isinstance(account, RemoteAccount):
            await self._elsewhere(account)
        else:
            self._know(mail=Mail(True, account.mail_host))
            await self._here(account)

    async def _search(
        self, by: str, wanted: _Filter, more: tuple[str, ...] = ()
    ) -> tuple[tuple[Entry, ...], Exception | None]:
        """The entries, or what kept them from being found; either is noted."""
        search = Search(by, self.searches.base, filter_text(wanted))
        entries: tuple[Entry, ...] = ()
        failed: Exception | None = None
        try:
            answer = await self._directory.search(wanted, more)
        except (DirectoryUnavailable, EntryTooLarge) as error:
            failed = error
            search = attrs.evolve(search, problem=str(error))
        else:
            entries = answer.value
            search = attrs.evolve(
                search,
                server=str(answer.server),
                seconds=answer.seconds,
                troubles=answer.troubles,
                entries=tuple(_dn_text(entry.dn) for entry in entries),
            )
        self._know(searches=(*self.findings.searches, search))
        return entries, failed

    async def _checked(
        self,
        login: bytes,
        entries: tuple[Entry, ...],
        failed: Exception | None,
        proof: Proof,
        passwd: LocalUsersOfChecker | None,
    ) -> Account | RemoteAccount:
        """What the server's checker says."""
        checker = LDAPChecker(
            Found(self._directory, entries, failed),
            proof,
            self._control.account_defaults,
            self._reactor,
            passwd,
            self._cluster.keeps,
            grid=_GRID,
        )
        password = _WITHOUT if self._password is None else self._password
        account: Account | RemoteAccount = await checker.requestAvatarId(
            UsernamePassword(login, password)
        )
        return account

    def _proof(self) -> Proof:
        if self._control.ldaprebind:
            if self._password is None:
                return ByBind()
            return RebindProof(self._directory, self._control.ldapbasedn, self._reactor)
        if self._password is None:
            return ByHash(cleartext=self._cleartext)
        return HashProof(self._workers, cleartext=self._cleartext)

    def _passwd(self) -> Passwd | None:
        if not self._control.ldaplocaldelivery:
            return None
        users = LocalUsers(
            lambda login, password: self._workers(check, login, password),
            self._workers,
            self._control.defaultdelivery,
            self._reactor,
        )
        return Passwd(users, self._workers, self._password is not None)

    def _of_values(self, entries: tuple[Entry, ...], right: bool | None) -> Password:
        right = None if self._password is None else right
        if self._control.ldaprebind:
            return Password("bind", right=right)
        for note in notes_on_clear_text(entries, self._control):
            self._note(note)
        return stored_password(entries, right, cleartext=self._cleartext)

    async def _elsewhere(self, account: RemoteAccount) -> None:
        member = self._cluster.member(account.mail_host)
        found = Addresses(self._reactor, self._workers).of(member.host)
        try:
            addresses = await found.addTimeout(NAMES_LIMIT, self._reactor)
        except TimeoutError:
            addresses = ()
        self._know(
            mail=Mail(False, account.mail_host, member.host, member.port, addresses),
        )
        if not addresses:
            raise LoginRefused(Refusal.MAILHOST_UNREACHABLE, f"{member.host} has no address")
        self._let_in(f"forwarded to {member}, which decides as well", forwarded_to=str(member))

    async def _here(self, account: Account) -> None:
        looked = _looks_as(account)
        place = place_of(account, self._control.dirmaker)
        mailbox = Mailbox(
            uid=account.uid,
            gid=account.gid,
            home=account.home,
            mailbox=account.mailbox,
            quota=account.quota,
            max_message_size=account.max_message_size,
            looked=looked,
            dirmaker=self._control.dirmaker,
        )
        as_whom = (looked.uid, looked.gid) if os.geteuid() == 0 else (0, 0)
        refused = None
        try:
            inspection, error = await look(self._reactor, place, *as_whom)
        except CannotLook as trouble:
            refused = LoginRefused(Refusal.TEMPORARY, f"{account.mailbox}: {trouble}")
            mailbox = attrs.evolve(mailbox, problem=refused.detail)
        else:
            mailbox = attrs.evolve(mailbox, inspection=inspection)
            if error is not None:
                refused = mailbox_refused(error, account, (looked.uid, looked.gid))
                mailbox = attrs.evolve(mailbox, problem=refused.detail)
                if not looked.is_owner and not isinstance(error, MailboxMissing | MailboxCorrupted):
                    refused = None  # Another may see more, and make what is missing.
        self._know(mailbox=attrs.evolve(mailbox, names=await self._names(mailbox)))
        if refused is not None:
            raise refused
        reason = condition = ""
        if mailbox.inspection is not None and mailbox.inspection.makes_home:
            reason = f"dirmaker would have to make {account.home}"
            condition = "if dirmaker makes the home"
            if looked.is_owner:
                for hindrance in mailbox.inspection.hindrances:
                    self._note(hindrance)
        # Only root can tell of a user of passwd whether any password lets him in.
        sees_shadow = os.geteuid() == 0 or not self.findings.passwd
        self._let_in(reason, is_complete=looked.is_owner and sees_shadow, condition=condition)

    async def _names(self, mailbox: Mailbox) -> Names:
        try:
            return await self._workers(_names_in, mailbox).addTimeout(NAMES_LIMIT, self._reactor)
        except (TimeoutError, Busy, OSError):
            return Names()

    def _compare_with_filter(self) -> None:
        by_filter, by_login = self.findings.searches
        if set(by_filter.entries) & set(by_login.entries):
            return
        if by_login.entries:
            self._note("the search of the login finds another entry than the filter")
        elif self._control.ldapobjectclass is not None:
            self._note(
                "the entry that the filter finds does not match ldapobjectclass"
                f" ({self._control.ldapobjectclass}), by which logins are sought"
            )

    def _let_in(self, reason: str, **facts: Any) -> None:
        self._know(verdict=Verdict(reason, proved=self._password is not None, **facts))


def _looks_as(account: Account) -> Looked:
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        return Looked(account.uid, account.gid, True)
    return Looked(uid, gid, uid == account.uid)


def _names_in(mailbox: Mailbox) -> Names:
    """The names of all ids that are shown; blocks."""
    found = mailbox.inspection
    seen = () if found is None else (found.home, found.mailbox, *found.folders)
    owners = [(mailbox.uid, mailbox.gid), (mailbox.looked.uid, mailbox.looked.gid)]
    owners += [(each.uid, each.gid) for each in seen]
    return Names(
        _known((uid for uid, _ in owners), lambda uid: pwd.getpwuid(uid).pw_name),
        _known((gid for _, gid in owners), lambda gid: grp.getgrgid(gid).gr_name),
    )


def _known(ids: Iterable[int], name_of: Callable[[int], str]) -> dict[int, str]:
    names = {}
    for number in set(ids):
        # An inspection has numbers that are no ids where its process was tampered with.
        with suppress(KeyError, OverflowError):
            names[number] = name_of(number)
    return names


def _refusal_of(failed: Exception) -> LoginRefused:
    """As the checker has it."""
    if isinstance(failed, DirectoryUnavailable):
        return LoginRefused(Refusal.DIRECTORY_UNREACHABLE, str(failed))
    return LoginRefused(Refusal.RECORD_INCORRECT, str(failed))


def _anyone(passwd: Passwd | None) -> AnyPassword | None:
    return None if passwd is None else AnyPassword(passwd)


def _dn_text(dn: str) -> str:
    return as_text(dn.encode("utf-8", "surrogateescape"))
