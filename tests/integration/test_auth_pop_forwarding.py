"""auth_pop for users whose mail another member keeps: the session goes on there, octet by octet."""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections.abc import Mapping
from typing import Any

from twisted.internet.threads import deferToThread

from . import clients
from .certificates import write_authority, write_certificate
from .chain import ChainTestCase
from .clients import Conversation
from .cluster import CLIENT, ScriptedTestCase, mail_host
from .hosts import NOBODY, require_root
from .mailboxes import BIG_MESSAGE, MESSAGES, brief, stuffed
from .members import Caller, Script
from .popup import Popup, handed_over, said_by_popup
from .ports import HOST, unused_port
from .process_table import Process, living_processes
from .processes import wait_until
from .scripts import TRUSTING, UNTIL_JOINED, UNTIL_PASS, UNTIL_USER, original, script
from .site import PASSWORD
from .test_forwarding_dovecot import DovecotTestCase

UNREACHABLE = 5


class ForwardingTestCase(ChainTestCase, ScriptedTestCase):
    """Tests of a chain that is the first member; `keep` makes others that follow a script."""

    def new_front(
        self, routes: Mapping[str, str] | None = None, *, name: str = "chain", **keywords: Any
    ) -> Popup:
        """A chain that has routes to others, by default to all that follow a script."""
        found = self.scripted_routes if routes is None else routes
        control = {
            "me": mail_host(1),
            "ldapcluster": "1",
            "pop3routes": "\n".join(f"{host}:{where}" for host, where in found.items()),
        }
        return self.new_chain(name, control=control, **keywords)

    async def join(self, popup: Popup, user: str, *, source: str = "") -> Conversation:
        """Log in; gives the client when the member has answered it."""
        connection = await deferToThread(Conversation, popup.port, source=source)
        self.addCleanup(connection.hang_up)
        octets = f"USER {user}\r\nPASS {PASSWORD}\r\n".encode()
        await deferToThread(connection.send, octets)
        answers = await deferToThread(lambda: [connection.line(), connection.line()])
        self.assertEqual(answers, [b"+OK ", b"+OK "])
        return connection

    async def ended(self, popup: Popup, user: str) -> int | None:
        """The exit code of the user's last auth_pop, which has left nothing behind."""
        login = popup.login_of(user)
        await wait_until(login.has_ended, 10, f"the end of {user}'s auth_pop")
        self.assertFalse(login.is_left_over())
        return login.code


class MemberTests(ForwardingTestCase):
    """The other member is the server itself."""

    async def test_a_session_is_the_same_as_at_the_member_by_a_socket_and_by_pipes(self) -> None:
        contents = [*MESSAGES.values()]
        self.user("joe", messages=contents, mailHost=mail_host(2))
        self.slapd = self.new_slapd()
        self.new_member(2, {}, {"ldapcluster": "1"})
        await self.start_members()
        popup = self.new_front({mail_host(2): self.address(2)})
        commands = [f"USER joe\r\nPASS {PASSWORD}\r\nCAPA\r\nSTAT\r\nLIST\r\nUIDL\r\n"]
        commands += [f"TOP {n} 2\r\nRETR {n}\r\n" for n in range(1, len(contents) + 1)]
        session = "".join([*commands, "RETR 999\r\nXYZZY\r\nNOOP\r\nRSET\r\nQUIT\r\n"]).encode()
        direct = await self.session_at(2, session)

        def at_popup(connection: Conversation) -> bytes:
            connection.send(session)
            return connection.rest()

        answers = await clients.converse(popup.port, at_popup)
        self.assertEqual(brief(answers), brief(direct))
        self.assertEqual(await self.ended(popup, "joe"), 0)

        streams = Streams(popup, "joe", session[session.index(b"CAPA") :])
        answers = b"+OK \r\n" + await deferToThread(streams.rest)
        self.assertEqual(brief(answers), brief(direct))
        self.assertEqual(await self.ended(popup, "joe"), 0)
        # What the client has not sent yet is the member's all the same.
        streams = Streams(popup, "joe", b"STAT\r\n", is_all=False)
        start = await deferToThread(streams.read, len(b"+OK \r\n+OK "))
        self.assertEqual(start, b"+OK \r\n+OK ")
        streams.send(b"DELE 1\r\nQUIT\r\n")
        self.assertTrue((await deferToThread(streams.rest)).endswith(b"+OK \r\n+OK \r\n"))
        self.assertEqual(await self.ended(popup, "joe"), 0)
        count = len(contents) - 1
        answers = await clients.converse(popup.port, at_popup)
        self.assertIn(b"\r\n+OK %d " % count, answers)
        await self.ended(popup, "joe")
        log = popup.login_of("joe").errors
        self.assertRegex(
            log, r"^auth_pop: login user=joe peer=127\.0\.0\.1 session=(\S+) mailhost="
        )
        self.assertRegex(log, r"(?m)^auth_pop: logout user=joe ")
        self.assertEqual(log.count("\n"), 2, log)


