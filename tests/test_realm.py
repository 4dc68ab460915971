"""From an account to its mailbox, and how each failure on the way is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import attrs
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.task import Clock
from twisted.mail.pop3 import IMailbox
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Interface
from zope.interface.verify import verifyObject

from qmailldap.account import Account, RemoteAccount
from qmailldap.admission import Sessions
from qmailldap.client import Client
from qmailldap.interfaces import IForwardedSession, IMaildrop
from qmailldap.owners import Owners
from qmailldap.quota import Quota
from qmailldap.realm import MailRealm
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.threads import Busy

P = ParamSpec("P")
T = TypeVar("T")


def here(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
    """Offloaded work, done at once."""
    return maybeDeferred(function, *args, **kwargs)


def account() -> Account:
    return Account(
        login=b"joe",
        dn="uid=joe",
        uid=1000,
        gid=1000,
        home="/home/joe",
        mailbox="/home/joe/Maildir",
        delivery="./Maildir/",
        names_both=False,
        quota=Quota(),
        max_message_size=0,
        mail_host=None,
    )


class Session:
    """A session on another member, which nobody joins."""

    closed = False

    def close(self) -> None:
        self.closed = True


class Forwarder:
    """Knows one session, and remembers who has asked for it."""

    def __init__(self) -> None:
        self.session: Session | None = Session()
        self.asked: list[tuple[RemoteAccount, Client]] = []

    async def log_in(self, account: RemoteAccount, client: Client) -> Any:
        self.asked.append((account, client))
        if self.session is None:
            raise LoginRefused(Refusal.MAILHOST_UNREACHABLE)
        return self.session


class MailRealmTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.maildir = self.home / "Maildir"
        for name in ("tmp", "new", "cur"):
            (self.maildir / name).mkdir(parents=True)
        (self.maildir / "new" / "1.a").write_bytes(b"hello\n")
        self.forwarder = Forwarder()

    def avatar(self, *interfaces: type[Interface], offload: Any = here) -> Deferred[Any]:
        realm = self.realm(offload)
        return realm.requestAvatar(self.account(), None, *(interfaces or (IMaildrop,)))

    def remote_avatar(self, mind: object, *interfaces: type[Interface]) -> Deferred[Any]:
        account = RemoteAccount(b"joe", "uid=joe", "there.example.org")
        return self.realm().requestAvatar(account, mind, *interfaces)

    def realm(self, offload: Any = here, sessions: Sessions | None = None) -> MailRealm:
        owners = Owners(offload, None, None)
        return MailRealm(owners, self.forwarder, offload, Clock(), sessions)

    def account(self) -> Account:
        return attrs.evolve(
            account(), uid=os.geteuid(), home=str(self.home), mailbox=str(self.maildir)
        )

    def assert_refused(self, refusal: Refusal, **arguments: Any) -> str:
        refused = self.failureResultOf(self.avatar(**arguments), LoginRefused).value
        assert isinstance(refused, LoginRefused)
        self.assertIs(refused.refusal, refusal)
        return refused.detail


class MailRealmTests(MailRealmTestCase):
    def test_an_account_gets_its_maildrop(self) -> None:
        interface, mailbox, logout = self.successResultOf(self.avatar())
        self.assertIs(interface, IMaildrop)
        verifyObject(IMaildrop, mailbox)
        self.assertEqual(mailbox.listMessages(), [6])
        logout()

    def test_stock_twisted_gets_its_mailbox(self) -> None:
        interface, mailbox, logout = self.successResultOf(self.avatar(IMailbox))
        self.assertIs(interface, IMailbox)
        self.assertTrue(IMailbox.providedBy(mailbox))
        logout()

    def test_the_first_interface_that_fits_is_given(self) -> None:
        class IOther(Interface):
            """Something else."""

        self.assertIs(self.successResultOf(self.avatar(IOther, IMaildrop))[0], IMaildrop)
        with self.assertRaises(NotImplementedError):
            self.avatar(IOther)

    def test_mail_kept_by_another_member_is_forwarded_there(self) -> None:
        client = Client(password=b"secret", host="192.0.2.7")
        avatar = self.remote_avatar(client, IMaildrop, IForwardedSession)
        interface, session, logout = self.successResultOf(avatar)
        self.assertIs(interface, IForwardedSession)
        self.assertIs(session, self.forwarder.session)
        ((asked, who),) = self.forwarder.asked
        self.assertEqual((asked.mail_host, who), ("there.example.org", client))
        logout()
        self.assertTrue(session.closed)

    def test_who_cannot_be_forwarded_is_refused(self) -> None:
        for mind, interfaces in (
            (None, (IMaildrop, IForwardedSession)),
            (Client(password=b"secret"), (IMailbox,)),
        ):
            avatar = self.remote_avatar(mind, *interfaces)
            refused: Any = self.failureResultOf(avatar, LoginRefused).value
            self.assertIs(refused.refusal, Refusal.MAILHOST_UNREACHABLE)
            self.assertIn("there.example.org", refused.detail)
        self.assertEqual(self.forwarder.asked, [])

    def test_one_session_at_a_time_goes_through_a_mailbox(self) -> None:
        asked: list[Deferred[Any]] = []

        def held_back(function: Any, /, *args: Any, **kwargs: Any) -> Deferred[Any]:
            work: Deferred[Any] = Deferred()
            work.addCallback(lambda _: function(*args, **kwargs))
            asked.append(work)
            return work

        realm = self.realm(held_back)
        first = realm.requestAvatar(self.account(), None, IMaildrop)
        second = realm.requestAvatar(self.account(), None, IMaildrop)
        self.assertEqual(len(asked), 1)
        asked[0].callback(None)
        self.assertEqual(len(asked), 2)
        mailbox: Any = self.successResultOf(first)[1]
        # Its update waits for the other session's listing, its messages do not.
        updated = mailbox.sync()
        mailbox.getMessage(0)
        self.assertEqual(len(asked), 3)
        asked[2].callback(None)
        asked[1].callback(None)
        self.successResultOf(second)
        self.assertEqual(len(asked), 4)
        asked[3].callback(None)
        self.assertEqual(self.successResultOf(updated), 0)

    def test_a_missing_mailbox_is_said_to_be_missing(self) -> None:
        self.home.rename(self.home.with_name("elsewhere"))
        self.assertIn(str(self.home), self.assert_refused(Refusal.MAILBOX_MISSING))

    def test_a_file_in_place_of_a_directory_is_a_corrupted_mailbox(self) -> None:
        self.maildir.rename(self.home / "Elsewhere")
        self.maildir.touch()
        self.assert_refused(Refusal.MAILBOX_CORRUPTED)

    def test_an_input_output_error_is_a_temporary_error(self) -> None:
        def broken(*args: object, **kwargs: object) -> Deferred[Any]:
            return fail(OSError(5, "Input/output error"))

        self.assertIn("Input/output", self.assert_refused(Refusal.TEMPORARY, offload=broken))

    def test_a_full_queue_is_a_temporary_error(self) -> None:
        def full(*args: object, **kwargs: object) -> Deferred[Any]:
            return fail(Busy("full"))

        self.assert_refused(Refusal.TEMPORARY, offload=full)

    def test_lack_of_memory_is_said_to_be_that(self) -> None:
        def starved(*args: object, **kwargs: object) -> Deferred[Any]:
            return fail(MemoryError())

        self.assert_refused(Refusal.OUT_OF_MEMORY, offload=starved)


class SessionsOfOneUserTests(MailRealmTestCase):
    """Two at a time, from before anything is opened to the very end."""

    def setUp(self) -> None:
        super().setUp()
        self.sessions = Sessions(2, lambda host: host == "192.0.2.1")
        self.the_realm = self.realm(sessions=self.sessions)

    def log_in(self, account: Account | RemoteAccount, host: str = "192.0.2.7") -> Deferred[Any]:
        client = Client(password=b"secret", host=host)
        return self.the_realm.requestAvatar(account, client, IMaildrop, IForwardedSession)

    def log_out_of(self, avatar: Deferred[Any]) -> Callable[[], None]:
        log_out: Callable[[], None] = self.successResultOf(avatar)[2]
        return log_out

    def assert_too_many(self, avatar: Deferred[Any]) -> None:
        refused: Any = self.failureResultOf(avatar, LoginRefused).value
        self.assertIs(refused.refusal, Refusal.TOO_MANY_SESSIONS)

    def test_a_session_counts_until_it_is_over(self) -> None:
        first = self.log_out_of(self.log_in(self.account()))
        self.log_out_of(self.log_in(self.account()))
        self.assert_too_many(self.log_in(self.account()))
        first()
        first()
        self.log_out_of(self.log_in(self.account()))
        self.assert_too_many(self.log_in(self.account()))

    def test_a_user_is_one_by_every_name(self) -> None:
        for login, dn in ((b"joe", "uid=joe"), (b"joe@example.org", "UID=Joe")):
            self.log_out_of(self.log_in(attrs.evolve(self.account(), login=login, dn=dn)))
        self.assert_too_many(self.log_in(self.account()))
        self.log_out_of(self.log_in(attrs.evolve(self.account(), dn="uid=jane")))

    def test_forwarded_sessions_count_alike(self) -> None:
        remote = RemoteAccount(b"joe", "uid=joe", "there.example.org")
        first = self.log_out_of(self.log_in(remote))
        self.log_out_of(self.log_in(remote))
        self.assert_too_many(self.log_in(remote))
        self.assertEqual(len(self.forwarder.asked), 2)
        first()
        self.log_out_of(self.log_in(remote))

    def test_a_session_that_does_not_come_about_does_not_count(self) -> None:
        self.forwarder.session = None
        remote = RemoteAccount(b"joe", "uid=joe", "there.example.org")
        missing = attrs.evolve(self.account(), mailbox="/nowhere/Maildir")
        for _ in range(3):
            self.failureResultOf(self.log_in(remote), LoginRefused)
            self.failureResultOf(self.log_in(missing), LoginRefused)
        self.assertEqual(len(self.sessions), 0)

    def test_a_client_that_leaves_before_its_mailbox_is_open_does_not_count(self) -> None:
        self.the_realm = self.realm(lambda *_, **__: Deferred(), sessions=self.sessions)
        avatar = self.log_in(self.account())
        self.assertNoResult(avatar)
        self.assertEqual(len(self.sessions), 1)
        avatar.cancel()
        self.failureResultOf(avatar)
        self.assertEqual(len(self.sessions), 0)

    def test_those_of_trusted_clients_do_not_count(self) -> None:
        for _ in range(5):
            self.log_out_of(self.log_in(self.account(), host="192.0.2.1"))
        self.assertEqual(len(self.sessions), 0)

    def test_a_session_that_fails_to_close_is_over_all_the_same(self) -> None:
        def fails() -> None:
            raise OSError

        session = self.forwarder.session
        assert session is not None
        self.patch(session, "close", fails)
        log_out = self.log_out_of(
            self.log_in(RemoteAccount(b"joe", "uid=joe", "there.example.org"))
        )
        with self.assertRaises(OSError):
            log_out()
        self.assertEqual(len(self.sessions), 0)
