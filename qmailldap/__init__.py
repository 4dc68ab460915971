"""qmailldap: a POP3 server that takes the place of qmail-ldap's auth_pop chain."""

__version__ = "0.1.0.dev0"
