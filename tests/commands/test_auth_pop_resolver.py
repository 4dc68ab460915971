"""Names into addresses, as Twisted asks for them, without the reactor's thread pool."""

from __future__ import annotations

import socket
import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from qmailldap.commands.auth_pop.resolver import Resolver

FOUND = [
    (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 389, 0, 0)),
    (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 389)),
]


@implementer(IResolutionReceiver)
class Receiver:
    """Keeps what it is told; ``complete`` fires at the end."""

    def __init__(self) -> None:
        self.addresses: list[IAddress] = []
        self.complete: Deferred[None] = Deferred()
        self.resolution: IHostResolution | None = None

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self.resolution = resolutionInProgress

    def addressResolved(self, address: IAddress) -> None:
        self.addresses.append(address)

    def resolutionComplete(self) -> None:
        self.complete.callback(None)


class ResolverTests(TestCase):
    timeout = 30

    def resolve(self, name: str, **options: Any) -> Receiver:
        receiver = Receiver()
        Resolver(reactor).resolveHostName(receiver, name, 389, **options)
        return receiver

    def test_an_address_is_its_own_at_once(self) -> None:
        for host, address in (
            ("192.0.2.1", IPv4Address("TCP", "192.0.2.1", 389)),
            ("2001:db8::1", IPv6Address("TCP", "2001:db8::1", 389)),
        ):
            receiver = self.resolve(host)
            self.successResultOf(receiver.complete)
            self.assertEqual(receiver.addresses, [address])

    async def test_a_name_has_all_addresses_in_the_order_of_the_system(self) -> None:
        threads: list[int] = []

        def look_up(*_: Any, **__: Any) -> Any:
            threads.append(threading.get_ident())
            return FOUND

        self.patch(socket, "getaddrinfo", look_up)
        receiver = self.resolve("ldap.example.org")
        await receiver.complete
        expected = IPv6Address("TCP", "2001:db8::1", 389), IPv4Address("TCP", "192.0.2.1", 389)
        self.assertEqual(receiver.addresses, [*expected])
        self.assertNotEqual(threads, [threading.get_ident()])
        only = self.resolve("ldap.example.org", addressTypes=[IPv4Address])
        await only.complete
        self.assertEqual(only.addresses, [expected[1]])

    async def test_a_name_that_cannot_be_resolved_has_none(self) -> None:
        for error in (socket.gaierror(socket.EAI_NONAME, "no"), UnicodeError("label too long")):

            def look_up(*_: Any, error: Exception = error, **__: Any) -> Any:
                raise error

            self.patch(socket, "getaddrinfo", look_up)
            receiver = self.resolve("ldap.example.org")
            await receiver.complete
            self.assertEqual(receiver.addresses, [])

    async def test_nothing_is_told_to_whoever_does_not_wait_any_more(self) -> None:
        gate = threading.Event()
        self.patch(socket, "getaddrinfo", lambda *_, **__: gate.wait(20) and FOUND)
        receiver = self.resolve("ldap.example.org")
        assert receiver.resolution is not None
        receiver.resolution.cancel()
        gate.set()
        # Asked for later, and so told later.
        another = self.resolve("ldap.example.org")
        await another.complete
        self.assertEqual((receiver.addresses, receiver.complete.called), ([], False))
