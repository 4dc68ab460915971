"""Privilege separation: who touches mail, and with whose rights.

`broker` is the one process that stays root; it forks `keeper`s, one for each owner of mail, lets
`shadow` check the passwords of local users, and `certificate_files` read certificates again. These,
and `wire` through which they are spoken to, are the standard library and `qmailldap.maildir` only.
`rights`, `pool` and `channel` are their other side, in the process that speaks to the network.
"""
