"""The POP3 server as a tac file: twistd -n -y qmailldap-pop3.tac

The options come from the environment, so that one file serves several hosts: QMAILLDAP_CONTROL,
QMAILLDAP_USER, QMAILLDAP_GROUP, QMAILLDAP_GUESSES and QMAILLDAP_WORKERS, and, separated by blanks
where they are several, QMAILLDAP_LISTEN, QMAILLDAP_POP3S and QMAILLDAP_CERTIFICATE. Or write them
here, as on the command line.
"""

import os

from twisted.application.service import Application

from qmailldap.service import Options, makeService

arguments = []
for name in ("user", "group", "guesses", "workers", "listen", "pop3s", "certificate"):
    values = os.environ.get(f"QMAILLDAP_{name.upper()}", "")
    arguments += [f"--{name}={value}" for value in values.split()]

options = Options()
options.parseOptions(arguments)

application = Application("qmailldap-pop3")
makeService(options).setServiceParent(application)
