"""One worker of a server with --workers, by the path of this file: only that server starts it."""

from __future__ import annotations

import sys
from pathlib import Path

_PARENT = str(Path(__file__).resolve().parents[2])

if __name__ == "__main__":
    # Where the server itself was found, which need not be where Python looks.
    if _PARENT not in sys.path:
        sys.path.append(_PARENT)
    from qmailldap.workers.worker import run

    sys.exit(run(sys.argv[1:]))
