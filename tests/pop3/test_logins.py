"""Who is let in has proved a password, whatever was said before it and by which of the commands.

The whole way from the octets to the record is compared with a model that knows only the rules.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.cred.portal import IRealm, Portal
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Interface, implementer

from qmailldap.account import AccountDefaults, Entry
from qmailldap.checker import REFUSAL_GRID, HashProof, LDAPChecker
from qmailldap.interfaces import IMaildrop
from qmailldap.pop3 import POP3Factory
from tests.pop3.maildrop import Maildrop, TLSTransport
from tests.test_checker import PASSWORD as ANNS
from tests.test_checker import SSHA, FakeDirectory, here, record

JOES = b"tanstaaf \xc3\xa4"
HASH = b"abNANd1rDfiNc"
"""crypt(3) of "secret"."""

RECORDS: dict[str, tuple[Entry, ...]] = {
    "joe": (record(b"{CLEARTEXT}" + JOES),),
    "ann": (record(SSHA, dn="uid=ann"),),
    "eve": (record(HASH, dn="uid=eve"),),
    "bob": (record(JOES, dn="uid=bob"),),
    "mad": (record(b"{CLEARTEXT}" + JOES, dn="uid=mad", accountstatus=(b"disabled",)),),
}
RIGHT = {
    b"joe": (JOES, "clear"),
    b"ann": (ANNS, "hash"),
    b"eve": (b"secret", "hash"),
    b"bob": (JOES, "clear"),
}
MOST_REFUSED = 3

users = st.sampled_from((*map(str.encode, RECORDS), b"nobody"))
passwords = st.sampled_from((JOES, ANNS, b"secret", HASH, SSHA, b"{CLEARTEXT}" + JOES, b"x"))


@attrs.frozen
class Move:
    """What a client does next: a ``way``, and what it says of itself."""

    way: str
    user: bytes = b""
    password: bytes = b""
    acting_as: bytes = b""


others = st.sampled_from((b"", b"", b"joe", b"ann"))
ways = st.sampled_from(
    ("pass", "plain", "plain in two", "login", "login in two", "cram-md5", "apop")
)
moves = st.one_of(
    st.builds(
        lambda way, user, acting_as: Move(way, user, RIGHT[user][0], acting_as),
        ways,
        st.sampled_from([*RIGHT]),
        others,
    ),
    st.builds(
        Move,
        ways,
        users,
        passwords,
        others,
    ),
    st.builds(Move, st.sampled_from(("user", "stls")), users),
    st.builds(
        Move,
        st.sampled_from(
            ("capa", "unknown", "cancel plain", "cancel login", "cancel cram-md5", "broken")
        ),
        users,
    ),
)


@implementer(IRealm)
class Realm:
    """Remembers whom it has given a maildrop."""

    def __init__(self) -> None:
        self.let_in: list[bytes] = []

    def requestAvatar(self, avatarId: Any, mind: object, *interfaces: type[Interface]) -> Any:
        self.let_in.append(avatarId.login)
        maildrop = Maildrop()
        return IMaildrop, maildrop, maildrop.close


class Model:
    """What the rules say: control files ldapcleartext and requiretls, three refusals and out."""

    def __init__(self, cleartext: int, requires_tls: bool) -> None:
        self.let_in: bytes | None = None
        self.refused = 0
        self._cleartext = cleartext
        self._by_tls = not requires_tls
        self._name: bytes | None = None

    @property
    def is_over(self) -> bool:
        return self.let_in is not None or self.refused >= MOST_REFUSED

    def do(self, move: Move) -> None:
        way = move.way.split()[0]
        if way == "stls":
            self._by_tls, self._name = True, None
        elif way == "user":
            self._tell_password(lambda: setattr(self, "_name", move.user))
        elif way == "pass":
            name = self._name
            if self._by_tls:
                self._name = None
            if name is not None or not self._by_tls:
                self._tell_password(lambda: self._judge(name or b"", move.password))
        elif way in ("plain", "login"):
            may = way == "login" or move.acting_as in (b"", move.user)
            password = move.password if may else b""
            self._tell_password(lambda: self._judge(move.user, password))
        elif self._cleartext >= {"cram-md5": 1, "apop": 2}.get(way, 3):
            self._judge(move.user, move.password, "clear")
        elif move.way in ("cancel plain", "cancel login", "broken") and not self._by_tls:
            self.refused += 1

    def _tell_password(self, then: Callable[[], None]) -> None:
        if self._by_tls:
            then()
        else:
            self.refused += 1

    def _judge(self, user: bytes, password: bytes, needs: str = "") -> None:
        right, stored = RIGHT.get(user, (None, ""))
        is_known = stored == "hash" or self._cleartext >= 1
        if password == right and is_known and needs in ("", stored):
            self.let_in = user
        else:
            self.refused += 1


class Client:
    """The client's side, on a string transport; gives what the server said to each line."""

    def __init__(self, cleartext: int, requires_tls: bool) -> None:
        self.clock = Clock()
        directory = FakeDirectory(self.clock)
        directory.entries = RECORDS
        asked = cleartext > 0
        proof = HashProof(here, cleartext=asked)
        checker = LDAPChecker(directory, proof, AccountDefaults(), self.clock, cleartext=asked)
        self.realm = Realm()
        self.transport = TLSTransport()
        factory = POP3Factory(
            Portal(self.realm, [checker]),
            "mail.example.org",
            self.clock,
            tls=object(),  # type: ignore[arg-type]
            requires_tls=requires_tls,
            cleartext=cleartext,
        )
        self.connection = factory.buildProtocol(self.transport.getPeer())
        self.connection.makeConnection(self.transport)
        greeting = self.transport.value()
        found = re.search(rb"<[^<>]+>", greeting)
        self.challenge = found[0] if found is not None else b"<guessed@mail.example.org>"
        self.promises_apop = found is not None

    def say(self, *lines: bytes) -> bytes:
        """Say the lines in one packet; gives all that is answered to them."""
        self.transport.clear()
        self.connection.dataReceived(b"".join(line + b"\r\n" for line in lines))
        for _ in range(2 * len(lines)):
            self.clock.advance(REFUSAL_GRID)
        said: bytes = self.transport.value()
        return said

    def do(self, move: Move) -> None:
        user, password = move.user, move.password
        plain = _base64(b"\0".join((move.acting_as, user, password)))
        if move.way == "user":
            self.say(b"USER " + user)
        elif move.way == "pass":
            self.say(b"PASS " + password)
        elif move.way == "plain":
            self.say(b"AUTH PLAIN " + plain)
        elif move.way == "login":
            if self.say(b"AUTH LOGIN " + _base64(user)).startswith(b"+ "):
                self.say(_base64(password))
        elif move.way == "plain in two":
            if self.say(b"auth plain").startswith(b"+ "):
                self.say(plain)
        elif move.way == "login in two":
            if self.say(b"AUTH LOGIN").startswith(b"+ "):
                self.say(_base64(user), _base64(password))
        elif move.way == "cram-md5":
            said = self.say(b"AUTH CRAM-MD5")
            if said.startswith(b"+ "):
                digest = hmac.new(password, base64.b64decode(said[2:]), "md5").hexdigest()
                self.say(_base64(user + b" " + digest.encode()))
        elif move.way == "apop":
            digest = hashlib.md5(self.challenge + password).hexdigest()
            self.say(b"APOP " + user + b" " + digest.encode())
        elif move.way.startswith("cancel"):
            if self.say(b"AUTH " + move.way.split()[1].upper().encode()).startswith(b"+ "):
                self.say(b"*")
        elif move.way == "broken":
            self.say(b"AUTH PLAIN " + plain + b"=")
        elif move.way == "stls":
            # What comes without TLS behind it counts for nothing.
            self.say(b"STLS", b"USER joe", b"AUTH PLAIN " + _base64(b"\0joe\0" + JOES))
        else:
            self.say(move.way.upper().encode())


