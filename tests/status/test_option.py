"""--status: what is listened on, and by whom it is served."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransport

from qmailldap.listening import BACKLOG
from qmailldap.service import CannotStart
from tests import test_service


class OptionTests(test_service.ServiceTestCase):
    def listening(self, *arguments: str) -> list[int]:
        service = self.make("--listen", "tcp:8110", *arguments)
        service.privilegedStartService()
        return sorted(port for port, *_ in self.reactor.tcpServers)

    def test_it_is_off_by_default(self) -> None:
        self.assertEqual(self.listening(), [8110])

    def test_its_endpoint_is_listened_on_beside_those_of_mail(self) -> None:
        self.assertEqual(self.listening("--status", "tcp:8111:interface=127.0.0.1"), [8110, 8111])
        backlogs = {port: backlog for port, _, backlog, _ in self.reactor.tcpServers}
        # Few are to wait here.
        self.assertLess(backlogs[8111], BACKLOG)

    def test_an_endpoint_that_is_none_is_named(self) -> None:
        for endpoint in ("8111", "tcp:x", "nonsense:1"):
            with self.assertRaises(CannotStart) as caught:
                self.make("--status", endpoint)
            self.assertIn(f"--status {endpoint}: ", str(caught.exception.code))

    def test_it_serves_what_is_counted_of_sessions(self) -> None:
        self.listening("--status", "tcp:8111")
        factories = {port: factory for port, factory, *_ in self.reactor.tcpServers}
        site = factories[8111]
        client = factories[8110].buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        client.makeConnection(StringTransport())
        channel: Any = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 2))
        transport = StringTransport()
        channel.makeConnection(transport)
        channel.dataReceived(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        lines = transport.value().decode().splitlines()
        self.assertIn('qmailldap_sessions{kind="waiting"} 1.0', lines)
        self.assertIn("qmailldap_connections 1.0", lines)
        self.assertIn("qmailldap_workers 1.0", lines)
        self.assertIn('qmailldap_directory_server_up{server="127.0.0.1:389"} 1.0', lines)
