"""The log of real servers: as JSON wherever it goes, and each session by its id."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Sequence
from typing import Any

from qmailldap.log_lines import LINES

from . import server as server_module
from .clients import refusal_of
from .cluster import ClusterTestCase, mail_host
from .mailboxes import MESSAGES
from .server import Pop3Server
from .site import PASSWORD, SiteTestCase

_LIMIT = 10.0
_JSON = ("--log-format", "json")

# A mount namespace of its own, where /dev/log is a socket of the test.
_WITH_SYSLOG = """
set -e
for each in null zero random urandom; do
    touch "$0/$each"
    mount --bind "/dev/$each" "$0/$each"
done
mount --bind "$0" /dev
exec "$@"
"""

_TAC = """
import os
from twisted.application.service import Application
from qmailldap.service import Options, makeService

options = Options()
listen = f"--listen={os.environ['QMAILLDAP_LISTEN']}"
options.parseOptions(["--workers=2", "--log-format=json", listen])
application = Application("qmailldap-pop3")
makeService(options).setServiceParent(application)
"""

Line = dict[str, Any]


def parsed(log: str) -> list[Line]:
    """Each line, which is one object, with what every line has."""
    lines: list[Line] = []
    for text in log.splitlines():
        line = json.loads(text)
        assert {"time", "level", "source"} <= line.keys() and ("event" in line or "text" in line)
        lines.append(line)
    return lines


def of_session(lines: list[Line], session: str) -> list[str]:
    """The events of that session, in their order."""
    return [line["event"] for line in lines if line.get("session") == session]


class _Syslogd:
    """Takes what is sent to /dev/log of those who are started with ``before``."""

    def __init__(self, test: SiteTestCase) -> None:
        # The path of a socket is short.
        self._directory = tempfile.mkdtemp(prefix="qldap", dir="/tmp")
        test.addCleanup(shutil.rmtree, self._directory, ignore_errors=True)
        os.chmod(self._directory, 0o755)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        test.addCleanup(self._socket.close)
        self._socket.bind(f"{self._directory}/log")
        os.chmod(f"{self._directory}/log", 0o666)
        self._taken: list[str] = []
        # Few datagrams have room where nobody reads.
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    @property
    def before(self) -> list[str]:
        return ["unshare", "--mount", "sh", "-c", _WITH_SYSLOG, self._directory]

    def _read(self) -> None:
        while octets := self._socket.recv(100_000):
            self._taken.append(octets.decode().rstrip("\0\n"))

    def messages(self) -> list[tuple[int, str, str]]:
        """Priority, name and text of all that came, once there will be no more."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", f"{self._directory}/log")
        self._reading.join(_LIMIT)
        found = [re.fullmatch(r"<(\d+)>.{15} (.*?): (.*)", each) for each in self._taken]
        assert all(found), self._taken
        return [(int(each[1]), each[2], each[3]) for each in found if each]