def _base64(octets: bytes) -> bytes:
    return base64.b64encode(octets)


class LoginTests(SynchronousTestCase):
    def assert_as_the_rules_say(
        self, what: list[Move], cleartext: int, requires_tls: bool = False
    ) -> Model:
        client, model = Client(cleartext, requires_tls), Model(cleartext, requires_tls)
        self.assertEqual(client.promises_apop, cleartext >= 2)
        secured = False
        for move in what:
            if move.way == "stls" and secured:
                continue
            secured = secured or move.way == "stls"
            client.do(move)
            model.do(move)
            let_in = [model.let_in] if model.let_in is not None else []
            self.assertEqual(client.realm.let_in, let_in, move)
            self.assertEqual(client.transport.disconnecting, model.refused >= MOST_REFUSED, move)
            if model.is_over:
                break
        client.connection.connectionLost(connectionDone)
        self.assertEqual(client.clock.getDelayedCalls(), [])
        return model

    def test_what_is_right_and_where_it_is_taken(self) -> None:
        for cleartext in (0, 1, 2):
            for user, (password, _) in RIGHT.items():
                for way in ("plain", "plain in two", "login", "login in two", "cram-md5", "apop"):
                    self.assert_as_the_rules_say([Move(way, user, password)], cleartext)
                name, said = Move("user", user), Move("pass", b"", password)
                self.assert_as_the_rules_say([name, said], cleartext)

    def test_a_name_that_was_said_before_tls_is_forgotten(self) -> None:
        joe = [Move("user", b"joe"), Move("stls"), Move("pass", b"", JOES)]
        self.assertIsNone(self.assert_as_the_rules_say(joe, 1).let_in)
        joe[0], joe[1] = joe[1], joe[0]
        self.assertEqual(self.assert_as_the_rules_say(joe, 1).let_in, b"joe")

    def test_nobody_acts_as_another(self) -> None:
        for way in ("plain", "plain in two"):
            for acting_as, let_in in ((b"", b"ann"), (b"ann", b"ann"), (b"joe", None)):
                move = Move(way, b"ann", ANNS, acting_as)
                self.assertEqual(self.assert_as_the_rules_say([move], 0).let_in, let_in)

    @settings(max_examples=400, deadline=None)
    @given(
        what=st.lists(moves, max_size=8),
        cleartext=st.integers(0, 2),
        requires_tls=st.booleans(),
    )
    def test_who_is_let_in_has_proved_a_password(
        self, what: list[Move], cleartext: int, requires_tls: bool
    ) -> None:
        self.assert_as_the_rules_say(what, cleartext, requires_tls)

    @settings(max_examples=100, deadline=None)
    @given(st.lists(moves, max_size=4), st.integers(0, 2))
    def test_a_login_does_not_depend_on_those_that_were_refused(
        self, what: list[Move], cleartext: int
    ) -> None:
        client, model = Client(cleartext, False), Model(cleartext, False)
        for move in what:
            if move.way != "stls" and not model.is_over:
                client.do(move)
                model.do(move)
        if not model.is_over:
            client.do(Move("plain", b"ann", ANNS))
            self.assertEqual(client.realm.let_in, [b"ann"])
