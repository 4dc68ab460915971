"""The control directory: small files, one fact each, read into one frozen object.

The files, their kinds and their defaults are those of reference.md, "Control files". `files` is the
table of them, from which everything else follows; `values` says what the text of one means,
`folder` reads the directory by the rules of the kinds, `facts` is what comes of it, and `snapshot`
is all of it as it was at one moment, for those who may not read it themselves. `inspection`,
`doubts`, `rights` and `strangers` look at a directory for a person who has to put it right; they
are not imported here, as no server and no login needs them.
"""

from qmailldap.control.facts import (
    POP3_PORT,
    Control,
    ControlError,
    POP3Limits,
    Route,
    ServerAddress,
)
from qmailldap.control.files import read_control
from qmailldap.control.folder import DEFAULT_CONTROL, default_control
from qmailldap.control.snapshot import ControlSnapshot
from qmailldap.control.values import DOT_MODES

__all__ = [
    "DEFAULT_CONTROL",
    "DOT_MODES",
    "POP3_PORT",
    "Control",
    "ControlError",
    "ControlSnapshot",
    "POP3Limits",
    "Route",
    "ServerAddress",
    "default_control",
    "read_control",
]
