"""All that can go wrong with a member, and with clients while it does not get on."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Mapping

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from .clients import Conversation
from .cluster import UNREACHABLE, ScriptedTestCase
from .members import Caller, Script
from .process_table import resident
from .processes import wait_until
from .scripts import (
    GREETING,
    TRUSTING,
    UNTIL_JOINED,
    UNTIL_PASS,
    UNTIL_USER,
    Step,
    endless,
    script,
    slowly,
)
from .site import PASSWORD

HALF_A_MESSAGE = b"+OK \r\nSubject: half\r\n\r\n" + b"of it\r\n" * 5_000


def at_each_step(trouble: Mapping[str, tuple[Step, ...]]) -> dict[str, Script]:
    """The same trouble with the greeting, with the answer to USER, and with that to PASS."""
    return {
        f"{name} at {step}": script(*before, *steps)
        for name, steps in trouble.items()
        for step, before in (("greeting", ()), ("USER", UNTIL_USER), ("PASS", UNTIL_PASS))
    }


SILENT = {
    "no greeting": script(),
    "no answer to XCLIENT": script(TRUSTING),
    "no answer to USER": script(GREETING),
}

UNUSABLE = {
    **at_each_step(
        {
            "closes": (Caller.close,),
            "resets": (Caller.reset,),
            "half-closes": (Caller.half_close,),
            "half a line and closes": (b"+OK ", Caller.close),
            "half a line and half-closes": (b"+OK ", Caller.half_close),
            "no POP3": (b"220 mail.example.org ESMTP\r\n",),
            "no text": (bytes(range(256)) + b"\r\n",),
            "an empty line": (b"\r\n",),
            "nearly +OK": (b"+OKAY\r\n",),
            "a line of 513 octets": (b"+OK " + b"x" * 507 + b"\r\n",),
            "a line without end": (endless(b"+OK " + b"x" * 65536),),
            "lines without end": (endless(b"hello\r\n" * 8192),),
        }
    ),
    "-ERR at once": script(b"-ERR [SYS/TEMP] come back later\r\n", Caller.close),
    "-ERR at USER": script(*UNTIL_USER, b"-ERR [AUTH] not you\r\n"),
    "-ERR at XCLIENT": script(TRUSTING, Caller.hear, b"-ERR unimplemented\r\n"),
    "greets and goes on": script(GREETING + b"+OK \r\n+OK \r\n", Caller.hear, Caller.hear),
    "answers USER twice": script(*UNTIL_USER, b"+OK \r\n+OK \r\n", Caller.hear),
}
"""With none of these anybody can be logged in."""

REFUSALS = (
    b"-ERR [AUTH] not today",
    b"-ERR [SYS/TEMP] try again later",
    b"-ERR [IN-USE] \xe4 locked mailbox",
    f"-ERR wrong password {PASSWORD}".encode(),
    b"-ERR " + b"x" * 505,
)

LONGEST = b"+OK " + b"x" * 506 + b"\r\n"

USABLE: dict[str, tuple[Script, bytes]] = {
    "closes at once": (script(*UNTIL_JOINED, Caller.close), b"+OK \r\n"),
    "speaks first": (
        script(*UNTIL_PASS, b"+OK in\r\n+OK early\r\n", Caller.hear, Caller.close),
        b"+OK in\r\n+OK early\r\n",
    ),
    "ends lines with LF": (
        script(b"+OK hi\n", Caller.hear, b"+OK\n", Caller.hear, b"+OK in\n+OK 0\n", Caller.close),
        b"+OK in\r\n+OK 0\n",
    ),
    "an octet a packet": (
        script(
            *(slowly(GREETING), Caller.hear, slowly(b"+OK \r\n"), Caller.hear),
            *(slowly(b"+OK in\r\n"), Caller.hear, slowly(b"+OK 0 0\r\n"), Caller.close),
        ),
        b"+OK in\r\n+OK 0 0\r\n",
    ),
    "the longest line": (
        script(LONGEST, Caller.hear, LONGEST, Caller.hear, LONGEST, Caller.close),
        LONGEST,
    ),
    "closes in a message": (
        script(*UNTIL_JOINED, Caller.hear, HALF_A_MESSAGE, Caller.close),
        b"+OK \r\n" + HALF_A_MESSAGE,
    ),
    "half-closes in a message": (
        script(*UNTIL_JOINED, Caller.hear, HALF_A_MESSAGE, Caller.half_close),
        b"+OK \r\n" + HALF_A_MESSAGE,
    ),
}
"""Members with peculiarities, and what the client gets from PASS on, until the connection ends."""


class TroubleTests(ScriptedTestCase):
    async def test_a_login_that_comes_to_nothing_is_refused_and_its_connection_closed(self) -> None:
        for name, each in {**SILENT, **UNUSABLE}.items():
            self.keep(name, each)
        self.user("ann")
        await self.start_fronts({})
        begun = time.monotonic()
        silent = {name: Deferred.fromCoroutine(self.answer(name)) for name in SILENT}
        before = resident(self.server.network.pid)
        for name in UNUSABLE:
            at_once = time.monotonic()
            self.assertEqual(await self.answer(name), UNREACHABLE, name)
            self.assertLess(time.monotonic() - at_once, 2, name)
            user = self.logins[name]
            await self.in_log(1, f"refused user={user} .*reason=mailhost-unreachable detail=.*127")
        self.assertLess(resident(self.server.network.pid) - before, 16 * 2**20)
        await self.assert_serves("ann")
        for name, answer in silent.items():
            self.assertEqual(await answer, UNREACHABLE, name)
        # 10 seconds a step; they all waited at the same time.
        self.assertTrue(9.5 < time.monotonic() - begun < 15, time.monotonic() - begun)
        # Whoever does not greet is known by now, and is not asked again.
        at_once = time.monotonic()
        self.assertEqual(await self.answer("no greeting"), UNREACHABLE)
        self.assertLess(time.monotonic() - at_once, 1)
        self.assertEqual(len(self.scripted["no greeting"].callers), 1)
        await self.assert_all_ended()

    async def test_what_a_member_says_to_pass_and_later_reaches_the_client_as_it_is(self) -> None:
        for refusal in REFUSALS:
            self.keep(repr(refusal), script(*UNTIL_PASS, refusal + b"\r\n", Caller.close))
        for name, (each, _) in USABLE.items():
            self.keep(name, each)
        self.keep("resets", script(*UNTIL_JOINED, Caller.hear, HALF_A_MESSAGE, Caller.reset))
        await self.start_fronts({})
        for refusal in REFUSALS:
            login = self.login(repr(refusal))

            def session(connection: Conversation, login: bytes = login) -> list[bytes]:
                """The client goes on as if nothing had been, until it has failed too often."""
                connection.send(login)
                answers = [connection.full_line(), connection.full_line()]
                connection.send(login * 2)
                return [*answers, *connection.rest().splitlines(keepends=True)]

            answers = await self.converse(session)
            self.assertEqual(answers, [b"+OK \r\n", refusal + b"\r\n"] * 3)
        logged = re.findall("refused .*reason=member-refused detail=.*", self.server.log)
        self.assertEqual(len(logged), 3 * len(REFUSALS))
        for name, (_, expected) in USABLE.items():
            received = await self.session_at(1, self.login(name) + b"RETR 1\r\n")
            self.assertEqual(received, b"+OK \r\n" + expected, name)
        received = await self.session_at(1, self.login("resets") + b"RETR 1\r\n")
        self.assertTrue((b"+OK \r\n" * 2 + HALF_A_MESSAGE).startswith(received), received)
        await self.in_log(1, f"logout user={self.logins['resets']} .*end=member-lost")
        await self.assert_all_ended()

    async def test_tls_that_comes_to_nothing_is_no_reason_to_do_without(self) -> None:
        behind_stls = {
            "plain text with the answer": (b"+OK \r\n+OK \r\n",),
            "plain text": (b"+OK \r\n", Caller.hear, GREETING, Caller.hear),
            "closes": (b"+OK \r\n", Caller.close),
            "resets": (b"+OK \r\n", Caller.reset),
            "no POP3": (b"what\r\n",),
        }
        for name, steps in behind_stls.items():
            self.keep(name, script(*UNTIL_USER, *steps))
        await self.start_fronts({"pop3clustertls": "1"}, {"pop3clustertls": "2"})
        for front in self.members:
            for name in behind_stls:
                self.assertEqual(await self.answer(name, front), UNREACHABLE, name)
        for name, member in self.scripted.items():
            for caller in member.callers:
                self.assertTrue(caller.received.startswith(b"STLS\r\n"), name)
                self.assertNotIn(b"USER", caller.received, name)
        await self.assert_all_ended()

    async def test_a_member_that_does_not_read_makes_no_memory_grow(self) -> None:
        self.keep("busy", script(*UNTIL_JOINED, lambda _: released.wait(20)))
        self.user("ann")
        released = threading.Event()
        await self.start_fronts({})
        connection = await self.connect_to(1)
        await deferToThread(connection.log_in, self.logins["busy"], PASSWORD)
        before = resident(self.server.network.pid)
        connection.set_limit(1)

        def send() -> None:
            with contextlib.suppress(TimeoutError):
                for _ in range(256):
                    connection.send(b"NOOP " + b"x" * 2**20 + b"\r\n")
                self.fail("more was taken than there is room for")

        await deferToThread(send)
        self.assertLess(resident(self.server.network.pid) - before, 8 * 2**20)
        await self.assert_serves("ann")
        released.set()
        connection.hang_up()
        await self.assert_all_ended()

    async def test_a_client_that_leaves_during_its_login_leaves_no_connection_behind(self) -> None:
        self.keep("slow", script(*UNTIL_PASS))
        await self.start_fronts({})
        member = self.scripted["slow"]
        for way_out in (Conversation.abort, Conversation.half_close):
            connection = await self.connect_to(1)
            await deferToThread(connection.send, self.login("slow") + b"QUIT\r\n")
            await wait_until(
                lambda: any(b"PASS" in caller.received for caller in member.callers), 5, "PASS"
            )
            way_out(connection)
            if way_out is Conversation.half_close:
                # It is still listening, and then it is not.
                member.callers[0].say(b"+OK \r\n")
                self.assertEqual(await deferToThread(connection.read_some, 10), b"+OK \r\n+OK ")
                connection.abort()
            await self.assert_all_ended()
            member.callers.clear()
        await self.in_log(1, f"abandoned user={self.logins['slow']} ")
