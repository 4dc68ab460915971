"""What the protocol asks of whoever decides who is let in, and how soon.

Those who may do as they like, as trusted networks, are no concern of the protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["Admission", "Everyone", "Place"]


class Place(Protocol):
    """The place of one connection among all."""

    def logged_in(self) -> None:
        """From now on it is nobody else's."""

    def leave(self) -> None:
        """The connection is gone. Harmless when said twice."""


class Admission(Protocol):
    """Hosts are addresses as texts; a client that has none, as one of a UNIX socket, is ""."""

    def enter(self, host: str, make_room: Callable[[], None]) -> Place:
        """A place for a new connection of ``host``. Raises `LoginRefused` where there is none.

        Until it has logged in it may be asked to ``make_room`` for another: it then goes at once.
        """

    def check(self, host: str, login: bytes) -> None:
        """To be asked before a password is judged. Raises `LoginRefused`."""

    def wrong(self, host: str, login: bytes) -> float:
        """A password was wrong; gives how many seconds its refusal is to be held back."""


class Everyone:
    """Lets everyone in, and at once: for a server that nobody but its owner can reach."""

    def enter(self, host: str, make_room: Callable[[], None]) -> Place:
        return self

    def check(self, host: str, login: bytes) -> None:
        """All may go on."""

    def wrong(self, host: str, login: bytes) -> float:
        return 0.0

    def logged_in(self) -> None:
        """A place is a place."""

    def leave(self) -> None:
        """There are enough."""
