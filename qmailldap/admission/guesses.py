"""Those who guess at passwords: how long they wait, and when they are not listened to any more.

Only wrong passwords are held against anybody, and only against where they come from: whoever comes
from elsewhere with the right one is not made to wait because others guess at the same login.
"""

from __future__ import annotations

import unicodedata

from twisted.internet.interfaces import IReactorTime

from qmailldap.admission.networks import network_of
from qmailldap.admission.scores import ScoreTable
from qmailldap.control import POP3Limits
from qmailldap.refusal import LoginRefused, Refusal

__all__ = ["LONGEST_DELAY", "SHORTEST_DELAY", "Guesses"]

SHORTEST_DELAY = 2.0
LONGEST_DELAY = 15.0
"""Seconds that a wrong password is answered later; each point of the score adds the shortest."""

_LONGEST_NAME = 256
"""Letters; of more, no name that anybody has, it takes long to tell what they stand for."""


class Guesses:
    """Keeps two scores in ``table`` for each wrong password: of the network it came from, and of
    network and login together.

    ``limits`` has the numbers from which on each of them counts as guessing; a score counts as
    the whole number next to it. Who has no address is never punished, and where both numbers are 0
    nobody is.
    """

    def __init__(self, clock: IReactorTime, table: ScoreTable, limits: POP3Limits) -> None:
        self._clock = clock
        self._table = table
        self.limit_to(limits)

    def limit_to(self, limits: POP3Limits) -> None:
        """Have other numbers from now on; all scores stay."""
        self._most = limits.guesses
        self._most_per_login = limits.guesses_per_login

    def check(self, host: str, login: bytes) -> None:
        """Whether a login from ``host`` is listened to.

        To be asked before anybody else is. Raises `LoginRefused` with TOO_MANY_GUESSES, which adds
        to no score: one who stops guessing is listened to again.
        """
        network = network_of(host)
        if not network:
            return
        now = self._clock.seconds()
        if self._most:
            score = self._table.score(_of_network(network), now)
            if round(score) >= self._most:
                raise LoginRefused(
                    Refusal.TOO_MANY_GUESSES,
                    f"score {score:.1f}, by wrong passwords from {network}",
                )
        if self._most_per_login:
            score = self._table.score(_of_pair(network, login), now)
            if round(score) >= self._most_per_login:
                # By itself: a telephone with an old password does not shut out its whole office.
                raise LoginRefused(
                    Refusal.TOO_MANY_GUESSES,
                    f"score {score:.1f}, by wrong passwords for this login from {network}",
                )

    def wrong(self, host: str, login: bytes) -> float:
        """A password was wrong. Returns after how many seconds to say so."""
        network = network_of(host)
        if not network or not (self._most or self._most_per_login):
            return 0.0
        now = self._clock.seconds()
        score = max(
            self._table.add(_of_network(network), now),
            self._table.add(_of_pair(network, login), now),
        )
        return min(LONGEST_DELAY, max(SHORTEST_DELAY, SHORTEST_DELAY * score))


def _of_network(network: str) -> bytes:
    return b"network " + network.encode("ascii")


def _of_pair(network: str, login: bytes) -> bytes:
    """One login of one network: directories compare names without case and the number of blanks,
    and letters by what they stand for (RFC 4518, section 2).
    """
    folded = _without_case(login.decode("utf-8", "replace"))
    if not login.isascii() and len(folded) <= _LONGEST_NAME:
        folded = _without_case(unicodedata.normalize("NFKC", folded))
    return b"login " + network.encode("ascii") + b" " + folded.encode("utf-8")


def _without_case(name: str) -> str:
    return " ".join(name.casefold().split())