class DestinationTests(SiteTestCase):
    timeout = 120

    def setUp(self) -> None:
        super().setUp()
        self.user("joe", messages=[MESSAGES["plain"]])
        self.slapd = self.new_slapd()
        self.servers = 0

    def server_of(self, *options: str, **more: Any) -> Pop3Server:
        self.servers += 1
        variables = {"LOGLEVEL": "255", **more.pop("variables", {})}
        return self.new_server(
            self.slapd.address,
            f"server-{self.servers}",
            options=options,
            variables=variables,
            **more,
        )

    async def used(self, server: Pop3Server) -> None:
        """Start it, log in once rightly and once not, and have it end."""
        await server.start()
        self.assertEqual(await refusal_of(server.port, "joe", PASSWORD), "accepted")
        self.assertNotEqual(await refusal_of(server.port, "joe", "wrong-one"), "accepted")
        # The line of the end of a session comes when its connection does.
        code = await server.child.stop()
        self.assertIn(code, (0, -signal.SIGTERM), server.child.last_lines())

    def assert_complete(self, lines: list[Line], workers: bool) -> None:
        """All that such a server has to tell, with nothing in it that is not documented."""
        (login,) = [line for line in lines if line.get("event") == "login"]
        self.assertEqual(
            (login["user"], login["messages"], login["tls"], login["level"]),
            ("joe", 1, "no", "info"),
        )
        events = of_session(lines, login["session"])
        self.assertEqual((events[0], events[-1]), ("connect", "logout"), events)
        self.assertEqual(events[1:-1], ["search", "found", "record", "proof", "account",
                                        "defaults", "login"])  # fmt: skip
        (refused,) = [line for line in lines if line.get("event") == "refused"]
        self.assertEqual(refused["reason"], "wrong-credentials")
        self.assertIn("proof", of_session(lines, refused["session"]))
        self.assertEqual("worker" in login, workers)
        self.assertTrue(any(line.get("text") == "Server Shut Down." for line in lines))
        documented = {line.event for line in LINES}
        for line in lines:
            self.assertIn(line.get("event"), documented | {None})

    async def test_standard_output_of_workers_and_a_file_by_the_tac_file(self) -> None:
        await self.slapd.start()
        # To where the test looks.
        log = self.directory / "server-1" / "server.log"
        tac = self.directory / "server.tac"
        tac.write_text(_TAC)
        self.patch(server_module, "TAC", tac)
        by_tac = self.server_of(twistd=["--logfile", str(log)], tac=True)
        server = self.server_of("--workers", "2", *_JSON)
        await self.together(self.used(by_tac), self.used(server))
        for each in (by_tac, server):
            self.assert_complete(parsed(each.log), workers=True)

    async def test_standard_error_and_the_journal(self) -> None:
        plain, journal = (
            self.server_of("--log", "stderr", *_JSON),
            self.server_of("--log", "journal", "--workers", "2"),
        )
        await self.slapd.start()
        await self.together(self.used(plain), self.used(journal))
        self.assert_complete(parsed(plain.log), workers=False)
        for line in journal.log.splitlines():
            self.assertRegex(line, r"\A<[2-7]>\[")
        self.assertRegex(
            journal.log, r"<6>\[qmailldap\.pop3#info\] login user=joe .* worker=[12]\n"
        )
        self.assertRegex(journal.log, r"<7>\[qmailldap\.checker#debug\] found user=joe ")

    async def test_syslog(self) -> None:
        syslogd, as_twistd_does = _Syslogd(self), _Syslogd(self)
        await self.slapd.start()
        ours = self.server_of("--log", "syslog", "--workers", "2", *_JSON, before=syslogd.before)
        theirs = self.server_of(
            *_JSON, before=as_twistd_does.before, twistd=["--syslog", "--prefix", "mx1"]
        )
        await self.together(self.used(ours), self.used(theirs))
        self.assert_syslog(syslogd, r"qmailldap-pop3\[\d+\]", facility=2, workers=True)
        self.assert_syslog(as_twistd_does, "mx1", facility=1, workers=False)

    def assert_syslog(self, syslogd: _Syslogd, ident: str, facility: int, workers: bool) -> None:
        messages = syslogd.messages()
        for priority, name, text in messages:
            self.assertRegex(name, rf"\A{ident}\Z")
            level = {"critical": 2, "error": 3, "warn": 4, "info": 6, "debug": 7}
            self.assertEqual(priority, 8 * facility + level[json.loads(text)["level"]])
        self.assert_complete(parsed("\n".join(text for *_, text in messages)), workers)

    async def test_what_cannot_be_is_said_at_the_start(self) -> None:
        faults: tuple[tuple[list[str], Sequence[str], str], ...] = (
            ([], ["--log", "nowhere"], "--log is stderr, syslog or journal, not 'nowhere'"),
            ([], ["--log-format", "xml"], "--log-format is text or json, not 'xml'"),
            (
                ["--logger", "twisted.logger.textFileLogObserver"],
                _JSON,
                "--log-format json: twistd's --logger says already how is logged",
            ),
        )
        servers = [self.server_of(*options, twistd=twistd) for twistd, options, _ in faults]
        # (Older twistds end with 0 where an option is wrong.)
        ended = await self.together(*(server.refuse_to_start() for server in servers))
        for finished, (*_, said) in zip(ended, faults, strict=True):
            self.assertIn(said, finished.text)


class ForwardingTests(ClusterTestCase):
    async def test_one_id_leads_through_both_members(self) -> None:
        self.user("joe", mailHost=mail_host(2), messages=[MESSAGES["plain"]])
        self.slapd = self.new_slapd()
        for number, trusted in ((1, ""), (2, "127.0.0.0/8")):
            control = {"pop3trusted": trusted} if trusted else {}
            self.new_member(number, self.routes(2), control, variables={"LOGLEVEL": "255"})
        await self.start_members()
        self.assertEqual(await self.refusal_at(1, "joe"), "accepted")
        for number in (1, 2):
            await self.in_log(number, r"\] logout user=joe ")
        (session,) = re.findall(r"\] login user=joe \S+ session=(\S+)", self.members[1].log)
        events = [self.events_of(number, session) for number in (1, 2)]
        self.assertEqual(
            events[0],
            ["connect", "search", "found", "record", "proof", "account", "addresses",
             "forwarding", "login", "logout"],
        )  # fmt: skip
        self.assertEqual(
            events[1],
            ["xclient", "search", "found", "record", "proof", "account", "defaults", "login",
             "logout"],
        )  # fmt: skip
        # What it was called before it was told the id leads to its first line.
        (before,) = re.findall(rf"\] xclient .* session={session} before=(\S+) ",
                               self.members[2].log)  # fmt: skip
        self.assertEqual(self.events_of(2, before), ["connect"])

    def events_of(self, number: int, session: str) -> list[str]:
        log = self.members[number].log
        return re.findall(rf"(?m)\] ([a-z]+) (?:.* )?session={re.escape(session)}(?= |$)", log)