class ScriptTests(ForwardingTestCase):
    async def test_the_members_answer_is_the_clients(self) -> None:
        self.keep("original", original("user0", PASSWORD, [MESSAGES["dots"], BIG_MESSAGE]))
        self.keep("other password", original("user1", "another-one"))
        refusal = b"-ERR [IN-USE] \xe4 locked mailbox\r\n"
        self.keep("locked", script(*UNTIL_PASS, refusal))
        self.keep(
            "closes", script(*UNTIL_JOINED, Caller.hear, b"+OK half of it\r\nAnd", Caller.close)
        )
        unusable: dict[str, Script] = {
            "no POP3": script(b"220 mail.example.org ESMTP\r\n"),
            "ends": script(*UNTIL_USER, Caller.close),
        }
        for name, each in unusable.items():
            self.keep(name, each)
        self.user("down", mailHost="down.example.org")
        self.user("ourselves", mailHost="ourselves.example.org")
        await self.start_directory()
        popup = self.new_front()
        routes = {
            **self.scripted_routes,
            "down.example.org": f"{HOST}:{unused_port()}",
            "ourselves.example.org": f"{HOST}:{popup.port}",
        }
        file = self.directory / "chain" / "control" / "pop3routes"
        file.write_text("".join(f"{host}:{where}\n" for host, where in routes.items()))
        names = ["original", "other password", "locked", "closes"]
        found = await self.outcomes(popup, [self.logins[name] for name in names])
        answers = [(each.code, each.answer) for each in found.values()]
        shown = refusal.decode("utf-8", "replace")
        self.assertEqual(
            answers,
            [
                (0, f"+OK \r\n+OK 2 {len(MESSAGES['dots'] + BIG_MESSAGE)}\r\n+OK \r\n"),
                (0, "-ERR authorization failed\r\n"),
                (0, shown),
                (0, "+OK \r\n+OK half of it\r\nAnd"),
            ],
        )
        refused = [self.logins[name] for name in unusable] + ["down", "ourselves"]
        outcomes = await self.assert_refused(popup, dict.fromkeys(refused, UNREACHABLE))
        for user, outcome in outcomes.items():
            self.assertRegex(outcome.errors, f"refused user={user} .*reason=mailhost-unreachable")
        for member in self.scripted.values():
            self.assertEqual(member.faults, [])

    async def test_it_connects_without_rights_and_says_who_it_is_for(
        self,
    ) -> None:
        require_root()
        seen: list[Process] = []

        def look(caller: Caller) -> None:
            seen.extend(living_processes(self.popup.login_of("user0").pid))

        steps = (look, TRUSTING, *(Caller.hear, b"+OK \r\n") * 3, look, Caller.hear, look)
        self.keep("trusting", script(*steps, b"+OK \r\n", Caller.close))
        await self.start_directory()
        note = self.directory / "open" / "note"
        note.parent.mkdir()
        note.parent.chmod(0o777)
        tool = self.directory / "tool"
        tool.write_text(f'#!/bin/sh\necho "$USER $AUTHENTICATED" "$(id -u)" > {note}\n')
        tool.chmod(0o755)
        self.popup = self.new_front(options=("-d", str(tool)), before=["setpriv", "--groups=4,20"])
        connection = await self.join(self.popup, "user0", source=CLIENT)
        self.assertEqual(note.read_text(), f"user0 user0 {NOBODY[0]}\n")
        await deferToThread(connection.send, b"QUIT\r\n")
        self.assertEqual(await deferToThread(connection.rest), b"+OK \r\n")
        connection.hang_up()
        self.assertEqual(await self.ended(self.popup, "user0"), 0)
        (caller,) = self.scripted["trusting"].callers
        self.assertRegex(
            caller.received.splitlines()[0],
            rb"^XCLIENT ADDR=127\.0\.0\.77 PORT=[1-9]\d* SESSION=[\w-]{12} TTL=4$",
        )
        self.assertEqual(len(seen), 3)
        for process in seen:
            self.assertEqual((process.owner, process.groups, process.capabilities), (NOBODY, (), 0))

    async def test_whoever_leaves_ends_it_and_nothing_stays(self) -> None:
        for name in ("leaves", "resets", "half-closes", "is killed"):
            self.keep(name, script(*UNTIL_JOINED, Caller.hear, b"+OK \r\n", Caller.hear_all))
        self.keep("member resets", script(*UNTIL_JOINED, Caller.hear, Caller.reset))
        self.keep("member half-closes", script(*UNTIL_JOINED, Caller.half_close))
        await self.start_directory()
        popup = self.new_front()
        names = [*self.scripted]
        joined = await self.together(*(self.join(popup, self.logins[name]) for name in names))
        for name, connection in zip(names, joined, strict=True):
            user = self.logins[name]
            if not name.endswith("half-closes") or name == "half-closes":
                await deferToThread(connection.send, b"NOOP\r\n")
            if name == "leaves":
                connection.hang_up()
            elif name == "resets":
                connection.abort()
            elif name == "half-closes":
                connection.half_close()
                self.assertEqual(await deferToThread(connection.rest), b"+OK \r\n")
            elif name == "is killed":
                self.assertEqual(await deferToThread(connection.line), b"+OK ")
                os.kill(popup.login_of(user).pid, signal.SIGTERM)
                self.assertEqual(await deferToThread(connection.rest), said_by_popup(-15))
            else:
                self.assertEqual(await deferToThread(connection.rest), b"")
                # A client that does not notice would be waited for, for a minute.
                connection.hang_up()
            self.assertEqual(await self.ended(popup, user), -15 if name == "is killed" else 0, name)
        await self.assert_all_ended()

    async def test_pipes_end_as_a_socket_does(self) -> None:
        echo = script(*UNTIL_JOINED, Caller.hear, b"+OK \r\n", Caller.hear_all)
        for name in ("input ends", "output is closed", "both are closed"):
            self.keep(name, echo)
        self.keep("member closes", script(*UNTIL_JOINED, Caller.hear, b"+OK \r\n", Caller.close))
        await self.start_directory()
        popup = self.new_front()
        for name in self.scripted:
            streams = Streams(popup, self.logins[name], b"NOOP\r\n", is_all=name == "input ends")
            expected = b"+OK \r\n+OK \r\n"
            self.assertEqual(await deferToThread(streams.read, len(expected)), expected)
            if name in ("output is closed", "both are closed"):
                streams.close_output()
            if name == "both are closed":
                streams.close_input()
            if name in ("input ends", "member closes"):
                self.assertEqual(await deferToThread(streams.rest), b"")
            if name == "output is closed":
                streams.send(b"NOOP\r\n")
            self.assertEqual(await self.ended(popup, self.logins[name]), 0, name)
        await self.assert_all_ended()

    async def test_a_client_that_has_left_before_it_is_refused_is_no_fault(self) -> None:
        self.keep("locked", script(*UNTIL_PASS, b"-ERR locked mailbox\r\n"))
        await self.start_directory()
        popup = self.new_front()
        streams = Streams(popup, self.logins["locked"], b"")
        streams.close_output()
        self.assertEqual(await self.ended(popup, self.logins["locked"]), 0)
        self.assertIn("reason=member-refused", streams.login.errors)
        await self.assert_all_ended()

    async def test_a_client_that_has_reset_its_connection_meanwhile_is_one_that_has_left(
        self,
    ) -> None:
        self.keep("echo", script(*UNTIL_JOINED, Caller.hear_all))
        await self.start_directory()
        popup = self.new_front()
        with socket.create_server((HOST, 0)) as port:
            client = socket.create_connection(port.getsockname())
            server, _ = port.accept()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        number = server.fileno()
        handed = handed_over(self.logins["echo"], PASSWORD)
        login = popup.start(handed, {0: number, 1: number})
        server.close()
        self.assertEqual(await self.ended(popup, self.logins["echo"]), 0)
        self.assertRegex(login.errors, "logout user=.* end=client-lost")
        await self.assert_all_ended()


