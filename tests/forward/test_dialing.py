"""One connection to one machine, on a network of strings and on a real one."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, ConnectionRefusedError, TimeoutError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from qmailldap.forward.dialing import dial
from qmailldap.forward.dialogue import Dialogue
from qmailldap.handover import Connection
from tests.forward.support import ForwardTestCase

HOST = "127.0.0.1"
LIMIT = 20.0

net: Any = reactor


class DialTests(ForwardTestCase):
    def dial(self, address: str = "10.0.0.1", limit: float = 5) -> Deferred[Dialogue]:
        return dial(self.network, Failure.getErrorMessage, address, 110, limit)

    def test_a_connection_is_a_dialogue_that_can_be_handed_over(self) -> None:
        answered = self.dial()
        self.assertNoResult(answered)
        wire = self.connecting("10.0.0.1")
        wire.accept()
        dialogue = self.successResultOf(answered)
        self.assertIs(dialogue.connection, wire.protocol)
        self.assertIsInstance(dialogue.connection, Connection)
        self.assertEqual(self.network.getDelayedCalls(), [])
        dialogue.hang_up()

    def test_what_is_said_at_once_is_not_lost(self) -> None:
        answered = self.dial()
        wire = self.connecting("10.0.0.1")
        wire.accept()
        wire.say(b"+OK ready\r\n")
        dialogue = self.successResultOf(answered)
        greeting = self.begin(dialogue.greeting(1))
        self.assertEqual(self.successResultOf(greeting), b"ready")
        dialogue.hang_up()

    def test_a_refused_connection_is_an_error(self) -> None:
        answered = self.dial()
        self.connecting("10.0.0.1").fail()
        self.failureResultOf(answered, ConnectionRefusedError)

    def test_an_address_that_does_not_answer_is_given_up(self) -> None:
        answered = self.dial(limit=5)
        self.network.advance(4.9)
        self.assertNoResult(answered)
        self.network.advance(0.1)
        self.failureResultOf(answered, TimeoutError)
        self.assertEqual(self.network.standing(), [])

    def test_who_gives_up_leaves_no_attempt_behind(self) -> None:
        # And hears that it was cancelled, not that the address is in trouble.
        answered = self.dial()
        answered.cancel()
        self.failureResultOf(answered, CancelledError)
        self.assertEqual(self.network.standing(), [])

    def test_a_connection_that_comes_after_all_is_closed(self) -> None:
        answered = self.dial()
        wire = self.connecting("10.0.0.1")
        self.patch(wire, "failIfNotConnected", lambda _: None)  # too late for that
        answered.cancel()
        self.failureResultOf(answered, CancelledError)
        wire.accept()
        self.assertTrue(wire.aborted)

    def test_an_address_that_the_reactor_takes_offence_at_is_an_error(self) -> None:
        # As an interface that does not exist (any more) in the scope of an address.
        self.network.fault = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        self.failureResultOf(self.dial("fe80::1%nowhere"), ConnectError)


class RealTests(TestCase):
    timeout = LIMIT

    def dial(self, address: str, port: int) -> Deferred[Dialogue]:
        return dial(net, Failure.getErrorMessage, address, port, 5)

    def a_port(self) -> int:
        """Where everybody is accepted, and greeted."""

        class Greeter(Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.write(b"+OK ready\r\n")

        port = net.listenTCP(0, Factory.forProtocol(Greeter), interface=HOST)
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    async def test_a_member_greets(self) -> None:
        dialogue = await self.dial(HOST, self.a_port())
        self.assertEqual(await dialogue.greeting(5), b"ready")
        dialogue.hang_up()
        await deferLater(net, 0)

    async def test_a_port_where_nobody_listens_is_an_error(self) -> None:
        with socket.socket() as bound:
            bound.bind((HOST, 0))
            with self.assertRaises(ConnectionRefusedError):
                await self.dial(HOST, bound.getsockname()[1])

    async def test_an_interface_that_does_not_exist_is_an_error(self) -> None:
        with self.assertRaises(ConnectError):
            await self.dial("fe80::1%nowhere", 110)

    async def test_who_gives_up_hears_that(self) -> None:
        answered = self.dial(HOST, self.a_port())
        answered.cancel()
        with self.assertRaises(CancelledError):
            await answered
        await deferLater(net, 0)
