"""Dovecot in the cluster: as the member that keeps the mail, and as the front."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .certificates import write_authority, write_certificate
from .clients import Conversation, converse
from .cluster import CLIENT, UNREACHABLE, ClusterTestCase, mail_host
from .dovecot import Dovecot
from .hosts import require_root
from .mailboxes import MESSAGES, Maildir, brief
from .site import PASSWORD
from .users import Owner

ANN: Owner = (21001, 22001)
BOB: Owner = (21002, 22002)

DOVECOTS = "127.0.0.9"
"""The address of Dovecots: from another one they take a connection for no local one."""


class DovecotTestCase(ClusterTestCase):
    def setUp(self) -> None:
        require_root()
        super().setUp()
        self.dovecots: list[Dovecot] = []
        self.addCleanup(self.end_dovecots)

    def new_dovecot(self, name: str, *mailboxes: Mapping[str, Maildir], **options: Any) -> Dovecot:
        """A Dovecot, which `start_members` is to start; the arguments are its own."""
        dovecot = Dovecot(self.directory / name, PASSWORD, *mailboxes, host=DOVECOTS, **options)
        self.dovecots.append(dovecot)
        return dovecot

    async def start_members(self) -> None:
        dovecots = (dovecot.start() for dovecot in self.dovecots)
        await self.together(super().start_members(), *dovecots)

    async def end_dovecots(self) -> None:
        await self.together(*(dovecot.stop() for dovecot in self.dovecots))
        for dovecot in self.dovecots:
            self.assertNotRegex(dovecot.log, "(Error|Fatal|Panic):")
            for secret in self.secrets:
                self.assertNotIn(secret, dovecot.log)

    def session(self, user: str, *commands: str) -> bytes:
        lines = (f"USER {user}", f"PASS {PASSWORD}", *commands, "QUIT")
        return "".join(f"{line}\r\n" for line in lines).encode()

    async def session_with(self, dovecot: Dovecot, octets: bytes, source: str = "") -> bytes:
        """As `session_at`, of a Dovecot."""

        def session(connection: Conversation) -> bytes:
            connection.send(octets)
            return connection.rest()

        return await converse(dovecot.port, session, host=dovecot.host, source=source)


class MemberTests(DovecotTestCase):
    async def test_its_users_are_served_as_by_itself_and_it_is_told_for_whom(self) -> None:
        contents = [*MESSAGES.values()]
        contents.remove(b"")  # Which Dovecot takes for one that is still being delivered.
        mailboxes = {
            user: self.user(user, owner=owner, messages=contents, mailHost=mail_host(number))
            for user, owner, number in (("ann", ANN, 8), ("bob", BOB, 9))
        }
        self.user("stale", mailHost=mail_host(9), password="not-known-to-dovecot")
        names = {user: mailbox.new() for user, mailbox in mailboxes.items()}
        trusting = self.new_dovecot("trusting", mailboxes, trusted="127.0.0.0/8")
        other = self.new_dovecot("other", mailboxes)
        routes = {mail_host(8): trusting.address, mail_host(9): other.address}
        self.slapd = self.new_slapd()
        self.new_member(1, routes)
        await self.start_members()

        count = len(contents)
        commands = ["CAPA", "STAT", "LIST", "UIDL"]
        for number in range(1, count + 1):
            commands += [f"TOP {number} 2", f"RETR {number}"]
        for user, dovecot, client in (("ann", trusting, CLIENT), ("bob", other, "127.0.0.1")):
            session = self.session(user, *commands, "DELE 1", "RSET", "RETR 999")
            answers = await self.session_at(1, session, source=CLIENT)
            direct = await self.session_with(dovecot, session)
            # What the front says to USER is its own.
            self.assertEqual(
                brief(answers.partition(b"\r\n")[2]), brief(direct.partition(b"\r\n")[2])
            )
            unique_ids = [b"%d %b" % (n, name.encode()) for n, name in enumerate(names[user], 1)]
            self.assertIn(b"\r\n" + b"\r\n".join(unique_ids) + b"\r\n.\r\n", answers)
            begun = await self.in_log(
                1, rf" login user={user} peer={CLIENT} session=(\S+) mailhost=.*{dovecot.address} "
            )
            self.assertRegex(dovecot.log, rf"Login: user=<{user}>, rip={client}, ")
            self.assertEqual(f"session=<{begun[1]}>" in dovecot.log, dovecot is trusting)
        # Its refusal in its own words.
        refusal = await self.refusal_at(1, "stale", "not-known-to-dovecot")
        self.assertEqual(refusal, "-ERR [AUTH] Authentication failed.")
        await self.in_log(1, "refused user=stale .*reason=member-refused .*Authentication failed")
        # And mail that is deleted through the front is gone.
        await self.session_at(1, self.session("bob", "DELE 1", "DELE 3"))
        self.assertEqual(len(mailboxes["bob"].contents()), count - 2)
        self.assertEqual(len(mailboxes["ann"].contents()), count)

    async def test_tls_is_spoken_as_pop3clustertls_says(self) -> None:
        authority, right, other, stranger = (
            self.directory / f"{name}.pem" for name in ("authority", "right", "other", "stranger")
        )
        write_authority(authority, "The cluster's own")
        write_certificate(right, mail_host(5), mail_host(6), authority=authority)
        write_certificate(other, mail_host(99), authority=authority)
        write_certificate(stranger, mail_host(8))
        public = authority.read_text().partition("-----BEGIN PRIVATE")[0]
        kinds: dict[int, dict[str, Any]] = {
            5: {"ssl": "required", "certificate": right},
            6: {"ssl": "yes", "certificate": right, "trusted": "127.0.0.0/8"},
            7: {"ssl": "yes", "certificate": other},
            8: {"ssl": "yes", "certificate": stranger},
            9: {},
        }
        dovecots = {}
        for number, kind in kinds.items():
            mailbox = self.user(
                f"user{number}", messages=[MESSAGES["dots"]], mailHost=mail_host(number)
            )
            dovecots[number] = self.new_dovecot(
                f"dovecot-{number}", {f"user{number}": mailbox}, **kind
            )
        routes = {mail_host(number): each.address for number, each in dovecots.items()}
        self.slapd = self.new_slapd()
        self.new_member(1, routes)
        self.new_member(2, routes, {"pop3clustertls": "1"})
        self.new_member(3, routes, {"pop3clustertls": "2", "pop3clusterca": public})
        await self.start_members()
        # What the front says of those that it does not log in at, or how the member was spoken to.
        for front, number, expected in (
            (1, 5, "Plaintext authentication disallowed"),
            (1, 6, "secured"),
            (1, 9, ""),
            (2, 5, "TLS"),
            (2, 6, "TLS"),
            (2, 7, "TLS"),
            (2, 8, "TLS"),
            (2, 9, ""),
            (3, 5, "TLS"),
            (3, 6, "TLS"),
            (3, 7, "its certificate is for"),
            (3, 8, "of no authority"),
            (3, 9, "speaks no TLS"),
        ):
            dovecot, user = dovecots[number], f"user{number}"
            logged = len(re.findall("Login: ", dovecot.log))
            session = self.session(user, "RETR 1")
            answers = await self.session_at(front, session, source=CLIENT)
            if expected in ("", "secured", "TLS"):
                self.assertEqual(answers.count(b"+OK"), 4, (front, number, answers))
                logins = re.findall(rf"Login: user=<{user}>, rip=(.*?),.*>,? ?(\w*)", dovecot.log)
                client = CLIENT if number == 6 else "127.0.0.1"
                self.assertEqual(logins[logged:], [(client, expected)], (front, number))
            else:
                self.assertIn(UNREACHABLE.encode(), answers, (front, number))
                await self.in_log(
                    front, rf"refused user={user} .*=mailhost-unreachable detail=.*{expected}"
                )
                self.assertEqual(len(re.findall("Login: ", dovecot.log)), logged)


class FrontTests(DovecotTestCase):
    async def test_it_is_believed_for_whom_it_speaks_where_that_is_wished(self) -> None:
        homes = {"ann": 1, "bob": 2, "cat": 3}
        contents = [MESSAGES["plain"], MESSAGES["dots"]]
        for user, number in homes.items():
            self.user(user, messages=contents, mailHost=mail_host(number))
        # Cat's sessions go by way of the second member.
        fronts = {"ann": self.address(1), "bob": self.address(2), "cat": self.address(2)}
        front = self.new_dovecot("front", {}, proxied=fronts)
        self.slapd = self.new_slapd()
        for number in homes.values():
            control = {} if number == 1 else {"pop3trusted": "127.0.0.1"}
            self.new_member(number, self.routes(3), control)
        await self.start_members()
        for user, home in homes.items():
            session = self.session(user, "STAT", "UIDL", "RETR 2", "TOP 1 1")
            direct = await self.session_at(home, session)
            answers = await self.session_with(front, session, CLIENT)
            # It has its own answer to USER.
            self.assertEqual(answers.partition(b"\r\n")[2], direct.partition(b"\r\n")[2])
        proxied = dict(re.findall(r"proxy.*user=<(\w+)>.*session=<(\S+)>", front.log))
        for user, number, peer in (
            ("ann", 1, "127.0.0.1"),
            ("bob", 2, CLIENT),
            ("cat", 2, CLIENT),
            ("cat", 3, CLIENT),
        ):
            session_id = r"\S+" if number == 1 else re.escape(proxied[user])
            await self.in_log(number, f" login user={user} peer={peer} session={session_id} ")
