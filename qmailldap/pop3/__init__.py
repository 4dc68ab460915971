"""The POP3 protocol: commands, transfer, SASL, STLS, limits.

Knows of the rest only what `qmailldap.interfaces` promises, how a refusal reads, and the numbers of
the control file pop3limits: no directory, no Maildir, no file may enter here.
"""

from qmailldap.pop3.admission import Admission, Place
from qmailldap.pop3.factory import POP3Factory
from qmailldap.pop3.limits import Limits
from qmailldap.pop3.protocol import POP3

__all__ = ["POP3", "Admission", "Limits", "POP3Factory", "Place"]
