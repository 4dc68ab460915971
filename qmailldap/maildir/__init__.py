"""Maildirs: their listing, their messages, and what QUIT does to them.

`names` knows what a file's name says, `storage` does all that is done to files, `message` and
`mailbox` are their asynchronous front. Neither POP3 nor LDAP may enter: the protocol knows of this
room what `qmailldap.interfaces` says.
"""

from qmailldap.maildir.mailbox import MaildirMailbox, open_mailbox
from qmailldap.maildir.message import MessageChanged, StoredMessage
from qmailldap.maildir.storage import MailboxCorrupted, MailboxMissing, Maildir

__all__ = [
    "MailboxCorrupted",
    "MailboxMissing",
    "Maildir",
    "MaildirMailbox",
    "MessageChanged",
    "StoredMessage",
    "open_mailbox",
]
