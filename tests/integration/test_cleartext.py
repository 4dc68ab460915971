"""Passwords that the directory has in clear text: logins with them, and answers to challenges."""

from __future__ import annotations

import base64
import hashlib
import hmac
import poplib
import re

from twisted.internet.threads import deferToThread

from . import clients
from .chain import ChainTestCase
from .clients import Conversation
from .cluster import ClusterTestCase, mail_host
from .hosts import require_root
from .mailboxes import MESSAGES
from .site import PASSWORD, SiteTestCase
from .users import md5_value, ssha_value

WRONG = b"-ERR [AUTH] authorization failed"
DES = "abNANd1rDfiNc"
"""crypt(3) of "secret"."""


def cram_md5(user: str, password: str, challenge: bytes) -> bytes:
    """The client's line, for the line of the challenge."""
    octets = base64.b64decode(challenge.removeprefix(b"+ "), validate=True)
    digest = hmac.new(password.encode(), octets, "md5").hexdigest()
    return base64.b64encode(f"{user} {digest}".encode())


def log_in_by_cram_md5(connection: Conversation, user: str, password: str) -> bytes:
    challenge = connection.ask(b"AUTH CRAM-MD5")
    return connection.ask(cram_md5(user, password, challenge))


def log_in_by_apop(connection: Conversation, user: str, password: str) -> bytes:
    (challenge,) = re.findall(rb"<[^<>]+@[^<>]+>", connection.greeting)
    digest = hashlib.md5(challenge + password.encode()).hexdigest()
    return connection.ask(f"APOP {user} {digest}".encode())


def capabilities(connection: Conversation) -> list[bytes]:
    assert connection.ask(b"CAPA").startswith(b"+OK")
    return connection.listing()


class ClearTextTests(SiteTestCase):
    def declare(self) -> None:
        mail = [MESSAGES["plain"]]
        self.user("named", value=f"{{CLEARTEXT}}{PASSWORD}", messages=mail)
        self.user("bare", value=PASSWORD, messages=mail)
        self.user("hash", value=ssha_value(PASSWORD), messages=mail)
        self.user("bare-hash", value=DES, password="secret")
        self.user("lost-scheme", value=md5_value(PASSWORD).removeprefix("{MD5}"))

    async def test_where_the_site_has_asked_for_it_it_opens_and_answers(self) -> None:
        self.declare()
        await self.start(ldapcleartext="2")
        for user in ("named", "bare", "hash"):
            self.assertEqual(await self.refusal_of(user), "accepted")
        for log_in in (log_in_by_cram_md5, log_in_by_apop):
            for user in ("named", "bare"):
                answer = await self.converse(lambda c, u=user, f=log_in: f(c, u, PASSWORD))  # type: ignore[misc]
                self.assertTrue(answer.startswith(b"+OK"), (user, answer))
        method = re.findall(r" login user=named .*method=(\S+)", self.server.log)
        self.assertEqual(method, ["pass", "cram-md5", "apop"])

    async def test_poplib_and_curl_answer_challenges(self) -> None:
        self.declare()
        await self.start(ldapcleartext="2")

        def by_poplib() -> int:
            pop = poplib.POP3("127.0.0.1", self.server.port, timeout=clients.LIMIT)
            try:
                pop.apop("named", PASSWORD)
                return pop.stat()[0]
            finally:
                pop.close()

        self.assertEqual(await deferToThread(by_poplib), 1)
        for options in (("AUTH=CRAM-MD5",), ("AUTH=+APOP",)):
            listed = await clients.curl(
                self.server.port, "bare", PASSWORD, "", "--login-options", *options
            )
            self.assertEqual((listed.code, listed.errors), (0, b""), options)
            self.assertTrue(listed.output.startswith(b"1 "), listed.output)
        wrong = await clients.curl(
            self.server.port, "bare", "wrong", "", "--login-options", "AUTH=CRAM-MD5"
        )
        self.assertEqual(wrong.code, 67)

    async def test_no_hash_is_a_password_whoever_says_it(self) -> None:
        self.declare()
        # Whose refusals are not delayed.
        await self.start(ldapcleartext="2", pop3trusted="127.0.0.1")
        for user, password in (
            ("hash", ssha_value(PASSWORD)),
            ("hash", PASSWORD),
            ("bare-hash", DES),
            ("lost-scheme", md5_value(PASSWORD).removeprefix("{MD5}")),
        ):
            if (user, password) != ("hash", PASSWORD):
                self.assertEqual(await self.refusal_of(user, password), WRONG.decode())
            for log_in in (log_in_by_cram_md5, log_in_by_apop):
                answer = await self.converse(
                    lambda c, u=user, p=password, f=log_in: f(c, u, p)  # type: ignore[misc]
                )
                self.assertEqual(answer, WRONG, (user, log_in))

    async def test_challenges_are_as_invisible_as_the_site_wants(self) -> None:
        self.declare()
        self.slapd = self.new_slapd()
        self.server = self.new_server(self.slapd.address)
        one = self.new_server(self.slapd.address, "one", control={"ldapcleartext": "1"})
        await self.together(self.slapd.start(), self.server.start(), one.start())

        def looks(connection: Conversation) -> tuple[bool, bool, bool, bytes, bytes]:
            offered = b" ".join(capabilities(connection))
            begun = connection.ask(b"AUTH CRAM-MD5").startswith(b"+ ")
            if begun:
                connection.ask(b"*")
            apop = connection.ask(b"APOP joe 0123456789abcdef0123456789abcdef")
            unknown = connection.ask(b"XYZZY joe")
            return b"<" in connection.greeting, b"CRAM-MD5" in offered, begun, apop, unknown

        greets, offers, begins, apop, unknown = await self.converse(looks)
        self.assertEqual((greets, offers, begins), (False, False, False))
        self.assertEqual(apop, unknown)
        greets, offers, begins, apop, unknown = await clients.converse(one.port, looks)
        self.assertEqual((greets, offers, begins), (False, True, True))
        self.assertEqual(apop, unknown)
        for user in ("named", "bare"):
            self.assertEqual(await self.refusal_of(user), WRONG.decode())


