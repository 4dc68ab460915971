"""One directory server: its connections, what is asked on them, and what that says of the server.

It is down when a connection cannot be made or bound, is silent or sends garbage, when three new
ones in a row close on the first thing they are asked, when it does not finish three searches in a
row, and when it answers that it is busy or unavailable. Whatever is open to it is then dropped:
operations under way on it move on at once.

The bind of a user shows none of this, because one record must not be able to take the server away
from everyone: where it goes wrong in one of these ways, the health's probe, a search, decides.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar, cast

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredList, TimeoutError, succeed
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.protocol import Factory

from qmailldap.account import Entry
from qmailldap.control import ServerAddress
from qmailldap.directory._client import Connection, Loss, LossKind
from qmailldap.directory._health import Health
from qmailldap.directory._pool import Pool
from qmailldap.directory._telling import Telling
from qmailldap.directory.errors import (
    BindRefused,
    EntryTooLarge,
    Misconfigured,
    OutOfTime,
    ServerTrouble,
)
from qmailldap.directory.results import (
    NO_SUCH_OBJECT,
    SERVER_IS_DOWN,
    SIZE_LIMIT_EXCEEDED,
    SUCCESS,
    WRONG_PASSWORD,
    Result,
)
from qmailldap.directory.search import Search, SearchAnswer
from qmailldap.figures.tally import Tally
from qmailldap.loglevel import for_no_session

__all__ = [
    "DROPS_IN_A_ROW",
    "SEARCHES_PER_CONNECTION",
    "UNFINISHED_IN_A_ROW",
    "Connector",
    "Server",
    "ServerSettings",
]

DROPS_IN_A_ROW = 3
"""So many new connections close on their first operation, and the server is down."""

UNFINISHED_IN_A_ROW = 3
"""So many searches run out of time while no other is finished, and the server is down.

