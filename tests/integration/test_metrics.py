"""--status with real processes: what is scraped, and what is said of the server's health."""

from __future__ import annotations

import os
import poplib
import signal
import socket
from collections.abc import Callable, Mapping, Sequence

import attrs
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from .certificates import write_certificate
from .cluster import ClusterTestCase, mail_host
from .hosts import NOBODY, require_root
from .mailboxes import MESSAGES
from .ports import HOST, unused_port
from .process_table import Process
from .processes import Finished, run
from .server import Pop3Server
from .site import PASSWORD, SiteTestCase

_LIMIT = 20.0
_PAUSE = 0.1

_CURL = ["curl", "-sS", "--max-time", "10"]


@attrs.frozen
class Scraped:
    """What was scraped at once: values by names without the prefix and the labels' values."""

    samples: Mapping[tuple[str, ...], float]

    def __getitem__(self, key: str | tuple[str, ...]) -> float:
        return self.samples[(key,) if isinstance(key, str) else key]

    def starts(self) -> set[float]:
        """When the workers were started, in seconds since the epoch."""
        name = "process_start_time_seconds"
        return {value for key, value in self.samples.items() if key[0] == name}

    def counters(self) -> dict[tuple[str, ...], float]:
        ends = ("_total", "_count", "_sum", "_bucket")
        return {key: value for key, value in self.samples.items() if key[0].endswith(ends)}


