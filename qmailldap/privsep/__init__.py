"""Privilege separation: who touches mail, and with whose rights.

`broker` is the one process that stays root; it forks `keeper`s, one for each owner of mail, and
lets `shadow` check the passwords of local users. These, and `wire` through which they are spoken
to, are the standard library and `qmailldap.maildir` only. `rights`, `pool` and `channel` are their
other side, in the process that speaks to the network.
"""
