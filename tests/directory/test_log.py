"""What LOGLEVEL 64 and 128 show of the directory."""

from __future__ import annotations

import re
from typing import Any

from qmailldap.directory import Directory
from qmailldap.directory._frames import MESSAGE_LIMIT
from tests.directory.fake import (
    BASE,
    Peer,
    closes,
    finds_a_large_entry,
    finds_nothing_but,
    refuses_with_an_echo,
    says_nothing,
    sends,
)
from tests.directory.test_directory import JOE, TIMEOUT, DirectoryTestCase
from tests.loglevels import log_at

SECRET = b"correct-horse"
LDAPPASSWORD = b"battery-staple"


class LogTestCase(DirectoryTestCase):
    loglevel = 64

    def setUp(self) -> None:
        super().setUp()
        log_at(self, LOGLEVEL=self.loglevel)
        for server in (self.one, self.two):
            server.passwords = {JOE.encode(): SECRET, b"cn=us": LDAPPASSWORD}

    def start(self, **facts: Any) -> Directory:
        facts = {"ldaplogin": "cn=us", "ldappassword": LDAPPASSWORD, **facts}
        return self.start_directory(self.one, **facts)

    def shown(self, event: str) -> list[str]:
        """What was logged of these events since it was last asked, without the time they took."""
        lines = [line for line in self.log_lines() if line.startswith(f"{event} ")]
        self.events.clear()
        return [re.sub(r" seconds=\d+\.\d{3}$", "", line) for line in lines]


class OperationTests(LogTestCase):
    def test_a_search_is_told_with_its_filter_and_what_it_found(self) -> None:
        directory = self.start(ldapobjectclass="qmailUser")
        start = f'search server=one:389 base="{BASE}" filter="(&(objectClass=qmailUser)(uid='
        self.result(directory.find(b"joe"))
        self.result(directory.find(b'no*"\xff{x}'))
        self.assertEqual(
            self.shown("search"),
            [
                rf'{start}joe))" entries=1 result=success',
                rf'{start}no\2a\22\ff{{x}}))" entries=0 result=success',
            ],
        )

    def test_a_search_that_fails_is_told_with_the_reason(self) -> None:
        directory = self.start()
        start = f'search server=one:389 base="{BASE}" filter="(uid=joe)" entries=0 result='
        for behaviour, result in (
            (finds_nothing_but(50), "insufficientAccessRights"),
            (finds_a_large_entry, f'"an entry of more than {MESSAGE_LIMIT} octets"'),
            (closes, '"it closed the connection before it answered"'),
            (says_nothing, "given-up"),
        ):
            self.one.search = behaviour
            login = self.begin(directory.find(b"joe"))
            self.network.settle(TIMEOUT + 1)
            self.failureResultOf(login)
            self.assertIn(start + result, self.shown("search"), result)
            self.network.settle(120)

    def test_a_search_that_nobody_waits_for_any_more_is_told(self) -> None:
        directory = self.start()
        self.one.search = says_nothing
        login = self.begin(directory.find(b"joe"))
        self.network.settle(1)
        login.cancel()
        self.failureResultOf(login)
        (line,) = self.shown("search")
        self.assertTrue(line.endswith(" entries=0 result=given-up"), line)

    def test_binds_are_told_with_their_dn(self) -> None:
        directory = self.start()
        self.result(directory.find(b"joe"))
        self.assertTrue(self.result(directory.prove(JOE, SECRET)))
        self.assertFalse(self.result(directory.prove(JOE, b"wrong")))
        self.assertEqual(
            self.shown("bind"),
            [
                "bind server=one:389 dn=cn=us result=success",
                f'bind server=one:389 dn="{JOE}" result=success',
                f'bind server=one:389 dn="{JOE}" result=invalidCredentials',
            ],
        )

    def test_an_anonymous_bind_has_an_empty_dn(self) -> None:
        self.result(self.start(ldaplogin="", ldappassword=b"").find(b"joe"))
        self.assertEqual(self.shown("bind"), ['bind server=one:389 dn="" result=success'])

    def test_a_bind_that_is_not_answered_is_told(self) -> None:
        directory = self.start()
        self.result(directory.find(b"joe"))
        self.one.bind = says_nothing
        self.fails(directory.prove(JOE, SECRET), seconds=TIMEOUT + 1)
        (_, line) = self.shown("bind")
        self.assertTrue(line.startswith(f'bind server=one:389 dn="{JOE}" result='), line)


class ConnectionTests(LogTestCase):
    loglevel = 128

    def test_connections_are_told_when_they_come_and_go(self) -> None:
        directory = self.start()
        self.result(directory.find(b"joe"))
        self.one.search = closes
        self.fails(directory.find(b"joe"))
        opened, lost, *_ = self.shown("connection")
        start = "connection server=one:389 became="
        self.assertEqual(opened, f"{start}opened searching=0 rebinding=0")
        why = '"it closed the connection before it answered; under way: 1"'
        self.assertEqual(lost, f"{start}lost searching=1 rebinding=0 why={why}")

    def test_a_connection_by_tls_is_told_to_be_secured(self) -> None:
        self.result(self.start(ldaptls=True).find(b"joe"))
        _, secured = self.shown("connection")
        self.assertEqual(
            secured, "connection server=one:389 became=secured searching=0 rebinding=0"
        )


class SecretTests(LogTestCase):
    loglevel = 255

    def test_no_line_holds_a_password_that_the_server_echoes(self) -> None:
        def echoes_as_garbage(peer: Peer, message: Any) -> None:
            sends(b"\x00" + message.value.auth)(peer, message)

        for behaviour in (refuses_with_an_echo(80), echoes_as_garbage, closes, says_nothing):
            directory = self.start()
            self.result(directory.find(b"joe"))
            self.one.bind = behaviour
            proof = self.begin(directory.prove(JOE, SECRET))
            self.network.settle(TIMEOUT + 1)
            proof.addErrback(lambda _: None)
            self.network.settle(200)
            self.one.bind = self.two.bind
            self.assertGreater(len(self.log_lines()), 3)
            for line in self.log_lines():
                for secret in (SECRET, LDAPPASSWORD):
                    self.assertNotIn(secret.decode()[:7], line)
