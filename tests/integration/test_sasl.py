"""AUTH as mail programs use it."""

from __future__ import annotations

import base64
import poplib

from .clients import Conversation, curl
from .mailboxes import MESSAGES, as_lines
from .site import PASSWORD, SiteTestCase

WRONG = b"-ERR [AUTH] authorization failed"
UMLAUTS = "pässwörd-für-jö"


class PlainTests(SiteTestCase):
    async def test_curl_logs_in_by_each_mechanism(self) -> None:
        self.user("joe", messages=[MESSAGES["dots"]])
        await self.start()
        for mechanism in ("PLAIN", "LOGIN"):
            for options in ((), ("--sasl-ir",)):
                login = ("--login-options", f"AUTH={mechanism}", *options)
                finished = await curl(self.server.port, "joe", PASSWORD, "1", *login)
                self.assertEqual(finished.code, 0, finished.text)
                self.assertEqual(as_lines(finished.output), as_lines(MESSAGES["dots"]))
            self.assertEqual(self.server.log.count(f" method={mechanism.lower()} tls=no\n"), 2)
            refused = await curl(self.server.port, "joe", "wrong", "", *login)
            self.assertEqual(refused.code, 67, refused.text)  # CURLE_LOGIN_DENIED

    async def test_by_hand_each_word_of_the_exchange(self) -> None:
        self.user("joe", password=UMLAUTS)
        await self.start()

        def converse(connection: Conversation) -> None:
            connection.send(b"AUTH\r\n")
            self.assertEqual(connection.listing(), [b"+OK ", b"PLAIN", b"LOGIN"])
            self.assertEqual(connection.ask(b"AUTH PLAIN"), b"+ ")
            self.assertEqual(connection.ask(b"*"), b"-ERR authentication cancelled")
            self.assertEqual(
                connection.ask(b"AUTH PLAIN ="), b"-ERR malformed response: not three parts"
            )
            self.assertEqual(
                connection.ask(b"AUTH GSSAPI"), b"-ERR unknown authentication mechanism"
            )
            self.assertEqual(connection.ask(_plain("joe", "x")), WRONG)
            self.assertEqual(connection.ask(_plain("joe", UMLAUTS, acting_as="root")), WRONG)
            self.assertEqual(connection.ask(_plain("joe", UMLAUTS, acting_as="joe")), b"+OK ")
            self.assertEqual(connection.ask(b"STAT"), b"+OK 0 0")

        await self.converse(converse)
        self.assertIn('detail="one user may not act as another', self.server.log)
        self.secrets.add(base64.b64encode(UMLAUTS.encode()).decode())

    async def test_clients_are_told_what_there_is(self) -> None:
        self.user("joe")
        await self.start()
        capabilities = await self.in_session("joe", poplib.POP3.capa)
        self.assertEqual(capabilities["SASL"], ["PLAIN", "LOGIN"])


class ClearTextTests(SiteTestCase):
    """What there is only where the site keeps passwords in clear text, and says so."""

    async def test_curl_proves_to_know_the_password_without_sending_it(self) -> None:
        self.user("joe", value="{CLEAR}" + PASSWORD, messages=[MESSAGES["dots"]])
        self.user("ann")
        await self.start(ldapcleartext="2")
        for options, method in (("AUTH=CRAM-MD5", "cram-md5"), ("AUTH=+APOP", "apop")):
            login = ("--login-options", options)
            finished = await curl(self.server.port, "joe", PASSWORD, "1", *login)
            self.assertEqual(finished.code, 0, finished.text)
            self.assertEqual(as_lines(finished.output), as_lines(MESSAGES["dots"]))
            self.assertIn(f" method={method} tls=no\n", self.server.log)
            for user, password in (("joe", "wrong"), ("ann", PASSWORD), ("nobody", PASSWORD)):
                refused = await curl(self.server.port, user, password, "", *login)
                self.assertEqual(refused.code, 67, refused.text)

    async def test_by_default_nothing_shows_that_there_is_any(self) -> None:
        self.user("joe", value="{CLEAR}" + PASSWORD)
        await self.start()

        def converse(connection: Conversation) -> None:
            self.assertNotIn(b"<", connection.greeting)
            self.assertEqual(connection.ask(b"APOP joe x"), b"-ERR authorization first")
            self.assertEqual(
                connection.ask(b"AUTH CRAM-MD5"), b"-ERR unknown authentication mechanism"
            )

        await self.converse(converse)
        self.assertIn("authorization failed", await self.refusal_of("joe"))


def _plain(user: str, password: str, acting_as: str = "") -> bytes:
    response = f"{acting_as}\0{user}\0{password}".encode()
    return b"AUTH PLAIN " + base64.b64encode(response)
