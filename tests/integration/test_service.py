"""The server as its administrator meets it: starting, stopping, configuration and the log."""

from __future__ import annotations

import os
import poplib
import shutil
import signal
import socket
import ssl
import tempfile
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from qmailldap.privsep.rights import find_identity

from .certificates import write_certificate
from .clients import Conversation, converse, refuse_or_accept
from .mailboxes import MESSAGES
from .ports import HOST, unused_port
from .processes import Finished, run, wait_until
from .server import TWISTD, Pop3Server, environment, write_control
from .site import PASSWORD, SiteTestCase

WRONG = "-ERR [AUTH] authorization failed"


class CommandLineTests(SiteTestCase):
    async def twistd(self, *arguments: str) -> str:
        finished = await run(
            [*TWISTD, *arguments], 20, environment=environment(), directory=self.directory
        )
        self.assertEqual(finished.code, 0, finished.text)
        self.assertNotIn("Traceback", finished.text)
        return finished.text

    async def test_twistd_lists_the_server(self) -> None:
        self.assertRegex(await self.twistd("--help"), r"\n +qmailldap-pop3 +\S")

    async def test_the_server_explains_its_options(self) -> None:
        shown = await self.twistd("qmailldap-pop3", "--help")
        for part in ("--control", "/var/qmail/control", "--listen", "tcp:110"):
            self.assertIn(part, shown)


class ListeningTests(SiteTestCase):
    async def test_it_listens_wherever_it_is_told_to(self) -> None:
        self.user("joe")
        self.slapd = self.new_slapd()
        await self.slapd.start()
        second, third = unused_port(), unused_port()
        self.server = self.new_server(
            self.slapd.address,
            listen=[f"tcp:{port}:interface={HOST}" for port in (second, third)],
        )
        await self.server.start()
        for port in (self.server.port, second, third):
            self.assertEqual(
                await deferToThread(refuse_or_accept, port, "joe", PASSWORD), "accepted"
            )

    async def test_as_many_connections_are_taken_as_the_host_allows(self) -> None:
        self.user("joe")
        await self.start(before=["prlimit", "--nofile=100:300", "--"])
        limits = Path(f"/proc/{self.server.network.pid}/limits").read_text()
        self.assertRegex(limits, r"Max open files +300 +300 ")
        connections = [await self.connect() for _ in range(150)]
        self.assertEqual({each.greeting[:4] for each in connections}, {b"+OK "})
        await self.assert_serves("joe")

    async def test_the_tac_file_starts_the_same_server(self) -> None:
        self.user("joe", messages=[MESSAGES["plain"]])
        self.slapd = self.new_slapd()
        await self.slapd.start()
        second = unused_port()
        self.server = self.new_server(
            self.slapd.address, tac=True, listen=[f"tcp:{second}:interface={HOST}"]
        )
        await self.server.start()
        self.assertEqual((await self.in_session("joe", poplib.POP3.stat))[0], 1)
        self.assertEqual(await deferToThread(refuse_or_accept, second, "joe", PASSWORD), "accepted")

    async def test_a_tls_endpoint(self) -> None:
        self.user("joe")
        self.slapd = self.new_slapd()
        await self.slapd.start()
        certificate = self.directory / "cert.pem"
        write_certificate(certificate)
        port = unused_port()
        self.server = self.new_server(
            self.slapd.address,
            listen=[f"ssl:{port}:interface={HOST}:privateKey={certificate}:certKey={certificate}"],
        )
        await self.server.start()
        context = ssl.create_default_context(cafile=certificate)

        def session() -> bytes:
            pop = poplib.POP3_SSL("localhost", port, timeout=10, context=context)
            pop.user("joe")
            pop.pass_(PASSWORD)
            return pop.quit()

        self.assertEqual(await deferToThread(session), b"+OK ")

    async def test_a_proxy_passes_the_clients_address_on(self) -> None:
        self.user("joe")
        self.slapd = self.new_slapd()
        await self.slapd.start()
        port = unused_port()
        self.server = self.new_server(
            self.slapd.address,
            listen=[f"haproxy:tcp:{port}:interface={HOST}"],
            # A proxy that does not say whom it speaks for is not to be taken for its clients.
            control={"pop3trusted": HOST},
        )
        await self.server.start()
        connection = await self.connect()
        self.assertIn(b"[XCLIENT]", connection.greeting)

        def unknown() -> bytes:
            with socket.create_connection((HOST, port), 10) as connection:
                connection.sendall(b"PROXY UNKNOWN x\r\nXCLIENT ADDR=192.0.2.9\r\nQUIT\r\n")
                with connection.makefile("rb") as received:
                    return received.read()

        answers = await deferToThread(unknown)
        self.assertNotIn(b"[XCLIENT]", answers)
        self.assertIn(b"\r\n-ERR authorization first\r\n", answers)

        def session() -> bytes:
            with socket.create_connection((HOST, port), 10) as connection:
                connection.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 5600 110\r\n")
                connection.sendall(f"USER joe\r\nPASS {PASSWORD}\r\nQUIT\r\n".encode())
                with connection.makefile("rb") as received:
                    return received.read()

        received = await deferToThread(session)
        self.assertEqual(received.count(b"+OK "), 4, received)
        self.assertRegex(self.server.log, r"login user=joe peer=192\.0\.2\.7 ")