class EncryptedTests(DovecotTestCase, ChainTestCase):
    async def test_the_member_is_spoken_to_by_tls_where_the_site_wants_that(self) -> None:
        authority, certificate = self.directory / "authority.pem", self.directory / "member.pem"
        write_authority(authority, "The cluster's own")
        write_certificate(certificate, mail_host(5), authority=authority)
        mailbox = self.user("ann", messages=[MESSAGES["dots"]], mailHost=mail_host(5))
        dovecot = self.new_dovecot(
            "dovecot-5", {"ann": mailbox}, ssl="required", certificate=certificate
        )
        await self.start_directory()
        await dovecot.start()
        popup = self.new_chain(
            control={
                "me": mail_host(1),
                "ldapcluster": "1",
                "pop3routes": f"{mail_host(5)}:{dovecot.address}",
                "pop3clustertls": "2",
                "pop3clusterca": authority.read_text().partition("-----BEGIN PRIVATE")[0],
            }
        )
        # To be read while this is root still.
        (self.directory / "chain" / "control" / "pop3clusterca").chmod(0o600)
        outcome = await self.outcome(popup, "ann", commands="RETR 1\r\nQUIT\r\n")
        self.assertEqual(outcome.code, 0, outcome.errors)
        self.assertIn(b"\r\n".join(stuffed(MESSAGES["dots"])).decode(), outcome.answer)


class Streams:
    """A client by two pipes; ``octets`` are there before auth_pop is started."""

    def __init__(self, popup: Popup, user: str, octets: bytes, *, is_all: bool = True) -> None:
        reader, self._writer = os.pipe()
        self._reader, writer = os.pipe()
        os.write(self._writer, octets)
        if is_all:
            os.close(self._writer)
        self.login = popup.start(handed_over(user, PASSWORD), {0: reader, 1: writer})
        os.close(reader)
        os.close(writer)
        self._output = os.fdopen(self._reader, "rb", buffering=0)

    def send(self, octets: bytes) -> None:
        os.write(self._writer, octets)

    def read(self, count: int) -> bytes:
        octets = b""
        while len(octets) < count and (more := self._output.read(count - len(octets))):
            octets += more
        return octets

    def rest(self) -> bytes:
        with self._output:
            return self._output.read()

    def close_input(self) -> None:
        os.close(self._writer)

    def close_output(self) -> None:
        self._output.close()
