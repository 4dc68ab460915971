"""What can be done to a server and to all around it: plain data, and as octets.

The octets are for engines that know of nothing else, and for the corpus: any octets are some
actions, and so a change of few octets is mostly a change of one action.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

__all__ = ["ACTIONS", "MOST_ACTIONS", "WORDS", "Action", "decode", "encode"]

MOST_ACTIONS = 60
"""Of one series; more would say nothing new and take their time."""

ACTIONS = {
    # Clients.
    "connect": 1,
    "switch": 1,
    "word": 1,
    "say": 255,
    "flood": 2,
    "challenge": 1,
    "in_clear": 255,
    "tls": 0,
    "leave_tls": 0,
    "half_close": 0,
    "reset": 0,
    "deaf": 0,
    "hear": 0,
    # Time, and how much of what is under way happens.
    "turn": 0,
    "settle": 0,
    "wait": 1,
    # The directory, the threads, and another member.
    "search": 1,
    "bind": 1,
    "push": 255,
    "record": 255,
    "directory": 1,
    "threads": 1,
    "member": 1,
    "member_says": 255,
    # The administrator.
    "stop": 1,
    "kick": 1,
}
"""What there is, and how many octets it takes at most: those of 255 are sent with their length."""

_NAMES = tuple(ACTIONS)

WORDS = (
    b"USER joe\r\n",
    b"PASS correct-horse\r\n",
    b"PASS wrong\r\n",
    b"QUIT\r\n",
    b"STAT\r\n",
    b"RETR 1\r\n",
    b"RETR 2\r\n",
    b"DELE 1\r\n",
    b"LIST\r\n",
    b"UIDL\r\n",
    b"TOP 2 10\r\n",
    b"NOOP\r\n",
    b"RSET\r\n",
    b"LAST\r\n",
    b"CAPA\r\n",
    b"STLS\r\n",
    b"AUTH\r\n",
    b"AUTH PLAIN\r\n",
    b"AUTH PLAIN =\r\n",
    b"AUTH PLAIN AGpvZQBjb3JyZWN0LWhvcnNl\r\n",
    b"AUTH PLAIN AGpvZQB3cm9uZw==\r\n",
    b"AGpvZQBjb3JyZWN0LWhvcnNl\r\n",
    b"AUTH LOGIN\r\n",
    b"AUTH LOGIN am9l\r\n",
    b"am9l\r\n",
    b"Y29ycmVjdC1ob3JzZQ==\r\n",
    b"d3Jvbmc=\r\n",
    b"*\r\n",
    b"=\r\n",
    b"AUTH CRAM-MD5\r\n",
    b"AUTH CRAM-MD5 =\r\n",
    b"APOP joe 0123456789abcdef0123456789abcdef\r\n",
    b"XCLIENT ADDR=198.51.100.9 PORT=4711 SESSION=abc TTL=3\r\n",
    b"USER ann\r\n",
    b"USER sue\r\n",
    b"PASS battery-staple\r\n",
    b"USER tom\r\n",
    b"USER nobody\r\n",
    b"PASS\r\n",
    b'USER a\x1b[2J\x00\xff" peer=192.0.2.1\r\n',
    b"\r\n",
    b"\n",
    b"\r",
    b"USER joe\r\nPASS correct-horse\r\nSTAT\r\nRETR 2\r\nDELE 1\r\nQUIT\r\n",
    b"STLS\r\nUSER joe\r\nPASS correct-horse\r\n",
    b"PROXY TCP4 198.51.100.9 192.0.2.1 4711 110\r\n",
    b"PROXY TCP4 1 2 3 4\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"x" * 300,
    b"x" * 300 + b"\r\n",
)
"""Lines that mean something, so that nobody has to find them letter by letter."""


@attrs.frozen
class Action:
    """One of `ACTIONS`, and its octets."""

    name: str
    value: bytes = b""


def decode(octets: bytes) -> list[Action]:
    """The actions that any octets stand for, `MOST_ACTIONS` at most."""
    actions: list[Action] = []
    at = 0
    while at < len(octets) and len(actions) < MOST_ACTIONS:
        name = _NAMES[octets[at] % len(_NAMES)]
        at += 1
        size = ACTIONS[name]
        if size == 255:
            size = octets[at] if at < len(octets) else 0
            at += 1
        actions.append(Action(name, octets[at : at + size]))
        at += size
    return actions


def encode(actions: Iterable[Action]) -> bytes:
    """Octets that `decode` makes these actions of."""
    octets = bytearray()
    for action in actions:
        octets.append(_NAMES.index(action.name))
        if ACTIONS[action.name] == 255:
            octets.append(len(action.value))
        octets += action.value
    return bytes(octets)
