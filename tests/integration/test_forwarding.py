"""Sessions of users whose mail another member keeps: the same as at that member itself."""

from __future__ import annotations

import poplib
import re
import socket
import ssl

from twisted.internet.threads import deferToThread

from . import clients
from .certificates import write_certificate
from .clients import Conversation
from .cluster import CLIENT, ClusterTestCase, mail_host
from .hosts import require_root
from .mailboxes import BIG_MESSAGE, MESSAGES, Maildir, as_lines, brief, stuffed
from .members import ScriptedMember
from .ports import HOST, unused_port
from .scripts import original
from .site import PASSWORD
from .users import OWNER, Owner

OWNERS: dict[str, Owner] = {"ann": (21001, 22001), "bob": (21002, 22002), "cat": (21003, 22003)}
WRONG = "-ERR [AUTH] authorization failed"
LOGIN = f"USER joe\r\nPASS {PASSWORD}\r\n".encode()


def whole_session(user: str, count: int) -> bytes:
    """The commands of a session that asks for everything, of so many messages."""
    commands = [f"USER {user}", f"PASS {PASSWORD}", "CAPA", "STAT", "LIST", "UIDL", "LAST"]
    for number in range(1, count + 1):
        commands += [f"LIST {number}", f"UIDL {number}", f"TOP {number} 2", f"RETR {number}"]
    commands += ["RETR 999", "XYZZY", "NOOP", "LAST", "RSET", "QUIT"]
    return "".join(f"{command}\r\n" for command in commands).encode()


class ThreeMembersTests(ClusterTestCase):
    """Ann, bob and cat have their mail at a member each, and files of other owners."""

    def setUp(self) -> None:
        require_root()
        super().setUp()
        for number, (user, owner) in enumerate(OWNERS.items(), 1):
            contents = [*MESSAGES.values()]
            self.user(user, owner=owner, messages=contents, mailHost=mail_host(number))

    async def test_every_front_serves_every_user_octet_by_octet_as_the_member_itself(self) -> None:
        # The name of the host is compared without case.
        self.user("dan", messages=[MESSAGES["plain"]], mailHost=mail_host(3).upper())
        await self.start_cluster(3, {"pop3trusted": "127.0.0.0/8"})
        everybody = [("ann", 1), ("bob", 2), ("cat", 3), ("dan", 3)]
        for user, home in everybody:
            count = 1 if user == "dan" else len(MESSAGES)
            session = whole_session(user, count)
            direct = await self.session_at(home, session)
            self.assertEqual(len(re.findall(rb"(?m)^\+OK ", direct)), 4 * count + 11, direct[:200])
            for front in {1, 2, 3} - {home}:
                answers = await self.session_at(front, session, source=CLIENT)
                self.assertEqual(brief(answers), brief(direct), (user, front))
                await self.assert_logged(front, home, user, session, direct)

    async def assert_logged(
        self, front: int, home: int, user: str, session: bytes, answers: bytes
    ) -> None:
        """Both have logged the session, under one name, and the front how it went."""
        client = rf"user={user} peer={re.escape(CLIENT)}"
        name = rf"mailhost=(?i:{re.escape(mail_host(home))})"
        begun = await self.in_log(
            front, rf" login {client} session=(\S+) {name} member={self.address(home)} method=pass "
        )
        sent = len(answers) - len(b"+OK \r\n")  # The answer to USER is the front's.
        received = len(session) - session.index(b"CAPA")
        await self.in_log(
            front,
            rf" logout {client} session={begun[1]} end=member-closed {name} seconds=\d+\.\d"
            rf" sent={sent} received={received}\n",
        )
        await self.in_log(home, rf" login {client} session={begun[1]} messages=")
        await self.in_log(home, rf" logout {client} session={begun[1]} end=quit ")