class StatusTestCase(SiteTestCase):
    """Servers with --status on a port of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.status = unused_port()
        self.options = ("--status", f"tcp:{self.status}:interface={HOST}")

    async def curl(self, path: str, *options: str) -> Finished:
        return await run([*_CURL, *options, f"http://{HOST}:{self.status}{path}"], _LIMIT)

    async def code(self, path: str) -> int:
        got = await self.curl(path, "-o", "/dev/null", "-w", "%{http_code}")
        return int(got.output or 0)

    async def scrape(self) -> Scraped:
        got = await self.curl("/metrics")
        self.assertEqual(got.code, 0, got.text)
        return Scraped(
            {
                (
                    sample.name.removeprefix("qmailldap_"),
                    *(sample.labels[label] for label in sorted(sample.labels)),
                ): sample.value
                for family in text_string_to_metric_families(got.text)
                for sample in family.samples
            }
        )

    async def scrape_until(self, is_so: Callable[[Scraped], bool], what: str) -> Scraped:
        """What was scraped when it was so for the first time: figures are of a moment ago."""
        from twisted.internet import reactor

        for _ in range(int(_LIMIT / _PAUSE)):
            scraped = await self.scrape()
            if is_so(scraped):
                return scraped
            await deferLater(reactor, _PAUSE)
        raise AssertionError(f"not in {_LIMIT} s: {what}, but {dict(scraped.samples)}")

    async def health_until(self, code: int) -> str:
        """What is said once it has come to this."""
        from twisted.internet import reactor

        for _ in range(int(_LIMIT / _PAUSE)):
            if await self.code("/healthz") == code:
                return (await self.curl("/healthz")).text
            await deferLater(reactor, _PAUSE)
        raise AssertionError(f"/healthz was not {code} in {_LIMIT} s")

    def workers(self, server: Pop3Server) -> list[Process]:
        return [each for each in server.processes if each.parent == server.child.pid]


def _retrieve_all(pop3: poplib.POP3) -> int:
    """Retrieve all messages, delete the first, and quit; gives the octets."""
    count = pop3.stat()[0]
    octets = sum(_octets(pop3.retr(number)[1]) for number in range(1, count + 1))
    pop3.dele(1)
    pop3.quit()
    return octets


def _octets(lines: Sequence[bytes]) -> int:
    # As they were sent: with the dots that were doubled.
    return sum(len(line) + line.startswith(b".") + 2 for line in lines)


class MetricsTests(StatusTestCase):
    async def test_what_clients_did_is_what_is_scraped_of_all_workers(self) -> None:
        require_root()
        self.user("joe", messages=[MESSAGES["plain"], MESSAGES["dots"]])
        self.user("off", accountStatus="disabled")
        certificate = self.directory / "server-certificate.pem"
        write_certificate(certificate)
        await self.start(
            *("--workers", "2", "--certificate", str(certificate), *self.options),
            ldapcleartext="0",
        )
        # Ports are open some time before anybody answers.
        await self.health_until(200)
        begun = await self.scrape_until(lambda seen: seen["workers"] == 2, "two workers")
        octets = 0
        for _ in range(2):
            octets += await self.in_session("joe", _retrieve_all)
        self.assertIn("authorization failed", await self.refusal_of("joe", "wrong"))
        self.assertIn("authorization failed", await self.refusal_of("nobody"))
        self.assertIn("account disabled", await self.refusal_of("off"))
        waiting = await self.connect()
        local = await self.connect()
        await deferToThread(local.log_in, "joe", PASSWORD)

        def is_all(seen: Scraped) -> bool:
            new = seen["sessions_begun_total"] - begun["sessions_begun_total"]
            return new >= 7 and seen["logins_total", "ok-local"] >= 3

        seen = await self.scrape_until(is_all, "all logins")
        expected = {
            ("logins_total", "ok-local"): 3,
            ("logins_total", "wrong-credentials"): 2,
            ("logins_total", "account-disabled"): 1,
            ("logins_total", "ok-forwarded"): 0,
            ("login_seconds_count",): 3,
            ("login_part_seconds_count", "maildir"): 3,
            ("login_part_seconds_count", "directory"): 6,
            ("login_part_seconds_count", "hash"): 5,
            # Besides that by which the test has seen that the port is open.
            ("sessions_begun_total",): begun["sessions_begun_total"] + 7,
            ("sessions", "waiting"): 1,
            ("sessions", "local"): 1,
            ("sessions", "forwarded"): 0,
            ("octets_sent_total",): octets,
            ("messages_sent_total",): 3,
            ("deletions_total",): 2,
            ("connections",): 2,
            ("workers",): 2,
            ("broker_up",): 2,
            ("directory_server_up", self.slapd.address): 1,
            ("directory_retries_total",): 0,
        }
        self.assertEqual({key: seen.samples.get(key) for key in expected}, expected)
        self.assertGreaterEqual(seen["keepers"], 1)
        self.assertGreater(seen["directory_seconds_count", self.slapd.address], 5)
        self.assertGreater(seen["process_cpu_seconds_total"], 0)
        self.assertGreater(seen["certificate_expiry_timestamp_seconds", str(certificate)], 1e9)
        for worker in "12":
            self.assertGreater(seen["process_resident_memory_bytes", worker], 1e6)
        # What is open must be readable by those who gave up root.
        network = {each.owner for each in self.workers(self.server)}
        self.assertEqual(network, {NOBODY})

        # And the same for those who want the other format.
        got = await self.curl("/metrics", "-H", "Accept: application/openmetrics-text")
        families = {family.name: family for family in openmetrics_families(got.text)}
        self.assertEqual(families["qmailldap_logins"].type, "counter")
        waiting.hang_up()

        # One that ends takes nothing of what was counted along.
        before = await self.scrape()
        os.kill(min(each.pid for each in self.workers(self.server)), signal.SIGKILL)
        # Not what the other worker has kept of a moment ago.
        after = await self.scrape_until(
            lambda seen: seen["workers"] == 2 and seen.starts() != before.starts(),
            "another worker",
        )
        less = {
            key: (value, after.samples.get(key))
            for key, value in before.counters().items()
            if after.samples.get(key, -1) < value
        }
        self.assertEqual(less, {})
        await self.in_session("joe", poplib.POP3.stat)
        await self.scrape_until(lambda seen: seen["logins_total", "ok-local"] == 4, "another login")

    async def test_health_follows_the_directory_and_nobody_is_named(self) -> None:
        self.user("joe")
        await self.start(*self.options)
        self.assertEqual(await self.health_until(200), "ok\n")
        await self.in_session("joe", poplib.POP3.stat)
        await self.while_many_hold_connections()
        await self.slapd.stop()
        # What is known of the directory is good for some seconds.
        await self.assert_nobody_is_named()
        self.assertEqual(await self.health_until(503), "no directory server answers\n")
        seen = await self.scrape_until(
            lambda seen: seen["directory_server_up", self.slapd.address] == 0, "it is down"
        )
        # Nobody has logged in meanwhile.
        self.assertEqual(seen["logins_total", "ok-local"], 2)
        await self.slapd.start()
        await self.health_until(200)

    async def assert_nobody_is_named(self) -> None:
        for path in ("/", "/metrics", "/healthz", "/other"):
            got = await self.curl(path, "-i")
            self.assertNotIn("joe", got.text)
            self.assertNotIn("Twisted", got.text.replace("twisted=", ""))
            for secret in self.secrets:
                self.assertNotIn(secret, got.text)
        for method in ("POST", "PUT", "DELETE"):
            got = await self.curl("/metrics", "-X", method, "-o", "/dev/null", "-w", "%{http_code}")
            self.assertEqual(got.text, "405")

    async def while_many_hold_connections(self) -> None:
        """They do no harm."""
        held = []
        for _ in range(60):
            connection = socket.create_connection((HOST, self.status), _LIMIT)
            self.addCleanup(connection.close)
            connection.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
            held.append(connection)
        await self.assert_serves("joe")
        for connection in held:
            connection.close()
        self.assertEqual(await self.health_until(200), "ok\n")


class ForwardingTests(ClusterTestCase, StatusTestCase):
    async def test_forwarded_sessions_are_counted_by_their_member(self) -> None:
        self.user("far", mailHost=mail_host(2))
        self.user("lost", mailHost=mail_host(3))
        self.slapd = self.new_slapd()
        routes = {**self.routes(2), mail_host(3): f"{HOST}:{unused_port()}"}
        for number in (1, 2):
            self.new_member(number, routes)
        first = self.members[1]
        first._options = self.options
        await self.start_members()
        connection = await self.connect_to(1)
        await deferToThread(connection.log_in, "far", PASSWORD)
        self.assertIn("mailhost is unreachable", await self.refusal_at(1, "lost"))
        seen = await self.scrape_until(
            lambda seen: seen["logins_total", "mailhost-unreachable"] == 1, "all logins"
        )
        expected = {
            ("logins_total", "ok-forwarded"): 1,
            ("forwarded_total", mail_host(2)): 1,
            ("forward_failures_total", mail_host(3)): 1,
            ("forwarded_sessions", mail_host(2)): 1,
            ("sessions", "forwarded"): 1,
            ("sessions", "waiting"): 0,
            ("login_part_seconds_count", "forward"): 1,
        }
        self.assertEqual({key: seen.samples.get(key) for key in expected}, expected)
        await deferToThread(connection.ask, b"QUIT")
        connection.hang_up()
        seen = await self.scrape_until(
            lambda seen: seen["forwarded_sessions", mail_host(2)] == 0, "the end"
        )
        self.assertGreater(seen["forwarded_octets_total", "sent"], 0)
