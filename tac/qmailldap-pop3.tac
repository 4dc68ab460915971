"""The POP3 server as a tac file: twistd -n -y qmailldap-pop3.tac

The control directory, the endpoints and the user come from the environment, so that one file serves
several hosts: QMAILLDAP_CONTROL, QMAILLDAP_LISTEN with endpoints separated by blanks, QMAILLDAP_USER
and QMAILLDAP_GROUP. Or write them here.
"""

import os

from twisted.application.service import Application

from qmailldap.service import DEFAULT_LISTEN, Options, makeService

options = Options()
options["listen"] = os.environ.get("QMAILLDAP_LISTEN", DEFAULT_LISTEN).split()
options["user"] = os.environ.get("QMAILLDAP_USER", "")
options["group"] = os.environ.get("QMAILLDAP_GROUP", "")

application = Application("qmailldap-pop3")
makeService(options).setServiceParent(application)
