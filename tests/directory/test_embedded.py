"""The embedded directory, asked by the real client on the real loopback."""

from __future__ import annotations

import base64
import hashlib
from typing import Any, cast

from ldaptor.protocols.ldap.ldapclient import LDAPClient
from ldaptor.protocols.ldap.ldaperrors import LDAPUnwillingToPerform
from ldaptor.protocols.ldap.ldapsyntax import LDAPEntry
from twisted.internet import reactor as any_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.trial.unittest import TestCase

from qmailldap.control import Control, ServerAddress
from qmailldap.directory import Directory, DirectoryUnavailable
from qmailldap.directory.embedded import EmbeddedDirectory

reactor = cast(Any, any_reactor)

SSHA = b"{SSHA}" + base64.b64encode(hashlib.sha1(b"hidden" + b"salt").digest() + b"salt")
LDIF = (
    b"""version: 1

dn: dc=example,dc=org
objectClass: domain
dc: example

# people
dn: ou=people,dc=example,dc=org
objectClass: organizationalUnit
ou: people

dn: uid=joe,ou=people,dc=example,dc=org
objectClass: qmailUser
uid: joe
accountStatus: active
userPassword: secret
mailHost: mx
 .example.org

dn: uid=ann,ou=people,dc=example,dc=org
objectClass: qmailUser
uid: Ann
userPassword: %s

dn: uid=eve,ou=people,dc=example,dc=org
objectClass: qmailUser
uid: eve
userPassword: {MD5}x

dn: cn=1,ou=people,dc=example,dc=org
uid: many

dn: cn=2,ou=people,dc=example,dc=org
uid: many

dn: cn=3,ou=people,dc=example,dc=org
uid: many"""
    % SSHA
)


class EmbeddedDirectoryTests(TestCase):
    async def start(self, ldif: bytes = LDIF, **facts: Any) -> Directory:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(ldif)
        self.embedded = EmbeddedDirectory()
        self.port = await self.embedded.start(cast(IReactorTCP, reactor), path)
        self.addCleanup(self.embedded.stop)
        return self.directory(self.port, **facts)

    def directory(self, *ports: int, **facts: Any) -> Directory:
        control = Control(
            ldapserver=tuple(ServerAddress("127.0.0.1", port) for port in ports),
            ldapbasedn="dc=example,dc=org",
            **facts,
        )
        directory = Directory(cast(IReactorTime, reactor), control)
        self.addCleanup(directory.stop)
        directory.start()
        return directory

    async def test_a_login_is_found_whatever_its_case(self) -> None:
        directory = await self.start(ldapobjectclass="qmailUser")
        for login in (b"joe", b"JOE"):
            (entry,) = await directory.find(login)
            self.assertEqual(entry.dn, "uid=joe,ou=people,dc=example,dc=org")
            self.assertEqual(entry.values("mailHost"), (b"mx.example.org",))
            self.assertEqual(entry.values("userPassword"), (b"secret",))
        (entry,) = await directory.find(b"ann")

    async def test_other_logins_are_not(self) -> None:
        directory = await self.start()
        for login in (b"", b"*", b"jo*", b"nobody", b"joe)(uid=*", b"\xff\xfe", b"\0", b"x" * 9999):
            self.assertEqual(await directory.find(login), ())

    async def test_three_entries_are_two_and_a_size_limit(self) -> None:
        directory = await self.start()
        self.assertEqual(len(await directory.find(b"many")), 2)

    async def test_a_base_that_is_not_there_is_no_answer(self) -> None:
        directory = await self.start(b"dn: dc=org\ndc: org\n")
        with self.assertRaises(DirectoryUnavailable):
            await directory.find(b"joe")

    async def test_passwords_are_proved(self) -> None:
        directory = await self.start(ldaprebind=True)
        (joe,) = await directory.find(b"joe")
        self.assertEqual(joe.values("userPassword"), ())
        self.assertTrue(await directory.prove(joe.dn, b"secret"))
        self.assertFalse(await directory.prove(joe.dn, b"Secret"))
        self.assertFalse(await directory.prove("uid=nobody,dc=example,dc=org", b"secret"))
        (ann,) = await directory.find(b"ann")
        self.assertTrue(await directory.prove(ann.dn, b"hidden"))
        self.assertFalse(await directory.prove(ann.dn, SSHA))
        (eve,) = await directory.find(b"eve")
        self.assertFalse(await directory.prove(eve.dn, b"{MD5}x"))

    async def test_the_service_may_bind(self) -> None:
        name = "uid=joe,ou=people,dc=example,dc=org"
        directory = await self.start(ldaplogin=name, ldappassword=b"secret")
        self.assertEqual(len(await directory.find(b"joe")), 1)

    async def test_many_logins_at_once_are_all_found(self) -> None:
        directory = await self.start()
        logins = [b"nobody%d" % number for number in range(199)]
        finds = [Deferred.fromCoroutine(directory.find(login)) for login in (b"joe", *logins)]
        found = await gatherResults(finds)
        self.assertEqual([len(entries) for entries in found], [1] + [0] * 199)

    async def test_it_may_be_stopped_and_started_under_its_clients(self) -> None:
        directory = await self.start()
        await directory.find(b"joe")
        await self.embedded.stop()
        with self.assertRaises(DirectoryUnavailable):
            await directory.find(b"joe")
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(LDIF)
        await self.embedded.start(cast(IReactorTCP, reactor), path, port=self.port)
        while True:
            try:
                await directory.find(b"joe")
            except DirectoryUnavailable:
                await self.sleep(0.1)
            else:
                break

    async def test_a_port_where_nobody_answers_is_passed_over(self) -> None:
        await self.start()
        silent = EmbeddedDirectory()
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(LDIF)
        closed_port = await silent.start(cast(IReactorTCP, reactor), path)
        await silent.stop()
        directory = self.directory(closed_port, self.port)
        self.assertEqual(len(await directory.find(b"joe")), 1)

    async def test_it_is_read_only(self) -> None:
        await self.start()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
        client = await connectProtocol(endpoint, LDAPClient())
        try:
            entry = LDAPEntry(client, "uid=joe,ou=people,dc=example,dc=org")
            with self.assertRaises(LDAPUnwillingToPerform):
                await entry.delete()
        finally:
            client.unbind()
            await self.sleep(0.01)

    async def test_a_file_that_cannot_be_served_is_told_at_start(self) -> None:
        with self.assertRaises(OSError):
            await EmbeddedDirectory().start(cast(IReactorTCP, reactor), "/nonexistent")
        for ldif in (
            b"no ldif",
            b"dn: dc=org\ndc: org\n\ndn: uid=x,ou=missing,dc=org\nuid: x\n",
            b"",
        ):
            path = self.mktemp()
            with open(path, "wb") as file:
                file.write(ldif)
            with self.assertRaises(ValueError, msg=repr(ldif)):
                await EmbeddedDirectory().start(cast(IReactorTCP, reactor), path)

    def sleep(self, seconds: float) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        reactor.callLater(seconds, done.callback, None)
        return done
