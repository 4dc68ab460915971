"""What to spend the time on when there is no such user.

If an unknown user were refused at once, and a known one after a hash, a stranger could tell them
apart. So the hash is computed for both, at the cost that is commonest at the site.
"""

from __future__ import annotations

import attrs

from qmailldap.passwords.parser import DEFAULT_DECOY
from qmailldap.passwords.stored import StoredPassword

__all__ = ["Decoys"]


@attrs.define
class _Tally:
    decoy: StoredPassword
    count: int = 1


class Decoys:
    """Counts the costs of the values seen lately and gives a decoy of the commonest.

    At most ``most_costs`` are told apart. All counts are halved when their sum reaches ``fade_at``,
    so that what a site has migrated away from is forgotten. To be used by one thread.
    """

    def __init__(self, most_costs: int = 16, fade_at: int = 1024) -> None:
        self._most_costs = most_costs
        self._fade_at = fade_at
        self._tallies: dict[str, _Tally] = {}

    def __repr__(self) -> str:
        return f"<Decoys of {len(self._tallies)} costs>"

    def seen(self, stored: StoredPassword) -> None:
        """Count a value; those that nothing can match, and that so take no time, are not."""
        if stored.takes_no_time:
            return
        tally = self._tallies.get(stored.cost)
        if tally is not None:
            tally.count += 1
        else:
            if len(self._tallies) >= self._most_costs:
                del self._tallies[min(self._tallies, key=self._count)]
            self._tallies[stored.cost] = _Tally(stored.decoy())
        if sum(tally.count for tally in self._tallies.values()) >= self._fade_at:
            self._fade()

    def commonest(self) -> StoredPassword:
        """A decoy of the commonest cost; `DEFAULT_DECOY` when nothing was seen."""
        if not self._tallies:
            return DEFAULT_DECOY
        return self._tallies[max(self._tallies, key=self._count)].decoy

    def _count(self, cost: str) -> int:
        return self._tallies[cost].count

    def _fade(self) -> None:
        for cost, tally in list(self._tallies.items()):
            tally.count //= 2
            if not tally.count:
                del self._tallies[cost]
