"""At the end of the server nothing is given more time than there is: --grace is a hard bound."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import StringTransport

from qmailldap import separation as separation_module
from qmailldap.directory import Directory
from qmailldap.privsep.broker_process import BrokerProcess
from qmailldap.threads import Workers
from tests.test_service import ServiceTestCase


class LimitsTests(ServiceTestCase):
    """A server with a broker, whose process is not started, and a client who does not leave."""

    def setUp(self) -> None:
        super().setUp()
        self.limits: dict[str, float | None] = {}
        limits = self.limits

        def stop_broker(broker: BrokerProcess, limit: float | None = None) -> Deferred[None]:
            limits["broker"] = limit
            return succeed(None)

        def stop_threads(threads: Workers, limit: float | None = None) -> Deferred[None]:
            limits[threads.name] = limit
            return succeed(None)

        self.patch(separation_module, "started_as_root", lambda: True)
        self.patch(separation_module, "become", lambda identity: None)
        self.patch(BrokerProcess, "start", lambda broker: None)
        self.patch(BrokerProcess, "stop", stop_broker)
        self.patch(Workers, "stop", stop_threads)
        self.patch(Directory, "stop", lambda directory: succeed(None))

    def limits_by(self, grace: int) -> dict[str, float | None]:
        """What each was given, where sessions had all the time that they can have."""
        service = self.make("--grace", str(grace))
        service.privilegedStartService()
        service.startService()
        self.limits.clear()
        connection = self.reactor.tcpServers[0][1].buildProtocol(None)
        connection.makeConnection(StringTransport())
        stopped = service.stopService()
        self.reactor.pump([0.1] * (10 * grace + 2))
        self.successResultOf(stopped)
        return dict(self.limits)

    def test_threads_and_the_broker_have_what_sessions_have_left_them(self) -> None:
        for grace, kept in ((60, 1.0), (10, 1.0), (2, 1.0), (1, 0.5)):
            limits = self.limits_by(grace)
            self.assertEqual(limits.keys(), {"broker", "mail", "hash", "names"})
            for name, limit in limits.items():
                assert limit is not None, name
                self.assertTrue(0 < limit < kept, (grace, name, limit))

    def test_with_no_time_they_have_none(self) -> None:
        limits = self.limits_by(0)
        self.assertEqual(limits, dict.fromkeys(("broker", "mail", "hash", "names"), 0.0))
