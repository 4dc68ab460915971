"""The values of userPassword that a login's entries have, and what they are good for.

Nothing is computed here that takes long, and nothing is asked: a hash is compared by the checker.
"""

from __future__ import annotations

from typing import Protocol

import attrs

from qmailldap.account import Entry, password_values
from qmailldap.decisions import tell_proof
from qmailldap.passwords import (
    MalformedHash,
    StoredPassword,
    clear_text,
    parse_password,
    why_no_match,
)
from qmailldap.refusal import LoginRefused, Refusal

__all__ = ["Answer", "PasswordValues", "prove_answer"]

_MOST_VALUES = 8


class Answer(Protocol):
    """What a client has answered to a challenge; ``IUsernameHashedPassword`` has it."""

    def checkPassword(self, password: bytes) -> bool:
        """Whether it is what follows from this password."""


@attrs.frozen
class PasswordValues:
    """The values of userPassword of a login's entries, read.

    There are ``count`` of them; ``readable`` are those that are well-formed among the first
    `_MOST_VALUES`, ``malformed`` says what is wrong with one of the others. ``clear`` are the
    passwords that are stored in clear text; none where the site has not asked for that.
    """

    dn: str
    entries: int
    count: int
    readable: tuple[StoredPassword, ...]
    malformed: MalformedHash | None
    clear: tuple[bytes, ...] = attrs.field(repr=False)
    _as_they_are: tuple[bytes, ...] = attrs.field(repr=False)
    _cleartext: bool

    @classmethod
    def of(cls, entries: tuple[Entry, ...], *, cleartext: bool = False) -> PasswordValues:
        """``cleartext`` says that the site has asked for clear text."""
        values = [value for entry in entries for value in password_values(entry)]
        readable, as_they_are, malformed, clear = [], [], None, []
        for value in values[:_MOST_VALUES]:
            try:
                readable.append(parse_password(value, cleartext=cleartext))
            except MalformedHash as error:
                malformed = error
            else:
                as_they_are.append(value)
            password = clear_text(value) if cleartext else None
            if password is not None:
                clear.append(password)
        return cls(
            entries[0].dn,
            len(entries),
            len(values),
            tuple(readable),
            malformed,
            tuple(clear),
            tuple(as_they_are),
            cleartext,
        )

    def refusal_of_right(self) -> LoginRefused | None:
        """Why even a password that is that of a value is refused, None if it is not."""
        if self.entries == 1 and self.count > 1:
            return LoginRefused(
                Refusal.TEMPORARY, f"{self.dn} has {self.count} values of userPassword"
            )
        return None

    def refusal_of_wrong(self) -> LoginRefused | None:
        """What is wrong with the values that a password was compared with, None if nothing."""
        if not self.count:
            return LoginRefused(
                Refusal.WRONG_CREDENTIALS, f"{self.dn} has no userPassword that can be read"
            )
        if self.malformed is not None:
            return LoginRefused(
                Refusal.RECORD_INCORRECT,
                f"userPassword of {self.dn}: {self.malformed}",
                shown=Refusal.WRONG_CREDENTIALS,
            )
        if not self.can_match:
            return LoginRefused(
                Refusal.WRONG_CREDENTIALS,
                f"userPassword of {self.dn}, which no password matches: {self.why_no_match}",
            )
        return None

    @property
    def mismatches(self) -> tuple[str, ...]:
        """Of each that is readable, why no password matches it; empty where one may."""
        # Not found out beforehand: a right password need not be told.
        return tuple(why_no_match(value, cleartext=self._cleartext) for value in self._as_they_are)

    @property
    def can_match(self) -> bool:
        """Whether there is a password that is that of a value."""
        return not all(self.mismatches)

    @property
    def why_no_match(self) -> str:
        """What keeps passwords from matching, in words that hold nothing of a value."""
        return "; ".join(dict.fromkeys(filter(None, self.mismatches)))


def prove_answer(login: bytes, entries: tuple[Entry, ...], answer: Answer) -> bytes:
    """The password that the answer to a challenge has proved: one that is stored in clear text.

    To be asked of sites alone that have asked for clear text. Raises `LoginRefused`; in no case
    does it take long, so that there is nothing to pretend for a login that has no entry.
    """
    values = PasswordValues.of(entries, cleartext=True)
    right = [password for password in values.clear if answer.checkPassword(password)]
    tell_proof(login, "challenge", bool(right))
    refused = values.refusal_of_right() if right else values.refusal_of_wrong()
    if refused is not None:
        raise refused
    if not values.clear:
        raise LoginRefused(
            Refusal.WRONG_CREDENTIALS,
            f"userPassword of {values.dn} is not in clear text, as an answer to a challenge needs",
        )
    if not right:
        raise LoginRefused(Refusal.WRONG_CREDENTIALS, "wrong answer to the challenge")
    return right[0]
