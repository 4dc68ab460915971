"""Who a login is: the credentials checker on the directory, and on passwd beside it.

Finds the record, has the password proved, and only then judges the record: until the password is
right, every refusal reads and takes the same (design.md, "Contracts").
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from qmailldap.account import (
    Account,
    AccountDefaults,
    Entry,
    RemoteAccount,
    parse_account,
    parse_mail_host,
    password_values,
)
from qmailldap.directory import DirectoryUnavailable, EntryTooLarge
from qmailldap.durations import Durations
from qmailldap.passwords import Decoys, MalformedHash, StoredPassword, parse_password
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

_MOST_VALUES = 8


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
    """The password is compared with userPassword, off the reactor where that takes long."""

    def __init__(self, offload: Offload) -> None:
        self._offload = offload
        self._decoys = Decoys()

    async def prove(self, login: bytes, entries: tuple[Entry, ...], password: bytes) -> bool:
        dn = entries[0].dn
        values = [value for entry in entries for value in password_values(entry)]
        if not values:
            await self.pretend(login, password)
            raise LoginRefused(
                Refusal.WRONG_CREDENTIALS, f"{dn} has no userPassword that can be read"
            )
        # More values than one are refused whichever is right, but not before one of them is.
        proved, malformed, took_long, hopeless = False, None, False, True
        for value in values[:_MOST_VALUES]:
            try:
                stored = parse_password(value)
            except MalformedHash as error:
                malformed = error
                continue
            self._decoys.seen(stored)
            hopeless = hopeless and stored.takes_no_time
            took_long = took_long or not (stored.is_quick or stored.takes_no_time)
            proved |= await self._verify(stored, password)
        if proved and len(entries) == 1 and len(values) > 1:
            raise LoginRefused(Refusal.TEMPORARY, f"{dn} has {len(values)} values of userPassword")
        if not proved and not took_long:
            # What was computed may be less than what an unknown user costs.
            await self.pretend(login, password)
        if not proved and malformed is not None:
            raise LoginRefused(
                Refusal.RECORD_INCORRECT,
                f"userPassword of {dn}: {malformed}",
                shown=Refusal.WRONG_CREDENTIALS,
            )
        if not proved and hopeless:
            raise LoginRefused(
                Refusal.WRONG_CREDENTIALS,
                f"userPassword of {dn} is locked, or of no scheme that is known here",
            )
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
            if await self._in_turn(entry.dn, partial(self._bind, entry.dn, password)):
                return True
        return False

    async def _in_turn(
        self, name: str, proof: Callable[[], Coroutine[Deferred[Any], Any, bool]]
    ) -> bool:
        try:
            return await self._turns.take(name, lambda: Deferred.fromCoroutine(proof()))
        except Busy as error:
            raise LoginRefused(
                Refusal.TEMPORARY, str(error), shown=Refusal.WRONG_CREDENTIALS
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


@implementer(ICredentialsChecker)
class LDAPChecker:
    """Turns a login and a password into the `Account` they open, or the `RemoteAccount`.

    ``proof`` is how the site proves passwords, ``local`` who else there is beside the directory:
    asked only about a login that the directory says it does not know. ``keeps`` tells of a mailHost
    whether its mail is here. Fails with `LoginRefused`,
    never with anything else that a client, a record or a directory could cause.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(
        self,
        directory: Directory,
        proof: Proof,
        defaults: AccountDefaults,
        clock: IReactorTime,
        local: LocalUsers | None = None,
        keeps: Callable[[str], bool] = lambda mail_host: True,
    ) -> None:
        self._keeps = keeps
        self._directory = directory
        self._proof = proof
        self._defaults = defaults
        self._clock = clock
        self._local = _NoLocalUsers() if local is None else local

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """A Deferred of who it is, for credentials that provide ``IUsernamePassword``.

        (Types: the interface is written for avatar ids that are octets.)
        """
        login, password = credentials.username, credentials.password
        return Deferred.fromCoroutine(self._judge_in_time(login, password))

    async def _judge_in_time(self, login: bytes, password: bytes) -> Account | RemoteAccount:
        """`_judge`, its refusals held back to the next multiple of `REFUSAL_GRID`.

        To find an entry and to read it takes longer than to find none, by a fraction of a
        millisecond, which a patient stranger can measure.
        """
        begun = self._clock.seconds()
        try:
            return await self._judge(login, password)
        except LoginRefused as refused:
            if refused.shown is Refusal.WRONG_CREDENTIALS:
                taken = self._clock.seconds() - begun
                # A guesser who does not wait to be told is still told of in the log.
                with suppress(CancelledError):
                    await deferLater(self._clock, REFUSAL_GRID - taken % REFUSAL_GRID)
            raise

    async def _judge(self, login: bytes, password: bytes) -> Account | RemoteAccount:
        entries = await self._by_directory(login, password)
        if not entries:
            return await self._by_passwd(login, password)
        if len(entries) > 1:
            raise LoginRefused(
                Refusal.TEMPORARY, f"more than one entry: {entries[0].dn} and others"
            )
        (entry,) = entries
        mail_host = parse_mail_host(entry)
        if mail_host is not None and not self._keeps(mail_host):
            return RemoteAccount(login, entry.dn, mail_host)
        return parse_account(login, entry, self._defaults)

    async def _by_directory(self, login: bytes, password: bytes) -> tuple[Entry, ...]:
        """The entries of the login, its password proved; none where passwd is to be asked."""
        try:
            return await self._proved(login, password)
        except LoginRefused as refused:
            if refused.shown is Refusal.WRONG_CREDENTIALS:
                # Those whom the directory does not know wait for passwd's answer as well.
                with suppress(CancelledError):
                    await self._local.pretend()
            raise
        except DirectoryUnavailable as error:
            raise LoginRefused(Refusal.DIRECTORY_UNREACHABLE, str(error)) from None
        except Busy as error:
            raise LoginRefused(Refusal.TEMPORARY, str(error)) from None
        except MemoryError:
            raise LoginRefused(Refusal.OUT_OF_MEMORY, "to prove a password") from None

    async def _proved(self, login: bytes, password: bytes) -> tuple[Entry, ...]:
        entries, too_large = await self._find(login)
        # An empty password is never right, whatever hash or directory would say of it: a simple
        # bind with one succeeds, as anonymous (RFC 4513, section 5.1.2).
        if entries and password:
            if not await self._proof.prove(login, entries, password):
                raise LoginRefused(Refusal.WRONG_CREDENTIALS, "wrong password")
            return entries
        await self._proof.pretend(login, password)
        if too_large:
            raise LoginRefused(Refusal.RECORD_INCORRECT, too_large, shown=Refusal.WRONG_CREDENTIALS)
        if not password:
            raise LoginRefused(Refusal.WRONG_CREDENTIALS, "empty password")
        return entries

    async def _by_passwd(self, login: bytes, password: bytes) -> Account:
        try:
            proved = await self._local.prove(login, password)
        except (OSError, Busy) as error:
            raise LoginRefused(
                Refusal.TEMPORARY, f"passwd: {error}", shown=Refusal.WRONG_CREDENTIALS
            ) from None
        if proved is None:
            raise LoginRefused(Refusal.WRONG_CREDENTIALS, "no such user")
        if not proved:
            raise LoginRefused(Refusal.WRONG_CREDENTIALS, "wrong password, by passwd")
        return await self._local.account(login)

    async def _find(self, login: bytes) -> tuple[tuple[Entry, ...], str]:
        """The entries; and what is wrong, where there is one that is too large to be read."""
        try:
            return await self._directory.find(login), ""
        except EntryTooLarge as error:
            return (), str(error)
