"""States of a server, made up: an ordinary one, and what only an attacker would call things."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import strategies as st
from twisted.web.template import flattenString

from qmailldap.figures import LAST_MINUTES, Minute
from qmailldap.status.page import html
from qmailldap.status.state import Place, Places, Refused, Sessions, State, together_of

__all__ = ["NOW", "page_of", "places", "state", "texts"]

NOW = 1_700_000_000.0

_HOSTILE = (
    "<script>alert(1)</script>",
    "</style><script>",
    '"><img src=x onerror=alert(1)>',
    "' onload='alert(1)",
    "]]>",
    "<!--",
    "&lt;b&gt;&#60;",
    "javascript:alert(1)",
    "a\nb\r\nSet-Cookie: x=1",
    "\x1b[2J\x1b]0;title\x07",
    "\u202egnp.exe",
    "\x00\ud800",
    "{}%s{0}",
    "x" * 100_000,
)

texts = st.sampled_from(_HOSTILE) | st.text(max_size=40)
"""What names, addresses and servers may say."""

_times = st.none() | st.floats(0, 2e9)
places = st.builds(
    Place,
    name=texts,
    up=st.booleans(),
    latency=st.none() | st.floats(0, 1e6),
    failed=_times,
    why=texts,
    sessions=st.integers(0, 10**9),
)


def state(**changes: Any) -> State:
    """Nothing is wrong, and not much goes on."""
    last = int(NOW) // 60
    quiet = State(
        now=NOW,
        name="mail1.example.org",
        version="1.2.3",
        workers=2,
        silent=(),
        started=NOW - 90_000,
        loaded=NOW - 600,
        sessions=Sessions(local=3, forwarded=2, waiting=1),
        logins=1234,
        refused=56,
        octets=7_890_000_000,
        messages=4321,
        servers=together_of([Place(name="ldap1:389", up=True, latency=0.0021)] * 2),
        members=(),
        refusals=(),
        minutes=tuple(
            Minute((last - LAST_MINUTES + 1 + place) * 60, place % 7, place % 3, 10 + place % 5)
            for place in range(LAST_MINUTES)
        ),
    )
    return attrs.evolve(quiet, **changes)


def page_of(shown: State, *, users: bool = False, every: bool = False) -> str:
    """The page, as a browser gets it."""
    made: list[bytes] = []
    flattened = flattenString(None, html(shown, users=users, every=every))
    flattened.addCallback(made.append)
    return made[0].decode("utf-8")


def refused(reason: str = "wrong-credentials", peer: str = "192.0.2.7", user: str = "") -> Refused:
    return Refused(time=NOW - 5, reason=reason, peer=peer, user=user)


def one(name: str = "ldap2:389", **fields: Any) -> Places:
    """As one process sees it."""
    return Places.of_all([Place(name=name, **{"up": True, **fields})])
