"""How many sessions each user has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from qmailldap.admission.shared_counts import SharedCounts
from qmailldap.refusal import LoginRefused, Refusal

__all__ = ["Sessions"]


class Sessions:
    """Counts the sessions of each user, at ``most`` so many at a time; 0: any number.

    Those of clients whose address is ``exempt`` do not count. With ``counts``, those of other
    workers of the same server do, as well as these know of them.
    """

    def __init__(
        self,
        most: int,
        exempt: Callable[[str], bool] = lambda host: False,
        counts: SharedCounts | None = None,
    ) -> None:
        self._most = most
        self._exempt = exempt
        self._counts = counts
        self._by_user: Counter[bytes] = Counter()

    def __len__(self) -> int:
        """How many users have one that counts, of this process."""
        return len(self._by_user)

    def limit_to(self, most: int) -> None:
        """Have another number from now on; sessions that were counted still are."""
        self._most = most

    def enter(self, user: bytes, host: str = "") -> Callable[[], None]:
        """A session of ``user`` begins, whose client is at the address ``host``.

        Returns what is to be called at its end; harmless when called twice. Raises `LoginRefused`
        with TOO_MANY_SESSIONS.
        """
        if not self._most or self._exempt(host):
            return lambda: None
        count = self._by_user[user]
        if self._counts is not None:
            count += self._counts.elsewhere(_key(user))
        if count >= self._most:
            raise LoginRefused(Refusal.TOO_MANY_SESSIONS, f"{count} of this user")
        self._by_user[user] += 1
        if self._counts is not None:
            self._counts.add(_key(user))
        left = False

        def leave() -> None:
            nonlocal left
            if not left:
                left = True
                self._by_user[user] -= 1
                if not self._by_user[user]:
                    del self._by_user[user]
                if self._counts is not None:
                    self._counts.remove(_key(user))

        return leave


def _key(user: bytes) -> bytes:
    return b"user " + user