It may talk all the while, and so not be silent: entries without an end, answers to nothing asked.
"""

SEARCHES_PER_CONNECTION = 16
"""Searches under way on one connection; more wait."""

T = TypeVar("T")

Connector = Callable[[ServerAddress, IProtocolFactory], Deferred[IProtocol]]
"""Makes a TCP connection to the address; to be cancelled when it takes too long."""


@attrs.frozen(kw_only=True)
class ServerSettings:
    """What all servers have in common; ``password`` is shown nowhere."""

    search: Search
    dn: bytes
    password: bytes = attrs.field(repr=False)
    connections: int
    rebind_connections: int
    attempt_limit: float
    """Seconds in which a connection is made, secured and bound."""

    @property
    def silence_limit(self) -> float:
        """Seconds in which a server that is asked something says something."""
        return self.attempt_limit / 2


class Server:
    """One server of the list.

    ``find``, ``search`` and ``prove`` raise `ServerTrouble` when the next server should be asked,
    and `ConnectionDropped` when this one may be asked once more, too; the searches `EntryTooLarge`
    when no server need be asked any more. ``tls`` makes the connections by TLS, which begin with it
    or, unless the address says so, with StartTLS; where it is None, TLS is not spoken. ``tally``
    counts how long it takes to answer.
    """

    def __init__(
        self,
        clock: IReactorTime,
        address: ServerAddress,
        connect: Connector,
        settings: ServerSettings,
        tls: IOpenSSLClientConnectionCreator | None = None,
        tally: Tally | None = None,
    ) -> None:
        self._clock = clock
        self._tally = tally
        self._tls = tls
        self.address = address
        self._connect = connect
        self._settings = settings
        self._searching = Pool(
            clock,
            lambda: for_no_session(Deferred.fromCoroutine, self._open_bound()),
            size=settings.connections,
            share=SEARCHES_PER_CONNECTION,
            on_failure=self._cannot_be_opened,
        )
        self._rebinding = Pool(
            clock,
            lambda: for_no_session(Deferred.fromCoroutine, self._open()),
            size=settings.rebind_connections,
            share=1,
            on_failure=self._cannot_be_opened,
        )
        self._connections: set[Connection] = set()
        self._name = str(address)
        self._health = Health(
            clock, self._name, lambda: for_no_session(Deferred.fromCoroutine, self._probe())
        )
        self._telling = Telling(clock, str(address))
        self._drops = 0
        self._finished = 0
        self._unfinished = 0
        self.latency: float | None = None
        """Seconds that the last search took on its connection."""

    def __str__(self) -> str:
        return str(self.address)

    @property
    def up(self) -> bool:
        """Whether operations should go here."""
        return self._health.up

    @property
    def last_failure(self) -> tuple[float, str] | None:
        """When it failed last, in seconds since the epoch, and why."""
        return self._health.last_failure

    @property
    def worth_a_try(self) -> bool:
        """Whether it may be asked although it is down, there being no other."""
        return self._searching.alive or not self._health.failed_just_now

    def answers(self, fresh: float) -> Deferred[bool]:
        """Whether it has answered something within ``fresh`` seconds, or does so now."""
        return self._health.answers(fresh)

    def warm(self) -> None:
        """Have a connection before the first login needs it; what fails is seen to."""
        self._health.probe()

    async def find(self, login: bytes, limit: float) -> tuple[Entry, ...]:
        """The entries of a login, at most two, had within ``limit`` seconds."""
        return await self._entries(self._settings.search.login_request(login, limit), limit)

    async def search(
        self, filter: Any, limit: float, more: Iterable[str] = ()
    ) -> tuple[Entry, ...]:
        """The entries that a filter matches, at most two, had within ``limit`` seconds."""
        return await self._entries(self._settings.search.request(filter, limit, more), limit)

    async def check(self, limit: float) -> tuple[Entry, ...]:
        """The entry of the search base."""
        return await self._entries(self._settings.search.check_request(limit), limit)

    async def sample(self, limit: float) -> tuple[Entry, ...]:
        """An entry below the base that ldapobjectclass matches, without attributes, or none."""
        return await self._entries(self._settings.search.sample_request(limit), limit)

    async def prove(self, dn: bytes, password: bytes, limit: float) -> bool:
        """Whether a bind as ``dn`` with ``password`` succeeds, known within ``limit`` seconds."""
        give_up_at = self._clock.seconds() + limit
        if not self.up:
            # Those who come while it is down share the one attempt of the searching connections.
            await self._with_connection(self._searching, limit, lambda *_: succeed(None))
        result = await self._with_connection(
            self._rebinding,
            give_up_at - self._clock.seconds(),
            lambda connection, left: self._bind(connection, dn, password, left),
        )
        if result.code in SERVER_IS_DOWN:
            self._health.doubt()
        else:
            self._judge(result)
        if result.code == SUCCESS:
            return True
        if result.code in WRONG_PASSWORD:
            return False
        raise self._trouble("a rebind", result)

    def stop(self) -> Deferred[None]:
        """Close everything; fires when nothing of it is left."""
        self._health.stop()
        for connection in list(self._connections):
            connection.close()
        self._drop_all("the directory was stopped")
        closed = DeferredList([connection.closed for connection in self._connections])
        return closed.addCallback(lambda _: None)

    async def _entries(self, request: Any, limit: float) -> tuple[Entry, ...]:
        """What a search finds; ends that leave open what there is are the server's trouble."""
        answer = await self._search(request, limit)
        result = answer.result
        self._judge(result)
        if result.code == SUCCESS:
            return answer.entries
        if result.code == SIZE_LIMIT_EXCEEDED and len(answer.entries) >= request.sizeLimit:
            return answer.entries
        if result.code == NO_SUCH_OBJECT:
            base = self._settings.search.base or "(not set)"
            self._health.complain(f"has no entry ldapbasedn, which is {base}: {result.name}")
            raise ServerTrouble(f"it has no entry ldapbasedn: {result.name}")
        raise self._trouble("a search", result)

    async def _search(self, request: Any, limit: float) -> SearchAnswer:
        """Make the search; note whether it is finished, and leave what it found to be judged."""
        begun = self._clock.seconds()
        try:
            answer = await self._with_connection(
                self._searching,
                limit,
                lambda connection, left: self._search_on(connection, request, left),
            )
        except Exception as error:
            self._telling.search(request, begun, error)
            raise
        self._telling.search(request, begun, answer.result, len(answer.entries))
        return answer

    async def _search_on(self, connection: Connection, request: Any, limit: float) -> SearchAnswer:
        begun, finished = self._clock.seconds(), self._finished
        try:
            answer = await connection.search(request, limit)
        except (TimeoutError, CancelledError):
            # What the end of a connection means that fell silent is for `_on_lost` to say.
            if self._finished == finished and not connection.lost:
                self._not_finished(self._clock.seconds() - begun, limit)
            raise
        except EntryTooLarge:
            self._answered()
            self._search_finished()
            raise
        self._search_finished()
        self.latency = self._clock.seconds() - begun
        self._count(begun)
        return answer

    async def _bind(
        self, connection: Connection, dn: bytes, password: bytes, limit: float
    ) -> Result:
        begun = self._clock.seconds()
        try:
            result = await connection.bind_as(dn, password, limit)
        except Exception as error:
            self._telling.bind(dn, begun, error)
            raise
        self._telling.bind(dn, begun, result)
        self._count(begun)
        return result

    def _count(self, begun: float) -> None:
        if self._tally is not None:
            seconds = self._clock.seconds() - begun
            self._tally.observe("directory_seconds", self._name, seconds=seconds)

    def _search_finished(self) -> None:
        self._finished += 1
        self._unfinished = 0

    def _not_finished(self, waited: float, limit: float) -> None:
        """A search was given up after ``waited`` of ``limit`` seconds; no other one finished."""
        # One that had to wait for its connection had no chance, one whose login went away was not
        # the server's fault. A little less than the time: timers and clocks differ by rounding.
        if waited < 0.99 * max(limit, self._settings.silence_limit):
            return
        self._unfinished += 1
        if self._unfinished >= UNFINISHED_IN_A_ROW or not self.up:
            self._failed("it does not finish searches")

    async def _with_connection(
        self, pool: Pool, limit: float, use: Callable[[Connection, float], Awaitable[T]]
    ) -> T:
        """What ``use`` gives for a connection of the pool, both within ``limit`` seconds."""
        give_up_at = self._clock.seconds() + limit
        connection = pool.take_now()
        if connection is None:
            connection = await self._free(pool, limit)
        try:
            return await use(connection, max(0.0, give_up_at - self._clock.seconds()))
        except TimeoutError:
            raise OutOfTime(f"no answer within {limit:.1f} s") from None
        finally:
            pool.give_back(connection)

    async def _free(self, pool: Pool, limit: float) -> Connection:
        """A connection of the pool, waited for."""
        try:
            return await pool.take().addTimeout(max(0.0, limit), self._clock)
        except TimeoutError:
            raise OutOfTime(f"no connection was free within {limit:.1f} s") from None

    async def _open_bound(self) -> Connection:
        """A connection on which ldaplogin is bound."""
        settings = self._settings
        give_up_at = self._clock.seconds() + settings.attempt_limit
        connection = await self._open()
        try:
            left = max(0.0, give_up_at - self._clock.seconds())
            result = await self._bind(connection, settings.dn, settings.password, left)
        except TimeoutError:
            raise ServerTrouble("it does not answer a bind") from None
        except ServerTrouble:
            connection.close()
            raise
        if result.code == SUCCESS:
            return connection
        connection.close()
        if result.code in SERVER_IS_DOWN:
            raise ServerTrouble(f"it answers {result}")
        who = "the bind of ldaplogin with ldappassword" if settings.dn else "an anonymous bind"
        raise BindRefused(f"it refuses {who} (control files ldaplogin, ldappassword): {result}")

    async def _open(self) -> Connection:
        """A connection as it is when it is made, and TLS is spoken on it where that is wanted."""
        limit = self._settings.attempt_limit
        give_up_at = self._clock.seconds() + limit
        factory = _ConnectionFactory(self._clock, self._settings.silence_limit, self._on_lost)
        try:
            made = self._connect(self.address, factory).addTimeout(limit, self._clock)
            connection = cast(Connection, await made)
        except CancelledError:
            raise
        except TimeoutError:
            raise ServerTrouble(f"no connection within {limit:.1f} s") from None
        except Exception as error:
            raise ServerTrouble(" ".join(str(error).split()) or type(error).__name__) from None
        self._connections.add(connection)
        connection.closed.addCallback(lambda _: self._connections.discard(connection))
        self._tell_connection("opened")
        if self._tls is not None:
            await self._secure(connection, self._tls, max(0.0, give_up_at - self._clock.seconds()))
        return connection

    async def _secure(
        self, connection: Connection, tls: IOpenSSLClientConnectionCreator, limit: float
    ) -> None:
        begin = connection.begin_tls if self.address.tls else connection.start_tls
        try:
            await begin(tls, limit)
        except TimeoutError:
            raise ServerTrouble(f"no TLS within {limit:.1f} s") from None
        except ServerTrouble:
            connection.close()
            raise
        self._tell_connection("secured")

    def _tell_connection(self, event: str, why: str = "") -> None:
        searching, rebinding = self._searching.connections, self._rebinding.connections
        self._telling.connection(event, len(searching), len(rebinding), why)

    def _on_lost(self, connection: Connection, loss: Loss) -> None:
        self._tell_connection("lost", f"{loss.reason}; under way: {loss.under_way}")
        searching, rebinding = self._searching.connections, self._rebinding.connections
        # The loss of one that is still being opened is told by the attempt to open it.
        if connection in searching or connection in rebinding:
            if loss.kind is LossKind.NOTICE:
                self._health.complain("sent a notice of disconnection")
            others = [other for other in (*searching, *rebinding) if other is not connection]
            silent = loss.kind is LossKind.SILENT and not _heard_since(connection.asked_at, others)
            is_down = loss.kind is LossKind.GARBAGE or silent
            if not is_down and loss.under_way:
                # A connection that has worked may end: servers restart, and hold it to be idle.
                # This one has answered nothing but the bind that opened it.
                if connection.answers == (1 if connection in searching else 0):
                    self._drops += 1
                is_down = self._drops >= DROPS_IN_A_ROW
                self._searching.close_idle()
                self._rebinding.close_idle()
            if is_down and connection in searching:
                self._failed(loss.reason)
            elif is_down:
                self._health.complain(f"does not answer a rebind: {loss.kind.value}")
                self._health.doubt()
        self._searching.forget(connection)
        self._rebinding.forget(connection)

    def _cannot_be_opened(self, error: Exception) -> None:
        self._failed(str(error), refused=isinstance(error, Misconfigured))

    def _judge(self, result: Result) -> None:
        """It has answered an operation: note what that says of it."""
        if result.code in SERVER_IS_DOWN:
            self._failed(f"it answers {result}")
        else:
            self._answered()

    def _answered(self) -> None:
        self._drops = 0
        self._health.answered()

    def _trouble(self, operation: str, result: Result) -> ServerTrouble:
        """What to raise for an answer that is none; that a server is down was logged before."""
        if self.up:
            self._health.complain(f"answers {operation} with {result.name}")
        return ServerTrouble(f"it answers {result}")

    def _failed(self, reason: str, *, refused: bool = False) -> None:
        """It is down, and whatever is open to it is of no use."""
        self._drops = self._unfinished = 0
        self._health.failed(reason, refused=refused)
        self._drop_all(reason)

    def _drop_all(self, reason: str) -> None:
        self._searching.drop_all(reason)
        self._rebinding.drop_all(reason)

    async def _probe(self) -> None:
        """See whether it answers a search at all; what goes wrong is noted where it does."""
        limit = 2 * self._settings.attempt_limit
        request = self._settings.search.check_request(limit)
        with contextlib.suppress(EntryTooLarge):  # an answer, and noted as one
            self._judge((await self._search(request, limit)).result)


class _ConnectionFactory(Factory):
    noisy = False

    def __init__(
        self,
        clock: IReactorTime,
        silence_limit: float,
        on_lost: Callable[[Connection, Loss], None],
    ) -> None:
        self._clock = clock
        self._silence_limit = silence_limit
        self._on_lost = on_lost

    def buildProtocol(self, addr: object) -> Connection:
        return Connection(self._clock, self._silence_limit, self._on_lost)


def _heard_since(when: float | None, connections: list[Connection]) -> bool:
    return when is not None and any(connection.heard_at >= when for connection in connections)
