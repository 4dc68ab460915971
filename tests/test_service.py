"""Options and wiring: what a command line makes, and what it says of a mistake."""

from __future__ import annotations

import os
import runpy
import signal
from pathlib import Path
from typing import Any, cast

from twisted.application.service import IService, IServiceMaker
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import formatEvent
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from qmailldap import separation as separation_module
from qmailldap.control import ControlSnapshot
from qmailldap.directory import Directory
from qmailldap.generations import Generations
from qmailldap.listening import BACKLOG
from qmailldap.loglevel import Log
from qmailldap.pop3 import POP3Factory
from qmailldap.refusal import LoginRefused
from qmailldap.service import CannotStart, Options, POP3Service, makeService
from qmailldap.threads import STOP_LIMIT

ROOT = Path(__file__).parent.parent


def parsed(*arguments: str) -> Options:
    options = Options()
    options.parseOptions(list(arguments))
    return options


class OptionsTests(SynchronousTestCase):
    def test_defaults_are_those_of_a_qmail_host(self) -> None:
        options = parsed()
        self.assertEqual(options["control"], "/var/qmail/control")
        self.assertEqual(options["listen"], ["tcp:110"])

    def test_the_environment_names_the_control_directory_unless_the_option_does(self) -> None:
        self.patch(os, "environ", {**os.environ, "QMAILLDAP_CONTROL": "/elsewhere"})
        self.assertEqual(parsed()["control"], "/elsewhere")
        self.assertEqual(parsed("--control", "/here")["control"], "/here")

    def test_listen_may_be_given_several_times(self) -> None:
        options = parsed("--listen", "tcp:1", "--listen", "tcp:2:interface=127.0.0.1")
        self.assertEqual(options["listen"], ["tcp:1", "tcp:2:interface=127.0.0.1"])

    def test_counts_are_positive(self) -> None:
        self.assertEqual(parsed("--ldap-connections", "8")["ldap-connections"], 8)
        for value in ("0", "-1", "x"):
            with self.assertRaises(UsageError) as caught:
                parsed("--ldap-connections", value)
            self.assertIn("--ldap-connections", str(caught.exception))
            self.assertIn(value, str(caught.exception))

    def test_the_help_is_not_torn_where_a_text_of_the_source_has_a_new_line(self) -> None:
        for text in parsed().docs.values():
            self.assertNotRegex(text, "\n|  ")

    def test_no_argument_is_taken(self) -> None:
        with self.assertRaises(UsageError):
            parsed("stray")


class ServiceTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        # A server that is started but not stopped here leaves its own.
        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        # What root's rights do, tests/integration shows: here it would be trial that loses them.
        self.patch(separation_module, "started_as_root", lambda: False)
        self.control = Path(self.mktemp())
        self.control.mkdir()
        (self.control / "ldapserver").write_text("127.0.0.1\n")
        (self.control / "me").write_text("mail.example.org\n")

    def make(self, *arguments: str) -> Any:
        self.reactor = cast(Any, MemoryReactorClock())
        self.reactor.callFromThread = lambda *_: None
        return makeService(parsed("--control", str(self.control), *arguments), self.reactor)


