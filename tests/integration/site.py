"""A whole site in one directory: a directory server, a POP3 server, users and their mailboxes."""

from __future__ import annotations

import poplib
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from . import clients
from .mailboxes import Maildir
from .ports import HOST
from .server import Pop3Server
from .slapd import SERVICE_DN, SERVICE_PASSWORD, Slapd
from .users import OWNER, SUFFIX, Attributes, Owner, entry, qmail_user, ssha_value

__all__ = ["PASSWORD", "SiteTestCase"]

T = TypeVar("T")

PASSWORD = "correct-horse-battery"
"""The password of every user who is not given another."""


class SiteTestCase(TestCase):
    """Tests against a site of their own.

    A test declares its users, then starts the site. Whatever it does, afterwards the server must
    have ended in order, without a traceback and without a password in its log, and no process is
    left.
    """

    timeout = 60

    def setUp(self) -> None:
        # Not trial's own directory: the owner of a mailbox must be able to reach it.
        self.directory = Path(tempfile.mkdtemp(prefix="qmailldap-test-"))
        self.directory.chmod(0o755)
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.secrets = {PASSWORD, SERVICE_PASSWORD}
        self._entries: list[str] = []

    def user(
        self,
        login: str,
        *,
        password: str = PASSWORD,
        value: str | Sequence[str] | None = None,
        messages: Sequence[bytes] = (),
        dn: str = "",
        owner: Owner = OWNER,
        **attributes: str | Sequence[str] | int | None,
    ) -> Maildir:
        """Declare a user; ``value`` is what userPassword holds, by default {SSHA} of the password.

        ``attributes`` replace those of a usual entry; None leaves one out.
        """
        if value is None:
            value = ssha_value(password)
        home = self.directory / "homes" / str(len(self._entries))
        complete: Attributes = {"homeDirectory": str(home), **attributes}
        self._entries.append(qmail_user(login, value, complete, dn=dn, owner=owner))
        values = [value] if isinstance(value, str) else value
        # Shorter ones would be found in any log, by chance.
        self.secrets.update(secret for secret in (password, *values) if len(secret) > 5)
        maildir = Maildir(home / "Maildir", owner)
        maildir.deliver_all(messages)
        return maildir

    def other_entry(self, dn: str, attributes: Attributes) -> None:
        """Declare an entry that is not a qmail-ldap user."""
        self._entries.append(entry(dn, attributes))

    def new_slapd(self, name: str = "slapd", **tls: Any) -> Slapd:
        """A directory server with all users declared so far; it is not started.

        ``tls`` is what `Slapd` takes for that.
        """
        place = self.directory / name
        place.mkdir()
        slapd = Slapd(place, "".join(self._entries), **tls)
        self.addCleanup(slapd.kill)
        return slapd

    def new_server(
        self,
        ldapserver: str,
        name: str = "server",
        *,
        control: Mapping[str, str | None] | None = None,
        host: str = HOST,
        port: int | None = None,
        listen: Sequence[str] = (),
        options: Sequence[str] = (),
        twistd: Sequence[str] = (),
        before: Sequence[str] = (),
        tac: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> Pop3Server:
        """A POP3 server; it is not started. ``control`` are further files, None leaves one out."""
        files = {
            "ldapserver": ldapserver,
            "ldapbasedn": SUFFIX,
            "ldaplogin": SERVICE_DN,
            "ldappassword": SERVICE_PASSWORD,
            "ldaplocaldelivery": "0",
            # All come from one address here, and what is wrong on purpose is not to be waited for.
            "pop3limits": "guesses:0\nguesses-per-login:0",
            **(control or {}),
        }
        place = self.directory / name
        place.mkdir()
        server = Pop3Server(
            place,
            {file: text for file, text in files.items() if text is not None},
            host=host,
            port=port,
            listen=listen,
            options=options,
            twistd=twistd,
            before=before,
            tac=tac,
            variables=variables,
        )
        self.addCleanup(self._end, server)
        return server

    async def start(
        self,
        *options: str,
        twistd: Sequence[str] = (),
        before: Sequence[str] = (),
        **control: str | None,
    ) -> None:
        """Start one directory server and one POP3 server, `slapd` and `server`."""
        self.slapd = self.new_slapd()
        self.server = self.new_server(
            self.slapd.address, control=control, options=options, twistd=twistd, before=before
        )
        await self.together(self.slapd.start(), self.server.start())

    async def together(self, *what: Coroutine[Deferred[Any], Any, T]) -> list[T]:
        """Do all of it at the same time; gives the results in the order of the arguments."""
        return await gatherResults(map(Deferred.fromCoroutine, what), consumeErrors=True)

    async def in_session(
        self, user: str, function: Callable[[poplib.POP3], T], password: str = PASSWORD
    ) -> T:
        """Log in at `server` and call ``function`` in a thread; no QUIT but the function's own."""
        return await clients.in_session(self.server.port, user, password, function)

    async def refusal_of(self, user: str, password: str = PASSWORD) -> str:
        """The text with which `server` refuses a login; "accepted" if it does not."""
        return await clients.refusal_of(self.server.port, user, password)

    async def converse(self, function: Callable[[clients.Conversation], T]) -> T:
        """Connect to `server` and call ``function`` in a thread."""
        return await clients.converse(self.server.port, function)

    async def connect(self, *, receive_buffer: int = 0) -> clients.Conversation:
        """A connection to `server`, closed when the test ends. Its methods belong in threads."""
        connection = await deferToThread(
            clients.Conversation, self.server.port, receive_buffer=receive_buffer
        )
        self.addCleanup(connection.hang_up)
        return connection

    async def assert_serves(self, user: str, password: str = PASSWORD) -> None:
        """Others can still log in and are answered."""
        count, _ = await self.in_session(user, poplib.POP3.stat, password)
        self.assertGreaterEqual(count, 0)

    async def _end(self, server: Pop3Server) -> None:
        try:
            if server.is_running:
                await server.stop()
        finally:
            server.kill()
        server.assert_no_tracebacks()
        for secret in self.secrets:
            self.assertNotIn(secret, server.log)
