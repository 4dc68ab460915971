"""The POP3 server as a tac file: twistd -n -y qmailldap-pop3.tac

The options come from the environment, so that one file serves several hosts: QMAILLDAP_CONTROL,
QMAILLDAP_USER, QMAILLDAP_GROUP and QMAILLDAP_GUESSES, and, separated by blanks where they are several,
QMAILLDAP_LISTEN, QMAILLDAP_POP3S and QMAILLDAP_CERTIFICATE. Or write them here.
"""

import os

from twisted.application.service import Application

from qmailldap.service import Options, makeService

options = Options()
for name in ("listen", "pop3s", "certificate"):
    options[name] = os.environ.get(f"QMAILLDAP_{name.upper()}", "").split()
for name in ("user", "group", "guesses"):
    options[name] = os.environ.get(f"QMAILLDAP_{name.upper()}", "")
options.postOptions()

application = Application("qmailldap-pop3")
makeService(options).setServiceParent(application)
