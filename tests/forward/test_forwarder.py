"""A login on another member, as that member, the client and the log see it."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import deferLater
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from qmailldap.account import RemoteAccount
from qmailldap.client import Client
from qmailldap.control import Control, Route, ServerAddress
from qmailldap.forward import ClusterTLS, ForwardedSession, Forwarder, ForwardLimits
from qmailldap.forward.addresses import REMEMBERED
from qmailldap.handover import Connection
from qmailldap.interfaces import IForwardedSession, Relayed
from qmailldap.refusal import LoginRefused, Refusal
from tests.forward.support import READ_AT_ONCE, ForwardTestCase, Names, Network, Wire
from tests.integration.certificates import write_certificate
from tests.loglevels import log_at
from tests.test_cluster import cluster, end

HOST = "mail2.example.org"
AT = "10.0.0.1"
PASSWORD = b'sec "ret\\'
# That and what would be left of it in a repr.
TRACES = ("sec", "ret\\")
LIMITS = ForwardLimits()
MOST_HELD = 2 * READ_AT_ONCE + 1024

net: Any = reactor


def cluster_tls(level: int = 0) -> ClusterTLS:
    return ClusterTLS(Control(ldapserver=(ServerAddress("localhost"),), pop3clustertls=level))


def client(**facts: Any) -> Client:
    facts = {"password": PASSWORD, "host": "192.0.2.7", "port": 4711, "session": "s1", **facts}
    return Client(**facts)


class ForwarderTestCase(ForwardTestCase):
    """A forwarder to one member, ``HOST`` at ``AT``, on the network of strings."""

    tls_level = 0

    def setUp(self) -> None:
        super().setUp()
        self.network.names.known[HOST] = [AT]
        self.cluster = cluster()
        self.forwarder = self.make_forwarder()

    def make_forwarder(self, limits: ForwardLimits = LIMITS) -> Forwarder:
        tls = cluster_tls(self.tls_level)
        return Forwarder(self.network, self.cluster, tls, self.network.names, limits)

    def log_in(
        self, mail_host: str = HOST, login: bytes = b"joe", **facts: Any
    ) -> Deferred[ForwardedSession]:
        asked = RemoteAccount(login, f"uid={login.decode('latin-1').lower()},dc=x", mail_host)
        return self.begin(self.forwarder.log_in(asked, client(**facts)))

    def wire(self) -> Wire:
        return self.connecting(AT)

    def greet(self, greeting: bytes = b"+OK ready\r\n") -> Wire:
        wire = self.wire()
        wire.accept()
        wire.say(greeting)
        return wire

    def step_to(self, command: bytes) -> Wire:
        """The member at the moment when it was told this command."""
        wire = self.greet(b"+OK [XCLIENT] ready\r\n")
        for _ in range(5):
            if wire.said().startswith(command):
                return wire
            wire.say(b"+OK\r\n")
        raise AssertionError(command)

    def refused(self, login: Deferred[ForwardedSession], refusal: Refusal) -> LoginRefused:
        """The refusal, which shows the password to nobody."""
        failure = self.failureResultOf(login, LoginRefused)
        error: LoginRefused = failure.value
        self.assertIs(error.refusal, refusal)
        shown = "".join(traceback.format_exception(error))
        for each in (str(error), repr(error), error.detail, shown, *self.log_lines()):
            for trace in TRACES:
                self.assertNotIn(trace, each)
        self.network.settle()
        return error

    def unreachable(self, login: Deferred[ForwardedSession]) -> str:
        error = self.refused(login, Refusal.MAILHOST_UNREACHABLE)
        self.assertEqual(error.answer, b"[SYS/TEMP] mailhost is unreachable")
        return error.detail


class LoginTests(ForwarderTestCase):
    def test_a_member_is_told_name_and_password_one_line_at_a_time(self) -> None:
        login = self.log_in()
        wire = self.greet()
        self.assertEqual(wire.said(), b"USER joe\r\n")
        wire.say(b"+OK\r\n")
        self.assertEqual(wire.said(), b"PASS " + PASSWORD + b"\r\n")
        self.assertNoResult(login)
        wire.say(b"+OK 3 messages\r\n")
        session = self.successResultOf(login)
        self.assertTrue(IForwardedSession.providedBy(session))
        self.assertEqual((session.mail_host, session.member), (HOST, f"{AT}:110"))
        self.assertEqual(wire.said(), b"")
        self.assertTrue(wire.open)
        session.close()
        self.network.settle()
        self.assertTrue(wire.gone)

    def test_octets_and_blanks_of_name_and_password_are_left_as_they_are(self) -> None:
        login = self.log_in(login=b"joe  \xff doe ", password=b"  two \x80 ")
        wire = self.greet()
        self.assertEqual(wire.said(), b"USER joe  \xff doe \r\n")
        wire.say(b"+OK\r\n")
        self.assertEqual(wire.said(), b"PASS   two \x80 \r\n")
        wire.say(b"+OK\r\n")
        self.successResultOf(login).close()

    def test_who_has_sent_no_password_is_logged_in_with_the_one_that_was_found(self) -> None:
        asked = RemoteAccount(b"joe", "uid=joe,dc=x", HOST, b"found")
        login = self.begin(self.forwarder.log_in(asked, client(password=b"")))
        wire = self.greet()
        self.assertEqual(wire.said(), b"USER joe\r\n")
        wire.say(b"+OK\r\n")
        self.assertEqual(wire.said(), b"PASS found\r\n")
        wire.say(b"+OK\r\n")
        self.successResultOf(login).close()
        login = self.begin(
            self.forwarder.log_in(attrs.evolve(asked, password=PASSWORD), client(password=b""))
        )
        self.step_to(b"PASS").say(b"-ERR not " + PASSWORD + b"\r\n")
        self.refused(login, Refusal.MEMBER_REFUSED)
        unspeakable = attrs.evolve(asked, password=b"two\r\nlines")
        login = self.begin(self.forwarder.log_in(unspeakable, client(password=b"")))
        self.assertIn("cannot stand on a line", self.unreachable(login))

    def test_a_route_says_where_the_member_is(self) -> None:
        self.cluster = cluster(Route(HOST, "10.0.0.9", 1110))
        self.forwarder = self.make_forwarder()
        login = self.log_in("Mail2.Example.ORG")
        wire = self.connecting("10.0.0.9")
        self.assertEqual(wire.port, 1110)
        wire.accept()
        wire.lose()
        detail = self.unreachable(login)
        self.assertTrue(detail.startswith(f"{HOST} at 10.0.0.9:1110: 10.0.0.9:1110 "), detail)
        self.assertEqual(self.network.names.asked, [])

    def test_each_address_of_the_member_is_tried(self) -> None:
        self.network.names.known[HOST] = ["2001:db8::1", AT]
        login = self.log_in()
        self.connecting("2001:db8::1").fail()
        wire = self.greet()
        wire.say(b"+OK\r\n", b"+OK\r\n")
        session = self.successResultOf(login)
        self.assertEqual(session.member, f"{AT}:110")
        session.close()

    def test_a_session_that_was_joined_is_not_closed(self) -> None:
        login = self.log_in()
        wire = self.greet()
        wire.say(b"+OK\r\n", b"+OK\r\n")
        session = self.successResultOf(login)
        session.join(b"", False, lambda _: None)
        session.close()
        self.network.settle()
        self.assertTrue(wire.open)
        wire.lose()

    def test_a_name_without_addresses_is_unreachable(self) -> None:
        self.network.names.known[HOST] = []
        self.assertEqual(self.unreachable(self.log_in()), f"{HOST}: {HOST} has no address")

    def test_what_is_no_name_is_unreachable(self) -> None:
        for name in ("", ".", "a..b", "\ud800", "mail\0", "x" * 300):
            self.assertIn("has no address", self.unreachable(self.log_in(name)), name)

    def test_a_resolver_that_is_silent_takes_its_time_out_of_the_thirty_seconds(self) -> None:
        del self.network.names.known[HOST]
        login = self.log_in()
        self.network.advance(LIMITS.reach - 1)
        self.network.names.answer(AT)
        self.wire().accept()
        self.network.advance(1)
        self.unreachable(login)

    def test_a_resolver_that_never_answers_leaves_the_member_unreachable(self) -> None:
        del self.network.names.known[HOST]
        login = self.log_in()
        self.network.advance(LIMITS.reach)
        self.assertIn("has no address", self.unreachable(login))

    def test_a_login_that_is_given_up_leaves_nothing_behind(self) -> None:
        def connecting() -> None: ...

        def greeting() -> None:
            self.wire().accept()

        def telling(command: bytes) -> Callable[[], object]:
            return lambda: self.step_to(command)

        steps = (connecting, greeting, *map(telling, (b"XCLIENT", b"USER", b"PASS")))
        for step in steps:
            login = self.log_in()
            step()
            login.cancel()
            self.failureResultOf(login, CancelledError)
            self.nothing_is_left()
            self.assertEqual(self.log_lines(), [])
            self.assertEqual(self.forwarder._under_way, {})
        self.network.advance(REMEMBERED)
        del self.network.names.known[HOST]
        login = self.log_in()
        login.cancel()
        self.failureResultOf(login, CancelledError)
        self.network.names.answer(AT)
        self.assertEqual(self.network.standing(), [])


class JoinTests(ForwarderTestCase):
    def joined(self, answer: bytes, *behind: bytes, unread: bytes = b"") -> tuple[Wire, Wire]:
        """The member's wire and the client's, of a session that is joined."""
        login = self.log_in()
        wire = self.greet()
        wire.say(b"+OK\r\n")
        wire.said()
        wire.say(answer, *behind)
        self.ended: list[Relayed] = []
        theirs = Wire(self.network, "192.0.2.7")
        self.network.wires.append(theirs)
        protocol = self.successResultOf(login).join(unread, False, self.ended.append)
        theirs.protocol = Connection(protocol)
        theirs.protocol.makeConnection(theirs)
        return wire, theirs

    def end(self, wire: Wire, theirs: Wire) -> Relayed:
        wire.lose()
        theirs.lose()
        (relayed,) = self.ended
        return relayed

    def test_the_answer_to_pass_is_the_clients(self) -> None:
        for answer, text in (
            (b"+OK\r\n", b"+OK \r\n"),
            (b"+OK 3 messages\n", b"+OK 3 messages\r\n"),
            (b"+OK  [X] \x80\r\n", b"+OK  [X] \x80\r\n"),
        ):
            wire, theirs = self.joined(answer)
            self.assertEqual(theirs.said(), text)
            self.end(wire, theirs)

    def test_what_came_behind_it_follows(self) -> None:
        wire, theirs = self.joined(b"+OK\r\n+OK 0 0\r\n", b".", unread=b"STAT\r\nQUIT\r\n")
        self.assertEqual(theirs.said(), b"+OK \r\n+OK 0 0\r\n.")
        self.assertEqual(wire.said(), b"STAT\r\nQUIT\r\n")
        wire.say(b"more")
        self.assertEqual(theirs.said(), b"more")
        self.end(wire, theirs)

    def test_much_that_came_behind_it_follows_too(self) -> None:
        mail = b"0123456789" * 100_000
        wire, theirs = self.joined(b"+OK\r\n" + mail)
        self.network.settle()
        said = theirs.said()
        self.assertEqual(len(said), len(b"+OK \r\n" + mail))
        self.assertEqual(said, b"+OK \r\n" + mail)
        self.assertEqual(self.end(wire, theirs).sent, len(said))

    def test_a_member_that_closed_behind_its_answer_is_heard_to_the_end(self) -> None:
        for settled in (False, True):
            login = self.log_in()
            wire = self.greet()
            wire.say(b"+OK\r\n")
            wire.say(b"+OK\r\n+OK bye\r\n")
            wire.close()
            if settled:
                self.network.settle()
            self.ended = []
            theirs = Wire(self.network, "192.0.2.7")
            self.network.wires.append(theirs)
            protocol = self.successResultOf(login).join(b"QUIT\r\n", False, self.ended.append)
            theirs.protocol = Connection(protocol)
            theirs.protocol.makeConnection(theirs)
            self.assertEqual(theirs.said(), b"+OK \r\n+OK bye\r\n")
            self.network.settle()
            self.assertTrue(wire.gone)
            theirs.lose()
            self.assertEqual(len(self.ended), 1)


class RefusalTests(ForwarderTestCase):
    def test_the_client_hears_what_the_member_says_to_the_password(self) -> None:
        everything = bytes(octet for octet in range(256) if octet not in b"\n")
        for text in (b"", b"[AUTH] no", b"[IN-USE]  later ", everything, b"x" * 505):
            login = self.log_in()
            wire = self.step_to(b"PASS")
            wire.say(b"-ERR " + text + b"\r\n")
            error = self.refused(login, Refusal.MEMBER_REFUSED)
            self.assertEqual(error.answer, text)
            self.assertIn(f"{HOST}, {AT}:110: ", error.detail)
            self.assertRegex(error.detail, r"\A[ -~]*\Z")
            self.assertTrue(wire.gone)
        self.assertEqual(self.log_lines(), [])

    def test_a_refusal_one_octet_too_long_is_none(self) -> None:
        login = self.log_in()
        self.step_to(b"PASS").say(b"-ERR " + b"x" * 506 + b"\r\n")
        self.assertIn("more than 512 octets", self.unreachable(login))

    def test_the_password_is_not_logged_when_the_member_repeats_it(self) -> None:
        for answer in (b"wrong: %b", b"%b", b"x" * 100 + b"%b" + b"x" * 100):
            text = answer.replace(b"%b", PASSWORD)
            login = self.log_in()
            self.step_to(b"PASS").say(b"-ERR " + text + b"\r\n")
            # The client may hear it: it said it.
            self.assertEqual(self.refused(login, Refusal.MEMBER_REFUSED).answer, text)
            for garbage in (b"-ERR" + text, text, b"+OKAY " + text, b"* OK " + text):
                login = self.log_in()
                self.step_to(b"PASS").say(garbage + b"\r\n")
                self.assertIn("what was said to it", self.unreachable(login))

    def test_a_refusal_before_the_password_is_the_members_fault(self) -> None:
        for command in (b"XCLIENT", b"USER"):
            login = self.log_in()
            wire = self.step_to(command)
            wire.say(b"-ERR [AUTH] no\r\n")
            detail = self.unreachable(login)
            self.assertEqual(detail, f'{HOST}: {AT}:110 wants no login: "[AUTH] no"')
            self.assertTrue(wire.gone)
            self.assertNotIn(b"PASS", wire.said())

    def test_a_greeting_with_err_is_told(self) -> None:
        login = self.log_in()
        self.greet(b"-ERR [SYS/TEMP] busy\r\n")
        detail = self.unreachable(login)
        self.assertEqual(detail, f'{HOST}: {AT}:110 greets with -ERR "[SYS/TEMP] busy"')

    def test_each_answer_has_its_limit(self) -> None:
        for command, limit in (
            (b"XCLIENT", LIMITS.answer),
            (b"USER", LIMITS.answer),
            (b"PASS", LIMITS.password),
        ):
            login = self.log_in()
            wire = self.step_to(command)
            self.network.advance(limit - 0.1)
            self.assertNoResult(login)
            self.network.advance(0.1)
            detail = self.unreachable(login)
            self.assertEqual(
                detail,
                f"{HOST}: {AT}:110 gave no answer to {command.decode()} within {limit:g} s",
            )
            self.assertTrue(wire.aborted)
        self.assertEqual(self.log_lines(), [])

    def test_each_way_to_misbehave_at_each_step_leaves_the_member_unreachable(self) -> None:
        ways: dict[str, Callable[[Wire], object]] = {
            "more than 512 octets": lambda wire: wire.say(b"x" * 1_000_000),
            "closed cleanly": lambda wire: wire.close(),
            "clean fashion|lost": lambda wire: wire.lose(),
        }
        steps = itertools.product((b"XCLIENT", b"USER", b"PASS"), (b"", b"+OK half "))
        for command, half in steps:
            for words, misbehave in ways.items():
                login = self.log_in()
                wire = self.step_to(command)
                wire.say(half)
                misbehave(wire)
                detail = self.unreachable(login)
                self.assertRegex(detail, f"gave no answer to {command.decode()}.*({words})")
                self.assertTrue(wire.gone)
            login = self.log_in()
            self.step_to(command).say(b"hello\r\n")
            self.assertIn(", but hello", self.unreachable(login))
        # A member that has greeted is not down, whatever comes then.
        self.assertEqual(self.log_lines(), [])

    def test_who_answers_more_than_it_is_asked_is_told_no_password(self) -> None:
        login = self.log_in()
        wire = self.greet(b"+OK\r\n+OK\r\n")
        self.assertIn("spoke before it was asked: USER", self.unreachable(login))
        login = self.log_in()
        wire = self.step_to(b"USER")
        wire.say(b"+OK\r\n+OK\r\n")
        self.assertIn("spoke before it was asked: PASS", self.unreachable(login))
        self.assertEqual(wire.said(), b"")
        login = self.log_in()
        wire = self.step_to(b"USER")
        wire.say(b"+OK\r\n" + b"x" * 1_000_000)
        self.assertIn("spoke before it was asked: PASS", self.unreachable(login))

    def test_a_fault_in_the_program_leaves_no_connection(self) -> None:
        login = self.log_in(session="ö")
        wire = self.greet(b"+OK [XCLIENT]\r\n")
        self.failureResultOf(login, UnicodeEncodeError)
        self.network.settle()
        self.assertTrue(wire.gone)
        self.assertEqual(self.forwarder._under_way, {})

    @settings(deadline=None)
    @given(
        st.lists(
            st.sampled_from([b"+OK\r\n", b"+OK [XCLIENT]\r\n", b"-ERR no\r\n", b"", b"\n"])
            | st.binary(max_size=600)
            | st.binary(max_size=3).map(lambda some: some * 50_000),
            max_size=8,
        ),
        st.sampled_from(["close", "lose", "stay"]),
    )
    def test_any_member_ends_in_a_session_or_a_refusal(
        self, packets: list[bytes], ending: str
    ) -> None:
        network = self.network = Network()
        network.names.known[HOST] = [AT]
        self.forwarder = self.make_forwarder()
        login = self.log_in()
        wire = self.wire()
        wire.accept()
        for packet in packets:
            if not wire.gone:
                wire.say(packet)
                self.assertLessEqual(len(wire.protocol._speaker._unread), MOST_HELD)
                network.settle()
        if ending != "stay":
            getattr(wire, ending)()
        for _ in range(4):
            network.advance(LIMITS.password)
        outcome: list[Any] = []
        login.addBoth(outcome.append)
        (result,) = outcome
        if isinstance(result, Failure):
            result.trap(LoginRefused)
            self.assertTrue(wire.gone)
        else:
            result.close()
        self.nothing_is_left()


class IntroductionTests(ForwarderTestCase):
    def introduction(self, greeting: bytes = b"+OK [XCLIENT] ready\r\n", **facts: Any) -> bytes:
        login = self.log_in(**facts)
        wire = self.greet(greeting)
        said = wire.said()
        wire.lose()
        self.unreachable(login)
        return said

    def test_the_client_is_introduced_where_the_member_wants_that(self) -> None:
        for facts, words in (
            ({}, b"ADDR=192.0.2.7 PORT=4711 SESSION=s1 TTL=4"),
            ({"host": "2001:DB8:0::7"}, b"ADDR=2001:db8::7 PORT=4711 SESSION=s1 TTL=4"),
            ({"host": "::ffff:192.0.2.7"}, b"ADDR=192.0.2.7 PORT=4711 SESSION=s1 TTL=4"),
            ({"host": "::ffff:c000:207"}, b"ADDR=192.0.2.7 PORT=4711 SESSION=s1 TTL=4"),
            ({"host": "fe80::1%eth0"}, b"ADDR=fe80::1 PORT=4711 SESSION=s1 TTL=4"),
            ({"port": 0}, b"ADDR=192.0.2.7 SESSION=s1 TTL=4"),
            ({"host": "", "port": 0}, b"SESSION=s1 TTL=4"),
            ({"host": "/run/socket", "port": 9}, b"SESSION=s1 TTL=4"),
            ({"host": "", "port": 0, "session": ""}, b"TTL=4"),
            ({"ttl": 2}, b"ADDR=192.0.2.7 PORT=4711 SESSION=s1 TTL=1"),
            ({"ttl": 255}, b"ADDR=192.0.2.7 PORT=4711 SESSION=s1 TTL=254"),
        ):
            self.assertEqual(self.introduction(**facts), b"XCLIENT " + words + b"\r\n")

    def test_the_name_follows_the_introduction(self) -> None:
        login = self.log_in()
        wire = self.greet(b"+OK [XCLIENT]\r\n")
        self.assertTrue(wire.said().startswith(b"XCLIENT "))
        wire.say(b"+OK Updated\r\n")
        self.assertEqual(wire.said(), b"USER joe\r\n")
        wire.say(b"+OK\r\n", b"+OK\r\n")
        self.successResultOf(login).close()

    def test_others_are_not_told_who_the_client_is(self) -> None:
        for greeting in (b"+OK\r\n", b"+OK ready [XCLIENT]\r\n", b"+OK [xclient]\r\n"):
            self.assertEqual(self.introduction(greeting), b"USER joe\r\n")


class GuardTests(ForwarderTestCase):
    def test_a_session_that_came_a_long_way_is_not_forwarded(self) -> None:
        for ttl in (1, 0, -1):
            self.assertIn("too often", self.unreachable(self.log_in(ttl=ttl)))
        self.assertEqual(self.network.wires, [])
        self.assertEqual(self.network.names.asked, [])

    def test_a_name_or_password_that_is_no_line_is_not_sent(self) -> None:
        for octet in (b"\r", b"\n", b"\0"):
            for login, password in (
                (b"joe" + octet + b"DELE 1", PASSWORD),
                (b"joe", PASSWORD + octet),
                (octet, octet),
            ):
                refused = self.log_in(login=login, password=password)
                self.assertIn("cannot stand on a line", self.unreachable(refused))
        self.assertEqual(self.network.wires, [])

    def spoken_to(
        self, greeting: bytes = b"+OK\r\n", login: bytes = b"joe"
    ) -> tuple[Deferred[ForwardedSession], Wire]:
        """A login and its member, which has greeted."""
        return self.log_in(login=login), self.greet(greeting)

    def let_go(self, *logins: Deferred[ForwardedSession]) -> None:
        for login in logins:
            self.assertNoResult(login)
            login.cancel()
            self.failureResultOf(login, CancelledError)

    def test_more_logins_of_one_name_than_members_in_a_circle_make_are_refused(self) -> None:
        asked = [self.spoken_to()[0] for _ in range(LIMITS.same_login)]
        # Of one user, that is, however the name is spelt.
        one_more, wire = self.spoken_to(login=b"Joe")
        self.network.advance(LIMITS.same_login_wait)
        self.assertIn("Do they forward to each other?", self.unreachable(one_more))
        self.assertEqual(wire.said(), b"")
        self.assertTrue(wire.aborted)
        self.assertEqual(self.log_lines(), [])
        other, wire = self.spoken_to(login=b"jim")
        self.assertEqual(wire.said(), b"USER jim\r\n")
        self.let_go(*asked, other)

    def test_mail_programs_that_come_in_numbers_wait_for_each_other(self) -> None:
        asked = [self.spoken_to() for _ in range(3 * LIMITS.same_login)]
        for login, wire in asked:
            self.assertEqual(wire.said(), b"USER joe\r\n")
            wire.say(b"+OK\r\n", b"+OK\r\n")
            self.successResultOf(login).close()

    def test_where_hops_are_counted_any_number_is_under_way(self) -> None:
        asked = [self.spoken_to(b"+OK [XCLIENT]\r\n") for _ in range(3 * LIMITS.same_login)]
        for _, wire in asked:
            self.assertIn(b"TTL=4", wire.said())
        self.let_go(*(login for login, _ in asked))

    def test_each_way_to_end_makes_room_for_one_more(self) -> None:
        def answer(*answers: bytes) -> Callable[[Wire], None]:
            return lambda wire: wire.say(*answers)

        for ending in (
            answer(b"+OK\r\n", b"+OK\r\n"),
            answer(b"-ERR\r\n"),
            answer(b"+OK\r\n", b"-ERR\r\n"),
            Wire.lose,
        ):
            asked = [self.spoken_to() for _ in range(LIMITS.same_login)]
            one_more, wire = self.spoken_to()
            ending(asked[0][1])
            self.assertEqual(wire.said(), b"USER joe\r\n")
            for login, _ in asked[1:]:
                login.cancel()
                self.failureResultOf(login, CancelledError)
            self.let_go(one_more)
            asked[0][0].addCallbacks(
                ForwardedSession.close, lambda failure: failure.trap(LoginRefused)
            )
            self.successResultOf(asked[0][0])
            self.network.settle()

    def test_who_leaves_makes_room_for_one_more(self) -> None:
        asked = [self.spoken_to() for _ in range(LIMITS.same_login)]
        waiting, _ = self.spoken_to()
        one_more, wire = self.spoken_to()
        self.let_go(waiting, asked[0][0])
        self.network.settle()
        self.assertEqual(wire.said(), b"USER joe\r\n")
        self.let_go(one_more, *(login for login, _ in asked[1:]))

    def test_logins_at_a_member_are_bounded_and_others_are_served(self) -> None:
        self.network.names.known["mail3.example.org"] = ["10.0.0.3"]
        self.forwarder = self.make_forwarder(ForwardLimits(logins=3))
        asked = [self.log_in(login=name) for name in (b"a", b"b", b"b")]
        self.assertIn("3 logins are under way", self.unreachable(self.log_in(login=b"c")))
        asked.append(self.log_in("mail3.example.org", login=b"c"))
        self.let_go(asked.pop(0))
        asked.append(self.log_in(login=b"c"))
        self.let_go(*asked)

    def test_ourselves_are_not_spoken_to(self) -> None:
        self.cluster.listens_on(end("0.0.0.0"))
        own = "192.0.2.1"
        self.network.names.known[HOST] = [own]
        for _ in range(2):
            login = self.log_in()
            wire = self.connecting(own)
            wire.accept()
            self.assertIn("is this server itself", self.unreachable(login))
            self.assertTrue(wire.aborted)
            self.assertEqual(wire.said(), b"")
        self.assertEqual(self.log_lines(), [])

    def test_the_next_address_is_tried_when_one_is_our_own(self) -> None:
        self.cluster.listens_on(end("192.0.2.1"))
        self.network.names.known[HOST] = ["192.0.2.1", AT]
        login = self.log_in()
        self.connecting("192.0.2.1").accept()
        self.greet().say(b"+OK\r\n", b"+OK\r\n")
        self.successResultOf(login).close()


class StartTLSTests(ForwarderTestCase):
    """Where TLS is used if the member has it; the handshake itself is not made."""

    tls_level = 1

    def starting(self) -> tuple[Deferred[ForwardedSession], Wire]:
        login = self.log_in()
        wire = self.greet(b"+OK [XCLIENT]\r\n")
        self.assertEqual(wire.said(), b"STLS\r\n")
        return login, wire

    def test_the_rest_is_said_in_tls(self) -> None:
        login, wire = self.starting()
        wire.say(b"+OK\r\n")
        self.assertIsNotNone(wire.secured)
        self.assertTrue(wire.said().startswith(b"XCLIENT "))
        wire.say(b"+OK\r\n", b"+OK\r\n", b"+OK\r\n")
        self.successResultOf(login).close()

    def test_a_member_without_tls_is_logged_in_on_all_the_same(self) -> None:
        login, wire = self.starting()
        wire.say(b"-ERR unimplemented\r\n")
        self.assertIsNone(wire.secured)
        wire.say(b"+OK\r\n", b"+OK\r\n", b"+OK\r\n")
        self.successResultOf(login).close()

    def test_the_log_says_whether_it_is_used(self) -> None:
        log_at(self, LOGLEVEL=8)
        for answer, tls in ((b"+OK\r\n", "yes"), (b"-ERR unimplemented\r\n", "no")):
            login, wire = self.starting()
            wire.say(answer, b"+OK\r\n", b"+OK\r\n", b"-ERR no\r\n")
            start = f"forwarding user=joe session=s1 mailhost={HOST} member={AT}:110"
            self.assertEqual(self.log_lines(), [f"{start} tls={tls} xclient=yes"])
            self.refused(login, Refusal.MEMBER_REFUSED)

    def test_where_tls_is_required_it_is_not(self) -> None:
        self.tls_level = 2
        self.forwarder = self.make_forwarder()
        login, wire = self.starting()
        wire.say(b"-ERR unimplemented\r\n")
        self.assertIn(f"{AT}:110 speaks no TLS: unimplemented", self.unreachable(login))
        self.assertEqual(wire.said(), b"")

    def test_where_tls_is_required_the_member_needs_a_name(self) -> None:
        self.tls_level = 2
        self.cluster = cluster(Route("", AT, 110))
        self.forwarder = self.make_forwarder()
        login = self.log_in("mail_*")
        wire = self.greet()
        self.assertIn("cannot be verified", self.unreachable(login))
        self.assertEqual(wire.said(), b"")

    def test_the_answer_to_stls_has_its_limit(self) -> None:
        login, _ = self.starting()
        self.network.advance(LIMITS.answer - 0.1)
        self.assertNoResult(login)
        self.network.advance(0.1)
        self.assertIn("gave no answer to STLS within 10 s", self.unreachable(login))

    def test_each_way_to_misbehave_leaves_the_member_unreachable(self) -> None:
        ways: dict[str, Callable[[Wire], object]] = {
            "but hello": lambda wire: wire.say(b"hello\r\n"),
            "more than 512 octets": lambda wire: wire.say(b"x" * 1_000_000),
            "closed cleanly": lambda wire: wire.close(),
            "lost": lambda wire: wire.lose(),
            "in plain text behind": lambda wire: wire.say(b"+OK\r\n+OK\r\n"),
            "in plain text": lambda wire: wire.say(b"+OK\r\n" + b"x" * 1_000_000),
        }
        for level in (1, 2):
            self.tls_level = level
            self.forwarder = self.make_forwarder()
            for words, misbehave in ways.items():
                login, wire = self.starting()
                misbehave(wire)
                self.assertIn(words, self.unreachable(login))
                self.assertTrue(wire.gone)
                self.assertEqual(wire.said(), b"")

    def test_a_handshake_that_never_ends_has_the_limit_of_the_next_answer(self) -> None:
        login, wire = self.starting()
        wire.say(b"+OK\r\n")
        self.network.advance(LIMITS.answer)
        self.assertIn("gave no answer to XCLIENT within 10 s", self.unreachable(login))


class RealMember(LineReceiver):
    """Accepts everything; says in ``seen`` whether it was told in TLS."""

    transport: Any
    seen: list[tuple[bytes, bool]]
    context: Any = None
    plain = b""
    pause: float | None = None

    def connectionMade(self) -> None:
        self.secure = False
        self.sendLine(b"+OK [XCLIENT] ready")

    def lineReceived(self, line: bytes) -> None:
        self.seen.append((line.split()[0], self.secure))
        if line == b"STLS" and self.plain:
            if self.pause is None:
                self.transport.write(b"+OK\r\n" + self.plain)
            else:
                self.transport.write(b"+OK\r\n")
                net.callLater(self.pause, self.transport.write, self.plain)
                self.setRawMode()
        elif line == b"STLS":
            self.sendLine(b"+OK begin")
            self.secure = True
            self.transport.startTLS(self.context)
        else:
            self.sendLine(b"+OK")

    def rawDataReceived(self, data: bytes) -> None:
        """A handshake, which this member does not understand."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.seen.append((b"", self.secure))


