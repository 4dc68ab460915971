"""What a client hears when it is we who end its session, and what the log has of it."""

from __future__ import annotations

import attrs

__all__ = ["KICKED", "STOPPED", "Farewell"]


@attrs.frozen
class Farewell:
    """``end`` is that of the log's line, ``words`` stand behind -ERR (RFC 3206: try again)."""

    end: str
    words: bytes


STOPPED = Farewell("stopped", b"[SYS/TEMP] the server is being stopped, try again")
KICKED = Farewell("kicked", b"[SYS/TEMP] the session was ended by the administrator")
