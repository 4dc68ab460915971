"""All that a listener asks about those who come, and who is exempt from it."""

from __future__ import annotations

from collections.abc import Callable

from qmailldap.admission.connections import Connections, Place
from qmailldap.admission.guesses import Guesses

__all__ = ["Admission"]


class Admission:
    """The connections and guesses of one server, whatever port they come to.

    ``exempt`` tells of an address whether its hosts are trusted, and so not held to any number.
    """

    def __init__(
        self, connections: Connections, guesses: Guesses, exempt: Callable[[str], bool]
    ) -> None:
        self._connections = connections
        self._guesses = guesses
        self._exempt = exempt

    def enter(self, host: str, make_room: Callable[[], None]) -> Place:
        """As `Connections.enter`."""
        return self._connections.enter(host, make_room, exempt=self._exempt(host))

    def check(self, host: str, login: bytes) -> None:
        """As `Guesses.check`."""
        if not self._exempt(host):
            self._guesses.check(host, login)

    def wrong(self, host: str, login: bytes) -> float:
        """As `Guesses.wrong`."""
        return 0.0 if self._exempt(host) else self._guesses.wrong(host, login)
