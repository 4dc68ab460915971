"""What a parsed value is to the rest of the server; no scheme is known here."""

from __future__ import annotations

from typing import Protocol

import attrs

__all__ = ["UNKNOWN_COST", "MalformedHash", "Method", "Never", "StoredPassword"]


UNKNOWN_COST = "CRYPT ?"
"""The cost of a value of crypt(3) whose format is not known here, or not at all."""


class MalformedHash(ValueError):
    """The stored value cannot be a password value of its scheme: the user record is incorrect.

    ``scheme`` is its canonical name, ``problem`` says what is wrong in words that hold nothing of
    the value.
    """

    def __init__(self, scheme: str, problem: str) -> None:
        super().__init__(f"{{{scheme}}} value: {problem}")
        self.scheme = scheme
        self.problem = problem


class Method(Protocol):
    """How one value is verified. A method's repr shows nothing of the value."""

    def matches(self, password: bytes) -> bool:
        """Whether the password is the one of the value, compared in constant time; may block."""

    def decoy(self) -> Method:
        """A method of the same cost, with a salt and a digest of its own."""


@attrs.frozen(eq=False)
class StoredPassword:
    """A password value of a record.

    ``scheme`` is the canonical name, in upper case; NEVER is the one of values that no password
    matches. ``cost`` is the same for values that take the same time: the scheme and its cost
    parameters. ``is_quick`` says that verifying is one plain digest, microseconds, so that it needs
    no thread.
    """

    scheme: str
    cost: str = attrs.field(repr=False)
    is_quick: bool = attrs.field(repr=False)
    _method: Method = attrs.field(repr=False)
    _is_decoy: bool = attrs.field(default=False, repr=False)

    @property
    def takes_no_time(self) -> bool:
        """Whether there is nothing to compute: no password can match."""
        return self.cost in ("NEVER", UNKNOWN_COST)

    def verify(self, password: bytes) -> bool:
        """Whether the password is right.

        Blocks for as long as the scheme takes. No password makes it raise; `MemoryError` is raised
        where the host has not the memory that the value asks for, as the password is then neither
        right nor wrong.
        """
        return self._method.matches(password) and not self._is_decoy

    def decoy(self) -> StoredPassword:
        """A value of the same cost that no password matches, with nothing of this one's digest."""
        return StoredPassword(
            scheme=self.scheme,
            cost=self.cost,
            is_quick=self.is_quick,
            method=self._method.decoy(),
            is_decoy=True,
        )


@attrs.frozen(repr=False)
class Never:
    """No password matches."""

    def matches(self, password: bytes) -> bool:
        return False

    def decoy(self) -> Never:
        return self
