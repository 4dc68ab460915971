"""Every figure that is counted: one table, read by those who count, the exporter and the docs.

Names and units are those that Prometheus asks for: base units, and _total for counters. All are
shown with `PREFIX` before them.
"""

from __future__ import annotations

import enum

import attrs

from qmailldap.refusal import Refusal

__all__ = [
    "FIGURES",
    "NO_LOGIN",
    "OTHER",
    "PREFIX",
    "Figure",
    "Gathering",
    "Kind",
    "figure",
    "outcome",
]

PREFIX = "qmailldap_"

OTHER = "other"
"""What is counted for the values of a label of which there are too many."""

_MOST_VALUES = 100

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of buckets: from what a directory beside us takes to the longest of time limits."""


class Kind(enum.Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Gathering(enum.Enum):
    """What a gauge is of all workers together."""

    SUM = "sum"
    LEAST = "least"
    MOST = "most"


@attrs.frozen
class Figure:
    """One figure.

    ``labels`` are their names; ``known`` values of the only label that are shown from the start, at
    0, ``most`` how many values there may be besides. ``in_seconds``: counted in microseconds.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    most: int = _MOST_VALUES
    gathering: Gathering = Gathering.SUM
    buckets: tuple[float, ...] = ()
    in_seconds: bool = False

    @property
    def known_series(self) -> list[tuple[str, ...]]:
        """Names and labels that there are from the start."""
        if not self.labels:
            return [(self.name,)]
        return [(self.name, value) for value in self.known]

    @property
    def shown(self) -> str:
        """The whole name."""
        return PREFIX + self.name


def outcome(refusal: Refusal) -> str:
    """A refusal as a label: the word that the log has for it."""
    return refusal.name.lower().replace("_", "-")


NO_LOGIN = frozenset(
    {
        Refusal.TOO_MANY_CONNECTIONS,
        Refusal.LOGIN_TIME,
        Refusal.HANDSHAKE_TIME,
        Refusal.PROXY_HEADER,
    }
)
"""What a connection is refused for, by which nobody has tried to log in."""

_OUTCOMES = (
    "ok-local",
    "ok-forwarded",
    "abandoned",
    *(outcome(each) for each in Refusal if each not in NO_LOGIN),
)
_LIMITS = tuple(outcome(each) for each in Refusal if each.is_of_a_listener)
_PARTS = ("directory", "hash", "maildir", "forward")
_POOLS = ("mail", "hash", "names")
_SESSIONS = ("waiting", "local", "forwarded")


def _counter(name: str, help: str, *labels: str, **more: object) -> Figure:
    return Figure(name, Kind.COUNTER, help, labels, **more)  # type: ignore[arg-type]


def _gauge(name: str, help: str, *labels: str, **more: object) -> Figure:
    return Figure(name, Kind.GAUGE, help, labels, **more)  # type: ignore[arg-type]


def _histogram(name: str, help: str, *labels: str, **more: object) -> Figure:
    return Figure(name, Kind.HISTOGRAM, help, labels, buckets=_SECONDS, **more)  # type: ignore[arg-type]


FIGURES: tuple[Figure, ...] = (
    _counter("logins_total", "Logins by what came of them", "outcome", known=_OUTCOMES),
    _histogram(
        "login_seconds",
        "How long a login that was let in took, from its last command to the answer",
    ),
    _histogram("login_part_seconds", "How long the parts of logins took", "part", known=_PARTS),
    _counter("sessions_begun_total", "Sessions that have begun: connections that were greeted"),
    _gauge("sessions", "Sessions: before their login, and behind it", "kind", known=_SESSIONS),
    _counter("octets_sent_total", "Octets of messages that were sent from mailboxes kept here"),
    _counter("messages_sent_total", "Messages that were sent whole, from mailboxes kept here"),
    _counter("deletions_total", "Messages that were deleted at QUIT"),
    _counter(
        "limit_refusals_total",
        "Connections, logins and sessions refused by a limit",
        "limit",
        known=_LIMITS,
    ),
    _gauge("connections", "Connections that have a place"),
    _gauge("connections_limit", "Connections for which there is place", gathering=Gathering.MOST),
    _counter("tls_handshakes_failed_total", "TLS handshakes of clients that failed"),
    _gauge(
        "certificate_expiry_timestamp_seconds",
        "When a certificate that clients are shown expires",
        "file",
        gathering=Gathering.LEAST,
    ),
    _gauge(
        "directory_server_up",
        "Whether a directory server is held to be of use, by all workers",
        "server",
        gathering=Gathering.LEAST,
    ),
    _histogram("directory_seconds", "How long directory servers took to answer", "server"),
    _counter(
        "directory_failures_total", "Operations that a directory server did not answer", "server"
    ),
    _counter("directory_retries_total", "Operations that were tried once more after a failure"),
    _counter(
        "directory_joined_lookups_total",
        "Logins answered by the search of another one for the same name",
    ),
    _counter("forwarded_total", "Logins that a member has accepted", "member"),
    _counter(
        "forward_failures_total",
        "Logins that could not be forwarded, or that the member refused",
        "member",
    ),
    _gauge("forwarded_sessions", "Sessions that are with a member", "member"),
    _counter(
        "forwarded_octets_total",
        "Octets passed on in forwarded sessions",
        "direction",
        known=("sent", "received"),
    ),
    _gauge("keepers", "Processes that work on the mailboxes of an owner"),
    _gauge("broker_up", "Brokers that run: one a worker where the server was started as root"),
    _gauge("workers", "Processes that serve, of those that answered"),
    _gauge("threads_busy", "Calls that threads have, or that wait for one", "pool", known=_POOLS),
    _counter("listings_hits_total", "Mailboxes whose listing was kept and still held"),
    _counter("listings_misses_total", "Mailboxes that had to be listed"),
    _gauge("listings_bytes", "Memory that kept listings take"),
    _counter(
        "reloads_total",
        "How often changed control files were loaded, or could not be, counted by each worker",
        "result",
        known=("ok", "failed"),
    ),
    _gauge(
        "control_loaded_timestamp_seconds",
        "When the control files that are in force were loaded, by the last worker",
        gathering=Gathering.MOST,
    ),
    _gauge(
        "build_info",
        "1, with the versions of what runs",
        "version",
        "python",
        "twisted",
        gathering=Gathering.MOST,
    ),
    _counter(
        "process_cpu_seconds_total", "Processor time of all workers together", in_seconds=True
    ),
    _gauge("process_resident_memory_bytes", "Memory that a worker has in use", "worker"),
    _gauge("process_open_fds", "Open files of a worker", "worker"),
    _gauge("process_max_fds", "Open files that a worker may have", "worker"),
    _gauge("process_start_time_seconds", "When a worker was started", "worker"),
)
"""All of them, in the order in which they are shown."""

_BY_NAME = {each.name: each for each in FIGURES}


def figure(name: str) -> Figure:
    """The row of that name. Raises ``KeyError``."""
    return _BY_NAME[name]
