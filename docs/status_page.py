"""Makes docs/status-page.png: the status page of a server that there is not, an hour of it.

    TZ=UTC python docs/status_page.py

Needs chromium. Where the page is changed, the picture is to be made anew.
"""

from __future__ import annotations

import math
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

from twisted.web.template import flattenString

from qmailldap.figures import LAST_MINUTES, Minute
from qmailldap.status.page import html
from qmailldap.status.state import Place, Refused, Sessions, State, together_of

PICTURE = Path(__file__).parent / "status-page.png"
SIZE = "1280,1480"

NOW = 1_767_607_509.0
"""A Monday morning."""

_GUESSES = range(37, 42)
"""Minutes in which somebody tries passwords."""


def minutes() -> list[Minute]:
    made = random.Random(11)
    last = int(NOW) // 60
    hour = []
    for place in range(LAST_MINUTES):
        usual = 60 + 25 * math.sin(place / 9) + 12 * math.sin(place / 2.3)
        logins = int(made.gauss(usual, 6))
        refusals = int(made.expovariate(0.5)) + (made.randint(22, 40) if place in _GUESSES else 0)
        sessions = int(220 + 1.9 * logins + made.gauss(0, 6))
        hour.append(Minute((last - LAST_MINUTES + 1 + place) * 60, logins, refusals, sessions))
    return hour


def refusals() -> list[Refused]:
    made = random.Random(3)
    reasons = ["wrong-credentials"] * 4 + ["too-many-guesses", "account-disabled", "login-time"]
    peers = ["203.0.113.7", "198.51.100.23", "2001:db8:7::41", "203.0.113.150"]
    return [
        Refused(
            time=NOW - 14 - 41 * place - made.randint(0, 30),
            reason=made.choice(reasons),
            peer=made.choice(peers),
        )
        for place in range(6)
    ]


def state() -> State:
    hour = minutes()
    return State(
        now=NOW,
        name="mail1.example.org",
        version="0.1.0",
        workers=2,
        silent=(),
        started=NOW - 271_000,
        loaded=NOW - 8200,
        sessions=Sessions(local=hour[-1].sessions - 135, forwarded=117, waiting=9),
        logins=182_734,
        refused=5120,
        octets=84_312_554_231,
        messages=1_204_331,
        servers=together_of(
            [
                Place(
                    name="ldap1.example.org:389",
                    up=True,
                    latency=0.0021,
                    failed=NOW - 9000,
                    why="connection refused",
                ),
                Place(name="ldap2.example.org:389", up=True, latency=0.0034),
            ]
        ),
        members=together_of(
            [
                Place(name="192.0.2.12:110", up=True, sessions=74),
                Place(name="192.0.2.13:110", up=True, sessions=43),
            ]
        ),
        refusals=tuple(refusals()),
        minutes=tuple(hour),
    )


def main() -> None:
    page: list[bytes] = []
    flattened = flattenString(None, html(state(), users=False, every=False))
    flattened.addCallback(page.append)
    program = shutil.which("chromium") or "chromium"
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "page.html")
        file.write_bytes(b"<!DOCTYPE html>\n" + page[0])
        subprocess.run(
            [
                *(program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *(f"--user-data-dir={directory}/profile", f"--window-size={SIZE}"),
                *(f"--screenshot={PICTURE}", f"file://{file}"),
            ],
            check=True,
            capture_output=True,
        )


if __name__ == "__main__":
    main()