class ServiceTests(ServiceTestCase):
    def test_every_listen_endpoint_is_listened_on(self) -> None:
        service = self.make("--listen", "tcp:8110", "--listen", "tcp:8111:interface=127.0.0.1")
        self.assertIsInstance(service, POP3Service)
        service.privilegedStartService()
        listening = [(port, interface) for port, _, _, interface in self.reactor.tcpServers]
        self.assertEqual(listening, [(8110, ""), (8111, "127.0.0.1")])

    def test_there_is_room_for_many_who_wait_to_be_accepted(self) -> None:
        endpoints = ("tcp:8110", "tcp:8111:backlog=7", "unix:/nowhere/pop3")
        service = self.make(*(f"--listen={endpoint}" for endpoint in endpoints))
        service.privilegedStartService()
        self.assertEqual([backlog for _, _, backlog, _ in self.reactor.tcpServers], [BACKLOG, 7])
        self.assertEqual(self.reactor.unixServers[0][2], BACKLOG)

    def test_who_sees_a_port_open_may_send_sighup(self) -> None:
        heeded: list[bool] = []
        service = self.make("--listen", "tcp:8110")
        before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        self.addCleanup(signal.signal, signal.SIGHUP, before)
        listen = self.reactor.listenTCP

        def listening(*arguments: Any, **more: Any) -> Any:
            heeded.append(signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL)
            return listen(*arguments, **more)

        self.reactor.listenTCP = listening
        service.privilegedStartService()
        self.assertEqual(heeded, [True])

    def test_the_greeting_names_the_host_of_the_control_file(self) -> None:
        service = self.make()
        service.privilegedStartService()
        factory = self.reactor.tcpServers[0][1]
        self.assertIsInstance(factory, POP3Factory)
        self.assertEqual(factory.settings.hostname, "mail.example.org")

    def assert_does_not_start(self, *said: str, arguments: tuple[str, ...] = ()) -> None:
        with self.assertRaises(SystemExit) as caught:
            self.make(*arguments)
        for text in ("qmailldap-pop3: ", *said):
            self.assertIn(text, str(caught.exception.code))

    def test_a_fault_in_a_control_file_is_named(self) -> None:
        (self.control / "ldaptimeout").write_text("99999\n")
        self.assert_does_not_start("ldaptimeout", "99999")

    def test_an_object_class_that_is_no_filter_is_named(self) -> None:
        (self.control / "ldapobjectclass").write_text("qmailUser)(\n")
        self.assert_does_not_start("ldapobjectclass")

    def test_a_missing_control_directory_is_named(self) -> None:
        self.assert_does_not_start("/nowhere", arguments=("--control", "/nowhere"))

    def test_an_endpoint_that_is_none_is_named(self) -> None:
        for endpoint in (
            "tcp:x",
            "nonsense:1",
            "110",
            "tcp",
            "ssl:995:privateKey=/nowhere",
            "ssl:995:privateKey=" + str(self.control / "me"),
        ):
            self.assert_does_not_start("--listen " + endpoint, arguments=("--listen", endpoint))

    def test_a_colon_that_should_be_written_otherwise_is_explained(self) -> None:
        self.assert_does_not_start("\\:", arguments=("--listen", "tcp:1:interface=::1"))

    def test_a_socket_that_systemd_has_not_handed_over_is_named(self) -> None:
        for where in ("name=pop3", "index=7"):
            endpoint = f"systemd:domain=INET6:{where}"
            self.assert_does_not_start(
                f"--listen {endpoint}: systemd has handed over no such socket",
                arguments=("--listen", endpoint),
            )

    def test_no_endpoint_at_all_is_an_error(self) -> None:
        options = parsed("--control", str(self.control))
        options["listen"] = []
        with self.assertRaises(CannotStart) as caught:
            makeService(options)
        self.assertIn("--listen", str(caught.exception))

    def test_twistd_takes_it_for_a_fault_and_python_for_an_orderly_end(self) -> None:
        self.assertTrue(issubclass(CannotStart, Exception) and issubclass(CannotStart, SystemExit))
        self.assertEqual(CannotStart("no").code, "qmailldap-pop3: no")

    def test_an_endpoint_that_cannot_be_listened_on_is_named(self) -> None:
        control = str(self.control)
        for endpoint in ("tcp:999999", "tcp:-5", "unix:/nowhere/socket"):
            service: Any = makeService(parsed("--control", control, "--listen", endpoint))
            with self.assertRaises(SystemExit) as caught:
                service.privilegedStartService()
            self.assertIn(f"--listen {endpoint}: ", str(caught.exception.code))

    def test_it_connects_to_the_directory_when_it_starts_and_lets_go_when_it_stops(self) -> None:
        told: list[str] = []
        self.patch(Directory, "start", lambda _: told.append("start"))

        def stop(_: Directory) -> Deferred[None]:
            told.append("stop")
            return succeed(None)

        self.patch(Directory, "stop", stop)
        service = self.make()
        service.privilegedStartService()
        service.startService()
        self.assertEqual(told, ["start"])
        stopped = service.stopService()
        self.reactor.advance(STOP_LIMIT)
        self.successResultOf(stopped)
        self.assertEqual(told, ["start", "stop"])

    def test_first_ports_are_closed_then_sessions_are_told_and_then_all_else_ends(self) -> None:
        told: list[str] = []

        def stop(_: Directory) -> Deferred[None]:
            told.append("directory")
            return succeed(None)

        self.patch(Directory, "stop", stop)
        service = self.make("--listen", "tcp:8110", "--grace", "10")
        service.privilegedStartService()
        service.startService()
        connection = self.reactor.tcpServers[0][1].buildProtocol(None)
        transport = StringTransport()
        connection.makeConnection(transport)
        stopped = service.stopService()
        self.assertNotIn(b"-ERR", transport.value())
        self.reactor.advance(1)
        self.assertIn(b"-ERR [SYS/TEMP] the server is being stopped", transport.value())
        self.assertTrue(transport.disconnecting)
        self.assertEqual(told, [])
        connection.connectionLost(Failure(ConnectionDone()))
        self.reactor.advance(0)
        self.assertEqual(told, ["directory"])
        self.reactor.advance(STOP_LIMIT)
        self.successResultOf(stopped)

    def test_it_has_ended_within_the_grace(self) -> None:
        for grace in (10, 1, 0):
            service = self.make("--grace", str(grace))
            service.privilegedStartService()
            service.startService()
            connection = self.reactor.tcpServers[0][1].buildProtocol(None)
            connection.makeConnection(StringTransport())
            stopped = service.stopService()
            self.assertGreaterEqual(grace, service.time_left())
            self.reactor.pump([0.1] * (10 * grace + 2))
            self.assertEqual(service.time_left(), 0)
            self.successResultOf(stopped)

    def test_what_should_be_looked_at_is_logged_at_the_start(self) -> None:
        (self.control / "ldapuid").write_text("nobody\n")
        (self.control / "ldaplogin").write_text("cn=pop3\n")
        (self.control / "ldappassword").write_text("secret\n")
        (self.control / "ldappassword").chmod(0o644)
        service = self.make()
        lines: list[str] = []
        observer: Any = lambda event: lines.append(formatEvent(event))  # noqa: E731
        service._log = Log(observer=observer)
        service.startService()
        self.addCleanup(service.stopService)
        self.assertEqual(len(lines), 2)
        for line, file in zip(lines, ("ldappassword", "ldapuid"), strict=True):
            self.assertIn(file, line)
            self.assertNotIn("secret", line)


