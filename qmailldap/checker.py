"""Who a login is: the credentials checker on the directory, and on passwd beside it.

Finds the record, has the password proved, and only then judges the record: until the password is
right, every refusal reads and takes the same (design.md, "Contracts").
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeVar

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import UnhandledCredentials
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from qmailldap.account import (
    Account,
    AccountDefaults,
    Entry,
    RemoteAccount,
    parse_account,
    parse_mail_host,
)
from qmailldap.decisions import tell_account, tell_found, tell_member, tell_proof
from qmailldap.directory import DirectoryUnavailable, EntryTooLarge
from qmailldap.durations import Durations
from qmailldap.figures.tally import Tally
from qmailldap.password_values import Answer, PasswordValues, prove_answer
from qmailldap.passwords import Decoys, StoredPassword
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.threads import Busy, Offload
from qmailldap.turns import Turns

__all__ = [
    "REFUSAL_GRID",
    "Directory",
    "HashProof",
    "LDAPChecker",
    "LocalUsers",
    "Proof",
    "RebindProof",
]

REFUSAL_GRID = 0.1
"""Seconds; a refused login is answered after a multiple of them."""

T = TypeVar("T")


class Directory(Protocol):
    """What is asked of the directory; `qmailldap.directory.Directory` answers."""

    async def find(self, login: bytes) -> tuple[Entry, ...]: ...

    async def prove(self, dn: str, password: bytes) -> bool: ...


class Proof(Protocol):
    """One way to prove a password."""

    async def prove(self, login: bytes, entries: tuple[Entry, ...], password: bytes) -> bool:
        """Whether the password is that of any of the entries. Raises `LoginRefused`."""

    async def pretend(self, login: bytes, password: bytes) -> None:
        """Take the time that a wrong password takes. Raises `LoginRefused` where that would."""


class LocalUsers(Protocol):
    """The users that passwd knows; `qmailldap.local_users.LocalUsers` answers."""

    async def prove(self, login: bytes, password: bytes) -> bool | None:
        """Whether the password is the user's, None where no password could be.

        Raises ``OSError`` and `Busy` where that is not to be found out.
        """

    async def pretend(self) -> None:
        """Take the time that `prove` takes."""

    async def account(self, login: bytes) -> Account:
        """Whom the login is. Raises `LoginRefused`."""


class _NoLocalUsers:
    """Where passwd is not asked (control file ldaplocaldelivery)."""

    async def prove(self, login: bytes, password: bytes) -> bool | None:
        return None

    async def pretend(self) -> None:
        return

    async def account(self, login: bytes) -> Account:
        raise LoginRefused(Refusal.WRONG_CREDENTIALS, "no such user")


class HashProof:
    """The password is compared with userPassword, off the reactor where that takes long.

    ``cleartext`` says that userPassword may be clear text (control file ldapcleartext).
    """

    def __init__(self, offload: Offload, *, cleartext: bool = False) -> None:
        self._offload = offload
        self._cleartext = cleartext
        self._decoys = Decoys()

    async def prove(self, login: bytes, entries: tuple[Entry, ...], password: bytes) -> bool:
        values = PasswordValues.of(entries, cleartext=self._cleartext)
        # More values than one are refused whichever is right, but not before one of them is.
        proved, took_long = False, False
        for stored in values.readable:
            self._decoys.seen(stored)
            took_long = took_long or not (stored.is_quick or stored.takes_no_time)
            is_right = await self._verify(stored, password)
            tell_proof(login, stored.scheme, is_right)
            proved |= is_right
        if not proved and not took_long:
            # What was computed may be less than what an unknown user costs.
            await self.pretend(login, password)
        refused = values.refusal_of_right() if proved else values.refusal_of_wrong()
        if refused is not None:
            raise refused
        return proved

    async def pretend(self, login: bytes, password: bytes) -> None:
        await self._verify(self._decoys.commonest(), password)

    async def _verify(self, stored: StoredPassword, password: bytes) -> bool:
        if stored.is_quick:
            return stored.verify(password)
        return await self._offload(stored.verify, password)


class RebindProof:
    """The password is proved by binding as the record's DN with it (control file ldaprebind)."""

    def __init__(self, directory: Directory, base: str, clock: IReactorTime) -> None:
        self._directory = directory
        self._base = base
        self._clock = clock
        # How long the directory took to judge the password of an entry.
        self._judged = Durations(clock)
        # The connections for binds are few, and must not all be held by guesses at one entry.
        self._turns = Turns(clock)

    async def prove(self, login: bytes, entries: tuple[Entry, ...], password: bytes) -> bool:
        for entry in entries:
            proved = await self._in_turn(entry.dn, partial(self._bind, entry.dn, password))
            tell_proof(login, "bind", proved)
            if proved:
                return True
        return False

    async def _in_turn(
        self, name: str, proof: Callable[[], Coroutine[Deferred[Any], Any, bool]]
    ) -> bool:
        try:
            return await self._turns.take(name, lambda: Deferred.fromCoroutine(proof()))
        except Busy as error:
            raise LoginRefused(
                Refusal.TEMPORARY, str(error), shown=Refusal.WRONG_CREDENTIALS, judged=False
            ) from None

    async def _bind(self, dn: str, password: bytes) -> bool:
        begun = self._clock.seconds()
        proved = await self._directory.prove(dn, password)
        self._judged.add(self._clock.seconds() - begun)
        return proved

    async def pretend(self, login: bytes, password: bytes) -> None:
        # An entry's guesses wait for each other, and so must those at a name that has none, however
        # it is spelt: a directory compares without case and with blanks folded.
        name = b"?" + b" ".join(login.lower().split())
        await self._in_turn(name.decode("latin-1"), self._pretend)

    async def _pretend(self) -> bool:
        if self._judged:
            await self._judged.sit_out(self._clock.seconds())
        else:
            # As long as no entry has been judged, this is what is nearest. It is no measure for
            # later: a directory need not compute a hash for an entry that does not exist.
            nobody = f"uid={secrets.token_hex(8)},{self._base}".rstrip(",")
            await self._directory.prove(nobody, b"x")
        return False


