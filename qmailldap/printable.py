"""Text from outside, made safe to stand in a log line or on a terminal."""

from __future__ import annotations

import re

__all__ = ["printable"]

_PLAIN = re.compile(rb"[A-Za-z0-9@._+=/:~#-]+\Z")


def printable(value: bytes, most: int = 128) -> str:
    """``value`` as it is where that is safe, else quoted, with ``\\xNN`` for what cannot be shown.

    At most ``most`` octets of it are shown; the rest is replaced by an ellipsis. What comes back
    never holds a space outside quotes, a control character or a character beyond ASCII.
    """
    if len(value) <= most and _PLAIN.match(value):
        return value.decode("ascii")
    shown = "".join(
        chr(octet) if 32 <= octet < 127 and octet not in b'"\\' else f"\\x{octet:02x}"
        for octet in value[:most]
    )
    return f'"{shown}"' if len(value) <= most else f'"{shown}"...'
