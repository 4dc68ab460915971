"""Ports that one process binds and others listen on, with real sockets."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet import tcp, unix
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import TestCase

from qmailldap.workers.ports import InheritedPorts, SharedPorts

from ..integration.certificates import write_certificate
from ..integration.processes import wait_until

reactor: Any = _reactor
_LIMIT = 10.0


class Greeting(Protocol):
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.factory.words)
        self.transport.loseConnection()


def greeter(words: bytes) -> Any:
    factory: Any = Factory.forProtocol(Greeting)
    factory.words, factory.noisy = words, False
    return factory


def _close(port: Any) -> Any:
    return port.stopListening() if port.connected else None


class PortsTests(TestCase):
    async def bound(self, *descriptions: str) -> SharedPorts:
        """Ports as the supervisor has them."""
        shared = SharedPorts()
        for each in descriptions:
            port = await shared(reactor, each).listen(greeter(b"supervisor"))
            self.addCleanup(_close, port)
        return shared

    async def worker(self, shared: SharedPorts, description: str, words: bytes) -> Any:
        inherited = InheritedPorts([os.dup(each) for each in shared.descriptors()])
        port: Any = await inherited(reactor, description).listen(greeter(words))
        self.addCleanup(_close, port)
        return port

    def socket_file(self) -> str:
        """A path for a UNIX socket, of which there are 107 octets at most."""
        folder = tempfile.TemporaryDirectory(prefix="qmailldap-test-")
        self.addCleanup(folder.cleanup)
        return os.path.join(folder.name, "socket")

    def device(self) -> Any:
        opened = open(os.devnull)  # noqa: SIM115  # closed at the end of the test
        self.addCleanup(opened.close)
        return opened

    async def greeted(self, address: Any) -> bytes:
        def read() -> bytes:
            family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
            with socket.socket(family) as connection:
                connection.settimeout(_LIMIT)
                connection.connect(address)
                return connection.recv(100)

        return await deferToThread(read)

    async def test_only_those_who_inherit_a_port_let_anybody_in(self) -> None:
        shared = await self.bound("tcp:0:interface=127.0.0.1")
        with socket.socket(fileno=os.dup(shared.descriptors()[0])) as bound:
            address = bound.getsockname()
        # The description may be any: what is inherited decides.
        first = await self.worker(shared, "tcp:110", b"first")
        self.assertEqual(first.getHost().port, address[1])
        self.assertEqual(await self.greeted(address), b"first")
        second = await self.worker(shared, "systemd:domain=INET:index=0", b"second")
        await first.stopListening()
        self.assertEqual(await self.greeted(address), b"second")
        await second.stopListening()

    async def test_the_file_of_a_socket_is_left_to_who_made_it(self) -> None:
        path = self.socket_file()
        description = f"unix:{path}:mode=600"
        shared = await self.bound(description)
        for words in (b"first", b"second"):
            port = await self.worker(shared, description, words)
            self.assertEqual(await self.greeted(path), words)
            self.assertEqual(port.getHost().name, os.fsencode(path))
            self.assertEqual(stat.S_IMODE(Path(path).stat().st_mode), 0o600)
            await port.stopListening()
            self.assertTrue(os.path.exists(path))

    async def test_workers_still_let_all_in_once_the_supervisor_has_closed_its_port(
        self,
    ) -> None:
        path, other = self.socket_file(), self.socket_file()
        for description in ("tcp:0:interface=127.0.0.1", f"unix:{path}"):
            shared = await self.bound(description)
            with socket.socket(fileno=os.dup(shared.descriptors()[0])) as bound:
                address = bound.getsockname()
            if address == path:
                # The file ends with the port of the supervisor, and nobody could connect.
                os.link(path, other)
                address = other
            port = await self.worker(shared, description, b"worker")
            (supervisors,) = shared._ports
            await supervisors.stopListening()
            self.assertEqual(await self.greeted(address), b"worker")
            await port.stopListening()

    async def test_nobody_connects_to_a_server_that_stops_whoever_has_the_port_still(self) -> None:
        shared = await self.bound("tcp:0:interface=127.0.0.1")
        with socket.socket(fileno=os.dup(shared.descriptors()[0])) as bound:
            address = bound.getsockname()
        port = await self.worker(shared, "tcp:110", b"worker")
        shared.end()
        (supervisors,) = shared._ports
        await supervisors.stopListening()
        with socket.socket() as client:
            self.assertNotEqual(client.connect_ex(address), 0)
        # The worker notices, and makes nothing of it.
        await wait_until(lambda: port not in reactor.getReaders(), _LIMIT, "a port that is left")

    def test_whether_twisted_shuts_a_socket_down_is_said_by_the_attribute_we_set(self) -> None:
        for each in (tcp.Port, unix.Port):
            self.assertIs(each._shouldShutdown, True)

    async def test_a_worker_keeps_a_descriptor_for_when_it_is_out_of_them(self) -> None:
        path = self.socket_file()
        for description in ("tcp:0:interface=127.0.0.1", f"unix:{path}"):
            shared = await self.bound(description)
            reservation = tcp._FileDescriptorReservation(self.device)
            self.patch(tcp, "_reservedFD", reservation)
            self.assertFalse(reservation.available())
            await self.worker(shared, description, b"words")
            self.assertTrue(reservation.available())

    async def test_what_stands_around_a_port_is_made_as_usual(self) -> None:
        certificate = Path(self.mktemp())
        write_certificate(certificate)
        shared = await self.bound("tcp:0:interface=127.0.0.1")
        description = f"ssl:995:privateKey={certificate}:certKey={certificate}"
        port = await self.worker(shared, description, b"words")
        self.assertIsInstance(port.factory, TLSMemoryBIOFactory)

    async def test_an_endpoint_too_many_is_an_error(self) -> None:
        with self.assertRaises(ValueError):
            InheritedPorts([])(reactor, "tcp:110")

    async def test_an_endpoint_that_takes_its_time_is_not_for_workers(self) -> None:
        shared = SharedPorts()
        self.patch(shared, "_ports", [None])
        with self.assertRaises(ValueError):
            shared.descriptors()