async def _to_the_end(judged: Coroutine[Deferred[Any], Any, T]) -> T:
    """What is judged, whether somebody still waits for it or not.

    A right password may be answered long before a wrong one: who leaves in between has been told,
    and is to have it counted. Raises `CancelledError` if all was right and nobody waits.
    """
    verdict: list[T | Failure] = []
    told: Deferred[None] = Deferred()

    def tell(result: T | Failure) -> None:
        verdict.append(result)
        told.callback(None)

    Deferred.fromCoroutine(judged).addBoth(tell)
    left = False
    while not verdict:
        try:
            await told
        except CancelledError:
            left, told = True, Deferred()
    (result,) = verdict
    if isinstance(result, Failure):
        result.raiseException()
    if left:
        raise CancelledError
    return result


@implementer(ICredentialsChecker)
class LDAPChecker:
    """Turns a login and a password into the `Account` they open, or the `RemoteAccount`.

    ``proof`` is how the site proves passwords, ``local`` who else there is beside the directory:
    asked only about a login that the directory says it does not know. ``keeps`` tells of a mailHost
    whether its mail is here. ``grid`` is in seconds: refused logins are answered after a multiple
    of it. With ``cleartext``, answers to a challenge are taken as well, from those whose password
    the directory has in clear text. ``tally`` counts how long it takes. Fails with `LoginRefused`,
    never with anything else that a client, a record or a directory could cause.
    """

    def __init__(
        self,
        directory: Directory,
        proof: Proof,
        defaults: AccountDefaults,
        clock: IReactorTime,
        local: LocalUsers | None = None,
        keeps: Callable[[str], bool] = lambda mail_host: True,
        *,
        grid: float = REFUSAL_GRID,
        cleartext: bool = False,
        tally: Tally | None = None,
    ) -> None:
        challenges = (IUsernameHashedPassword,) if cleartext else ()
        self.credentialInterfaces = (IUsernamePassword, *challenges)
        self._keeps = keeps
        self._grid = grid
        self._directory = directory
        self._proof = proof
        self._defaults = defaults
        self._clock = clock
        self._local = _NoLocalUsers() if local is None else local
        self._tally = tally

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """A Deferred of who it is, for credentials of one of the ``credentialInterfaces``.

        (Types: the interface is written for avatar ids that are octets.)
        """
        login = credentials.username
        if IUsernamePassword.providedBy(credentials):
            judged = self._judge(login, credentials.password)
        elif IUsernameHashedPassword in self.credentialInterfaces:
            judged = self._judge_answer(login, credentials)
        else:
            raise UnhandledCredentials("answers to challenges are not taken")
        return Deferred.fromCoroutine(self._in_time(judged))

    async def _in_time(
        self, judged: Coroutine[Deferred[Any], Any, Account | RemoteAccount]
    ) -> Account | RemoteAccount:
        """What is judged, its refusals held back to the next multiple of the grid.

        To find an entry and to read it takes longer than to find none, by a fraction of a
        millisecond, which a patient stranger can measure.
        """
        begun = self._clock.seconds()
        try:
            return await _to_the_end(judged)
        except LoginRefused as refused:
            if refused.shown is Refusal.WRONG_CREDENTIALS:
                taken = self._clock.seconds() - begun
                # A guesser who does not wait to be told is still told of in the log.
                with suppress(CancelledError):
                    await deferLater(self._clock, self._grid - taken % self._grid)
            raise

    async def _judge(self, login: bytes, password: bytes) -> Account | RemoteAccount:
        entries = await self._by_directory(login, password)
        if not entries:
            return await self._by_passwd(login, password)
        return self._account(login, entries)

    async def _judge_answer(self, login: bytes, answer: Answer) -> Account | RemoteAccount:
        """Who has answered a challenge: nobody whom passwd knows, as shadow has no clear text."""
        entries, password = await _refusing(self._answered(login, answer))
        return self._account(login, entries, password)

    def _account(
        self, login: bytes, entries: tuple[Entry, ...], password: bytes | None = None
    ) -> Account | RemoteAccount:
        """What the record says; ``password`` is for the member that has the mail."""
        if len(entries) > 1:
            raise LoginRefused(
                Refusal.TEMPORARY, f"more than one entry: {entries[0].dn} and others"
            )
        (entry,) = entries
        mail_host = parse_mail_host(entry)
        if mail_host is not None and not self._keeps(mail_host):
            remote = RemoteAccount(login, entry.dn, mail_host, password)
            tell_member(remote)
            return remote
        account = parse_account(login, entry, self._defaults)
        tell_account(account, entry, self._defaults)
        return account

    async def _by_directory(self, login: bytes, password: bytes) -> tuple[Entry, ...]:
        """The entries of the login, its password proved; none where passwd is to be asked."""
        try:
            return await _refusing(self._proved(login, password))
        except LoginRefused as refused:
            if refused.shown is Refusal.WRONG_CREDENTIALS:
                # Those whom the directory does not know wait for passwd's answer as well.
                with suppress(CancelledError):
                    await self._local.pretend()
            raise

    async def _proved(self, login: bytes, password: bytes) -> tuple[Entry, ...]:
        entries, too_large = await self._find(login)
        tell_found(login, entries)
        # An empty password is never right, whatever hash or directory would say of it: a simple
        # bind with one succeeds, as anonymous (RFC 4513, section 5.1.2).
        if entries and password:
            begun = self._clock.seconds()
            proved = await self._proof.prove(login, entries, password)
            self._count("hash", begun)
            if not proved:
                raise LoginRefused(Refusal.WRONG_CREDENTIALS, "wrong password")
            return entries
        await self._proof.pretend(login, password)
        if too_large:
            raise LoginRefused(Refusal.RECORD_INCORRECT, too_large, shown=Refusal.WRONG_CREDENTIALS)
        if not password:
            raise LoginRefused(Refusal.WRONG_CREDENTIALS, "empty password")
        return entries

    async def _answered(self, login: bytes, answer: Answer) -> tuple[tuple[Entry, ...], bytes]:
        """The entries of the login, and the password that has been proved."""
        entries, too_large = await self._find(login)
        tell_found(login, entries)
        if too_large:
            raise LoginRefused(Refusal.RECORD_INCORRECT, too_large, shown=Refusal.WRONG_CREDENTIALS)
        if not entries:
            raise LoginRefused(
                Refusal.WRONG_CREDENTIALS, "no such user in the directory, to answer a challenge"
            )
        return entries, prove_answer(login, entries, answer)

    async def _by_passwd(self, login: bytes, password: bytes) -> Account:
        try:
            proved = await self._local.prove(login, password)
        except (OSError, Busy) as error:
            raise LoginRefused(
                Refusal.TEMPORARY, f"passwd: {error}", shown=Refusal.WRONG_CREDENTIALS
            ) from None
        tell_proof(login, "passwd", proved)
        if proved is None:
            raise LoginRefused(Refusal.WRONG_CREDENTIALS, "no such user")
        if not proved:
            raise LoginRefused(Refusal.WRONG_CREDENTIALS, "wrong password, by passwd")
        account = await self._local.account(login)
        tell_account(account)
        return account

    async def _find(self, login: bytes) -> tuple[tuple[Entry, ...], str]:
        """The entries; and what is wrong, where there is one that is too large to be read."""
        begun = self._clock.seconds()
        try:
            entries = await self._directory.find(login)
        except EntryTooLarge as error:
            return (), str(error)
        self._count("directory", begun)
        return entries, ""

    def _count(self, part: str, begun: float) -> None:
        if self._tally is not None:
            seconds = self._clock.seconds() - begun
            self._tally.observe("login_part_seconds", part, seconds=seconds)


async def _refusing(work: Coroutine[Deferred[Any], Any, T]) -> T:
    """What the work gives; whatever keeps it from being done is a `LoginRefused`."""
    try:
        return await work
    except DirectoryUnavailable as error:
        raise LoginRefused(Refusal.DIRECTORY_UNREACHABLE, str(error)) from None
    except Busy as error:
        raise LoginRefused(Refusal.TEMPORARY, str(error)) from None
    except MemoryError:
        raise LoginRefused(Refusal.OUT_OF_MEMORY, "to prove a password") from None
