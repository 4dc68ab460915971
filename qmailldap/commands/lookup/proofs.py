"""How the server's own checker is asked here: about entries that were found before, and with or
without a password.

What becomes of a login is decided by `LDAPChecker` alone, in both cases. Without a password, one is
taken for proved where the right one would be.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator

from qmailldap.account import Account, Entry
from qmailldap.checker import Directory, Proof
from qmailldap.commands.lookup.findings import CLEAR_TEXT, Password
from qmailldap.control import Control
from qmailldap.local_users import LocalUsers
from qmailldap.password_values import PasswordValues
from qmailldap.passwords import MalformedHash, parse_password, why_no_match
from qmailldap.privsep.shadow import lets_nobody_in, stored_value
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.threads import Offload

__all__ = [
    "AnyPassword",
    "ByBind",
    "ByHash",
    "Found",
    "Passwd",
    "Watched",
    "notes_on_clear_text",
    "stored_password",
]


def stored_password(entries: tuple[Entry, ...], right: bool | None, *, cleartext: bool) -> Password:
    """What may be told of the values; ``right`` as `Password` has it."""
    values = PasswordValues.of(entries, cleartext=cleartext)
    problems = []
    if values.refusal_of_right() is not None:
        problems.append(f"{values.count} values, and one is allowed")
    if values.malformed is not None:
        problems.append(str(values.malformed))
    elif not values.count:
        problems.append("there is none that can be read")
    elif not values.can_match:
        problems.append(f"no password matches it: {values.why_no_match}")
    schemes = tuple(
        CLEAR_TEXT if stored.scheme == "PLAIN" else stored.cost
        for stored, mismatch in zip(values.readable, values.mismatches, strict=True)
        if not mismatch
    )
    return Password("hash", values.count, schemes, "; ".join(problems), right)


def notes_on_clear_text(entries: tuple[Entry, ...], control: Control) -> Iterator[str]:
    """What an administrator may not know of values, by the control file ldapcleartext."""
    values = PasswordValues.of(entries, cleartext=True)
    if not control.ldapcleartext:
        if values.clear:
            yield "userPassword looks like clear text, which lets nobody in, as ldapcleartext is 0"
    elif values.can_match and not values.clear:
        challenges = "CRAM-MD5 and APOP" if control.ldapcleartext > 1 else "CRAM-MD5"
        yield f"the login is refused by {challenges}, as userPassword is not in clear text"


class Found:
    """A directory that has been asked for the entries of the login: they are not sought again."""

    def __init__(
        self, directory: Directory, entries: tuple[Entry, ...], failed: Exception | None
    ) -> None:
        self._directory = directory
        self._entries = entries
        self._failed = failed

    async def find(self, login: bytes) -> tuple[Entry, ...]:
        if self._failed is not None:
            raise self._failed
        return self._entries

    async def prove(self, dn: str, password: bytes) -> bool:
        return await self._directory.prove(dn, password)


class Watched:
    """A proof of which it is known what it gave: ``right``; it need not pretend to strangers."""

    def __init__(self, proof: Proof) -> None:
        self.right: bool | None = None
        self._proof = proof

    async def prove(self, login: bytes, entries: tuple[Entry, ...], password: bytes) -> bool:
        self.right = await self._proof.prove(login, entries, password)
        return self.right

    async def pretend(self, login: bytes, password: bytes) -> None:
        return


class ByHash:
    """Proves nothing; refuses what even the right password would meet.

    ``cleartext`` says that userPassword may be clear text.
    """

    def __init__(self, *, cleartext: bool = False) -> None:
        self._cleartext = cleartext

    async def prove(self, login: bytes, entries: tuple[Entry, ...], password: bytes) -> bool:
        values = PasswordValues.of(entries, cleartext=self._cleartext)
        refused = values.refusal_of_right() if values.can_match else values.refusal_of_wrong()
        if refused is not None:
            raise refused
        return True

    async def pretend(self, login: bytes, password: bytes) -> None:
        return


class ByBind:
    """Proves nothing, and takes any password for the right one: only the directory could tell."""

    async def prove(self, login: bytes, entries: tuple[Entry, ...], password: bytes) -> bool:
        return True

    async def pretend(self, login: bytes, password: bytes) -> None:
        return


class AnyPassword:
    """The users of passwd, any password taken for the right one."""

    def __init__(self, passwd: Passwd) -> None:
        self._passwd = passwd

    async def prove(self, login: bytes, password: bytes) -> bool | None:
        return True if self._passwd.knows else None

    async def pretend(self) -> None:
        return

    async def account(self, login: bytes) -> Account:
        return await self._passwd.account(login)


class Passwd:
    """The users of passwd, asked about one login; what was seen on the way is kept.

    ``tries`` says whether there is a password to be tried. ``knows`` is whether passwd has the
    login, ``password`` what is known of its password.
    """

    def __init__(self, users: LocalUsers, offload: Offload, tries: bool) -> None:
        self.knows = False
        self.password: Password | None = None
        self._users = users
        self._offload = offload
        self._tries = tries

    async def prove(self, login: bytes, password: bytes) -> bool | None:
        try:
            user = await self._offload(pwd.getpwnam, os.fsdecode(login))
        except (KeyError, ValueError):
            return None
        self.knows = True
        # Why the user may have no mail here at all comes before the password.
        await self._users.account(login)
        self.password = await self._stored(user)
        proved = await self._users.prove(login, password) if self._tries else True
        if self._tries and proved is not None:
            self.password = Password(
                "shadow", self.password.values, self.password.schemes, right=proved
            )
        if proved is None or self.password.problem:
            raise LoginRefused(
                Refusal.WRONG_CREDENTIALS, self.password.problem or "no password lets the user in"
            )
        return proved

    async def pretend(self) -> None:
        return

    async def account(self, login: bytes) -> Account:
        return await self._users.account(login)

    async def _stored(self, user: pwd.struct_passwd) -> Password:
        if os.geteuid() != 0:
            return Password("shadow")
        value = await self._offload(stored_value, user)
        if lets_nobody_in(value):
            return Password("shadow", 1, problem="the user is locked, or has no password")
        try:
            stored = parse_password(b"{CRYPT}" + value)
        except MalformedHash as error:
            return Password("shadow", 1, problem=f"shadow: {error.problem}")
        why = why_no_match(b"{CRYPT}" + value)
        if why:
            return Password("shadow", 1, problem=f"no password matches it: {why}")
        return Password("shadow", 1, (stored.cost,))