class TwoMembersTests(ClusterTestCase):
    """Joe has his mail at the second member, and comes to the first."""

    async def start_with(self, *contents: bytes) -> Maildir:
        maildir = self.user("joe", messages=contents, mailHost=mail_host(2))
        self.user("ann", mailHost=mail_host(1))
        await self.start_cluster(2)
        return maildir

    async def test_mail_programs_fetch_and_delete(self) -> None:
        contents = [MESSAGES["plain"], MESSAGES["dots"], MESSAGES["8-bit"], BIG_MESSAGE]
        maildir = await self.start_with(*contents)
        names = maildir.new()

        def session(pop: poplib.POP3) -> None:
            for number, content in enumerate(contents, 1):
                self.assertEqual(brief(b"\n".join(pop.retr(number)[1])), _shown(content))
            pop.dele(1)
            self.assertEqual(pop.stat()[0], 3)
            self.assertEqual(len(maildir.contents()), 4)
            pop.quit()

        await self.in_session("joe", session)
        self.assertEqual(maildir.cur(), [name + ":2," for name in names[1:]])

        for path, options, expected in (
            ("", ("--request", "UIDL"), [b"%d %b" % (n, names[n].encode()) for n in (1, 2, 3)]),
            ("1", (), as_lines(MESSAGES["dots"])),
            ("1", ("--request", "DELE", "--list-only"), []),
        ):
            finished = await clients.curl(self.port, "joe", PASSWORD, path, *options)
            self.assertEqual((finished.code, as_lines(finished.output)), (0, expected))
        self.assertEqual(maildir.cur(), [name + ":2," for name in names[2:]])
        finished = await clients.curl(self.port, "joe", "wrong")
        self.assertEqual(finished.code, 67, finished.text)  # CURLE_LOGIN_DENIED

        place = self.directory / "fetchmail"
        for keyword, expected in (("keep", contents[2:]), ("fetchall", contents[2:])):
            fetched = await clients.fetchmail(place, self.port, "joe", PASSWORD, keyword)
            self.assertEqual(fetched.finished.code, 0, fetched.finished.text)
            self.assertEqual(list(map(brief, fetched.messages)), list(map(brief, expected)))
        self.assertEqual(maildir.contents(), {})

    async def test_connections_end_in_every_way_as_at_the_member_itself(self) -> None:
        maildir = await self.start_with(MESSAGES["plain"], MESSAGES["dots"], BIG_MESSAGE * 16)
        before = maildir.contents()
        # In the middle of a message, and with a message marked: nothing is deleted.
        for way_out in (Conversation.hang_up, Conversation.abort):
            connection = await self.connect_to(1, receive_buffer=4096)
            await deferToThread(connection.log_in, "joe", PASSWORD)
            await deferToThread(connection.send, b"DELE 1\r\nRETR 3\r\n")
            await deferToThread(connection.read_some, 10_000)
            way_out(connection)
        for number in (1, 2):
            await self.in_log(number, "(?s)(logout user=joe .*){2}", 10)
        self.assertEqual(maildir.contents(), before)
        # The client closes its side: what it asked for before is answered.
        answers = await self.half_closed(LOGIN + b"DELE 1\r\nRETR 2\r\n")
        self.assertEqual(answers[:4], [b"+OK "] * 4)
        self.assertEqual(answers[4:], [*stuffed(MESSAGES["dots"]), b"."])
        self.assertEqual(maildir.contents(), before)
        self.assertEqual(await self.half_closed(LOGIN), [b"+OK "] * 2)
        answers = await self.half_closed(LOGIN + b"DELE 1\r\nDELE 3\r\nQUIT\r\n")
        self.assertEqual(answers, [b"+OK "] * 5)
        self.assertEqual([*maildir.contents().values()], [MESSAGES["dots"]])
        # An octet a packet, and commands behind the end, which nobody answers.
        connection = await self.connect_to(1)
        session = LOGIN + b"RETR 1\r\nDELE 1\r\nQUIT\r\nSTAT\r\n"
        await deferToThread(connection.send_slowly, session, 0.001)
        answers = as_lines(await deferToThread(connection.rest))
        self.assertEqual(
            answers, [b"+OK "] * 3 + [*stuffed(MESSAGES["dots"]), b"."] + [b"+OK "] * 2
        )
        self.assertEqual(maildir.contents(), {})

    async def half_closed(self, octets: bytes) -> list[bytes]:
        """The answers to all that a client sends before it closes its side."""

        def session(connection: Conversation) -> bytes:
            connection.send(octets)
            connection.half_close()
            return connection.rest()

        return as_lines(await self.converse(session))

    async def test_a_thousand_commands_in_one_packet_are_answered_in_order(self) -> None:
        await self.start_with(MESSAGES["dots"])
        count = 2_500  # More than the front would hold of a session of its own.
        commands = b"STAT\r\nXYZZY\r\nRETR 1\r\nUIDL 1\r\n" * count + b"QUIT\r\n"
        answers = as_lines(await self.session_at(1, LOGIN + commands))
        one = answers[2 : 2 + (len(answers) - 3) // count]
        self.assertEqual(one[1:3], [b"-ERR unimplemented", b"+OK "])
        self.assertEqual(one[3:-1], [*stuffed(MESSAGES["dots"]), b"."])
        self.assertEqual(answers, [b"+OK "] * 2 + one * count + [b"+OK "])

    async def test_a_front_that_is_stopped_or_killed_ends_its_sessions_and_no_mail(self) -> None:
        maildir = await self.start_with(MESSAGES["plain"])
        front = self.members[1]
        stopped = b"-ERR [SYS/TEMP] the server is being stopped, try again\r\n"
        for way, told in (("stopped", stopped), ("killed", b"")):
            connection = await self.connect_to(1)
            await deferToThread(connection.log_in, "joe", PASSWORD)
            await deferToThread(connection.ask, b"DELE 1")
            if way == "stopped":
                await front.stop()
                await front.start()
            else:
                front.kill()
            self.assertEqual(await deferToThread(connection.rest), told)
        await self.in_log(2, "(?s)(logout user=joe .*end=disconnected.*){2}")
        self.assertEqual([*maildir.contents().values()], [MESSAGES["plain"]])


class ListeningTests(ClusterTestCase):
    """Clients that do not come to the front by plain TCP."""

    async def test_they_come_by_tls_or_a_proxy(self) -> None:
        contents = [*MESSAGES.values(), BIG_MESSAGE * 8]
        self.user("joe", messages=contents, mailHost=mail_host(2))
        file = self.directory / "cert.pem"
        write_certificate(file)
        by_tls, by_proxy = unused_port(), unused_port()
        self.slapd = self.new_slapd()
        listen = [
            f"ssl:{by_tls}:interface={HOST}:privateKey={file}:certKey={file}",
            f"haproxy:tcp:{by_proxy}:interface={HOST}",
        ]
        self.new_member(1, self.routes(2), listen=listen)
        self.new_member(2, self.routes(2), {"pop3trusted": HOST})
        await self.start_members()
        session = whole_session("joe", len(contents))
        direct = await self.session_at(2, session)
        context = ssl.create_default_context(cafile=file)

        def tls_session() -> bytes:
            plain = socket.create_connection((HOST, by_tls), 20)
            # An end of the stream that TLS knows nothing of is an error.
            with context.wrap_socket(
                plain, server_hostname="localhost", suppress_ragged_eofs=False
            ) as connection:
                connection.sendall(session)
                return _all_of(connection)

        def proxied_session() -> bytes:
            with socket.create_connection((HOST, by_proxy), 20) as connection:
                connection.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 5600 110\r\n" + session)
                return _all_of(connection)

        for function in (tls_session, proxied_session):
            greeting, _, answers = (await deferToThread(function)).partition(b"\r\n")
            self.assertTrue(greeting.startswith(b"+OK "))
            self.assertEqual(brief(answers), brief(direct))
        for number in self.members:
            await self.in_log(number, r" login user=joe peer=192\.0\.2\.7 ")


class DefaultsTests(ClusterTestCase):
    async def test_what_a_record_leaves_out_the_member_knows_and_the_front_need_not(self) -> None:
        maildir = self.user(
            "joe",
            messages=[MESSAGES["plain"]],
            mailHost=mail_host(2),
            homeDirectory=None,
            mailMessageStore="0",
            qmailUID=None,
            qmailGID=None,
        )
        uid, gid = OWNER
        store = str(maildir.path.parent.parent)
        self.slapd = self.new_slapd()
        self.new_member(1, self.routes(2))
        files = {"ldapuid": str(uid), "ldapgid": str(gid), "ldapmessagestore": store}
        self.new_member(2, self.routes(2), files)
        await self.start_members()
        for front in self.members:
            answers = await self.session_at(front, LOGIN + b"STAT\r\nQUIT\r\n")
            self.assertIn(b"\r\n+OK 1 ", answers)


class RefusalTests(ClusterTestCase):
    """Whoever has not proved a password is no concern of the member."""

    async def test_who_may_not_log_in_is_refused_by_the_front_alone(self) -> None:
        self.user("joe", mailHost=mail_host(9))
        self.user("off", mailHost=mail_host(9), accountStatus="disabled")
        self.user("odd", mailHost=mail_host(9), password="p\N{EURO SIGN} \\ss  word ")
        member = ScriptedMember(original("joe", PASSWORD, [MESSAGES["dots"]]))
        self.addCleanup(member.close)
        self.slapd = self.new_slapd()
        # The password is proved by hash and by rebind.
        for number in (1, 2):
            self.new_member(number, {mail_host(9): member.address}, {"ldaprebind": str(number - 1)})
        await self.start_members()
        for number in self.members:
            for user, password, refusal in (
                ("joe", "wrong", WRONG),
                ("joe", "", WRONG),
                ("nobody", PASSWORD, WRONG),
                ("off", "wrong", WRONG),
                ("off", PASSWORD, "-ERR [AUTH] account disabled"),
                ("odd", "p\N{EURO SIGN} \\ss  word", WRONG),
            ):
                self.assertEqual(await self.refusal_at(number, user, password), refusal)
            self.assertEqual(member.callers, [])
            answers = await self.session_at(number, LOGIN + b"RETR 1\r\nQUIT\r\n")
            self.assertEqual(answers.count(b"+OK \r\n"), 4)
            # Every octet of the password is passed on.
            odd = "p\N{EURO SIGN} \\ss  word "
            self.assertEqual(await self.refusal_at(number, "odd", odd), "-ERR authorization failed")
            self.assertEqual(len(member.callers), 2)
            sent = member.callers[1].received
            self.assertEqual(sent, f"USER odd\r\nPASS {odd}\r\n".encode())
            await self.in_log(
                number, r"refused user=odd peer=\S+ session=\S+ reason=member-refused detail=.*fail"
            )
            member.callers.clear()
        self.assertEqual(member.faults, [])


def _shown(content: bytes) -> bytes:
    return brief(b"\n".join(as_lines(content)))


def _all_of(connection: socket.socket) -> bytes:
    received = bytearray()
    while octets := connection.recv(65536):
        received += octets
    return bytes(received)
