"""The id of a session in its lines, whoever logs them, and in nobody else's."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.client import Introduction
from qmailldap.log_words import words_of
from qmailldap.loglevel import Kind, Log, current_session, for_no_session
from qmailldap.session import Session

from .loglevels import log_at, logged_lines

_log = Log(namespace="qmailldap.test")
_of_all = Log(namespace="qmailldap.test", of_sessions=False)


def session_called(name: str, peer: str = "192.0.2.7") -> Session:
    return Session(_log, lambda: IPv4Address("TCP", peer, 4711), id=name)


class SessionLineTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        log_at(self, LOGLEVEL=255)
        self.lines = logged_lines(self)


class PeerTests(SynchronousTestCase):
    def test_an_address_of_ipv4_reads_the_same_by_whatever_socket_it_comes(self) -> None:
        addresses = {
            "192.0.2.7": "192.0.2.7",
            "::ffff:192.0.2.7": "192.0.2.7",
            "2001:db8::7": "2001:db8::7",
        }
        for host, shown in addresses.items():
            self.assertEqual(session_called("abc", host).peer, shown)

    def test_what_only_looks_like_one_is_shown_as_it_is(self) -> None:
        self.assertEqual(session_called("abc", "::ffff:nobody").peer, "::ffff:nobody")


class CarriedOutTests(SessionLineTestCase):
    def test_what_is_done_for_a_session_has_its_id_at_the_end(self) -> None:
        async def work() -> str:
            _log.debug("found user={user} entries=0", user="joe")
            return "done"

        done = session_called("abc").carry_out(work())
        self.assertEqual(self.successResultOf(done), "done")
        _log.debug("found user={user} entries=0", user="eve")
        self.assertEqual(
            self.lines, ["found user=joe entries=0 session=abc", "found user=eve entries=0"]
        )

    def test_whoever_goes_on_with_it(self) -> None:
        answers: dict[str, Deferred[None]] = {"a": Deferred(), "b": Deferred()}

        async def inner(name: str) -> None:
            await answers[name]
            _log.info("found user={user}", user=name)

        async def work(name: str) -> None:
            await Deferred.fromCoroutine(inner(name))
            _log.warn("proof user={user}", user=name)

        for name in answers:
            session_called(f"s{name}").carry_out(work(name))

        async def another() -> None:
            answers["b"].callback(None)
            answers["a"].callback(None)
            _log.info("found user=c")

        session_called("sc").carry_out(another())
        self.assertEqual(
            self.lines,
            [
                "found user=b session=sb",
                "proof user=b session=sb",
                "found user=a session=sa",
                "proof user=a session=sa",
                "found user=c session=sc",
            ],
        )
        self.assertEqual(current_session.get(), "")

    def test_one_that_fails_leaves_nothing_behind(self) -> None:
        async def work() -> None:
            raise ValueError

        self.failureResultOf(session_called("abc").carry_out(work()), ValueError)
        self.assertEqual(current_session.get(), "")

    def test_what_is_everybodys_has_none(self) -> None:
        async def connect() -> None:
            _log.debug("bind server=x")

        async def work() -> None:
            _of_all.warn("directory server x is down")
            await for_no_session(Deferred.fromCoroutine, connect())
            await succeed(None)
            _log.debug("search server=x")

        session_called("abc").carry_out(work())
        self.assertEqual(
            self.lines,
            ["directory server x is down", "bind server=x", "search server=x session=abc"],
        )

    def test_a_line_that_has_one_keeps_it(self) -> None:
        async def work() -> None:
            _log.info("forwarding session={session}", session="own")
            session_called("other").abandoned(b"joe")

        session_called("abc").carry_out(work())
        self.assertEqual(
            self.lines,
            ["forwarding session=own", "abandoned user=joe peer=192.0.2.7 session=other"],
        )

    def test_it_is_a_field_of_the_event(self) -> None:
        events: list[Any] = []
        observer: Any = events.append
        log = Log(namespace="qmailldap.test", observer=observer)

        async def work() -> None:
            log.failure("failed what=x", ValueError("x"))  # type: ignore[arg-type]

        session_called("abc").carry_out(work())
        (event,) = events
        fields, _ = words_of(event["log_format"]).fields(event)
        self.assertEqual(fields["session"], "abc")


class ConnectTests(SessionLineTestCase):
    def test_a_client_that_comes_is_told_with_where_it_came_to(self) -> None:
        for address, shown in (
            (IPv4Address("TCP", "192.0.2.1", 110), "192.0.2.1:110"),
            (IPv6Address("TCP", "2001:db8::1", 995), "[2001:db8::1]:995"),
            (UNIXAddress("/run/pop3"), "/run/pop3"),
            (UNIXAddress(None), "local"),
        ):
            session_called("abc").connected(lambda address=address: address)  # type: ignore[misc]
            self.assertEqual(self.lines.pop(), f"connect peer=192.0.2.7 session=abc at={shown}")

    def test_it_is_an_action_and_costs_nothing_where_nobody_reads_it(self) -> None:
        asked = []

        def at() -> IPv4Address:
            asked.append(1)
            return IPv4Address("TCP", "192.0.2.1", 110)

        for kind in Kind:
            log_at(self, LOGLEVEL=int(kind))
            session_called("abc").connected(at)
            session_called("abc").introduced(Introduction(session="def"))
        self.assertEqual(len(asked), 1)
        self.assertEqual([re.sub(" .*", "", line) for line in self.lines], ["connect", "xclient"])

    def test_an_id_that_is_told_leads_back_to_the_one_before(self) -> None:
        session = session_called("abc", peer="127.0.0.1")
        session.introduced(Introduction(host="192.0.2.9", session="def"))
        session.introduced(Introduction(host="192.0.2.9"))
        self.assertEqual(
            self.lines,
            [
                "xclient peer=192.0.2.9 session=def before=abc by=127.0.0.1",
                "xclient peer=192.0.2.9 session=def before=def by=127.0.0.1",
            ],
        )