class ForwardedTests(ClusterTestCase):
    async def test_who_has_answered_a_challenge_is_logged_in_at_the_member(self) -> None:
        self.user(
            "joe",
            value=f"{{CLEARTEXT}}{PASSWORD}",
            mailHost=mail_host(2),
            messages=[MESSAGES["plain"]],
        )
        await self.start_cluster(2, {"ldapcleartext": "2", "pop3trusted": "127.0.0.0/8"})
        for log_in in (log_in_by_cram_md5, log_in_by_apop):
            front = await self.connect_to(1)
            answer = await deferToThread(log_in, front, "joe", PASSWORD)
            self.assertTrue(answer.startswith(b"+OK"), answer)
            self.assertRegex(await deferToThread(front.ask, b"STAT"), rb"\A\+OK 1 ")
            self.assertTrue((await deferToThread(front.ask, b"QUIT")).startswith(b"+OK"))
            wrong = await self.connect_to(1)
            answer = await deferToThread(log_in, wrong, "joe", "wrong")
            self.assertEqual(answer, WRONG)


class ChainTests(ChainTestCase):
    async def test_auth_pop_lets_in_as_the_server_does(self) -> None:
        require_root()
        self.user("named", value=f"{{CLEARTEXT}}{PASSWORD}")
        self.user("bare", value=PASSWORD)
        self.user("bare-hash", value=DES, password="secret")
        await self.start_directory()
        asked = self.new_chain("asked", control={"ldapcleartext": "1"})
        for user in ("named", "bare"):
            outcome = await self.outcome(asked, user)
            self.assertEqual((outcome.answer[:3], outcome.code), ("+OK", 0), outcome)
        await self.assert_refused(asked, {"bare-hash": 3}, DES)
        await self.assert_refused(self.new_chain(), {"named": 3, "bare": 3})
