"""Every line about a session has its fields and no others, whatever anybody is called."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv6Address
from twisted.trial.unittest import SynchronousTestCase

from fuzz.actions import Action
from fuzz.leftovers import Leftovers
from fuzz.scenarios import SETTLE, words
from fuzz.site import PASSWORD, Mail, Options
from fuzz.world import ROOMS, play
from qmailldap.interfaces import Relayed
from qmailldap.loglevel import Log
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.session import Session
from tests.loglevels import log_at, logged_lines

# Within quotes no quote ever stands, by \x22, or \22 where it is a filter of LDAP.
_VALUE = r'(?:"[^"\\]*(?:\\x?[0-9a-f]{2}[^"\\]*)*"(?:\.\.\.)?|[^\s"]+)'
_LINE = re.compile(rf"[a-z-]+(?: [A-Za-z-]+={_VALUE})*")
_FIELD = re.compile(rf" ([A-Za-z-]+)=({_VALUE})")

_HOSTILE = (
    b"",
    b"joe",
    b"\n",
    b"x\nlogin user=y peer=192.0.2.1",
    b'x" peer=192.0.2.1 "',
    b"x\\",
    b"\\x22 peer=192.0.2.1",
    b"{peer}",
    b"{0}%s%(peer)s",
    b"\x1b[2J\x1b]0;title\x07",
    b"\r\x08\x7f\x00",
    "\u202e\u2028\x85".encode(),
    b"\xff\xfe",
    b"x" * 10_000,
    b"\n" * 10_000,
)
_names = st.sampled_from(_HOSTILE) | st.binary(max_size=300)
_FEWER = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


def _texts(name: bytes) -> str:
    """The same, where it has become text on the way."""
    return name.decode("utf-8", "surrogateescape")


def _lines(session: Session, name: bytes) -> Iterable[tuple[Callable[[], None], set[str]]]:
    """What leaves a line, and the fields of that."""
    base = {"user", "peer", "session"}
    text = _texts(name)
    remote: Any = SimpleNamespace(mail_host=text, member="192.0.2.2:110")
    relayed = Relayed("idle", 1.0, 2, 3)
    refused = LoginRefused(Refusal.WRONG_CREDENTIALS, text)
    way = {"method", "tls"}
    yield lambda: session.logged_in(name, 1, 2), base | way | {"messages", "octets"}
    yield lambda: session.forwarded(name, remote), base | way | {"mailhost", "member"}
    yield (
        lambda: session.left_to(name, name, 1000, name),
        base | {"uid", "mailbox", "subprogram"},
    )
    yield (
        lambda: session.relayed(text, relayed),
        base | {"end", "mailhost", "seconds", "sent", "received"},
    )
    yield lambda: session.refused(name, refused), base | {"reason", "detail"}
    yield lambda: session.abandoned(name), base
    yield (
        lambda: session.logged_out("quit", 1, 2),
        base | {"end", "retrieved", "octets", "deleted", "left"},
    )
    yield lambda: session.not_updated(text), base | {"problem"}
    yield lambda: session.message_failed(name, text), base | {"uid", "problem"}


class LogLineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lines = logged_lines(self)

    def logged(self) -> list[str]:
        """The lines since this was last asked."""
        lines = self.lines.copy()
        self.lines.clear()
        return lines

    def assert_well_formed(self, line: str, name: bytes = b"") -> set[str]:
        self.assertIsNotNone(_LINE.fullmatch(line), f"{name!r}: {line!r}")
        self.assertTrue(line.isascii() and line.isprintable(), repr(line))
        self.assertLess(len(line), 6000)
        fields = _FIELD.findall(line)
        self.assertEqual(len({*(field for field, _ in fields)}), len(fields), line)
        return {field for field, _ in fields}

    @given(_names)
    def test_each_line_of_a_session_has_its_own_fields(self, name: bytes) -> None:
        peer = IPv6Address("TCP", "2001:db8::7", 4711)
        session = Session(Log(namespace="qmailldap.pop3"), lambda: peer, user=name)
        session.method, session.tls = "pass", "no"
        for leave, fields in _lines(session, name):
            leave()
            (line,) = self.logged()
            self.assertEqual(self.assert_well_formed(line, name), fields, line)
            self.assertIn(" peer=2001:db8::7 ", line + " ")

    def test_so_has_all_that_is_logged_of_a_login(self) -> None:
        log_at(self, LOGLEVEL=255)
        self.log_in_as()

    @_FEWER
    @given(_names)
    def log_in_as(self, name: bytes) -> None:
        shown = name.replace(b"\n", b"")[:200]
        actions = [Action("say", b"USER " + shown + b"\r\n"), *words(b"PASS wrong\r\n"), SETTLE]
        mail, leftovers = Mail(), Leftovers((PASSWORD,), ROOMS)
        try:
            play(actions, mail, leftovers, Options())
        finally:
            leftovers.stop()
            mail.remove()
        lines = self.logged()
        self.assertTrue(any(line.startswith("search ") for line in lines), lines)
        for line in lines:
            self.assert_well_formed(line, name)
