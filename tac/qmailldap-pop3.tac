"""The POP3 server as a tac file: twistd -n -y qmailldap-pop3.tac

The options come from the environment, so that one file serves several hosts: QMAILLDAP_CONTROL,
QMAILLDAP_USER, QMAILLDAP_GROUP, QMAILLDAP_GUESSES and QMAILLDAP_WORKERS, and, separated by blanks
where they are several, QMAILLDAP_LISTEN, QMAILLDAP_POP3S and QMAILLDAP_CERTIFICATE. Or write them
here, as on the command line: each is below, with its default, or an example where it has none. What
is written here comes first, and the environment after it.
"""

import os

from twisted.application.service import Application

from qmailldap.service import Options, makeService

arguments = [
    # The directory with the control files.
    # "--control=/var/qmail/control",
    #
    # Where to listen, and where to speak TLS from the start; may be repeated. By default tcp:110,
    # unless there is --pop3s, which has none.
    # "--listen=tcp:110",
    # "--pop3s=tcp:995",
    #
    # Certificate and key, in place of the control file cert.pem; may be repeated.
    # "--certificate=/etc/ssl/pop.example.org.pem",
    #
    # As whom to speak to the network: by default qmaild, else nobody, and the user's own group.
    # "--user=qmaild",
    # "--group=nofiles",
    #
    # A file for the scores of wrong passwords; by default in memory.
    # "--guesses=/var/lib/qmailldap/guesses",
    #
    # How many processes serve; 0: one on each core.
    # "--workers=1",
    #
    # Numbers of each of them. Of --hash-threads the default is one for each processor, 2 to 4.
    # "--keepers=64",
    # "--listings=64",
    # "--ldap-connections=4",
    # "--mail-threads=10",
    # "--hash-threads=2",
    #
    # Seconds in which the server has ended once it is told to.
    # "--grace=10",
    #
    # Where the log goes, by default as twistd is told, and its format: text or json.
    # "--log=stderr",
    # "--log-format=text",
    #
    # A UNIX socket for qmailldap sessions, kick and status; by default none.
    # "--admin=/run/qmailldap/admin",
    #
    # Metrics, health and a page for people by HTTP, on an endpoint; by default none. With names of
    # users only if that is wanted.
    # "--status=tcp:8110:interface=127.0.0.1",
    # "--status-users",
]
for name in ("user", "group", "guesses", "workers", "listen", "pop3s", "certificate"):
    values = os.environ.get(f"QMAILLDAP_{name.upper()}", "")
    arguments += [f"--{name}={value}" for value in values.split()]

options = Options()
options.parseOptions(arguments)

application = Application("qmailldap-pop3")
makeService(options).setServiceParent(application)
