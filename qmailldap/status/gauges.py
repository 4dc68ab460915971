"""What is read off the parts of a server whenever its figures are wanted, rather than counted."""

from __future__ import annotations

import platform
from collections.abc import Sequence

import attrs

import qmailldap
import twisted
from qmailldap.admission import Connections
from qmailldap.figures import Tally
from qmailldap.generations import Generations
from qmailldap.maildir.listings import ListingCache
from qmailldap.separation import Separation
from qmailldap.threads import Workers

__all__ = ["FRESH", "LOOK", "Gauges"]

LOOK = "look"
"""The argument of the question "figures" by which a process also looks after its directory servers:
where nobody logs in, it would not notice that one is down."""

FRESH = 10.0
"""Seconds for which it counts that a server has answered anything; after that it is asked."""


@attrs.frozen(kw_only=True)
class Gauges:
    """The parts of the server of this process."""

    tally: Tally
    generations: Generations
    connections: Connections
    separation: Separation | None
    listings: ListingCache | None
    threads: Sequence[Workers]

    def register(self) -> None:
        """Have ``tally`` read all of them."""
        read = self.tally.gauge
        read("workers", lambda: 1)
        versions = (qmailldap.__version__, platform.python_version(), twisted.__version__)
        read("build_info", lambda: {versions: 1})
        read("connections", lambda: len(self.connections))
        read("connections_limit", lambda: self.connections.most)
        read("threads_busy", lambda: {each.name: each.held for each in self.threads})
        read("control_loaded_timestamp_seconds", lambda: self.generations.since)
        read("directory_server_up", self._servers_up)
        read("certificate_expiry_timestamp_seconds", self._certificates_expire)
        separation, listings = self.separation, self.listings
        if separation is not None:
            read("broker_up", lambda: int(separation.broker.is_running))
            read("keepers", lambda: separation.keepers.running)
        if listings is not None:
            read("listings_hits_total", lambda: listings.hits)
            read("listings_misses_total", lambda: listings.misses)
            read("listings_bytes", lambda: listings.octets)

    def _servers_up(self) -> dict[str, float]:
        servers = self.generations.in_force.directory.value.servers
        return {str(server): int(server.up) for server in servers}

    def _certificates_expire(self) -> dict[str, float]:
        certificates = self.generations.in_force.certificates
        shown = () if certificates is None else certificates.shown
        return {str(each.files.chain): each.chain.until.timestamp() for each in shown}