class ConfigurationFaultTests(SiteTestCase):
    """The server does not start; one line names the file and the value."""

    async def assert_fault(
        self, *named: str, ldapserver: str = "ldap.invalid", listen: str = "", **control: str | None
    ) -> None:
        server = self.new_server(
            ldapserver,
            f"server-{len(os.listdir(self.directory))}",
            control=control,
            listen=[listen] if listen else [],
        )
        await self.assert_refuses_to_start(server, *named)

    async def assert_refuses_to_start(self, server: Pop3Server, *named: str) -> None:
        finished: Finished = await server.refuse_to_start()
        self.assertGreater(finished.code, 0, finished.text)
        self.assertNotIn("Traceback", finished.text)
        last = finished.text.rstrip("\n").splitlines()[-1]
        for part in named:
            self.assertIn(part, last)
        for secret in self.secrets:
            self.assertNotIn(secret, finished.text)

    async def test_a_value_that_makes_no_sense(self) -> None:
        await self.together(
            self.assert_fault("control/ldapserver", "a:b:c", ldapserver="a:b:c"),
            self.assert_fault("control/ldapserver", "ldap:99999", ldapserver="ldap:99999"),
            self.assert_fault("control/ldaptimeout", "999999", ldaptimeout="999999"),
            self.assert_fault("control/ldaprebind", "2", ldaprebind="2"),
            self.assert_fault("control/ldapuid", "99", ldapuid="99"),
            self.assert_fault("control/ldapdefaultdotmode", "often", ldapdefaultdotmode="often"),
            self.assert_fault("control/ldapmessagestore", "var/mail", ldapmessagestore="var/mail"),
        )

    async def test_a_file_that_is_required_and_missing(self) -> None:
        await self.together(
            self.assert_fault("control/me", "ldapcluster", ldapcluster="1"),
            self.assert_fault("control/ldapserver", ldapserver="# none yet"),
        )

    async def test_a_file_that_cannot_be_read(self) -> None:
        # A directory is what root cannot read as a file either.
        server = self.new_server("ldap.invalid")
        (self.directory / "server" / "control" / "ldapbasedn").unlink()
        (self.directory / "server" / "control" / "ldapbasedn").mkdir()
        await self.assert_refuses_to_start(server, "control/ldapbasedn", "cannot be read")

    async def test_no_control_directory_at_all(self) -> None:
        server = self.new_server("ldap.invalid")
        shutil.rmtree(self.directory / "server" / "control")
        await self.assert_refuses_to_start(server, str(self.directory / "server" / "control"))

    async def test_an_endpoint_that_is_none(self) -> None:
        await self.together(
            self.assert_fault("nonsense:110", listen="nonsense:110"),
            self.assert_fault("tcp:pop3s-and-more", listen="tcp:pop3s-and-more"),
        )

    async def test_a_port_that_is_taken(self) -> None:
        with socket.create_server((HOST, 0)) as taken:
            port = taken.getsockname()[1]
            await self.assert_fault(str(port), listen=f"tcp:{port}:interface={HOST}")


class StoppingTests(SiteTestCase):
    async def test_sigterm_ends_it_in_order(self) -> None:
        self.user("joe")
        await self.start()
        await self.assert_serves("joe")
        child = self.server.child
        await self.server.stop()
        self.assertFalse(child.group_is_alive())

    async def test_sessions_that_are_open_do_not_keep_it(self) -> None:
        self.user("joe", messages=[MESSAGES["big"] * 8])
        await self.start()
        idle = await self.connect()
        reading = await self.connect(receive_buffer=4096)
        for connection in (idle, reading):
            await deferToThread(connection.log_in, "joe", PASSWORD)
        await deferToThread(reading.send, b"RETR 1\r\n")
        await deferToThread(reading.read_some, 1000)
        await self.server.stop()

    async def test_a_directory_that_hangs_does_not_keep_it(self) -> None:
        self.user("joe")
        await self.start()
        await self.assert_serves("joe")
        self.slapd.pause()
        connection = await self.connect()
        await deferToThread(connection.send, f"USER joe\r\nPASS {PASSWORD}\r\n".encode())
        await self.server.stop()


