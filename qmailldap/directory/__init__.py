"""The LDAP side of a login: find the entry, and, where the site rebinds, prove its password.

Only octets, entries and yes or no leave this room; it knows nothing of accounts, POP3 or refusals.
From the outside in: `directory` decides which server is asked, `_lookups` has it asked but once for
equal logins, `_server` is one server and its health, `_pool` its connections, `_client` one
connection, `_operations` what is asked on it, `_frames` its octets, cut into messages, `_codec` the
messages of a login's search; `search` and `results` say without any I/O what is asked and what an
answer means, `_telling` what of it is shown in the log, `tls` whose certificates are trusted.
`embedded` is a small server of our own for the demo and for tests; it is not imported here, as it
takes its time to load.
"""

from qmailldap.directory.directory import Answer, Directory
from qmailldap.directory.errors import DirectoryUnavailable, EntryTooLarge
from qmailldap.directory.search import Search, load_filters
from qmailldap.directory.tls import tls_by_server

__all__ = [
    "Answer",
    "Directory",
    "DirectoryUnavailable",
    "EntryTooLarge",
    "Search",
    "load_filters",
    "tls_by_server",
]
