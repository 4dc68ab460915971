"""Who a login is: the credentials checker on the directory.

Finds the record, has the password proved, and only then judges the record: until the password is
right, every refusal reads and takes the same (design.md, "Contracts").
"""

from __future__ import annotations

import random
import secrets
from collections import deque
from typing import Any, Protocol

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from qmailldap.account import Account, AccountDefaults, Entry, parse_account, password_values
from qmailldap.directory import DirectoryUnavailable
from qmailldap.passwords import Decoys, MalformedHash, StoredPassword, parse_password
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.threads import Busy, Offload

__all__ = ["Directory", "HashProof", "LDAPChecker", "Proof", "RebindProof"]

_MOST_VALUES = 2
_BINDS_REMEMBERED = 64


class Directory(Protocol):
    """What is asked of the directory; `qmailldap.directory.Directory` answers."""

    async def find(self, login: bytes) -> tuple[Entry, ...]: ...

    async def prove(self, dn: str, password: bytes) -> bool: ...


class Proof(Protocol):
    """One way to prove a password."""

    async def prove(self, entries: tuple[Entry, ...], password: bytes) -> bool:
        """Whether the password is that of any of the entries. Raises `LoginRefused`."""

    async def pretend(self, password: bytes) -> None:
        """Take the time that a wrong password takes."""


class HashProof:
    """The password is compared with userPassword, off the reactor where that takes long."""

    def __init__(self, offload: Offload) -> None:
        self._offload = offload
        self._decoys = Decoys()

    async def prove(self, entries: tuple[Entry, ...], password: bytes) -> bool:
        values = [value for entry in entries for value in password_values(entry)]
        if not values:
            await self.pretend(password)
            raise LoginRefused(
                Refusal.WRONG_CREDENTIALS, f"{entries[0].dn} has no userPassword that can be read"
            )
        proved = False
        # More values than one are refused whichever is right, but not before one of them is.
        for value in values[:_MOST_VALUES]:
            try:
                stored = parse_password(value)
            except MalformedHash as error:
                await self.pretend(password)
                raise LoginRefused(
                    Refusal.RECORD_INCORRECT,
                    f"userPassword of {entries[0].dn}: {error}",
                    shown=Refusal.WRONG_CREDENTIALS,
                ) from None
            if stored.scheme == "NEVER":
                await self.pretend(password)
                continue
            self._decoys.seen(stored)
            proved |= await self._verify(stored, password)
        if proved and len(values) > 1:
            raise LoginRefused(
                Refusal.TEMPORARY, f"{entries[0].dn} has {len(values)} values of userPassword"
            )
        return proved

    async def pretend(self, password: bytes) -> None:
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
        # How long the directory took to refuse a bind, lately, in seconds.
        self._refusals: deque[float] = deque(maxlen=_BINDS_REMEMBERED)

    async def prove(self, entries: tuple[Entry, ...], password: bytes) -> bool:
        if not password:
            # A simple bind without a password succeeds, as anonymous (RFC 4513, section 5.1.2).
            await self.pretend(password)
            return False
        for entry in entries:
            if await self._bind(entry.dn, password):
                return True
        return False

    async def pretend(self, password: bytes) -> None:
        if self._refusals:
            await deferLater(self._clock, random.choice(self._refusals))
        else:
            nobody = f"uid={secrets.token_hex(8)},{self._base}".rstrip(",")
            await self._bind(nobody, password or b"x")

    async def _bind(self, dn: str, password: bytes) -> bool:
        begun = self._clock.seconds()
        proved = await self._directory.prove(dn, password)
        if not proved:
            self._refusals.append(self._clock.seconds() - begun)
        return proved


@implementer(ICredentialsChecker)
class LDAPChecker:
    """Turns a login and a password into the `Account` they open.

    ``proof`` is how the site proves passwords. Fails with `LoginRefused`, never with anything else
    that a client, a record or a directory could cause.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, directory: Directory, proof: Proof, defaults: AccountDefaults) -> None:
        self._directory = directory
        self._proof = proof
        self._defaults = defaults

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """A Deferred of an `Account`, for credentials that provide ``IUsernamePassword``.

        (Types: the interface is written for avatar ids that are octets.)
        """
        login, password = credentials.username, credentials.password
        return Deferred.fromCoroutine(self._judge(login, password))

    async def _judge(self, login: bytes, password: bytes) -> Account:
        try:
            entries = await self._directory.find(login)
            if not entries:
                await self._proof.pretend(password)
                raise LoginRefused(Refusal.WRONG_CREDENTIALS, "no such user")
            if not await self._proof.prove(entries, password):
                raise LoginRefused(Refusal.WRONG_CREDENTIALS, "wrong password")
        except DirectoryUnavailable as error:
            raise LoginRefused(Refusal.DIRECTORY_UNREACHABLE, str(error)) from None
        except Busy as error:
            raise LoginRefused(Refusal.TEMPORARY, str(error)) from None
        except MemoryError:
            raise LoginRefused(Refusal.OUT_OF_MEMORY, "to prove a password") from None
        if len(entries) > 1:
            raise LoginRefused(
                Refusal.TEMPORARY, f"more than one entry: {entries[0].dn} and others"
            )
        return parse_account(login, entries[0], self._defaults)