class LogTests(SiteTestCase):
    def line(self, *parts: str) -> str:
        """The one line of the log that has all these parts."""
        lines = [line for line in self.server.log.splitlines() if all(p in line for p in parts)]
        self.assertEqual(len(lines), 1, (parts, self.server.log))
        return lines[0]

    async def test_a_session_leaves_its_traces(self) -> None:
        self.user("joe", messages=[MESSAGES["plain"], MESSAGES["dots"]])
        await self.start()

        def session(pop: poplib.POP3) -> None:
            pop.retr(1)
            pop.dele(2)
            pop.quit()

        await self.in_session("joe", session)
        self.assertIn("messages=2", self.line("login ", "user=joe", f"peer={HOST}"))
        logout = self.line("logout ", "user=joe", f"peer={HOST}", "end=quit")
        for fact in ("retrieved=1", "deleted=1", "left=1"):
            self.assertIn(fact, logout)

    async def test_a_refusal_is_logged_with_its_true_reason(self) -> None:
        self.user("joe")
        await self.start()
        await self.refusal_of("joe", "wrong-password")
        await self.refusal_of("nobody", "wrong-password")
        self.assertIn("wrong password", self.line("refused ", "user=joe", f"peer={HOST}"))
        self.assertIn("no such user", self.line("refused ", "user=nobody", f"peer={HOST}"))

    async def test_a_connection_that_breaks_is_told_from_one_that_quits(self) -> None:
        self.user("joe")
        await self.start()
        await self.in_session("joe", poplib.POP3.stat)
        await wait_until(lambda: "logout " in self.server.log, 5, "the end in the log")
        self.assertNotIn("end=quit", self.line("logout ", "user=joe"))

    async def test_nobody_writes_lines_of_their_own(self) -> None:
        self.user("joe")
        await self.start()

        def session(connection: Conversation) -> None:
            for name in (b"joe\x1b[2J", b"joe\rlogin user=root", b"joe user=root peer=x", b"\xff"):
                connection.ask(b"USER " + name)
                connection.ask(b"PASS x")
                if name.endswith(b"peer=x"):
                    break

        await self.converse(session)
        await wait_until(lambda: self.server.log.count("refused ") == 3, 5, "three refusals")
        self.assertNotIn("\x1b", self.server.log)
        self.assertNotRegex(self.server.log, r"(?m)(^|\r)login ")
        self.assertNotIn("peer=x ", self.server.log)

    async def test_no_password_reaches_the_log_whatever_happens(self) -> None:
        # The complete log is searched for every password and every hash when a test ends.
        self.user("joe")
        self.user("malformed", value="{SSHA}not-at-all-base64")
        self.user("clear", value="a-clear-text-value")
        secret = "the-secret-of-a-careless-client"
        self.secrets.add(secret)
        await self.start()

        def careless(connection: Conversation) -> None:
            for line in ("PASS {}", "USER joe PASS {}", "{}", "AUTH PLAIN {}", "APOP joe {}"):
                connection.ask(line.format(secret).encode())
            connection.log_in("joe", PASSWORD)
            for line in ("PASS {}", "{}", "RETR {}"):
                connection.ask(line.format(secret).encode())

        await self.converse(careless)
        for user in ("joe", "malformed", "clear", "nobody"):
            self.assertEqual(await self.refusal_of(user, secret), WRONG)
        self.slapd.pause()
        abandoned = await self.connect()
        await deferToThread(abandoned.send, f"USER joe\r\nPASS {secret}\r\n".encode())
        abandoned.abort()
        self.slapd.kill()
        self.assertIn("SYS/TEMP", await self.refusal_of("joe", secret))


class DaemonTests(TestCase):
    """twistd without -n: what starts it must learn how that went."""

    timeout = 60

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="qmailldap-test-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        write_control(self.directory / "control", {"ldapserver": f"{HOST}:{unused_port()}"})
        # As whom it will run must be able to remove it again.
        if os.geteuid() == 0:
            identity = find_identity()
            os.chown(self.directory, identity.uid, identity.gid)
        self.pidfile = self.directory / "pid"
        self.addCleanup(self.kill)

    def kill(self) -> None:
        if self.pidfile.exists():
            os.kill(int(self.pidfile.read_text()), signal.SIGKILL)

    async def start(self, port: int) -> Finished:
        files = [f"--pidfile={self.pidfile}", f"--logfile={self.directory / 'log'}"]
        options = ["--control", str(self.directory / "control")]
        listen = ["--listen", f"tcp:{port}:interface={HOST}"]
        return await run(
            [*TWISTD, *files, "qmailldap-pop3", *options, *listen],
            20,
            environment=environment(),
            directory=self.directory,
        )

    async def test_it_leaves_a_daemon_that_listens_and_can_be_stopped(self) -> None:
        port = unused_port()
        started = await self.start(port)
        self.assertEqual(started.code, 0, started.text)
        greeting = await converse(port, lambda connection: connection.greeting)
        self.assertTrue(greeting.startswith(b"+OK "))
        os.kill(int(self.pidfile.read_text()), signal.SIGTERM)
        await wait_until(lambda: not self.pidfile.exists(), 10, "the end of the daemon")

    async def test_a_port_in_use_is_told_to_who_starts_it(self) -> None:
        with socket.create_server((HOST, 0)) as taken:
            port = taken.getsockname()[1]
            started = await self.start(port)
        self.assertNotEqual(started.code, 0)
        self.assertIn("--listen", started.text)
        # The daemon that ends tells its parent first.
        log, address = self.directory / "log", f"{HOST}:{port}"
        await wait_until(lambda: address in log.read_text(), 10, "the reason in the log")
        await wait_until(lambda: not self.pidfile.exists(), 10, "the end of the pid file")
