"""How many connections are open: in all, and from one network."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable

from qmailldap.admission.networks import network_of
from qmailldap.admission.shared_counts import SharedCounts
from qmailldap.refusal import LoginRefused, Refusal

__all__ = ["Connections", "Place"]


class Connections:
    """Counts connections: at most ``most`` in all, ``most_per_address`` from one network.

    The latter may be 0, for any number. What counts as one network is said by `network_of`; who has
    none counts in all only.

    With ``counts``, those of other workers of the same server count as well, as well as these
    know of them.
    """

    def __init__(
        self, most: int, most_per_address: int, counts: SharedCounts | None = None
    ) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._counts = counts
        self._count = 0
        self._by_network: Counter[str] = Counter()
        self._waiting: OrderedDict[Place, None] = OrderedDict()

    def __len__(self) -> int:
        """How many are open, of this process."""
        return self._count

    @property
    def most(self) -> int:
        """How many there may be, of all workers together."""
        return self._most

    def limit_to(self, most: int, most_per_address: int) -> None:
        """Have other numbers from now on. Who is there stays, and is counted."""
        self._most = most
        self._most_per_address = most_per_address

    def enter(self, host: str, make_room: Callable[[], None], *, exempt: bool = False) -> Place:
        """A connection comes from the address ``host``.

        When there are enough in all, that of those not logged in which came first has to go: its
        ``make_room`` is called, once, and has to abort it; it is one of this process. Raises
        `LoginRefused` with TOO_MANY_CONNECTIONS where there is none such, or the network has
        enough. An ``exempt`` one is always let in, never has to go, and counts in all only.
        """
        network = "" if exempt else network_of(host)
        if network and self._most_per_address:
            count = self._by_network[network]
            if self._counts is not None:
                count += self._counts.elsewhere(_key(network))
            if count >= self._most_per_address:
                raise LoginRefused(Refusal.TOO_MANY_CONNECTIONS, f"{count} from {network}")
        count = self._count
        if self._counts is not None:
            count += self._counts.total_elsewhere()
        if count >= self._most:
            if self._waiting:
                oldest = next(iter(self._waiting))
                # At once, and not when it is lost: several may have to go in one go.
                oldest.leave()
                oldest.make_room()
            elif not exempt:
                whose = "" if self._counts is None else " of this worker's"
                raise LoginRefused(
                    Refusal.TOO_MANY_CONNECTIONS,
                    f"{count} in all, and all{whose} are logged in",
                )
        told = self._counts is not None and bool(network and self._most_per_address)
        place = Place(self, network, make_room, told)
        self._count += 1
        if network:
            self._by_network[network] += 1
        if self._counts is not None:
            self._counts.tell_total(self._count)
            if told:
                self._counts.add(_key(network))
        if not exempt:
            self._waiting[place] = None
        return place

    def _no_longer_waits(self, place: Place) -> None:
        self._waiting.pop(place, None)

    def _left(self, network: str, told: bool) -> None:
        self._count -= 1
        if network:
            self._by_network[network] -= 1
            if not self._by_network[network]:
                del self._by_network[network]
        if self._counts is not None:
            self._counts.tell_total(self._count)
            if told:
                self._counts.remove(_key(network))


class Place:
    """One connection among those counted; ``told`` says that other workers know of its network."""

    __slots__ = ("_connections", "_left", "_network", "_told", "make_room")

    def __init__(
        self, connections: Connections, network: str, make_room: Callable[[], None], told: bool
    ) -> None:
        self.make_room = make_room
        self._told = told
        self._connections = connections
        self._network = network
        self._left = False

    def logged_in(self) -> None:
        """From now on it need not go for others."""
        self._connections._no_longer_waits(self)
        # Whoever speaks on the connection may be another soon, and the first is not to be kept.
        self.make_room = _stay

    def leave(self) -> None:
        """The connection is gone. Harmless when said twice."""
        if not self._left:
            self._left = True
            self._connections._no_longer_waits(self)
            self._connections._left(self._network, self._told)


def _stay() -> None:
    """What is asked of nobody who is logged in."""


def _key(network: str) -> bytes:
    return b"network " + network.encode("ascii")