class ChangeTests(ServiceTestCase):
    """What those meet who come after control files were read again."""

    def setUp(self) -> None:
        super().setUp()
        self.service = self.make("--listen", "tcp:1", "--listen", "haproxy:tcp:2")
        self.service.privilegedStartService()
        (self.generations,) = (each for each in self.service if isinstance(each, Generations))
        self.plain, self.proxied = (each[1] for each in self.reactor.tcpServers)

    def load(self, **files: str) -> None:
        for name, text in files.items():
            (self.control / name).write_text(text + "\n")
        self.successResultOf(self.generations.prepare(ControlSnapshot.read(self.control)))
        self.generations.commit()

    def test_a_session_keeps_what_it_began_with_and_the_next_has_what_is_new(self) -> None:
        before = self.plain.settings
        self.load(me="new.example.org", pop3limits="idle:700\nproxy-time:3", ldapcleartext="2")
        for factory in (self.plain, self.proxied.wrapped):
            after = factory.settings
            self.assertEqual((after.hostname, after.cleartext), ("new.example.org", 2))
            self.assertEqual(after.limits.idle, 700)
        self.assertEqual(self.proxied.limit, 3)
        self.assertEqual((before.hostname, before.limits.idle), ("mail.example.org", 600))
        # But who logs in asks what is in force.
        self.assertIs(before.portal, self.plain.settings.portal)

    def test_whoever_is_trusted_now_is_believed(self) -> None:
        self.assertFalse(self.plain.settings.trusts("192.0.2.1"))
        self.load(pop3trusted="192.0.2.0/24")
        self.assertTrue(self.plain.settings.trusts("192.0.2.1"))
        self.assertFalse(self.proxied.wrapped.settings.trusts("192.0.2.1"))

    def test_numbers_hold_at_once_and_all_are_still_counted(self) -> None:
        admission = self.plain.settings.admission
        places = [admission.enter("192.0.2.1", lambda: None) for _ in range(2)]
        self.load(pop3limits="connections-per-address:2")
        with self.assertRaises(LoginRefused):
            admission.enter("192.0.2.1", lambda: None)
        places.pop().leave()
        admission.enter("192.0.2.1", lambda: None)

    def test_a_port_that_is_our_own_is_still_known(self) -> None:
        cluster = self.generations.in_force.cluster
        cluster.listens_on(IPv4Address("TCP", "127.0.0.1", 110))
        self.load(ldapcluster="1")
        after = self.generations.in_force.cluster
        self.assertIsNot(after, cluster)
        near, far = IPv4Address("TCP", "127.0.0.1", 4711), IPv4Address("TCP", "127.0.0.1", 110)
        self.assertTrue(after.is_ourselves(near, far))