class RealTLSTests(TestCase):
    """Real handshakes on loopback."""

    timeout = 20.0

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.certificate = folder / "cert.pem"
        write_certificate(self.certificate, HOST)
        self.seen: list[tuple[bytes, bool]] = []

    def forwarder(self, level: int, **facts: Any) -> Forwarder:
        made = PrivateCertificate.loadPEM(self.certificate.read_bytes())
        factory = Factory.forProtocol(RealMember)
        facts |= {"seen": self.seen, "context": made.options()}

        def build(_: object) -> RealMember:
            member = RealMember()
            vars(member).update(facts)
            return member

        factory.buildProtocol = build  # type: ignore[assignment,method-assign]
        port = net.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        control = Control(
            ldapserver=(ServerAddress("localhost"),),
            pop3clustertls=level,
            pop3clusterca=self.certificate,
            directory=str(self.certificate.parent),
        )
        routes = Route("", "127.0.0.1", port.getHost().port)
        return Forwarder(net, cluster(routes), ClusterTLS(control), Names())

    async def until_lost(self) -> list[tuple[bytes, bool]]:
        while not self.seen or self.seen[-1][0]:
            await deferLater(net, 0.01)
        return self.seen[:-1]

    async def test_the_password_is_said_in_tls(self) -> None:
        for level in (1, 2):
            self.seen = []
            session = await self.forwarder(level).log_in(
                RemoteAccount(b"joe", "uid=joe", HOST), client()
            )
            session.close()
            self.assertEqual(
                await self.until_lost(),
                [(b"STLS", False), (b"XCLIENT", True), (b"USER", True), (b"PASS", True)],
            )

    async def refused(self, forwarder: Forwarder, mail_host: str = HOST) -> str:
        with self.assertRaises(LoginRefused) as caught:
            await forwarder.log_in(RemoteAccount(b"joe", "uid=joe", mail_host), client())
        self.assertIs(caught.exception.refusal, Refusal.MAILHOST_UNREACHABLE)
        self.assertEqual(await self.until_lost(), [(b"STLS", False)])
        return str(caught.exception.detail)

    async def test_another_member_than_the_one_meant_hears_nothing(self) -> None:
        detail = await self.refused(self.forwarder(2), "mail3.example.org")
        self.assertIn(f"its certificate is for {HOST}", detail)

    async def test_plain_text_behind_the_answer_to_stls_is_refused(self) -> None:
        detail = await self.refused(self.forwarder(1, plain=b"+OK\r\n+OK\r\n"))
        self.assertIn("spoke in plain text behind its answer to STLS", detail)

    async def test_nor_is_it_believed_when_it_comes_a_little_later(self) -> None:
        for level in (1, 2):
            self.seen = []
            detail = await self.refused(self.forwarder(level, plain=b"+OK\r\n" * 3, pause=0.05))
            self.assertRegex(detail, r"gave no answer to XCLIENT: .*(wrong|version|packet)")
