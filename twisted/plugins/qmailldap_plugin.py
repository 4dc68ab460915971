"""Makes `qmailldap-pop3` known to twistd."""

from twisted.application.service import ServiceMaker

qmailldap_pop3 = ServiceMaker(
    "qmailldap POP3 server",
    "qmailldap.service",
    "A POP3 server for qmail-ldap mailboxes.",
    "qmailldap-pop3",
)
