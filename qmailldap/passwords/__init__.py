"""Stored password values: what userPassword holds, and whether a password matches it.

`parse_password` turns a value into a `StoredPassword`; `Decoys` gives values to spend the same time
on for users that do not exist; `why_no_match` says why nothing matches a value. The rules are
reference.md, "Password values". Nothing of LDAP, POP3 or Twisted may enter this room, and no
password, salt or digest may leave it: not by a repr, not by an exception. The one way out is
`clear_text`, for challenges that nothing else can answer. Verifying blocks; whoever calls it finds
a thread, unless the value is quick.
"""

from qmailldap.passwords.clear import clear_text
from qmailldap.passwords.decoys import Decoys
from qmailldap.passwords.mismatch import why_no_match
from qmailldap.passwords.parser import DEFAULT_DECOY, load_libraries, parse_password
from qmailldap.passwords.stored import MalformedHash, StoredPassword

__all__ = [
    "DEFAULT_DECOY",
    "Decoys",
    "MalformedHash",
    "StoredPassword",
    "clear_text",
    "load_libraries",
    "parse_password",
    "why_no_match",
]