class WorkersTests(ServiceTestCase):
    def test_one_is_this_very_process(self) -> None:
        self.assertIsInstance(self.make("--workers", "1"), POP3Service)
        self.patch(os, "sched_getaffinity", lambda _: {3})
        self.assertIsInstance(self.make("--workers", "0"), POP3Service)

    def test_several_are_started_by_a_process_that_listens_for_them(self) -> None:
        self.patch(os, "sched_getaffinity", lambda _: {0, 1, 2})
        for count, workers in (("2", 2), ("0", 3)):
            service = self.make("--workers", count, "--listen", "tcp:1", "--listen", "tcp:2")
            self.assertNotIsInstance(service, POP3Service)
            names = [each.name for each in service if (each.name or "").startswith("--")]
            self.assertEqual(names, ["--listen tcp:1", "--listen tcp:2", "--workers"])
            self.assertEqual(service.getServiceNamed("--workers").count, workers)

    def test_a_fault_is_found_before_anything_is_started(self) -> None:
        (self.control / "ldaptimeout").write_text("99999\n")
        with self.assertRaises(CannotStart) as caught:
            self.make("--workers", "2")
        self.assertIn("ldaptimeout", str(caught.exception.code))
        self.assertEqual(self.reactor.tcpServers, [])

    def test_who_sees_a_port_open_may_send_sighup(self) -> None:
        service = self.make("--workers", "2")
        before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        self.addCleanup(signal.signal, signal.SIGHUP, before)
        heeded: list[bool] = []
        for each in service:
            if not (each.name or "").startswith("--"):
                continue
            self.patch(
                each,
                "privilegedStartService",
                lambda: heeded.append(signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL),
            )
        service.privilegedStartService()
        self.assertEqual(heeded, [True, True])


class WaysToStartTests(SynchronousTestCase):
    def test_the_plugin_makes_the_same_service(self) -> None:
        plugin: Any = runpy.run_path(str(ROOT / "twisted/plugins/qmailldap_plugin.py"))
        maker = plugin["qmailldap_pop3"]
        self.assertTrue(IPlugin.providedBy(maker) and IServiceMaker.providedBy(maker))
        self.assertEqual(maker.tapname, "qmailldap-pop3")
        self.assertIs(maker.options, Options)
        self.assertIs(maker.makeService, makeService)

    def test_the_tac_file_makes_the_same_service(self) -> None:
        control = Path(self.mktemp())
        control.mkdir()
        (control / "ldapserver").write_text("127.0.0.1\n")
        self.patch(
            os,
            "environ",
            {**os.environ, "QMAILLDAP_CONTROL": str(control), "QMAILLDAP_LISTEN": "tcp:1 tcp:2"},
        )
        tac: Any = runpy.run_path(str(ROOT / "tac/qmailldap-pop3.tac"))
        application: Any = IService(tac["application"])
        (service,) = application
        self.assertIsInstance(service, POP3Service)
        names = [each.name for each in service if each.name]
        self.assertEqual(names[-2:], ["--listen tcp:1", "--listen tcp:2"])
