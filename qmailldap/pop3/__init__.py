"""The POP3 protocol: commands, transfer, limits.

Knows of the rest only what `qmailldap.interfaces` promises and how a refusal reads: no directory,
no Maildir, no file may enter here.
"""

from qmailldap.pop3.factory import POP3Factory
from qmailldap.pop3.limits import Limits
from qmailldap.pop3.protocol import POP3

__all__ = ["POP3", "Limits", "POP3Factory"]
