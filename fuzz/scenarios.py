"""Sessions that go as they should: where a search for those that do not may begin."""

from __future__ import annotations

import attrs

from fuzz.actions import WORDS, Action
from fuzz.site import Options

__all__ = ["SCENARIOS", "Scenario", "words"]

SETTLE = Action("settle")


def words(*lines: bytes) -> list[Action]:
    """Some of `WORDS`, each answered before the next."""
    return [each for line in lines for each in (Action("word", bytes([WORDS.index(line)])), SETTLE)]


_IN = words(b"USER joe\r\n", b"PASS correct-horse\r\n")
_READ = words(b"STAT\r\n", b"RETR 2\r\n", b"DELE 1\r\n", b"QUIT\r\n")
_BY_PLAIN = words(b"AUTH PLAIN AGpvZQBjb3JyZWN0LWhvcnNl\r\n")
_BY_LOGIN = words(b"AUTH LOGIN\r\n", b"am9l\r\n", b"Y29ycmVjdC1ob3JzZQ==\r\n")
_STLS = [*words(b"STLS\r\n"), Action("tls"), SETTLE]
_RIGHT = Action("challenge", b"\0")


@attrs.frozen
class Scenario:
    """``seen`` is part of a line that is in the log afterwards."""

    seen: str
    actions: list[Action]
    options: Options = attrs.field(factory=Options)


SCENARIOS = {
    "pass": Scenario("method=pass tls=no", [*_IN, *_READ]),
    "listed": Scenario(
        "deleted=0 left=2",
        [
            *_IN,
            *words(
                b"LIST\r\n", b"UIDL\r\n", b"TOP 2 10\r\n", b"DELE 1\r\n", b"RSET\r\n", b"QUIT\r\n"
            ),
        ],
    ),
    "plain": Scenario("method=plain tls=no", [*_BY_PLAIN, *_READ]),
    "login": Scenario("method=login tls=no", [*_BY_LOGIN, *_READ]),
    "cram-md5": Scenario(
        "method=cram-md5",
        [*words(b"AUTH CRAM-MD5\r\n"), _RIGHT, SETTLE, *_READ],
        Options(cleartext=1),
    ),
    "apop": Scenario(
        "method=apop",
        [Action("connect", b"\0"), SETTLE, _RIGHT, SETTLE, *_READ],
        Options(cleartext=2),
    ),
    "stls": Scenario("method=pass tls=TLSv1.3", [*_STLS, *_IN, *_READ]),
    "required": Scenario(
        "method=plain tls=TLSv1.3", [*_STLS, *_BY_PLAIN, *_READ], Options(requires_tls=True)
    ),
    "refused": Scenario("reason=tls-required", [*_IN], Options(requires_tls=True)),
    "pop3s": Scenario("method=pass tls=TLSv1.3", [SETTLE, *_IN, *_READ], Options(tls=True)),
    "proxied": Scenario("peer=198.51.100.9", [*_IN, *_READ], Options(haproxy=True)),
    "proxied-pop3s": Scenario(
        "peer=198.51.100.9", [SETTLE, *_IN, *_READ], Options(tls=True, haproxy=True)
    ),
    "no-header": Scenario(
        "reason=proxy-header",
        [Action("connect", b"\x80"), *words(b"USER joe\r\n")],
        Options(haproxy=True),
    ),
    "forwarded": Scenario(
        "end=member-closed",
        [
            *words(b"USER ann\r\n", b"PASS correct-horse\r\n"),
            Action("member", b"\1"),
            *[each for _ in range(3) for each in (Action("member_says", b"+OK\r\n"), SETTLE)],
            *words(b"QUIT\r\n"),
            Action("member_says", b"+OK\r\n"),
            Action("member", b"\1"),
        ],
    ),
    "guessed": Scenario(
        "reason=too-many-guesses",
        [
            each
            for _ in range(3)
            for each in (
                Action("connect", b"\0"),
                *words(b"USER joe\r\n"),
                *words(b"PASS wrong\r\n"),
                Action("wait", b"\6"),
                *words(b"AUTH PLAIN AGpvZQB3cm9uZw==\r\n"),
                Action("wait", b"\6"),
            )
        ],
    ),
    "crowd": Scenario(
        "reason=too-many-connections", [Action("connect", b"\0"), Action("connect", b"\0")] * 3
    ),
    "sessions": Scenario(
        "reason=too-many-sessions",
        [each for host in range(3) for each in (Action("connect", bytes([host])), *_IN)],
    ),
    "slow": Scenario("reason=login-time", [Action("connect", b"\0"), Action("wait", b"\x09")]),
    "no-handshake": Scenario(
        "reason=handshake-time",
        [*words(b"STLS\r\n"), Action("wait", b"\x07"), Action("wait", b"\x07")],
    ),
    "silent-directory": Scenario(
        "reason=directory-unreachable",
        [Action("search", b"\5"), *_IN, *[Action("wait", b"\x08")] * 2],
    ),
    "left-at-quit": Scenario(
        "end=quit retrieved=0 octets=0 deleted=1",
        [
            *_IN,
            *words(b"DELE 1\r\n"),
            Action("threads", b"\1"),
            *words(b"QUIT\r\n"),
            Action("reset"),
            SETTLE,
        ],
        Options(tls=True),
    ),
    "stopped": Scenario(
        "end=stopped", [*_IN, *words(b"DELE 1\r\n"), Action("stop", b"\2"), Action("wait", b"\4")]
    ),
    "stopped-at-quit": Scenario(
        "end=quit retrieved=0 octets=0 deleted=1",
        [
            *_IN,
            *words(b"DELE 1\r\n"),
            Action("threads", b"\1"),
            *words(b"QUIT\r\n"),
            Action("stop", b"\0"),
            Action("wait", b"\4"),
            Action("threads", b"\0"),
        ],
        Options(tls=True),
    ),
    "kicked": Scenario("end=kicked", [*_IN, *words(b"DELE 1\r\n"), Action("kick", b"\0")]),
    "stopped-at-a-members": Scenario(
        "end=stopped",
        [
            *words(b"USER ann\r\n", b"PASS correct-horse\r\n"),
            Action("member", b"\1"),
            *[each for _ in range(3) for each in (Action("member_says", b"+OK\r\n"), SETTLE)],
            Action("stop", b"\2"),
            Action("wait", b"\4"),
        ],
    ),
    "deaf": Scenario(
        "end=idle", [*_IN, Action("deaf"), Action("flood", bytes([WORDS.index(b"RETR 2\r\n"), 9]))]
    ),
}
